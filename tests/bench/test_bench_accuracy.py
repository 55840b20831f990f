"""Trainings of equal length: what is finished is kept and counted, and the statistics are those a reader can count."""

import json
import os
import subprocess
import sys
import time
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
from scipy.stats import ttest_1samp

from bench.accuracy import sets
from bench.accuracy.command import asked, build_parser, main
from bench.accuracy.false_alarms import drawn_splits, false_alarms, splits
from bench.accuracy.false_alarms import table as alarms_table
from bench.accuracy.intervals import differences, estimate, paired_difference
from bench.accuracy.left_out import LeftOut, LeftOutRules
from bench.accuracy.results import Arm, CaseScores, Result, Training, every_result, require_same_arm
from bench.accuracy.sets import SETS, DataSet
from bench.accuracy.statements import by_the_rule_of_now, enough_for, statement_of, told_in_work, told_of
from bench.accuracy.tables import seed_means, tables
from bench.accuracy.trainings import Job, Place, _Running, pinned_to, require_arm, require_one_configuration, train_all
from bench.accuracy.usefulness import table as usefulness_table
from bench.result_lines import append_line, read_lines
from bench.runs import processor_name, usable_cores
from builders.data import write_raw
from segfw.base.records import UserError
from segfw.cli import main as segfw
from segfw.model.short_runs import Limits, usefulness
from segfw.model.source import fold_folder, load_plan
from segfw.model.training_record import read_run_record

SETS_FILE = Path(sets.__file__)
BOTH = ("large", "small")


def result(
    dice, *, arm="plain", data_set="hearts", minutes=6.0, seed=0, fold="0", steps=100, started="", **changed
) -> Result:
    """A made-up line: ``dice`` is {case: (large, small)}, and p1_a and p1_b are two cases of patient p1."""
    cases = {
        case: CaseScores(
            patient=case.split("_")[0],
            structures={name: {"dice": value} for name, value in zip(BOTH, values) if value is not None},
        )
        for case, values in dice.items()
    }
    training = Training(arm=Arm(name=arm), data_set=data_set, minutes=minutes, cores=1, fold=fold, seed=seed)
    found = {
        "commit": "0123456789abcdef", "is_changed": False, "started": started or f"2026-01-0{seed + 1}T00:00:00+00:00",
        "processor": "Some Processor", "device": "CPU", "configuration": "2d", "patch": (1, 64, 48),
        "precision": "float32", "steps": steps, "seconds": 360.0, "core_share": 1.0,
        "settings": {"batch_size": 4}, "said": {}, "cases": cases,
    }  # fmt: skip
    return Result.of(training, **found | changed)


def patients(*large: float) -> dict[str, tuple[float, float]]:
    """One case of each of several patients, whose small structure is found half as well as the large one."""
    return {f"p{number}": (value, value / 2) for number, value in enumerate(large)}


# ---- means and intervals ----


def test_the_mean_is_of_structures_over_cases_that_have_them():
    values = {"a": np.array([0.8, 0.2]), "b": np.array([0.6, np.nan]), "c": np.array([0.4, 0.6])}
    found = estimate([values], {"a": "p1", "b": "p1", "c": "p2"})
    assert found.of_structures == pytest.approx((0.6, 0.4))  # (0.8 + 0.6 + 0.4) / 3 and (0.2 + 0.6) / 2
    assert found.mean == pytest.approx(0.5)
    assert (found.cases, found.patients) == (3, 2)
    assert (found.low, found.high, found.excludes_zero) == (None, None, False)  # two patients are too few


def test_two_scans_of_a_patient_tell_no_more_than_one():
    once = dict(zip("abcdefg", np.array([[0.1], [0.5], [0.2], [0.9], [0.3], [0.4], [0.6]])))
    twice = {f"{case}{scan}": value for case, value in once.items() for scan in (1, 2)}
    single = estimate([once], {case: case for case in once})
    double = estimate([twice], {case: case[0] for case in twice})
    assert (double.low, double.high) == pytest.approx((single.low, single.high))
    apart = estimate([twice], {case: case for case in twice})  # as if they were 14 patients: too sure of itself
    assert apart.high - apart.low < 0.85 * (single.high - single.low)


