"""The steps of a review: what each does, who may take it, and what it is refused for."""

from __future__ import annotations

import gzip
from datetime import timedelta

import numpy as np
import pytest

from builders.review import AFFINE, ANNA, BEN, LABELS, Clock, accepted, drawn, masks_folder, settings_of
from segfw.base.errors import UserError
from segfw.dataset.finished_mask import FinishedMask, MaskMaker
from segfw.dataset.labels import Region
from segfw.images.formats import write_labels
from segfw.images.geometry import Geometry
from segfw.interop.write_seg_nrrd import SegNrrdFormat
from segfw.reviewing.leases import read_lease
from segfw.reviewing.new_draft import note_new_drafts
from segfw.reviewing.refusals import Conflict, Locked
from segfw.reviewing.review_ledger import ledger_file, read_ledger
from segfw.reviewing.review_policy import ReviewPolicy
from segfw.reviewing.review_store import ReviewStore
from segfw.reviewing.version_files import version_file


@pytest.fixture
def store(tmp_path):
    return ReviewStore.open(masks_folder(tmp_path), Clock())


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
    rows = [(row.user, row.active_s, row.decision) for row in read_ledger(store.folder)]
    assert rows == [("Anna", 30.0, "lease-over")]


@pytest.mark.parametrize("step", ["open", "sign", "reject"])
def test_whatever_comes_after_a_lease_ran_out_notes_that_first(store, step):
    """A reviewed case was opened again by somebody who went home."""
    made = accepted(store)
    store.open_case("a", ANNA)
    store.renew("a", ANNA, active_s=30)
    store.clock.forward(minutes=11)
    if step == "open":
        store.open_case("a", BEN)
    elif step == "sign":
        store.sign("a", BEN, name="Dr Ben Bolt", meaning="review", version_sha256=made.sha256)
    else:
        store.reject("a", BEN, "image-bad")
    over, last = store.history("a")[-2:]
    assert (over.event, over.user, over.from_state, over.to_state) == ("lease-over", "Anna", "IN_REVIEW", "REVIEWED")
    assert (last.event, last.user, last.from_state) == (step, "Ben", "REVIEWED")
    assert [(row.user, row.active_s) for row in read_ledger(store.folder) if row.decision == "lease-over"] == [
        ("Anna", 30.0)
    ]
    assert store.standing("a").active_s == 30.0
    lease = read_lease(store.folder, "a")
    assert (lease is not None and lease.user == "Ben") if step == "open" else lease is None


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


# ---- what somebody is asked ----


def test_whoever_cannot_have_looked_is_asked_once(store):
    store.open_case("a", ANNA)
    slices = [3, 4, 5, 6]
    store.renew("a", ANNA, active_s=5, slices_viewed={"z": [1, 2, 3]})
    viewing = store.viewing("a", ANNA, "z", slices)
    assert (viewing.slices, viewing.displayed, viewing.active_s) == (4, 1, 5.0)
    asked = store.decide("a", ANNA, "liver", "accept", viewing=viewing)
    assert asked is not None
    assert asked.text == "1 of the 4 slices with liver was displayed"
    assert store.standing("a").decisions == {}
    assert store.decide("a", ANNA, "liver", "accept", viewing=viewing, asked_again=True) is None
    assert store.standing("a").decisions == {"liver": "accept"}
    events = [(event.event, event.structure) for event in store.history("a")]
    assert events == [("open", None), ("asked", "liver"), ("decide", "liver")]
    # Half of them is enough, and what is edited was looked at
    store.renew("a", ANNA, slices_viewed={"z": [4]})
    assert store.decide("a", ANNA, "spleen", "accept", viewing=store.viewing("a", ANNA, "z", slices)) is None


