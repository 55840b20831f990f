"""The same scan under several ids, and several scans of one patient: both leak from training into validation."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Iterator, Mapping
from itertools import chain

import numpy as np

from segfw.base.robust import robust_spread
from segfw.base.words import count
from segfw.dataset.cases import Finding

# Correlation of two signatures. Measured on MR of the hippocampus and the heart, CT of head and neck, and brain
# slices: scans of different patients reach at most 0.57, 0.34, 0.88 and 0.50; two phases of one heart 0.94 to 0.991;
# copies that were scaled, cast, blurred by 0.7 voxels, gamma-corrected or given 10 % noise lie above 0.95.
SAME_SCAN = 0.94
SAME_SCAN_OF_PATIENT = 0.998  # where the ids tell that both are of one patient, as phases and follow-ups are
# How far above the correlation of the set's other pairs that is, in robust standard deviations of Fisher's
# transform: small images of one body region look alike, and the more so the fewer voxels they have.
DISTANCE_TO_OTHERS = 6.0
FEWEST_PAIRS = 28  # of eight cases
TURNS: dict[str, tuple[int, ...]] = {
    "": (),
    "mirrored along z": (0,),
    "mirrored along y": (1,),
    "mirrored along x": (2,),
}

TOLD_BY_IDS = "told by the ids"  # a guess


def near_duplicates(signature_of: Mapping[str, np.ndarray], patient_of: Mapping[str, str]) -> list[Finding]:
    """Every case that shows the same scan as an earlier one in other numbers; ``signature_of`` is by case id."""
    best: dict[str, tuple[float, str, str]] = {}  # later case -> correlation, earlier case, how it is turned
    ids_by_grid: dict[tuple[int, ...], list[str]] = defaultdict(list)
    for case, signature in signature_of.items():
        ids_by_grid[signature.shape].append(case)
    for ids in ids_by_grid.values():
        for later, earlier, correlation, turn in _matches(np.stack([signature_of[case] for case in ids])):
            first = ids[earlier]
            second = ids[later]
            same_patient = patient_of.get(first) == patient_of.get(second)
            if same_patient and correlation < SAME_SCAN_OF_PATIENT:
                continue
            best[second] = max(best.get(second, (0.0, "", "")), (correlation, first, turn))
    return [_finding(case, *best[case]) for case in signature_of if case in best]


def same_scans(signature_of: Mapping[str, np.ndarray], others: Mapping[str, np.ndarray]) -> dict[str, str]:
    """By case the one of ``others`` that shows the same scan, in whatever numbers; cases like none are left out."""
    found: dict[str, tuple[float, str]] = {}
    for shape in {each.shape for each in others.values()}:
        first = [name for name, each in others.items() if each.shape == shape]
        then = [name for name, each in signature_of.items() if each.shape == shape]
        lines = np.stack([*(others[name] for name in first), *(signature_of[name] for name in then)])
        for later, earlier, correlation, _ in _matches(lines):
            if earlier < len(first) <= later:
                name = then[later - len(first)]
                found[name] = max(found.get(name, (0.0, "")), (correlation, first[earlier]))
    return {name: other for name, (_, other) in found.items()}


def _matches(signatures: np.ndarray) -> Iterator[tuple[int, int, float, str]]:
    """Pairs of like images, the later first, with their correlation and how one is turned against the other."""
    lines = signatures.reshape(len(signatures), -1)
    limit = SAME_SCAN
    for turn, axes in TURNS.items():
        turned = np.flip(signatures, tuple(axis + 1 for axis in axes)).reshape(lines.shape)
        correlations = np.tril(lines @ turned.T, -1)
        if not axes:
            limit = max(limit, _above_others(correlations))
        for later, earlier in np.argwhere(correlations > limit).tolist():
            yield later, earlier, float(correlations[later, earlier]), turn


def _finding(case: str, correlation: float, other: str, turn: str) -> Finding:
    turned = f", {turn}," if turn else ""
    return Finding(
        kind="near-duplicate",
        severity="warning",
        case=case,
        others=(other,),
        what=f"the image shows the same as that of {other}{turned} in other numbers (correlation {correlation:.3f})",
        remedy="keep one of them; if they are two scans of one patient, say so with --groups",
    )


def _above_others(correlations: np.ndarray) -> float:
    """The correlation that is DISTANCE_TO_OTHERS away from what pairs of this data set usually have."""
    pairs = correlations[np.tril_indices(len(correlations), -1)]
    if len(pairs) < FEWEST_PAIRS:
        return 0.0
    transformed = np.arctanh(pairs.clip(-0.9999, 0.9999))
    middle = np.median(transformed)
    spread = robust_spread(transformed)
    # Never so high that a copy with a little noise is missed.
    return min(float(np.tanh(middle + DISTANCE_TO_OTHERS * spread)), SAME_SCAN_OF_PATIENT)


def repeated_patients(patient_of: Mapping[str, str], *, source: str = TOLD_BY_IDS) -> list[Finding]:
    """A note where patients have several cases, so that whoever draws folds by case is warned.

    ``source`` says in words where the patients are known from.
    """
    cases_of: dict[str, list[str]] = defaultdict(list)
    for case, patient in sorted(patient_of.items()):
        cases_of[patient].append(case)
    several = {patient: ids for patient, ids in cases_of.items() if len(ids) > 1}
    if not several:
        return []
    example = next(iter(several.values()))
    who = f"{count(len(several), 'patient')} of {len(cases_of)}"
    what = f"{who} have several cases, {source}, such as {', '.join(example[:3])}"
    remedy = "folds have to be drawn by patient"
    if source == TOLD_BY_IDS:
        remedy += "; give --groups if the ids mislead"
    others = tuple(chain(*several.values()))
    return [Finding(kind="same-patient", severity="note", what=what, remedy=remedy, others=others)]
