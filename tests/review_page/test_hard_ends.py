"""Killed servers, two browsers, a full disk and a clock that jumps: nothing signed is lost, nothing half-written.

Servers are real processes; a kill is SIGKILL, at another moment of a save each time.
"""

from __future__ import annotations

import threading
import time
from contextlib import suppress
from datetime import timedelta

import numpy as np
import pytest

from builders.drafts_folder import make_drafts
from builders.review import Clock
from builders.review_server import Reviewer, review_server
from builders.waiting import kill
from segfw.review_page.active_clock import ActiveClock
from segfw.review_page.review_desk import Bitmap, ReviewDesk, Seat
from segfw.reviewing.people import Person
from segfw.reviewing.review_ledger import read_ledger
from segfw.reviewing.review_store import ReviewStore

LARGE = (40, 128, 128)  # of which a save takes some tenths of a second
MOMENTS = (0.2, 0.5, 0.7, 0.85, 0.95, 1.05)  # after which a server is killed, as shares of what a save takes
STRUCTURES = ("liver", "tumour")


def noise(seed: int) -> np.ndarray:
    """A mask that cannot be compressed well."""
    return np.random.default_rng(seed).integers(0, 3, LARGE, np.uint8)


def sign(reviewer: Reviewer, case: str) -> None:
    assert reviewer.post("/api/open", {"case": case}).status == 200
    for name in STRUCTURES:
        decided = {"case": case, "structure": name, "decision": "accept", "asked_again": True}
        assert reviewer.post("/api/decide", decided).status == 200
    made = reviewer.post("/api/finish", {"case": case}).json
    signature = {"case": case, "name": "Dr Anna", "meaning": "review", "sha256": made["sha256"]}
    assert reviewer.post("/api/sign", signature).json["state"] == "SIGNED"


def require_whole(folder) -> ReviewStore:
    """The log is whole but for a torn last line, and every version that it knows is as it says."""
    store = ReviewStore.open(folder)
    check = store.log.verify()
    assert check.ok or "torn" in check.what, check.what
    for case in store.case_ids:
        for version in store.versions(case):
            assert store.sha256(case, version.number) == version.sha256
    assert store.standing("signed").state == "SIGNED"
    assert store.changed("signed") == ()
    return store


def test_a_server_that_is_killed_while_it_saves_leaves_whole_versions_or_none(tmp_path):
    folder = make_drafts(tmp_path, {"signed": noise(0), "edited": noise(1)}, has_quality=False)
    versions = []
    with review_server(folder) as anna:
        anna.enter()
        assert anna.post("/api/open", {"case": "signed"}).status == 200
        start_s = time.monotonic()
        assert anna.save("signed", noise(2), 0).status == 200
        save_s = time.monotonic() - start_s
        sign(anna, "signed")
    for seed, moment in enumerate(MOMENTS):
        with review_server(folder) as anna:
            anna.enter()
            assert anna.post("/api/open", {"case": "edited"}).status == 200
            base = anna.get("/api/case/edited").json["version"]
            drawn = noise(100 + seed)
            saving = threading.Thread(target=_save_or_break, args=(anna, drawn, base))
            saving.start()
            time.sleep(moment * save_s)
            kill(anna.process)
            saving.join(60)
        store = require_whole(folder)
        number = store.standing("edited").version
        if number != base:  # the save was finished: then all of it is there
            np.testing.assert_array_equal(store.read("edited", number).array[0], drawn[:, ::-1, ::-1])
        versions.append(number)
    # The next server goes on, whatever was left
    with review_server(folder) as anna:
        anna.enter()
        assert anna.post("/api/open", {"case": "edited"}).status == 200
        base = anna.get("/api/case/edited").json["version"]
        assert base == versions[-1]
        assert anna.save("edited", noise(99), base).status == 200
    store = require_whole(folder)
    assert store.log.verify().ok
    assert not list((folder / "review" / "labels").rglob(".partial-*"))


def _save_or_break(reviewer: Reviewer, drawn: np.ndarray, base: int) -> None:
    with suppress(OSError):  # the server is gone
        reviewer.save("edited", drawn, base)


def test_two_browsers_of_two_people(tmp_path):
    folder = make_drafts(tmp_path)
    with review_server(folder) as anna, review_server(folder, user="Ben") as ben:
        anna.enter()
        ben.enter()
        assert ben.ask("GET", "/api/session", headers={"Cookie": anna.cookie}).status == 403
        assert anna.post("/api/open", {"case": "case_1"}).status == 200
        answer = ben.post("/api/open", {"case": "case_1"})
        assert (answer.status, answer.json["holder"]) == (409, "Anna")
        drawn = anna.bitmap("case_1").copy()
        drawn[0, 0, 0] = 1
        assert ben.save("case_1", drawn, 0).status == 409
        assert anna.save("case_1", drawn, 0).json["version"] == 1
        # Ben looks on, and sees what she has made
        told = ben.get("/api/case/case_1").json
        assert (told["holder"], told["version"], told["state"]) == ("Anna", 1, "IN_REVIEW")
        np.testing.assert_array_equal(ben.bitmap("case_1", 1), drawn)


