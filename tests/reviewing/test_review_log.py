"""A log that shows every change, takes events of several processes, and goes on after one of them was killed."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest

from builders.review import Clock
from segfw.base.errors import UserError
from segfw.reviewing.review_log import Entry, LogDamaged, LogReader, ReviewLog, read_anchors

TESTS = Path(__file__).parents[1]


def log_of(folder: Path, events: int = 12, clock: Clock | None = None) -> ReviewLog:
    log = ReviewLog.open(folder, clock or Clock())
    log.append_all([Entry(event="test", case=f"case_{n}", user="Ännä", reason=f'text "{n}"') for n in range(events)])
    return log


def appending(folder: Path, name: str, number: str, *options: str) -> subprocess.Popen:
    command = [sys.executable, "-m", "builders.append_events", str(folder), name, number, *options]
    environment = {**os.environ, "PYTHONPATH": os.pathsep.join([str(TESTS.parent), str(TESTS)])}
    return subprocess.Popen(command, cwd=TESTS, env=environment, stdout=subprocess.PIPE, text=True)


def test_lines_are_chained_from_the_first_on(tmp_path):
    log = log_of(tmp_path, 3)
    lines = [json.loads(line) for line in log.path.read_text(encoding="utf-8").splitlines()]
    assert [line["n"] for line in lines] == [1, 2, 3]
    assert lines[0]["prev"] == "0" * 64
    assert [line["prev"] for line in lines[1:]] == [line["sha256"] for line in lines[:-1]]
    assert {"from", "to", "utc", "planted", "meaning"} <= lines[0].keys()
    check = log.verify()
    assert (check.ok, check.head_n, check.head_sha256) == (True, 3, lines[-1]["sha256"])
    assert [event.case for event in log.events()] == ["case_0", "case_1", "case_2"]


def test_any_byte_that_is_changed_is_found_and_its_line_named(tmp_path):
    log = log_of(tmp_path, 3)
    content = log.path.read_bytes()
    drawn = np.random.default_rng(0)
    for place in range(len(content)):
        changed = bytearray(content)
        changed[place] ^= int(drawn.integers(1, 256))
        log.path.write_bytes(changed)
        check = log.verify()
        assert not check.ok, place
        assert check.line == content[:place].count(b"\n") + 1, place


@pytest.mark.parametrize("damage", ["drop", "swap", "double"])
def test_a_line_that_is_dropped_moved_or_doubled_is_named(tmp_path, damage):
    log = log_of(tmp_path, 8)
    lines = log.path.read_bytes().splitlines(keepends=True)
    for place in range(7):  # all but the last one
        changed = list(lines)
        if damage == "drop":
            del changed[place]
        elif damage == "swap":
            changed[place : place + 2] = changed[place : place + 2][::-1]
        else:
            changed.insert(place, lines[place])
        log.path.write_bytes(b"".join(changed))
        check = log.verify()
        assert (check.ok, check.line) == (False, place + 1 + (damage == "double"))
        with pytest.raises(LogDamaged, match=f"line {check.line} "):
            log.events()


def test_a_tail_that_was_cut_and_a_log_that_was_written_anew_show_against_an_anchor(tmp_path):
    log = log_of(tmp_path / "one", 8)
    anchor = tmp_path / "anchor.json"
    log.write_anchor(anchor)
    lines = log.path.read_bytes().splitlines(keepends=True)
    log.path.write_bytes(b"".join(lines[:5]))
    assert log.verify().ok  # which nothing in it tells
    check = log.verify(anchor)
    assert (check.ok, check.line) == (False, 6)
    assert "the end was cut off" in check.what
    with pytest.raises(LogDamaged):
        log.write_anchor(anchor)

    clock = Clock()
    clock.forward(hours=1)
    other = log_of(tmp_path / "other", 8, clock)
    assert other.verify().ok
    assert other.verify(anchor).line == 8
    # A log that went on agrees with all its anchors
    log.path.write_bytes(b"".join(lines))
    log.append(Entry(event="test"))
    log.write_anchor(anchor)
    assert [each.n for each in read_anchors(anchor)] == [8, 9]
    assert log.verify(anchor).ok


def test_what_is_no_anchor_is_refused(tmp_path):
    log = log_of(tmp_path, 1)
    other = tmp_path / "notes.txt"
    other.write_text("mine\n")
    with pytest.raises(UserError, match="notes.txt"):
        log.write_anchor(other)
    assert other.read_text() == "mine\n"


def test_two_processes_that_append_leave_a_whole_chain(tmp_path):
    processes = [appending(tmp_path, name, "500") for name in ("one", "two")]
    for process in processes:
        process.communicate(timeout=600)
        assert process.returncode == 0
    log = ReviewLog.open(tmp_path)
    assert log.verify().ok
    events = log.events()
    assert len(events) == 1000
    for name in ("one", "two"):
        assert [event.reason for event in events if event.case == name] == [f"{name} {n}" for n in range(500)]


def test_a_process_that_is_killed_leaves_a_log_that_goes_on(tmp_path):
    said: dict[str, int] = {}
    for turn in range(3):
        process = appending(tmp_path, f"turn_{turn}", "endless")
        assert process.stdout is not None
        for _ in range(20):
            said[f"turn_{turn}"] = int(process.stdout.readline())
        process.kill()
        process.communicate(timeout=60)
    log = ReviewLog.open(tmp_path)
    log.append(Entry(event="test", case="last"))
    assert log.verify().ok
    cases = [event.case for event in log.events()]
    assert cases[-1] == "last"
    for name, last in said.items():  # all that was said to be done is there
        assert cases.count(name) > last


@pytest.mark.parametrize("bytes_left", [1, 100, -1])
def test_a_torn_last_line_is_told_and_mended_without_losing_whole_events(tmp_path, bytes_left):
    log = log_of(tmp_path, 3)
    whole = log.path.read_bytes()
    line = whole.splitlines(keepends=True)[-1]
    log.path.write_bytes(whole + line[:bytes_left])
    check = log.verify()
    assert (check.ok, check.line, check.head_n) == (False, 4, 3)
    assert "torn" in check.what
    assert len(list(LogReader(log.path).more())) == 3  # what is whole can be read
    log.append(Entry(event="test", case="next"))
    assert log.verify().ok
    assert [event.event for event in log.events()] == ["test", "test", "test", "mended", "test"]
    assert str(len(line[:bytes_left])) in log.events()[3].reason


def test_a_whole_event_without_its_end_is_kept(tmp_path):
    log = log_of(tmp_path, 3)
    log.path.write_bytes(log.path.read_bytes()[:-1])
    assert not log.verify().ok
    log.append(Entry(event="test", case="next"))
    assert log.verify().ok
    assert [event.case for event in log.events()] == ["case_0", "case_1", "case_2", None, "next"]


def test_a_full_disk_leaves_the_log_as_it_was(tmp_path):
    pytest.importorskip("resource")
    log = log_of(tmp_path, 3)
    size = log.path.stat().st_size
    process = appending(tmp_path, "one", "1000", f"file_limit={size + 5000}")
    said, _ = process.communicate(timeout=600)
    assert process.returncode == 3
    assert "the disk is full" in said
    done = len(said.splitlines()) - 1
    assert done > 3  # else this proves nothing
    assert log.path.read_bytes().endswith(b"\n")
    assert log.verify().ok
    assert len(log.events()) == 3 + done


def test_a_clock_that_goes_back_is_noted_and_changes_no_order(tmp_path):
    clock = Clock()
    log = log_of(tmp_path, 2, clock)
    clock.forward(hours=-5)
    log.append(Entry(event="test", case="later"))
    clock.forward(minutes=1)
    log.append(Entry(event="test", case="latest"))
    events = log.events()
    assert [event.n for event in events] == [1, 2, 3, 4, 5]
    assert [event.event for event in events] == ["test", "test", "clock-back", "test", "test"]
    assert "2026-03-01T08:00" in events[2].reason
    assert "2026-03-01T03:00" in events[2].reason
    assert log.verify().ok


def test_nothing_is_added_to_a_log_that_was_changed(tmp_path):
    log = log_of(tmp_path, 3)
    content = log.path.read_bytes()
    log.path.write_bytes(content.replace(b"case_2", b"case_9"))
    with pytest.raises(LogDamaged, match="line 3 was changed"):
        log.append(Entry(event="test"))


def test_texts_of_any_kind_stay_within_their_line(tmp_path):
    log = ReviewLog.open(tmp_path, Clock())
    texts = ["a\nb\r\nc", '"sha256":"' + "0" * 64 + '",', "\udc80", "\u2028\u202e", "医生", "{}[]\\"]
    log.append_all([Entry(event="test", reason=text) for text in texts])
    assert log.verify().ok
    assert [event.reason for event in log.events()] == texts


def test_a_reader_that_is_kept_reads_what_was_added_alone(tmp_path):
    log = log_of(tmp_path, 3)
    reader = LogReader(log.path)
    assert [line["n"] for line in reader.more()] == [1, 2, 3]
    assert list(reader.more()) == []
    log.append(Entry(event="test"))
    assert [line["n"] for line in reader.more()] == [4]
    log.path.write_bytes(b"".join(log.path.read_bytes().splitlines(keepends=True)[:2]))
    with pytest.raises(LogDamaged, match="shorter"):
        list(reader.more())
