"""Which fold trains on which new case, and how often it is drawn: counted by hand."""

import numpy as np
import pytest

from builders.retraining import label
from segfw.base.records import UserError
from segfw.planning.splits import Fold, Splits
from segfw.retraining.enlarged_folds import (
    OLD_SHARE,
    dealt_folds,
    drawn_weights,
    enlarged_splits,
    folds_held_out_of,
    old_share,
    require_no_leak,
    require_patients_apart,
    require_same_patients,
)

# Three folds of three patients with two cases each
PATIENT_OF = {"a1": "a", "a2": "a", "b1": "b", "b2": "b", "c1": "c", "c2": "c"}
SPLITS = Splits(
    source="3 folds drawn with seed 1, all cases of each of 3 patients in one fold",
    folds=(
        Fold(train=("b1", "b2", "c1", "c2"), validation=("a1", "a2")),
        Fold(train=("a1", "a2", "c1", "c2"), validation=("b1", "b2")),
        Fold(train=("a1", "a2", "b1", "b2"), validation=("c1", "c2")),
    ),
)


def new_labels(folds, began="edited"):
    return [label(case, held_out_of=held, began_as=began) for case, held in folds.items()]


def test_a_new_scan_of_an_old_patient_is_in_his_fold():
    folds = dealt_folds(SPLITS, PATIENT_OF, {"b9": "b", "b8": "b", "c9": "c"}, seed=0)
    assert folds == {"b9": ("1",), "b8": ("1",), "c9": ("2",)}


def test_new_patients_are_dealt_evenly_and_whole():
    new = {f"{patient}{scan}": patient for patient in "pqrstu" for scan in (1, 2)}
    folds = dealt_folds(SPLITS, PATIENT_OF, new, seed=0)
    assert all(folds[f"{patient}1"] == folds[f"{patient}2"] for patient in "pqrstu")
    held = [sum(fold in folds[case] for case in new) for fold in "012"]
    assert held == [4, 4, 4]


def test_new_patients_go_where_old_ones_have_brought_fewest_cases():
    new = {"a9": "a", "a8": "a", "b9": "b", "p1": "p"}
    assert dealt_folds(SPLITS, PATIENT_OF, new, seed=3)["p1"] == ("2",)


def test_of_a_single_fold_every_new_patient_trains_but_one_who_judges():
    one = Splits(source="given", folds=(Fold(train=("a1",), validation=("b1",)),))
    folds = dealt_folds(one, {"a1": "a", "b1": "b"}, {"p1": "p", "b2": "b"}, seed=0)
    assert folds == {"p1": (), "b2": ("0",)}


def test_a_patient_whom_no_fold_trains_on_is_held_out_of_all():
    folds = (Fold(train=("a1",), validation=("b1",)), Fold(train=("b1",), validation=("a1",)))
    splits = Splits(source="given", folds=folds)
    assert folds_held_out_of(splits, {"a1": "a", "b1": "b", "k1": "k"}) == {"a": ("1",), "b": ("0",), "k": ("0", "1")}


def test_corrected_drafts_train_and_judge_nobody_but_masks_of_blank_pages_do():
    folds = {"b9": ("1",), "p1": ("0",)}
    known = PATIENT_OF | {"b9": "b", "p1": "p"}
    edited = enlarged_splits(SPLITS, new_labels(folds), known)
    assert [fold.validation for fold in edited.folds] == [fold.validation for fold in SPLITS.folds]
    assert [fold.train[4:] for fold in edited.folds] == [("b9",), ("p1",), ("b9", "p1")]
    blank = enlarged_splits(SPLITS, new_labels(folds, "blank"), known)
    assert [fold.validation[2:] for fold in blank.folds] == [("p1",), ("b9",), ()]
    assert blank.patients == 4  # a, b, c and p
    assert blank.patients_of(["b9", "p1"]) == {"b9": "b", "p1": "p"}


def test_old_cases_are_half_of_a_batch_however_many_are_new():
    few = drawn_weights(SPLITS.folds[0], new_labels(dict.fromkeys("pqr", ())))
    assert few == ()  # 4 old and 3 new ones, all alike: 57 % are old
    many = drawn_weights(SPLITS.folds[0], new_labels({f"n{number}": () for number in range(16)}))
    assert many == (1.0,) * 4 + (0.25,) * 16
    fold = Fold(train=tuple(f"case_{number}" for number in range(20)), validation=(), weights=many)
    assert old_share(fold, 4) == OLD_SHARE == 0.5


