"""Which masks are measured, of which image files they are, and what their values mean."""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path

from segfw.base.case_files import Sources
from segfw.base.records import UserError
from segfw.base.words import listed
from segfw.dataset.annotated_structures import sources_with
from segfw.dataset.bids import called_alike
from segfw.dataset.dataset_json import DESCRIPTION_FILE, channels_of, read_description
from segfw.dataset.image_files import image_files, mask_stem
from segfw.dataset.labels import LabelMap, LabelSet
from segfw.dataset.look_up import only_structures
from segfw.dataset.pairing import cases_of, pair
from segfw.dataset.patient_folders import visits_in
from segfw.evaluation.mask_facts import read_mask_facts, require_in_masks, structures_in_masks
from segfw.evaluation.pairs import annotated_of, known_labels, label_maps_of, labels_in_masks, listing, masks_by_id
from segfw.images.formats import UnreadableFile, has_names, split_ending

ONE_CHANNEL = "image"  # what the only channel is called where nobody names it


@dataclass(frozen=True, kw_only=True)
class MaskCase:
    """A mask, and the files of the image that it is of, one a channel; none if only its shape is measured.

    ``label_map`` says what values in this mask mean; ``annotated`` are the structures that somebody drew in it, None
    where that is all of them.
    """

    id: str
    mask: Path
    images: tuple[Path, ...] = ()
    label_map: LabelMap = ()
    annotated: tuple[str, ...] | None = None

    @property
    def files(self) -> tuple[Path, ...]:
        """All that it is measured from."""
        return self.mask, *self.images

    @property
    def sources(self) -> Sources:
        """What tells whether it has changed since."""
        return sources_with(self.annotated, self.files)


@dataclass(frozen=True, kw_only=True)
class FoundMasks:
    """All masks, what their values mean, the names of the channels (none without images), and doubts in words."""

    cases: tuple[MaskCase, ...]
    labels: LabelSet
    channels: tuple[str, ...] = ()
    notes: tuple[str, ...] = ()


def find_masks(masks: Path, images: Path | None = None, label_names: Path | None = None) -> FoundMasks:
    """The masks in a folder, or one file, each with its image; UserError if there is none, or no image of any."""
    if masks.is_file():
        if not split_ending(masks)[1] and not has_names(masks):
            raise UnreadableFile(f"{masks}: unknown ending; give a mask, or the folder that holds the masks")
        files = {mask_stem(masks): masks}
        folder = masks.parent
    else:
        files = masks_by_id(masks)
        folder = masks
    pairs = {case: (path, path) for case, path in sorted(files.items())}
    labels = known_labels(folder, folder, label_names)
    maps = label_maps_of(pairs, folder, labels, label_names)
    notes: list[str] = []
    if labels is None:
        drawn = ((case, path) for case, (path, _) in pairs.items())
        labels, notes = labels_in_masks(folder, drawn, maps, "the masks", skips_damaged=True)
    channel_files = {} if images is None else images_of_cases(images, files, is_one=masks.is_file())
    channels = () if images is None else _channel_names(images, max(map(len, channel_files.values())))
    annotated = annotated_of(pairs, folder, labels)
    cases = [
        MaskCase(
            id=case,
            mask=path,
            images=channel_files.get(case, ()),
            label_map=maps.get(case, ()),
            annotated=annotated.get(case),
        )
        for case, (path, _) in pairs.items()
    ]
    return FoundMasks(cases=tuple(cases), labels=labels, channels=channels, notes=tuple(notes))


def measured_structures(
    found: FoundMasks, masks: Path, asked: Sequence[str] | None
) -> tuple[FoundMasks, tuple[str, ...] | None]:
    """The masks with what must be said of them, and names of the structures that alone are measured (None: all).

    Of masks that were predicted for some structures nothing is known of the others; they are not absent. UserError
    where one of these is ``asked`` for.
    """
    beside = masks if masks.is_dir() else masks.parent
    facts = read_mask_facts(beside)
    made_for = structures_in_masks(found.labels, beside, facts) if facts.only else ()
    only = only_structures(found.labels, asked, masks) if asked else made_for or None
    if not made_for:
        return found, only
    require_in_masks(masks, made_for, only or ())
    note = f"the masks were predicted for {listed(made_for, 'and')} alone, and nothing else is measured"
    return replace(found, notes=(*found.notes, note)), only


def images_of_cases(images: Path, masks: Mapping[str, Path], *, is_one: bool = False) -> dict[str, tuple[Path, ...]]:
    """The files of each case's image, CASE or CASE_0000, CASE_0001, ..., or a patient's folder; where names differ,
    those that the names of a data set would be paired with. One image file is that of one mask file (``is_one``),
    whatever they are called.

    Raises UserError if no case has any.
    """
    cases = tuple(masks)
    if images.is_file():
        files = [images]
        if is_one:
            return {cases[0]: (images,)}
    else:
        files = image_files(images)
    by_stem = {split_ending(path)[0]: path for path in files}
    if not any(path.is_file() for path in files):  # a folder a patient
        by_stem |= {visit.case: visit.images[0] for visit in visits_in(images)[0] if visit.images}
    numbered: dict[str, list[Path]] = {}
    for stem in sorted(by_stem):
        match = re.fullmatch(r"(.+)_\d{4}", stem)
        if match:
            numbered.setdefault(match[1], []).append(by_stem[stem])
    of_bids = called_alike(cases, {*by_stem, *numbered})
    found: dict[str, tuple[Path, ...]] = {}
    for case in cases:
        if case in by_stem:
            found[case] = (by_stem[case],)
        elif case in numbered:
            found[case] = tuple(numbered[case])
        elif case in of_bids and of_bids[case] in by_stem:
            found[case] = (by_stem[of_bids[case]],)
        elif case in of_bids:
            found[case] = tuple(numbered[of_bids[case]])
    if len(found) < len(cases):
        as_data_set = _paired(files, masks)
        if len(as_data_set) > len(found):
            found = as_data_set
    if not found:
        raise UserError(
            f"{images}: no image is named like a mask (here {listing(by_stem)}; the masks are {listing(cases)}); check "
            "that both folders belong together, or leave out --images"
        )
    return found


def _paired(files: Sequence[Path], masks: Mapping[str, Path]) -> dict[str, tuple[Path, ...]]:
    """The images of each mask as a data set of such names is read: volume-7 and segmentation-7, P1_t1 and P1_seg."""
    case_of = {path: case for case, path in masks.items()}
    paired = pair([path for path in files if path.is_file()], tuple(masks.values()))
    return {case_of[case.label]: case.images for case in cases_of(paired) if case.label is not None}


def _channel_names(images: Path, number: int) -> tuple[str, ...]:
    """As dataset.json beside the images calls them, if it names as many; else by their numbers."""
    try:
        description = read_description(images.resolve().parent / DESCRIPTION_FILE)
        known = () if description is None else tuple(each.name for each in channels_of(description, images))
    except UserError:  # names are not worth the measures
        known = ()
    if len(known) == number and len(set(known)) == number:
        return known
    return (ONE_CHANNEL,) if number == 1 else tuple(f"channel_{index}" for index in range(number))
