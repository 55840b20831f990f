"""Work over many cases in threads: bounded workers, bounded bytes in flight, one failure does not stop the rest.

Threads and not processes: decoding, NumPy and torch release the interpreter's lock, nothing is copied between
workers, and there is no worker that could die alone (as the kernel's out-of-memory killer does to one of a pool).
"""

from __future__ import annotations

import contextlib
import errno
import os
import re
import sys
import threading
import traceback
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import FIRST_COMPLETED, CancelledError, Executor, Future, ThreadPoolExecutor, wait
from dataclasses import dataclass
from pathlib import Path, PurePosixPath
from typing import TypeVar

import psutil
from tqdm import tqdm

from segfw.base.progress import progress
from segfw.base.records import GIGABYTE, Record, UserError, count

CGROUPS = Path("/sys/fs/cgroup")
FAILURES_FILE = "failures.json"
# Per version of control groups: limit, use, and the entries of memory.stat that count files read.
GROUP_FILES = (
    ("memory.max", "memory.current", ("inactive_file", "active_file")),
    ("memory.limit_in_bytes", "memory.usage_in_bytes", ("total_inactive_file", "total_active_file")),
)
# How torch, SimpleITK and C++ libraries say it; NumPy raises MemoryError.
MEMORY_WORDS = re.compile(
    r"(can't|cannot|failed to|could not|unable to) allocate|(out of|not enough|insufficient) memory|bad_alloc"
    r"|MemoryAllocationError|ENOMEM",
    re.IGNORECASE,
)
Item = TypeVar("Item")
Result = TypeVar("Result")


@dataclass(frozen=True, kw_only=True)
class Outcome:
    """What became of one item: its result, or the error that ended it."""

    item: object
    result: object = None
    error: Exception | None = None


class OutOfMemory(UserError):
    """A case needs more memory than there is, even alone."""


class Failures(Record):
    """Why cases failed, by id."""

    failed: dict[str, str]


class CasesFailed(Exception):
    """Some cases failed; the others are finished and kept, but for ``not_begun``.

    ``folder`` gets a file with the reasons, if given.
    """

    def __init__(
        self,
        what: str,
        failures: Sequence[Outcome],
        folder: Path | None,
        *,
        file_name: str = FAILURES_FILE,
        not_begun: int = 0,
    ) -> None:
        reasons = {_name(outcome.item): str(outcome.error) for outcome in failures}
        listed = ""
        if folder is not None:
            with contextlib.suppress(OSError):  # a full disk may be what they failed of
                Failures(failed=reasons).save(folder / file_name)
                listed = f" (listed in {folder / file_name})"
        lines = "\n".join(f"  {case}: {reason.removeprefix(f'{case}: ')}" for case, reason in reasons.items())
        others = "all others are done"
        if not_begun:
            others = f"{count(not_begun, 'case')} {'was' if not_begun == 1 else 'were'} not begun, the rest are done"
        super().__init__(f"{count(len(failures), 'case')} failed {what}, {others}{listed}\n{lines}")


def cpu_count() -> int:
    """Processors this process may use, which under a job scheduler are fewer than the machine has."""
    return len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1


def free_memory_bytes() -> int:
    """Memory this process may still take: the machine's free memory or what its cgroups leave, whichever is less."""
    free = [psutil.virtual_memory().available]
    try:
        listed = Path("/proc/self/cgroup").read_text()
    except OSError:  # not Linux
        return free[0]
    free += [cgroup_free_bytes(group) for group in control_groups(listed, CGROUPS)]
    return int(max(min(free), 0))


def control_groups(listed: str, root: Path) -> list[Path]:
    """Folders of the control groups that bound a process's memory, from its /proc/self/cgroup.

    Version 2 lists one group as ``0::/path``; version 1 one for each resource, and has memory in a folder of its own.
    Every parent may have a limit as well. In a container the path may be the host's and lead nowhere, but its top
    is then the container's own group.
    """
    groups = []
    for controllers, path in re.findall(r"^\d+:([^:\n]*):(/.*)$", listed, re.MULTILINE):
        if controllers == "" or "memory" in controllers.split(","):
            own = PurePosixPath(path)
            top = root / "memory" if controllers else root
            groups += [top / group.relative_to("/") for group in (own, *own.parents)]
    return groups or [root]


def cgroup_free_bytes(group: Path) -> float:
    """What the limit of one control group, of version 1 or 2, leaves; infinite if it has none."""
    for limit_file, use_file, cache_names in GROUP_FILES:
        try:
            limit, used = (int((group / name).read_text()) for name in (limit_file, use_file))
            lines = (line.split() for line in (group / "memory.stat").read_text().splitlines())
            # Files that were read count as used until the space is needed, though nobody uses them.
            return limit - used + sum(int(size) for name, size in lines if name in cache_names)
        except (OSError, ValueError):  # no such group, or the limit is "max"
            continue
    return float("inf")


