"""What one person sees and does at the page, by a desk in this process: grids, boxes, groups, blind mode, pictures."""

from __future__ import annotations

import nibabel
import numpy as np
import pytest
from PIL import Image

from builders.drafts_folder import AFFINE_LPS, LABELS, SHAPE, drawn_mask, make_drafts, write_volume
from segfw.base.errors import UserError
from segfw.dataset.labels import LABELS_FILE, LabelSet, Region
from segfw.evaluation.mask_facts import FACTS_FILE, MaskFacts
from segfw.images.formats import write_labels
from segfw.images.geometry import Geometry
from segfw.inference.prediction_settings import PredictionSettings
from segfw.review_page.active_clock import ActiveClock
from segfw.review_page.case_views import NotFound
from segfw.review_page.label_palette import WrongBitmap
from segfw.review_page.review_desk import Bitmap, Held, Refused, ReviewDesk, Seat
from segfw.review_page.review_index import Wanted
from segfw.reviewing.people import Person
from segfw.reviewing.refusals import Conflict
from segfw.reviewing.review_ledger import read_ledger
from segfw.reviewing.review_store import ReviewStore
from segfw.reviewing.viewing import Shown
from segfw.verbs.queue import queue

ANNA = Person(user="Anna")
BEN = Person(user="Ben")
EVERYTHING = Wanted()


class Time:
    def __init__(self):
        self.now_s = 0.0

    def __call__(self):
        return self.now_s


def desk_of(folder, person=ANNA, **options):
    largest_whole = options.pop("largest_whole", 30_000_000)
    clock = ActiveClock(options.pop("time", Time()))
    seat = Seat(person=person, **options)
    return ReviewDesk(ReviewStore.open(folder), seat, largest_whole=largest_whole, clock=clock)


def bitmap(desk, case, indexes, *, base=0, group=0, box="", origin="edited", is_whole=False):
    grid = desk.views.grid(case, box_xyz=box, is_whole=is_whole)
    return Bitmap(indexes_zyx=indexes, grid=grid, group=group, base=base, origin=origin, is_autosave=False)


# ---- what is shown ----


def test_a_case_is_told_in_the_order_in_which_it_is_served(tmp_path):
    """Of a file whose axes run to the left and to the back; liver 2 x 3 x 4 voxels without one of tumour."""
    desk = desk_of(make_drafts(tmp_path))
    told = desk.case("case_1", desk.views.grid("case_1"))
    assert told["shape_xyz"] == told["full_shape_xyz"] == [8, 6, 5]
    assert told["spacing_mm_xyz"] == [0.5, 2.0, 5.0]
    liver, tumour = told["structures"]
    assert (liver["label"], liver["slices"], tumour["slices"]) == ("liver", [1, 2], [2])
    assert liver["volume_ml"] == pytest.approx(23 * 0.005)
    assert tumour["volume_ml"] == pytest.approx(0.005)
    assert (liver["predicted_dice"], liver["lower_bound"], liver["verdict"]) == (0.9, 0.7, "look")
    (region,) = told["regions"]
    # In the file x 2 to 6 of 8 and y 1 to 4 of 6; both are flipped
    assert region["box_xyz"] == [2, 2, 1, 6, 5, 3]
    assert region["centre_xyz"] == [3.5, 3.0, 1.5]
    assert region["candidates"] == [{"n": 0, "names": ["fold 0"]}]
    assert desk.views.candidate("case_1", 1, 0, desk.views.grid("case_1")).sum(axis=(1, 2)).tolist() == [12, 0]
    assert told["gate"]["verdict"] == "usual"
    assert (told["is_ct"], told["has_image"], told["has_letters"], told["planted"]) == (True, True, True, False)


