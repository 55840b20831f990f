"""The page of a run, and where the run is between two epochs."""

import os
import re
import subprocess
import sys

import pytest

from builders.progress import position, row, write_rows
from builders.training import request, run
from segfw.base.records import UserError
from segfw.training import progress_page
from segfw.training.checkpoint import Counters
from segfw.training.loop import train
from segfw.training.progress_page import Ending, ProgressPage, labels_table, renew_work_page
from segfw.training.schedule import Clock
from segfw.training.settings import TrainSettings
from segfw.training.step_progress import StepProgress
from segfw.training.stop_file import STOP_FILE, Stopped
from segfw.training.work_page import PROGRESS_HTML, folds_table

NAMES = ["</script><b>", "_hidden"]


def page_of(folder, names=NAMES, facts=(), **more) -> ProgressPage:
    folder.mkdir(parents=True, exist_ok=True)
    return ProgressPage(folder, names, dict(facts), **more)


def read(folder) -> str:
    return (folder / PROGRESS_HTML).read_text(encoding="utf-8")


def figures(page: str) -> dict[str, str]:
    """What stands under each figure of the head of the page -> the figure."""
    return {name: figure for figure, name in re.findall(r"<b>([^<]*)</b><span>([^<]*)</span>", page)}


# Where a run is


def test_a_place_is_told_in_words():
    assert position().place() == "epoch 1 of 1000, step 12 of 250"
    assert position(epoch_step=0).place() == "epoch 1 of 1000, before step 1 of 250"
    assert position(phase="validating", epoch_step=250).place() == "epoch 1 of 1000, validating"
    assert position(epochs=None, epoch_steps=None).place() == "epoch 1, step 12"  # a time budget


def test_a_line_leaves_out_what_is_not_known_yet():
    first = position(epoch_step=1, left_s=None, step_s=None)
    assert first.line() == "epoch 1 of 1000, step 1 of 250: 0:25 so far"
    assert position(loss=-0.3124).line() == (
        "epoch 1 of 1000, step 12 of 250: loss -0.312, 2.1 s/step, 0:25 so far, about 145:23:20 left"
    )
    assert ": 4.0 steps/s, " in position(step_s=0.25).line()


class Watch:
    """A clock that is moved by hand."""

    def __init__(self) -> None:
        self.now_s = 100.0

    def __call__(self) -> float:
        return self.now_s


def test_the_pace_leaves_out_the_first_step_and_what_is_left_follows_from_it(tmp_path, capsys):
    watch = Watch()
    counters = Counters()
    clock = Clock(TrainSettings(epochs=10, steps_per_epoch=4), counters, watch)
    progress = StepProgress(clock, counters, page_of(tmp_path), is_first=True)

    def step(seconds: float) -> None:
        watch.now_s += seconds
        counters.step += 1
        counters.epoch_steps += 1
        progress.step()

    with progress.epoch():
        assert (progress.position().step_s, progress.position().left_s) == (None, None)
        step(30)
        assert (progress.position().step_s, progress.position().left_s) == (None, None)
        step(2)
        step(4)
        assert progress.position().step_s == 3
        assert progress.position().left_s == 3 * (40 - 3)
    assert progress.position().phase == "validating"
    # Once an epoch is over its validation is known too: 44 s for the first of ten.
    step(8)
    counters.epoch = 1
    counters.epoch_steps = 0
    with progress.epoch():
        assert progress.position().left_s == 9 * 44
        assert progress.position().step_s is None
        step(1)
        assert progress.position().step_s == 1
    assert capsys.readouterr().err == "epoch 1 of 10, step 1 of 4: 0:30 so far\n"


def test_other_ranks_say_and_write_nothing(tmp_path, capsys):
    counters = Counters(step=1, epoch_steps=1)
    clock = Clock(TrainSettings(), counters, Watch())
    progress = StepProgress(clock, counters, page_of(tmp_path, is_first=False), is_first=False)
    with progress.lines(), progress.epoch():
        progress.step()
    assert capsys.readouterr() == ("", "")
    assert not list(tmp_path.iterdir())


# The page


def test_before_the_first_epoch_is_over_the_page_tells_its_steps(tmp_path):
    folder = tmp_path / "runs" / "3d_fullres" / "fold_0"
    page_of(folder, facts={"Device": "CPU <1>"}).show(position())
    page = read(folder)
    assert "<h1>Training of 3d_fullres, fold 0</h1>" in page
    assert "<b>step 12 of 250</b><span>of the first epoch; there is a Dice when it is over</span>" in page
    assert re.search(r"<b>Running</b> since [^<]*: epoch 1 of 1000, step 12 of 250\.", page)
    found = figures(page)
    assert (found["epochs done"], found["spent, min:s"], found["left, h:min:s"]) == ("0 of 1000", "0:25", "145:23:20")
    assert "<dt>Device</dt><dd>CPU &lt;1&gt;</dd>" in page
    assert "<svg" not in page
    assert "<h2>Dice by label</h2>" not in page


