"""Cases that any number of processes, or the workers of a cluster, share out among themselves.

Who works on a case holds its lock, which the system frees when the process dies: cases that others are at are looked at
again in the end, and done if these have died meanwhile.
"""

from __future__ import annotations

import threading
import time
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass, field
from typing import Generic, Literal, Protocol, TypeVar

from segfw.base.errors import DiskFull
from segfw.base.parallel import Outcome, Pool, map_bounded
from segfw.base.words import count

POLL_S = 0.5
SHOWN = 5  # names of cases in a line
Note = tuple[str, str]  # 'warning' or 'note', and the sentence


class Named(Protocol):
    """What is worked on has a name."""

    @property
    def id(self) -> str:
        """By which it is told of."""
        ...


Item = TypeVar("Item", bound=Named)
ItemOf = TypeVar("ItemOf", bound=Named, contravariant=True)


class SharedFolder(Protocol[ItemOf]):
    """Where the results of the cases lie."""

    def is_done(self, case: ItemOf, /) -> bool:
        """Whether all that is asked for is there, of the files that are there now."""
        ...

    def is_outdated(self, case: ItemOf, /) -> bool:
        """Whether something is there, of other files than those that are there now."""
        ...

    def clean(self) -> None:
        """Removes what killed processes left half-written."""
        ...


@dataclass(frozen=True, kw_only=True)
class WorkWords:
    """What is done, in words: 'predicting', 'predicted', and what of: 'image'."""

    doing: str
    done: str
    of: str


@dataclass(frozen=True, kw_only=True)
class CaseResult:
    """What became of a case: done now, there already, or being done by another process; what is odd about its image."""

    state: Literal["done", "there", "elsewhere"]
    notes: tuple[Note, ...] = ()


@dataclass(kw_only=True)
class CohortResult(Generic[Item]):
    """What became of all cases."""

    done: int = 0
    kept: int = 0
    not_begun: int = 0
    failures: list[Outcome[Item, CaseResult]] = field(default_factory=list)


def share_out(
    work: Callable[[Item], CaseResult],
    cases: Sequence[Item],
    folder: SharedFolder[Item],
    pool: Pool,
    words: WorkWords,
    *,
    cost_bytes: Callable[[Item], int] = lambda _: 0,
) -> CohortResult[Item]:
    """Gives the cases to the pool's workers and says what became of them.

    A failing case does not stop the others, unless the disk is full. ``cost_bytes`` are what a case takes of memory.
    """
    cohort: CohortResult[Item] = CohortResult()
    printed: set[Note] = set()  # a doubt that many images share is printed once
    folder.clean()
    waiting = [case for case in cases if not folder.is_done(case)]
    cohort.kept = len(cases) - len(waiting)
    _tell_changed([case.id for case in waiting if folder.is_outdated(case)], words)
    is_first_round = True
    stop = threading.Event()
    while waiting and not stop.is_set():
        what = words.doing if is_first_round else "waiting for others"
        outcomes = map_bounded(work, waiting, cost_bytes=cost_bytes, what=what, pool=pool, stop=stop)
        elsewhere = _counted(outcomes, len(waiting), cohort, printed, stop)
        if elsewhere and not stop.is_set():
            if is_first_round:
                print(f"waiting for {count(len(elsewhere), 'case')} that other processes are at")
            is_first_round = False
            time.sleep(POLL_S)
            still = [case for case in elsewhere if not folder.is_done(case)]
            cohort.kept += len(elsewhere) - len(still)
            elsewhere = still
        waiting = elsewhere
    folder.clean()  # of processes that were killed meanwhile
    return cohort


def _tell_changed(case_ids: Sequence[str], words: WorkWords) -> None:
    if case_ids:
        names = ", ".join(case_ids[:SHOWN]) + (" ..." if len(case_ids) > SHOWN else "")
        changed = count(len(case_ids), words.of)
        print(f"{changed} changed since they were {words.done}, and are {words.done} again: {names}")


def _counted(
    outcomes: Iterable[Outcome[Item, CaseResult]],
    waiting: int,
    cohort: CohortResult[Item],
    printed: set[Note],
    stop: threading.Event,
) -> list[Item]:
    """Every waiting case once; counts what became of them and returns those that other processes are at."""
    elsewhere = []
    not_begun = waiting
    for outcome in outcomes:
        not_begun -= 1
        if outcome.result is None:
            cohort.failures.append(outcome)
            if isinstance(outcome.error, DiskFull):
                stop.set()
            continue
        for severity, note in outcome.result.notes:
            if (severity, note) not in printed:
                print(f"{severity}: {outcome.item.id}: {note}")
        printed.update(outcome.result.notes)
        if outcome.result.state == "elsewhere":
            elsewhere.append(outcome.item)
        cohort.done += outcome.result.state == "done"
        cohort.kept += outcome.result.state == "there"
    cohort.not_begun = not_begun
    return elsewhere
