"""No file is ever half written, and what dead writers left is removed."""

import os
import subprocess
import sys
from pathlib import Path

import psutil
import pytest

from builders.waiting import wait_until
from segfw.base.errors import UserError
from segfw.base.files import file_sha256, new_folder, partial_path, remove_partials, whole_file, write_text


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
    ended.wait(60)
    path = tmp_path / "file-1.txt"

    def left_by(pid: int, machine: str | None = None, file: Path = path) -> Path:
        ours = partial_path(file)
        name = ours.name.replace(f"-{os.getpid()}-", f"-{pid}-")
        left = ours.with_name(name if machine is None else name.replace(name.split("-")[1], machine, 1))
        left.write_text("half")
        return left

    nobody_asked = subprocess.Popen([sys.executable, "-c", ""])  # a zombie, once it has ended
    wait_until(lambda: psutil.Process(nobody_asked.pid).status() == psutil.STATUS_ZOMBIE)
    zombie = left_by(nobody_asked.pid)
    dead = left_by(ended.pid)
    alive = left_by(os.getppid())
    elsewhere = left_by(ended.pid, "00000000")
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
    nobody_asked.wait(60)


def test_the_hash_of_a_file_is_that_of_its_bytes(tmp_path):
    path = tmp_path / "abc"
    path.write_bytes(b"abc")  # the first example of FIPS 180-2
    assert file_sha256(path) == "ba7816bf8f01cfea414140de5dae2223b00361a396177a9cb410ff61f20015ad"


def test_the_file_appears_only_when_it_is_whole_and_keeps_its_ending(tmp_path):
    path = tmp_path / "sub" / "case.nii.gz"
    with whole_file(path) as partial:
        assert partial.name.endswith(".nii.gz")
        assert partial.parent == path.parent  # on the same disk, so that replacing is atomic
        partial.write_bytes(b"new")
        assert not path.exists()
    assert path.read_bytes() == b"new"
    assert not partial.exists()


@pytest.mark.parametrize("has_links", [True, False])
def test_what_another_process_made_meanwhile_is_not_replaced(tmp_path, monkeypatch, has_links):
    if not has_links:
        monkeypatch.setattr(os, "link", lambda *_: (_ for _ in ()).throw(OSError("not supported")))
    with whole_file(tmp_path / "new", overwrite=False) as partial:
        partial.write_text("ours")
    assert (tmp_path / "new").read_text() == "ours"

    def file_of_both() -> None:
        with whole_file(tmp_path / "both", overwrite=False) as partial:
            partial.write_text("ours")
            (tmp_path / "both").write_text("theirs")

    def folder_of_both() -> None:
        with new_folder(tmp_path / "folder") as partial:
            (partial / "ours").touch()
            (tmp_path / "folder").mkdir()
            (tmp_path / "folder" / "theirs").touch()

    with pytest.raises(UserError, match="both: was made by another process meanwhile; give another name"):
        file_of_both()
    with pytest.raises(UserError, match="folder: was made by another process meanwhile; give another folder"):
        folder_of_both()
    with new_folder(tmp_path / "folder", overwrite=True) as partial:
        (partial / "ours").touch()
    assert [path.name for path in (tmp_path / "folder").iterdir()] == ["ours"]
    assert (tmp_path / "both").read_text() == "theirs"
    assert {path.name for path in tmp_path.iterdir()} == {"new", "both", "folder"}
