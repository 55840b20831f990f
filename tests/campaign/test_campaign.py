"""A little of the campaign, always of the same places: kills, two at once, a full disk, and claims.

`make campaign` tries all of it. In processes of their own: one that has used threads cannot be forked safely.
"""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

import pytest

from campaign.lies import LIES

ROOT = Path(__file__).resolve().parents[2]
pytestmark = pytest.mark.skipif(not sys.platform.startswith("linux"), reason="processes are forked as on Linux")
VERBS = ("check --fix", "export --nnunet")
LONG_TO_MAKE = ("unpack", "million", "100 MB", "90 MB", "100 000", "300 000", "gzip", "nnU-Net")


def tried(*arguments: str) -> list[str]:
    """What the campaign prints, a line each; there must be no fault."""
    paths = os.pathsep.join((str(ROOT), str(ROOT / "tests")))
    environment = os.environ | {"PYTHONPATH": paths, "OMP_NUM_THREADS": "1"}
    command = [sys.executable, "-m", "campaign", *arguments]
    done = subprocess.run(command, env=environment, capture_output=True, text=True, timeout=900)
    assert done.returncode == 0, done.stdout + done.stderr
    lines = done.stdout.splitlines()
    assert lines[-1].endswith(" tried, 0 faults")
    return [line for line in lines if line.split(":")[0] in ("kills", "twice", "disks", "bits", "claims")]


def test_verbs_are_struck_started_twice_and_run_out_of_room():
    parts = ["kills", "twice"] if os.geteuid() else ["kills", "twice", "disks"]  # only root may mount a small disk
    lines = tried(*parts, "--count", "1", "--verbs", *VERBS)
    assert len(lines) == len(parts) * len(VERBS)
    assert sum("killed" in line for line in lines) == len(VERBS)


def test_claims_are_refused_with_little_memory():
    names = [name for name in LIES if not any(word in name for word in LONG_TO_MAKE)][::3]
    # Seconds belong to `make campaign`: here only what never ends is a fault.
    lines = tried("claims", "--most-cpu-s", "inf", "--lies", *names)
    assert len(lines) == len(names)
    assert sum(": refused" in line for line in lines) > 0.8 * len(lines)  # others are read within little memory