def test_the_queue_has_the_least_trusted_first_and_is_filtered(tmp_path):
    desk = desk_of(make_drafts(tmp_path))
    told = desk.queue(0, 100, EVERYTHING)
    assert [(item["case"], item["structure"]) for item in told["items"]] == [
        ("case_2", "tumour"),
        ("case_2", "liver"),
        ("case_1", "tumour"),
        ("case_1", "liver"),
    ]
    assert told["total"] == 4
    assert [item["case"] for item in desk.queue(1, 2, EVERYTHING)["items"]] == ["case_2", "case_1"]
    assert desk.queue(0, 100, Wanted(case="case_1"))["total"] == 2
    assert desk.queue(0, 100, Wanted(structure="liver", text="SE_2"))["total"] == 1
    desk.open("case_1")
    assert desk.queue(0, 100, Wanted(state="IN_REVIEW"))["total"] == 2
    assert desk.queue(0, 100, Wanted(case="case_1"))["items"][0]["holder"] == "Anna"
    assert told["progress"] == {**told["progress"], "cases": 2, "signed": 0, "minutes_used": 0}


def test_the_order_is_that_of_segfw_queue_and_follows_it(tmp_path):
    """Of a queue by minutes, and again after it was made anew."""
    folder = make_drafts(tmp_path)
    desk = desk_of(folder)
    assert desk.queue(0, 1, EVERYTHING)["items"][0]["gain"] is None
    made = queue(folder, regions=False)
    told = desk.queue(0, 100, EVERYTHING)
    first = [(item.case, item.structure, item.gain, item.minutes) for item in made.items()]
    assert [(row["case"], row["structure"], row["gain"], row["minutes"]) for row in told["items"]] == first
    assert told["progress"]["minutes_left"] == pytest.approx(sum(item.minutes for item in made.items()))
    assert told["progress"]["stop"] == made.stop.text
    desk.open(first[0][0])
    desk.decide(*first[0][:2], "accept", region=None, asked_again=True)
    left = desk.queue(0, 100, EVERYTHING)
    assert left["progress"]["minutes_left"] == pytest.approx(sum(item.minutes for item in made.items()[1:]))
    # Made anew, the queue has no more what is decided: the page shows it behind all others
    anew = queue(folder, regions=False)
    assert len(anew.items()) == 3
    rows = desk.queue(0, 100, EVERYTHING)["items"]
    found = [(row["case"], row["structure"]) for row in rows]
    assert found[:3] == [(item.case, item.structure) for item in anew.items()]
    assert (rows[3]["case"], rows[3]["structure"], rows[3]["decision"]) == (*first[0][:2], "accept")


def test_a_folder_without_quality_and_without_images_can_be_reviewed(tmp_path):
    desk = desk_of(make_drafts(tmp_path, has_quality=False, has_images=False))
    told = desk.case("case_1", desk.views.grid("case_1"))
    assert told["structures"][0]["predicted_dice"] is None
    assert told["structures"][0]["slices"] == [1, 2]
    assert (told["has_image"], told["gate"], told["regions"]) == (False, None, [])
    assert "not found" in told["image_error"]
    assert [item["case"] for item in desk.queue(0, 9, EVERYTHING)["items"]] == ["case_1", "case_1", "case_2", "case_2"]
    with pytest.raises(NotFound, match="not found any more"):
        desk.views.image("case_1", desk.views.grid("case_1"))


def test_an_image_of_another_size_is_refused_in_words(tmp_path):
    folder = make_drafts(tmp_path)
    write_volume(tmp_path / "images" / "case_1_0000.nii.gz", np.zeros((5, 6, 9), np.int16))
    desk = desk_of(folder)
    assert "another size" in desk.case("case_1", desk.views.grid("case_1"))["image_error"]


def test_an_image_whose_axes_are_stored_otherwise_lies_on_the_mask(tmp_path):
    """The same image, rewritten with axes to the right, front and head, as another program may have done."""
    folder = make_drafts(tmp_path)
    first = desk_of(folder).views
    before = first.image("case_1", first.grid("case_1")).array
    path = tmp_path / "images" / "case_1_0000.nii.gz"
    nibabel.save(nibabel.as_closest_canonical(nibabel.load(path)), path)
    views = desk_of(folder).views
    np.testing.assert_array_equal(views.image("case_1", views.grid("case_1")).array, before)


