"""What a comparison of starts shows, counted by hand; its lines; and which patients are labelled."""

import pytest

from segfw.base.records import UserError
from segfw.planning.splits import Fold, Splits
from segfw.pretraining.start_results import (
    PRETRAINED,
    SCRATCH,
    SCRATCH_LONGER,
    StartResult,
    append_result,
    gains_of,
    patient_means,
    read_results,
    seed_interval,
    verdict,
)
from segfw.pretraining.start_trainings import labelled_cases, scored_cases


def result(arm, seed, end, quarter=0.1, patients=6):
    """All cases of it have the same Dice in one structure, but that every second case has 0.02 more."""
    cases = [f"case_{number}" for number in range(patients)]

    def dices(base):
        return {case: {"organ": base + 0.02 * (number % 2)} for number, case in enumerate(cases)}

    return StartResult(
        labelled="4", seed=seed, arm=arm, cases=("x",), steps=9, seconds=1.0, quarter=dices(quarter), end=dices(end)
    )


def test_a_gain_that_all_seeds_and_patients_have():
    results = [result(PRETRAINED, seed, 0.5 + 0.01 * seed) for seed in range(3)]
    results += [result(SCRATCH, seed, 0.3) for seed in range(3)]
    (early, end) = gains_of(results, {})
    assert (early.at, end.at) == ("quarter", "end")
    assert end.difference == pytest.approx(0.21)
    assert end.by_seed == pytest.approx((0.20, 0.21, 0.22))
    assert end.seed_low == pytest.approx(0.21 - 4.3027 * 0.01 / 3**0.5, abs=1e-5)  # t of two degrees of freedom
    assert (end.seeds, end.patients, end.verdict) == (3, 6, "gain")
    assert (early.difference, early.verdict) == (0, "no gain shown")


def test_seeds_that_disagree_show_nothing_however_sure_the_patients_are():
    results = [result(PRETRAINED, seed, 0.5 + step) for seed, step in enumerate((0.3, -0.05, 0.2))]
    results += [result(SCRATCH_LONGER, seed, 0.5) for seed in range(3)]
    gain = gains_of(results, {})[1]
    assert gain.low > 0  # by patient
    assert gain.seed_low < 0 < gain.seed_high
    assert gain.verdict == "no gain shown"
    assert "no gain shown" in gain.text()


def test_cases_without_any_structure_show_nothing():
    empty = {"case_0": {"organ": None}}
    results = [result(arm, 0, 0.5).model_copy(update={"quarter": empty, "end": empty}) for arm in (PRETRAINED, SCRATCH)]
    assert gains_of(results, {}) == ()


def test_one_seed_shows_nothing():
    gain = gains_of([result(PRETRAINED, 0, 0.9), result(SCRATCH, 0, 0.1)], {})[1]
    assert (gain.seed_low, gain.verdict) == (None, "no gain shown")
    assert seed_interval([0.5]) == (None, None)


def test_verdicts():
    assert verdict((0.1, 0.2), (0.05, 0.3)) == "gain"
    assert verdict((-0.2, -0.1), (-0.3, -0.01)) == "loss"
    assert verdict((0.1, 0.2), (-0.05, 0.3)) == verdict((None, None), (0.1, 0.2)) == "no gain shown"


def test_a_patient_is_one_however_many_cases_he_has():
    scores = {"a1": {"x": 0.2, "y": None}, "a2": {"x": 0.4, "y": 0.8}, "b": {"x": None, "y": None}, "c": {"x": 1.0}}
    means = patient_means([scores], {"a1": "a", "a2": "a"})
    assert means == pytest.approx({"a": (0.2 + 0.6) / 2, "c": 1.0})


def test_seeds_in_common_are_paired_and_others_left_out():
    results = [result(PRETRAINED, 0, 0.5), result(PRETRAINED, 1, 0.9), result(SCRATCH, 0, 0.5)]
    assert gains_of(results, {})[1].seeds == 1


def test_lines_are_read_as_they_were_written_and_a_torn_one_is_done_again(tmp_path):
    path = tmp_path / "out" / "compare_starts.jsonl"
    assert read_results(path) == []
    append_result(path, result(SCRATCH, 0, 0.5))
    whole = path.read_text()
    path.write_text(whole + whole[:50])
    append_result(path, result(SCRATCH, 1, 0.5))
    assert [each.seed for each in read_results(path)] == [0, 1]


def test_patients_are_labelled_with_all_their_cases_and_fewer_are_among_more():
    cases = tuple(f"p{number // 2}_{number % 2}" for number in range(12))
    fold = Fold(train=cases, validation=("v",))
    splits = Splits(source="test", folds=(fold,), patient_of={case: case.split("_")[0] for case in cases})
    two = labelled_cases(splits, fold, "2", seed=3)
    four = labelled_cases(splits, fold, "4", seed=3)
    assert len(two) == 4
    assert {case.split("_")[0] for case in two} < {case.split("_")[0] for case in four}
    assert labelled_cases(splits, fold, "all", seed=3) == cases
    assert len({labelled_cases(splits, fold, "2", seed=seed) for seed in range(8)}) > 1
    with pytest.raises(UserError, match="--labelled 7: the fold trains on 6 patients only; give fewer, or all"):
        labelled_cases(splits, fold, "7", seed=0)


def test_so_many_patients_are_scored_with_all_their_cases():
    cases = tuple(f"p{number // 2}_{number % 2}" for number in range(12))
    fold = Fold(train=("t",), validation=cases)
    splits = Splits(source="test", folds=(fold,), patient_of={case: case.split("_")[0] for case in cases})
    assert scored_cases(splits, fold, 3) == ("p0_0", "p0_1", "p2_0", "p2_1", "p4_0", "p4_1")
    assert scored_cases(splits, fold, None) == scored_cases(splits, fold, 99) == cases
