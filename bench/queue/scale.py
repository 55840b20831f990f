"""Seconds and memory of ``segfw queue`` on a made-up folder, in a process of its own."""

from __future__ import annotations

import os
import shutil
from pathlib import Path

from bench.measure import measure
from bench.measuring import require_new
from bench.queue.made_up_folder import write_folder
from bench.runs import SEGFW, processor_name
from segfw.base.own_version import own_version
from segfw.base.records import Record
from segfw.worklist.queue_file import read_queue


class ScaleResult(Record):
    """What one call took, and how much it wrote."""

    segfw: str
    processor: str
    cases: int
    structures: int
    items: int
    quality_mb: float
    queue_mb: float
    wall_s: float
    processor_s: float
    peak_gb: float

    @property
    def text(self) -> str:
        """In a sentence."""
        return (
            f"{self.cases} cases x {self.structures} structures, {self.items} items, {self.quality_mb:.0f} MB of "
            f"quality: {self.wall_s:.1f} s, of which {self.processor_s:.1f} s of the processor, {self.peak_gb:.2f} GB, "
            f"queue.json {self.queue_mb:.1f} MB"
        )


def measured(work: Path, cases: int, structures: int, *, regions: int, runs: int) -> ScaleResult:
    """Makes the folder, calls the verb, and removes the folder."""
    require_new(work)
    folder = work / "masks"
    write_folder(folder, cases, structures, regions=regions, runs=runs)
    quality = sum(path.stat().st_size for path in (folder / "quality").iterdir())
    before = os.times()
    taken = measure([str(SEGFW), "queue", str(folder), "--regions", "on"], env=os.environ, log=work / "log")
    after = os.times()
    queue = read_queue(folder)
    assert queue is not None
    result = ScaleResult(
        segfw=own_version(),
        processor=processor_name(),
        cases=cases,
        structures=structures,
        items=len(queue),
        quality_mb=quality / 1e6,
        queue_mb=(folder / "review" / "queue.json").stat().st_size / 1e6,
        wall_s=taken.wall_s,
        processor_s=after.children_user + after.children_system - before.children_user - before.children_system,
        peak_gb=taken.peak_pss_gb,
    )
    shutil.rmtree(work)
    return result