def test_whoever_is_faster_than_slices_can_be_seen_is_asked(store):
    store.open_case("a", ANNA)
    store.renew("a", ANNA, active_s=1.4, slices_viewed={"z": list(range(10))})
    viewing = store.viewing("a", ANNA, "z", range(10))  # which take 1.5 s
    asked = store.decide("a", ANNA, "liver", "accept", viewing=viewing)
    assert asked is not None
    assert "1.4 s were spent on the 10 slices" in asked.text
    store.renew("a", ANNA, active_s=0.1)
    assert store.decide("a", ANNA, "spleen", "accept", viewing=store.viewing("a", ANNA, "z", range(10))) is None


def test_a_warning_comes_after_twenty_accepts_in_a_row(tmp_path):
    store = ReviewStore.open(masks_folder(tmp_path, tuple(f"case_{n:02d}" for n in range(12))), Clock())
    asked = []
    for case in store.case_ids:
        store.open_case(case, ANNA)
        for structure in store.structures:
            answer = store.decide(case, ANNA, structure, "accept")
            if answer is not None:
                asked.append((case, structure))
                assert "20 structures were accepted in a row" in answer.text
                assert store.decide(case, ANNA, structure, "accept") is None
    assert asked == [("case_10", "liver")]  # the 21st, and from then on they are counted anew
    assert [event.event for event in store.log.events()].count("asked-row") == 1


# ---- the ledger ----


def test_minutes_and_edits_are_listed_by_what_was_decided(store):
    store.open_case("a", ANNA)
    store.renew("a", ANNA, active_s=20, idle_s=100, slices_viewed={"z": [1, 2], "x": [7]})
    store.decide("a", ANNA, "liver", "accept")
    values = drawn()
    values[0, 0, :3] = 2
    store.renew("a", ANNA, active_s=40)
    store.save("a", ANNA, values, base=0, origin="edited", tool="page")
    store.decide("a", ANNA, "spleen", "edit")
    store.renew("a", ANNA, active_s=2.5)
    store.finish("a", ANNA)
    rows = [(row.structure, row.active_s, row.idle_s, row.slices_viewed) for row in read_ledger(store.folder)]
    assert rows == [("liver", 20.0, 100.0, 3), ("spleen", 40.0, 0.0, 3), ("", 2.5, 0.0, 3)]
    edits = [(row.decision, row.edited_voxels, row.slices_edited) for row in read_ledger(store.folder)]
    assert edits == [("accept", 0, 0), ("edit", 3, 1), ("finish", 0, 0)]
    assert store.standing("a").active_s == 62.5
    assert sum(event.active_s for event in store.history("a")) == 62.5


def test_a_damaged_line_of_the_ledger_is_passed_over(store):
    store.open_case("a", ANNA)
    store.decide("a", ANNA, "liver", "accept")
    path = ledger_file(store.folder)
    path.write_text(path.read_text() + "a,live")  # of a process that was killed
    store.decide("a", ANNA, "spleen", "accept")
    assert [row.structure for row in read_ledger(store.folder)] == ["liver", "spleen"]


# ---- what goes wrong ----


def test_decisions_that_no_longer_fit_the_voxels_are_made_anew(store):
    store.open_case("a", ANNA)
    store.decide_all("a", ANNA, dict.fromkeys(store.structures, "accept"))
    values = drawn()
    values[0, 0, 0] = 2
    store.save("a", ANNA, values, base=0, origin="edited", tool="page")
    assert store.standing("a").decisions == {"liver": "accept", "spleen": "edit"}


@pytest.mark.parametrize(
    ("values", "problem"),
    [
        (np.zeros((4, 5, 6)), "4 x 5 x 6 voxels"),
        (np.full((4, 6, 5), 3), "holds 3, which is no label"),
        (np.full((4, 6, 5), 0.5), "not integers"),
    ],
)
def test_masks_that_cannot_be_are_refused(store, values, problem):
    store.open_case("a", ANNA)
    with pytest.raises(UserError, match=problem):
        store.save("a", ANNA, values, base=0, origin="edited", tool="page")
    assert store.versions("a") == []


