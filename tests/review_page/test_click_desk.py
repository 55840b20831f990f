"""Clicks that the page sends: what comes back is what a planted refiner, which answers with balls, has changed."""

from __future__ import annotations

import base64
import gzip
from dataclasses import replace

import nibabel
import numpy as np
import pytest

from builders.drafts_folder import AFFINE_LPS, LABELS, SHAPE, drawn_mask, make_drafts, write_volume
from builders.planted_refiner import DIGEST, RADIUS_MM, TOO_DARK, BallRefiner
from builders.refiner import Planted, bright
from builders.refiner import refiner as planted_network
from segfw.base.errors import UserError
from segfw.review_page.click_desk import PageClick
from segfw.review_page.review_desk import Bitmap, Refused, ReviewDesk, Seat
from segfw.review_page.served_grid import ServedGrid
from segfw.reviewing.people import Person
from segfw.reviewing.review_ledger import read_ledger
from segfw.reviewing.review_store import ReviewStore

ANNA = Person(user="Anna")
SPACING_XYZ = (0.5, 2.0, 5.0)


@pytest.fixture
def folder(tmp_path):
    return make_drafts(tmp_path)


@pytest.fixture
def refiner():
    return BallRefiner(LABELS)


@pytest.fixture
def desk(folder, refiner):
    made = ReviewDesk(ReviewStore.open(folder), Seat(person=ANNA), refiner=refiner)
    made.open("case_1")
    return made


def drawn(desk, case="case_1", grid=None):
    grid = grid or desk.views.grid(case)
    return Bitmap(indexes_zyx=desk.views.label(case, 0, grid), grid=grid, group=0, base=0)


def click(at_xyz, structure="liver", *, inside=True, overwrite=False, after=0):
    return PageClick(structure=structure, at_xyz=at_xyz, is_inside=inside, may_overwrite=overwrite, after=after)


def unpacked(answer):
    x0, y0, z0, x1, y1, z1 = answer["box_xyz"]
    content = gzip.decompress(base64.b64decode(answer["values"]))
    return np.frombuffer(content, np.uint8).reshape(z1 - z0, y1 - y0, x1 - x0)


def put(bitmap, answer):
    x0, y0, z0, x1, y1, z1 = answer["box_xyz"]
    after = bitmap.copy()
    after[z0:z1, y0:y1, x0:x1] = unpacked(answer)
    return after


def page_ball(at_xyz, shape=SHAPE):
    """Voxels of the page's order that a planted ball holds."""
    z, y, x = np.indices(shape)
    squares = [((index - at) * edge_mm) ** 2 for index, at, edge_mm in zip((x, y, z), at_xyz, SPACING_XYZ)]
    return sum(squares) <= RADIUS_MM**2 + 1e-6


def test_what_comes_back_is_the_ball_at_the_voxel_that_was_clicked(desk):
    bitmap = drawn(desk)
    before = bitmap.indexes_zyx
    at = (1, 4, 1)  # x y z of the page, which the file has as x = 6, y = 1
    answer = desk.refine("case_1", click(at), bitmap)
    wanted = before.copy()
    wanted[page_ball(at) & (before == 0)] = 1
    assert 0 < (wanted != before).sum() < 40
    np.testing.assert_array_equal(put(before, answer), wanted)
    places = np.argwhere(wanted != before)[:, ::-1]  # x y z
    assert answer["box_xyz"] == [*places.min(0), *(places.max(0) + 1)]
    assert (answer["asked"], answer["is_cut"], answer["seconds"]) == (None, False, 0.25)
    assert desk.source.standing("case_1").version == 0  # nothing is stored


def test_a_click_that_says_no_takes_the_ball_away_and_leaves_others(desk):
    bitmap = drawn(desk)
    before = bitmap.indexes_zyx
    at = (3, 3, 2)
    answer = desk.refine("case_1", click(at, inside=False), bitmap)
    wanted = before.copy()
    wanted[page_ball(at) & (before == 1)] = 0
    assert (before[page_ball(at)] == 2).any()  # the tumour lies there, and stays
    np.testing.assert_array_equal(put(before, answer), wanted)


