"""Work over cases: everything is done once, within the limits, and one failure harms nobody else."""

import gc
import threading
import time
import weakref

import numpy as np
import pytest

from segfw.base.parallel import CasesFailed, OutOfMemory, map_bounded


class Watch:
    """Counts how many items, and how many bytes of them, are under way at once."""

    def __init__(self, meet: int = 1) -> None:
        self.lock = threading.Lock()
        self.barrier = threading.Barrier(meet)
        self.running: list[int] = []
        self.most_items = self.most_bytes = 0

    def __call__(self, item: int) -> int:
        with self.lock:
            self.running.append(item)
            self.most_items = max(self.most_items, len(self.running))
            self.most_bytes = max(self.most_bytes, sum(self.running))
        self.barrier.wait(timeout=120)  # proves that as many run at once, and breaks if they do not
        time.sleep(0.02)  # so that any others that may run do so now
        with self.lock:
            self.running.remove(item)
        return -item


def run(function, items, **limits) -> list:
    return list(map_bounded(function, items, cost_bytes=lambda item: item, **limits))


def test_every_item_is_done_once_and_keeps_its_result():
    outcomes = run(lambda item: item * item, range(20), workers=3)
    assert {outcome.item: outcome.result for outcome in outcomes} == {item: item**2 for item in range(20)}
    assert len(outcomes) == 20
    assert run(lambda item: item, []) == []


def test_as_many_run_at_once_as_there_are_workers():
    watch = Watch(meet=3)
    run(watch, [1] * 6, workers=3, budget_bytes=100)
    assert watch.most_items == 3


def test_no_more_run_at_once_than_memory_allows():
    watch = Watch()
    run(watch, [4, 4, 4, 4], workers=4, budget_bytes=11)
    assert watch.most_bytes <= 8
    watch = Watch(meet=2)
    run(watch, [4, 4, 4, 4], workers=4, budget_bytes=8)
    assert watch.most_bytes == 8


def test_an_item_beyond_the_memory_runs_alone():
    watch = Watch()
    outcomes = run(watch, [1, 50, 1], workers=3, budget_bytes=10)
    assert len(outcomes) == 3
    assert watch.most_bytes == 50


def test_a_failure_is_an_outcome_and_the_others_go_on():
    def fail_on_three(item: int) -> int:
        if item == 3:
            raise ValueError("three")
        return item

    outcomes = run(fail_on_three, range(6), workers=2)
    assert [str(outcome.error) for outcome in outcomes if outcome.error] == ["three"]
    assert sorted(outcome.result for outcome in outcomes if outcome.error is None) == [0, 1, 2, 4, 5]


def test_after_an_interruption_no_further_item_is_begun():
    begun = []

    def interrupt(item: int) -> None:
        begun.append(item)
        raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        run(interrupt, range(10), workers=1)
    assert begun == [0]


def test_leaving_early_ends_the_work():
    begun = []
    for outcome in map_bounded(begun.append, range(100), cost_bytes=lambda item: 0, workers=1):
        if outcome.item == 2:
            break
    assert begun[:3] == [0, 1, 2]
    assert len(begun) < 10


class Hungry:
    """Fails for want of memory whenever a hungry item is done beside others, or at all if ``always``."""

    def __init__(self, hungry: set[str], always: bool = False) -> None:
        self.hungry = hungry
        self.always = always
        self.lock = threading.Lock()
        self.under_way: set[str] = set()
        self.attempts: list[tuple[str, int]] = []  # item, others under way when it began
        self.both = threading.Barrier(2)

    def __call__(self, item: str) -> str:
        with self.lock:
            first_time = item not in {name for name, _ in self.attempts}
            self.attempts.append((item, len(self.under_way)))
            self.under_way.add(item)
        try:
            if item in "ab" and first_time:
                self.both.wait(timeout=120)  # the first two items begin together
            if item == "a":
                time.sleep(0.1)  # and the second fails first
            if item in self.hungry and (first_time or self.always):
                raise MemoryError
            return item.upper()
        finally:
            with self.lock:
                self.under_way.remove(item)


def test_what_ran_out_of_memory_beside_others_is_done_again_alone(capsys):
    work = Hungry({"b"})
    outcomes = run_named(work, "abcde")
    assert sorted(outcome.result for outcome in outcomes) == list("ABCDE")
    assert work.attempts[-1] == ("b", 0)
    assert [name for name, _ in work.attempts[:-1]] == list("abcde")
    assert all(others == 0 for name, others in work.attempts if name in "cde")  # one thread fewer from then on
    told = capsys.readouterr().err
    assert told.startswith("b: ran out of memory; it was expected to need 3.0 GB, and ")
    assert "GB are free; it is done again, alone, when the others are done" in told


def run_named(work: Hungry, names: str) -> list:
    return list(map_bounded(work, list(names), cost_bytes=lambda item: 3 * 2**30, budget_bytes=2**40, workers=2))


def test_what_runs_out_of_memory_alone_fails_with_what_it_needed_and_the_others_are_done():
    work = Hungry({"b"}, always=True)
    outcomes = run_named(work, "abc")
    assert [name for name, _ in work.attempts] == list("abcb")
    assert sorted(outcome.result for outcome in outcomes if not outcome.error) == ["A", "C"]
    error = outcomes[-1].error
    assert isinstance(error, OutOfMemory)
    assert str(error).startswith("b: ran out of memory; it was expected to need 3.0 GB, and ")
    assert str(error).endswith(
        "though nothing else was under way; close other programs, or use a machine with more memory"
    )
    message = str(CasesFailed("in preprocessing", outcomes[-1:], None))
    assert "\n  b: ran out of memory" in message


def test_what_was_alone_is_not_tried_again():
    work = Hungry({"c", "d"}, always=True)
    outcomes = list(map_bounded(work, ["c", "d"], cost_bytes=lambda item: 1, workers=1))
    assert [name for name, _ in work.attempts] == ["c", "d"]
    assert all(isinstance(outcome.error, OutOfMemory) for outcome in outcomes)


def test_a_failed_case_lets_go_of_its_arrays():
    kept = []

    def fail(item: int) -> None:
        array = np.zeros(1000)
        kept.append(weakref.ref(array))
        raise (MemoryError, ValueError)[item]

    outcomes = list(map_bounded(fail, [0, 1], cost_bytes=lambda item: 1, workers=1))
    gc.collect()
    assert [reference() for reference in kept] == [None, None]
    assert outcomes[1].error.__traceback__ is not None  # still there for --debug
