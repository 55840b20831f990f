"""What a page may book of time, by hand: never more than has passed."""

import math

import pytest

from segfw.base.errors import UserError
from segfw.review_page.active_clock import LONGEST_BEAT_S, ActiveClock


class Time:
    def __init__(self):
        self.now_s = 1000.0

    def __call__(self):
        return self.now_s


@pytest.fixture
def time():
    return Time()


def test_what_the_page_says_is_booked_as_far_as_it_has_passed(time):
    clock = ActiveClock(time)
    clock.open("a")
    time.now_s += 15
    assert clock.book("a", 9.0, 6.0) == (9.0, 6.0)
    time.now_s += 15
    assert clock.book("a", 500.0, 500.0) == (15.0, 0.0)  # a page that lies
    assert clock.book("a", 15.0, 0.0) == (0.0, 0.0)  # at once again
    time.now_s += 10
    assert clock.book("a", 4.0, 100.0) == (4.0, 6.0)


def test_two_tabs_together_book_what_has_passed(time):
    clock = ActiveClock(time)
    clock.open("a")
    clock.open("b")
    booked = 0.0
    for _ in range(10):
        time.now_s += 15
        booked += sum(clock.book("a", 15.0, 0.0)) + sum(clock.book("b", 15.0, 0.0))
    assert booked == 150.0


def test_time_before_a_case_was_opened_is_not_its_own(time):
    clock = ActiveClock(time)
    time.now_s += 100
    clock.open("a")
    time.now_s += 5
    assert clock.book("a", 60.0, 0.0) == (5.0, 0.0)


def test_a_tab_that_slept_books_little(time):
    clock = ActiveClock(time)
    clock.open("a")
    time.now_s += 8 * 3600
    assert clock.book("a", 8 * 3600.0, 0.0) == (LONGEST_BEAT_S, 0.0)


def test_nothing_is_booked_of_what_is_not_open(time):
    clock = ActiveClock(time)
    time.now_s += 15
    assert clock.book("a", 15.0, 0.0) == (0.0, 0.0)
    clock.open("a")
    clock.close("a")
    time.now_s += 15
    assert clock.book("a", 15.0, 0.0) == (0.0, 0.0)


@pytest.mark.parametrize("value", [-1.0, math.nan, math.inf])
def test_what_is_no_length_of_time_is_refused(time, value):
    clock = ActiveClock(time)
    clock.open("a")
    with pytest.raises(UserError, match="active_s"):
        clock.book("a", value, 0.0)
    with pytest.raises(UserError, match="idle_s"):
        clock.book("a", 0.0, value)


def test_whatever_pages_say_no_more_is_booked_than_has_passed(time):
    import random

    for seed in range(50):
        draw = random.Random(seed)
        clock = ActiveClock(time)
        start_s = time.now_s
        booked = 0.0
        for _ in range(40):
            case = draw.choice("abc")
            draw.choice((clock.open, clock.close, clock.open))(case)
            time.now_s += draw.choice((0.0, 0.5, 15.0, 400.0))
            booked += sum(clock.book(case, draw.uniform(0, 900), draw.uniform(0, 900)))
        assert booked <= time.now_s - start_s