def test_what_is_drawn_and_not_saved_is_what_the_click_works_on(desk, refiner):
    bitmap = drawn(desk)
    edited = bitmap.indexes_zyx.copy()
    edited[page_ball((1, 4, 1))] = 1
    mine = Bitmap(indexes_zyx=edited, grid=bitmap.grid, group=0, base=0)
    answer = desk.refine("case_1", click((1, 4, 1)), mine)
    assert (answer["box_xyz"], answer["values"]) == (None, "")  # all of the ball is there already
    assert desk.refine("case_1", click((1, 4, 1)), bitmap)["box_xyz"] is not None  # and undone on the page it is not
    assert len(refiner.opened) == 1  # the image was read once


def test_only_what_is_drawn_since_is_handed_on(desk, refiner):
    """Told in voxels: a box of what differs from what the refiner has, whatever is drawn, saved or undone."""
    bitmap = drawn(desk)
    before = bitmap.indexes_zyx

    def of(indexes, base=0):
        return Bitmap(indexes_zyx=indexes, grid=bitmap.grid, group=0, base=base)

    first = desk.refine("case_1", click((1, 4, 1)), bitmap)
    [case] = refiner.cases
    assert case.told == []  # the version that was opened is what is drawn
    after = put(before, first)
    second = desk.refine("case_1", click((6, 1, 3), after=first["click"]), of(after))
    assert case.told == []  # what the click has changed it knows
    by_hand = put(after, second)
    by_hand[0, 0, 0:3] = 2
    desk.refine("case_1", click((6, 1, 3), after=second["click"]), of(by_hand))
    assert case.told == [3]
    np.testing.assert_array_equal(case.mask.array[0][:, ::-1, ::-1], by_hand)
    saved = desk.save("case_1", of(by_hand))["version"]
    desk.refine("case_1", click((6, 1, 3), after=second["click"]), of(by_hand, saved))
    assert case.told == [3]
    desk.refine("case_1", click((1, 4, 1), inside=False), of(before, saved))
    assert case.told == [3, 3]  # both clicks were taken back by the refiner itself
    np.testing.assert_array_equal(case.before_after[-1][0][:, ::-1, ::-1], before)


def test_random_edits_and_clicks_leave_the_refiner_with_what_is_drawn(tmp_path):
    """Property over seeds: after any edits, undone clicks and boxes the refiner works on what the page shows."""
    for seed in range(6):
        rng = np.random.default_rng(seed)
        folder = make_drafts(tmp_path / str(seed))
        refiner = BallRefiner(LABELS)
        desk = ReviewDesk(ReviewStore.open(folder), Seat(person=ANNA), refiner=refiner)
        own = desk.views.grid("case_1")
        part = ServedGrid(own.file, ((1, 4), (1, 5), (2, 7)))
        whole = desk.views.label("case_1", 0, own).copy()
        kept = []  # number and bitmap before, of clicks that stand
        for _ in range(12):
            if rng.random() < 0.4:
                z, y, x = (int(rng.integers(0, size)) for size in whole.shape)
                whole[z, y : y + 2, x : x + 2] = rng.integers(0, 3)
                kept = []
            elif kept and rng.random() < 0.4:
                whole = kept.pop()[1]
            grid = part if rng.random() < 0.3 else own
            if grid is part:  # what lies outside of it is as in the version
                whole = desk.views.mask("case_1", 0).array[0][:, ::-1, ::-1].copy()
                whole[1:4, 1:5, 2:7] = rng.integers(0, 3, (3, 4, 5))
                kept = []
            indexes = whole[1:4, 1:5, 2:7].copy() if grid is part else whole.copy()
            at = tuple(int(rng.integers(0, size)) for size in indexes.shape[::-1])
            after = kept[-1][0] if kept else 0
            asked = click(at, inside=bool(rng.random() < 0.5), overwrite=True, after=after)
            answer = desk.refine("case_1", asked, Bitmap(indexes_zyx=indexes, grid=grid, group=0, base=0))
            case = refiner.cases[-1]
            np.testing.assert_array_equal(case.before_after[-1][0][:, ::-1, ::-1], whole)
            if answer["box_xyz"] is not None and grid is own:
                kept.append((answer["click"], whole.copy()))
                whole = put(whole, answer)
                np.testing.assert_array_equal(case.mask.array[0][:, ::-1, ::-1], whole)


