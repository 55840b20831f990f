"""The click tool in a real browser, with a real server and a planted refiner that answers each click with a ball."""

from __future__ import annotations

import json
from collections.abc import Iterator
from pathlib import Path
from typing import Any
from urllib.parse import parse_qs, urlsplit

import nibabel
import numpy as np
import pytest

from builders.drafts_folder import liver_with_tumour, make_drafts, write_volume
from builders.planted_refiner import DIGEST, RADIUS_MM
from builders.review_hand import SCREEN, Hand, hand_at
from builders.review_server import Reviewer, review_server
from segfw.reviewing.review_store import ReviewStore

PROGRAM = ("builders.planted_refiner",)
# x to the left, y to the back, z to the head; voxels of 1 x 1.5 x 3 mm
AFFINE = np.array([[-1.0, 0, 0, 12], [0, -1.5, 0, 15], [0, 0, 3.0, -18], [0, 0, 0, 1]])
SPACING_XYZ = (1.0, 1.5, 3.0)
SHAPE = (12, 20, 24)  # z y x
CASES = ("clicked", "refused", "keys", "asked", "waiting", "places", "saved", "unlocked", "stands", "long")
LIVER = 1
TUMOUR = 2
CLICKS = f"{SCREEN}.clicks"


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = make_drafts(
        tmp_path_factory.mktemp("clicks"), {case: liver_with_tumour() for case in CASES}, affine_xyz=AFFINE
    )
    lacking = liver_with_tumour()
    lacking[3:7, 5:13, 9:12] = 0  # of the file: 8 rows, 4 slices and 3 columns that one fold has not
    write_volume(folder / "plausible" / "places_fold_0.nii.gz", lacking, AFFINE)
    return folder


