"""Work over many cases in threads: bounded workers, bounded bytes in flight, one failure does not stop the rest.

Threads and not processes: decoding, NumPy and torch release the interpreter's lock, nothing is copied between
workers, and there is no worker that could die alone (as the kernel's out-of-memory killer does to one of a pool).
"""

from __future__ import annotations

import contextlib
import sys
import threading
import traceback
from collections.abc import Callable, Collection, Iterator, Sequence
from concurrent.futures import FIRST_COMPLETED, CancelledError, Executor, Future, ThreadPoolExecutor, wait
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Generic, TypeVar

from tqdm import tqdm

from segfw.base.errors import reason_of
from segfw.base.progress import progress_bar
from segfw.base.records import GIGABYTE, Record, UserError
from segfw.base.resources import cpu_count, free_memory_bytes, ran_out_of_memory
from segfw.base.words import count

FAILURES_FILE = "failures.json"
Item = TypeVar("Item")
Result = TypeVar("Result")


@dataclass(frozen=True, kw_only=True)
class Outcome(Generic[Item, Result]):
    """What became of one item: its result, or the error that ended it."""

    item: Item
    result: Result | None = None
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
        failures: Sequence[Outcome[Any, Any]],
        folder: Path | None,
        *,
        file_name: str = FAILURES_FILE,
        not_begun: int = 0,
    ) -> None:
        reasons = {_name(outcome.item): _reason(outcome.error) for outcome in failures}
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
) -> Iterator[Outcome[Item, Result]]:
    """Runs ``function`` over ``items`` in threads or in ``pool``; yields an Outcome each, in the order of completion.

    At most ``workers`` items and, beyond the first, at most ``budget_bytes`` (by default half the free memory) of
    ``cost_bytes`` are under way, so that large cases run one by one where memory is short. An item that ran out of
    memory beside others is done again, alone, when all others are done, and from then on one thread fewer is used; one
    that ran out of memory alone has failed, with an OutOfMemory that says what it would have needed. When ``stop`` is
    set, the caller stops asking, or after Ctrl-C, what is under way is ended and no other item is begun.
    """
    with contextlib.ExitStack() as stack:
        pool = pool or stack.enter_context(thread_pool(workers, budget_bytes))
        waiting = [_Task(item=item, cost_bytes=cost_bytes(item)) for item in reversed(items)]
        again: list[_Task[Item]] = []
        running: dict[Future[Result], _Task[Item]] = {}
        workers = pool.workers
        bar = stack.enter_context(progress_bar(what, len(waiting)))
        try:
            while waiting or running or again:
                if stop is not None and stop.is_set():
                    waiting = []
                    again = []
                if not waiting and not running:  # what ran out of memory, one by one
                    workers = 1
                    waiting = again
                    again = []
                while waiting and len(running) < workers and _fits(waiting[-1], running.values(), pool.budget_bytes):
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
class _Task(Generic[Item]):
    """One item to be done; ``had_company`` if another was under way at any time while it was."""

    item: Item
    cost_bytes: int
    had_company: bool = False


def _fits(task: _Task[Item], running: Collection[_Task[Item]], budget_bytes: float) -> bool:
    """Whether a task may be begun beside others; alone it always may."""
    in_flight = sum(other.cost_bytes for other in running)
    return not running or in_flight + task.cost_bytes <= budget_bytes


def _outcome(task: _Task[Item], future: Future[Result]) -> Outcome[Item, Result] | None:
    """What a finished item became; None if it is to be done again."""
    error: BaseException | None
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
    out_of_memory = OutOfMemory(f"{_shortage(task)}, though nothing else was under way; {remedy}")
    out_of_memory.__cause__ = error
    return Outcome(item=task.item, error=out_of_memory)


def _release(error: BaseException | None) -> None:
    """Lets go of the arrays that an error's traceback keeps in memory, which the next case needs."""
    seen: set[int] = set()
    while error is not None and id(error) not in seen:
        seen.add(id(error))
        traceback.clear_frames(error.__traceback__)
        error = error.__cause__ or error.__context__


def _shortage(task: _Task[Item]) -> str:
    expected = f"it was expected to need {task.cost_bytes / GIGABYTE:.1f} GB, and " if task.cost_bytes else ""
    free = free_memory_bytes() / GIGABYTE
    return f"{_name(task.item)}: ran out of memory; {expected}{free:.1f} GB are free"


def _reason(error: Exception | None) -> str:
    return str(error) if error is None else reason_of(error) or str(error)


def _name(item: object) -> str:
    return str(getattr(item, "id", item))
