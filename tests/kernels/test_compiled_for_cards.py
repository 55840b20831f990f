"""Every kernel compiles for a card: what Triton's interpreter takes, its compiler may refuse. No card is needed."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from importlib.util import find_spec
from pathlib import Path

import pytest

CAPABILITY = "80"  # by hand: 75, 90 and 120 as well


def test_every_kernel_compiles_without_spilling(tmp_path):
    """A process that compiles all variants down to the card's own code; its script says which."""
    if find_spec("triton") is None:
        pytest.skip("Triton is not installed (pip install triton), so no kernel was compiled")
    script = Path(__file__).with_name("compile_for_cards.py")
    environment = os.environ | {"TRITON_INTERPRET": "0", "TRITON_CACHE_DIR": str(tmp_path)}
    command = [sys.executable, str(script), CAPABILITY]
    done = subprocess.run(command, env=environment, capture_output=True, text=True, timeout=900)
    assert done.returncode == 0, done.stderr[-2000:]
    rows = [json.loads(line) for line in done.stdout.splitlines()]
    kernels = ("_moments_of_slabs", "_joined_moments", "_normalise", "_gradient_sums_of_slabs", "_gradient_of_image")
    losses = ("_sums_of_slabs", "_gradient", "_region_sums_of_slabs", "_region_gradient")
    assert {row["kernel"] for row in rows} == {*kernels, *losses, "_warp"}
    assert [row for row in rows if "error" in row] == []
    assert all(row["bytes"] > 0 for row in rows)
    assert [row for row in rows if row["spilled_bytes"]] == []


def test_every_kernel_of_the_room_is_among_them():
    """Read from the source: what is decorated and launched, and not called by another kernel."""
    room = Path(__file__).resolve().parents[2] / "segfw" / "kernels"
    launched = set()
    for path in room.glob("*.py"):
        text = path.read_text(encoding="utf-8")
        names = [line.split("(")[0].removeprefix("def ") for line in text.splitlines() if line.startswith("def _")]
        launched |= {name for name in names if f"    {name}[" in text}
    script = Path(__file__).with_name("compile_for_cards.py").read_text(encoding="utf-8")
    assert len(launched) == 10
    assert {name for name in launched if f".{name}," not in script} == set()