def test_another_structure_is_asked_about_and_then_overwritten(desk):
    bitmap = drawn(desk)
    [(z, y, x)] = np.argwhere(bitmap.indexes_zyx == 2)
    at = (int(x), int(y), int(z))
    answer = desk.refine("case_1", click(at), bitmap)
    assert answer == {"asked": "the click lies in tumour; say whether it may be overwritten"}
    answer = desk.refine("case_1", click(at, overwrite=True), bitmap)
    assert set(np.unique(put(bitmap.indexes_zyx, answer)[page_ball(at)])) == {1}


def test_what_lies_beyond_the_served_part_is_told_and_not_sent(folder, refiner):
    desk = ReviewDesk(ReviewStore.open(folder), Seat(person=ANNA), refiner=refiner)
    grid = ServedGrid(desk.views.geometry("case_1"), ((1, 3), (2, 5), (2, 6)))
    bitmap = drawn(desk, grid=grid)
    answer = desk.refine("case_1", click((0, 0, 1)), bitmap)  # the ball reaches out of the box to the left
    assert answer["is_cut"]
    x0, y0, z0, x1, y1, z1 = answer["box_xyz"]
    assert (x0, y0, z0) >= (0, 0, 0)
    assert (x1, y1, z1) <= (4, 3, 2)
    wanted = bitmap.indexes_zyx.copy()
    is_ball = page_ball((2, 2, 2))[1:3, 2:5, 2:6]
    wanted[is_ball & (wanted == 0)] = 1
    np.testing.assert_array_equal(put(bitmap.indexes_zyx, answer), wanted)


@pytest.mark.parametrize("at", [(8, 0, 0), (0, 6, 0), (0, 0, 5)])
def test_a_click_outside_of_the_image_is_refused(desk, at):
    with pytest.raises(UserError, match="lies outside of the image"):
        desk.refine("case_1", click(at), drawn(desk))


def test_what_cannot_be_done_is_said_in_words(folder, refiner, desk):
    with pytest.raises(UserError, match="has no structure 'spleen'; give one of liver, tumour"):
        desk.refine("case_1", click((1, 1, 1), "spleen"), drawn(desk))
    without = ReviewDesk(ReviewStore.open(folder), Seat(person=ANNA))
    with pytest.raises(Refused, match="start segfw review with --refiner MODEL"):
        without.refine("case_1", click((1, 1, 1)), drawn(desk))
    looking = ReviewDesk(ReviewStore.open(folder), Seat(person=ANNA, is_read_only=True), refiner=refiner)
    with pytest.raises(Refused, match="--read-only"):
        looking.refine("case_1", click((1, 1, 1)), drawn(desk))
    write_volume(folder.parent / "images" / "case_2_0000.nii.gz", np.full(SHAPE, TOO_DARK, np.int16), AFFINE_LPS)
    with pytest.raises(UserError, match="give one of the modality it was trained on"):
        desk.refine("case_2", click((1, 1, 1)), drawn(desk, "case_2"))
    (folder.parent / "images" / "case_2_0000.nii.gz").unlink()
    later = ReviewDesk(ReviewStore.open(folder), Seat(person=ANNA), refiner=refiner)
    with pytest.raises(UserError, match="its image is not found any more"):
        later.refine("case_2", click((1, 1, 1)), drawn(later, "case_2"))


def test_another_image_is_read_and_a_changed_one_again(desk, folder, refiner):
    for case in ("case_1", "case_1", "case_2", "case_1"):
        desk.refine(case, click((1, 1, 1)), drawn(desk, case))
    assert [names[0] for names in refiner.opened] == [f"case_{n}_0000.nii.gz" for n in (1, 2, 1)]
    write_volume(folder.parent / "images" / "case_1_0000.nii.gz", np.ones(SHAPE, np.int16), AFFINE_LPS)
    desk.refine("case_1", click((1, 1, 1)), drawn(desk))
    assert len(refiner.opened) == 4
    assert [case.is_closed for case in refiner.cases] == [True, True, True, False]


