"""Which fold trains on which new case: group-aware, old cases where they were, so that no fold has seen its judges.

A patient's fold is the one that does not train on the patient. It stays so over any number of rounds.
"""

from __future__ import annotations

import re
from collections import Counter, defaultdict
from collections.abc import Mapping, Sequence
from itertools import chain

import numpy as np

from segfw.base.records import UserError
from segfw.base.words import count
from segfw.planning.splits import Fold, Splits
from segfw.retraining.retraining_record import NewLabel

OLD_SHARE = 0.5  # of the samples of a batch, at least, in expectation
# A label that was accepted as the model drew it tells the model what it said: it counts half. Nothing was measured.
UNEDITED_WEIGHT = 0.5


def case_ids(splits: Splits) -> tuple[str, ...]:
    """All cases that any fold knows, sorted."""
    return splits.fold("all").train


def require_patients_apart(splits: Splits, patient_of: Mapping[str, str], work: str) -> None:
    """UserError if a fold trains on one case of a patient and validates on another: then these are not its groups."""
    remedy = "give --groups as it was given when the folds were drawn"
    ids = [case for case in case_ids(splits) if case in patient_of]
    patients = len({patient_of[case] for case in ids})
    if splits.patients is not None and patients > splits.patients:
        raise UserError(
            f"{work}: its folds were drawn by {count(splits.patients, 'patient')}, and here its cases count as of "
            f"{patients}, so that a patient's new scan might train the fold that the old one judges; {remedy}"
        )
    for number, fold in enumerate(splits.folds):
        trains = {patient_of[case]: case for case in fold.train if case in patient_of}
        for case in fold.validation:
            other = trains.get(patient_of.get(case, ""))
            if other is not None:
                raise UserError(
                    f"{work}: fold {number} trains on {other!r} and validates on {case!r}, both of patient "
                    f"{patient_of[case]!r}; {remedy}"
                )


def require_same_patients(known: Mapping[str, str], found: Mapping[str, str], work: str) -> None:
    """UserError unless cases are put together as they were when the folds were drawn, whatever the patients are called.

    Else the names of cases do not tell the patients, and a new scan of an old patient would pass for one of its own.
    """
    for first, second in ((known, found), (found, known)):
        first_case: dict[str, str] = {}
        for case, patient in first.items():
            other = first_case.setdefault(patient, case)
            if second[case] != second[other]:
                how = "one patient" if first is known else "two patients"
                raise UserError(
                    f"{work}: {other!r} and {case!r} are of {how}, as the folds know, and not by what is known here; "
                    "give --groups for the old and the new cases"
                )


def folds_held_out_of(splits: Splits, patient_of: Mapping[str, str]) -> dict[str, tuple[str, ...]]:
    """By patient of the old cases the folds that do not train on the patient."""
    without: dict[str, set[str]] = defaultdict(set)
    for number, fold in enumerate(splits.folds):
        trained = {patient_of[case] for case in fold.train if case in patient_of}
        for patient in set(patient_of.values()) - trained:
            without[patient].add(str(number))
    return {patient: tuple(sorted(without[patient])) for patient in set(patient_of.values())}


def dealt_folds(
    splits: Splits, old_patient_of: Mapping[str, str], new_patient_of: Mapping[str, str], seed: int
) -> dict[str, tuple[str, ...]]:
    """For each new case the folds that do not train on it.

    That of its patient where the patient has old cases; else each new patient goes to the fold that holds out the
    fewest new cases so far, those with most cases first. Of a single fold no new patient is held out, or nothing would
    train on any.
    """
    known = folds_held_out_of(splits, old_patient_of)
    held: Counter[int] = Counter()
    for patient in new_patient_of.values():
        held.update(int(fold) for fold in known.get(patient, ()))
    sizes = Counter(patient for patient in new_patient_of.values() if patient not in known)
    names = sorted(sizes)
    shuffled = [names[index] for index in np.random.default_rng(seed).permutation(len(names))]
    fold_of: dict[str, tuple[str, ...]] = {}
    for patient in sorted(shuffled, key=lambda patient: sizes[patient], reverse=True):
        if len(splits.folds) < 2:
            fold_of[patient] = ()
            continue
        chosen = min(
            range(len(splits.folds)),
            key=lambda number: (held[number], len(splits.folds[number].validation), number),
        )
        held[chosen] += sizes[patient]
        fold_of[patient] = (str(chosen),)
    folds = fold_of | known
    return {case: folds[patient] for case, patient in new_patient_of.items()}


def enlarged_splits(splits: Splits, new: Sequence[NewLabel], patient_of: Mapping[str, str]) -> Splits:
    """The folds with the new cases: old cases as they were, new ones where they may be, and how often each is drawn.

    A new case validates the fold that does not train on it only if its label was drawn without the model.
    """
    folds = []
    for number, fold in enumerate(splits.folds):
        here = str(number)
        train = [label for label in new if here not in label.held_out_of]
        judges = [label for label in new if here in label.held_out_of and label.may_evaluate]
        folds.append(
            Fold(
                train=(*fold.train, *(label.case.id for label in train)),
                validation=(*fold.validation, *(label.case.id for label in judges)),
                left_out=fold.left_out,
                weights=drawn_weights(fold, train),
            )
        )
    patients = len(set(patient_of.values()))
    source = re.sub(r"(, all cases of each of )\d+", rf"\g<1>{patients}", splits.source)
    said = f"{source}; {count(len(new), 'new case')} of segfw retrain"
    return Splits(source=said, folds=tuple(folds)).with_patients(patient_of)


def drawn_weights(old: Fold, new: Sequence[NewLabel]) -> tuple[float, ...]:
    """How often each case is drawn, old ones first: these make at least OLD_SHARE of all samples. Empty: all alike."""
    if not new:
        return old.weights
    old_weights = old.weights or (1.0,) * len(old.train)
    new_weights = [UNEDITED_WEIGHT if label.began_as == "unedited" else 1.0 for label in new]
    most = sum(old_weights) * (1 - OLD_SHARE) / OLD_SHARE
    factor = min(1.0, most / sum(new_weights))
    weights = (*old_weights, *(weight * factor for weight in new_weights))
    return () if len(set(weights)) == 1 else weights


def old_share(fold: Fold, old: int) -> float:
    """Expected share of the first ``old`` training cases in a batch."""
    weights = fold.weights or (1.0,) * len(fold.train)
    return sum(weights[:old]) / sum(weights)


def require_no_leak(before: Splits, after: Splits, patient_of: Mapping[str, str]) -> None:
    """ValueError unless no fold's judges, nor another case of their patients, train it now or trained what it begins
    with.
    """
    for number, (old, new) in enumerate(zip(before.folds, after.folds, strict=True)):
        trained = {patient_of.get(case, case) for case in chain(old.train, new.train)}
        leaked = sorted(case for case in new.validation if patient_of.get(case, case) in trained)
        if leaked:
            raise ValueError(f"fold {number} was trained on the patient of {leaked[0]}, which it is judged by")
