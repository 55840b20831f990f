"""Which cases train and which validate, per fold: seeded, kept, and never silently changed."""

from __future__ import annotations

import re
from collections import Counter, defaultdict
from collections.abc import Collection, Iterable, Mapping, Sequence, Set
from dataclasses import dataclass, field
from itertools import chain
from pathlib import Path
from typing import NamedTuple
from unicodedata import normalize

import numpy as np
from pydantic import SerializerFunctionWrapHandler, model_serializer, model_validator

from segfw.base.file_names import SPLITS_FILE as SPLITS_FILE
from segfw.base.records import Record, UserError
from segfw.base.words import count, first_line
from segfw.base.written_by_people import Unreadable, read_json

FEWEST_CASES = 2
MORE_CASES = "training needs at least 2, better 20 or more"
FOLDS = 5
SEED = 12345
ATTEMPTS = 20  # orders in which patients are placed; the first mostly is good enough

Parts = list[list[str]]


class Fold(Record):
    """Case ids of one fold. ``left_out`` are the values, such as sites, whose cases are those of ``validation``.

    ``weights`` say how often each case of ``train`` is drawn, in relation to the others; empty: all alike.
    """

    train: tuple[str, ...]
    validation: tuple[str, ...]
    left_out: tuple[str, ...] = ()
    weights: tuple[float, ...] = ()

    @model_validator(mode="after")
    def _one_weight_for_each(self) -> Fold:
        if self.weights and len(self.weights) != len(self.train):
            raise ValueError(f"{len(self.weights)} weights are given for {count(len(self.train), 'training case')}")
        if any(weight <= 0 for weight in self.weights):
            raise ValueError("weights must be above 0; leave a case out of train instead")
        return self

    @model_serializer(mode="wrap")
    def _as_before(self, handler: SerializerFunctionWrapHandler) -> dict[str, object]:
        """Folds that leave out no value, and draw all cases alike, are written as in every splits.json of before."""
        content: dict[str, object] = handler(self)
        for name in ("left_out", "weights"):
            if not content[name]:
                del content[name]
        return content


class Splits(Record):
    """All folds, and where they come from.

    ``patient_of`` is the patient of each case that is not called like its patient; None in a file of before that was
    kept, where only ``source`` says something of patients.
    """

    source: str
    folds: tuple[Fold, ...]
    patient_of: dict[str, str] | None = None

    @model_serializer(mode="wrap")
    def _as_before(self, handler: SerializerFunctionWrapHandler) -> dict[str, object]:
        """Folds of unknown patients are written as in every splits.json of before."""
        content: dict[str, object] = handler(self)
        if self.patient_of is None:
            del content["patient_of"]
        return content

    @property
    def patients(self) -> int | None:
        """Of how many patients cases were kept together where folds were drawn; None where each case was drawn."""
        said = re.search(r", all cases of each of (\d+) patients? in one fold", self.source)
        return None if said is None else int(said[1])

    def with_patients(self, patient_of: Mapping[str, str]) -> Splits:
        """The same folds, with the patient of each of their cases."""
        others = {case: patient for case, patient in patient_of.items() if patient != case}
        return self.model_copy(update={"patient_of": others})

    def patients_of(self, case_ids: Iterable[str]) -> dict[str, str] | None:
        """The patient of each case, as it was known when the folds were made; None if it was not kept."""
        if self.patient_of is None:
            return None
        return {case: self.patient_of.get(case, case) for case in case_ids}

    def fold(self, name: str) -> Fold:
        """Fold '0', '1', ... or 'all' (every case trains, none validates); raises UserError for another."""
        if name == "all":
            everything = sorted(set(chain.from_iterable((*fold.train, *fold.validation) for fold in self.folds)))
            return Fold(train=tuple(everything), validation=(), weights=self._mean_weights(everything))
        require_fold(name, len(self.folds))
        return self.folds[int(name)]

    def _mean_weights(self, case_ids: Sequence[str]) -> tuple[float, ...]:
        """The mean weight of each case over the folds that train on it; empty where all are drawn alike."""
        if not any(fold.weights for fold in self.folds):
            return ()
        weights_of: dict[str, list[float]] = defaultdict(list)
        for fold in self.folds:
            for case, weight in zip(fold.train, fold.weights or (1.0,) * len(fold.train)):
                weights_of[case].append(weight)
        return tuple(float(np.mean(weights_of.get(case, [1.0]))) for case in case_ids)


def require_fold(name: str, folds: int) -> None:
    """Raises UserError unless there is a fold of that name among ``folds``, or it is 'all'."""
    if name != "all" and not (name.isdecimal() and int(name) < folds):
        raise UserError(f"fold {name!r} does not exist; choose 0 to {folds - 1} or all")