def test_clicks_that_the_page_has_undone_are_forgotten(desk, refiner):
    bitmap = drawn(desk)

    def number(inside, after):
        return desk.refine("case_1", click((1, 4, 1), inside=inside, after=after), bitmap)["click"]

    first = number(True, 0)
    second = number(False, first)
    number(True, second)
    number(False, first)  # two were undone
    [case] = refiner.cases
    assert [inside for _, inside in case.remembered] == [True, False]
    number(True, 0)  # all were
    assert [inside for _, inside in case.remembered] == [True]
    number(True, 10_000)  # of a page that was loaded anew, or of another server
    assert len(case.remembered) == 1


def test_clicks_that_cannot_be_undone_any_more_are_taken_back_one_by_one_and_the_others_stay(desk, refiner):
    """A long history: the refiner no longer knows what a click changed, and is told all that is drawn."""
    bitmap = drawn(desk)
    first = desk.refine("case_1", click((1, 4, 1)), bitmap)
    before = put(bitmap.indexes_zyx, first)
    second = desk.refine("case_1", click((6, 1, 3), after=first["click"]), replace(bitmap, indexes_zyx=before))
    after = put(before, second)
    assert (after != before).any()
    [case] = refiner.cases
    case.most_undone = 0
    desk.refine("case_1", click((1, 4, 1), inside=False, after=first["click"]), replace(bitmap, indexes_zyx=before))
    assert refiner.cases == [case]  # the image was not read again
    assert [inside for _, inside in case.remembered] == [True, False]  # the first, and the one of now
    drawn_now = desk.refine("case_1", click((1, 4, 1), after=0), bitmap)
    assert [inside for _, inside in case.remembered] == [True]
    np.testing.assert_array_equal(put(bitmap.indexes_zyx, drawn_now), before)


def test_the_version_says_how_many_clicks_of_which_refiner_and_the_ledger_counts_their_voxels(desk, folder):
    bitmap = drawn(desk)
    answer = desk.refine("case_1", click((1, 4, 1)), bitmap)
    after = put(bitmap.indexes_zyx, answer)
    voxels = int((after != bitmap.indexes_zyx).sum())
    saved = Bitmap(indexes_zyx=after, grid=bitmap.grid, group=0, base=0, clicks=1)
    assert desk.save("case_1", saved)["version"] == 1
    [version] = desk.source.versions("case_1")
    assert version.editor_tool.endswith(f", 1 click of refiner {DIGEST}")
    assert version.editor_tool.startswith("segfw review ")
    assert version.edited_voxels["liver"].added == voxels
    desk.decide("case_1", "liver", "edit", region=None, asked_again=False)
    assert [(row.structure, row.edited_voxels) for row in read_ledger(folder)] == [("liver", voxels)]
    by_hand = Bitmap(indexes_zyx=bitmap.indexes_zyx, grid=bitmap.grid, group=0, base=1)
    desk.save("case_1", by_hand)
    assert "refiner" not in desk.source.versions("case_1")[-1].editor_tool


def test_the_page_is_told_whether_there_is_a_refiner(desk, folder):
    assert desk.session()["refiner"] == DIGEST
    assert ReviewDesk(ReviewStore.open(folder), Seat(person=ANNA)).session()["refiner"] is None


# ---- proposed places ----


def write_fold(folder, number, mask):
    write_volume(folder / "plausible" / f"case_1_fold_{number}.nii.gz", mask, AFFINE_LPS)


