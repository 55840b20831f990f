"""The command that a verb names as the next one runs as it is printed, also with spaces, quotes and umlauts."""

from __future__ import annotations

import shlex
import shutil

import pytest

from builders.calibrated import calibrated_model
from builders.data import make_images, write_raw
from builders.models import small_model
from builders.nnunet import trained_folder
from segfw.cli import build_parser, main

ODD = "Müllers 'neue' Daten $1"


@pytest.fixture
def folder(tmp_path, monkeypatch):
    """The folder that commands are pasted in, with images under the name that next lines have for them."""
    here = tmp_path / ODD
    here.mkdir()
    monkeypatch.chdir(here)
    make_images(here / "NEW_IMAGES", 2)
    return here


def next_line(capsys) -> list[str]:
    """The words of the one next line, as a shell splits them, without segfw."""
    (line,) = (line for line in capsys.readouterr().out.splitlines() if line.startswith("next: "))
    first, *words = shlex.split(line.removeprefix("next: "))
    assert first == "segfw"
    return words


def test_from_a_model_to_scores(folder, capsys):
    small_model(folder / ODD)
    assert main(["export", ODD, f"{ODD}.zip"]) == 0
    assert main([*next_line(capsys), "--device", "cpu"]) == 0
    shutil.copytree("MASKS", "EXPERT_MASKS", ignore=lambda _, names: [name for name in names if "nii" not in name])
    words = next_line(capsys)
    assert words[0] == "evaluate"
    assert main(words) == 0
    assert {"scores.json", "report.html"} <= {path.name for path in folder.iterdir()}


def test_from_masks_of_a_calibrated_model_to_the_queue(folder, capsys):
    calibrated_model(folder / ODD)
    assert main(["predict", ODD, "NEW_IMAGES", "MASKS", "--device", "cpu"]) == 0
    assert next_line(capsys) == ["queue", "MASKS"]
    assert main(["queue", "MASKS"]) == 0
    said = capsys.readouterr().out
    assert "bright: " in said
    assert not [line for line in said.splitlines() if line.endswith("; ")]


def test_from_an_imported_model(folder, capsys):
    assert main(["import-nnunet", str(trained_folder(folder / "theirs")), ODD]) == 0
    assert next_line(capsys) == ["predict", ODD, "NEW_IMAGES", "MASKS"]


def test_from_a_plan_to_training(folder, capsys):
    write_raw(folder / "raw", 6, "MR")
    assert main(["plan-and-preprocess", "raw", ODD, "--plan-only", "--configurations", "2d", "--device", "cpu"]) == 0
    words = next_line(capsys)
    assert words == ["plan-and-preprocess", "raw", ODD, "--configurations", "2d", "--device", "cpu"]
    assert main(words) == 0
    words = next_line(capsys)
    assert words == ["train", ODD, "2d", "0"]
    assert build_parser().parse_args(words).fold == "0"
