"""What is found of a fold's run that was begun before."""

from __future__ import annotations

import subprocess
import sys

from segfw.base.files import partial_path
from segfw.base.ranks import ALONE
from segfw.model.source import WEIGHTS_FILE
from segfw.training.begun_run import find_begun_run
from segfw.training.settings import TrainOptions


def test_what_a_killed_process_left_beside_finished_weights_is_removed(tmp_path):
    (tmp_path / WEIGHTS_FILE).write_bytes(b"weights")
    written = "import sys; from pathlib import Path; from segfw.base.files import partial_path; "
    written += "print(partial_path(Path(sys.argv[1])))"
    command = [sys.executable, "-c", written, str(tmp_path / "run.json")]
    printed = subprocess.run(command, capture_output=True, text=True, check=True, timeout=300).stdout.strip()
    for left in (printed, ours := partial_path(tmp_path / "run.json")):
        with open(left, "w", encoding="utf-8") as file:
            file.write("{")
    found = find_begun_run(tmp_path, TrainOptions(), ALONE, results=())
    assert found.is_trained
    assert {path.name for path in tmp_path.iterdir()} == {WEIGHTS_FILE, ours.name}  # ours may still be written
