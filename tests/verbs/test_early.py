"""Options that cannot be are refused before an image is read: nothing is written, and no hour is lost."""

from __future__ import annotations

import json
from typing import get_args

import pytest

from builders.data import write_raw
from segfw.base.options import field_types
from segfw.cli import main
from segfw.planning.presets import PRESETS
from segfw.planning.request import PlanRequest

BEGIN = ["run", "raw", "work"]
REFUSED = {
    "--configurations 4d": (
        "unknown configuration '4d'; choose from 2d, 3d_lowres, 3d_fullres, 3d_cascade_fullres, 3d_refine"
    ),
    "--configurations 3d_fulres": (
        "unknown configuration '3d_fulres'; choose from 2d, 3d_lowres, 3d_fullres, 3d_cascade_fullres, 3d_refine; "
        "did you mean 3d_fullres?"
    ),
    "--folds 7": "fold '7' does not exist; choose 0 to 4 or all",
    "--folds 0 -1": "fold '-1' does not exist; choose 0 to 4 or all",
    "--folds x": "fold 'x' does not exist; choose 0 to 4 or all",
    "--folds 2 --splits two.json": "fold '2' does not exist; choose 0 to 1 or all",
    "--splits nowhere.json": "nowhere.json: there is no such file or folder; check the name",
    "--groups nowhere.csv": "nowhere.csv: ",
    "--preset resenc": (
        "--preset: 'resenc' is none of plain, resenc-m, resenc-l, resenc-xl, segresnet, swin-unetr and mednext; did "
        "you mean resenc-m, resenc-l or resenc-xl?"
    ),
    "--preset mednext --as-published": (
        "--as-published plans as nnU-Net does, which has no 'mednext'; leave it out or take plain, resenc-m, resenc-l, "
        "resenc-xl"
    ),
    "--plans nowhere.json": "nowhere.json: ",
    "--plans plans.json --configurations 2d": "unknown configuration '2d'; choose from 3d_theirs",
    "--plans plans.json --preset resenc-m": (
        "--plans plans.json: is followed to the letter, so --preset cannot be given too; leave one out"
    ),
    "--init-from nowhere": "--init-from nowhere: no such file or folder",
    "--init-from raw": (
        "--init-from raw: is neither a model directory (with plan.json) nor a weights.safetensors; give a work folder "
        "of segfw train, or the folder of one fold"
    ),
    "--device cuda:63": "--device cuda:63: PyTorch sees ",
    "--device gpu9": "--device 'gpu9' is unknown; use auto, cpu, cuda, cuda:1 or mps",
    "--gpu-memory-gb inf": "--gpu-memory-gb is inf; give a finite number or 'auto'",
    "--gpu-memory-gb nan": "--gpu-memory-gb is nan; give a finite number or 'auto'",
    "--gpu-memory-gb -1": "--gpu-memory-gb is -1.0; give the memory of the GPU in GB, such as 8",
    "--spacing-mm 1 nan 1": "--spacing-mm is (1.0, nan, 1.0); give 3 finite numbers",
    "--spacing-mm 1 0 1": "--spacing-mm is (1.0, 0.0, 1.0); give three lengths in mm above 0, for z, y and x",
    "--workers -2": "--workers is -2; give 1 or more",
    "--epochs 0": "--epochs is 0; give 1 or more",
    "--batch-size 0": "--batch-size is 0; give 1 or more",
    "--patience 0": "--patience is 0; give 1 or more",
    "--settings nowhere.toml": "nowhere.toml: there is no such file or folder; check the name",
    "--settings wrong.toml": "wrong.toml: there is no option 'epoch'; did you mean epochs?",
}


@pytest.fixture
def folder(tmp_path, monkeypatch):
    """Six cases whose images nobody can read, so that what is said before that was known before that."""
    raw = write_raw(tmp_path / "raw", 6, "MR")
    for image in (raw / "imagesTr").iterdir():
        image.write_text("no image")
    ids = [f"case_{number:02}" for number in range(6)]
    splits = [{"train": ids[:3], "val": ids[3:]}, {"train": ids[3:], "val": ids[:3]}]
    (tmp_path / "two.json").write_text(json.dumps(splits))
    (tmp_path / "plans.json").write_text(json.dumps({"configurations": {"3d_theirs": {}}}))
    (tmp_path / "wrong.toml").write_text("epoch = 3")
    monkeypatch.chdir(tmp_path)
    return tmp_path


def said(capsys) -> str:
    errors = capsys.readouterr().err
    assert errors.startswith("segfw: ")
    assert errors.count("\n") == 1
    return errors.removeprefix("segfw: ").rstrip("\n")


@pytest.mark.parametrize("options", REFUSED)
def test_run_refuses_before_it_reads_or_writes(options, folder, capsys):
    before = sorted(folder.rglob("*"))
    assert main([*BEGIN, *options.split()]) == 2
    assert said(capsys).startswith(REFUSED[options])
    assert sorted(folder.rglob("*")) == before


def test_a_writer_that_is_not_installed_is_told_at_once(folder, capsys, monkeypatch):
    before = sorted(folder.rglob("*"))
    monkeypatch.setitem(__import__("sys").modules, "torch.utils.tensorboard", None)
    assert main([*BEGIN, "--log", "tensorboard"]) == 2
    assert said(capsys) == "--log tensorboard needs a package that is missing; pip install 'segfw[tensorboard]'"
    assert sorted(folder.rglob("*")) == before


@pytest.mark.parametrize("more", [[], ["--dry-run"]])
def test_a_cluster_that_does_not_answer_is_told_at_once(more, folder, capsys, monkeypatch):
    pytest.importorskip("distributed", reason="Dask is not installed: pip install 'segfw[cluster]'")

    def silent(address, **_):
        raise OSError(f"Timed out trying to connect to {address} after 30 s")

    before = sorted(folder.rglob("*"))
    monkeypatch.setattr("distributed.Client", silent)
    assert main([*BEGIN, "--cluster", "nowhere:8786", *more]) == 2
    assert said(capsys) == (
        "--cluster nowhere:8786: no Dask scheduler answers there (Timed out trying to connect to nowhere:8786 after "
        "30 s); give host:port"
    )
    assert sorted(folder.rglob("*")) == before


def test_unreadable_images_are_told_when_the_options_are_right(folder, capsys):
    assert main([*BEGIN, "--folds", "4", "--device", "cpu"]) == 2
    assert "6 problems in 6 cases; nothing was started" in capsys.readouterr().err
    assert not (folder / "work").exists()


def test_every_preset_can_be_typed():
    assert get_args(field_types(PlanRequest)["preset"]) == tuple(PRESETS)


def test_a_single_case_is_refused_by_check_and_run_alike(tmp_path, capsys, monkeypatch):
    monkeypatch.chdir(tmp_path)
    write_raw(tmp_path / "raw", 1, "MR")
    assert main(["check", "raw"]) == 1
    assert "the data set has 1 usable case; training needs at least 2, better 20 or more" in capsys.readouterr().out
    assert main(BEGIN) == 2
    assert said(capsys) == "raw: the data set has 1 usable case; training needs at least 2, better 20 or more"
    assert not (tmp_path / "work").exists()