def test_nothing_is_finished_before_everything_is_decided(store):
    store.open_case("a", ANNA)
    store.decide("a", ANNA, "liver", "accept")
    with pytest.raises(UserError, match="nothing is decided on spleen"):
        store.finish("a", ANNA)


def test_another_draft_than_the_one_that_was_opened_is_not_signed_for(store):
    store.open_case("a", ANNA)
    store.decide_all("a", ANNA, dict.fromkeys(store.structures, "accept"))
    values = drawn()
    values[0, 0, 0] = 1
    volume = store.read("a")
    write_labels(store.draft_file("a"), values, volume.geometry)
    with pytest.raises(UserError, match="there is another draft since it was opened"):
        store.finish("a", ANNA)
    assert store.standing("a").state == "IN_REVIEW"


def test_another_hash_than_the_reviewed_one_is_not_signed(store):
    made = accepted(store)
    with pytest.raises(UserError, match="is not that of version 1"):
        store.sign("a", BEN, name="B", meaning="review", version_sha256="0" * 64)
    # The file itself was changed in between
    values = drawn()
    values[0, 0, 0] = 1
    write_labels(version_file(store.folder, "a", 1), values, store.read("a").geometry)
    with pytest.raises(UserError, match="was changed after it was reviewed"):
        store.sign("a", BEN, name="B", meaning="review", version_sha256=made.sha256)
    assert store.standing("a").state == "REVIEWED"


def test_an_image_that_changed_after_the_review_is_not_signed_on(store):
    made = accepted(store)
    (image,) = store.image_files("a")
    write_labels(image, drawn() * 3, store.read("a").geometry)
    with pytest.raises(UserError, match="its image was changed since it was reviewed"):
        store.sign("a", BEN, name="B", meaning="review", version_sha256=made.sha256)


def test_what_changed_since_it_was_signed_is_told(store):
    for case in ("a", "b"):
        made = accepted(store, case)
        store.sign(case, BEN, name="B", meaning="review", version_sha256=made.sha256)
    # The same voxels in a file that is compressed anew are the same mask
    mask = version_file(store.folder, "a", 1)
    mask.write_bytes(gzip.compress(gzip.decompress(mask.read_bytes()), compresslevel=1, mtime=5))
    assert store.changed("a") == ()
    values = store.read("a").array[0].copy()
    values[3, 4, 2] = 1
    write_labels(mask, values, store.read("a").geometry)
    assert store.changed("a") == ("mask",)
    (image,) = store.image_files("a")
    write_labels(image, drawn() * 3, store.read("b").geometry)
    settings_of("other weights").save(store.folder / "prediction.json")
    assert store.changed("a") == ("mask", "image", "model")
    assert store.changed("b") == ("model",)
    mask.unlink()
    assert "mask" in store.changed("a")


def test_a_signature_is_taken_back_and_given_anew(store):
    made = accepted(store)
    store.sign("a", BEN, name="B", meaning="review", version_sha256=made.sha256)
    with pytest.raises(UserError, match="for a reason"):
        store.amend("a", BEN, " ")
    store.amend("a", BEN, "the tail of the spleen is missing")
    store.open_case("a", ANNA)
    values = drawn()
    values[3, 4, 4] = 2
    second = store.save("a", ANNA, values, base=1, origin="edited", tool="page")
    store.decide_all("a", ANNA, dict.fromkeys(store.structures, "edit"))
    assert store.finish("a", ANNA) == second
    store.sign("a", BEN, name="B", meaning="review", version_sha256=second.sha256)
    assert store.standing("a").version == 2
    assert store.sha256("a", 1) == made.sha256
    reasons = [event.reason for event in store.history("a") if event.event == "amend"]
    assert reasons == ["the tail of the spleen is missing"]