@pytest.mark.parametrize("patients", [12, 40])
def test_intervals_of_few_patients_are_as_wide_as_students(patients):
    values = np.random.default_rng(patients).normal(0.8, 0.05, patients)
    found = estimate([{str(n): values[n : n + 1] for n in range(patients)}], {str(n): str(n) for n in range(patients)})
    low, high = ttest_1samp(values, 0).confidence_interval(0.95)
    assert (found.high - found.low) == pytest.approx(high - low, rel=0.1)
    assert found.mean == pytest.approx(values.mean())


def test_seeds_that_differ_as_a_whole_widen_the_interval_that_draws_them():
    cases = {str(n): np.array([0.5 + n / 100]) for n in range(8)}
    patient_of = {case: case for case in cases}
    seeds = [{case: value + shift for case, value in cases.items()} for shift in (-0.1, 0.0, 0.1)]
    alone = estimate([cases], patient_of)
    fixed = estimate(seeds, patient_of)
    drawn = estimate(seeds, patient_of, draws_runs=True)
    assert fixed.mean == drawn.mean == pytest.approx(0.535)
    assert (fixed.low, fixed.high) == pytest.approx((alone.low, alone.high))  # by patient nothing is seen of it
    # A draw of three seeds has the same one three times in 1 of 9 draws: then its mean is a tenth off.
    assert drawn.low < fixed.low - 0.05
    assert drawn.high > fixed.high + 0.05
    single = estimate([cases], patient_of, draws_runs=True)
    assert (single.low, single.high) == pytest.approx((alone.low, alone.high))  # one seed tells nothing of others


def test_seeds_of_other_folds_have_patients_of_their_own():
    runs = [{f"a{n}": np.array([0.4]) for n in range(3)}, {f"b{n}": np.array([0.8]) for n in range(3)}]
    found = estimate(runs, {f"{fold}{n}": f"{fold}{n}" for fold in "ab" for n in range(3)})
    assert found.mean == pytest.approx(0.6)
    assert (found.cases, found.patients) == (6, 6)
    assert found.low == pytest.approx(0.4)  # only patients of the one seed were drawn
    assert found.high == pytest.approx(0.8)


def test_a_patient_with_more_scans_counts_by_them():
    values = {"p0_a": np.array([1.0]), "p0_b": np.array([1.0]), "p1_a": np.array([0.4])}
    assert estimate([values], {case: case[:2] for case in values}).mean == pytest.approx(0.8)


@pytest.mark.parametrize(("metric", "wrong", "difference"), [("dice", 0.0, 1.0), ("hd95_mm", 90.0, -90.0)])
def test_a_structure_that_one_arm_invents_counts_against_it(metric, wrong, difference):
    rightly_empty = {"a": np.array([np.nan, np.nan])}
    invented = {"a": np.array([wrong, np.nan]), "b": np.array([0.5, 0.5])}
    found = differences(rightly_empty, invented, metric)
    assert list(found) == ["a"]  # the other arm has no b
    np.testing.assert_equal(found["a"], [difference, np.nan])


def test_differences_are_paired_by_fold_and_seed():
    first = [result(patients(0.5, 0.7), arm="new", seed=0), result(patients(0.9, 0.9), arm="new", seed=1)]
    second = [result(patients(0.4, 0.4), seed=0), result(patients(0.1, 0.1), seed=0, fold="1")]
    found = paired_difference(first, second, BOTH, "dice")
    assert found.of_structures == pytest.approx((0.2, 0.1))  # seed 0, fold 0: (0.1 + 0.3) / 2, and half of it
    assert found.mean == pytest.approx(0.15)
    assert paired_difference(first[1:], second, BOTH, "dice") is None


