"""The items of a queue as columns: 2000 cases with 100 structures have more of them than objects are good for.

An item is a structure of a case, or a suspected region of one. ``region`` is WHOLE of a structure as a whole.
"""

# N items

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, fields

import numpy as np

from segfw.worklist.minutes_model import Effort

WHOLE = -1


@dataclass(frozen=True, kw_only=True)
class WorkItems:
    """Items as columns, (N,) each; ``cases`` and ``structures`` are what their numbers in columns mean.

    ``quality`` is the predicted Dice of the structure, of one that was not found the chance that this is right; it is
    what is believed, never NaN. ``predicted``, ``lower`` are what quality.csv says, NaN where it says nothing.
    ``p_fail`` likewise. ``verdict`` and ``reason`` are numbers in ``verdicts`` and ``reasons``. ``gain`` is the Dice
    that correcting the item adds to its structure; of regions, what their volume is worth.
    """

    cases: tuple[str, ...]
    structures: tuple[str, ...]
    verdicts: tuple[str, ...]
    reasons: tuple[str, ...]
    case: np.ndarray
    structure: np.ndarray
    region: np.ndarray
    quality: np.ndarray
    predicted: np.ndarray
    lower: np.ndarray
    verdict: np.ndarray
    reason: np.ndarray
    slices: np.ndarray
    wrong_slices: np.ndarray
    wrong_mm2: np.ndarray
    gain: np.ndarray

    def __len__(self) -> int:
        return len(self.case)

    @property
    def is_whole(self) -> np.ndarray:
        """Which of them are structures as a whole, bool (N,)."""
        return self.region == WHOLE

    def of(self, chosen: np.ndarray) -> WorkItems:
        """Some of them, by a mask or by numbers, in that order."""
        values = {each.name: getattr(self, each.name) for each in fields(self)}
        for name, value in values.items():
            if isinstance(value, np.ndarray):
                values[name] = value[chosen]
        return WorkItems(**values)

    def effort(self, is_new: np.ndarray | bool = False) -> Effort:
        """What their minutes depend on."""
        return Effort(
            slices=self.slices.astype(float),
            wrong_slices=self.wrong_slices.astype(float),
            wrong_mm2=self.wrong_mm2.astype(float),
            is_new=np.broadcast_to(np.asarray(is_new, bool), self.case.shape),
        )


def weighted(items: WorkItems, weights: dict[str, float]) -> np.ndarray:
    """The gain of each item times the weight of its structure, 1 of those without one, (N,)."""
    of_structure = np.array([weights.get(name, 1.0) for name in items.structures])
    return items.gain * of_structure[items.structure] if len(items) else items.gain


def joined(parts: Sequence[WorkItems]) -> WorkItems:
    """Items of equal cases, structures and verdicts one after the other; the reasons are those of the first."""
    first = parts[0]
    values = {each.name: getattr(first, each.name) for each in fields(first)}
    for name, value in values.items():
        if isinstance(value, np.ndarray):
            values[name] = np.concatenate([getattr(part, name) for part in parts])
    return WorkItems(**values)
