"""Verbs that make a whole folder, killed just before it gets its name: the same command makes it, nothing is left."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

import pytest

from builders.data import put_nan, write_raw
from builders.models import small_model
from builders.nnunet import trained_folder
from builders.waiting import kill
from segfw.cli import main

ROOT = Path(__file__).resolve().parents[2]
# Stops for good where the finished folder is about to get its name.
HANGS = """
import sys, time
from pathlib import Path
renamed = Path.rename
def rename(self, target):
    if self.is_dir():
        print("about to name", flush=True)
        time.sleep(600)
    return renamed(self, target)
Path.rename = rename
from segfw.cli import main
sys.exit(main(sys.argv[1:]))
"""
COMMANDS = {
    "check --fix": ("check", "raw", "--fix", "out"),
    "import-nnunet": ("import-nnunet", "theirs", "out"),
    "export --nnunet": ("export", "model", "out", "--nnunet"),
}


@pytest.mark.skipif(os.name != "posix", reason="kills as POSIX systems do")
@pytest.mark.parametrize("name", COMMANDS)
def test_what_a_killed_verb_left_is_removed_by_the_same_command(name, tmp_path, monkeypatch, capsys):
    monkeypatch.chdir(tmp_path)
    put_nan(write_raw(tmp_path / "raw", 3))
    small_model(tmp_path / "model")
    trained_folder(tmp_path / "theirs")
    before = {path.name for path in tmp_path.iterdir()}
    environment = os.environ | {"PYTHONPATH": str(ROOT), "OMP_NUM_THREADS": "1"}
    command = [sys.executable, "-c", HANGS, *COMMANDS[name]]
    process = subprocess.Popen(command, stdout=subprocess.PIPE, text=True, env=environment)
    try:
        assert any("about to name" in line for line in process.stdout), "it ended before it could be killed"
    finally:
        kill(process)
    assert "out" not in {path.name for path in tmp_path.iterdir()}
    assert {path.name for path in tmp_path.iterdir()} != before  # the folder without its name
    assert main([*COMMANDS[name]]) == 0, capsys.readouterr()
    assert {path.name for path in tmp_path.iterdir()} == before | {"out"}
