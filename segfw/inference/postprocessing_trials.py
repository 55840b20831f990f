"""Which steps of postprocessing raise the Dice of cases that the networks did not see."""

from __future__ import annotations

from collections.abc import Iterable, Sequence

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
    pairs: Iterable[tuple[np.ndarray, np.ndarray]], labels: LabelSet
) -> tuple[Postprocessing, list[Trial], dict[str, float | None]]:
    """Of which structures to keep only the largest component, what was tried, and the mean Dice of each structure then.

    As published: first of all foreground together, then of each structure, each on top of what was kept before. A step
    stays if no structure's mean Dice falls and some structure's rises. Each pair (reference, classes) is taken once and
    held, cropped and compressed; a step then reads only the box of its own structure and moves the voxels it removes
    from one column of the joint histogram to another.
    """
    held = [_Held(reference, classes, labels) for reference, classes in pairs]
    current = _mean_dice([case.joint for case in held], labels)
    steps, trials = [], []
    for step in possible_steps(labels):
        # What it removes is found anew where it stays: held of all cases, those boxes of voxels could be large.
        found = _mean_dice([case.without(case.removal(step)) for case in held], labels)
        changes = [found[name] - current[name] for name in found if found[name] is not None]
        is_kept = min(changes, default=0) >= -ROUNDING and max(changes, default=0) > ROUNDING
        before, after = mean(current.values()), mean(found.values())
        trials.append(Trial(name=step.name, before=before, after=after, is_kept=is_kept))
        if is_kept:
            steps.append(step)
            current = found
            for case in held:
                case.remove(case.removal(step))
    return Postprocessing(steps=tuple(steps)), trials, current


def _mean_dice(joints: Sequence[np.ndarray], labels: LabelSet) -> dict[str, float | None]:
    return {
        name: mean(dice(label_counts(joint, members)) for joint in joints)
        for name, members in labels.structures.items()
    }


Removal = tuple[tuple[slice, ...], np.ndarray, np.ndarray]  # box, voxels in it, and their joint histogram


class _Held:
    """One case in memory: both masks compressed and cropped to what was predicted, and their joint histogram."""

    def __init__(self, reference_zyx: np.ndarray, classes_zyx: np.ndarray, labels: LabelSet) -> None:
        self.joint, self._labels = joint_counts(reference_zyx, classes_zyx, labels), labels
        whole = joint_box(ndimage.find_objects(classes_zyx), range(1, labels.classes))
        part = classes_zyx[whole] if whole else classes_zyx[:1, :1, :1]
        self._boxes = ndimage.find_objects(part)
        self._classes = blosc2.asarray(np.ascontiguousarray(part))
        self._reference = blosc2.asarray(np.ascontiguousarray(reference_zyx[whole] if whole else part))

    def removal(self, step: KeepLargest) -> Removal | None:
        """What a step would remove."""
        box = joint_box(self._boxes, step.classes)
        part = None if box is None else self._classes[box]
        removed = None if part is None else outside_largest(part, step.classes)
        if removed is None:
            return None
        moved = joint_counts(self._reference[box][removed], part[removed], self._labels)
        return box, removed, moved

    def without(self, removal: Removal | None) -> np.ndarray:
        """The joint histogram after a removal."""
        if removal is None:
            return self.joint
        joint = self.joint - removal[2]
        joint[:, 0] += removal[2].sum(1)
        return joint

    def remove(self, removal: Removal | None) -> None:
        """Removes for good."""
        if removal is None:
            return
        box, removed, _ = removal
        part = self._classes[box]
        part[removed] = 0
        self.joint, self._classes[box] = self.without(removal), part
