"""What the demo says: how long it trains beforehand, and at the end why a Dice is low and how to go on."""

import argparse

import pytest

from builders.networks import spec
from builders.progress import row, write_rows
from builders.training import ZSCORE, configuration
from segfw.evaluation.metrics import MeanScores, Scores
from segfw.verbs.demo import _say_result, said_budget_s, shortfall, whole_minutes

LOW = MeanScores(dice=0.021, jaccard=None, tpr=None, precision=None)


def planned(step_s: float | None):
    """A configuration whose steps of two patches are expected to take so long."""
    made = configuration(ZSCORE, spec())
    hours = None if step_s is None else step_s * 250_000 / 3600
    return made.model_copy(update={"estimate": made.estimate.model_copy(update={"hours_per_fold": hours})})


def test_the_time_is_that_of_enough_steps_within_bounds(capsys):
    assert said_budget_s(planned(0.5)) == 5 * 60  # 500 x 0.5 s x 1.15 are 288 s
    assert "500 steps are enough; here a step is expected to take 0.5 s: training for 5m" in capsys.readouterr().out
    assert said_budget_s(planned(0.001)) == 2 * 60
    assert "warning" not in capsys.readouterr().out
    assert said_budget_s(planned(46)) == 20 * 60
    said = capsys.readouterr().out
    assert "about 23 of the 500 steps fit into that" in said  # 1200 / 46 / 1.15
    assert "all take 7h21m (--time-budget)" in said  # 500 x 46 s x 1.15 are 7.35 h
    assert said_budget_s(planned(None)) == 20 * 60


@pytest.mark.parametrize(("seconds", "text"), [(1, "1m"), (60, "1m"), (61, "2m"), (3600, "1h"), (3901, "1h6m")])
def test_times_are_rounded_up_to_minutes(seconds, text):
    assert whole_minutes(seconds) == text


def test_a_low_dice_is_explained():
    assert shortfall(0.75, 6, 285) is None
    sentence, needed_s = shortfall(0.021, 6, 285)
    assert sentence == (
        "the mean Dice of 0.021 is low: this demo reaches 0.75 and more after 500 steps, and 6 steps were trained"
    )
    assert needed_s == pytest.approx(285 * 500 / 6 * 1.15)
    assert ", and 1 step was trained" in shortfall(None, 1, 285)[0]
    sentence, needed_s = shortfall(0.5, 600, 285)
    assert sentence.endswith("and 600 were trained; a longer training may help")
    assert needed_s == 570


def test_pages_are_said_as_links_and_a_low_dice_with_the_way_on(tmp_path, capsys):
    folder = tmp_path / "my demo"
    write_rows(folder / "work" / "runs" / "3d_fullres" / "fold_0", [row(0, steps=6, elapsed_s=60.0)])
    _say_result(argparse.Namespace(folder=folder), Scores(labels={}, foreground_mean=LOW, cases={}))
    said = capsys.readouterr().out.splitlines()
    assert f"report    {folder.resolve().as_uri()}/report.html" in said
    assert any(line.startswith("training  file:///") and "my%20demo" in line for line in said)
    assert said[-2].startswith("warning: the mean Dice of ")
    assert said[-1] == f"next: segfw demo '{folder}' --time-budget 1h36m"  # 60 s x 500 / 6 x 1.15