def test_two_browsers_of_one_person(tmp_path):
    """Both have the case, because it is one person's; the second to save is told of the first."""
    folder = make_drafts(tmp_path)
    with review_server(folder) as first, review_server(folder) as second:
        first.enter()
        second.enter()
        assert first.post("/api/open", {"case": "case_1"}).status == 200
        assert second.post("/api/open", {"case": "case_1"}).status == 200
        drawn = first.bitmap("case_1").copy()
        drawn[0, 0, 0] = 1
        assert first.save("case_1", drawn, 0).json["version"] == 1
        other = second.bitmap("case_1").copy()
        other[0, 0, 1] = 2
        answer = second.save("case_1", other, 0)
        assert (answer.status, answer.json["newest"], answer.json["author"]) == (409, 1, "Anna")
        assert "version 1 by Anna" in answer.json["error"]
        np.testing.assert_array_equal(second.bitmap("case_1", 1), drawn)
        assert second.save("case_1", other, 1).json["version"] == 2


def _no_large_files() -> None:
    import resource

    resource.setrlimit(resource.RLIMIT_FSIZE, (40_000, 40_000))


def test_a_disk_that_is_full_is_told_and_leaves_nothing_behind(tmp_path):
    """By a limit on the size of files, which the system refuses as it does where the disk is full."""
    pytest.importorskip("resource", reason="limits on the size of files are Unix's")
    folder = make_drafts(tmp_path, {"signed": np.zeros(LARGE, np.uint8), "edited": np.zeros(LARGE, np.uint8)})
    with review_server(folder, limits=_no_large_files) as anna:
        anna.enter()
        sign(anna, "signed")
        assert anna.post("/api/open", {"case": "edited"}).status == 200
        answer = anna.save("edited", noise(1), 0)
        assert answer.status == 507
        assert "disk is full" in answer.json["error"]
        assert anna.get("/api/case/edited").json["version"] == 0
        # What there is room for is saved as ever
        drawn = np.zeros(LARGE, np.uint8)
        drawn[3, 4, 5] = 1
        assert anna.save("edited", drawn, 0).status == 200
    store = require_whole(folder)
    assert store.log.verify().ok
    kept = sorted(path.name for path in (folder / "review" / "labels" / "edited").iterdir())
    number = store.standing("edited").version
    assert kept == [f"v{number:04d}.json", f"v{number:04d}.nii.gz"]


@pytest.mark.parametrize("jump", [timedelta(days=400), timedelta(days=-400), timedelta(minutes=11)])
def test_a_clock_that_jumps_loses_nothing_and_books_nothing(tmp_path, jump):
    folder = make_drafts(tmp_path)
    clock = Clock()
    passed_s = [0.0]
    store = ReviewStore.open(folder, clock)
    desk = ReviewDesk(store, Seat(person=Person(user="Anna")), clock=ActiveClock(lambda: passed_s[0]))
    grid = desk.views.grid("case_1")

    def beat(case, active_s):
        return desk.heartbeat(case, active_s=active_s, idle_s=0.0, slices_viewed={}, grid=grid)

    desk.open("case_2")
    for name in STRUCTURES:
        desk.decide("case_2", name, "accept", region=None, asked_again=True)
    sha256 = desk.finish("case_2")["sha256"]
    desk.sign("case_2", name="Dr Anna", meaning="review", sha256=sha256)
    desk.open("case_1")
    drawn = desk.views.label("case_1", 0, grid).copy()
    drawn[0, 0, 0] = 1
    desk.save("case_1", Bitmap(indexes_zyx=drawn, grid=grid, group=0, base=0, origin="edited", is_autosave=True))
    passed_s[0] += 15
    assert beat("case_1", 15.0)["active_s"] == 15
    clock.now += jump
    passed_s[0] += 15
    assert beat("case_1", abs(jump.total_seconds()))["active_s"] == 15  # nobody took the case meanwhile: it goes on
    passed_s[0] += 15
    assert beat("case_1", abs(jump.total_seconds()))["active_s"] == 15
    assert desk.case("case_1", grid)["version"] == 1
    for name in STRUCTURES:
        desk.decide("case_1", name, "edit", region=None, asked_again=True)
    desk.finish("case_1")
    assert sum(row.active_s for row in read_ledger(folder)) <= 45
    assert store.log.verify().ok
    assert store.standing("case_2").state == "SIGNED"
    assert store.changed("case_2") == ()
