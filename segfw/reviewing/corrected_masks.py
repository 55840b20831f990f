"""Masks that were corrected in other programs, brought to the values and the grid of the drafts.

Names of structures decide, not numbers: a DICOM SEG, an RTSTRUCT and a .seg.nrrd have names of their own, plain masks
those of a table that is given. Without one their numbers mean what labels.json says.
"""

from __future__ import annotations

from collections.abc import Iterable
from pathlib import Path

import numpy as np

from segfw.base.errors import UserError
from segfw.dataset.image_files import mask_files, mask_stem
from segfw.dataset.label_names import read_label_table
from segfw.dataset.labels import LabelMap, LabelSet
from segfw.dataset.look_up import LookUp, NotFound
from segfw.dataset.named_structures import drawn_as_of, names_in
from segfw.evaluation.masks import read_stored_mask, require_same_grid
from segfw.images.formats import has_names, read_mask, read_volume
from segfw.images.values import as_integers, count_values
from segfw.images.volume import Volume, stored_like
from segfw.reviewing.review_folder import ReviewFolder


def files_by_case(review: ReviewFolder, paths: Iterable[Path], case: str | None) -> dict[str, Path]:
    """The corrected mask of each case, by the names of the files, or of one file by the ``case`` that is given."""
    files: list[Path] = []
    for path in paths:
        if not path.exists():
            raise UserError(f"{path}: no such file; give corrected masks, or a folder of them")
        is_folder_of_masks = path.is_dir() and not has_names(path)
        files += mask_files(path) if is_folder_of_masks else [path]
    if case is not None:
        if len(files) != 1:
            raise UserError(f"--case {case} is of one file, but {len(files)} were given; leave it out")
        return {case: files[0]}
    found: dict[str, Path] = {}
    for path in files:
        name = mask_stem(path)
        if name not in review.case_ids:
            raise UserError(f"{path}: is named like no case here; name it like one, or give --case")
        if name in found:
            raise UserError(f"{path}: {found[name]} is of the same case; give one of them")
        found[name] = path
    return found


def corrected_values(review: ReviewFolder, case: str, path: Path, label_names: Path | None) -> np.ndarray:
    """Label values (Z, Y, X) in the order of the draft's file.

    UserError where the file lies on another grid, names a structure that is none here, or holds a value without
    meaning.
    """
    draft = review.read(case, 0)
    if has_names(path):
        volume = _read_named(review, case, path, draft)
        label_map: LabelMap = ()
    else:
        volume = read_stored_mask(path)
        label_map = () if label_names is None else _meanings(label_names, review.labels, path, volume)
    volume = stored_like(volume, draft)
    if volume.is_placed or volume.array.shape != draft.array.shape:
        require_same_grid(path, volume.geometry, review.draft_file(case), draft.geometry, called="the draft")
    try:
        values = as_integers(volume.array[0])
    except ValueError as error:
        raise UserError(f"{path}: {error}; give a mask, with a whole number for each structure") from None
    if label_map:
        meaning = dict(label_map)
        table = np.array([meaning[value] for value in sorted(meaning)])
        values = table[np.searchsorted(sorted(meaning), values)]
    unknown = sorted(set(count_values(values)) - set(review.labels.stored_values))
    if unknown:
        known = ", ".join(f"{value} {name}" for name, value in zip(review.labels.names, review.labels.values))
        raise UserError(f"{path}: holds {unknown[0]}, which is no label here ({known}); give --label-names")
    return values


def _read_named(review: ReviewFolder, case: str, path: Path, draft: Volume) -> Volume:
    names = names_in(path)
    drawn_as = drawn_as_of(path, review.labels) or ()
    unknown = [name for name in names if name not in {each.name for each in drawn_as}]
    if unknown:
        known = ", ".join(review.labels.structures)
        raise UserError(
            f"{path}: holds {', '.join(unknown)}, which is none of the structures here ({known}); rename it"
        )
    images = review.image_files(case)
    return read_mask(path, read_volume(images[0]) if images else draft, drawn_as)


def _meanings(table: Path, labels: LabelSet, path: Path, volume: Volume) -> LabelMap:
    """What each value in a mask means here, by the names of a table; UserError for a value or name without meaning."""
    names = dict(zip(*_values_and_names(read_label_table(table).labels)))
    look_up = LookUp(labels, table)
    meaning = {labels.values[0]: labels.values[0], 0: labels.values[0]}
    for value in count_values(as_integers(volume.array[0])):
        if value in meaning:
            continue
        if value not in names:
            raise UserError(f"{path}: holds {value}, of which {table} says nothing; add a line for it")
        meaning[value] = _value_of(names[value], labels, look_up, table)
    return tuple(sorted(meaning.items()))


def _values_and_names(labels: LabelSet) -> tuple[tuple[int, ...], tuple[str, ...]]:
    return labels.values, labels.names


def _value_of(name: str, labels: LabelSet, look_up: LookUp, table: Path) -> int:
    value_of = dict(zip(labels.names, labels.values))
    if name in value_of:
        return value_of[name]
    try:
        meant = look_up.find(name).names
    except NotFound:
        meant = ()
    found = [value_of[each] for each in meant if each in value_of]
    if len(found) != 1:
        raise UserError(f"{table}: names {name!r}, which is none of the labels ({', '.join(labels.names[1:])})")
    return found[0]
