"""The page of ``segfw review`` in a real browser, with the real server: what is drawn is what is saved and signed."""

from __future__ import annotations

import json
from collections.abc import Iterator
from pathlib import Path
from typing import Any
from urllib.parse import urlsplit

import nibabel
import numpy as np
import pytest
from PIL import Image

from builders.drafts_folder import LABELS as LABELS_OF_DRAFTS
from builders.drafts_folder import liver_with_tumour, make_drafts, write_quality, write_table
from builders.review_hand import SCREEN, Hand, hand_at
from builders.review_server import Reviewer, review_server
from builders.waiting import kill
from segfw.review_page.page_files import PAGE_FOLDER
from segfw.reviewing.people import Person
from segfw.reviewing.review_store import ReviewStore

# x to the left, y to the back, z to the head, as most CT is stored; voxels of 1 x 1.5 x 3 mm
AFFINE = np.array([[-1.0, 0, 0, 12], [0, -1.5, 0, 15], [0, 0, 3.0, -18], [0, 0, 0, 1]])
SHAPE = (12, 20, 24)  # z y x
CASES = (
    "painted",
    "conflict",
    "signed",
    "keys",
    "held",
    "lost",
    "looked",
    "candidate",
    "autosave",
    "absent",
    "given-back",
    "finished",
)
LIVER = 1
TUMOUR = 2


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return make_drafts(
        tmp_path_factory.mktemp("review"), {case: liver_with_tumour() for case in CASES}, affine_xyz=AFFINE
    )


@pytest.fixture(scope="module")
def server(folder: Path, chromium: Any) -> Iterator[Reviewer]:
    with review_server(folder) as reviewer:
        yield reviewer


@pytest.fixture(scope="module")
def hand(chromium: Any, server: Reviewer) -> Iterator[Hand]:
    """One tab for all tests, as a reader has it the whole day."""
    with hand_at(chromium, server) as hand:
        hand.enter()
        yield hand
        hosts = {urlsplit(url).hostname for url in hand.requests if not url.startswith(("data:", "blob:"))}
        assert hosts == {"127.0.0.1"}


def served(drawn_zyx: np.ndarray) -> np.ndarray:
    """A file's array in the order of the page: x to the right, y to the front."""
    return drawn_zyx[:, ::-1, ::-1]


def version(folder: Path, case: str, number: int) -> nibabel.Nifti1Image:
    """The file of a version."""
    return nibabel.load(folder / "review" / "labels" / case / f"v{number:04}.nii.gz")


def voxels_of(image: nibabel.Nifti1Image) -> np.ndarray:
    """z y x"""
    return np.asarray(image.dataobj).T


def disc(centre_xyz: tuple[int, int, int], radius_mm: float) -> np.ndarray:
    """Voxels of the page's order whose centres are at most so far away in their axial slice."""
    z, y, x = np.indices(SHAPE)
    near = ((x - centre_xyz[0]) * 1.0) ** 2 + ((y - centre_xyz[1]) * 1.5) ** 2 <= radius_mm**2
    return near & (z == centre_xyz[2])


def set_tool(hand: Hand, tool: str, radius_mm: float) -> None:
    """Chooses structure, tool and size."""
    hand.value(f"{SCREEN}.select({LIVER})")
    if hand.value(f"{SCREEN}.tool") != tool:
        hand.press({"brush": "b", "erase": "d"}[tool])
    hand.value(f"{SCREEN}.radius_mm = {radius_mm}")


# ---- what is drawn ----


def test_what_is_painted_undone_made_again_and_saved_is_in_the_file(hand, folder):
    hand.open("painted")
    before = hand.bitmap
    np.testing.assert_array_equal(before, served(liver_with_tumour()))
    hand.go_to((18, 6, 9))
    set_tool(hand, "brush", 3)
    hand.stroke("axial", (18, 6, 9))
    painted = before.copy()
    painted[disc((18, 6, 9), 3) & (before == 0)] = LIVER
    assert (painted != before).sum() > 10  # else this proves nothing
    np.testing.assert_array_equal(hand.bitmap, painted)

    hand.press("z")
    np.testing.assert_array_equal(hand.bitmap, before)
    hand.press("Shift+Z")
    np.testing.assert_array_equal(hand.bitmap, painted)

    assert hand.save() == 1
    saved = version(folder, "painted", 1)
    np.testing.assert_array_equal(served(voxels_of(saved)), painted)
    np.testing.assert_array_equal(saved.affine, nibabel.load(folder / "painted.nii.gz").affine)
    record = json.loads((folder / "review" / "labels" / "painted" / "v0001.json").read_text(encoding="utf-8"))
    added = int((painted != before).sum())
    assert record["origin"] == "edited"
    assert list(record["edited_voxels"].values()) == [{"added": added, "removed": 0}]


