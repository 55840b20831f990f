"""Section ``tests``: the tests of the suite that run on a CUDA device where there is one, in a process of their own."""

from __future__ import annotations

import os
import subprocess
import sys
from importlib.util import find_spec
from pathlib import Path
from xml.etree import ElementTree

from bench import CLONE
from bench.gpu.visit import Visit

CUDA_TESTS = (
    "tests/training/test_steps_on_a_card.py",
    "tests/kernels",
    "tests/networks/test_norm.py",
    "tests/networks/test_fused_layers.py",
    "tests/training/test_batches_cuda.py",
    "tests/training/test_training_kernels.py",
)
IN_MINIATURE = ("tests/kernels/test_trial.py",)
# Those compile for other cards on a processor, which the visit need not do.
LEFT_OUT = "tests/kernels/test_compiled_for_cards.py"
LONGEST_S = 90.0
COUNTS = ("tests", "failures", "errors", "skipped")


def suite(visit: Visit, found: dict, until_left_s: float) -> None:
    """How many tests ran, failed and were skipped, and the first line of what each failure says."""
    if find_spec("pytest") is None:
        found["skipped"] = "pytest is not installed"
        return
    chosen = visit.pick(CUDA_TESTS, IN_MINIATURE)
    report = visit.folder / "tests.xml"
    report.unlink(missing_ok=True)
    command = [sys.executable, "-m", "pytest", "-v", "-p", "no:cacheprovider", f"--ignore={LEFT_OUT}"]
    command += [f"--junitxml={report}", *chosen]
    environment = os.environ | {"PYTHONPATH": os.pathsep.join([str(CLONE), os.environ.get("PYTHONPATH", "")])}
    patience_s = max(10.0, min(LONGEST_S, visit.seconds_left() - until_left_s))
    with (visit.folder / "tests.log").open("w", encoding="utf-8") as log:
        try:
            done = subprocess.run(
                command, cwd=CLONE, env=environment, stdout=log, stderr=subprocess.STDOUT, timeout=patience_s
            )
            found["exit_status"] = done.returncode
        except subprocess.TimeoutExpired:
            found["ended_after_s"] = round(patience_s, 1)
            found |= told_so_far((visit.folder / "tests.log").read_text(encoding="utf-8", errors="replace"))
    if report.is_file():
        found |= outcome(report)


def outcome(report: Path) -> dict[str, object]:
    """Counts, and of each failure the test's name with what it says, from pytest's JUnit file."""
    # Written by pytest a moment ago, from our own tests.
    tree = ElementTree.parse(report)
    counts = dict.fromkeys(COUNTS, 0)
    failed = {}
    for each in tree.iter("testsuite"):
        for name in COUNTS:
            counts[name] += int(each.get(name, 0))
    for case in tree.iter("testcase"):
        for problem in [*case.findall("failure"), *case.findall("error")]:
            failed[f"{case.get('classname')}::{case.get('name')}"] = str(problem.get("message"))[:200]
    return counts | {"failed": failed} if failed else dict(counts)


def told_so_far(log: str) -> dict[str, int]:
    """Tests by their outcome, as far as the log of a run that was ended tells them a line each."""
    outcomes = [words[1] for words in map(str.split, log.splitlines()) if len(words) > 1 and "::" in words[0]]
    return {word.lower(): outcomes.count(word) for word in ("PASSED", "FAILED", "ERROR", "SKIPPED")}
