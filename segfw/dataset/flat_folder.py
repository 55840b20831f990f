"""Images and masks side by side in one folder, told apart by words in their names: P1_img and P1_seg."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

from segfw.base.records import UserError
from segfw.base.words import count
from segfw.dataset.cases import Finding, FoundDataset
from segfw.dataset.found_by_names import found_by_names
from segfw.dataset.image_files import image_files, inner_folders
from segfw.dataset.layout_words import split_masks, without_mask_words
from segfw.dataset.pairing import (
    ImageName,
    Pairing,
    common_channels,
    file_findings,
    pair,
    pair_by_ids,
)
from segfw.images.formats import split_ending


def find_flat_folder(raw: Path, description: dict | None) -> FoundDataset | None:
    """A data set whose images and masks lie in ``raw`` itself; None unless some of them pair.

    Raises UserError if several masks could belong to one image in most cases.
    """
    images, masks = split_masks(image_files(raw))
    if not images or not masks:
        return None
    pairing = _pairing(raw, images, masks)
    if not pairing.cases:
        return None
    expected = common_channels(pairing)
    findings = [*file_findings(pairing, masks, expected), *_folders_beside(raw)]
    return found_by_names(raw, description, "flat folder", pairing, expected, findings=findings)


def _folders_beside(raw: Path) -> list[Finding]:
    """Folders of images beside the files, which are not looked into."""
    return [
        Finding(
            kind="not-used",
            severity="warning",
            file=f"{folder.name}/",
            what="is a folder of images beside the images and is not used",
            remedy="move its files up if they belong to the data set, or the folder away",
        )
        for folder in inner_folders(raw)
        if image_files(folder)
    ]


def _pairing(raw: Path, images: Sequence[Path], masks: Sequence[Path]) -> Pairing:
    """By what is left of a mask's name without its word for a mask; else as in two folders."""
    masks_by_id: dict[str, list[Path]] = {}
    for path in masks:
        masks_by_id.setdefault(without_mask_words(split_ending(path)[0]) or raw.resolve().name, []).append(path)
    several = {case: paths for case, paths in masks_by_id.items() if len(paths) > 1}
    if several:
        case, paths = next(iter(several.items()))
        names = ", ".join(path.name for path in paths)
        others = f" (and so for {count(len(several) - 1, 'other case')})" if len(several) > 1 else ""
        remedy = "keep one file a case, with a value for each structure, and move the others away"
        raise UserError(f"{raw}: {names} could each be the mask of {case}{others}; {remedy}")
    attempts = [pair_by_ids(images, {case: paths[0] for case, paths in masks_by_id.items()}), pair(images, masks)]
    only = raw.resolve().name
    if list(masks_by_id) == [only]:  # the folder of one case: image.nii.gz, or T1.nii.gz and T2.nii.gz, and mask.nii.gz
        channels = [ImageName(only, split_ending(path)[0], path) for path in images]
        attempts.append(Pairing(channels, {only: masks[0]}))
    return max(attempts, key=lambda attempt: len(attempt.cases))