def test_seeds_deviate_over_the_folds_that_all_have():
    results = [
        result({"p0": (0.6, 0.6)}, seed=0),
        result({"p1": (0.8, 0.8)}, seed=0, fold="1"),
        result({"p0": (0.5, 0.7)}, seed=1),
    ]
    assert seed_means(results, BOTH, "dice") == pytest.approx([0.6, 0.6])
    assert seed_means(results[1:], BOTH, "dice") == []


# ---- the table ----


def test_the_table_counts_what_a_reader_can_count():
    cases = (0.5, 0.5, 0.5, 0.5, 0.5, 0.8)
    results = [result(patients(*cases), seed=seed, steps=100 + seed) for seed in (0, 1)]
    better = [result(patients(*(value + 0.1 * (1 + seed) for value in cases)), seed=seed, arm="new") for seed in (0, 1)]
    text = tables([*results, *better], against="plain")
    head, _, plain, new = (line.split(" | ") for line in text.splitlines() if line.startswith("|"))
    assert text.startswith("### hearts, 6 core-minutes on 1 core\n")
    assert head[5:10] == ["Dice", "sd of seeds", "95 % interval", "minus plain", "95 % interval"]
    assert head[10:] == ["large", "small |"]
    assert plain[:5] == ["| plain", "2d 1x64x48", "100 (100 to 101)", "1 x 2", "6 (6)"]
    assert plain[5:7] == ["0.4125", "0.0000"]  # (0.55 + 0.275) / 2
    assert plain[8:] == ["", "", "0.5500", "0.2750 |"]
    assert new[5:7] == ["0.5250", "0.0530"]  # seeds 0.4875 and 0.5625
    assert new[8:10] == ["+0.1125", "+0.1125 to +0.1125"]  # every patient gains alike
    assert "- plain: as it comes (01234567)" in text
    assert "- computed by Some Processor, CPU, float32" in text


def test_the_table_warns_of_unequal_processors_and_unfinished_arms():
    results = [
        result(patients(0.5), seed=0),
        result(patients(0.5), seed=1, processor="Another", is_changed=True),
        result(patients(0.5), seed=1, fold="1", core_share=0.25),
    ]
    text = tables(results)
    assert "- 1 of 3 runs had less than 90% of their cores (down to 25%)" in text
    assert "| 2 x 2, 3 done |" in text
    assert "(01234567, 01234567 with changes)" in text
    assert "equal minutes are not equal work" in text
    assert "minus" not in text
    assert "few patients" in text


@pytest.mark.parametrize(
    "steps, shares, names",
    [
        (100, {"large": 0.1, "small": 0.001}, []),
        (1000, {"large": 0.1, "small": 0.001}, ["large"]),
        (1000, {"large": 0.1, "small": 0.02}, ["large", "small"]),
        (1000, {"large": 0.001, "small": 0.001}, []),
        (1300, {"large": 0.1, "small": 0.001}, ["large", "small"]),
    ],
)
def test_every_statement_that_is_made_can_be_counted(steps, shares, names):
    assert enough_for(usefulness(steps, shares), BOTH, "here") == names


def test_statements_of_narrow_networks_can_be_counted():
    assert enough_for(usefulness(2000, {"large": 0.1, "small": 0.001}, 16), BOTH, "here") == ["large"]
    assert enough_for(usefulness(2000, {"large": 0.001, "small": 0.001}, 16), BOTH, "here") == []


def test_a_statement_that_names_not_all_structures_cannot_be_counted():
    shares = {"large": 0.1} | {f"small_{number}": 0.001 for number in range(5)}
    words = usefulness(1000, shares)
    with pytest.raises(UserError, match="^here: was said to be 'enough for large structures, not for small ones"):
        enough_for(words, BOTH, "here")
    assert words.endswith("(small_0, small_1, small_2 and 2 more)")
    assert enough_for(words, list(shares), "here", shares) == ["large"]  # their shares tell which two
    with pytest.raises(UserError, match="and 2 more"):
        enough_for(words, list(shares), "here", shares | {"small_4": 0.1})  # which are not so many


