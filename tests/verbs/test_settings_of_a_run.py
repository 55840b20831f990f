"""A run writes its options and all that it says into its folder; with that file it is repeated on other data."""

from __future__ import annotations

import re
import tomllib

import pytest

from builders.data import write_raw
from segfw.base.records import UserError
from segfw.base.settings_file import read_settings
from segfw.cli import main
from segfw.planning.request import PlanRequest
from segfw.training.settings import RunOptions, TrainSettings
from segfw.verbs.run import run

OPTIONS = [
    *("--configurations", "2d", "--folds", "1", "--epochs", "1", "--steps-per-epoch", "1"),
    *("--batch-size", "2", "--device", "cpu", "--mirroring", "off", "--workers", "1"),
]
RECORDS = (PlanRequest, TrainSettings, RunOptions)


def test_a_run_is_repeated_by_its_file_and_logged(tmp_path, capsys, monkeypatch):
    monkeypatch.chdir(tmp_path)
    write_raw(tmp_path / "raw", 6, "MR")
    write_raw(tmp_path / "other raw", 5, "MR")
    assert main(["run", "raw", "work", *OPTIONS, "--quiet"]) == 0

    # Quiet: where the results are, and nothing else
    said = capsys.readouterr()
    *warnings, last = said.out.splitlines()
    assert last == "reports: work/runs/*/fold_*/report.html"
    assert warnings
    assert all(line.startswith("warning: 1 step of training: too few") for line in warnings)
    assert said.err == ""

    # The file of the options
    path = tmp_path / "work" / "run.toml"
    content = tomllib.loads(path.read_text(encoding="utf-8"))
    assert content["configurations"] == ["2d"]
    assert content["folds"] == ["1"]
    assert content["mirroring"] == "off"
    assert content["precision"] == "auto"
    assert path.read_text(encoding="utf-8").startswith("# of segfw run raw WORK --settings run.toml\n")
    assert "# length of the training (default: 1000)\nepochs = 1\n" in path.read_text(encoding="utf-8")

    # The log
    log = (tmp_path / "work" / "log.txt").read_text(encoding="utf-8")
    lines = [re.fullmatch(r"20\d\d-\d\d-\d\d \S+ \[\d+\] (.*)", line)[1] for line in log.splitlines()]
    assert lines[0] == f"$ segfw run raw work {' '.join(OPTIONS)} --quiet"
    assert any(line.startswith("checked 6 cases of raw (nnunet layout") for line in lines)
    assert any(line.startswith("training 2d fold 1 for 1 epoch on ") for line in lines)
    assert lines[-1] == "next: segfw predict work NEW_IMAGES MASKS"

    # The same again on other data; what is typed goes before
    again = ["run", "other raw", "second work", "--settings", "work/run.toml", "--seed", "7", "--folds", "0"]
    assert main(again) == 0
    assert "next: segfw predict 'second work' NEW_IMAGES MASKS\n" in capsys.readouterr().out
    assert [folder.name for folder in (tmp_path / "second work" / "runs" / "2d").glob("fold_*")] == ["fold_0"]
    first = TrainSettings.load(tmp_path / "work" / "runs" / "2d" / "fold_1" / "settings.json")
    second = TrainSettings.load(tmp_path / "second work" / "runs" / "2d" / "fold_0" / "settings.json")
    assert second.as_json() == first.as_json() | {"seed": 7}
    written = read_settings(tmp_path / "second work" / "run.toml", RECORDS)
    assert written == read_settings(path, RECORDS) | {"seed": 7, "folds": ("0",)}

    # What goes wrong in the folder stands in its log, the traceback of what should not happen too
    assert main(["train", "work", "2d", "9"]) == 2

    def broken(*_, **__):
        raise ZeroDivisionError("of a test")

    monkeypatch.setattr("segfw.planning.work_folder.load_plan_and_splits", broken)
    with pytest.raises(ZeroDivisionError):
        main(["train", "work", "2d", "0"])
    log = (tmp_path / "work" / "log.txt").read_text(encoding="utf-8")
    assert "] segfw: fold '9' does not exist; choose 0 to 4 or all\n" in log
    assert "] ZeroDivisionError: of a test\n" in log
    assert "] Traceback (most recent call last):\n" in log


def test_the_options_are_kept_before_cases_are_preprocessed(tmp_path, monkeypatch):
    write_raw(tmp_path / "raw", 6, "MR")

    def killed(*_, **__):
        raise KeyboardInterrupt

    monkeypatch.setattr("segfw.grid.store.preprocess_dataset", killed)
    with pytest.raises(KeyboardInterrupt):
        run(tmp_path / "raw", tmp_path / "work", configurations=("2d",), device="cpu", epochs=3)
    assert tomllib.loads((tmp_path / "work" / "run.toml").read_text(encoding="utf-8"))["epochs"] == 3
    # What is refused leaves none.
    with pytest.raises(UserError, match="no such folder"):
        run(tmp_path / "nowhere", tmp_path / "other", device="cpu")
    assert not (tmp_path / "other").exists()


def test_a_training_follows_a_file_as_well(tmp_path, monkeypatch):
    (tmp_path / "short.toml").write_text('epochs = 2\ntime-budget = "90s"\nlearning-rate = 0.5\nextend = "2h"\n')
    taken = {}

    def keep(command, typed):
        taken.update({name: record.from_arguments(typed) for name, record in command.records.items()})

    monkeypatch.setattr("segfw.base.command.Command.call", keep)
    monkeypatch.setattr("segfw.verbs.train.COMMAND.say_result.__code__", (lambda typed, result: None).__code__)
    assert main(["train", "work", "2d", "0", "--settings", str(tmp_path / "short.toml"), "--epochs", "5"]) == 0
    assert taken["settings"] == TrainSettings(epochs=5, time_budget_s=90.0, learning_rate=0.5)
    assert taken["options"].extend_s == 7200.0


def test_only_verbs_that_follow_a_file_take_one(capsys):
    assert main(["predict", "model", "new", "masks", "--settings", "run.toml"]) == 2
    assert "predict has no option --settings" in capsys.readouterr().err
