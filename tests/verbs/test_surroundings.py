"""Verbs in odd surroundings: any name of a folder, no locale, no home, a strict umask; and many calls in a row."""

from __future__ import annotations

import gc
import json
import os
import stat
import subprocess
import sys
import tracemalloc
from pathlib import Path

import pytest
import torch

from builders.data import make_images, write_raw
from builders.models import small_model
from segfw.cli import main
from segfw.inference.predictor import Predictor
from segfw.model.load import load_model

ROOT = Path(__file__).resolve().parents[2]
ODD_NAME = "Kö ß #%&;$'()+=,@~ x"


def _commands(place: Path) -> list[list[str]]:
    """Verbs that read, plan, predict, score and hand on, all in one folder."""
    raw = str(place / "raw")
    model = str(place / "model")
    masks = str(place / "masks")
    cpu = ["--device", "cpu"]
    return [
        ["check", raw, "--output", str(place / "check")],
        ["plan-and-preprocess", raw, str(place / "work"), "--configurations", "2d", *cpu],
        ["info", str(place / "work")],
        ["predict", model, f"{raw}/imagesTr", masks, *cpu],
        ["evaluate", masks, f"{raw}/labelsTr", "--output", f"{place}/scores.json", "--report", f"{place}/report.html"],
        ["export", model, str(place / "model.zip")],
    ]


def _make(place: Path) -> None:
    write_raw(place / "raw", 3)
    small_model(place / "model")


@pytest.mark.skipif(os.name != "posix", reason="Windows does not have all of these names")
def test_a_folder_may_be_called_as_its_owner_likes(tmp_path, capsys):
    place = tmp_path / ODD_NAME
    _make(place)
    for command in _commands(place):
        assert main(command) == 0, capsys.readouterr()
    assert len(list((place / "masks").glob("*.nii.gz"))) == 3


@pytest.mark.skipif(os.name != "posix", reason="locales, homes and masks of modes as POSIX systems have them")
def test_no_locale_no_home_and_a_strict_umask(tmp_path):
    """Of a cron job or a service; in a process of its own, which gets its locale when it begins."""
    place = tmp_path / ODD_NAME
    _make(place)
    script = (
        "import json, os, sys; os.umask(0o077); from segfw.cli import main\n"
        "sys.exit(max(main(command) for command in json.loads(sys.argv[1])))"
    )
    kept = {name: os.environ[name] for name in ("PATH", "TMPDIR") if name in os.environ}
    environment = kept | {"LC_ALL": "POSIX", "HOME": "/proc/nobody", "PYTHONPATH": str(ROOT), "OMP_NUM_THREADS": "1"}
    command = [sys.executable, "-c", script, json.dumps(_commands(place), ensure_ascii=True)]
    done = subprocess.run(command, env=environment, capture_output=True, text=True, encoding="utf-8", timeout=600)
    assert done.returncode == 0, done.stdout + done.stderr
    assert "Traceback" not in done.stderr
    made = [path for folder in ("check", "work", "masks") for path in (place / folder).rglob("*") if path.is_file()]
    assert len(made) > 10
    assert {stat.S_IMODE(path.stat().st_mode) for path in made} == {0o600}


def test_many_predictions_in_one_process_keep_nothing(tmp_path):
    """A case that was kept would be more than 100 kB of arrays after 30 of them, or 30 tensors."""
    image = next(make_images(tmp_path / "images", 1).iterdir())
    predictor = Predictor.of(load_model(small_model(tmp_path / "model")), device="cpu")

    def kept_after(predictions: int) -> tuple[int, int]:
        for _ in range(predictions):
            predictor(image)
        gc.collect()
        tensors = sum(issubclass(type(each), torch.Tensor) for each in gc.get_objects())
        return tensors, tracemalloc.get_traced_memory()[0]

    tracemalloc.start()
    try:
        tensors, size = kept_after(5)
        tensors_later, size_later = kept_after(30)
    finally:
        tracemalloc.stop()
    assert tensors_later <= tensors
    assert size_later - size < 80_000
