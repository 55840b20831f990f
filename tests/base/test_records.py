"""Records are strict and frozen, and their errors name file and field."""

from pathlib import Path

import pytest
from pydantic import ValidationError

from segfw.base.records import Record, UserError


class Inner(Record):
    size: tuple[int, int]


class Outer(Record):
    name: str
    spacing_mm: float
    inner: Inner
    folder: Path = Path("here")


OUTER = Outer(name="köpf", spacing_mm=0.1, inner=Inner(size=(3, 4)), folder=Path("a/b"))


def test_a_record_comes_back_equal(tmp_path):
    OUTER.save(tmp_path / "new" / "outer.json")
    assert Outer.load(tmp_path / "new" / "outer.json") == OUTER


def test_a_record_cannot_be_changed():
    with pytest.raises(ValidationError, match="frozen"):
        OUTER.name = "other"


@pytest.mark.parametrize("value", [float("nan"), float("inf"), "0.1", True])
def test_a_number_must_be_a_finite_number(value):
    with pytest.raises(ValidationError, match="spacing_mm"):
        Outer(name="a", spacing_mm=value, inner=Inner(size=(3, 4)))


@pytest.mark.parametrize(
    "old, new, words",
    [
        ('"name": "köpf"', '"name": "köpf", "colour": 1', ["'colour'", "is not known to this version"]),
        ('"spacing_mm": 0.1,', "", ["'spacing_mm'", "is missing"]),
        ('"spacing_mm": 0.1', '"spacing_mm": "0.1"', ["'spacing_mm'", "is '0.1', which is no number"]),
        ("[\n   3,\n   4\n  ]", "[3, 4.5]", ["'inner.size.1'", "is 4.5, which is no whole number"]),
        ("[\n   3,\n   4\n  ]", "[3]", ["'inner.size.1'", "is missing"]),
        ("{", "", ["outer.json: is not readable JSON ("]),
    ],
)
def test_loading_names_the_file_and_the_field(tmp_path, old, new, words):
    path = tmp_path / "outer.json"
    OUTER.save(path)
    text = path.read_text(encoding="utf-8")
    assert old in text
    path.write_text(text.replace(old, new, 1), encoding="utf-8")
    with pytest.raises(UserError) as caught:
        Outer.load(path)
    for word in [str(path), *words, "restore the file or make it again"]:
        assert word in str(caught.value)


def test_loading_a_missing_or_binary_file_is_an_error_of_the_user(tmp_path):
    with pytest.raises(UserError, match=r"none\.json: cannot be read \(No such file or directory\)"):
        Outer.load(tmp_path / "none.json")
    (tmp_path / "binary.json").write_bytes(b"\xff\xfe\x00")
    with pytest.raises(UserError, match=r"binary\.json: is not text"):
        Outer.load(tmp_path / "binary.json")
