"""The steps of a review: what each does, who may take it, and what it is refused for."""

from __future__ import annotations

import numpy as np
import pytest

from builders.review import ANNA, BEN, Clock, drawn, masks_folder
from segfw.base.errors import UserError
from segfw.reviewing.review_store import Conflict, Locked, ReviewStore


@pytest.fixture
def store(tmp_path):
    return ReviewStore.open(masks_folder(tmp_path), Clock())


def accepted(store, case="a", person=ANNA):
    store.open_case(case, person)
    store.decide_all(case, person, dict.fromkeys(store.structures, "accept"))
    return store.finish(case, person)


def test_a_draft_is_accepted_and_signed(store):
    assert store.standing("a").state == "DRAFT"
    made = accepted(store)
    assert (made.number, made.origin, made.parent, made.author) == (1, "model", 0, "Anna")
    assert store.standing("a").state == "REVIEWED"
    event = store.sign("a", BEN, name="Dr Ben Bolt", meaning="review", version_sha256=made.sha256)
    standing = store.standing("a")
    assert (standing.state, standing.signed_by, standing.signed_name) == ("SIGNED", "Ben", "Dr Ben Bolt")
    assert event.version_sha256 == made.sha256 == store.sha256("a", 1)
    assert (store.read("a").array[0] == drawn()).all()
    assert store.changed("a") == ()
    assert store.log.verify().ok
    assert store.standing("b").state == "DRAFT"
    # Another process reads the same
    assert ReviewStore.open(store.folder, store.clock).standings() == store.standings()


def test_what_is_drawn_becomes_a_version_and_is_counted(store):
    store.open_case("a", ANNA)
    values = drawn()
    values[0, 0, 0] = 1  # 9 voxels of liver
    values[3, 4, 2:4] = 0  # 2 of spleen less
    made = store.save("a", ANNA, values, base=0, origin="edited", tool="page")
    assert made.number == 1
    assert {name: (each.added, each.removed) for name, each in made.edited_voxels.items()} == {
        "liver": (1, 0),
        "spleen": (0, 2),
    }
    assert made.edited_slices == (0, 3)
    with pytest.raises(Conflict, match="version 1 by Anna is the newest"):
        store.save("a", ANNA, drawn(), base=0, origin="edited", tool="page")
    assert store.save("a", ANNA, values, base=1, origin="edited", tool="page") == made  # nothing differs
    assert [version.number for version in store.versions("a")] == [1]
    assert (store.read("a", 0).array[0] == drawn()).all()


def test_another_person_waits_until_the_lease_is_over(store):
    store.open_case("a", ANNA)
    store.clock.forward(minutes=9)
    with pytest.raises(Locked, match="Anna"):
        store.open_case("a", BEN)
    store.renew("a", ANNA, active_s=30)
    store.clock.forward(minutes=9)
    with pytest.raises(Locked):
        store.open_case("a", BEN)
    store.clock.forward(minutes=2)
    assert store.standing("a").state == "DRAFT"
    assert store.open_case("a", BEN).holder == "Ben"
    with pytest.raises(Locked):
        store.save("a", ANNA, drawn(1), base=0, origin="edited", tool="page")
    over = [event for event in store.history("a") if event.event == "lease-over"]
    assert [(event.user, event.active_s) for event in over] == [("Anna", 30.0)]


def test_a_folder_that_is_none_is_refused(tmp_path):
    with pytest.raises(UserError, match="no folder of segfw's masks"):
        ReviewStore.open(tmp_path)


def test_absent_structures_are_taken_out(store):
    store.open_case("a", ANNA)
    store.decide("a", ANNA, "liver", "accept")
    store.decide("a", ANNA, "spleen", "absent")
    made = store.finish("a", ANNA)
    assert set(np.unique(store.read("a").array)) == {0, 1}
    assert made.edited_voxels["spleen"].removed == 4
