"""Work over cases: everything is done once, within the limits, and one failure harms nobody else."""

import threading
import time
from pathlib import Path

import pytest

from segfw.data.parallel import cgroup_free_bytes, cpu_count, free_memory_bytes, map_bounded


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
        self.barrier.wait(timeout=20)  # proves that as many run at once, and breaks if they do not
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


def control_group(folder: Path, limit: str, current: int = 900, cache: int = 250) -> Path:
    (folder / "memory.max").write_text(f"{limit}\n")
    (folder / "memory.current").write_text(f"{current}\n")
    (folder / "memory.stat").write_text(f"anon 600\nfile 300\nactive_file {cache - 50}\ninactive_file 50\n")
    return folder


def test_memory_that_only_caches_files_counts_as_free(tmp_path):
    assert cgroup_free_bytes(control_group(tmp_path, "1000")) == 1000 - 900 + 250


def test_without_a_limit_or_a_control_group_memory_is_the_machines(tmp_path):
    assert cgroup_free_bytes(control_group(tmp_path, "max")) == float("inf")
    assert cgroup_free_bytes(tmp_path / "none") == float("inf")
    assert 0 < free_memory_bytes() < 2**50
    assert cpu_count() >= 1
