"""What is true of a pool: drafts and the expert's masks, and what correcting an item does and takes.

The simulated expert replaces an item by the expert's mask. His minutes are assumed, by two rules that no arm is told:
'by slices' takes EDIT_SLICE of each wrong slice, 'by area' EDIT_CM2 of each square centimetre that is wrong in slices,
and both LOOK of each slice that is looked at and OPEN of each time that a case is opened.
"""

# Z Y X space of the mask's file

from __future__ import annotations

from dataclasses import dataclass, field
from functools import cached_property
from pathlib import Path

import numpy as np

from bench.queue.pools import EXPERT, MASKS, POOL_FILE, PoolFacts, version_name
from segfw.base.progress import progress
from segfw.images.formats import read_mask
from segfw.quality.case_quality import CaseRegions, quality_file, regions_file
from segfw.worklist.work_items import WHOLE

OPEN = 0.5
LOOK = 0.05
EDIT_SLICE = 0.25
WRONG_SLICE = 0.05
EDIT_CM2 = 0.1
RULES = ("by slices", "by area")
Box = tuple[slice, slice, slice]


@dataclass(kw_only=True)
class TrueStructure:
    """One structure of a version of a case: where draft and expert have it, within a block of the file's grid, and the
    boxes of its suspected regions in that block, with how many slices each has in the file."""

    draft: np.ndarray
    expert: np.ndarray
    slice_cm2: float
    boxes: dict[int, Box]
    wide: dict[int, int]
    _known: dict[frozenset[int], tuple[float, np.ndarray]] = field(default_factory=dict)

    def after(self, done: frozenset[int]) -> tuple[float, np.ndarray]:
        """Dice when the regions in ``done`` are corrected (WHOLE: everything), and voxels still wrong in each slice."""
        if done not in self._known:
            mask = self.draft.copy()
            for region in done:
                box = self.boxes[region] if region != WHOLE else (slice(None),) * 3
                mask[box] = self.expert[box]
            total = int(mask.sum()) + int(self.expert.sum())
            dice = 2 * int((mask & self.expert).sum()) / total if total else 1.0
            self._known[done] = dice, (mask != self.expert).sum((1, 2))
        return self._known[done]

    @cached_property
    def slices(self) -> int:
        """How many hold the draft or the expert's mask."""
        return int((self.draft | self.expert).any((1, 2)).sum())

    def minutes(self, item: int, done: frozenset[int], rule: str) -> float:
        """Of an item (a region, or WHOLE) when others are corrected already, without opening the case."""
        before = self.after(done)[1]
        after = self.after(done | {item})[1]
        mended = before - after
        looked = self.slices if item == WHOLE else self.wide[item]
        wrong_slices = int((mended > 0).sum())
        if rule == "by slices":
            return LOOK * looked + EDIT_SLICE * wrong_slices
        return LOOK * looked + WRONG_SLICE * wrong_slices + EDIT_CM2 * float(mended.sum()) * self.slice_cm2


@dataclass(frozen=True, kw_only=True)
class TruePool:
    """A pool: what it is of, and the truth by the name of a version and structure."""

    folder: Path
    facts: PoolFacts
    structures: dict[tuple[str, str], TrueStructure]

    @classmethod
    def read(cls, folder: Path) -> TruePool:
        """All of it, from the files."""
        facts = PoolFacts.load(folder / POOL_FILE)
        names = [version_name(case, shift) for case, shifts in facts.versions.items() for shift in shifts]
        found: dict[tuple[str, str], TrueStructure] = {}
        for name in progress("masks of the pool", names):
            for structure, true in _of_version(folder, facts, name).items():
                found[name, structure] = true
        return cls(folder=folder, facts=facts, structures=found)


def _of_version(folder: Path, facts: PoolFacts, name: str) -> dict[str, TrueStructure]:
    draft = read_mask(folder / MASKS / f"{name}.nii.gz")
    expert = read_mask(folder / EXPERT / f"{name}.nii.gz")
    regions = CaseRegions.load(regions_file(quality_file(folder / MASKS, name))).regions
    axes = draft.geometry.matrix[:3, :3]
    slice_cm2 = float(np.linalg.norm(np.cross(axes[:, 1], axes[:, 2]))) / 100
    found = {}
    for structure, classes in facts.labels.structures.items():
        values = [facts.labels.stored_values[index] for index in classes]
        one = np.isin(draft.array[0], values)
        other = np.isin(expert.array[0], values)
        block = _block(one | other)
        boxes = {}
        wide = {}
        for region in regions:
            if region.label == structure and region.box_zyx is not None:
                cut = [
                    slice(max(0, start - part.start), max(0, min(stop, part.stop) - part.start))
                    for (start, stop), part in zip(region.box_zyx, block)
                ]
                wide[region.id] = region.box_zyx[0][1] - region.box_zyx[0][0]
                boxes[region.id] = (cut[0], cut[1], cut[2])
        found[structure] = TrueStructure(
            draft=one[block].copy(), expert=other[block].copy(), slice_cm2=slice_cm2, boxes=boxes, wide=wide
        )
    return found


def _block(mask: np.ndarray) -> Box:
    """Around what there is; one voxel where there is nothing."""
    if not mask.any():
        return (slice(0, 1), slice(0, 1), slice(0, 1))
    places = np.argwhere(mask)
    low = places.min(0)
    high = places.max(0) + 1
    z, y, x = (slice(int(start), int(stop)) for start, stop in zip(low, high))
    return z, y, x
