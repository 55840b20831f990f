"""Patches that grow while a network trains: from small ones, of which many fit into the time, to those of prediction.

Fischer et al., "Progressive Growing of Patch Size" (MICCAI 2024, arXiv 2407.07853; extended 2025, arXiv 2510.23241).
Small patches hold more of a structure for the same work, and a network that has learned from them what the structure
looks like needs few large ones to learn where it lies.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from math import prod

from segfw.images.geometry import Shape, as_shape

STAGES = 4
USUAL_AT_THE_BOTTOM = 4  # voxels along an axis, as in planned networks: norms over fewer learn little
FEWEST_AT_THE_BOTTOM = 2  # a norm over a single voxel is no norm
BATCH_GROWTH = 0.5  # 0: as many patches in every stage; 1: as many voxels
SHARES_OF_EDGES = (1.0, 0.875, 0.75, 0.625, 0.5, 0.375, 0.25)  # that a patch may have of the planned one


@dataclass(frozen=True, kw_only=True)
class PatchStage:
    """Part of a run in which all patches have one size. ``until`` is the share of the run at which it ends."""

    patch_size: Shape
    batch_size: int
    until: float

    @property
    def voxels(self) -> int:
        """Of a step."""
        return prod(self.patch_size) * self.batch_size


def growing_stages(
    patch_size: Shape,
    multiple_of: Shape,
    batch_size: int,
    *,
    stages: int = STAGES,
    joined_batch: Callable[[int], int] = int,
) -> tuple[PatchStage, ...]:
    """Stages in which every edge grows evenly to that of ``patch_size``, in multiples of ``multiple_of``.

    The last stage has the patch and the batch that are given. In those before it the batch is larger, by the root of
    what its patches are smaller. All are of equal length, but those that are alike are joined. ``joined_batch`` makes a
    batch one that several ranks can share.
    """
    result: list[PatchStage] = []
    for number in range(1, stages + 1):
        patch = part_of_patch(patch_size, multiple_of, number / stages)
        if result and result[-1].patch_size == patch:
            result.pop()
        smaller = prod(patch_size) / prod(patch)
        batch = joined_batch(round(batch_size * smaller**BATCH_GROWTH))
        result.append(PatchStage(patch_size=patch, batch_size=batch, until=number / stages))
    return tuple(result)


def constant_stage(patch_size: Shape, batch_size: int) -> tuple[PatchStage, ...]:
    """A run in which all patches are alike."""
    return (PatchStage(patch_size=patch_size, batch_size=batch_size, until=1.0),)


def stage_shares(stages: Sequence[PatchStage]) -> list[float]:
    """What part of a run each stage has; 1 in all."""
    ends = [0.0, *(stage.until for stage in stages)]
    return [end - begin for begin, end in zip(ends, ends[1:])]


def stage_at(stages: Sequence[PatchStage], progress: float) -> int:
    """Index of the stage in which a run is that has come so far, 0 to 1."""
    return next((index for index, stage in enumerate(stages) if progress < stage.until), len(stages) - 1)


def stages_text(stages: Sequence[PatchStage]) -> str:
    """'1 x 64 x 64 (7 a step), 1 x 128 x 128 (4 a step), then 1 x 256 x 224 (2 a step)'."""
    words = [f"{' x '.join(map(str, stage.patch_size))} ({stage.batch_size} a step)" for stage in stages]
    return ", then ".join([", ".join(words[:-1]), words[-1]]) if len(words) > 1 else words[0]


def smaller_patches(patch_size: Shape, multiple_of: Shape) -> tuple[Shape, ...]:
    """What a patch may be cut down to, the largest first: itself, and shapes of ever shorter edges."""
    return tuple(dict.fromkeys(part_of_patch(patch_size, multiple_of, share) for share in SHARES_OF_EDGES))


def part_of_patch(patch_size: Shape, multiple_of: Shape, share: float) -> Shape:
    """A patch with about ``share`` of each edge, in whole steps of what the network halves its axes by in all."""
    return as_shape(_edge(length, step, share) for length, step in zip(patch_size, multiple_of))


def _edge(length: int, step: int, share: float) -> int:
    """About ``share`` of an edge, in whole steps, and at least what the network's deepest layer can do with.

    That is USUAL_AT_THE_BOTTOM voxels there or, in networks so deep that the planned patch hardly has as many, half of
    them.
    """
    half = round(length / 2 / step) * step
    fewest = min(USUAL_AT_THE_BOTTOM * step, max(FEWEST_AT_THE_BOTTOM * step, half))
    return min(length, max(fewest, round(length * share / step) * step))