def too_few(cases: int) -> str:
    """What is wrong with a data set of less than FEWEST_CASES."""
    return f"the data set has {count(cases, 'usable case')}"


def make_splits(
    case_ids: Sequence[str],
    *,
    groups: Mapping[str, str] | None = None,
    labels_of_case: Mapping[str, Collection[str]] | None = None,
    folds: int = FOLDS,
    seed: int = SEED,
) -> Splits:
    """Shuffled folds of nearly equal size; fewer if patients are few.

    All cases of a patient (``groups``: case -> patient; each case its own without it) are in one fold. Where a plain
    draw would leave a label (``labels_of_case``: foreground names in each mask) out of a fold's validation or out of
    training, although enough patients have it, folds are drawn so that it is in each; ``source`` says so. In all other
    data sets of one case per patient, the folds are the same as nnU-Net's for the same case ids.
    """
    ids = sorted(case_ids)
    if len(ids) < FEWEST_CASES:
        raise UserError(f"{too_few(len(ids))}; {MORE_CASES}")
    groups = groups or {}
    cases_of: dict[str, list[str]] = defaultdict(list)
    for case in ids:
        cases_of[groups.get(case, case)].append(case)
    if len(cases_of) < 2:
        patient = next(iter(cases_of))
        raise UserError(
            f"all {len(ids)} cases are of one patient ({patient!r}), so none can validate; correct the groups or add "
            "cases of others"
        )
    labels = labels_of_case or {}
    labels_of_patient = {
        patient: set[str]().union(*(labels.get(case, ()) for case in cases)) for patient, cases in cases_of.items()
    }
    sizes = {patient: len(cases) for patient, cases in cases_of.items()}
    parts, stratified = draw_parts(sizes, labels_of_patient, min(folds, len(cases_of)), seed)
    drawn = []
    for part in parts:
        held_out = set(chain.from_iterable(cases_of[patient] for patient in part))
        train = tuple(case for case in ids if case not in held_out)
        validation = tuple(case for case in ids if case in held_out)
        drawn.append(Fold(train=train, validation=validation))
    source = f"{count(len(parts), 'fold')} drawn with seed {seed}"
    if len(cases_of) < len(ids):
        source += f", all cases of each of {count(len(cases_of), 'patient')} in one fold"
    if stratified:
        source += f", so that rare labels ({', '.join(stratified)}) are in as many folds as possible"
    return Splits(source=source, folds=tuple(drawn))


def import_splits(path: Path, case_ids: Sequence[str], groups: Mapping[str, str] | None = None) -> Splits:
    """Folds of an nnU-Net ``splits_final.json`` or of a ``splits.json`` of segfw.

    Raises UserError if they do not fit the cases, or if one patient (``groups``: case -> patient) is in training and
    validation of one fold.
    """
    folds = read_folds(path)
    if not folds:
        raise UserError(f"{path}: lists no folds; correct it, or remove it to have folds drawn")
    for number, fold in enumerate(folds):
        unknown = sorted({*fold.train, *fold.validation} - set(case_ids))
        shared = sorted(set(fold.train) & set(fold.validation))
        if unknown:
            raise UserError(f"{path}: fold {number} names {unknown[0]!r}, which is no usable case; correct it")
        if shared:
            raise UserError(f"{path}: fold {number} has {shared[0]!r} in both parts; keep it in one")
        if not fold.train:
            raise UserError(f"{path}: fold {number} has no training cases; correct it")
        _refuse_shared_patient(path, number, fold, groups or {})
    return Splits(source=path.name, folds=folds)


def read_folds(path: Path) -> tuple[Fold, ...]:
    """Folds of a list (nnU-Net: train, val) or of an object with the field folds (segfw: train, validation)."""
    try:
        content = read_json(path)
        if isinstance(content, dict) and {"source", "folds"} <= content.keys():
            return Splits.load(path).folds
        return tuple(Fold(train=_composed(entry["train"]), validation=_composed(entry["val"])) for entry in content)
    except Unreadable as error:
        raise UserError(
            f"{path}: is not a list of {{'train': [...], 'val': [...]}} ({error.reason}); correct it"
        ) from None
    except (ValueError, TypeError, KeyError) as error:
        reason = first_line(error)
        raise UserError(f"{path}: is not a list of {{'train': [...], 'val': [...]}} ({reason}); correct it") from None


def _composed(case_ids: Sequence[str]) -> tuple[str, ...]:
    """Ids as names of files are taken: letters with accents composed."""
    return tuple(normalize("NFC", case) if isinstance(case, str) else case for case in case_ids)