def test_a_stroke_leaves_no_gap_and_locked_structures_stay(hand):
    hand.open("painted")
    before = hand.bitmap
    tumour = np.argwhere(before == TUMOUR)[0][::-1]  # x y z
    hand.go_to(tumour)
    set_tool(hand, "brush", 0.5)
    ends = [(int(tumour[0]) - 5, int(tumour[1]), int(tumour[2])), (int(tumour[0]) + 4, int(tumour[1]), int(tumour[2]))]
    hand.press("d")
    hand.stroke("axial", *ends)
    row = hand.bitmap[tumour[2], tumour[1]]
    assert set(row[ends[0][0] : ends[1][0] + 1]) == {0, TUMOUR}
    np.testing.assert_array_equal(row == TUMOUR, before[tumour[2], tumour[1]] == TUMOUR)
    hand.press("z")
    np.testing.assert_array_equal(hand.bitmap, before)
    hand.press("d")


def test_a_candidate_is_taken_with_its_key(hand):
    hand.open("candidate")
    before = hand.bitmap
    hand.press("n", "1")
    hand.until(f"{SCREEN}.open.isDirty")
    # The candidate of the drafts is the lowest slice of the box around all that was drafted.
    wanted = before.copy()
    inside = np.zeros(SHAPE, bool)
    inside[3:7, 5:13, 2:12] = True
    inside = served(inside)
    wanted[inside & (before == LIVER)] = 0
    lowest = inside.copy()
    lowest[np.flatnonzero(inside.any((1, 2)))[1:]] = False
    wanted[lowest & (before != TUMOUR)] = LIVER
    np.testing.assert_array_equal(hand.bitmap, wanted)
    hand.press("z")
    np.testing.assert_array_equal(hand.bitmap, before)


def test_it_saves_by_itself_as_a_version_that_nobody_signed(hand, folder):
    hand.open("autosave")
    hand.go_to((18, 6, 9))
    set_tool(hand, "brush", 2)
    hand.stroke("axial", (18, 6, 9))
    drawn = hand.bitmap
    hand.value(f"{SCREEN}.open.autosave()")
    hand.until(f"{SCREEN}.open.base === 1")
    np.testing.assert_array_equal(served(voxels_of(version(folder, "autosave", 1))), drawn)
    standing = ReviewStore.open(folder).standing("autosave")
    assert (standing.state, standing.version, standing.signed_by) == ("IN_REVIEW", 1, None)
    assert standing.autosaved


def test_a_structure_that_is_not_there_is_taken_out_of_the_mask(hand, folder):
    hand.open("absent")
    hand.value(f"{SCREEN}.select({TUMOUR})")
    hand.press("x")
    hand.page.click('dialog [data-answer="erase"]')
    hand.until(f"{SCREEN}.open.about.structures.find(({{label}}) => label === 'tumour').decision === 'absent'")
    saved = voxels_of(version(folder, "absent", 1))
    assert set(np.unique(saved)) == {0, LIVER}
    np.testing.assert_array_equal(saved == LIVER, liver_with_tumour() == LIVER)


# ---- other people ----


def test_what_another_one_has_saved_is_told_and_nothing_is_lost(hand, server, folder):
    hand.open("conflict")
    hand.go_to((18, 6, 9))
    set_tool(hand, "brush", 2)
    hand.stroke("axial", (18, 6, 9))
    mine = hand.bitmap
    theirs = served(liver_with_tumour()).copy()
    theirs[0, 0, 0] = LIVER
    assert server.save("conflict", theirs, 0).status == 200
    hand.press("s")
    hand.page.wait_for_selector("dialog")
    assert "version 1" in hand.page.inner_text("dialog")
    hand.page.click('dialog [data-answer="mine"]')
    hand.until(f"{SCREEN}.open.base === 2")
    np.testing.assert_array_equal(served(voxels_of(version(folder, "conflict", 1))), theirs)
    np.testing.assert_array_equal(served(voxels_of(version(folder, "conflict", 2))), mine)

    hand.stroke("axial", (18, 8, 9))
    assert server.save("conflict", theirs, 2).status == 200
    hand.press("s")
    hand.page.click('dialog [data-answer="theirs"]')
    hand.until(f"{SCREEN}.open.base === 3 && {SCREEN}.viewer.mask === {SCREEN}.open.editor.values")
    np.testing.assert_array_equal(hand.bitmap, theirs)