def test_too_few_steps_for_many_structures_are_enough_for_none():
    shares = dict.fromkeys(("large", *"abcdefghijk"), 0.1)  # 12, of 30 steps each
    assert enough_for(usefulness(359, shares), list(shares), "here") == []
    assert enough_for(usefulness(360, shares), list(shares), "here") == list(shares)


@pytest.mark.parametrize(
    "large, small, words, is_right",
    [
        (0.8, 0.4, "enough for large structures, not for small ones (small)", True),
        (0.8, 0.6, "enough for large structures, not for small ones (small)", False),  # small ones were, too
        (0.4, 0.3, "enough for large structures, not for small ones (small)", False),
        (0.8, 0.4, "enough for large and small structures", True),  # their mean is 0.6
        (0.5, 0.4, "enough for large and small structures", False),
        (0.3, 0.1, "too few for a usable model", True),
        (0.9, 0.9, "too few for a usable model", False),
    ],
)
def test_a_statement_is_right_where_the_structures_it_names_and_no_others_are_found(large, small, words, is_right):
    said = {"expected": f"measured: about 500 steps fit into 6 min on this device: {words}"}
    found = result({"p1_a": (large, small)}, said=said)
    statement = statement_of(told_of(found))
    assert (statement.words, statement.is_right) == (words, is_right)


def test_statements_are_counted_and_those_of_all_structures_apart():
    said = {"expected": "about 2,100 steps: enough for large and small structures"}
    wrong = result({"p1_a": (0.5, 0.4)}, said=said, seed=1, steps=2100)
    results = [result({"p1_a": (0.9, 0.8)}, said=said, steps=2000), wrong, result({"p1_a": (0.9, 0.8)}, seed=2)]
    rows = usefulness_table([told_of(each) for each in results]).splitlines()
    kind = "| hearts | 6 | plain | 2000 to 2100 | enough for large and small structures |"
    assert rows[2] == f"{kind} 2 | 0.450 to 0.850 | - | 1 of 2 | - | - |"
    assert rows[-1] == (
        "As said then: right in 1 of 2 runs (50%); said to be enough for all structures, with a mean Dice under 0.5: 1."
    )
    with pytest.raises(UserError, match="^none of these results says"):
        usefulness_table([told_of(result({"p1_a": (0.9, 0.8)}))])


def test_what_the_rule_says_by_now_is_counted_beside_what_was_said_then():
    """Small structures were said to be found, by a network of half the features, which by now is said to be too few."""
    said = {"expected": "measured: about 2,100 steps fit into 6 min: enough for large and small structures"}
    shares = {"large": 0.1, "small": 0.001}
    narrow = told_of(result({"p1_a": (0.9, 0.0)}, said=said, features=16, shares=shares))
    wide = told_of(result({"p1_a": (0.9, 0.6)}, said=said, features=32, shares=shares))
    assert statement_of(by_the_rule_of_now(narrow)).words == "enough for large structures, not for small ones (small)"
    assert statement_of(by_the_rule_of_now(wide)).words == "enough for large and small structures"
    assert by_the_rule_of_now(told_of(result({"p1_a": (0.9, 0.0)}, said=said))) is None  # a line of before
    last = usefulness_table([narrow, wide]).splitlines()[-1]
    assert last.startswith("By the rule of now, with the steps foretold then: right in 2 of 2 runs (100%); said")
    # Both structures of the first training have a mean under 0.5 where the large one is lost, too
    lost = told_of(result({"p1_a": (0.3, 0.0)}, said=said, features=16, shares=shares))
    assert not statement_of(by_the_rule_of_now(lost)).is_right


LOOSE_AND_STRICT = [Limits(steps_for_small=650), Limits(steps_for_small=2600)]


def told(data_set: str, large: float, small: float, small_share: float = 0.001):
    """Of a training of which 1000 steps were foretold: LOOSE says that they find all, STRICT leaves small ones out."""
    said = {"expected": "about 1,000 steps: too few for a usable model"}
    shares = {"large": 0.1, "small": small_share}
    return told_of(result({"p1_a": (large, small)}, data_set=data_set, said=said, features=32, shares=shares))


