"""Which steps of postprocessing raise the Dice of cases that the networks did not see."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass

import blosc2
import numpy as np
from scipy import ndimage

from segfw.dataset.labels import LabelSet
from segfw.evaluation.confusion import dice, label_counts
from segfw.evaluation.metrics import mean
from segfw.inference.held_out_counts import joint_counts
from segfw.model.postprocess import KeepLargest, Postprocessing, joint_box, outside_largest, possible_steps
from segfw.model.selection import Trial

ROUNDING = 1e-6  # of a mean Dice


def find_postprocessing(
    pairs: Iterable[tuple[np.ndarray, np.ndarray]],
    labels: LabelSet,
    annotated: Sequence[Sequence[str] | None] = (),
) -> tuple[Postprocessing, list[Trial], dict[str, float | None]]:
    """Of which structures to keep only the largest component, what was tried, and the mean Dice of each structure then.

    As published: first of all foreground together, then of each structure, each on top of what was kept before. A step
    stays if no structure's mean Dice falls and some structure's rises. Each pair (reference, classes) is taken once and
    held, cropped and compressed; a step then reads only the box of its own structure and moves the voxels it removes
    from one column of the joint histogram to another. ``annotated`` are the structures of each pair that count (None:
    all); without it all do in every pair.
    """
    held = [_HeldCase(reference, classes, labels) for reference, classes in pairs]
    known = annotated or [None] * len(held)
    current = _mean_dice([case.joint for case in held], labels, known)
    steps: list[KeepLargest] = []
    trials: list[Trial] = []
    for step in possible_steps(labels):
        # What it removes is found anew where it stays: held of all cases, those boxes of voxels could be large.
        found = _mean_dice([case.without(case.removal(step)) for case in held], labels, known)
        is_kept = is_better(found, current)
        trials.append(Trial(name=step.name, before=mean(current.values()), after=mean(found.values()), is_kept=is_kept))
        if is_kept:
            steps.append(step)
            current = found
            for case in held:
                case.remove(case.removal(step))
    return Postprocessing(steps=tuple(steps)), trials, current


def _mean_dice(
    joints: Sequence[np.ndarray], labels: LabelSet, annotated: Sequence[Sequence[str] | None]
) -> dict[str, float | None]:
    """Mean Dice of each structure over the cases that annotate it, from the joint histograms (K, K) of all cases."""
    means = {}
    for name, members in labels.structures.items():
        counted = [joint for joint, names in zip(joints, annotated) if names is None or name in names]
        means[name] = mean(dice(label_counts(joint, members)) for joint in counted)
    return means


def is_better(found: Mapping[str, float | None], current: Mapping[str, float | None]) -> bool:
    """Whether no structure's mean Dice falls and some structure's rises."""
    changes = []
    for name, after in found.items():
        before = current[name]
        if after is not None and before is not None:
            changes.append(after - before)
    return min(changes, default=0) >= -ROUNDING and max(changes, default=0) > ROUNDING


@dataclass(frozen=True)
class _Removal:
    """What a step takes away from one case: a box, the voxels in it, and their joint histogram (K, K)."""

    box: tuple[slice, ...]
    voxels: np.ndarray
    joint: np.ndarray


class _HeldCase:
    """One case in memory: both masks compressed and cropped to what was predicted, and their joint histogram."""

    def __init__(self, reference_zyx: np.ndarray, classes_zyx: np.ndarray, labels: LabelSet) -> None:
        self.joint = joint_counts(reference_zyx, classes_zyx, labels)
        self._labels = labels
        foreground = joint_box(ndimage.find_objects(classes_zyx), range(1, labels.classes))
        if foreground is None:  # a voxel of nothing stands for an empty mask
            predicted = classes_zyx[:1, :1, :1]
            reference = predicted
        else:
            predicted = classes_zyx[foreground]
            reference = reference_zyx[foreground]
        self._boxes = ndimage.find_objects(predicted)
        self._classes = blosc2.asarray(np.ascontiguousarray(predicted))
        self._reference = blosc2.asarray(np.ascontiguousarray(reference))

    def removal(self, step: KeepLargest) -> _Removal | None:
        """What a step would remove."""
        box = joint_box(self._boxes, step.classes)
        if box is None:
            return None
        part = self._classes[box]
        removed = outside_largest(part, step.classes)
        if removed is None:
            return None
        joint = joint_counts(self._reference[box][removed], part[removed], self._labels)
        return _Removal(box=box, voxels=removed, joint=joint)

    def without(self, removal: _Removal | None) -> np.ndarray:
        """The joint histogram after a removal."""
        if removal is None:
            return self.joint
        joint = self.joint - removal.joint
        joint[:, 0] += removal.joint.sum(1)
        return joint

    def remove(self, removal: _Removal | None) -> None:
        """Removes for good."""
        if removal is None:
            return
        part = self._classes[removal.box]
        part[removal.voxels] = 0
        self._classes[removal.box] = part
        self.joint = self.without(removal)