def test_a_case_that_another_tab_gave_back_is_taken_again(hand, server, folder):
    hand.open("given-back")
    hand.go_to((18, 6, 9))
    set_tool(hand, "brush", 2)
    hand.stroke("axial", (18, 6, 9))
    assert server.post("/api/release", {"case": "given-back"}).status == 200
    assert hand.save() == 1
    np.testing.assert_array_equal(served(voxels_of(version(folder, "given-back", 1))), hand.bitmap)
    assert ReviewStore.open(folder).standing("given-back").state == "IN_REVIEW"


def test_a_case_that_another_tab_finished_is_not_made_a_draft(hand, server, folder):
    hand.open("finished")
    ReviewStore.open(folder).decide_all("finished", Person(user="Anna"), {"liver": "accept", "tumour": "accept"})
    assert server.post("/api/finish", {"case": "finished"}).status == 200
    hand.value(f"{SCREEN}.open.beat()")
    assert ReviewStore.open(folder).standing("finished").state == "REVIEWED"


def test_a_case_that_another_one_holds_can_be_looked_at_alone(hand, folder):
    ReviewStore.open(folder).open_case("held", Person(user="Ben"))
    hand.open("held")
    assert "Ben" in hand.page.inner_text(".notice")
    before = hand.bitmap
    hand.press("b", "Enter")
    hand.stroke("axial", (18, 6, 5))
    np.testing.assert_array_equal(hand.bitmap, before)
    assert hand.page.is_disabled('[data-action="brush"]')


def test_what_was_drawn_outlives_the_server(chromium, tmp_path):
    folder = make_drafts(tmp_path, {"case": liver_with_tumour()}, affine_xyz=AFFINE)
    with review_server(folder) as first, hand_at(chromium, first) as hand:
        hand.enter()
        hand.open("case")
        hand.go_to((18, 6, 9))
        set_tool(hand, "brush", 2)
        hand.stroke("axial", (18, 6, 9))
        drawn = hand.bitmap
        kill(first.process)
        hand.press("s")
        hand.until("document.querySelector('.notice.error')")
        assert f"--port {first.port}" in hand.page.inner_text(".notice")
        with review_server(folder, "--port", str(first.port)) as second:
            hand.press("s")
            hand.until("document.querySelector('.notice').innerText.includes('does not know this tab')")
            tab = Hand(hand.page.context.new_page(), second)
            tab.enter()
            hand.press("s")  # if it was not saved by itself meanwhile
            hand.until(f"{SCREEN}.open.base === 1 && !{SCREEN}.open.isDirty")
            hand.until("document.querySelector('.notice.error') === null")
    np.testing.assert_array_equal(served(voxels_of(version(folder, "case", 1))), drawn)


def test_the_notice_of_a_server_that_is_back_goes_with_nothing_to_save(chromium, tmp_path):
    folder = make_drafts(tmp_path, {"case": liver_with_tumour()}, affine_xyz=AFFINE)
    with review_server(folder) as first, hand_at(chromium, first) as hand:
        hand.enter()
        hand.open("case")
        first.process.kill()
        first.process.wait(60)
        hand.press("s")
        hand.until("document.querySelector('.notice.error')")
        with review_server(folder, "--port", str(first.port)) as second:
            Hand(hand.page.context.new_page(), second).enter()
            hand.press("s")
            hand.until("document.querySelector('.notice.error') === null")
            assert hand.value(f"{SCREEN}.open.base") == 0


def test_the_lower_line_is_of_the_slice_that_is_shown_under_a_pointer_that_rests(hand):
    """Voxel, value and structure; the slice is changed by a key, by the wheel and by a jump."""
    hand.open("looked")
    hand.go_to((18, 6, 5))
    hand.page.mouse.move(*hand.place("axial", (10, 7, 5)))
    line = "document.querySelector('.status').innerText"
    hand.until(f"{line}.includes('voxel 11, 8, 6')")
    hand.press("ArrowUp")
    hand.until(f"{line}.includes('voxel 11, 8, 7')")
    hand.page.mouse.wheel(0, 100)
    hand.until(f"{line}.includes('voxel 11, 8, 6')")
    hand.go_to((2, 2, 9))
    hand.until(f"{line}.includes('voxel 11, 8, 10')")
    hand.page.mouse.move(1, 1)
    hand.until(f"{line}.includes('voxel 3, 3, 10')")  # of the crossing, when the pointer is elsewhere