def test_several_channels_can_be_asked_for(tmp_path):
    folder = make_drafts(tmp_path)
    write_volume(tmp_path / "images" / "case_1_0001.nii.gz", np.full(SHAPE, 7, np.float32))
    views = desk_of(folder).views
    assert views.channels("case_1") == ["0000", "0001"]
    grid = views.grid("case_1")
    second = views.image("case_1", grid, 1)
    assert (second.array == 7).all()
    assert not second.is_ct
    assert views.image("case_1", grid, 0).is_ct
    with pytest.raises(NotFound, match="channel 2"):
        views.image("case_1", grid, 2)


def test_doubt_and_other_masks_are_on_the_same_grid(tmp_path):
    folder = make_drafts(tmp_path)
    doubt = np.zeros(SHAPE, np.float32)
    doubt[4, 0, 1] = 0.5
    write_volume(folder / "uncertainty" / "case_1_entropy.nii.gz", doubt)
    other = np.zeros(SHAPE, np.uint8)
    other[0, 5, 7] = 2
    write_volume(folder / "plausible" / "case_1_fold_0.nii.gz", other)
    write_volume(folder / "plausible" / "case_1_inner.nii.gz", other)
    write_volume(folder / "plausible" / "case_11_fold_0.nii.gz", other)
    desk = desk_of(folder)
    grid = desk.views.grid("case_1")
    told = desk.case("case_1", grid)
    assert (told["has_doubt"], told["compare"]) == (True, ["draft", "fold_0"])
    found = desk.views.doubt("case_1", grid)
    assert np.argwhere(found).tolist() == [[4, 5, 6]]
    assert found.max() == 127
    assert np.argwhere(desk.views.other("case_1", "fold_0", grid)).tolist() == [[0, 0, 0]]


# ---- edits ----


def test_an_edit_is_written_into_the_file_s_own_order(tmp_path):
    """The first voxel that is served lies furthest left and back, which the file stores last in a row and column."""
    folder = make_drafts(tmp_path)
    desk = desk_of(folder)
    desk.open("case_1")
    drawn = desk.views.label("case_1", 0, desk.views.grid("case_1")).copy()
    drawn[0, 0, 0] = 2
    drawn[4, 5, 7] = 1
    made = desk.save("case_1", bitmap(desk, "case_1", drawn))
    assert made["version"] == 1
    stored = nibabel.load(folder / "review" / "labels" / "case_1" / "v0001.nii.gz")
    values = np.asarray(stored.dataobj)  # x y z
    expected = drawn_mask().transpose(2, 1, 0)
    expected[7, 5, 0] = 2
    expected[0, 0, 4] = 1
    np.testing.assert_array_equal(values, expected)
    np.testing.assert_allclose(stored.affine, AFFINE_LPS)
    np.testing.assert_array_equal(desk.views.label("case_1", 1, desk.views.grid("case_1")), drawn)
    # The draft is as it was
    np.testing.assert_array_equal(
        np.asarray(nibabel.load(folder / "case_1.nii.gz").dataobj), drawn_mask().transpose(2, 1, 0)
    )