def ran_out_of_memory(error: BaseException | None) -> bool:
    """Whether an error, or one that led to it, says that memory could not be had."""
    seen = set()
    while error is not None and id(error) not in seen:
        seen.add(id(error))
        if isinstance(error, MemoryError) or getattr(error, "errno", None) == errno.ENOMEM:
            return True
        if isinstance(error, RuntimeError | OSError) and MEMORY_WORDS.search(str(error)):
            return True
        error = error.__cause__ or error.__context__
    return False


@dataclass(frozen=True, kw_only=True)
class Pool:
    """Where items are worked on: how many at once, and with how much memory in all."""

    executor: Executor
    workers: int
    budget_bytes: float


@contextlib.contextmanager
def thread_pool(workers: int | None = None, budget_bytes: float | None = None) -> Iterator[Pool]:
    """Threads of this process, by default one per processor and with half of the free memory."""
    workers = cpu_count() if workers is None else workers
    if workers < 1:
        raise UserError(f"--workers is {workers}; give 1 or more")
    with ThreadPoolExecutor(workers) as executor:
        budget_bytes = free_memory_bytes() // 2 if budget_bytes is None else budget_bytes
        yield Pool(executor=executor, workers=workers, budget_bytes=budget_bytes)


def map_bounded(
    function: Callable[[Item], Result],
    items: Sequence[Item],
    *,
    cost_bytes: Callable[[Item], int],
    budget_bytes: int | None = None,
    workers: int | None = None,
    what: str = "",
    pool: Pool | None = None,
    stop: threading.Event | None = None,
) -> Iterator[Outcome]:
    """Runs ``function`` over ``items`` in threads or in ``pool``; yields an Outcome each, in the order of completion.

    At most ``workers`` items and, beyond the first, at most ``budget_bytes`` (by default half the free memory) of
    ``cost_bytes`` are under way, so that large cases run one by one where memory is short. An item that ran out of
    memory beside others is done again, alone, when all others are done, and from then on one thread fewer is used; one
    that ran out of memory alone has failed, with an OutOfMemory that says what it would have needed. When ``stop`` is
    set, the caller stops asking, or after Ctrl-C, what is under way is ended and no other item is begun.
    """
    with contextlib.ExitStack() as stack:
        pool = pool or stack.enter_context(thread_pool(workers, budget_bytes))
        waiting = [_Task(item=item, cost_bytes=cost_bytes(item)) for item in items][::-1]
        again: list[_Task] = []
        running: dict[Future, _Task] = {}
        workers = pool.workers
        bar = stack.enter_context(progress(what, total=len(waiting)))
        try:
            while waiting or running or again:
                if stop is not None and stop.is_set():
                    waiting, again = [], []
                if not waiting and not running:
                    workers, waiting, again = 1, again, []
                while waiting and len(running) < workers:
                    in_flight = sum(task.cost_bytes for task in running.values())
                    if running and in_flight + waiting[-1].cost_bytes > pool.budget_bytes:
                        break
                    task = waiting.pop()
                    running[pool.executor.submit(function, task.item)] = task
                    if len(running) > 1:
                        for neighbour in running.values():
                            neighbour.had_company = True
                done, _ = wait(running, return_when=FIRST_COMPLETED)
                for future in done:
                    task = running.pop(future)
                    outcome = _outcome(task, future)
                    if outcome is None:
                        workers = max(1, workers - 1)
                        again.append(task)
                        continue
                    bar.update()
                    yield outcome
        finally:
            for future in running:
                future.cancel()  # what is under way ends its case


@dataclass
class _Task:
    """One item to be done; ``had_company`` if another was under way at any time while it was."""

    item: object
    cost_bytes: int
    had_company: bool = False


def _outcome(task: _Task, future: Future) -> Outcome | None:
    """What a finished item became; None if it is to be done again."""
    try:
        error = future.exception()
    except CancelledError:  # by the cluster, as it ended
        error = UserError("the cluster ended before this was done; call the same command again")
    if error is None:
        return Outcome(item=task.item, result=future.result())
    if not isinstance(error, Exception):
        raise error
    _release(error)
    if not ran_out_of_memory(error):
        return Outcome(item=task.item, error=error)
    if task.had_company:
        task.had_company = False
        tqdm.write(f"{_shortage(task)}; it is done again, alone, when the others are done", file=sys.stderr)
        return None
    remedy = "close other programs, or use a machine with more memory"
    told = OutOfMemory(f"{_shortage(task)}, though nothing else was under way; {remedy}")
    told.__cause__ = error
    return Outcome(item=task.item, error=told)


def _release(error: BaseException | None) -> None:
    """Lets go of the arrays that an error's traceback keeps in memory, which the next case needs."""
    seen = set()
    while error is not None and id(error) not in seen:
        seen.add(id(error))
        traceback.clear_frames(error.__traceback__)
        error = error.__cause__ or error.__context__


def _shortage(task: _Task) -> str:
    expected = f"it was expected to need {task.cost_bytes / GIGABYTE:.1f} GB, and " if task.cost_bytes else ""
    free = free_memory_bytes() / GIGABYTE
    return f"{_name(task.item)}: ran out of memory; {expected}{free:.1f} GB are free"


def _name(item: object) -> str:
    return str(getattr(item, "id", item))