def test_a_reviewed_case_that_is_only_looked_at_stays_reviewed(store):
    accepted(store)
    store.open_case("a", BEN)
    store.clock.forward(minutes=11)
    standing = store.standing("a")
    assert (standing.state, standing.decisions) == ("REVIEWED", {"liver": "accept", "spleen": "accept"})


def test_decisions_hold_for_whoever_gives_a_case_back_and_returns_but_for_nobody_else(store):
    store.open_case("a", ANNA)
    store.decide("a", ANNA, "liver", "absent", viewing=None)
    store.release("a", ANNA)
    assert store.standing("a").decisions == {}  # a draft again, of which nothing is decided
    assert store.open_case("a", ANNA).decisions == {"liver": "absent"}

    store.release("a", ANNA)
    assert store.open_case("a", BEN).decisions == {}
    store.release("a", BEN)
    assert store.open_case("a", ANNA).decisions == {}  # somebody else had it meanwhile


def test_decisions_on_an_old_draft_do_not_hold_for_a_new_one(store):
    store.open_case("a", ANNA)
    store.decide("a", ANNA, "liver", "absent", viewing=None)
    store.release("a", ANNA)
    note_new_drafts(store.folder, "another model", "segfw predict", "abcd", clock=store.clock)
    assert store.open_case("a", ANNA).decisions == {}


def test_four_eyes(store):
    store.policy = ReviewPolicy(four_eyes=True)
    made = accepted(store)
    with pytest.raises(UserError, match="four eyes"):
        store.sign("a", ANNA, name="Anna", meaning="review", version_sha256=made.sha256)
    store.sign("a", BEN, name="Ben", meaning="review", version_sha256=made.sha256)


def test_whoever_comes_back_late_goes_on_if_nobody_came_between(store):
    store.open_case("a", ANNA)
    store.renew("a", ANNA, active_s=20)
    store.clock.forward(hours=2)  # of a computer that slept
    assert store.standing("a").state == "DRAFT"
    values = drawn()
    values[0, 0, 0] = 1
    store.save("a", ANNA, values, base=0, origin="edited", tool="page")
    assert store.standing("a").holder == "Anna"
    store.clock.forward(hours=2)
    store.decide_all("a", ANNA, dict.fromkeys(store.structures, "edit"))
    store.clock.forward(hours=2)
    store.finish("a", ANNA)
    assert store.standing("a").active_s == 20.0
    with pytest.raises(Locked, match="is not open by Anna, it is REVIEWED"):
        store.renew("a", ANNA, active_s=1)


def test_minutes_of_a_lease_that_ran_out_are_kept_where_somebody_else_rejects_the_case(store):
    store.open_case("a", ANNA)
    store.renew("a", ANNA, active_s=30.0)
    store.clock.forward(minutes=11)
    store.reject("a", BEN, "image-bad")
    assert [(row.user, row.active_s, row.decision) for row in read_ledger(store.folder)] == [
        ("Anna", 30.0, "lease-over")
    ]
    assert store.standing("a").active_s == 30.0


def test_a_lease_of_a_computer_whose_clock_is_a_little_ahead_holds(tmp_path):
    clock = Clock()
    folder = masks_folder(tmp_path, ("a",))
    ReviewStore.open(folder, lambda: clock() + timedelta(seconds=3)).open_case("a", ANNA)
    here = ReviewStore.open(folder, clock)
    assert here.standing("a").holder == "Anna"
    with pytest.raises(Locked):
        here.open_case("a", BEN)


def test_a_lease_of_a_clock_that_was_wrong_keeps_nobody_out(store):
    store.clock.forward(days=30)
    store.open_case("a", ANNA)
    store.clock.forward(days=-30)
    assert store.open_case("a", BEN).holder == "Ben"
    assert store.log.verify().ok
    assert "clock-back" in [event.event for event in store.log.events()]


