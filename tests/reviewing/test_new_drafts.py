"""New drafts of masks that are under review."""

from __future__ import annotations

import pytest

from builders.review import ANNA, BEN, Clock, accepted, drawn, masks_folder
from segfw.base.errors import UserError
from segfw.reviewing.new_draft import note_new_drafts, require_same_model
from segfw.reviewing.review_store import ReviewStore


@pytest.fixture
def store(tmp_path):
    return ReviewStore.open(masks_folder(tmp_path), Clock())


def test_new_drafts_leave_what_people_finished(tmp_path):
    store = ReviewStore.open(masks_folder(tmp_path, ("a", "b", "c", "d")), Clock())
    made = accepted(store, "a")
    store.sign("a", BEN, name="B", meaning="review", version_sha256=made.sha256)
    accepted(store, "b")
    store.open_case("c", ANNA)
    values = drawn()
    values[0, 0, 0] = 1
    store.save("c", ANNA, values, base=0, origin="edited", tool="page")
    store.release("c", ANNA)
    store.reject("d", ANNA, "model-failed")
    assert store.standing("c").version == 1

    note_new_drafts(store.folder, "another model", "segfw predict", "abcd", clock=store.clock)
    states = {case: (standing.state, standing.version) for case, standing in store.standings().items()}
    assert states == {"a": ("SIGNED", 1), "b": ("REVIEWED", 1), "c": ("DRAFT", 0), "d": ("DRAFT", 0)}
    assert [version.number for version in store.versions("c")] == [1]  # it stays, but does not count
    store.open_case("c", ANNA)
    assert store.save("c", ANNA, values, base=0, origin="edited", tool="page").number == 2


def test_masks_of_another_model_are_not_predicted_into_a_folder_under_review(store):
    digest = store.model_digest()
    require_same_model(store.folder, "another", overwrite=False)  # not under review
    accepted(store)
    require_same_model(store.folder, digest, overwrite=False)
    with pytest.raises(UserError, match="is under review"):
        require_same_model(store.folder, "another", overwrite=False)
    require_same_model(store.folder, "another", overwrite=True, clock=store.clock)
    store.open_case("b", BEN)
    with pytest.raises(UserError, match="being reviewed now .b by Ben."):
        require_same_model(store.folder, "another", overwrite=True, clock=store.clock)
