"""Durations as they are typed and as they are said."""

import pytest

from segfw.base.durations import duration_s, duration_text, typed_duration


@pytest.mark.parametrize(("seconds", "text"), [(285, "4m45s"), (5400, "1h30m"), (0.25, "0.25s"), (86400.0, "24h")])
def test_what_is_typed_is_read_again(seconds, text):
    assert typed_duration(seconds) == text
    assert duration_s(text) == seconds


@pytest.mark.parametrize(
    ("seconds", "text"),
    [
        (5, "5 s"),
        (89, "89 s"),
        (91, "1.5 min"),
        (150, "2.5 min"),
        (180, "3 min"),
        (596, "9.9 min"),
        (597, "10 min"),
        (1500, "25 min"),
        (5399, "90 min"),
        (5401, "1.5 h"),
        (11_520, "3.2 h"),
        (36_000, "10 h"),
        (428_400, "119 h (5 days)"),
        (7.2e6, "2,000 h (83 days)"),
    ],
)
def test_durations_for_a_reader(seconds, text):
    assert duration_text(seconds) == text
