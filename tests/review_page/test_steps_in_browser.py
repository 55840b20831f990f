"""What surrounds drawing, in a real browser: delivery, blind reading, labels in groups, what log and screens say."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import Any

import nibabel
import numpy as np
import pytest

import segfw
from builders.drafts_folder import liver_with_tumour, make_drafts
from builders.review_hand import SCREEN, Hand, hand_at
from builders.review_server import review_server
from segfw.dataset.labels import LabelSet
from segfw.reviewing.people import Person
from segfw.reviewing.review_store import ReviewStore

AFFINE = np.array([[-1.0, 0, 0, 12], [0, -1.5, 0, 15], [0, 0, 3.0, -18], [0, 0, 0, 1]])
SHAPE = (12, 20, 24)  # z y x
LIVER = 1


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    return make_drafts(tmp_path, {case: liver_with_tumour() for case in ("case_1", "case_2")}, affine_xyz=AFFINE)


@pytest.fixture
def hand(chromium: Any, folder: Path) -> Iterator[Hand]:
    with review_server(folder) as server, hand_at(chromium, server) as hand:
        hand.enter()
        yield hand


def paint(hand: Hand, radius_mm: float = 3) -> None:
    """One disc of liver beside what was drafted."""
    hand.go_to((18, 6, 9))
    hand.value(f"{SCREEN}.select({LIVER})")
    if hand.value(f"{SCREEN}.tool") != "brush":
        hand.press("b")
    hand.value(f"{SCREEN}.radius_mm = {radius_mm}")
    hand.stroke("axial", (18, 6, 9))


def decide_all(hand: Hand) -> None:
    """Space on every structure, and once more where the floor asks."""
    count = hand.value(f"{SCREEN}.open.about.structures.length")
    decided = f"{SCREEN}.open.about.structures.filter(({{decision}}) => decision).length"
    for number in range(count):
        hand.value(f"{SCREEN}.select({number + 1})")
        hand.press("Space")
        hand.until(f"document.querySelector('dialog') || {decided} > {number}")
        if hand.page.locator("dialog").count():
            hand.press("Tab", "Enter")
        hand.until(f"{decided} > {number}")


def test_what_was_painted_is_signed_as_edited_and_delivered_as_it_was_drawn(hand, folder):
    hand.open("case_1")
    paint(hand)
    drawn = hand.bitmap
    hand.save()
    decide_all(hand)
    hand.press("g")
    hand.ready("sign case_1")
    rows = dict(zip(("liver", "tumour"), hand.page.locator(".sign-screen tbody tr").all_inner_texts()))
    assert "edited" in rows["liver"]  # it was accepted after it was changed
    assert "accepted" in rows["tumour"]
    hand.page.keyboard.type("Dr. Anna Weiss")
    hand.press("Enter")
    hand.page.wait_for_selector('[data-action="deliver"]')
    for box in ("seg.nrrd", "nifti"):
        if not hand.page.is_checked(f'input[value="{box}"]'):
            hand.page.check(f'input[value="{box}"]')
    hand.page.click('[data-action="deliver"]')
    hand.page.wait_for_selector(".files li")
    names = hand.page.locator(".files li").all_inner_texts()
    delivered = folder.with_name("masks_delivered")
    assert {name for name in names if "seg.nrrd" in name}
    [nifti] = [name for name in names if name.endswith(".nii.gz")]
    image = nibabel.load(delivered / nifti)
    np.testing.assert_array_equal(np.asarray(image.dataobj).T[:, ::-1, ::-1], drawn)
    np.testing.assert_array_equal(image.affine, AFFINE)
    store = ReviewStore.open(folder)
    events = [event for event in store.log.events() if event.event in ("save", "decide", "finish")]
    assert {event.event for event in events} == {"save", "decide", "finish"}
    assert {(event.quality_shown, event.overlay_shown) for event in events} == {(True, True)}


def test_a_draft_cannot_be_delivered_from_the_page(hand, folder):
    hand.page.evaluate("segfwReview.go('sign', 'case_2')")
    hand.ready("sign case_2")
    assert "every structure decided" in hand.page.inner_text(".sign-screen")
    assert hand.page.locator('[data-action="deliver"]').count() == 0


def test_who_reads_blind_sees_quality_after_the_first_decision(chromium, folder):
    with review_server(folder, "--blind") as server, hand_at(chromium, server) as hand:
        hand.enter()
        assert "0.9" not in hand.page.inner_text(".queue tbody")
        hand.open("case_1")
        hidden = "Blind reading: hidden until the first decision."
        assert hand.page.inner_text(".findings").count(hidden) == 2
        assert "Dice" not in hand.page.inner_text(".case-screen")
        hand.press("n")
        assert hidden in hand.page.inner_text("#said")
        assert hand.page.is_disabled('[data-action="doubt"]')
        assert "fold" not in hand.page.inner_text(".right")
        hand.press("e")
        hand.until(f"{SCREEN}.open.about.hidden === false")
        assert "Predicted Dice" in hand.page.inner_text(".findings")
        hand.value(f"{SCREEN}.select(2)")
        hand.press("e")
        hand.until(f"{SCREEN}.open.about.structures[1].decision === 'edit'")
    first, *later = [event for event in ReviewStore.open(folder).log.events() if event.event == "decide"]
    assert (first.quality_shown, first.overlay_shown) == (False, True)
    assert (later[-1].quality_shown, later[-1].overlay_shown) == (True, True)


def test_labels_over_255_are_drawn_in_groups_and_none_is_lost(chromium, tmp_path):
    names = ("background", *(f"structure {value}" for value in range(1, 301)))
    labels = LabelSet(names=names, values=tuple(range(301)))
    mask = np.zeros(SHAPE, np.uint16)
    mask[3:7, 5:13, 2:12] = 2
    mask[8:10, 5:9, 2:8] = 260  # the sixth of the second group
    folder = make_drafts(tmp_path, {"case": mask}, labels=labels, affine_xyz=AFFINE, has_quality=False)
    with review_server(folder) as server, hand_at(chromium, server) as hand:
        hand.enter()
        hand.open("case")
        served = mask[:, ::-1, ::-1]
        np.testing.assert_array_equal(hand.bitmap, np.select([served == 2, served == 260], [2, 255]))
        hand.page.select_option('select[aria-label="Group of labels"]', "1")
        hand.until(f"{SCREEN}.open.group === 1 && {SCREEN}.viewer.mask === {SCREEN}.open.editor.values")
        before = hand.bitmap
        np.testing.assert_array_equal(before, np.select([served == 2, served == 260], [255, 6]))
        hand.go_to((18, 6, 9))
        hand.value(f"{SCREEN}.open.editor.rules.label = 6")
        hand.press("b")
        hand.value(f"{SCREEN}.radius_mm = 2")
        hand.stroke("axial", (12, 3, 5), (18, 12, 5))  # across the structure of the other group, which is locked
        drawn = hand.bitmap
        assert ((drawn == 6) & (before == 0)).sum() > 5
        np.testing.assert_array_equal(drawn == 255, before == 255)
        assert hand.save() == 1
    saved = np.asarray(nibabel.load(folder / "review" / "labels" / "case" / "v0001.nii.gz").dataobj).T
    wanted = served.copy()
    wanted[drawn == 6] = 260
    np.testing.assert_array_equal(saved[:, ::-1, ::-1], wanted)


def test_the_queue_says_in_either_language_whether_to_stop(chromium, folder):
    store = ReviewStore.open(folder)
    store.open_case("case_2", Person(user="Anna"))
    store.decide_all("case_2", Person(user="Anna"), {"liver": "accept", "tumour": "accept"})
    segfw.queue(folder, minutes=90)
    with review_server(folder) as server, hand_at(chromium, server) as hand:
        hand.enter()
        assert "go on: open structures: 2; 0 of 90 minutes are spent" in hand.page.inner_text(".queue-progress")
        hand.press("Shift+L")
        hand.until("document.documentElement.lang === 'zh-Hans'")
        hand.ready("queue")
        assert "请继续：尚有 2 个结构未决定；已用 0 分钟，限额 90 分钟" in hand.page.inner_text(".queue-progress")
