"""A disk that is full: every verb says so in one sentence, leaves nothing half made, and goes on when there is room.

The disk is a real one, of a few kilobytes in memory, which only root may mount; elsewhere these tests are skipped.
"""

from __future__ import annotations

import os
import re
import shutil
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

from builders.data import put_nan
from builders.nnunet import trained_folder
from builders.written_before import written_copy
from segfw.cli import main

DISK_BYTES = 16 * 1024**2
PAGE_BYTES = 4096
FILLER = "filler"
FULL = r"the disk is full|0 GB are free(, too few for| and about .* needed)"
CPU = ("--device", "cpu")
SHORT = ("--epochs", "1", "--steps-per-epoch", "1", "--batch-size", "2", *CPU)


@pytest.fixture
def disk(tmp_path) -> Iterator[Path]:
    """A folder that is a disk of its own."""
    folder = tmp_path / "disk"
    folder.mkdir()
    if not sys.platform.startswith("linux") or os.geteuid():
        pytest.skip("only root of a Linux machine may mount a small disk")
    mounted = subprocess.run(
        ["mount", "-t", "tmpfs", "-o", f"size={DISK_BYTES}", "tmpfs", folder],
        capture_output=True,
        text=True,
        timeout=300,
    )
    if mounted.returncode:
        pytest.skip(f"this machine does not let a small disk be mounted: {mounted.stderr.strip()}")
    try:
        yield folder
    finally:
        subprocess.run(["umount", "--lazy", folder], check=True, timeout=300)


@pytest.fixture
def written(tmp_path) -> Path:
    """Data, a work folder and a model on a disk with room; the work folder names the images beside it."""
    return written_copy(tmp_path / "written")


def fill(disk: Path, pages_left: int) -> None:
    free = shutil.disk_usage(disk).free
    (disk / FILLER).write_bytes(b"\0" * (free - pages_left * PAGE_BYTES))


# What each verb is given: the data, and the full disk; and how many pages of 4 kB that disk has left.
COMMANDS = {
    "check --fix": (("check", "{data}/raw", "--fix", "{disk}/out"), 2),
    "check --output": (("check", "{data}/raw", "--output", "{disk}/out"), 1),
    "plan-and-preprocess": (("plan-and-preprocess", "{data}/raw", "{disk}/out", "--configurations", "2d", *CPU), 6),
    "plan-and-preprocess --plan-only": (("plan-and-preprocess", "{data}/raw", "{disk}/out", "--plan-only", *CPU), 1),
    "run": (("run", "{data}/raw", "{disk}/out", "--configurations", "2d", "--folds", "0", *SHORT), 60),
    "predict": (("predict", "{data}/model.zip", "{data}/raw/imagesTs", "{disk}/out", *CPU), 2),
    "evaluate": (("evaluate", "{data}/raw/labelsTs", "{data}/raw/labelsTs", "--output", "{disk}/scores.json"), 1),
    "export": (("export", "{data}/imported", "{disk}/out.zip"), 2),
    "export --onnx": (("export", "{data}/imported", "{disk}/out", "--onnx"), 2),
    "export --nnunet": (("export", "{data}/imported", "{disk}/out", "--nnunet"), 2),
    "import-nnunet": (("import-nnunet", "{data}/theirs", "{disk}/out"), 2),
    "ensemble": (("ensemble", "{data}/predicted", "{data}/predicted", "--output", "{disk}/out"), 1),
    "train": (("train", "{disk}/work", "2d", "1", *SHORT), 20),
    "select": (("select", "{disk}/work", "--configurations", "2d", *CPU), 1),
    "calibrate": (
        ("calibrate", "{disk}/model", "--configuration", "2d", "--cases", "{data}/raw", "--shifts", "off", *CPU),
        3,
    ),
}
NEED_WORK = {"train", "select"}
NEED_MODEL = {"calibrate"}


@pytest.mark.parametrize("name", COMMANDS)
def test_a_full_disk_is_one_sentence_and_the_same_command_goes_on(name, disk, written, capsys):
    parts, pages_left = COMMANDS[name]
    command = [part.format(data=written, disk=disk) for part in parts]
    if name == "import-nnunet":
        trained_folder(written / "theirs")
    if name in NEED_WORK:
        shutil.copytree(written / "work", disk / "work")
        shutil.rmtree(disk / "work" / "selection")
        (disk / "work" / "selection.json").unlink()
    if name in NEED_MODEL:
        shutil.copytree(written / "work" / "runs", disk / "model" / "runs")
        shutil.copy(written / "work" / "plan.json", disk / "model")
    if name == "check --fix":
        put_nan(written / "raw")
    before = {path for path in disk.rglob("*") if path.is_file()}
    fill(disk, pages_left)
    code = main(command)
    shown = capsys.readouterr()
    assert code in (1, 2), shown
    sentences = [line for line in (shown.err + shown.out).splitlines() if re.search(FULL, line)]
    assert sentences, shown
    assert str(disk) in sentences[0]
    assert re.search("; (free some space|make room) ", sentences[0])
    assert "Traceback" not in shown.err
    left = {path.name for path in disk.rglob("*") if path not in before}
    assert not [each for each in left if "partial" in each], left
    if name.startswith(("check --fix", "export", "import-nnunet")):
        assert left == {FILLER}
    assert "scores.json" not in left  # which is written last
    (disk / FILLER).unlink()
    if "last.safetensors" in left:  # a training that had begun
        command.append("--resume")
    assert main(command) == 0, capsys.readouterr()