def _refuse_shared_patient(path: Path, number: int, fold: Fold, groups: Mapping[str, str]) -> None:
    trains = {groups.get(case, case): case for case in reversed(fold.train)}
    for case in fold.validation:
        patient = groups.get(case, case)
        if patient in trains:
            raise UserError(
                f"{path}: fold {number} trains on {trains[patient]!r} and validates on {case!r}, both of patient "
                f"{patient!r}; move them into one part, or correct which cases are of one patient"
            )


def split_notes(splits: Splits, labels_of_case: Mapping[str, Collection[str]]) -> list[str]:
    """What is wrong with folds though they can be used, a sentence each: labels and cases that parts go without.

    ``labels_of_case`` has every case of the data set and the foreground labels in its mask.
    """
    holders: dict[str, set[str]] = defaultdict(set)
    for case, labels in labels_of_case.items():
        for label in labels:
            holders[label].add(case)
    notes = []
    for label, cases in sorted(holders.items()):
        where = f"label {label} ({count(len(cases), 'case')})"
        untrained = _folds_without(cases, [fold.train for fold in splits.folds])
        if untrained:
            notes.append(f"{where} is in no training case of fold {untrained} and cannot be learnt there")
        unscored = _folds_without(cases, [fold.validation for fold in splits.folds])
        if unscored:
            notes.append(f"{where} is in no validation case of fold {unscored} and gets no score there")
    used = set(chain.from_iterable((*fold.train, *fold.validation) for fold in splits.folds))
    validated = Counter(chain.from_iterable(fold.validation for fold in splits.folds))
    repeated = {case for case, times in validated.items() if times > 1}
    for cases, what in (
        (set(labels_of_case) - used, "in no fold: neither trained on nor validated"),
        (used - set(validated), "validated in no fold"),
        (repeated, "validated in several folds"),
    ):
        if cases:
            first = f", such as {min(cases)!r}," if len(cases) > 1 else f" ({min(cases)!r})"
            notes.append(f"{count(len(cases), 'case')}{first} {'are' if len(cases) > 1 else 'is'} {what}")
    return notes


def _folds_without(cases: Set[str], parts: Sequence[Sequence[str]]) -> str:
    """'0, 3': the folds whose part has none of the cases; '' if there is none."""
    return ", ".join(str(index) for index, part in enumerate(parts) if not cases & set(part))


# ---- drawing patients into folds: plainly as nnU-Net does, or so that rare labels are in every fold ----


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
    rng = np.random.default_rng(seed)
    best = parts
    least = _badness(parts, sizes, labels_of_patient)
    good_enough = _Badness(empty_folds=0, missed_labels=0, size_difference=max(least.size_difference, 1))
    for _ in range(ATTEMPTS):
        drawn = _covering_parts(sizes, labels_of_patient, folds, rng)
        badness = _badness(drawn, sizes, labels_of_patient)
        if badness < least:
            best = drawn
            least = badness
        if least <= good_enough:
            break
    still_missed = missed_labels(best, labels_of_patient)
    return best, sorted(label for label in missed if still_missed.get(label, 0) < missed[label])


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
    for patient in sorted((patients[index] for index in shuffled), key=lambda patient: sizes[patient], reverse=True):
        _smallest(parts).take(patient, sizes[patient], ())
    return [part.patients for part in parts]


def _smallest(parts: Sequence[_Part]) -> _Part:
    return min(parts, key=lambda part: (part.cases, len(part.patients)))


def _patients_of_label(labels_of_patient: Mapping[str, Set[str]]) -> Counter[str]:
    return Counter(chain.from_iterable(labels_of_patient.values()))


def _covering_parts(
    sizes: Mapping[str, int], labels_of_patient: Mapping[str, Set[str]], folds: int, rng: np.random.Generator
) -> Parts:
    """Iterative stratification (Sechidis et al. 2011) of patients, until each label is in each fold that it can be in.

    The label with the fewest patients left is placed first, because it has the least choice.
    """
    order = [sorted(sizes)[index] for index in rng.permutation(len(sizes))]
    waiting = dict.fromkeys(sorted(order, key=lambda patient: sizes[patient], reverse=True))
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


class _Badness(NamedTuple):
    """How bad a draw is, the worst first."""

    empty_folds: int
    missed_labels: int
    size_difference: int  # of the largest fold and the smallest


def _badness(parts: Parts, sizes: Mapping[str, int], labels_of_patient: Mapping[str, Set[str]]) -> _Badness:
    totals = [sum(sizes[patient] for patient in part) for part in parts]
    return _Badness(
        empty_folds=totals.count(0),
        missed_labels=sum(missed_labels(parts, labels_of_patient).values()),
        size_difference=max(totals) - min(totals),
    )