def test_the_page_renews_itself_until_the_run_is_over(tmp_path):
    write_rows(tmp_path, [row(0), row(1, rescued="<b> was lost")])
    shown = page_of(tmp_path)
    shown.show(position(epoch=3, share=0.25))
    page = read(tmp_path)
    assert "location.reload()" in page
    assert ", 25.0 % of the training." in page
    assert "Epoch 2, rescued: &lt;b&gt; was lost" in page
    assert "</script><b>" not in page.replace("</script><b>Running", "")
    assert not re.search(r"(src|href)=\"(?!data:|#)", page)  # one file that needs no other
    for state in ("finished", "stopped", "interrupted"):
        shown.end(Ending(state=state, sentence="That is all & more."))
        page = read(tmp_path)
        assert "location.reload()" not in page
        assert f"<b>{state.capitalize()}</b>" in page
        assert "That is all &amp; more." in page
        # A time budget ends a run some seconds early; what is finished is whole.
        assert f'<progress max="1" value="{1 if state == "finished" else 0.25}"' in page


def test_the_score_of_whole_cases_is_the_headline_where_there_is_one(tmp_path):
    write_rows(tmp_path, [row(0)])
    shown = page_of(tmp_path)
    shown.show(position(epoch=2))
    assert "<b>0.000</b><span>mean Dice of validation patches, epoch 1</span>" in read(tmp_path)
    write_rows(tmp_path, [row(0, whole_case_dice=0.7654, whole_case_dice_per_label=[0.7, 0.8308]), row(1)])
    shown.show(position(epoch=3))
    assert "<b>0.765</b><span>mean Dice of whole validation cases, epoch 1</span>" in read(tmp_path)


def test_the_table_of_labels_tells_the_last_the_best_and_whole_cases():
    rows = [
        row(0, val_dice_per_label=[0.5, 0.2], whole_case_dice=0.4, whole_case_dice_per_label=[0.3, 0.5]),
        row(1, val_dice_per_label=[0.4, 0.3]),
    ]
    table = labels_table(rows, ["a", "b"])
    assert [(column.title, column.unit, list(column.values)) for column in table.columns] == [
        ("Label", "", ["a", "b"]),
        ("Dice", "patches, epoch 2", [0.4, 0.3]),
        ("Best Dice", "patches", [0.5, 0.3]),
        ("Reached", "in epoch", [1, 2]),
        ("Dice", "whole cases, epoch 1", [0.3, 0.5]),
    ]
    assert labels_table([], ["a"]) is None


def test_it_is_written_when_told_to_and_due_again_after_a_while(tmp_path):
    assert page_of(tmp_path).is_due()
    shown = page_of(tmp_path, every_s=3600)
    shown.show(position())
    assert not shown.is_due()
    shown = page_of(tmp_path, every_s=0)
    shown.show(position())
    assert shown.is_due()


def test_a_disk_that_is_full_is_said_once_and_stops_nothing(tmp_path, monkeypatch, capsys):
    def full(path, *rest, **more):
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(progress_page, "write_page", full)
    progress_page._say_once.cache_clear()
    shown = page_of(tmp_path)
    for _ in range(3):
        shown.show(position())
    assert capsys.readouterr().out.count("No space left on device") == 1
    assert not list(tmp_path.iterdir())


# In a training


def test_the_page_of_a_training_is_there_from_its_first_step_and_says_how_it_ended(prepared, tmp_path):
    seen = []

    def look(image, classes, rng):  # before each of the two samples of a step
        seen.append(read(tmp_path))
        if len(seen) == 5:
            (tmp_path / STOP_FILE).write_text("now")
        return image, classes

    with pytest.raises(Stopped):
        train(request(prepared, tmp_path, augment=look, look_for_stop_every_s=0, steps_per_epoch=5))
    assert "before step 1 of 5" in seen[0]
    assert "epoch 1 of 4, step 1 of 5" in seen[2]
    assert "<b>Stopped</b>" in read(tmp_path)
    assert "--resume goes on from there" in read(tmp_path)

    def fail(image, classes, rng):
        raise UserError("scan <7> cannot be read")

    with pytest.raises(UserError):
        train(request(prepared, tmp_path, augment=fail, resume=True))
    assert "<b>Interrupted</b>" in read(tmp_path)
    assert "by an error (scan &lt;7&gt; cannot be read)" in read(tmp_path)
    run(prepared, tmp_path, resume=True)
    page = read(tmp_path)
    assert "<b>Finished</b>" in page
    assert figures(page)["epochs done"] == "4 of 4"
    assert "<dt>Cases</dt><dd>3 to train on, 1 to validate on</dd>" in page
    assert re.search(r"<dt>Learning rate</dt><dd>0\.0\d{1,4} at the start, ", page)  # in three digits
    assert page.count('class="keys"') == 4  # without whole cases


