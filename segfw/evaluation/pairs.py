"""Which masks belong together, by name, and what the labels in them are called."""

from __future__ import annotations

from collections.abc import Collection, Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path

import numpy as np

from segfw.base.file_names import BIDS_FOLDER, FORMAT_FOLDERS
from segfw.base.progress import progress
from segfw.base.records import UserError
from segfw.base.words import count
from segfw.dataset.annotated_structures import ANNOTATED_FIELD, annotated_in_case, read_annotated
from segfw.dataset.bids import called_alike, lookup_tables, masks_by_session
from segfw.dataset.cases import Case
from segfw.dataset.dataset_json import (
    DESCRIPTION_FILE,
    label_map_of,
    read_description,
    read_label_maps,
    read_labels,
)
from segfw.dataset.image_files import image_files, mask_files, mask_stem
from segfw.dataset.label_names import TABLE_FILES, label_table_of, read_label_table
from segfw.dataset.labels import LABELS_FILE, LabelMap, LabelSet
from segfw.dataset.layouts import find_dataset, find_dataset_of_masks
from segfw.dataset.named_structures import labels_by_names, structure_map_above
from segfw.dataset.patient_folders import visits_in
from segfw.dataset.structure_map import STRUCTURES_FILE
from segfw.evaluation.mask_facts import folder_of_masks
from segfw.evaluation.masks import IDS_SHOWN, mask_values, read_pair
from segfw.images.formats import has_names, is_picture, split_ending
from segfw.images.mask_colours import is_colour, value_in_words
from segfw.images.volume import Volume

Pairs = dict[str, tuple[Path, Path]]  # case id -> (reference file, prediction file)


@dataclass(frozen=True, kw_only=True)
class LabelledPairs:
    """Masks of cases that belong together, and what their values mean.

    ``label_maps`` say by case id what values in its reference mean; voxels of the ignore label there count nowhere.
    ``prediction_map`` says what values in all predictions mean, where they are another program's. ``only`` are the
    structures that are scored; empty: all.
    """

    files: Mapping[str, tuple[Path, Path]]  # case id -> (reference file, prediction file)
    labels: LabelSet
    label_maps: Mapping[str, LabelMap] = field(default_factory=dict)
    prediction_map: LabelMap = ()
    only: tuple[str, ...] = ()
    annotated: Mapping[str, tuple[str, ...]] = field(default_factory=dict)  # structures, of cases where not all are

    def read(self, case: str, image: Path | None) -> tuple[np.ndarray, np.ndarray, Volume]:
        """Both masks of a case as classes (Z, Y, X), and one of them as it is stored."""
        reference, prediction = self.files[case]
        label_map = self.label_maps.get(case, ())
        return read_pair(reference, prediction, self.labels, label_map, image, prediction_map=self.prediction_map)


def pair_masks(predictions: Path, reference: Path, *, partial: bool = False) -> tuple[Pairs, list[str]]:
    """{case id: (reference file, prediction file)} by equal names without ending, and what was left out, in words.

    A prediction may also have the id of the case whose mask the reference is, or the name of its image, where the data
    set beside the reference says so; and the name that either has in BIDS.

    Raises UserError if a reference has no prediction (unless ``partial``), or none has.
    """
    predicted = masks_by_id(predictions)
    wanted = masks_by_id(reference)
    cases = _cases_by_mask(reference)
    of_bids = called_alike(wanted, predicted)
    pairs: Pairs = {}
    for name, path in sorted(wanted.items()):
        names = (name, *_names_of(cases.get(name)), of_bids.get(name))
        found = next((called for called in names if called in predicted), None)
        if found is not None:
            pairs[found] = (path, predicted[found])
    paired = {path for path, _ in pairs.values()}
    missing = sorted(name for name, path in wanted.items() if path not in paired)
    if not pairs:
        raise UserError(
            f"{predictions}: no file is named like a reference mask (here {listing(predicted)}; in {reference} "
            f"{listing(wanted)}); check that both folders belong together, and rename the predictions"
        )
    if missing and not partial:
        raise UserError(
            f"{predictions}: has no prediction for {len(missing)} of {len(wanted)} references ({listing(missing)}); "
            f"predict these too, or take their masks out of {reference}"
        )
    extra = sorted(predicted.keys() - pairs.keys())
    notes = [f"predictions without a reference were ignored: {listing(extra)}"] if extra else []
    if missing:
        left_out = f"{len(missing)} of {count(len(wanted), 'reference')} ({listing(missing)})"
        notes.append(f"without a prediction, and so in no mean: {left_out}")
    return pairs, notes