def test_places_are_those_where_the_folds_contradict_the_mask(desk, folder):
    lacking = drawn_mask()
    lacking[1, 1:4, 2] = 0  # of the file; z 1, y 1 to 3, x 2
    write_fold(folder, 0, lacking)
    write_fold(folder, 1, drawn_mask())
    places = desk.click_places("case_1", "liver", 0, desk.views.grid("case_1"))["places"]
    [place] = places
    # The page's x and y run the other way: x = 7 - 2, y = 5 - 2
    assert place["at_xyz"] == [5, 3, 1]
    assert place["box_xyz"] == [5, 2, 1, 6, 5, 2]
    assert not place["inside"]
    assert place["wrong_mm3"] == pytest.approx(3 * 0.5 * 5.0)  # half of the folds, 5 mm3 a voxel
    assert desk.click_places("case_1", "tumour", 0, desk.views.grid("case_1"))["places"] == []


def test_without_folds_the_map_of_doubt_says_it_and_without_both_nothing_does(desk, folder):
    grid = desk.views.grid("case_1")
    assert desk.click_places("case_1", "liver", 0, grid) == {"places": []}
    doubt = np.zeros(SHAPE, np.float32)
    doubt[1, 1, 1] = 0.9
    write_volume(folder / "uncertainty" / "case_1_entropy.nii.gz", doubt, AFFINE_LPS)
    [place] = desk.click_places("case_1", "liver", 0, grid)["places"]
    assert place["at_xyz"] == [6, 4, 1]
    assert place["inside"]
    with pytest.raises(UserError, match="has no structure 'spleen'"):
        desk.click_places("case_1", "spleen", 0, grid)


def test_who_reads_blind_is_told_no_places(folder, refiner):
    write_fold(folder, 0, np.zeros(SHAPE, np.uint8))
    blind = ReviewDesk(ReviewStore.open(folder), Seat(person=ANNA, is_blind=True), refiner=refiner)
    with pytest.raises(Refused, match="hidden until you have decided"):
        blind.click_places("case_1", "liver", 0, blind.views.grid("case_1"))


def test_the_affine_that_counts_is_the_files(desk, folder):
    """A click names a voxel of the page; where that is in the patient the file says."""
    grid = desk.views.grid("case_1")
    affine = nibabel.load(folder / "case_1.nii.gz").affine
    assert click((1, 4, 1)).ras_mm(grid) == pytest.approx((affine @ (6, 1, 1, 1))[:3])


def test_the_refiner_of_segfw_answers_in_the_order_of_the_page(tmp_path):
    """With a planted network, which finds the structure where the image is bright."""
    mask = np.zeros((10, 30, 28), np.uint8)
    mask[2:4, 2:5, 2:6] = 1
    mask[5, 20, 21] = 2
    folder = make_drafts(tmp_path, {"case_1": mask})
    image = np.zeros(mask.shape, np.float32)
    image[4:8, 16:24, 10:20] = 1  # of the file
    write_volume(tmp_path / "images" / "case_1_0000.nii.gz", image, AFFINE_LPS)
    real = planted_network(Planted(bright), spacing_mm=(5.0, 2.0, 0.5), labels=LABELS)
    desk = ReviewDesk(ReviewStore.open(folder), Seat(person=ANNA), refiner=real)
    bitmap = drawn(desk)
    before = bitmap.indexes_zyx
    x, y, z = 27 - 14, 29 - 20, 5  # x and y of the page run the other way
    answer = desk.refine("case_1", click((x, y, z)), bitmap)
    wanted = before.copy()
    wanted[(image > 0)[:, ::-1, ::-1] & (before == 0)] = 1
    assert (wanted != before).sum() == 4 * 8 * 10
    np.testing.assert_array_equal(put(before, answer), wanted)
    assert answer["seconds"] >= 0
    inside_tumour = click((27 - 21, 29 - 20, 5))
    assert "tumour" in desk.refine("case_1", inside_tumour, bitmap)["asked"]
    # Undone on the page, the click is forgotten, and the same click gives the same again
    again = desk.refine("case_1", click((x, y, z)), bitmap)
    assert again["values"] == answer["values"]
    two = planted_network(Planted(bright), spacing_mm=(5.0, 2.0, 0.5), labels=LABELS, channels=("T1", "T2"))
    other = ReviewDesk(ReviewStore.open(folder), Seat(person=ANNA), refiner=two)
    with pytest.raises(UserError, match="1 channel, but the refiner was trained on 2"):
        other.refine("case_1", click((1, 1, 1)), bitmap)
