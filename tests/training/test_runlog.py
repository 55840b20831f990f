"""The console line of an epoch, metrics.jsonl, and run.json."""

import json
import shutil
import subprocess
import sys
from pathlib import Path

import nibabel
import numpy as np
import pytest
import torch

from builders.data import write_cases, write_nifti
from builders.networks import three_stages
from builders.training import LABELS, ZSCORE, configuration
from segfw.grid.store import preprocess_dataset
from segfw.model.training_record import RUN_FILE, RunRecord, read_curve, read_metrics
from segfw.training import run_record as runrecord
from segfw.training.metrics_log import LONGEST_LINE, append_metrics, epoch_line, keep_metrics_before
from segfw.training.prepare import used_precision
from segfw.training.run_record import data_digest, describe_session, git_state, note_session
from segfw.training.settings import TrainSettings

ROW = {
    "epoch": 11,
    "steps": 50,
    "train_loss": -0.5124,
    "learning_rate": 0.01,
    "val_loss": -0.43,
    "val_dice": 0.8125,
    "val_dice_per_label": [0.82, 0.805],
    "epoch_s": 20.0,
    "elapsed_s": 240.0,
    "stalled_share": 0.004,
}


def test_the_line_of_an_epoch_says_all_there_is():
    line = epoch_line(ROW, ["bright", "dark"], "/1000", 3723)
    assert line == (
        "epoch 12/1000  loss -0.512  val -0.430  dice 0.812 (bright 0.820  dark 0.805)  "
        "2.5 steps/s  waited 0%  left 1:02:03"
    )
    more = ROW | {"whole_case_dice": 0.8451, "augment_share": 0.083, "gpu_memory_gb": 3.21, "epoch_s": 200.0}
    assert epoch_line(more, ["bright", "dark"], "", 63) == (
        "epoch 12  loss -0.512  val -0.430  dice 0.812 (bright 0.820  dark 0.805)  whole 0.845  "
        "4.0 s/step  waited 0%  augment 8%  3.2 GB  left 1:03"
    )


def test_names_are_whole_where_the_line_has_room():
    line = epoch_line(ROW, ["refined, simulated clicks", "given"], "", 63)
    assert "(refined, simulated clicks 0.820  given 0.805)" in line
    assert len(line) <= LONGEST_LINE


@pytest.mark.parametrize("labels", [1, 3, 60])
def test_the_line_of_an_epoch_is_never_too_long(labels):
    names = [f"structure_with_a_long_name_{index}" for index in range(labels)]
    row = ROW | {"val_dice_per_label": [0.5] * labels, "augment_share": 0.1, "gpu_memory_gb": 71.0, "epoch": 99_998}
    line = epoch_line(row | {"whole_case_dice": 0.9}, names, "/100000", 360_000)
    assert len(line) <= LONGEST_LINE
    assert "dice 0.812 (structure_with 0.500" in epoch_line(row, names, "", 10)
    assert ("...)" in epoch_line(row, names, "", 10)) == (labels > 2)


def test_metrics_survive_a_cut_off_line_and_lose_what_is_done_again(tmp_path):
    for epoch in range(4):
        append_metrics(tmp_path, {"epoch": epoch})
    with open(tmp_path / "metrics.jsonl", "a") as file:
        file.write('{"epoch": 4, "tr')
    keep_metrics_before(tmp_path, 3)
    assert read_metrics(tmp_path) == [{"epoch": 0}, {"epoch": 1}, {"epoch": 2}]


@pytest.mark.parametrize(
    "line", ['{"epoch": "1"}', '{"loss": 1}', '{"epoch": 1, "elapsed_s": 1%s}' % ("0" * 400), "[]", "1"]
)
def test_metrics_end_before_a_line_that_is_of_no_epoch(tmp_path, line):
    append_metrics(tmp_path, {"epoch": 0, "val_loss": float("nan"), "steps": 4})
    with open(tmp_path / "metrics.jsonl", "a") as file:
        file.write(f'{line}\n{{"epoch": 2}}\n')
    assert [row["epoch"] for row in read_metrics(tmp_path)] == [0]


def test_a_curve_has_what_is_one_number_in_a_row(tmp_path):
    append_metrics(tmp_path, {"epoch": 0, "val_dice": 0.5, "val_dice_per_label": [0.25, 0.75], "cooling": "STOP"})
    assert read_curve(tmp_path) == [{"epoch": 0, "val_dice": 0.5}]


@pytest.fixture(scope="module")
def stored(tmp_path_factory) -> Path:
    """Three preprocessed cases."""
    return store(tmp_path_factory.mktemp("stored"))