def test_what_was_accepted_unedited_counts_half():
    new = [label("p"), label("q", began_as="unedited"), label("r", began_as="blank")]
    assert drawn_weights(SPLITS.folds[0], new) == (1.0,) * 4 + (1.0, 0.5, 1.0)


def test_weights_of_an_earlier_round_are_kept():
    old = Fold(train=("a", "b"), validation=(), weights=(1.0, 0.5))
    weights = drawn_weights(old, new_labels({f"n{number}": () for number in range(6)}))
    assert weights == (1.0, 0.5) + (0.25,) * 6  # 1.5 against 1.5


@pytest.mark.parametrize("seed", range(40))
def test_no_fold_is_trained_on_a_patient_that_it_is_judged_by_over_three_rounds(seed):
    """Made-up patients with one to four scans, of whom some come again; all kinds of labels."""
    rng = np.random.default_rng(seed)
    patient_of = {f"{patient}-{scan}": f"{patient}" for patient in range(9) for scan in range(rng.integers(1, 4))}
    parts = [[case for case, patient in patient_of.items() if int(patient) % 3 == number] for number in range(3)]
    folds = [
        Fold(train=tuple(case for case in patient_of if case not in part), validation=tuple(part)) for part in parts
    ]
    splits = Splits(source="drawn", folds=tuple(folds))
    trained = [set(fold.train) for fold in folds]  # whatever a fold's weights have ever seen
    for round_number in range(3):
        new_patient_of = {
            f"{patient}-r{round_number}s{scan}": f"{patient}"
            for patient in rng.choice(20, size=6, replace=False)
            for scan in range(rng.integers(1, 5))
        }
        dealt = dealt_folds(splits, patient_of, new_patient_of, seed)
        kinds = rng.choice(["unedited", "edited", "blank"], size=len(dealt))
        new = [label(case, held_out_of=held, began_as=str(kind)) for (case, held), kind in zip(dealt.items(), kinds)]
        patient_of |= new_patient_of
        after = enlarged_splits(splits, new, patient_of)
        require_no_leak(splits, after, patient_of)
        for number, fold in enumerate(after.folds):
            assert fold.validation[: len(splits.folds[number].validation)] == splits.folds[number].validation
            trained[number] |= set(fold.train)
            assert not {patient_of[case] for case in fold.validation} & {patient_of[case] for case in trained[number]}
            assert old_share(fold, len(splits.folds[number].train)) >= 0.5 - 1e-12
        splits = after
    every = set(patient_of)
    assert all(sum(case in fold.train for fold in splits.folds) == 2 for case in every)


def test_a_leak_is_named():
    folds = (SPLITS.folds[0].model_copy(update={"train": (*SPLITS.folds[0].train, "a9")}), *SPLITS.folds[1:])
    after = SPLITS.model_copy(update={"folds": folds})
    with pytest.raises(ValueError, match="fold 0 was trained on the patient of a1"):
        require_no_leak(SPLITS, after, PATIENT_OF | {"a9": "a"})


def test_other_groups_than_those_of_the_folds_are_refused():
    with pytest.raises(UserError, match="drawn by 3 patients, and here its cases count as of 6"):
        require_patients_apart(SPLITS, {case: case for case in PATIENT_OF}, "work")
    joined = PATIENT_OF | dict.fromkeys(("a1", "a2", "b1", "b2"), "x")
    with pytest.raises(UserError, match="fold 0 trains on 'b2' and validates on 'a1', both of patient 'x'"):
        require_patients_apart(SPLITS, joined, "work")
    require_patients_apart(SPLITS, PATIENT_OF, "work")


def test_patients_may_be_called_otherwise_and_must_be_the_same_people():
    require_same_patients(PATIENT_OF, {case: f"patient {name}" for case, name in PATIENT_OF.items()}, "work")
    with pytest.raises(UserError, match="'a1' and 'a2' are of one patient, as the folds know"):
        require_same_patients(PATIENT_OF, PATIENT_OF | {"a2": "q"}, "work")
    with pytest.raises(UserError, match="'a1' and 'b1' are of two patients, as the folds know"):
        require_same_patients(PATIENT_OF, PATIENT_OF | {"b1": "a", "b2": "a"}, "work")
