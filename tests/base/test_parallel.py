"""Work over cases: everything is done once, within the limits, and one failure harms nobody else."""

import errno
import gc
import threading
import time
import weakref
from pathlib import Path

import numpy as np
import pytest
import torch

from segfw.base.parallel import (
    CasesFailed,
    OutOfMemory,
    cgroup_free_bytes,
    control_groups,
    cpu_count,
    free_memory_bytes,
    map_bounded,
    ran_out_of_memory,
)


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


def test_version_1_control_groups_are_read(tmp_path):
    (tmp_path / "memory.limit_in_bytes").write_text("1000\n")
    (tmp_path / "memory.usage_in_bytes").write_text("900\n")
    (tmp_path / "memory.stat").write_text("cache 5\ninactive_file 7\ntotal_inactive_file 50\ntotal_active_file 200\n")
    assert cgroup_free_bytes(tmp_path) == 1000 - 900 + 250
    (tmp_path / "memory.limit_in_bytes").write_text("9223372036854771712\n")  # version 1's way to say unlimited
    assert cgroup_free_bytes(tmp_path) > 2**60


@pytest.mark.parametrize(
    "listed, folders",
    [
        ("0::/\n", ["."]),
        ("0::/user.slice/job_7\n", ["user.slice/job_7", "user.slice", "."]),
        ("12:cpu,cpuacct:/a\n5:memory:/docker/b\n1:name=systemd:/c\n", ["memory/docker/b", "memory/docker", "memory"]),
        ("5:cpu,memory:/b\n0::/d\n", ["memory/b", "memory", "d", "."]),
        ("", ["."]),
    ],
)
def test_all_control_groups_that_bound_the_memory_are_found(tmp_path, listed, folders):
    assert control_groups(listed, tmp_path) == [tmp_path / folder for folder in folders]


def chained(first: Exception, second: Exception) -> Exception:
    try:
        try:
            raise first
        except Exception:
            raise second from None
    except Exception as error:
        return error


@pytest.mark.parametrize(
    "error",
    [
        MemoryError(),
        np._core._exceptions._ArrayMemoryError((2, 3), np.dtype("float32")),
        RuntimeError("[enforce fail at alloc_cpu.cpp:121] . DefaultCPUAllocator: can't allocate memory: you tried to"),
        torch.OutOfMemoryError("CUDA out of memory. Tried to allocate 2.00 GiB"),
        RuntimeError("Failed to allocate memory for image."),
        OSError(errno.ENOMEM, "Cannot allocate memory"),
        chained(MemoryError(), ValueError("x.nii: cannot be read")),
    ],
)
def test_the_ways_to_run_out_of_memory_are_known(error):
    assert ran_out_of_memory(error)


@pytest.mark.parametrize(
    "error", [None, ValueError("out of memory"), RuntimeError("shapes differ"), OSError(28, "full")]
)
def test_other_errors_are_not_taken_for_a_lack_of_memory(error):
    assert not ran_out_of_memory(error)


class Hungry:
    """Fails for want of memory whenever a hungry item is done beside others, or at all if ``always``."""

    def __init__(self, hungry: set[str], always: bool = False) -> None:
        self.hungry, self.always, self.lock = hungry, always, threading.Lock()
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
                self.both.wait(timeout=20)  # the first two items begin together
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