def test_of_a_large_volume_a_box_is_served_and_edited(tmp_path):
    mask = np.zeros((40, 50, 60), np.uint8)
    mask[30:32, 40:45, 20:30] = 1
    mask[0, 0, 0] = 2  # far from the rest: the box must hold it too
    lonely = np.zeros((40, 50, 60), np.uint8)
    lonely[30:32, 40:45, 20:30] = 1
    folder = make_drafts(tmp_path, {"both": mask, "one": lonely}, affine_xyz=np.diag([2.5, 5.0, 5.0, 1.0]))
    desk = desk_of(folder, largest_whole=60_000)
    assert desk.case("both", desk.views.grid("both"))["box"]["stop_xyz"] == [40, 50, 37]
    told = desk.case("one", desk.views.grid("one"))
    # 25 mm are 10, 5 and 5 voxels
    assert told["box"] == {"start_xyz": [10, 35, 25], "stop_xyz": [40, 50, 37], "is_whole": False}
    assert (told["shape_xyz"], told["full_shape_xyz"]) == ([30, 15, 12], [60, 50, 40])
    assert told["structures"][0]["slices"] == [5, 6]
    assert told["structures"][0]["volume_ml"] == pytest.approx(100 * 0.0625)
    assert desk.case("one", desk.views.grid("one", is_whole=True))["structures"][0]["slices"] == [30, 31]
    desk.open("one")
    drawn = desk.views.label("one", 0, desk.views.grid("one")).copy()
    assert drawn.shape == (12, 15, 30)
    drawn[0, 0, 0] = 2
    desk.save("one", bitmap(desk, "one", drawn, box="10,35,25,40,50,37"))
    lonely[25, 35, 10] = 2
    np.testing.assert_array_equal(desk.store.read("one", 1).array[0], lonely)
    # The next edit is of the whole, and another box of that is served as it is asked for
    whole = desk.views.label("one", 1, desk.views.grid("one", is_whole=True)).copy()
    whole[0, 0, 0] = 1
    desk.save("one", bitmap(desk, "one", whole, base=1, is_whole=True))
    lonely[0, 0, 0] = 1
    np.testing.assert_array_equal(desk.store.read("one", 2).array[0], lonely)
    corner = desk.views.label("one", 2, desk.views.grid("one", box_xyz="0,0,0,2,3,4"))
    assert corner.shape == (4, 3, 2)
    assert np.argwhere(corner).tolist() == [[0, 0, 0]]


def test_labels_of_several_groups_are_edited_one_group_after_the_other(tmp_path):
    labels = LabelSet(names=("background", *(f"part_{n}" for n in range(1, 301))), values=tuple(range(301)))
    mask = np.zeros(SHAPE, np.uint16)
    mask[1, 1, 1:4] = (1, 254, 300)
    folder = make_drafts(tmp_path, {"a": mask}, labels=labels, affine_xyz=np.diag([1.0, 2.0, 3.0, 1.0]))
    desk = desk_of(folder)
    session = desk.session()
    assert session["groups"] == 2
    assert [session["labels"][number]["group"] for number in (253, 254)] == [0, 1]
    told = desk.case("a", desk.views.grid("a"))
    assert [row["label"] for row in told["structures"] if row["slices"]] == ["part_1", "part_254", "part_300"]
    first = desk.views.label("a", 0, desk.views.grid("a"), 0).copy()
    assert first[1, 1, 1:4].tolist() == [1, 254, 255]
    first[1, 1, 1] = 2
    desk.open("a")
    desk.save("a", bitmap(desk, "a", first))
    second = desk.views.label("a", 1, desk.views.grid("a"), 1).copy()
    assert second[1, 1, 1:4].tolist() == [255, 255, 46]
    second[1, 1, 2] = 1
    desk.save("a", bitmap(desk, "a", second, base=1, group=1))
    assert desk.store.read("a", 2).array[0, 1, 1, 1:4].tolist() == [2, 255, 300]
    with pytest.raises(WrongBitmap):
        desk.save("a", bitmap(desk, "a", np.full(SHAPE, 255, np.uint8), base=2, group=1))


def test_nested_regions_are_decided_on_by_name_and_drawn_by_label(tmp_path):
    regions = (Region(name="whole", values=(1, 2), painted=1), Region(name="core", values=(2,), painted=2))
    labels = LabelSet(names=("background", "oedema", "necrosis"), values=(0, 1, 2), regions=regions)
    desk = desk_of(make_drafts(tmp_path, {"a": drawn_mask()}, labels=labels))
    whole, core = desk.session()["structures"]
    assert (whole["label"], whole["index"], whole["parts"]) == ("whole", 1, [[0, 1], [0, 2]])
    assert (core["label"], core["index"], core["parts"]) == ("core", 2, [[0, 2]])
    rows = desk.case("a", desk.views.grid("a"))["structures"]
    assert [row["volume_ml"] for row in rows] == [pytest.approx(24 * 0.005), pytest.approx(0.005)]


