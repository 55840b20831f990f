"""From which probability on a voxel may belong to a structure, and from which it does, with a bound on the error.

The outer mask holds all voxels from a low threshold on, the inner one those from a high threshold on. Conformal risk
control (Angelopoulos et al. 2022, arXiv 2208.02814) takes, of all thresholds that keep the promise on held-out cases,
the one with the smallest outer and the largest inner mask: on average over images like the training images, the outer
mask misses at most ``level`` of the reference, and the false voxels of the inner one are at most ``level`` of it.

Voxels are counted on the network's grid, by levels of log-odds, so that a case leaves a few hundred numbers.
"""

# S structures, L levels of log-odds, K logits, Z Y X space

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import torch
from torch import Tensor

from segfw.base.records import Record
from segfw.dataset.labels import LabelSet
from segfw.grid.slabs import Slab
from segfw.grid.winners import first_largest
from segfw.quality.patient_quantile import patient_weights

STEPS = 10  # levels per unit of log-odds
LOWEST = -10.0  # of the first level's upper end: a probability of 0.00005
LEVELS = 202  # up to log-odds of 10, above which is the last one
LEVEL = 0.05
LEVEL_OF_FEW = 0.1  # with fewer patients than
ENOUGH_PATIENTS = 40
FEWEST_PATIENTS = 10  # below, no promise
MOST_OUTER_RATIO = 2.0  # of medians in calibration cases: beyond, an outer mask says little
LEAST_INNER_RATIO = 0.5
BLOCK_VALUES = 1 << 22  # logits that are looked at together


class StructureHistogram(Record):
    """Voxels of one structure in one case, on the network's grid, by level of its log-odds (L,): in the reference, and
    outside; and those of its mask."""

    inside: tuple[int, ...]
    outside: tuple[int, ...]
    mask_voxels: int


class PlausibleThresholds(Record):
    """Log-odds from which on a voxel is in the outer and in the inner mask; None where no threshold keeps the promise.

    The promise: ``level`` is the most that outer masks miss, and that inner masks are wrong by, in shares of the
    reference, on average over images like the training images. It stands on ``patients`` in whom the structure is.
    ``empty_share`` of them have an empty inner mask; ``outer_ratio`` and ``inner_ratio`` are median volumes of the two
    against the mask. A ``note`` says why something is None.
    """

    outer: float | None
    inner: float | None
    level: float
    patients: int
    empty_share: float
    outer_ratio: float | None
    inner_ratio: float | None
    note: str = ""

    @property
    def says_little(self) -> str:
        """In words, where the masks differ so much from the mask that they hardly tell anything; else ''."""
        words = []
        if self.outer_ratio is not None and self.outer_ratio > MOST_OUTER_RATIO:
            words.append(f"outer ones are {self.outer_ratio:.1f} times as large as the mask")
        if self.inner_ratio is not None and self.inner_ratio < LEAST_INNER_RATIO:
            words.append(
                f"inner ones are {self.inner_ratio:.0%} of it"
                if words
                else f"inner ones are {self.inner_ratio:.0%} of the mask"
            )
        return " and ".join(words)


def level_edges() -> np.ndarray:
    """Lower end of each level (L,); that of the first one is minus infinity."""
    return np.concatenate([[-np.inf], (np.round(LOWEST * STEPS) + np.arange(LEVELS - 1)) / STEPS])