# ---- the whole way ----


def test_a_case_is_opened_drawn_on_decided_and_signed_with_the_keyboard_alone(hand, folder):
    """Keys and typing; nothing is clicked, and the page is only asked how far it is."""
    hand.press("Escape")
    hand.ready("queue")
    selected = "document.querySelector('tr.selected').dataset.case"
    rows = hand.value("document.querySelectorAll('.queue tbody tr').length")
    hand.press(*["k"] * rows)  # to the first one, wherever the tests before have left the choice
    for _ in range(rows):
        if hand.value(selected) == "keys":
            break
        hand.press("j")
    assert hand.value(selected) == "keys"
    hand.press("Enter")
    hand.ready("case keys")
    before = hand.bitmap
    hand.press("b", "[", "Shift+ArrowRight", "Shift+ArrowUp", "ArrowUp", "Enter")
    hand.until(f"{SCREEN}.open.isDirty")
    drawn = hand.bitmap
    assert (drawn != before).any()
    hand.save()
    for _ in range(2):
        decided = hand.value(f"{SCREEN}.open.about.structures.filter(({{decision}}) => decision).length")
        hand.press("Space")
        hand.until(
            f"document.querySelector('dialog') || "
            f"{SCREEN}.open.about.structures.filter(({{decision}}) => decision).length > {decided}"
        )
        if hand.page.locator("dialog").count():  # only some slices were on the screen: the floor asks once
            hand.press("Tab", "Enter")
        hand.until(f"{SCREEN}.open.about.structures.filter(({{decision}}) => decision).length > {decided}")
    hand.press("g")
    hand.ready("sign keys")
    hand.page.keyboard.type("Dr. Anna Weiss")
    hand.press("Tab", "ArrowDown", "Tab", "Enter")
    hand.until("document.querySelector('[data-action=\"amend\"]')")
    store = ReviewStore.open(folder)
    standing = store.standing("keys")
    assert (standing.state, standing.signed_name, standing.meaning) == ("SIGNED", "Dr. Anna Weiss", "review")
    np.testing.assert_array_equal(served(store.read("keys").array[0]), drawn)
    assert store.log.verify().ok
    assert store.changed("keys") == ()


def test_every_action_has_a_button_too(hand):
    hand.open("looked")
    there = set(hand.value("[...document.querySelectorAll('[data-action]')].map(({dataset}) => dataset.action)"))
    keys = set(hand.value("import('/keymap.js').then(({ACTIONS}) => ACTIONS.map(({id}) => id))"))
    # The pointer, links of the head, rows of the list and choices do these.
    elsewhere = {"item_next", "item_previous", "structure_next", "structure_previous", "open", "language", "dab"}
    elsewhere |= {"refine_other"}  # a click with Shift
    elsewhere |= {name for name in keys if name.startswith(("slice_", "cursor_", "candidate_", "go_"))}
    assert keys - there - elsewhere == set()
    unnamed = hand.value(
        "[...document.querySelectorAll('button, select, input, textarea')].filter((each) => "
        "!each.innerText?.trim() && !each.ariaLabel && !each.labels?.length).map((each) => each.outerHTML)"
    )
    assert unnamed == []


# ---- what is seen ----


@pytest.fixture(scope="module")
def marked(tmp_path_factory: pytest.TempPathFactory, chromium: Any) -> Iterator[Hand]:
    """A CT that is bright in the patient's left upper front alone, and a photograph."""
    root = tmp_path_factory.mktemp("marked")
    mask = np.zeros(SHAPE, np.uint8)
    mask[8:11, 3:6, 16:20] = LIVER  # x to the left grows with the index
    folder = make_drafts(root, {"marked": mask}, affine_xyz=AFFINE)
    image = np.where(mask > 0, 200, -1000).astype(np.int16)
    nibabel.save(nibabel.Nifti1Image(image.T, AFFINE), root / "images" / "marked_0000.nii.gz")
    photograph(root, folder)
    with review_server(folder) as reviewer, hand_at(chromium, reviewer) as hand:
        hand.enter()
        yield hand


