"""All 48 orders and directions of axes. It takes minutes: ``make review-orientations`` runs it, the suite does not."""

from __future__ import annotations

import pytest

from builders.oriented_review import ALL, check_drawn, make_oriented
from builders.review_hand import hand_at
from builders.review_server import review_server


@pytest.fixture(scope="module")
def oriented(tmp_path_factory, chromium):
    assert len(set(ALL)) == 48
    folder = make_oriented(tmp_path_factory.mktemp("oriented"), ALL)
    with review_server(folder) as server, hand_at(chromium, server, width=900, height=620) as hand:
        hand.enter()
        yield hand, folder


@pytest.mark.parametrize("code", ALL)
def test_a_scan_is_drawn_on(code, oriented):
    check_drawn(oriented[0], oriented[1], code)
