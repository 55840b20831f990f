"""What ``run`` and ``select`` say of a calibration at their end, and ``run --calibrate``."""

from __future__ import annotations

import shlex

import pytest

from builders.calibration import drawn_work
from builders.data import write_raw
from segfw.cli import build_parser, main
from segfw.model.source import QUALITY_FILE
from segfw.planning.splits import SPLITS_FILE, Splits
from segfw.quality.calibration_time import calibration_line
from segfw.quality.quality_model import QualityModel

SHORT = ("--epochs", "1", "--steps-per-epoch", "2", "--batch-size", "2", "--device", "cpu")


def test_the_command_with_its_minutes_can_be_pasted(tmp_path):
    work = drawn_work(tmp_path)
    line = calibration_line(work, ["3d_fullres"], "cpu")
    told, command = line.split(": ", 1)
    assert told == "how far each mask can be trusted, after about 1 min"
    words = shlex.split(command)
    assert words == ["segfw", "calibrate", str(work), "--device", "cpu"]
    assert build_parser().parse_args(words[1:]).verb == "calibrate"
    line = calibration_line(work, ["3d_fullres"], "auto", "(case_0)[0-9]")
    assert shlex.split(line.split(": ", 1)[1]) == ["segfw", "calibrate", str(work)]  # the folds keep the patients
    splits = Splits.load(work / SPLITS_FILE)
    splits.model_copy(update={"patient_of": None}).save(work / SPLITS_FILE)
    line = calibration_line(work, ["3d_fullres"], "auto", "(case_0)[0-9]")
    assert shlex.split(line.split(": ", 1)[1])[3:] == ["--groups", "(case_0)[0-9]"]


def test_too_few_cases_are_a_note(tmp_path):
    work = drawn_work(tmp_path, folds=("0", "1"))
    assert calibration_line(work, ["3d_fullres"], "cpu") == (
        "note: 4 validation cases are too few to learn from how far masks hold; segfw calibrate needs 5"
    )


def test_of_several_configurations_one_has_to_be_named(tmp_path):
    assert "--configuration" in calibration_line(tmp_path, ["2d", "3d_fullres"], "cpu")


def test_what_is_no_work_folder_is_nothing_to_speak_of(tmp_path):
    assert calibration_line(tmp_path, ["2d"], "cpu") == ""


@pytest.mark.parametrize("folds", [("0",), ("0", "1", "2", "3", "4")])
def test_run_calibrates_or_notes_that_there_is_too_little(tmp_path, capsys, folds):
    raw = write_raw(tmp_path / "raw")
    work = tmp_path / "work"
    typed = ["run", str(raw), str(work), "--configurations", "2d", "--folds", *folds, *SHORT, "--calibrate"]
    assert main(typed) == 0
    said = capsys.readouterr().out
    if len(folds) == 1:
        assert "note: nothing is calibrated: " in said
        assert "too few to learn quality from" in said
        assert not (work / QUALITY_FILE).exists()
    else:
        assert QualityModel.load(work / QUALITY_FILE).identity.configuration == "2d"
    assert "after about" not in said