def test_two_people_conflict_and_are_told_by_whom(tmp_path):
    folder = make_drafts(tmp_path)
    anna = desk_of(folder)
    ben = desk_of(folder, BEN)
    anna.open("case_1")
    with pytest.raises(Held, match="Anna") as held:
        ben.open("case_1")
    assert held.value.holder == "Anna"
    drawn = anna.views.label("case_1", 0, anna.views.grid("case_1")).copy()
    drawn[0, 0, 0] = 1
    anna.save("case_1", bitmap(anna, "case_1", drawn))
    anna.release("case_1")
    ben.open("case_1")
    drawn[0, 0, 1] = 1
    with pytest.raises(Conflict) as conflict:
        ben.save("case_1", bitmap(ben, "case_1", drawn))  # drawn on the draft
    assert (conflict.value.newest, conflict.value.author) == (1, "Anna")
    assert ben.save("case_1", bitmap(ben, "case_1", drawn, base=1))["version"] == 2


def test_a_signed_mask_is_delivered_as_it_was_painted(tmp_path):
    folder = make_drafts(tmp_path)
    desk = desk_of(folder)
    desk.open("case_1")
    drawn = desk.views.label("case_1", 0, desk.views.grid("case_1")).copy()
    drawn[0, 0, 0] = 2
    desk.save("case_1", bitmap(desk, "case_1", drawn))
    for name in ("liver", "tumour"):
        desk.decide("case_1", name, "edit", region=None, asked_again=True)
    made = desk.finish("case_1")
    with pytest.raises(UserError):
        desk.deliver("case_1", ["nifti"])  # nobody has signed it
    assert not (tmp_path / "masks_delivered").exists()
    desk.sign("case_1", name="Dr A", meaning="review", sha256=made["sha256"])
    files = desk.deliver("case_1", ["nifti"])["files"]
    (name,) = [each for each in files if each.endswith(".nii.gz")]
    delivered = nibabel.load(tmp_path / "masks_delivered" / name)
    expected = drawn_mask().transpose(2, 1, 0)
    expected[7, 5, 0] = 2
    np.testing.assert_array_equal(np.asarray(delivered.dataobj), expected)
    np.testing.assert_allclose(delivered.affine, AFFINE_LPS)
    with pytest.raises(UserError, match="paper"):
        desk.deliver("case_1", ["paper"])


# ---- who may see and do what ----


def test_a_page_that_only_shows_changes_nothing(tmp_path):
    folder = make_drafts(tmp_path)
    desk = desk_of(folder, is_read_only=True)
    drawn = desk.views.label("case_1", 0, desk.views.grid("case_1"))
    calls = (
        lambda: desk.open("case_1"),
        lambda: desk.release("case_1"),
        lambda: desk.save("case_1", bitmap(desk, "case_1", drawn)),
        lambda: desk.decide("case_1", "liver", "accept", region=None, asked_again=False),
        lambda: desk.finish("case_1"),
        lambda: desk.sign("case_1", name="A", meaning="review", sha256="0"),
        lambda: desk.reject("case_1", "image-bad", ""),
        lambda: desk.amend("case_1", "x"),
        lambda: desk.heartbeat("case_1", active_s=1.0, idle_s=0.0, slices_viewed={}, grid=desk.views.grid("case_1")),
    )
    for call in calls:
        with pytest.raises(Refused, match="only shows"):
            call()
    assert not (folder / "review").exists()
    assert desk.case("case_1", desk.views.grid("case_1"))["state"] == "DRAFT"


