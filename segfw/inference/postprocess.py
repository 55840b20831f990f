"""Keeping only the largest connected component of the foreground or of a structure.

Voxels are connected through faces, edges and corners (26 neighbours), and components that are equally large all stay,
as in the published recipe. What is removed becomes background.
"""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
from scipy import ndimage

from segfw.data.manifest import LabelSet
from segfw.records import Record

FOREGROUND = "all foreground"  # the name of the step that takes all labels together


class KeepLargest(Record):
    """One step: of all voxels that have one of ``classes``, those outside the largest component become background."""

    name: str
    classes: tuple[int, ...]


class Postprocessing(Record):
    """Steps in the order in which they are applied; none leaves masks as they are."""

    steps: tuple[KeepLargest, ...] = ()

    @property
    def text(self) -> str:
        """'none', or what only the largest component is kept of."""
        return ", ".join(step.name for step in self.steps) or "none"


def possible_steps(labels: LabelSet) -> tuple[KeepLargest, ...]:
    """All steps there are for these labels, in the order in which they are tried: all foreground, then structures."""
    foreground = KeepLargest(name=FOREGROUND, classes=tuple(labels.foreground.values()))
    own = tuple(KeepLargest(name=name, classes=classes) for name, classes in labels.structures.items())
    return (foreground, *own) if len(own) > 1 else own


def apply(classes_zyx: np.ndarray, postprocessing: Postprocessing) -> np.ndarray:
    """Class indices (Z, Y, X) after all steps; a new array, unless there is nothing to remove."""
    result = classes_zyx
    for step in postprocessing.steps:
        found = outside_largest(result, step.classes)
        if found is None:
            continue
        box, removed = found
        result = result.copy() if result is classes_zyx else result
        result[box][removed] = 0
    return result


def outside_largest(classes_zyx: np.ndarray, classes: Sequence[int]) -> tuple[tuple[slice, ...], np.ndarray] | None:
    """Voxels of ``classes`` outside their largest component: a box and a mask (bool) in it; None if there are none."""
    import cc3d

    box = _box_of(classes_zyx, classes)
    if box is None:
        return None
    part = classes_zyx[box]
    mask = part == classes[0] if len(classes) == 1 else np.isin(part, classes)
    # Five times as fast as scipy.ndimage.label, which takes longest where every corner counts as a neighbour.
    components, count = cc3d.connected_components(mask, connectivity=26, return_N=True)
    if count < 2:
        return None
    sizes = sum(np.bincount(slice_yx.reshape(-1), minlength=count + 1) for slice_yx in components)
    is_smaller = sizes < sizes[1:].max()
    is_smaller[0] = False
    return (box, is_smaller[components]) if is_smaller.any() else None


def _box_of(classes_zyx: np.ndarray, classes: Sequence[int]) -> tuple[slice, ...] | None:
    boxes = ndimage.find_objects(classes_zyx)
    found = [boxes[index - 1] for index in classes if index <= len(boxes) and boxes[index - 1]]
    if not found:
        return None
    return tuple(
        slice(min(box[axis].start for box in found), max(box[axis].stop for box in found)) for axis in range(3)
    )
