"""Whether a model, a person or both drew a structure: told by the versions that a mask came from."""

from __future__ import annotations

from collections.abc import Sequence

from segfw.dataset.finished_mask import AlgorithmType
from segfw.dataset.labels import LabelSet
from segfw.reviewing.mask_version import MaskVersion


def drawn_by(labels: LabelSet, versions: Sequence[MaskVersion], number: int) -> dict[str, AlgorithmType]:
    """The word of DICOM for each structure of a version; version 0 is the model's draft.

    A structure that no version on the way changed is the model's own, also where it was looked at and accepted. What
    was begun on an empty mask is drawn by hand as a whole.
    """
    by_number = {version.number: version for version in versions}
    edited: set[str] = set()
    waiting = [number]
    seen = {0}
    while waiting:
        current = waiting.pop()
        if current in seen:
            continue
        seen.add(current)
        version = by_number[current]
        if version.origin == "blank":
            return dict.fromkeys(labels.structures, "MANUAL")
        edited |= {label for label, voxels in version.edited_voxels.items() if voxels.added or voxels.removed}
        waiting.append(version.parent)
        if version.other_parent is not None:
            waiting.append(version.other_parent)
    found: dict[str, AlgorithmType] = {}
    for name, classes in labels.structures.items():
        is_edited = any(labels.names[index] in edited for index in classes)
        found[name] = "SEMIAUTOMATIC" if is_edited else "AUTOMATIC"
    return found
