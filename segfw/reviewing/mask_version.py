"""A version of a mask that people made or agreed to: what is said of it, and the hash that a signature is bound to."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Mapping
from typing import Literal

import numpy as np

from segfw.base.records import Record
from segfw.dataset.labels import LabelSet
from segfw.images.values import CHUNK_VOXELS, as_integers

Origin = Literal["model", "edited", "blank", "candidate", "imported"]


class EditedVoxels(Record):
    """Voxels of one label that a version has and its parent has not, and the reverse."""

    added: int
    removed: int


class MaskVersion(Record):
    """What is said of a version of a case's mask. Version 0 is the draft of the model, which has no file of its own.

    ``sha256`` is of the voxels, their place and the names of the labels. ``origin`` is 'model' for a draft that was
    accepted as it is. ``parent`` is the version that it was made of, ``other_parent`` a second one of a consensus.
    ``edited_slices`` are along the first axis of the file's array.
    """

    case: str
    number: int
    sha256: str
    parent: int
    other_parent: int | None = None
    origin: Origin
    model_digest: str
    author: str
    editor_tool: str
    made_utc: str
    edited_voxels: dict[str, EditedVoxels] = {}
    edited_slices: tuple[int, ...] = ()
    label_names: dict[str, str]

    @property
    def all_edited(self) -> EditedVoxels:
        """Of all labels together."""
        edits = self.edited_voxels.values()
        return EditedVoxels(added=sum(each.added for each in edits), removed=sum(each.removed for each in edits))


def label_table(labels: LabelSet) -> dict[str, str]:
    """Names of the labels by their values in files."""
    return {str(value): name for name, value in zip(labels.names, labels.values)}


def content_sha256(values_zyx: np.ndarray, matrix: np.ndarray, label_names: Mapping[str, str]) -> str:
    """Hash of a mask's voxels, of the place that its affine (4, 4) gives them, and of its labels' names.

    Not of the file: compressing it again changes nothing. Voxels are taken in the smallest of three types that holds
    all, in C order; places in the 32 bit that every format keeps.
    """
    values = as_integers(np.asarray(values_zyx))
    dtype = smallest_type(values)
    place = (np.asarray(matrix, dtype=np.float64) + 0.0).astype("<f4") + np.float32(0.0)  # without a minus of zero
    names = json.dumps(dict(label_names), sort_keys=True, separators=(",", ":"), ensure_ascii=False)
    head = f"segfw mask 1\n{dtype} {values.shape}\n{names}\n"
    digest = hashlib.sha256(head.encode("utf-8", "backslashreplace"))
    digest.update(place.astype("<f4").tobytes())
    flat = values.reshape(-1)
    for start in range(0, flat.size, CHUNK_VOXELS):
        digest.update(flat[start : start + CHUNK_VOXELS].astype(dtype).tobytes())
    return digest.hexdigest()


def smallest_type(values: np.ndarray) -> str:
    """'<u1', '<i2' or '<i4': the first that holds all values."""
    low = int(values.min(initial=0))
    high = int(values.max(initial=0))
    if low >= 0 and high <= 0xFF:
        return "<u1"
    return "<i2" if low >= -(1 << 15) and high < 1 << 15 else "<i4"


def edits_between(
    before_zyx: np.ndarray, after_zyx: np.ndarray, label_names: Mapping[str, str]
) -> tuple[dict[str, EditedVoxels], tuple[int, ...]]:
    """Voxels that each label (but the background, 0) won and lost, and the slices in which anything changed."""
    differs = before_zyx != after_zyx
    slices = np.flatnonzero(differs.any(axis=(1, 2)))
    old, times_old = np.unique(before_zyx[differs], return_counts=True)
    new, times_new = np.unique(after_zyx[differs], return_counts=True)
    removed = dict(zip(old.tolist(), times_old.tolist()))
    added = dict(zip(new.tolist(), times_new.tolist()))
    edits = {
        label_names.get(str(value), str(value)): EditedVoxels(added=added.get(value, 0), removed=removed.get(value, 0))
        for value in sorted(removed.keys() | added.keys())
        if value != 0
    }
    return edits, tuple(slices.tolist())