def test_limits_of_the_other_data_sets_say_what_these_taught_them():
    lost = told("necks", 0.9, 0.0)  # the other set teaches LOOSE, which promises both of a mean of 0.45
    found = told("hearts", 0.9, 0.8)  # the other set teaches STRICT, which does not promise what is found
    rules = LeftOutRules([lost, found], LOOSE_AND_STRICT)
    assert rules.of([lost]) == LeftOut(runs=1, least=0, most=0, wrong_for_all=1)
    assert rules.of([found]) == LeftOut(runs=1, least=0, most=0, wrong_for_all=0)


def test_what_the_other_data_sets_leave_open_is_a_range():
    lost = told("necks", 0.9, 0.0)
    large = told("livers", 0.9, 0.8, small_share=0.1)  # nothing is small: both limits are right
    again = told("necks", 0.8, 0.0)
    rules = LeftOutRules([lost, again, large], LOOSE_AND_STRICT)
    assert rules.of([lost, again]) == LeftOut(runs=2, least=0, most=2, wrong_for_all=2)
    assert rules.of([lost]).text == "0 to 1 of 1"
    assert [each.text for each in rules.each_set()] == ["0 to 2 of 2", "1 of 1"]
    last = usefulness_table([lost, large]).splitlines()[-1]
    assert last.startswith("By limits fitted to the other 1 data set: right in 1 to 2 of 2 runs (50% to 100%), by all")
    assert LeftOutRules([lost], LOOSE_AND_STRICT).of([lost]) is None  # there is no other
    unknown = told_of(result({"p1_a": (0.9, 0.0)}))  # a line of before
    assert LeftOutRules([lost, unknown, large], LOOSE_AND_STRICT).of([unknown]) is None


def test_lengths_and_data_sets_are_tables_of_their_own():
    results = [result(patients(0.5)), result(patients(0.5), minutes=12.0), result(patients(0.5), data_set="heads")]
    assert tables(results).count("###") == 3


# ---- false alarms ----


@pytest.mark.parametrize(("runs", "size", "number"), [(10, 1, 45), (10, 3, 2100), (10, 5, 126), (4, 2, 3)])
def test_every_split_in_two_groups_comes_once(runs, size, number):
    found = list(splits(runs, size))
    assert len({frozenset(map(frozenset, pair)) for pair in found}) == len(found) == number
    assert all(not set(first) & set(second) for first, second in found)
    assert len(drawn_splits(runs, size)) == min(number, 500)


def test_false_alarms_are_intervals_that_leave_out_zero():
    low = patients(0.5, 0.6, 0.7, 0.8, 0.9)
    high = patients(*(values[0] + 0.05 for values in low.values()))
    runs = [result(dice, seed=seed) for seed, dice in enumerate((low, low, high, high))]
    single = false_alarms(runs, 1)
    assert (single.comparisons, single.false) == (6, 4)  # all but low - low and high - high
    double = false_alarms(runs, 2)
    assert (double.comparisons, double.false) == (3, 1)  # the others have one of each on either side
    assert alarms_table([double]).splitlines()[-1] == "| 2 | patients | 3 | 1 | 33.3% | no |"
    with pytest.raises(UserError, match="4 runs cannot be split into two groups of 3"):
        false_alarms(runs, 3)


# ---- results ----


def test_the_newest_result_of_a_training_counts(tmp_path):
    path = tmp_path / "results" / "accuracy.jsonl"
    assert read_lines(Result, path) == []
    lines = [result(patients(0.1)), result(patients(0.2), seed=1), result(patients(0.3), started="2026-02-01")]
    for line in lines:
        append_line(path, line)
    assert read_lines(Result, path) == lines[1:]
    assert every_result(path) == lines
    assert len(path.read_text().splitlines()) == 3