def first_channel_files(folder: Path) -> dict[str, Path]:
    """{case id: image file of the first channel} of a folder of images, named CASE or CASE_0000, or of patients."""
    files = image_files(folder)
    if not any(path.is_file() for path in files):  # a folder a patient
        by_visit = {visit.case: visit.images[0] for visit in visits_in(folder)[0] if visit.images}
        if by_visit:
            return by_visit
    by_stem = {split_ending(path)[0]: path for path in files}
    return by_stem | {stem.removesuffix("_0000"): path for stem, path in by_stem.items()}


def listing(ids: Collection[str]) -> str:
    """The first few ids, and how many more there are."""
    shown = ", ".join(sorted(ids)[:IDS_SHOWN])
    return f"{shown} and {len(ids) - IDS_SHOWN} more" if len(ids) > IDS_SHOWN else shown


def known_labels(predictions: Path, reference: Path, label_names: Path | None = None) -> LabelSet | None:
    """Labels by the first that there is: the table that is given, labels.json beside the predictions, the table that
    BIDS has beside them, dataset.json or a table beside the reference; else None.
    """
    found = labels_and_file(predictions, reference, label_names)
    return None if found is None else found[0]


def labels_and_file(
    predictions: Path, reference: Path, label_names: Path | None = None
) -> tuple[LabelSet, Path] | None:
    """What ``known_labels`` finds, and the file that says it."""
    if label_names is not None:
        return read_label_table(label_names).labels, label_names
    for folder in (predictions, predictions.resolve().parent):  # masks of DICOM lie in a folder of their own
        if (folder / LABELS_FILE).is_file() and (folder == predictions or holds_named_masks(predictions)):
            return LabelSet.load(folder / LABELS_FILE), folder / LABELS_FILE
    if masks_by_session(predictions):
        beside = folder_of_masks(predictions) / LABELS_FILE
        if beside.is_file():
            return LabelSet.load(beside), beside
        tables = lookup_tables(predictions)
        if len(tables) == 1:
            return read_label_table(tables[0]).labels, tables[0]
    if _data_set_by_mask(reference):
        return read_labels(reference / DESCRIPTION_FILE), reference / DESCRIPTION_FILE
    description = reference.resolve().parent / DESCRIPTION_FILE
    if description.is_file():
        return read_labels(description), description
    structures = structure_map_above(reference)
    if structures is not None:
        described = structures.path.with_name(DESCRIPTION_FILE)
        labels = structures.labels(read_labels(described) if described.is_file() else None)
        return labels, structures.path
    table = label_table_of(reference.resolve().parent, None)
    return None if table is None else (table.labels, table.path)


def holds_named_masks(folder: Path) -> bool:
    """Whether the masks of a folder have structures with names of their own."""
    return any(has_names(path) for path in mask_files(folder)[:1])


def name_notes(predictions: Path, reference: Path, label_names: Path | None = None) -> list[str]:
    """What labels.json beside the predictions and dataset.json beside the reference call otherwise, in words.

    A table that is given stands for the reference, and its names are taken. Raises UserError where both know a name and
    give it different values: values alone are compared, so that one structure would be scored as another.
    """
    said_of_masks = predictions / LABELS_FILE
    description = reference.resolve().parent / DESCRIPTION_FILE
    if not said_of_masks.is_file():
        return []
    of_masks = LabelSet.load(said_of_masks)
    if label_names is not None:
        return _other_names(label_names, read_label_table(label_names).labels, said_of_masks, of_masks)
    if not description.is_file():
        return []
    try:
        of_reference = read_labels(description)
    except UserError:  # it need not describe labels, where labels.json does
        return []
    return _other_names(said_of_masks, of_masks, description, of_reference)