def test_blind_mode_hides_what_models_think_until_the_first_decision(tmp_path):
    folder = make_drafts(tmp_path)
    write_volume(folder / "uncertainty" / "case_1_entropy.nii.gz", np.zeros(SHAPE, np.float32))
    write_volume(folder / "plausible" / "case_1_fold_0.nii.gz", np.zeros(SHAPE, np.uint8))
    desk = desk_of(folder, is_blind=True)
    hidden = {"predicted_dice", "lower_bound", "verdict", "gain", "region"}
    items = desk.queue(0, 100, EVERYTHING)["items"]
    assert all(item[name] is None for item in items for name in hidden)
    assert not any(item["reason"] for item in items)
    assert [item["case"] for item in items] == ["case_1", "case_1", "case_2", "case_2"]  # by name, not by quality
    assert desk.queue(0, 100, Wanted(verdict="look"))["total"] == 0
    told = desk.case("case_1", desk.views.grid("case_1"))
    assert told["hidden"]
    assert (told["gate"], told["regions"], told["has_doubt"], told["compare"]) == (None, [], False, ["draft"])
    assert all(row[name] is None for row in told["structures"] for name in ("predicted_dice", "lower_bound", "verdict"))
    assert not any(row["reasons"] for row in told["structures"])
    with pytest.raises(Refused, match="hidden"):
        desk.require_shown("case_1")
    desk.open("case_1")
    desk.decide("case_1", "liver", "accept", region=None, asked_again=True)
    told = desk.case("case_1", desk.views.grid("case_1"))
    assert not told["hidden"]
    assert (told["structures"][0]["predicted_dice"], told["has_doubt"]) == (0.9, True)
    desk.require_shown("case_1")
    assert desk.case("case_2", desk.views.grid("case_2"))["hidden"]
    # It stays so after the server was started again, and is another's own
    again = desk_of(folder, is_blind=True)
    assert not again.case("case_1", again.views.grid("case_1"))["hidden"]
    ben = desk_of(folder, BEN, is_blind=True)
    assert ben.case("case_1", ben.views.grid("case_1"))["hidden"]


# ---- time ----


def test_heartbeats_book_what_has_passed_into_the_ledger(tmp_path):
    time = Time()
    folder = make_drafts(tmp_path)
    desk = desk_of(folder, time=time)
    grid = desk.views.grid("case_1")
    desk.open("case_1")
    time.now_s += 15
    assert desk.heartbeat("case_1", active_s=900.0, idle_s=0.0, slices_viewed={}, grid=grid)["active_s"] == 15
    time.now_s += 15
    assert desk.heartbeat("case_1", active_s=5.0, idle_s=10.0, slices_viewed={}, grid=grid)["idle_s"] == 10
    for name in ("liver", "tumour"):
        desk.decide("case_1", name, "accept", region=None, asked_again=True)
    desk.finish("case_1")
    rows = read_ledger(folder)
    assert sum(row.active_s for row in rows) == pytest.approx(20)
    assert sum(row.idle_s for row in rows) == pytest.approx(10)
    assert desk.queue(0, 1, EVERYTHING)["progress"]["minutes_used"] == pytest.approx(20 / 60)


def test_the_log_says_what_was_on_the_screen(tmp_path):
    folder = make_drafts(tmp_path)
    desk = desk_of(folder)
    grid = desk.views.grid("case_1")

    def beat(shown):
        desk.heartbeat("case_1", active_s=0.0, idle_s=0.0, slices_viewed={}, grid=grid, shown=shown)

    desk.open("case_1")
    desk.decide("case_1", "liver", "edit", region=None, asked_again=False)
    beat(Shown(quality=False, overlay=True))
    desk.decide("case_1", "tumour", "edit", region=None, asked_again=False)
    beat(Shown(quality=True, overlay=False))  # the mask was seen before
    desk.decide("case_1", "tumour", "absent", region=None, asked_again=False)
    events = [event for event in ReviewStore.open(folder).log.events() if event.event == "decide"]
    shown = [(event.quality_shown, event.overlay_shown) for event in events]
    assert shown == [(None, None), (False, True), (True, True)]


def test_somebody_who_has_hardly_looked_is_asked_once(tmp_path):
    """Liver lies in two axial slices: one that was displayed is half of them, which the policy asks for."""
    time = Time()
    folder = make_drafts(tmp_path)
    desk = desk_of(folder, time=time)
    grid = desk.views.grid("case_1")
    desk.open("case_1")
    asked = desk.decide("case_1", "liver", "accept", region=None, asked_again=False)
    assert "0 of the 2 slices" in asked["asked"]
    assert asked["decisions"] == {}
    time.now_s += 15
    desk.heartbeat("case_1", active_s=15.0, idle_s=0.0, slices_viewed={"axial": [2, 99, -1]}, grid=grid)
    answer = desk.decide("case_1", "tumour", "accept", region=None, asked_again=False)
    assert (answer["asked"], answer["decisions"]) == (None, {"tumour": "accept"})
    answer = desk.decide("case_1", "liver", "accept", region=None, asked_again=False)
    assert answer["asked"] is None


