"""Records are strict and frozen, their errors name file and field, and no file is ever half written."""

import os
import subprocess
import sys
import time
from pathlib import Path

import psutil
import pytest
from pydantic import ValidationError

from segfw.base.records import Record, UserError, partial_path, remove_partials, whole_file, write_text


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
        ('"name": "köpf"', '"name": "köpf", "colour": 1', ["'colour'", "Extra inputs are not permitted"]),
        ('"spacing_mm": 0.1,', "", ["'spacing_mm'", "Field required"]),
        ('"spacing_mm": 0.1', '"spacing_mm": "0.1"', ["'spacing_mm'", "valid number"]),
        ("[\n   3,\n   4\n  ]", "[3, 4.5]", ["'inner.size.1'", "integer"]),
        ("[\n   3,\n   4\n  ]", "[3]", ["'inner.size.1'", "Field required"]),
        ("{", "", ["'the file'", "Invalid JSON"]),
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


def test_a_failed_write_keeps_the_old_file_and_leaves_nothing_behind(tmp_path):
    path = tmp_path / "file.txt"
    write_text(path, "old")

    def fail_midway() -> None:
        with whole_file(path) as partial:
            partial.write_text("half of the n")
            raise RuntimeError

    with pytest.raises(RuntimeError):
        fail_midway()
    assert path.read_text() == "old"
    assert [entry.name for entry in tmp_path.iterdir()] == ["file.txt"]


def test_what_a_dead_process_left_is_removed_and_what_others_write_is_not(tmp_path):
    ended = subprocess.Popen([sys.executable, "-c", ""])
    ended.wait()
    path = tmp_path / "file-1.txt"

    def left_by(pid: int, machine: str | None = None, file: Path = path) -> Path:
        ours = partial_path(file)
        name = ours.name.replace(f"-{os.getpid()}-", f"-{pid}-")
        left = ours.with_name(name if machine is None else name.replace(name.split("-")[1], machine, 1))
        left.write_text("half")
        return left

    nobody_asked = subprocess.Popen([sys.executable, "-c", ""])  # a zombie, once it has ended
    while psutil.Process(nobody_asked.pid).status() != psutil.STATUS_ZOMBIE:
        time.sleep(0.01)
    zombie = left_by(nobody_asked.pid)
    dead, alive, elsewhere = left_by(ended.pid), left_by(os.getppid()), left_by(ended.pid, "00000000")
    folder = left_by(ended.pid)
    folder.unlink()
    (folder / "inner").mkdir(parents=True)
    of_another_file = left_by(ended.pid, file=tmp_path / "1.txt")
    forgotten = left_by(ended.pid, "00000000")
    os.utime(forgotten, (0, 0))
    write_text(path, "whole")
    assert not dead.exists()
    assert not zombie.exists()
    assert not folder.exists()
    assert not forgotten.exists()
    assert alive.exists()
    assert elsewhere.exists()
    assert of_another_file.exists()
    remove_partials(tmp_path)
    assert not of_another_file.exists()
    assert {entry.name for entry in tmp_path.iterdir()} == {"file-1.txt", alive.name, elsewhere.name}
    nobody_asked.wait()


def test_the_file_appears_only_when_it_is_whole_and_keeps_its_ending(tmp_path):
    path = tmp_path / "sub" / "case.nii.gz"
    with whole_file(path) as partial:
        assert partial.name.endswith(".nii.gz")
        assert partial.parent == path.parent  # on the same disk, so that replacing is atomic
        partial.write_bytes(b"new")
        assert not path.exists()
    assert path.read_bytes() == b"new"
    assert not partial.exists()
