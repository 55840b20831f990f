"""Work over many cases in threads: bounded workers, bounded bytes in flight, one failure does not stop the rest."""

from __future__ import annotations

import os
import re
import sys
import threading
from collections.abc import Callable, Collection, Iterator, Sequence
from concurrent.futures import FIRST_COMPLETED, Future, ThreadPoolExecutor, wait
from dataclasses import dataclass
from pathlib import Path, PurePosixPath
from typing import TypeVar

import psutil
from tqdm import tqdm

from segfw.records import Record, UserError, count

CGROUPS = Path("/sys/fs/cgroup")
FAILURES_FILE = "failures.json"
Item = TypeVar("Item")
Result = TypeVar("Result")


@dataclass(frozen=True, kw_only=True)
class Outcome:
    """What became of one item: its result, or the error that ended it."""

    item: object
    result: object = None
    error: Exception | None = None


class Failures(Record):
    """Why cases failed, by id."""

    failed: dict[str, str]


class CasesFailed(Exception):
    """Some cases failed; the others are finished and kept. ``folder`` gets failures.json, if given."""

    def __init__(self, what: str, failures: Sequence[Outcome], folder: Path | None) -> None:
        reasons = {getattr(outcome.item, "id", outcome.item): str(outcome.error) for outcome in failures}
        listed = ""
        if folder is not None:
            Failures(failed=reasons).save(folder / FAILURES_FILE)
            listed = f" (listed in {folder / FAILURES_FILE})"
        lines = "\n".join(f"  {case}: {reason}" for case, reason in reasons.items())
        super().__init__(f"{count(len(failures), 'case')} failed {what}, all others are done{listed}\n{lines}")


def cpu_count() -> int:
    """Processors this process may use, which under a job scheduler are fewer than the machine has."""
    return len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1


def free_memory_bytes() -> int:
    """Memory this process may still take: the machine's free memory or what its cgroups leave, whichever is less."""
    free = [psutil.virtual_memory().available]
    try:
        found = re.search(r"^0::(/.*)$", Path("/proc/self/cgroup").read_text(), re.MULTILINE)
    except OSError:  # not Linux
        return free[0]
    own = PurePosixPath(found[1] if found else "/")
    free += [cgroup_free_bytes(CGROUPS / group.relative_to("/")) for group in (own, *own.parents)]
    return int(max(min(free), 0))


def cgroup_free_bytes(group: Path) -> float:
    """What the limit of one control group (version 2) leaves; infinite if it has none."""
    try:
        limit, used = (int((group / name).read_text()) for name in ("memory.max", "memory.current"))
        lines = (line.split() for line in (group / "memory.stat").read_text().splitlines())
        # Files that were read count as used until the space is needed, though nobody uses them.
        cached = sum(int(size) for name, size in lines if name in ("inactive_file", "active_file"))
    except (OSError, ValueError):  # no such group, or the limit is "max"
        return float("inf")
    return limit - used + cached


def progress(what: str, items: Collection[Item] | None = None, *, total: int | None = None, unit: str = "case") -> tqdm:
    """A progress bar with the time left, over ``items`` or updated by hand; silent when nobody watches a terminal."""
    return tqdm(items, total=total, desc=what, unit=unit, disable=not sys.stderr.isatty(), leave=False)


def map_bounded(
    function: Callable[[Item], Result],
    items: Sequence[Item],
    *,
    cost_bytes: Callable[[Item], int],
    budget_bytes: int | None = None,
    workers: int | None = None,
    what: str = "",
) -> Iterator[Outcome]:
    """Runs ``function`` over ``items`` in threads and yields an Outcome each, in the order of completion.

    At most ``workers`` items and, beyond the first, at most ``budget_bytes`` (by default half the free memory) of
    ``cost_bytes`` are under way, so that large cases run one by one where memory is short.
    """
    workers = cpu_count() if workers is None else workers
    if workers < 1:
        raise UserError(f"--workers is {workers}; give 1 or more")
    budget_bytes = free_memory_bytes() // 2 if budget_bytes is None else budget_bytes
    waiting = list(items)[::-1]
    running: dict[Future, Item] = {}
    stop = threading.Event()
    with ThreadPoolExecutor(workers) as pool, progress(what, total=len(waiting)) as bar:
        try:
            while waiting or running:
                while waiting and len(running) < workers:
                    in_flight = sum(cost_bytes(item) for item in running.values())
                    if running and in_flight + cost_bytes(waiting[-1]) > budget_bytes:
                        break
                    item = waiting.pop()
                    running[pool.submit(_unless, stop, function, item)] = item
                done, _ = wait(running, return_when=FIRST_COMPLETED)
                for future in done:
                    item, error = running.pop(future), future.exception()
                    if error is not None and not isinstance(error, Exception):
                        raise error
                    bar.update()
                    yield Outcome(item=item, error=error) if error else Outcome(item=item, result=future.result())
        finally:
            stop.set()  # after Ctrl-C the threads under way end their case, and no other is begun


def _unless(stop: threading.Event, function: Callable[[Item], Result], item: Item) -> Result | None:
    return None if stop.is_set() else function(item)