def test_a_case_that_is_none_is_refused_and_nothing_is_joined_to_a_path(store, tmp_path):
    for case in ("../b", "c", "", "..", "a/../a", str(tmp_path)):
        with pytest.raises(UserError, match="has no case"):
            store.open_case(case, ANNA)
    assert not store.is_begun


def test_structures_that_share_voxels_are_not_taken_out_alone(tmp_path):
    regions = (Region(name="organ", values=(1, 2), painted=1), Region(name="tumour", values=(2,), painted=2))
    labels = LABELS.model_copy(update={"names": ("background", "liver", "lesion"), "regions": regions})
    store = ReviewStore.open(masks_folder(tmp_path, labels=labels), Clock())
    assert store.structures == ("organ", "tumour")
    store.open_case("a", ANNA)
    store.decide("a", ANNA, "organ", "accept")
    store.decide("a", ANNA, "tumour", "absent")
    with pytest.raises(UserError, match="tumour is said to be absent, but shares voxels with organ"):
        store.finish("a", ANNA)
    store.decide("a", ANNA, "organ", "absent")
    store.finish("a", ANNA)
    assert not store.read("a").array.any()


@pytest.mark.parametrize("ending", [".nrrd", ".mha", ".nii"])
def test_drafts_of_other_formats_are_reviewed_on_their_own_grid(tmp_path, ending):
    store = ReviewStore.open(masks_folder(tmp_path, ending=ending), Clock())
    draft = store.read("a", 0)
    made = accepted(store)
    assert made.sha256 == store.sha256("a", 0)  # the same voxels at the same place
    assert (store.read("a", 1).array == draft.array).all()
    np.testing.assert_allclose(store.read("a", 1).geometry.matrix, draft.geometry.matrix, atol=1e-5)


def test_masks_of_photographs_are_reviewed(tmp_path):
    masks = masks_folder(tmp_path)
    for name in ("a", "b"):
        (masks / f"{name}.nii.gz").unlink()
    photograph = drawn()[2:3]
    place = np.array([[0, 0, -1, 0], [0, -1, 0, 0], [1, 0, 0, 0], [0, 0, 0, 1]], dtype=float)  # as pictures are read
    write_labels(masks / "eye.png", photograph, Geometry.of((1, 6, 5), place))
    store = ReviewStore.open(masks, Clock())
    assert store.case_ids == ("eye",)
    made = accepted(store, "eye")
    store.sign("eye", BEN, name="B", meaning="review", version_sha256=made.sha256)
    volume = store.read("eye")
    assert (volume.array[0] == photograph).all()
    assert volume.is_picture
    assert store.changed("eye") == ()


def test_drafts_that_are_in_a_format_of_viewers_alone_are_reviewed(tmp_path):
    masks = masks_folder(tmp_path)
    for name in ("a", "b"):
        (masks / f"{name}.nii.gz").unlink()
    geometry = Geometry.of(drawn().shape, AFFINE)
    mask = FinishedMask(case_id="a", values_zyx=drawn(), geometry=geometry, labels=LABELS, maker=MaskMaker())
    SegNrrdFormat().write(masks, mask)
    store = ReviewStore.open(masks, Clock())
    assert store.case_ids == ("a",)
    accepted(store)
    assert (store.read("a").array[0] == drawn()).all()
    np.testing.assert_allclose(store.read("a").geometry.matrix, AFFINE, atol=1e-5)


def test_no_mask_is_read_to_tell_where_cases_stand(tmp_path):
    store = ReviewStore.open(masks_folder(tmp_path, tuple(f"case_{n:03d}" for n in range(60))), Clock())
    for case in store.case_ids[:5]:
        accepted(store, case)
    for path in (*store.folder.glob("*.nii.gz"), *(store.folder / "review").rglob("*.nii.gz")):
        path.write_bytes(b"nothing that can be read")
    standings = ReviewStore.open(store.folder, store.clock).standings()
    assert len(standings) == 60
    assert [standing.state for standing in standings.values()].count("REVIEWED") == 5
