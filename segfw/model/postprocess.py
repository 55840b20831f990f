"""How masks are made of probabilities, and what is done to them then: as ``segfw select`` found best.

Some structures may get the mask of largest expected Dice in place of the class that wins each voxel
(``grid/expected_dice.py``). Then only the largest connected component of the foreground or of a structure may be kept.
Voxels are connected through faces, edges and corners (26 neighbours), and components that are equally large all stay,
as in the published recipe. What is removed becomes background.
"""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

import numpy as np
from pydantic import field_validator
from scipy import ndimage

from segfw.base.components import connected_components
from segfw.base.records import Record, UserError
from segfw.dataset.labels import LabelSet

FOREGROUND = "all foreground"  # the name of the step that takes all labels together


class KeepLargest(Record):
    """One step: of all voxels that have one of ``classes``, those outside the largest component become background."""

    name: str
    classes: tuple[int, ...]


class DecodedStructure(Record):
    """A structure that gets its mask of largest expected Dice, by log-odds that are divided by ``temperature``."""

    name: str
    temperature: float

    @field_validator("temperature")
    @classmethod
    def _is_positive(cls, temperature: float) -> float:
        if temperature <= 0:
            raise ValueError(f"a temperature is above 0, not {temperature}")
        return temperature


class Postprocessing(Record):
    """What is decoded for its expected Dice, and then steps in the order in which they are applied.

    None of either leaves masks as they are.
    """

    steps: tuple[KeepLargest, ...] = ()
    decoding: tuple[DecodedStructure, ...] = ()

    @property
    def text(self) -> str:
        """'none', or what only the largest component is kept of."""
        return ", ".join(step.name for step in self.steps) or "none"

    @property
    def decoding_text(self) -> str:
        """'none', or which structures get their mask of largest expected Dice."""
        return ", ".join(decoded.name for decoded in self.decoding) or "none"

    def temperatures(self, labels: LabelSet) -> dict[int, float]:
        """Of the network's outputs that are decoded."""
        return {labels.output_names.index(decoded.name): decoded.temperature for decoded in self.decoding}


def possible_steps(labels: LabelSet) -> tuple[KeepLargest, ...]:
    """All steps there are for these labels, in the order in which they are tried: all foreground, then structures."""
    foreground = KeepLargest(name=FOREGROUND, classes=tuple(labels.foreground.values()))
    structures = tuple(KeepLargest(name=name, classes=classes) for name, classes in labels.structures.items())
    return (foreground, *structures) if len(structures) > 1 else structures


def require_steps(postprocessing: Postprocessing, labels: LabelSet, source: Path) -> None:
    """UserError if a step, or what is decoded, is of other labels than ``source`` has: they mean other things there."""
    known = possible_steps(labels)
    for step in postprocessing.steps:
        if step not in known:
            raise UserError(
                f"{source}: has other labels, or in another order, than the postprocessing, which keeps the largest "
                f"component of {step.name!r}; take that of a model with {', '.join(labels.structures)}"
            )
    for decoded in postprocessing.decoding:
        if decoded.name not in labels.structures:
            raise UserError(
                f"{source}: has no structure {decoded.name!r}, which the postprocessing decodes for its expected Dice; "
                f"take that of a model with {', '.join(labels.structures)}"
            )


def apply(classes_zyx: np.ndarray, postprocessing: Postprocessing) -> np.ndarray:
    """Class indices (Z, Y, X) after all steps; a new array, unless there is nothing to do."""
    if not postprocessing.steps:
        return classes_zyx
    result = classes_zyx.copy()
    boxes = ndimage.find_objects(classes_zyx)
    for step in postprocessing.steps:
        box = joint_box(boxes, step.classes)
        removed = None if box is None else outside_largest(result[box], step.classes)
        if removed is not None:
            result[box][removed] = 0
    return result


def joint_box(boxes: Sequence[tuple[slice, ...] | None], classes: Sequence[int]) -> tuple[slice, ...] | None:
    """Smallest box that holds the boxes of some classes, of those that ``ndimage.find_objects`` gives; None if none."""
    found = [boxes[index - 1] for index in classes if index <= len(boxes) and boxes[index - 1]]
    if not found:
        return None
    return tuple(slice(min(part.start for part in axis), max(part.stop for part in axis)) for axis in zip(*found))


def outside_largest(classes_zyx: np.ndarray, classes: Sequence[int]) -> np.ndarray | None:
    """Where voxels of ``classes`` lie outside their largest component, bool (Z, Y, X); None if they do nowhere."""
    mask = classes_zyx == classes[0] if len(classes) == 1 else np.isin(classes_zyx, classes)
    components, count = connected_components(mask)
    if count < 2:
        return None
    sizes = np.zeros(count + 1, np.int64)
    for slice_yx in components:  # a slice at once, because bincount makes numbers of 8 bytes of its voxels
        sizes += np.bincount(slice_yx.reshape(-1), minlength=count + 1)
    is_smaller = sizes < sizes[1:].max()
    is_smaller[0] = False
    return is_smaller[components] if is_smaller.any() else None
