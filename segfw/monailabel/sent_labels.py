"""A label map as a plug-in sends it, brought to the label values of the folder: by names, never by numbers alone.

What 3D Slicer sends has the numbers 1, 2, 3, ... in the order of the segments that it wrote, and ``label_info`` lists
their names. ``idx`` counts segments too, but also those that were left out (background, scribbles), so that the two
differ where such a segment comes first.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np

from segfw.base.records import UserError
from segfw.base.words import listed
from segfw.dataset.labels import LabelSet
from segfw.dataset.look_up import LookUp, NotFound
from segfw.evaluation.masks import read_stored_mask
from segfw.images.formats import has_names, write_labels
from segfw.images.geometry import Geometry
from segfw.images.values import as_integers, count_values, look_up

RAW = ".bin"  # of OHIF: bytes, x fastest, in the order of the image's file


def named_values(label_info: object) -> list[tuple[int, str]]:
    """(idx, name) of each segment, in their order; UserError if it is no such list."""
    if label_info is None:
        return []
    found = []
    if not isinstance(label_info, list):
        raise UserError("label_info is no list; send [{'name': ..., 'idx': ...}]")
    for each in label_info:
        is_whole = isinstance(each, dict) and isinstance(each.get("name"), str) and _is_number(each.get("idx"))
        if not is_whole:
            raise UserError(f"label_info holds {each!r}; send {{'name': ..., 'idx': ...}} for each segment")
        found.append((int(each["idx"]), str(each["name"])))
    if len({name for _, name in found}) < len(found) or len({idx for idx, _ in found}) < len(found):
        raise UserError("label_info names a segment or a number twice; give each segment its own name")
    return found


def brought_home(sent: Path, label_info: object, labels: LabelSet, draft: Geometry, folder: Path) -> Path:
    """A file of the same mask with the values of ``labels``, in ``folder``; ``sent`` itself where it has names.

    UserError for names that are no label here, values without a name, and a mask whose numbers have two readings.
    """
    if sent.name.endswith(RAW):
        values = _raw_values(sent, draft)
        geometry = draft
    elif has_names(sent):
        return sent
    else:
        volume = read_stored_mask(sent)
        geometry = volume.geometry
        try:
            values = as_integers(volume.array[0])
        except ValueError as error:
            raise UserError(f"the label map: {error}; send a whole number for each structure") from None
    names = named_values(label_info)
    present = sorted(set(count_values(values)) - {0})
    meaning = _meaning(present, names, labels)
    mapped = look_up(values, {0: labels.values[0], **meaning}, np.int32)
    home = folder / "label.nii.gz"
    write_labels(home, mapped, geometry)
    return home


def _meaning(present: Sequence[int], names: Sequence[tuple[int, str]], labels: LabelSet) -> Mapping[int, int]:
    """The value of ``labels`` that each value in a mask stands for."""
    if not names:  # numbers as this server gives them
        unknown = [value for value in present if value not in labels.stored_values]
        if unknown:
            raise UserError(f"the label map holds {unknown[0]}, and no label_info says what it is; send the names")
        return {value: value for value in present}
    by_number = dict(names)
    by_order = {place: name for place, (_, name) in enumerate(names, start=1)}
    readings = [each for each in (by_order, by_number) if set(present) <= each.keys()]
    if not readings:
        lacking = next(value for value in present if value not in by_number or value not in by_order)
        raise UserError(f"the label map holds {lacking}, which label_info does not name; send the name of each segment")
    chosen = {value: readings[0][value] for value in present}
    if any({value: each[value] for value in present} != chosen for each in readings):
        raise UserError(
            f"the numbers {listed(present, 'and')} of the label map may be counted with or without segments that were "
            "left out; remove the segments background and scribbles, or save as .seg.nrrd, which keeps names"
        )
    search = LookUp(labels, "label_info")
    return {value: value_of(name, labels, search) for value, name in chosen.items()}


def value_of(name: str, labels: LabelSet, search: LookUp) -> int:
    """The value of the label that is called so, or by another name of it; UserError if none is."""
    values = dict(zip(labels.names, labels.values))
    if name in values:
        return values[name]
    try:
        meant = [each for each in search.find(name).names if each in values]
    except NotFound:
        meant = []
    if len(meant) != 1:
        known = listed(labels.names[1:])
        raise UserError(f"the label map holds {name!r}, which is no label here; call it {known}")
    return values[meant[0]]


def label_names(present: Sequence[int], labels: LabelSet) -> dict[str, int]:
    """{name: value} of the labels that a mask holds, by their values.

    3D Slicer gives the first name to the first value that is in the mask, and so on: others must not be listed.
    """
    names = dict(zip(labels.values, labels.names))
    return {names[value]: value for value in sorted(present) if value in names and value != labels.values[0]}


def _raw_values(sent: Path, draft: Geometry) -> np.ndarray:
    content = np.fromfile(sent, np.uint8)
    expected = int(np.prod(draft.shape))
    if content.size != expected:
        raise UserError(f"the label map has {content.size} bytes, and the image {expected} voxels; send one for each")
    return content.reshape(draft.shape)


def _is_number(value: Any) -> bool:
    return isinstance(value, int) and not isinstance(value, bool)
