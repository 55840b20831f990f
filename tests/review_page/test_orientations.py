"""What is drawn lies in the file where it was seen, whatever the order of the file's axes; tilted ones too."""

from __future__ import annotations

import pytest

from builders.oriented_review import BRIGHT_XYZ, check_drawn, make_oriented
from builders.review_hand import SCREEN, hand_at
from builders.review_server import review_server

CODES = ("LPS", "PIR", "SLA")
LAYOUTS = 3  # of planes, which a key goes through


@pytest.fixture(scope="module")
def oriented(tmp_path_factory, chromium):
    folder = make_oriented(tmp_path_factory.mktemp("oriented"), CODES, is_oblique=True)
    with review_server(folder) as server, hand_at(chromium, server, width=1200, height=900) as hand:
        hand.enter()
        yield hand, folder


@pytest.mark.parametrize("code", CODES)
def test_a_tilted_scan_is_drawn_on(code, oriented):
    hand, folder = oriented
    check_drawn(hand, folder, code)
    # The bright voxel is seen where the page says that it lies, in all three planes.
    hand.press("b")
    for _ in range(LAYOUTS):
        if hand.value(f"{SCREEN}.viewer.view.layout") == "grid":
            break
        hand.press("q")
    assert hand.value(f"{SCREEN}.viewer.view.layout") == "grid"
    hand.go_to(BRIGHT_XYZ)
    hand.page.keyboard.down("h")
    hand.drawn()
    for plane in ("axial", "coronal", "sagittal"):
        assert hand.brightness(plane, BRIGHT_XYZ) > 180
        assert hand.brightness(plane, [index - 4 for index in BRIGHT_XYZ]) < 60
    hand.page.keyboard.up("h")