def photograph(root: Path, folder: Path) -> None:
    """Red above left, green above right, blue below; the mask is the red square."""
    picture = np.zeros((40, 60, 3), np.uint8)
    picture[5:15, 5:20] = (220, 30, 30)
    picture[5:15, 40:55] = (30, 200, 30)
    picture[25:35, 5:20] = (40, 40, 230)
    Image.fromarray(picture).save(root / "images" / "retina.png")
    mask = np.zeros((40, 60), np.uint8)
    mask[5:15, 5:20] = LIVER
    Image.fromarray(mask).save(folder / "retina.png")
    write_quality(folder, "retina", LABELS_OF_DRAFTS, mask[None], predicted=0.9)
    write_table(folder)


def test_the_patients_left_is_where_its_letter_is(marked):
    """In the file x 17 of 24 to the left; in the page's order 24 - 1 - 17 = 6."""
    marked.open("marked")
    bright = (6, 15, 9)
    mirrored = (23 - 6, 15, 9)
    marked.go_to(bright)
    marked.press("h")
    marked.page.keyboard.down("h")
    for is_radiological in (True, False):
        marked.value(f"{SCREEN}.viewer.set({{ isRadiological: {str(is_radiological).lower()} }})")
        marked.drawn()
        for plane in ("axial", "coronal"):
            assert marked.brightness(plane, bright) > 180
            assert marked.brightness(plane, mirrored) < 60  # lines that cross are faint
            is_right_half = marked.place(plane, bright)[0] > marked.place(plane, mirrored)[0]
            side = f"{SCREEN}.viewer.view.isRadiological"
            letters = marked.value(f"import('/planes.js').then((planes) => planes.edgeLetters('{plane}', {side}))")
            assert letters["right" if is_right_half else "left"] == "L"
            assert is_right_half == is_radiological
        # The nose is to the left in sagittal pictures: what lies in front is left of what lies behind.
        assert marked.brightness("sagittal", bright) > 180
        assert marked.place("sagittal", bright)[0] < marked.place("sagittal", (6, 4, 9))[0]
        assert marked.brightness("sagittal", (6, 4, 9)) < 60
    marked.page.keyboard.up("h")
    marked.value(f"{SCREEN}.viewer.set({{ isRadiological: true }})")


def test_windows_of_all_sizes_show_the_whole_of_every_plane(marked):
    """Where a picture's edges lie decides where a brush draws: they are the edges of the volume, not a pixel beside."""
    marked.open("marked")
    dims = dict(zip("xyz", SHAPE[::-1]))
    sides = {"axial": "xy", "coronal": "xz", "sagittal": "yz"}
    looked = 0
    for size in ((1280, 800), (1111, 707), (983, 641)):
        marked.page.set_viewport_size(dict(zip(("width", "height"), size)))
        for layout in ("big", "grid", "one"):
            marked.value(f"{SCREEN}.viewer.set({{ layout: '{layout}' }})")
            marked.drawn()
            for tile in marked.value(f"{SCREEN}.viewer.tiles"):
                if tile["plane"] == "render":
                    continue
                across, up = sides[tile["plane"]]
                np.testing.assert_allclose(tile["acrossEdges"], (dims[across], 0), atol=1e-3)  # to the left
                np.testing.assert_allclose(tile["upEdges"], (0, dims[up]), atol=1e-3)
                looked += 1
    assert looked == 3 * (3 + 3 + 1)
    marked.page.set_viewport_size({"width": 1100, "height": 700})
    marked.value(f"{SCREEN}.viewer.set({{ layout: 'big' }})")


def test_a_photograph_has_its_colours_and_no_letters(marked):
    marked.open("retina")
    marked.drawn()
    assert marked.value(f"{SCREEN}.viewer.about.hasLetters") is False
    assert "patient" not in marked.page.inner_text(".status")
    assert [tile["plane"] for tile in marked.value(f"{SCREEN}.viewer.tiles")] == ["axial"]
    marked.press("h")
    frame = marked.page.locator(".viewer").bounding_box()
    marked.page.keyboard.down("h")
    marked.drawn()
    shot = marked.pixels
    marked.page.keyboard.up("h")
    seen = []
    # Rows are counted from above in the picture, from below in the page's order.
    for column, row in ((8, 8), (50, 8), (8, 30), (30, 20)):
        x, y = marked.place("axial", marked_voxel(marked, column, row))
        seen.append(shot[round(y - frame["y"]), round(x - frame["x"])])
    red, green, blue, black = seen
    for found, wanted in ((red, (220, 30, 30)), (green, (30, 200, 30)), (blue, (40, 40, 230)), (black, (0, 0, 0))):
        np.testing.assert_allclose(found, wanted, atol=45)  # the screen mixes neighbours
    # As it was taken: red is left of green, and above blue.
    places = [marked.place("axial", marked_voxel(marked, *at)) for at in ((8, 8), (50, 8), (8, 30))]
    assert places[0][0] < places[1][0]
    assert places[0][1] < places[2][1]