def test_a_line_that_was_cut_off_is_named_and_spoils_no_other(tmp_path):
    path = tmp_path / "accuracy.jsonl"
    append_line(path, result(patients(0.1)))
    path.write_bytes(path.read_bytes()[:-20])
    append_line(path, result(patients(0.2), seed=1))
    with pytest.raises(UserError, match=r"accuracy\.jsonl, line 1: "):
        read_lines(Result, path)
    path.write_text(path.read_text().splitlines()[1] + "\n")
    assert [line.seed for line in read_lines(Result, path)] == [1]


def test_a_name_stands_for_one_way_to_train():
    before = result(patients(0.1))
    same = Training(arm=before.arm, data_set="heads", minutes=1.0, cores=1, fold="0", seed=0)
    require_same_arm(same, [before])
    other = same.model_copy(update={"arm": Arm(name="plain", options=("--elastic",), configuration="2d")})
    with pytest.raises(UserError, match="'plain' was trained as it comes, not with --elastic as 2d"):
        require_same_arm(other, [before])


def test_results_that_are_committed_can_be_read():
    path = build_parser().parse_args(["table"]).results
    if not path.is_file():
        pytest.skip(f"no results are committed yet ({path})")
    for line in read_lines(Result, path):
        assert line.data_set in SETS
        assert line.cases


# ---- what is asked for ----


def test_the_bank_is_nine_core_hours():
    trainings = asked(build_parser().parse_args(["bank", "--work", "bank"]))
    assert len({training.key for training in trainings}) == len(trainings) == 45
    assert sum(training.minutes for training in trainings) == 9 * 60
    assert len({training.data_set for training in trainings[:3]}) == 3  # early ones tell most


@pytest.mark.parametrize(
    ("name", "options", "sentence"),
    [
        ("a/b", "", "becomes a folder"),
        ("new", "--seed 3", "--seed: is set by this command itself"),
        ("new", "--time-budget=3m", "--time-budget: is set by this command itself"),
        ("new", "--elastik", "did you mean --elastic"),
        ("new", "--loss mse", "'mse' is none of"),
    ],
)
def test_a_wrong_arm_is_refused_before_anything_is_made(tmp_path, name, options, sentence):
    made = tmp_path / "work"
    typed = ["run", "--arm", name, f"--options={options}", "--work", str(made), "--results", str(tmp_path / "r.jsonl")]
    with pytest.raises(SystemExit, match=sentence):
        main(typed)
    assert not made.exists()


def test_more_cores_than_there_are_are_refused(tmp_path):
    many = str(len(usable_cores()))
    typed = ["run", "--arm", "new", "--cores", many, "--at-once", "2", "--work", str(tmp_path / "work")]
    with pytest.raises(SystemExit, match="lower --cores or --at-once"):
        main([*typed, "--results", str(tmp_path / "r.jsonl")])


def test_what_an_arm_asks_of_planning_is_known():
    request = require_arm(Arm(name="new", options=("--preset", "resenc-m", "--elastic"), configuration="2d"))
    assert (request.preset, request.configurations) == ("resenc-m", ("2d",))
    assert require_arm(Arm(name="new")).configurations is None


def test_only_the_table_of_sets_names_them():
    folder = SETS_FILE.parent
    others = [path for path in folder.glob("*.py") if path != SETS_FILE]
    assert others
    assert not [(path.name, name) for path in others for name in SETS if name in path.read_text()]


def test_a_table_of_nothing_says_how_to_get_some(tmp_path):
    with pytest.raises(SystemExit, match="holds no such result"):
        main(["table", "--results", str(tmp_path / "none.jsonl")])
    append_line(tmp_path / "some.jsonl", result(patients(0.5)))
    with pytest.raises(SystemExit, match="no such arm among plain"):
        main(["table", "--results", str(tmp_path / "some.jsonl"), "--against", "old"])


