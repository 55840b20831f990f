"""The page of a comparison of starts: what its curves are, what is called a gain, and what it says."""

import json
import re

import numpy as np
import pytest

from segfw.model.pretraining_record import KeptOutImage
from segfw.model.source import fold_folder
from segfw.pretraining.start_curves import dice_curves, loss_curves
from segfw.pretraining.start_results import (
    MODEL,
    PRETRAINED,
    SCRATCH,
    SCRATCH_LONGER,
    StartResult,
    StartsSummary,
    gains_csv,
    gains_of,
    table_text,
    training_folder,
)
from segfw.pretraining.starts_page import ComparedStarts, headline, kept_out_table, write_starts_page

EVIL = "<script>alert(1)</script>"


def result(arm, seed, end, labelled="4", seconds=100.0, patients=6):
    """Every case has ``end`` in one structure at the end, and half of it after a quarter."""
    cases = [f"case_{number}" for number in range(patients)]
    return StartResult(
        labelled=labelled,
        seed=seed,
        arm=arm,
        cases=("x", "y"),
        steps=90,
        seconds=seconds,
        quarter={case: {"organ": end / 2} for case in cases},
        end={case: {"organ": end} for case in cases},
    )


def write_losses(output, arm, seed, rows, labelled="4"):
    folder = fold_folder(training_folder(output, labelled, seed, arm), "2d", "0")
    folder.mkdir(parents=True)
    lines = [
        json.dumps({"epoch": number, "elapsed_s": at, "train_loss": loss}) for number, (at, loss) in enumerate(rows)
    ]
    (folder / "metrics.jsonl").write_text("\n".join(lines) + "\n")


def test_dice_over_time_begins_with_the_pretraining_and_its_band_is_of_seeds():
    results = [result(SCRATCH, 0, 0.4), result(SCRATCH, 1, 0.6), result(PRETRAINED, 0, 0.8)]
    scratch, pretrained = dice_curves(results, "4", 50.0, {})
    assert (scratch.arm, scratch.seeds, scratch.seconds_t.tolist()) == (SCRATCH, 2, [25, 100])
    assert scratch.mean_t == pytest.approx([0.25, 0.5])
    assert scratch.low_t == pytest.approx([0.2, 0.4])
    assert scratch.high_t == pytest.approx([0.3, 0.6])
    assert pretrained.seconds_t.tolist() == [75, 150]
    assert dice_curves(results, "8", 50.0, {}) == []


def test_losses_are_those_of_the_folders_between_times_that_all_seeds_have(tmp_path):
    write_losses(tmp_path, PRETRAINED, 0, [(10, 1.0), (30, 0.0)])
    write_losses(tmp_path, PRETRAINED, 1, [(20, 2.0), (40, 2.0)])
    results = [result(PRETRAINED, 0, 0.5), result(PRETRAINED, 1, 0.5), result(SCRATCH, 0, 0.5)]
    (curve,) = loss_curves(tmp_path, "2d", results, "4", 50.0)  # the folder of the other arm was deleted
    assert (curve.arm, curve.seeds) == (PRETRAINED, 2)
    assert curve.seconds_t[[0, -1]].tolist() == [70, 80]  # 20 to 30 s after 50 of pretraining
    assert curve.mean_t[[0, -1]] == pytest.approx([(0.5 + 2) / 2, (0 + 2) / 2])
    assert curve.low_t[0] == pytest.approx(0.5)
    assert curve.high_t[-1] == pytest.approx(2)


def test_the_headline_names_where_something_is_shown():
    gain = gains_of([result(PRETRAINED, 0, 0.5), result(SCRATCH_LONGER, 0, 0.5)], {})[1]

    def told(**verdicts):
        gains = [gain.model_copy(update={"labelled": name, "verdict": verdict}) for name, verdict in verdicts.items()]
        return headline(gains)[0]

    assert told(all="no gain shown") == "no gain shown"
    assert told(ten="gain", all="gain") == "gain"
    assert told(ten="gain", all="no gain shown") == "gain with ten labelled"
    assert told(ten="loss", all="gain") == "gain with all labelled, loss with ten labelled"
    assert headline([gain.model_copy(update={"at": "quarter"})])[0] == "nothing to compare"
    assert headline([gain.model_copy(update={"second": SCRATCH})])[0] == "nothing to compare"


def test_the_page_says_what_was_found_held_equal_and_guarded(tmp_path):
    results = [result(arm, seed, 0.5) for arm in (SCRATCH, SCRATCH_LONGER, PRETRAINED, MODEL) for seed in range(2)]
    write_losses(tmp_path, SCRATCH, 0, [(10, 1.0), (30, 0.0)])
    summary = StartsSummary(
        asked={"time_budget_s": 720.0, "fold": "3"},
        pretrain_s=3600.0,
        gains=gains_of(results, {}),
        guards={"from the given model": f"The given start {EVIL} was looked at.", "pretrained": "On 9 images."},
        fewest_steps=90,
    )
    compared = ComparedStarts(
        output=tmp_path,
        configuration="2d",
        summary=summary,
        results=tuple(results),
        patient_of={"case_0": "a", "case_1": "a"},
        pretraining=None,
        version="1.2.3",
    )
    write_starts_page(tmp_path / "page.html", compared)
    page = (tmp_path / "page.html").read_text(encoding="utf-8")
    assert "<b>no gain shown</b>" in page
    assert page.count("data:image/png;base64,") == 2  # gains, and one number of labelled patients over time
    assert "6 cases of 5 patients, which fold 3 validates on and no arm saw" in page
    assert "12 min a training; the longer one from nothing has 60 min more" in page
    assert page.index("On 9 images.") < page.index("The given start")  # in the order of the arms
    assert EVIL not in page
    assert "A training of these has 90 steps, and networks of fewer than 300 have hardly left their beginning" in page
    assert table_text(summary).splitlines()[-1] == summary.caveat
    assert summary.model_copy(update={"fewest_steps": 300}).caveat == ""
    assert re.search(r"<td>90</td><td>100</td>", page)


def test_images_that_stayed_unseen_are_a_table():
    assert kept_out_table([]) is None
    table = kept_out_table([KeptOutImage(id="a", sha256="", reason="is b, which is kept out")])
    assert [column.values for column in table.columns] == [["a"], ["is b, which is kept out"]]


def test_the_table_of_gains_has_all_digits_and_nothing_where_there_is_no_interval():
    gains = gains_of([result(PRETRAINED, 0, 0.5), result(SCRATCH, 0, 0.25)], {})
    lines = gains_csv(gains).splitlines()
    assert lines[0].split(",")[:4] == ["labelled", "at", "first", "second"]
    assert lines[2] == "4,end,pretrained,scratch,1,6,no gain shown,0.500000,0.250000,0.250000,0.250000,0.250000,,"
    assert np.all([line.count(",") == lines[0].count(",") for line in lines])


def test_summaries_of_before_guards_were_kept_are_read(tmp_path):
    path = tmp_path / "compare_starts.json"
    StartsSummary(asked={}, pretrain_s=1.0, gains=()).save(path)
    content = json.loads(path.read_text())
    del content["guards"]
    path.write_text(json.dumps(content))
    assert StartsSummary.load(path).guards == {}
