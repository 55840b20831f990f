"""Wording that sentences share."""

from segfw.base.words import count, figure, first_line, named


def test_a_noun_is_in_the_plural_but_for_one():
    assert [count(number, "case") for number in (0, 1, 2)] == ["0 cases", "1 case", "2 cases"]


def test_what_is_named_is_in_the_plural_where_it_is_several():
    folds = (named("fold", names) for names in (["0"], ["0", "1"], [0, 1, "all"]))
    assert list(folds) == ["fold 0", "folds 0 and 1", "folds 0, 1 and all"]
    assert named("patch", ["a", "b"]) == "patches a and b"


def test_a_size_keeps_its_digits():
    assert [figure(value) for value in (0.01234, 12.3456, 9999.4, 28413.2)] == ["0.01234", "12.35", "9999", "28413"]


def test_an_error_is_told_by_its_first_line_or_else_by_its_type():
    assert first_line(ValueError("\n shapes differ\nby 2\n")) == "shapes differ"
    assert first_line(ValueError("shapes differ"), longest=6) == "shapes"
    assert first_line(KeyError()) == "KeyError"