def test_commands_show_what_is_finished_and_train_nothing(tmp_path, monkeypatch, capsys):
    monkeypatch.setitem(SETS, "hearts", DataSet(folder="hearts"))  # of which there is no data to train on
    path = tmp_path / "some.jsonl"
    for seed in range(4):
        append_line(path, result(patients(0.5, 0.6, 0.7, 0.8, 0.9), seed=seed))
    there = ["--sets", "hearts", "--minutes", "6", "--seeds", "0", "1", "2", "3"]
    there += ["--work", str(tmp_path / "work"), "--results", str(path)]

    main(["run", "--arm", "plain", *there])
    shown = capsys.readouterr().out
    assert "4 trainings, 4 finished; 0 core-hours to go" in shown
    assert "| plain | 2d 1x64x48 | 100 | 1 x 4 | 5 (5) | 0.5250 | 0.0000 |" in shown

    main(["table", "--results", str(path), "--sets", "hearts", "--draw-seeds"])
    assert "| 0.5250 | 0.0000 |" in capsys.readouterr().out

    main(["false-alarms", "--per-arm", "1", "2", *there])
    rows = [line for line in capsys.readouterr().out.splitlines() if line.startswith("| ")][2:]
    assert rows[0] == "| 1 | patients | 6 | 0 | 0.0% | yes |"
    assert rows[-1] == "| 2 | patients and seeds | 3 | 0 | 0.0% | yes |"
    assert not (tmp_path / "work").exists()


# ---- trainings ----


@pytest.fixture
def toy(tmp_path, monkeypatch) -> Place:
    """A place with one data set of six small cases."""
    monkeypatch.setitem(SETS, "toy", DataSet(folder="raw"))
    write_raw(tmp_path / "raw", 6)
    return Place(data=tmp_path, work=tmp_path / "bank", results=tmp_path / "accuracy.jsonl")


def toy_training(seed: int = 0) -> Training:
    arm = Arm(name="new", options=("--augmentation", "none"), configuration="3d_fullres")
    return Training(arm=arm, data_set="toy", minutes=0.001, cores=1, fold="0", seed=seed)


class Ended:
    """A process that is over."""

    pid = 0

    def __init__(self, status: int) -> None:
        self.status = status

    def poll(self) -> int:
        return self.status


def in_this_process(job, cores) -> Ended:
    """Trains here, in a second, because PyTorch is loaded already."""
    return Ended(segfw(job.segfw_arguments))


def refused(job, cores) -> Ended:
    raise AssertionError(f"{job.training.text} was to be finished")


def test_a_finished_training_leaves_a_line_and_is_not_done_again(toy):
    training = toy_training()
    train_all([training], toy, in_this_process)
    (line,) = read_lines(Result, toy.results)
    assert line.key == training.key

    # What the line says of its training
    work = toy.folder(training)
    fold = fold_folder(work, "3d_fullres", "0")
    run = read_run_record(fold)
    assert (line.steps, line.seconds, line.started) == (run.end.steps, run.end.seconds, run.sessions[0].started)
    assert (line.configuration, len(line.patch), line.settings["augmentation"]) == ("3d_fullres", 3, "none")
    assert line.said["end"]["warning"] == run.end.warning
    # What was said and what was reached are both there, and all that the rule goes by
    network = load_plan(work).configuration(line.configuration).network
    assert line.features == network.features[0]
    assert set(line.shares) == {"bright", "dark"}
    assert line.said["expected"].endswith("too few for a usable model")
    (told,) = told_in_work(work)
    again = told_of(line)
    assert (told.steps, told.expected, told.features) == (again.steps, again.expected, again.features)
    assert told.dice == pytest.approx(again.dice, abs=1e-4)
    assert statement_of(by_the_rule_of_now(told)).words == statement_of(told).words
    assert line.processor == processor_name()
    assert str(toy.data) not in line.model_dump_json()  # a line is committed, and paths of here mean nothing elsewhere
    scores = json.loads((fold / "validation" / "scores.json").read_text())
    assert line.cases.keys() == scores["cases"].keys()
    for case, kept in line.cases.items():
        assert kept.patient == case
        for name, values in kept.structures.items():
            assert values["dice"] == pytest.approx(scores["cases"][case][name]["dice"], abs=1e-5)
            assert values.keys() == {"dice", "nsd", "hd95_mm"}

    # Its data are prepared once for all arms and seeds
    (prepared,) = (toy.work / "prepared").iterdir()
    assert (work / "preprocessed").resolve() == prepared / "preprocessed"

    # Again: nothing to do, unless the models themselves are asked for and gone
    train_all([training], toy, refused)
    models = replace(toy, is_for_models=True)
    train_all([training], models, refused)
    (fold / "weights.safetensors").unlink()
    train_all([training], toy, refused)
    with pytest.raises(AssertionError, match="toy, new, fold 0, seed 0 was to be finished"):
        train_all([training], models, refused)


