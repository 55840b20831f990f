"""Reviews whose process dies, whose disk is full, or that two people begin at once lose nothing that was saved."""

from __future__ import annotations

import os
import subprocess
import sys
import threading
from pathlib import Path

import pytest

from builders.review import ANNA, BEN, accepted, drawn, masks_folder
from builders.waiting import run_together
from segfw.reviewing.people import Person
from segfw.reviewing.refusals import Locked
from segfw.reviewing.review_check import check_review
from segfw.reviewing.review_store import ReviewStore

TESTS = Path(__file__).parents[1]


def run(store, case, step, *options):
    command = [sys.executable, "-m", "builders.review_steps", str(store.folder), case, "Anna", step, *options]
    environment = {**os.environ, "PYTHONPATH": os.pathsep.join([str(TESTS.parent), str(TESTS)])}
    return subprocess.Popen(command, cwd=TESTS, env=environment, stdout=subprocess.PIPE, text=True)


def test_a_process_that_is_killed_while_it_saves_loses_nothing_that_it_said_was_saved(tmp_path):
    store = ReviewStore.open(masks_folder(tmp_path))
    said = []
    for _ in range(3):
        process = run(store, "a", "save")
        for _ in range(5):
            said.append(process.stdout.readline().split())
        process.kill()
        process.communicate(timeout=60)
    store.open_case("a", ANNA)  # which is still hers
    values = drawn()
    values[0] = 2
    base = store.standing("a").version
    store.save("a", ANNA, values, base=base, origin="edited", tool="test")
    for number, sha256 in said:
        assert store.sha256("a", int(number)) == sha256
    check = check_review(store)
    assert check.ok, check
    assert len(store.versions("a")) > 15


@pytest.mark.parametrize(("room_bytes", "decided"), [(-5000, 0), (2500, 2)])
def test_a_full_disk_leaves_nothing_half_written_and_what_was_signed_as_it_is(tmp_path, room_bytes, decided):
    pytest.importorskip("resource")
    store = ReviewStore.open(masks_folder(tmp_path))
    made = accepted(store, "b")
    store.sign("b", BEN, name="B", meaning="review", version_sha256=made.sha256)
    before = {path: path.read_bytes() for path in (store.folder / "review").rglob("*") if path.is_file()}
    # Without any room, and with room for the decisions alone, but not for the line that ends the case
    process = run(store, "a", "accept", f"file_limit={max(100, store.log.path.stat().st_size + room_bytes)}")
    said, _ = process.communicate(timeout=600)
    assert process.returncode == 3
    assert "the disk is full" in said
    store = ReviewStore.open(store.folder)
    assert store.standing("b").state == "SIGNED"
    assert store.changed("b") == ()
    assert (store.standing("a").state, len(store.standing("a").decisions)) == ("IN_REVIEW", decided)
    assert check_review(store).ok
    for path, content in before.items():
        assert path.read_bytes()[: len(content)] == content  # the log alone has grown, when the case was opened
    left = {path.name for path in (store.folder / "review" / "labels").rglob("*") if path.is_file()}
    assert left == {"v0001.nii.gz", "v0001.json"}  # of case b
    # With room again the same work goes on
    accepted(store, "a")


def test_two_people_who_open_one_case_at_once_are_told_apart(tmp_path):
    store = ReviewStore.open(masks_folder(tmp_path))
    barrier = threading.Barrier(8)
    outcomes = []

    def work(number):
        mine = ReviewStore.open(store.folder)
        barrier.wait(60)
        try:
            mine.open_case("a", Person(user=f"user_{number}"))
            outcomes.append("open")
        except Locked:
            outcomes.append("locked")

    threads = [threading.Thread(target=work, args=(number,)) for number in range(8)]
    run_together(threads)
    assert sorted(outcomes) == ["locked"] * 7 + ["open"]
    assert store.log.verify().ok