def store(folder: Path, changed: str = "") -> Path:
    cases = write_cases(folder, ("a", "b", "c"))
    if changed:
        mask = np.asarray(nibabel.load(folder / f"{changed}_mask.nii.gz").dataobj).copy()
        mask[np.flatnonzero((mask == 3).ravel())[0] // mask[0].size] = 0
        write_nifti(folder / f"{changed}_mask.nii.gz", mask)
    assert not preprocess_dataset(cases, LABELS, {"3d": ZSCORE}, folder, case_bytes=dict.fromkeys("abc", 20_000))
    return folder / "3d"


def note(folder: Path, stored: Path, **changes) -> RunRecord:
    values = {
        "how": "started",
        "first_epoch": 1,
        "settings": TrainSettings(epochs=7, seed=5),
        "device": torch.device("cpu"),
        "precision": torch.bfloat16,
        "preprocessed": stored,
        "training_ids": ["a", "b"],
    }
    return note_session(folder, describe_session(**(values | changes)), ["bright", "dark"])


def test_the_digest_follows_the_data_and_not_their_place(stored, tmp_path):
    digest = data_digest(stored, ["a", "b", "c"])
    assert digest == data_digest(stored, ["c", "a", "b"])
    assert digest != data_digest(stored, ["a", "b"])
    # Written again elsewhere, by another process or not: the same, unless one mask has changed.
    assert digest == data_digest(store(tmp_path / "again"), ["a", "b", "c"])
    assert digest != data_digest(store(tmp_path / "changed", "b"), ["a", "b", "c"])


def test_the_precision_that_is_told_is_the_one_that_gradients_are_computed_in():
    # On a CPU the gradients of two slices at a deep stage are wrong in 16 bit, so that they are computed in 32.
    two_slices = configuration(ZSCORE, three_stages()).model_copy(update={"patch_size": (4, 8, 8)})
    three_slices = two_slices.model_copy(update={"patch_size": (6, 8, 8)})
    cpu = torch.device("cpu")
    assert used_precision(two_slices, cpu, torch.bfloat16) == torch.float32
    assert used_precision(three_slices, cpu, torch.bfloat16) == torch.bfloat16
    assert used_precision(two_slices, torch.device("cuda"), torch.bfloat16) == torch.bfloat16
    assert used_precision(two_slices, cpu, torch.float32) == torch.float32


def test_a_run_that_goes_on_adds_to_its_record(stored, tmp_path):
    note(tmp_path, stored)
    note(tmp_path, stored, how="resumed", first_epoch=4)
    record = RunRecord.load(tmp_path / RUN_FILE)
    first, second = record.sessions
    assert (first.how, second.how, second.first_epoch) == ("started", "resumed", 4)
    assert (first.settings["epochs"], first.settings["seed"]) == (7, 5)
    assert first.precision == "bfloat16"
    assert first.device.startswith("CPU (")
    assert first.versions["torch"] == torch.__version__.split("+")[0] or first.versions["torch"] == torch.__version__
    assert first.versions["python"].startswith(f"{sys.version_info.major}.{sys.version_info.minor}.")
    assert first.data_digest == second.data_digest == data_digest(stored, ["a", "b"])
    assert record.label_names == ("bright", "dark")
    assert len(note(tmp_path, stored).sessions) == 1  # started anew


def test_a_damaged_record_does_not_stop_a_run(stored, tmp_path, capsys):
    (tmp_path / RUN_FILE).write_text("{}")
    assert len(note(tmp_path, stored, how="resumed").sessions) == 1
    assert "it is begun anew" in capsys.readouterr().out


def test_a_record_names_no_people(stored, tmp_path, monkeypatch):
    home = Path.home()
    arguments = ["/home/anna.b/env/bin/segfw", "train", str(home / "w"), "/Users/bert/x", r"C:\Users\Carl\y", "/data/z"]
    monkeypatch.setattr(sys, "argv", arguments)
    monkeypatch.setattr(
        TrainSettings, "as_json", lambda self: {"init_from": "/home/dora/m", "folders": ["/home/emil/n", 3]}
    )
    session = note(tmp_path, stored).sessions[0]
    assert session.command.startswith("segfw train ")
    text = session.model_dump_json()
    for name in ("anna", "bert", "Carl", "dora", "emil"):
        assert name not in text
    assert "/data/z" in session.command
    assert session.settings == {"init_from": "~/m", "folders": ["~/n", 3]}
    monkeypatch.setattr(sys, "argv", ["/opt/segfw/__main__.py", "train"])
    assert note(tmp_path, stored).sessions[0].command == "python -m segfw train"


def git(folder: Path, *words: str) -> str:
    names = ["-c", "user.name=n", "-c", "user.email=e@example.org", "-c", "commit.gpgsign=false"]
    done = subprocess.run(["git", "-C", folder, *names, *words], capture_output=True, text=True, check=True, timeout=60)
    return done.stdout.strip()


@pytest.mark.skipif(shutil.which("git") is None, reason="git is not installed")
def test_the_state_of_a_checkout(tmp_path):
    package = tmp_path / "code" / "package"
    package.mkdir(parents=True)
    (package / "__init__.py").touch()
    assert git_state(package) is None  # no repository
    git(tmp_path / "code", "init")
    assert git_state(package) is None  # a repository that does not hold the package
    git(tmp_path / "code", "add", ".")
    git(tmp_path / "code", "commit", "-m", "first")
    state = git_state(package)
    assert state.commit == git(package, "rev-parse", "HEAD")
    assert not state.is_changed
    (tmp_path / "code" / "notes.txt").touch()
    assert not git_state(package).is_changed  # beside the package
    (package / "new.py").touch()
    assert git_state(package).is_changed


def test_without_git_there_is_no_state(monkeypatch):
    monkeypatch.setenv("PATH", "")
    assert git_state(runrecord.PACKAGE) is None


def test_the_record_is_strict_json(stored, tmp_path):
    note(tmp_path, stored)
    content = json.loads((tmp_path / RUN_FILE).read_text())
    assert set(content) == {"label_names", "sessions", "end"}
    assert content["sessions"][0]["processes"] == 1
