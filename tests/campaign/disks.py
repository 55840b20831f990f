"""Every verb on a disk that gets full at drawn places: it says which disk and what to do, and goes on with room."""

from __future__ import annotations

import re
import shutil
import subprocess
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from random import Random

from campaign.kills import Outcome
from campaign.processes import run
from campaign.stage import ACTS, Stage

PAGE_BYTES = 4096
FILLER = "filler"
FULL = re.compile(r"the disk is full|0 GB are free(, too few for| and about .* needed)")
REMEDY = re.compile("; (free some space|make room) ")
PLANNED = dict.fromkeys(ACTS, 5)


@contextmanager
def small_disk(folder: Path, size_bytes: int) -> Iterator[None]:
    """Makes ``folder`` a disk of its own; raises OSError where that is not allowed."""
    folder.mkdir(exist_ok=True)
    command = ["mount", "-t", "tmpfs", "-o", f"size={size_bytes}", "tmpfs", str(folder)]
    mounted = subprocess.run(command, capture_output=True, text=True, timeout=300)
    if mounted.returncode:
        raise OSError(mounted.stderr.strip())
    try:
        yield
    finally:
        subprocess.run(["umount", "--lazy", folder], check=True, timeout=300)


def filled(stage: Stage, name: str, free_bytes: int) -> Outcome:
    """One trial with so much free space; ``out`` is a small disk."""
    stage.whole(name)
    stage.begin(name)
    before = stage.found()
    filler = stage.out / FILLER
    filler.write_bytes(bytes(max(0, shutil.disk_usage(stage.out).free - free_bytes)))
    first = run(stage.command(name), stage.said)
    sentences = [line for line in (first.errors + first.shown).splitlines() if FULL.search(line)]
    found = stage.found()
    filler.unlink()
    how = f"{free_bytes // 1024} kB free"
    fault = ""
    if first.code == 0:
        result = "there was room enough"
    else:
        result = f"said so, {first.code}"
        if first.code not in (1, 2) or "Traceback" in first.errors:
            fault = f"ends with {first.code}: {first.errors[-1500:]}"
        elif not sentences:
            fault = f"does not say that the disk is full: {first.errors[-1500:]}"
        elif not any(str(stage.out) in line and REMEDY.search(line) for line in sentences):
            fault = f"names no disk or no remedy: {sentences[0]}"
    changed = [path for path, digest in before.items() if found.get(path) != digest and _is_result(path)]
    if first.code == 0:
        changed = []
    left = [path for path in found if ".partial-" in path]
    fault = fault or "; ".join([*(f"{path} was changed" for path in changed), *(f"{path} is left" for path in left)])
    if first.code:
        again = run(stage.command(name, again=True), stage.said)
        if again.code:
            fault = fault or f"with room the same command ends with {again.code}: {again.errors[-1500:]}"
        result += "; with room the same command ends in order"
    return Outcome("disks", name, how, result, fault or "; ".join(stage.differences(name)))


def _is_result(path: str) -> bool:
    """Whether a file of before is one that a verb which failed may not have touched."""
    return not path.endswith((".lock", "run.json", "settings.json", "metrics.jsonl"))


def disks(stage: Stage, seed: int, planned: Mapping[str, int] = PLANNED) -> Iterator[Outcome]:
    """As many sizes of free space for each verb as planned, from a page to what it writes."""
    largest = max(stage.whole(name).size_bytes for name in planned)
    inputs = sum(path.stat().st_size for path in (stage.data / "work").rglob("*") if path.is_file())
    with small_disk(stage.out, 4 * (largest + inputs) + (8 << 20)):
        for name, count in planned.items():
            pages = max(2, stage.whole(name).size_bytes // PAGE_BYTES)
            for number in range(count):
                draw = Random(f"{seed} disks {name} {number}")
                yield filled(stage, name, PAGE_BYTES * draw.randint(1, pages))