def marked_voxel(hand: Hand, column: int, row: int) -> tuple[int, int, int]:
    """The page's voxel of a pixel: its order is x to the right side and y to the front."""
    width, height, _ = hand.value(f"{SCREEN}.open.image.dims")
    return width - 1 - column, height - 1 - row, 0


def test_a_photograph_is_measured_in_pixels(marked):
    marked.open("retina")
    marked.page.click('nav a[href^="#compare"]')
    marked.page.wait_for_selector('body[data-ready^="compare"]')
    marked.page.click('nav a[href^="#sign"]')
    marked.page.wait_for_selector('body[data-ready^="sign"]')
    head = marked.page.inner_text(".sign-screen thead")
    assert "px" in head
    assert "ml" not in head


def test_a_graphics_card_that_is_lost_takes_nothing_with_it(hand):
    hand.open("lost")
    hand.go_to((18, 6, 9))
    set_tool(hand, "brush", 2)
    hand.stroke("axial", (18, 6, 9))
    drawn = hand.bitmap
    hand.value(f"window.before = {SCREEN}.viewer, 1")
    hand.value("before.nv.gl.getExtension('WEBGL_lose_context').loseContext()")
    hand.until(f"{SCREEN}.viewer !== window.before && {SCREEN}.viewer.mask && {SCREEN}.viewer.framesDrawn > 0")
    np.testing.assert_array_equal(hand.bitmap, drawn)
    assert hand.pixels.max() > 150
    hand.press("z")
    np.testing.assert_array_equal(hand.bitmap, served(liver_with_tumour()))


def test_a_browser_without_webgl_shows_slices_and_draws_on_them(marked):
    page = marked.page.context.new_page()
    page.add_init_script(
        "const given = HTMLCanvasElement.prototype.getContext;"
        "HTMLCanvasElement.prototype.getContext = function (kind, ...more) "
        "{ return kind === 'webgl2' ? null : given.call(this, kind, ...more); };"
    )
    page.goto(f"{marked.server.origin}/#case/marked")
    plain = Hand(page, marked.server)
    plain.ready("case marked")
    assert "WebGL2" in page.inner_text(".notice")
    plain.go_to((6, 15, 9))
    plain.press("h")
    page.keyboard.down("h")
    plain.drawn()
    for plane in ("axial", "coronal", "sagittal"):
        assert plain.brightness(plane, (6, 15, 9)) > 180
        assert plain.brightness(plane, (17, 4, 2)) < 60
    page.keyboard.up("h")
    before = np.array(plain.value(f"Array.from({SCREEN}.open.editor.values)")).reshape(SHAPE)
    set_tool(plain, "brush", 3)
    plain.stroke("axial", (15, 6, 9))
    drawn = np.array(plain.value(f"Array.from({SCREEN}.open.editor.values)")).reshape(SHAPE)
    wanted = before.copy()
    wanted[disc((15, 6, 9), 3)] = LIVER
    np.testing.assert_array_equal(drawn, wanted)
    page.close()


def test_both_languages_and_both_grounds(hand):
    hand.open("looked")
    for name in ("zh", "en"):
        hand.press("Shift+L")
        hand.until(f"document.documentElement.lang.startsWith('{name}')")
        hand.ready("case looked")
        for word in hand.page.inner_text("body").split():
            assert word not in known_keys(name), word
    assert "Structures" in hand.page.inner_text(".left")
    grounds = set()
    for _ in range(3):
        hand.press("Shift+D")
        grounds.add(hand.value("getComputedStyle(document.body).backgroundColor"))
    assert len(grounds) == 2


def known_keys(language: str) -> set[str]:
    """What the words are looked up by; none of it is to be read on the page."""
    path = PAGE_FOLDER / "text" / f"{language}.json"
    return {key for key in json.loads(path.read_text(encoding="utf-8")) if "." in key}