def _other_names(first_file: Path, first: LabelSet, second_file: Path, second: LabelSet) -> list[str]:
    """A note for each value that two files name otherwise; UserError for a name that they give to other values."""
    value_of = dict(zip(first.names, first.values))
    notes = []
    for name, value in zip(second.names, second.values):
        if value_of.get(name, value) != value:
            raise UserError(
                f"{first_file}: calls {value_of[name]} {name!r}, but {second_file} calls {value} so; "
                "give the masks the values of the reference, or correct the file that is wrong"
            )
        other = next((known for known, given in value_of.items() if given == value), name)
        if other != name:
            notes.append(f"{value} is {other!r} in {first_file} and {name!r} in {second_file}; the first is taken")
    return notes


def label_maps_of(
    pairs: Pairs, reference: Path, labels: LabelSet | None, label_names: Path | None = None
) -> dict[str, LabelMap]:
    """What the values in each case's reference mean, by case id, from label maps beside the reference folder.

    Their patterns are held against the ids that training gives the cases, and against the masks' names where there is
    no data set to tell these. Colours mean what the table says that is given, or that lies there. Where
    ``reference`` is a data set itself, it tells what they are.
    """
    described = _data_set_by_mask(reference)
    if described:
        return {case: described[path].label_map for case, (path, _) in pairs.items() if path in described}
    folder = reference.resolve().parent
    cases = _cases_by_mask(reference)
    maps = read_label_maps(folder, labels)
    names = {case: split_ending(path)[0] for case, (path, _) in pairs.items()}
    try:
        ids = {case: cases[name].id if name in cases else name for case, name in names.items()}
        found = {case: label_map_of(case_id, maps) for case, case_id in ids.items()}
    except ValueError as error:
        raise UserError(f"{folder}: label maps contradict each other: {error}") from None
    table = label_table_of(folder, label_names)
    if table is None or labels is None:
        return found
    known = {value: meaning for value, meaning in table.by_colour if meaning in labels.stored_values}
    for case, (path, _) in pairs.items():
        if is_picture(path) and known:
            found[case] = tuple(sorted((known | dict(found[case])).items()))
    return found


def annotated_of(pairs: Pairs, reference: Path, labels: LabelSet | None) -> dict[str, tuple[str, ...]]:
    """The structures that somebody drew, of the cases in which that is not all of them, by dataset.json.

    Of the data set whose masks ``reference`` holds, or that it is; patterns are held against what ``label_maps_of``
    holds them against.
    """
    described = _data_set_by_mask(reference)
    if described and labels is not None:
        known = read_labels(reference / DESCRIPTION_FILE)
        in_part = {case: described[path].annotated for case, (path, _) in pairs.items() if path in described}
        return {case: _names_by_values(names, known, labels) for case, names in in_part.items() if names is not None}
    path = reference.resolve().parent / DESCRIPTION_FILE
    description = read_description(path)
    if labels is None or not description or ANNOTATED_FIELD not in description:
        return {}
    known = read_labels(path)  # which name the structures there
    lists = read_annotated(description, known, path)
    cases = _cases_by_mask(reference)
    found = {}
    for case, (file, _) in pairs.items():
        name = split_ending(file)[0]
        try:
            names = annotated_in_case(cases[name].id if name in cases else name, lists, known)
        except ValueError as error:
            raise UserError(f"{path}: field {ANNOTATED_FIELD!r}: {case}: {error}; correct the lists") from None
        if names is not None:
            found[case] = _names_by_values(names, known, labels)
    return found


def _names_by_values(names: Sequence[str], known: LabelSet, labels: LabelSet) -> tuple[str, ...]:
    """Structures of ``known`` as ``labels``, which may call them otherwise, have them: told by their values."""
    wanted = [_values_of(known, known.structures[name]) for name in names]
    return tuple(name for name, classes in labels.structures.items() if _values_of(labels, classes) in wanted)


def _values_of(labels: LabelSet, classes: Sequence[int]) -> frozenset[int]:
    return frozenset(labels.values[index] for index in classes)


