"""Drawing patients into folds: plainly as nnU-Net does, or so that rare labels are in every fold."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable, Mapping, Sequence, Set
from dataclasses import dataclass, field

import numpy as np

ATTEMPTS = 20  # orders in which patients are placed; the first mostly is good enough

Parts = list[list[str]]


@dataclass
class _Part:
    """One fold's validation part while it is filled."""

    patients: list[str] = field(default_factory=list)
    cases: int = 0
    labels: set[str] = field(default_factory=set)

    def take(self, patient: str, cases: int, labels: Iterable[str]) -> None:
        self.patients.append(patient)
        self.cases += cases
        self.labels.update(labels)


def draw_parts(
    sizes: Mapping[str, int], labels_of_patient: Mapping[str, Set[str]], folds: int, seed: int
) -> tuple[Parts, list[str]]:
    """Patients of each fold's validation part, and the labels for whose sake they were not drawn plainly.

    ``sizes`` are the patients' numbers of cases, which the folds have as evenly as whole patients allow.
    """
    parts = _plain_parts(sizes, folds, seed)
    missed = missed_labels(parts, labels_of_patient)
    if not missed:
        return parts, []
    rng, best, least = np.random.default_rng(seed), parts, _badness(parts, sizes, labels_of_patient)
    good_enough = (0, 0, max(least[2], 1))
    for _ in range(ATTEMPTS):
        drawn = _covering_parts(sizes, labels_of_patient, folds, rng)
        badness = _badness(drawn, sizes, labels_of_patient)
        if badness < least:
            best, least = drawn, badness
        if least <= good_enough:
            break
    still = missed_labels(best, labels_of_patient)
    return best, sorted(label for label in missed if still.get(label, 0) < missed[label])


def missed_labels(parts: Parts, labels_of_patient: Mapping[str, Set[str]]) -> dict[str, int]:
    """Labels that could be in more folds' validation parts than they are, and in how many more.

    A label with as many patients as there are folds can be in each; one with fewer but at least two should not be in
    a single fold, because that fold's training part would go without it.
    """
    holders = [_labels_in(part, labels_of_patient) for part in parts]
    missed = {}
    for label, number in _patients_of_label(labels_of_patient).items():
        reached = sum(label in labels for labels in holders)
        wanted = len(parts) if number >= len(parts) else min(number, 2)
        if reached < wanted:
            missed[label] = wanted - reached
    return missed


def _labels_in(part: list[str], labels_of_patient: Mapping[str, Set[str]]) -> set[str]:
    return set().union(*(labels_of_patient[patient] for patient in part))


def _plain_parts(sizes: Mapping[str, int], folds: int, seed: int) -> Parts:
    patients = sorted(sizes)
    # The legacy generator on purpose: it is what nnU-Net's splits are drawn with, so results can be compared.
    shuffled = np.arange(len(patients))
    np.random.RandomState(seed).shuffle(shuffled)  # noqa: NPY002
    if len(set(sizes.values())) == 1:
        return [[patients[index] for index in chosen] for chosen in np.array_split(shuffled, folds)]
    parts = [_Part() for _ in range(folds)]
    # Large ones first, each to the smallest fold: nearly even, and no fold stays empty.
    for patient in sorted((patients[index] for index in shuffled), key=sizes.get, reverse=True):
        _smallest(parts).take(patient, sizes[patient], ())
    return [part.patients for part in parts]


def _smallest(parts: Sequence[_Part]) -> _Part:
    return min(parts, key=lambda part: (part.cases, len(part.patients)))


def _patients_of_label(labels_of_patient: Mapping[str, Set[str]]) -> Counter[str]:
    return Counter(label for labels in labels_of_patient.values() for label in labels)


def _covering_parts(
    sizes: Mapping[str, int], labels_of_patient: Mapping[str, Set[str]], folds: int, rng: np.random.Generator
) -> Parts:
    """Iterative stratification (Sechidis et al. 2011) of patients, until each label is in each fold that it can be in.

    The label with the fewest patients left is placed first, because it has the least choice.
    """
    order = [sorted(sizes)[index] for index in rng.permutation(len(sizes))]
    waiting = dict.fromkeys(sorted(order, key=sizes.get, reverse=True))
    left = _patients_of_label(labels_of_patient)
    parts = [_Part() for _ in range(folds)]
    while left:
        rarest = min(left, key=lambda label: (left[label], label))
        lacking = [part for part in parts if rarest not in part.labels]
        if not lacking or not left[rarest]:  # the rest of its patients only has to make sizes even
            del left[rarest]
            continue
        patient = next(patient for patient in waiting if rarest in labels_of_patient[patient])
        labels = labels_of_patient[patient]
        most_new = max(len(labels - part.labels) for part in lacking)
        chosen = _smallest([part for part in lacking if len(labels - part.labels) == most_new])
        chosen.take(patient, sizes[patient], labels)
        del waiting[patient]
        left.subtract(label for label in labels if label in left)
    for patient in waiting:
        _smallest(parts).take(patient, sizes[patient], ())
    return [part.patients for part in parts]


def _badness(parts: Parts, sizes: Mapping[str, int], labels_of_patient: Mapping[str, Set[str]]) -> tuple[int, int, int]:
    """Empty folds, labels missed, and how much larger the largest fold is than the smallest."""
    totals = [sum(sizes[patient] for patient in part) for part in parts]
    missed = sum(missed_labels(parts, labels_of_patient).values())
    return totals.count(0), missed, max(totals) - min(totals)