@pytest.mark.parametrize(
    ("configurations", "sentence"),
    [(("2d", "3d_fullres"), "toy: segfw run would train 2d and 3d_fullres"), (("4d",), "toy, new, .* would not start")],
)
def test_several_configurations_for_one_result_are_refused(toy, configurations, sentence):
    words = ["run", str(toy.data / "raw"), str(toy.work), "--time-budget", "1s", "--configurations", *configurations]
    job = Job(training=toy_training(), segfw_arguments=words, log=toy.work / "log")
    with pytest.raises(UserError, match=sentence):
        require_one_configuration(job)
    one = Job(training=toy_training(), segfw_arguments=[*words[: -len(configurations)], "2d"], log=toy.work / "log")
    require_one_configuration(one)
    assert not toy.work.exists()


def test_a_training_that_fails_is_told_and_keeps_none_from_being_tried(toy):
    tried = []

    def fails(job, cores) -> Ended:
        tried.append((job.training.seed, tuple(cores)))
        job.log.parent.mkdir(parents=True, exist_ok=True)
        job.log.write_text("no space left\n")
        return Ended(2)

    with pytest.raises(UserError, match=r"(?s)seed 0: .*no space left.*seed 1: .*2 trainings failed"):
        train_all([toy_training(0), toy_training(1)], toy, fails)
    first = usable_cores()[:1]
    assert tried == [(0, tuple(first)), (1, tuple(first))]
    assert read_lines(Result, toy.results) == []


class Interrupted(subprocess.Popen):
    """A process during which somebody presses Ctrl-C."""

    was_asked = False

    def poll(self) -> int | None:
        if not self.was_asked:
            self.was_asked = True
            raise KeyboardInterrupt
        return super().poll()


def test_an_interruption_ends_the_training(toy):
    processes = []

    def begin(job, cores) -> Interrupted:
        processes.append(Interrupted([sys.executable, "-c", "import time; time.sleep(600)"]))
        return processes[0]

    with pytest.raises(KeyboardInterrupt):
        train_all([toy_training()], toy, begin)
    assert processes[0].poll() is not None


def test_a_process_that_sleeps_is_seen_to_leave_its_core_to_others():
    process = subprocess.Popen([sys.executable, "-c", "import time; time.sleep(600)"])
    try:
        asleep = _Running(job=None, cores=[0, 1], process=process, began_s=time.perf_counter() - 100)
        assert asleep.look() is None
        assert asleep.wall_s >= 100
        assert asleep.cpu_s < 50
        asleep.cpu_s = 60.0
        assert asleep.core_share == pytest.approx(0.3, rel=0.1)  # 60 of the 200 seconds of two cores
    finally:
        process.kill()
        process.wait(60)
    before = asleep.wall_s
    assert asleep.look() is not None
    assert (asleep.wall_s, asleep.cpu_s) == (before, 60.0)
    assert _Running(job=None, cores=[0], process=Ended(0), began_s=0.0).core_share is None


@pytest.mark.skipif(not hasattr(os, "sched_setaffinity"), reason="this system does not pin processes")
def test_processes_run_on_the_cores_that_are_given():
    before = os.sched_getaffinity(0)
    core = max(before)
    with pinned_to([core]):
        said = subprocess.run(
            [sys.executable, "-c", "import os; print(os.sched_getaffinity(0))"],
            capture_output=True,
            text=True,
            timeout=300,
        )
    assert said.stdout.strip() == str({core})
    assert os.sched_getaffinity(0) == before