def test_a_pipe_gets_the_first_lines_while_the_training_runs(prepared, tmp_path):
    """Told by the order of what arrives, so that a buffer that is flushed at the end only would be seen."""
    code = (
        "import sys\n"
        "from pathlib import Path\n"
        "from builders.training import ZSCORE, request\n"
        "from segfw.base.printing import printable_output\n"
        "from segfw.training.loop import train\n"
        "def wait(image, classes, rng):\n"
        "    seen.append(1)\n"
        "    if len(seen) == 2 * 3 + 1:\n"  # the first sample of the second epoch
        "        sys.stdin.readline()\n"
        "    return image, classes\n"
        "seen = []\n"
        "with printable_output():\n"
        "    train(request((Path(sys.argv[1]), ZSCORE), Path(sys.argv[2]), augment=wait, epochs=2))\n"
    )
    command = [sys.executable, "-c", code, str(prepared[0]), str(tmp_path / "fold")]
    paths = os.pathsep.join(path for path in sys.path if path)
    with subprocess.Popen(
        command,
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        text=True,
        env=os.environ | {"PYTHONPATH": paths},
    ) as process:
        # It waits in the second epoch until it is told to go on: these lines arrive before.
        first = [process.stdout.readline() for _ in range(3)]
        page = read(tmp_path / "fold")
        rest, _ = process.communicate("go on\n", timeout=300)
    assert first[0].startswith("batch 2, ")
    assert first[1].startswith("epoch 1 of 2, step 1 of 3: ")
    assert first[2].startswith("epoch 1/2  loss ")
    assert "location.reload()" in page
    assert process.returncode == 0
    assert "\r" not in "".join(first) + rest
    assert "epoch 2/2  loss " in rest


# The page of all folds


def test_the_page_of_all_folds_tells_the_whole_cases_that_were_scored_at_the_end(tmp_path):
    fold = tmp_path / "work" / "runs" / "2d" / "fold_1"
    write_rows(fold, [row(0, val_dice=0.75)])
    (fold / "weights.safetensors").touch()
    (fold / "validation").mkdir()
    scores = fold / "validation" / "scores.json"
    scores.write_text('{"foreground_mean": {"dice": 0.625}}', encoding="utf-8")
    renew_work_page(fold)
    page = (tmp_path / "work" / "progress.html").read_text(encoding="utf-8")
    assert "0.625" in page
    scores.write_text('{"foreground_mean"', encoding="utf-8")  # damaged: the curve still tells something
    renew_work_page(fold)
    assert "0.625" not in (tmp_path / "work" / "progress.html").read_text(encoding="utf-8")
    table, _ = folds_table([fold], running=fold)  # trained on: those scores are of earlier weights
    assert [column.shown(0) for column in table.columns] == ["2d, fold 1", "running", "1", "0.750", "–"]


def test_the_work_folder_has_a_page_that_leads_to_every_fold(tmp_path):
    runs = tmp_path / "my work" / "runs"
    write_rows(runs / "2d" / "fold_1", [row(0, val_dice=0.5), row(1, val_dice=0.75, whole_case_dice=0.625)])
    (runs / "2d" / "fold_1" / "progress.html").touch()
    (runs / "2d" / "fold_1" / "weights.safetensors").touch()
    write_rows(runs / "2d" / "fold_2", [])  # of an older version, without a page
    running = runs / "3d_fullres" / "fold_0"
    page_of(running).show(position())
    table, finished = folds_table(sorted(runs.glob("*/*")), running=running.resolve())
    assert finished == 1
    assert [[column.shown(line) for column in table.columns] for line in range(3)] == [
        ["2d, fold 1", "finished", "2", "0.750", "0.625"],
        ["2d, fold 2", "begun", "0", "–", "–"],
        ["3d_fullres, fold 0", "running", "0", "–", "–"],
    ]
    page = (tmp_path / "my work" / "progress.html").read_text(encoding="utf-8")
    assert "<h1>Training in my work</h1>" in page
    assert "<p>3 folds begun, 1 finished.</p>" in page
    assert re.findall(r'href="([^"]*)"', page) == [
        "runs/2d/fold_1/progress.html",
        "runs/3d_fullres/fold_0/progress.html",
    ]
    assert "location.reload()" in page
    assert re.findall(r'href="([^"]*)"', read(running)) == ["../../../progress.html"]
    page_of(running).end(Ending(state="stopped", sentence="Stopped."))
    assert "location.reload()" not in (tmp_path / "my work" / "progress.html").read_text(encoding="utf-8")