def labels_in_masks(
    reference: Path,
    files: Iterable[tuple[str, Path]],
    label_maps: Mapping[str, LabelMap],
    called: str = "the reference masks",
    *,
    skips_damaged: bool = False,
) -> tuple[LabelSet, list[str]]:
    """A label for every value in masks (case id, file), which are ``called`` so, and a note that says so.

    A mask that cannot be read stops it, or with ``skips_damaged`` only where none can: whoever reads it later tells.
    """
    values: set[int] = set()
    damaged: list[UserError] = []
    asked = list(files)
    named = labels_by_names(path for _, path in asked)
    if named is not None and all(has_names(path) for _, path in asked):
        return named, [f"labels are the names of the structures in {called}: {', '.join(named.names[1:])}"]
    for case, path in progress("finding labels", asked):
        meanings = dict(label_maps[case])
        try:
            drawn = {meanings.get(value, value) for value in mask_values(path)}
        except UserError as error:
            damaged.append(error)
            if not skips_damaged or len(damaged) == len(asked):
                raise damaged[0] from None
            continue
        colour = next((value for value in sorted(drawn) if is_colour(value)), None)
        if colour is not None:
            remedy = (
                f"write {reference.resolve().parent / TABLE_FILES[0]} with the header name,r,g,b and a line for each"
            )
            raise UserError(f"{path}: holds {value_in_words(colour)} and no label values; {remedy}")
        values |= drawn
    found = sorted(values - {0})
    if not found:
        remedy = f"add {reference.resolve().parent / DESCRIPTION_FILE} with 'labels'"
        raise UserError(f"{reference}: every mask is empty, so the labels are unknown; {remedy}")
    labels = LabelSet(names=("background", *(f"label_{value}" for value in found)), values=(0, *found))
    return labels, [f"labels were inferred from the values in {called}: {', '.join(map(str, found))}"]


def _names_of(case: Case | None) -> tuple[str, ...]:
    """What a prediction of a case may be called beside its mask's name: the case's id, or the name of its image."""
    if case is None:
        return ()
    image = split_ending(case.images[0])[0]
    return case.id, image.removesuffix("_0000"), image


def _cases_by_mask(reference: Path) -> dict[str, Case]:
    """Cases by the name of their mask, if ``reference`` is the folder of masks of a data set; else empty."""
    try:
        found = find_dataset_of_masks(reference)
    except UserError:
        return {}
    return {
        split_ending(case.label)[0]: case
        for case in (found.cases if found else ())
        if case.label is not None and case.label.resolve().parent == reference.resolve()
    }


def masks_by_id(folder: Path) -> dict[str, Path]:
    """The mask of each case in a folder, or in a data set; UserError if there is none, or two are of one case."""
    if not folder.is_dir():
        raise UserError(f"{folder}: no such folder; give the folder that holds the masks")
    masks: dict[str, Path] = {}
    if (folder / STRUCTURES_FILE).is_file():  # of a tree of DICOM, whose folders may hold a mask each by chance
        masks = _masks_of_data_set(folder)
    files = [] if masks else mask_files(folder)
    if not files:
        masks = masks or _masks_of_data_set(folder) or masks_by_session(folder)
    for path in files:
        case = mask_stem(path)
        if case in masks:
            raise UserError(f"{folder}: {masks[case].name} and {path.name} are masks of one case; keep one of them")
        masks[case] = path
    if not masks:
        inner = [name for name in (*FORMAT_FOLDERS, BIDS_FOLDER) if (folder / name).is_dir()]
        which = f", such as {folder / inner[0]}" if inner else ""
        raise UserError(
            f"{folder}: holds no mask segfw can read; give the folder that holds the masks themselves{which}"
        )
    return masks


def _data_set_by_mask(reference: Path) -> dict[Path, Case]:
    """Cases by their mask where the folder is a data set with dataset.json whose masks lie elsewhere; else empty."""
    if not (reference / DESCRIPTION_FILE).is_file() or mask_files(reference):
        return {}
    try:
        cases = find_dataset(reference).cases
    except UserError:
        return {}
    return {case.label: case for case in cases if case.label is not None}


def _masks_of_data_set(folder: Path) -> dict[str, Path]:
    """Masks by case where a folder is a data set whose masks lie deeper, such as one folder a patient; else empty."""
    try:
        cases = find_dataset(folder).cases
    except UserError:
        return {}
    return {case.id: case.label for case in cases if case.label is not None}