@pytest.fixture(scope="module")
def gate(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The refiner answers while this file is there."""
    path = tmp_path_factory.mktemp("gate") / "open"
    path.touch()
    return path


@pytest.fixture(scope="module")
def server(folder: Path, gate: Path, chromium: Any) -> Iterator[Reviewer]:
    with review_server(folder, "--slow-until", str(gate), program=PROGRAM) as reviewer:
        yield reviewer


@pytest.fixture(scope="module")
def hand(chromium: Any, server: Reviewer) -> Iterator[Hand]:
    with hand_at(chromium, server) as hand:
        hand.enter()
        yield hand
        hosts = {urlsplit(url).hostname for url in hand.requests if not url.startswith(("data:", "blob:"))}
        assert hosts == {"127.0.0.1"}
        assert any("/api/refine?" in url for url in hand.requests)  # else this proves nothing


def page_ball(at_xyz: tuple[int, int, int]) -> np.ndarray:
    """Voxels of the page's order that a planted ball holds."""
    z, y, x = np.indices(SHAPE)
    squares = [((index - at) * edge_mm) ** 2 for index, at, edge_mm in zip((x, y, z), at_xyz, SPACING_XYZ)]
    return sum(squares) <= RADIUS_MM**2 + 1e-6


def begin(hand: Hand, case: str, structure: int = LIVER) -> np.ndarray:
    """Opens a case with the click tool; its bitmap."""
    hand.open(case)
    hand.value(f"{SCREEN}.select({structure})")
    hand.press("Shift+R")
    hand.until(f"{SCREEN}.tool === 'refine'")
    return hand.bitmap


def answered(hand: Hand) -> None:
    """Waits until the refiner owes nothing."""
    hand.until(f"{CLICKS}.waiting === 0")


def said(hand: Hand) -> str:
    """The newest line at the lower edge."""
    return hand.page.inner_text("#said p:last-child")


def click_at(
    hand: Hand, voxel: tuple[int, int, int], plane: str = "axial", *, modifiers: list[str] | None = None
) -> None:
    """One click with the mouse on a voxel."""
    hand.go_to(voxel)
    x, y = hand.place(plane, voxel)
    for key in modifiers or []:
        hand.page.keyboard.down(key)
    hand.page.mouse.click(x, y)
    for key in modifiers or []:
        hand.page.keyboard.up(key)


def test_a_click_changes_its_box_alone_and_undo_brings_every_voxel_back(hand):
    before = begin(hand, "clicked")
    at = (9, 10, 5)
    click_at(hand, at)
    answered(hand)
    wanted = before.copy()
    wanted[page_ball(at) & (before == 0)] = LIVER
    assert (wanted != before).sum() > 20  # else this proves nothing
    np.testing.assert_array_equal(hand.bitmap, wanted)
    shown = hand.value(f"{SCREEN}.viewer.view.clicked.box")
    places = np.argwhere(wanted != before)[:, ::-1]
    assert shown == [[int(low), int(high) + 1] for low, high in zip(places.min(0), places.max(0))]
    assert f"+{(wanted != before).sum()} −0" in said(hand)

    hand.press("z")
    np.testing.assert_array_equal(hand.bitmap, before)
    assert hand.value(f"{SCREEN}.viewer.view.clicked") is None
    hand.press("Shift+Z")
    np.testing.assert_array_equal(hand.bitmap, wanted)

    # Without the structure's voxels that a click with Shift takes away again, in another plane
    other = (at[0] + 2, at[1], at[2])
    click_at(hand, other, "coronal", modifiers=["Shift"])
    answered(hand)
    without = wanted.copy()
    without[page_ball(other) & (wanted == LIVER)] = 0
    np.testing.assert_array_equal(hand.bitmap, without)
    assert (without == TUMOUR).sum() == (before == TUMOUR).sum()
    hand.press("z", "z")
    np.testing.assert_array_equal(hand.bitmap, before)


def test_the_keyboard_alone_clicks_at_the_crossing_keeps_and_undoes(hand):
    before = begin(hand, "keys")
    hand.go_to((9, 10, 5))
    hand.press("Shift+ArrowRight", "ArrowUp", "Enter")  # to the right of the screen is the patient's left
    answered(hand)
    at = (8, 10, 6)
    wanted = before.copy()
    wanted[page_ball(at) & (before == 0)] = LIVER
    np.testing.assert_array_equal(hand.bitmap, wanted)
    hand.press("Shift+A")
    assert hand.value(f"{SCREEN}.viewer.view.clicked") is None
    np.testing.assert_array_equal(hand.bitmap, wanted)
    hand.press("Shift+Enter")
    answered(hand)
    assert (hand.bitmap[page_ball(at)] == LIVER).sum() == 0
    hand.press("Shift+X")
    assert hand.page.inner_text('[data-action="refine_side"] span') == "− does not"
    hand.press("z", "Enter")
    answered(hand)
    assert (hand.bitmap[page_ball(at)] == LIVER).sum() == 0
    hand.press("z", "z", "Shift+X")
    np.testing.assert_array_equal(hand.bitmap, before)


def test_another_structure_is_asked_about_and_stays_where_it_may_not_be_taken(hand):
    before = begin(hand, "asked")
    z, y, x = (int(index) for index in np.argwhere(before == TUMOUR)[0])
    click_at(hand, (x, y, z))
    hand.page.wait_for_selector("dialog")
    assert "tumour" in hand.page.inner_text("dialog")
    hand.press("Enter")  # leave it
    answered(hand)
    np.testing.assert_array_equal(hand.bitmap, before)
    click_at(hand, (x, y, z))
    hand.page.click('dialog [data-answer="overwrite"]')
    answered(hand)
    wanted = before.copy()
    wanted[page_ball((x, y, z))] = LIVER
    np.testing.assert_array_equal(hand.bitmap, wanted)
    hand.press("z")
    np.testing.assert_array_equal(hand.bitmap, before)


def test_who_unlocked_other_structures_is_not_asked(hand):
    before = begin(hand, "unlocked")
    z, y, x = (int(index) for index in np.argwhere(before == TUMOUR)[0])
    hand.press("y")
    click_at(hand, (x, y, z))
    answered(hand)
    assert set(np.unique(hand.bitmap[page_ball((x, y, z))])) == {LIVER}
    hand.press("z", "y")
    np.testing.assert_array_equal(hand.bitmap, before)


def test_a_second_click_waits_and_nothing_else_is_drawn_meanwhile(hand, gate):
    before = begin(hand, "waiting")
    gate.unlink()
    first = (9, 10, 5)
    second = (14, 3, 5)
    click_at(hand, first)
    click_at(hand, second)
    assert hand.value(f"{CLICKS}.waiting") == 2
    assert hand.page.get_attribute(".viewer", "aria-busy") == "true"
    assert "the refiner is working: 2 waiting" in hand.page.inner_text(".status")
    hand.press("z", "f", "b")
    assert "still working" in said(hand)
    assert hand.value(f"{SCREEN}.tool") == "refine"
    np.testing.assert_array_equal(hand.bitmap, before)
    gate.touch()
    answered(hand)
    wanted = before.copy()
    for at in (first, second):
        wanted[page_ball(at) & (wanted == 0)] = LIVER
    np.testing.assert_array_equal(hand.bitmap, wanted)
    assert hand.page.get_attribute(".viewer", "aria-busy") == "false"
    hand.press("z", "z")
    np.testing.assert_array_equal(hand.bitmap, before)


def test_nothing_else_is_drawn_or_clicked_while_a_stroke_is(hand):
    """Keys work while the button is down; the stroke is undone as a whole all the same."""
    hand.open("refused")
    before = hand.bitmap
    hand.value(f"{SCREEN}.select({LIVER})")
    hand.press("b")
    hand.go_to((9, 3, 5))
    hand.page.mouse.move(*hand.place("axial", (9, 3, 5)))
    hand.page.mouse.down()
    hand.until(f"{SCREEN}.stroke?.kind === 'draw'")
    hand.press("Enter", "Shift+R", "Enter")
    answered(hand)
    hand.page.mouse.up()
    hand.drawn()
    assert (hand.bitmap != before).any()
    hand.press("z", "z", "z")
    np.testing.assert_array_equal(hand.bitmap, before)
    hand.press("b")


def test_an_answer_that_comes_after_the_case_was_left_changes_nothing(hand, gate):
    begin(hand, "waiting")
    gate.unlink()
    click_at(hand, (9, 10, 5))
    hand.value(f"window.left = {SCREEN}, 1")
    hand.open("places")
    before = hand.bitmap
    gate.touch()
    hand.until("window.left.clicks.waiting === 0")
    np.testing.assert_array_equal(hand.bitmap, before)
    hand.open("waiting")
    assert hand.value(f"{SCREEN}.open.base") == 0


def test_clicks_are_counted_in_the_version_and_those_undone_are_not(hand, folder):
    before = begin(hand, "saved")
    for at in ((9, 10, 5), (14, 3, 5)):
        click_at(hand, at)
    answered(hand)
    hand.press("z")
    drawn = hand.bitmap
    assert (drawn != before).any()
    assert hand.save() == 1
    path = folder / "review" / "labels" / "saved" / "v0001"
    record = json.loads(path.with_suffix(".json").read_text(encoding="utf-8"))
    assert record["editor_tool"].endswith(f", 1 click of refiner {DIGEST}")
    assert record["origin"] == "edited"
    saved = np.asarray(nibabel.load(path.with_suffix(".nii.gz")).dataobj).T
    np.testing.assert_array_equal(saved[:, ::-1, ::-1], drawn)
    hand.press("z")  # past what was saved
    assert hand.save() == 2
    record = json.loads((path.parent / "v0002.json").read_text(encoding="utf-8"))
    assert "refiner" not in record["editor_tool"]
    assert ReviewStore.open(folder).log.verify().ok


def telling(hand):
    """A function that clicks on a voxel and gives the number of the click that was told to stand."""
    asked = []
    hand.page.on("request", lambda request: asked.append(request.url) if "/api/refine?" in request.url else None)

    def click_and_tell(voxel):
        click_at(hand, voxel)
        answered(hand)
        [after] = parse_qs(urlsplit(asked[-1]).query)["after"]
        return int(after)

    return click_and_tell


def test_clicks_stand_whose_changes_a_long_history_can_no_longer_take_back(hand):
    begin(hand, "long")
    hand.value(f"{SCREEN}.open.editor.history.mostBytes = 1")  # so that the newest change alone can be undone
    click_and_tell = telling(hand)
    assert click_and_tell((9, 10, 5)) == 0
    first = click_and_tell((14, 3, 5))
    assert first > 0
    assert click_and_tell((5, 10, 9)) == first + 1
    assert hand.value(f"{SCREEN}.open.editor.history.done.length") == 1
    hand.press("z")  # the third
    assert click_and_tell((5, 3, 9)) == first + 1
    assert hand.value(f"{SCREEN}.open.editor.history.standing.length") == 3


def test_the_refiner_is_told_which_clicks_stand(hand):
    begin(hand, "stands")
    click_and_tell = telling(hand)

    assert click_and_tell((9, 10, 5)) == 0
    first = click_and_tell((14, 3, 5))
    assert first > 0
    second = click_and_tell((16, 10, 5))  # inside of the liver: it changes nothing, and still counts
    assert second == first + 1
    third = click_and_tell((5, 10, 9))
    assert third == second + 1
    hand.press("z")  # the fourth
    assert click_and_tell((5, 3, 9)) == third
    hand.press("z", "z")  # the fifth and the second, and with it the third
    assert click_and_tell((5, 3, 9)) == first


def test_it_goes_to_where_the_folds_disagree_and_changes_nothing(hand):
    before = begin(hand, "places")
    hand.press("Shift+N")
    hand.until(f"{SCREEN}.viewer.view.box")
    voxel = hand.value(f"{SCREEN}.viewer.voxel")
    # In the file x = 9 to 11, y = 5 to 12 and z = 3 to 6 are doubtful; the page's x and y run the other way.
    assert 12 <= voxel[0] <= 14
    assert 7 <= voxel[1] <= 14
    assert 3 <= voxel[2] <= 6
    assert "perhaps this is not liver" in said(hand)
    np.testing.assert_array_equal(hand.bitmap, before)
    assert not hand.value(f"{SCREEN}.open.isDirty")
    hand.value(f"{SCREEN}.select({TUMOUR})")
    hand.press("Shift+N")
    hand.until("document.querySelector('#said').innerText.includes('disagree nowhere')")


def test_what_the_server_refuses_is_said_and_the_mask_stays(hand):
    before = begin(hand, "refused")
    hand.page.route("**/api/refine?*", lambda route: route.fulfill(status=400, json={"error": "of another modality"}))
    click_at(hand, (9, 10, 5))
    answered(hand)
    hand.page.unroute("**/api/refine?*")
    assert "of another modality" in said(hand)
    np.testing.assert_array_equal(hand.bitmap, before)
    hand.value("AbortSignal.given = AbortSignal.timeout, AbortSignal.timeout = () => AbortSignal.given(1), 1")
    hand.page.route("**/api/refine?*", lambda route: None)  # never answered
    click_at(hand, (9, 10, 5))
    answered(hand)
    hand.page.unroute("**/api/refine?*")
    hand.value("AbortSignal.timeout = AbortSignal.given, 1")
    assert "has not answered within 180 seconds" in said(hand)
    np.testing.assert_array_equal(hand.bitmap, before)


def test_without_a_refiner_there_is_no_click_tool(chromium, tmp_path):
    folder = make_drafts(tmp_path, {"case": liver_with_tumour()}, affine_xyz=AFFINE)
    with review_server(folder) as server, hand_at(chromium, server) as hand:
        hand.enter()
        hand.open("case")
        hand.press("Shift+R")
        assert "--refiner MODEL" in said(hand)
        assert hand.value(f"{SCREEN}.tool") == "look"
        assert not hand.page.is_visible('[data-action="refine"]')