def test_slices_of_a_box_are_counted_in_the_whole(tmp_path):
    """Slice 3 of a box that begins at slice 1 is slice 4 of the whole, where nothing is."""
    time = Time()
    desk = desk_of(make_drafts(tmp_path), time=time)
    desk.open("case_1")
    time.now_s += 15
    box = desk.views.grid("case_1", box_xyz="0,0,1,8,6,5")
    desk.heartbeat("case_1", active_s=15.0, idle_s=0.0, slices_viewed={"axial": [3]}, grid=box)
    assert "0 of the 2" in desk.decide("case_1", "liver", "accept", region=None, asked_again=False)["asked"]
    time.now_s += 15
    desk.heartbeat("case_1", active_s=15.0, idle_s=0.0, slices_viewed={"axial": [1]}, grid=box)  # slice 2 of the whole
    assert desk.decide("case_1", "tumour", "accept", region=None, asked_again=False)["asked"] is None


# ---- pictures ----


def test_a_photograph_is_shown_in_its_colours_and_without_letters(tmp_path):
    rng = np.random.default_rng(0)
    photo = rng.integers(0, 255, (6, 9, 3), np.uint8)
    mask = np.zeros((1, 6, 9), np.uint8)
    mask[0, 1, 7] = 1
    folder = tmp_path / "masks"
    folder.mkdir()
    (tmp_path / "images").mkdir()
    Image.fromarray(photo).save(tmp_path / "images" / "eye.png")
    write_labels(folder / "eye.png", mask, Geometry.of((1, 6, 9), np.diag([1.0, -1.0, -1.0, 1.0])[[2, 1, 0, 3]]))
    LABELS.save(folder / LABELS_FILE)
    PredictionSettings(configuration="2d", folds=("0",), weights_digest="a" * 64, step=0.5, mirroring=True).save(
        folder / "prediction.json"
    )
    MaskFacts(images="../images").save(folder / FACTS_FILE)
    desk = desk_of(folder)
    grid = desk.views.grid("eye")
    told = desk.case("eye", grid)
    assert (told["is_picture"], told["has_letters"], told["is_ct"]) == (True, False, False)
    assert told["structures"][0]["volume_ml"] is None
    assert (told["structures"][0]["size"], told["structures"][0]["size_unit"]) == (1.0, "px")
    shown = desk.views.image("eye", grid).array
    assert shown.shape == (1, 6, 9, 3)
    label = desk.views.label("eye", 0, grid)
    (place,) = np.argwhere(label)
    np.testing.assert_array_equal(shown[tuple(place)], photo[1, 7])  # mask and colours lie on each other
    # Rows of the picture run downwards: the first one is served last
    np.testing.assert_array_equal(shown[0], photo[::-1, ::-1])
    desk.open("eye")
    label = label.copy()
    label[0, 5, 8] = 2
    desk.save("eye", bitmap(desk, "eye", label))
    assert np.argwhere(desk.store.read("eye", 1).array[0] == 2).tolist() == [[0, 0, 0]]


def test_an_id_that_is_no_case_is_not_found(tmp_path):
    desk = desk_of(make_drafts(tmp_path))
    for name in ("", "..", "../case_1", "case_1.nii.gz", "CASE_1", "review"):
        with pytest.raises(NotFound):
            desk.case_of(name)
    assert desk.case_of("case_1") == "case_1"


def test_a_save_of_another_origin_is_refused(tmp_path):
    desk = desk_of(make_drafts(tmp_path))
    desk.open("case_1")
    drawn = desk.views.label("case_1", 0, desk.views.grid("case_1"))
    with pytest.raises(UserError, match="origin"):
        desk.save("case_1", bitmap(desk, "case_1", drawn, origin="model"))