class PlausibleHistograms:
    """Takes slab after slab of a case and counts the voxels of each structure by log-odds, in and outside of it.

    ``reference_zyx`` are classes on the network's grid; voxels of the ignore label count nowhere. Memory is that of a
    block of voxels.
    """

    def __init__(self, labels: LabelSet, reference_zyx: Tensor, *, block_values: int = BLOCK_VALUES) -> None:
        self._labels = labels
        self._reference = reference_zyx
        self._block_values = block_values
        self._inside_sl = np.zeros((len(labels.structures), LEVELS), np.int64)
        self._outside_sl = np.zeros((len(labels.structures), LEVELS), np.int64)
        self._mask_voxels_s = np.zeros(len(labels.structures), np.int64)

    def add(self, slab: Slab) -> None:
        """Counts the finished slices of a slab, of the mean of its members."""
        _, height, width = self._reference.shape
        rows = max(1, self._block_values // (self._labels.outputs * width))
        for z in range(slab.start, slab.stop):
            for y in range(0, height, rows):
                block = (slice(z, z + 1), slice(y, min(y + rows, height)), slice(0, width))
                self._add_block(slab.logits(block).cpu(), self._reference[block])

    def _add_block(self, logits_kzyx: Tensor, reference_zyx: Tensor) -> None:
        counts = torch.ones_like(reference_zyx, dtype=torch.bool)
        if self._labels.ignored_class is not None:
            counts = reference_zyx != self._labels.ignored_class
        is_found = found_structures(logits_kzyx, self._labels)
        for index, classes in enumerate(self._labels.structures.values()):
            levels = levels_of_log_odds(structure_log_odds(logits_kzyx, self._labels, index))
            is_inside = torch.isin(reference_zyx, torch.tensor(classes, dtype=reference_zyx.dtype))
            self._inside_sl[index] += np.bincount(levels[is_inside & counts].numpy(), minlength=LEVELS)
            self._outside_sl[index] += np.bincount(levels[~is_inside & counts].numpy(), minlength=LEVELS)
            self._mask_voxels_s[index] += int((is_found[index] & counts).sum())

    def result(self) -> dict[str, StructureHistogram]:
        """The counts of each structure, by name."""
        return {
            name: StructureHistogram(
                inside=tuple(self._inside_sl[index].tolist()),
                outside=tuple(self._outside_sl[index].tolist()),
                mask_voxels=int(self._mask_voxels_s[index]),
            )
            for index, name in enumerate(self._labels.structures)
        }


def structure_log_odds(logits_kzyx: Tensor, labels: LabelSet, index: int) -> Tensor:
    """Log-odds (Z, Y, X) that a voxel is of the structure of that index: of its class against all others, or its
    region's logit."""
    if labels.regions:
        return logits_kzyx[index]
    own = index + 1  # class 0 is the background
    others = torch.cat([logits_kzyx[:own], logits_kzyx[own + 1 :]]).logsumexp(0)
    return logits_kzyx[own] - others


def found_structures(logits_kzyx: Tensor, labels: LabelSet) -> Tensor:
    """Whether each structure is found, (S, Z, Y, X) bool: its logit is the largest, or its region's is above 0."""
    if labels.regions:
        return logits_kzyx > 0
    winner = first_largest(logits_kzyx)
    return torch.stack([winner == index for index in range(1, labels.outputs)])


def levels_of_log_odds(log_odds: Tensor) -> Tensor:
    """Level 0..L - 1 of each voxel: the last whose lower end is not above it."""
    return ((log_odds - LOWEST) * STEPS).floor_().add_(1).clamp_(0, LEVELS - 1).long()


def fit_plausible(histograms: Sequence[StructureHistogram], patients: Sequence[str]) -> PlausibleThresholds:
    """Thresholds of one structure from all held-out cases, each of a patient; ValueError if the lists differ in length.

    Cases without the structure in the reference decide nothing. Of a patient with several the mean error counts.
    """
    if len(histograms) != len(patients):
        raise ValueError(f"{len(histograms)} histograms of {len(patients)} cases")
    there = [index for index, one in enumerate(histograms) if sum(one.inside)]
    of = [patients[index] for index in there]
    number = len(set(of))
    level = LEVEL if number >= ENOUGH_PATIENTS else LEVEL_OF_FEW
    if number < FEWEST_PATIENTS:
        note = f"only {number} patients have it; at least {FEWEST_PATIENTS} are needed"
        return PlausibleThresholds(
            outer=None,
            inner=None,
            level=level,
            patients=number,
            empty_share=0,
            outer_ratio=None,
            inner_ratio=None,
            note=note,
        )
    cases = _Cases.of([histograms[index] for index in there], of)

    # The highest threshold of the outer mask, and the lowest of the inner one, that keep the promise
    outer = _last(cases.risks(cases.missed_nl) <= level)
    inner = _first(cases.risks(cases.false_nl) <= level)
    edges = level_edges()
    notes = []
    if outer is None:
        notes.append("no outer mask keeps the promise: too much of it gets no probability at all")
    if inner is None:
        notes.append("no inner mask keeps the promise: too much that is not in the reference looks certain")
    return PlausibleThresholds(
        outer=None if outer is None else float(edges[outer]),
        inner=None if inner is None else float(edges[inner]),
        level=level,
        patients=number,
        empty_share=0.0 if inner is None else cases.share_of_patients(cases.voxels_nl[:, inner] == 0),
        outer_ratio=None if outer is None else cases.median_ratio(outer),
        inner_ratio=None if inner is None else cases.median_ratio(inner),
        note="; ".join(notes),
    )


@dataclass(frozen=True, kw_only=True)
class _Cases:
    """Held-out cases with the structure; masks (N, L) from each level on."""

    missed_nl: np.ndarray  # share of the reference that is not in the mask
    false_nl: np.ndarray  # voxels of the mask that are not in the reference, in shares of it, at most 1
    voxels_nl: np.ndarray
    mask_voxels_n: np.ndarray
    weights_n: np.ndarray
    patients: int

    @staticmethod
    def of(histograms: Sequence[StructureHistogram], patients: Sequence[str]) -> _Cases:
        inside_nl = np.array([one.inside for one in histograms], dtype=np.float64)
        outside_nl = np.array([one.outside for one in histograms], dtype=np.float64)
        reference_n = inside_nl.sum(1, keepdims=True)
        inside_from_nl = inside_nl[:, ::-1].cumsum(1)[:, ::-1]
        outside_from_nl = outside_nl[:, ::-1].cumsum(1)[:, ::-1]
        return _Cases(
            missed_nl=1 - inside_from_nl / reference_n,
            false_nl=np.minimum(outside_from_nl / reference_n, 1),
            voxels_nl=inside_from_nl + outside_from_nl,
            mask_voxels_n=np.array([one.mask_voxels for one in histograms]),
            weights_n=patient_weights(patients),
            patients=len(set(patients)),
        )

    def risks(self, losses_nl: np.ndarray) -> np.ndarray:
        """What the mean loss of a new patient is at most, by level (L,); losses are at most 1."""
        return (self.weights_n @ losses_nl + 1) / (self.patients + 1)

    def share_of_patients(self, is_so_n: np.ndarray) -> float:
        return float(self.weights_n[is_so_n].sum() / self.patients)

    def median_ratio(self, level: int) -> float | None:
        """Median of the masks' voxels from a level on against those of the mask, where there is one."""
        has_mask_n = self.mask_voxels_n > 0
        if not has_mask_n.any():
            return None
        return float(np.median(self.voxels_nl[has_mask_n, level] / self.mask_voxels_n[has_mask_n]))


def _last(keeps_l: np.ndarray) -> int | None:
    """The last level that keeps the promise, as all before it do. The first one has no lower end, and is none."""
    kept = np.flatnonzero(keeps_l[1:])
    return None if len(kept) == 0 else int(kept[-1]) + 1


def _first(keeps_l: np.ndarray) -> int | None:
    """The first level with a lower end that keeps the promise, as all behind it do."""
    kept = np.flatnonzero(keeps_l[1:])
    return None if len(kept) == 0 else int(kept[0]) + 1
