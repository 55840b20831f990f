"""Damage, permission and a full disk are told apart, whoever raises the error."""

from __future__ import annotations

import errno
import os
import shutil
import stat

import pytest
import torch

from segfw.base import files
from segfw.base.errors import DiskFull, UserError, disk_of, is_disk_full, is_forbidden, reason_of, unreadable
from segfw.base.files import new_folder, whole_file, write_text
from segfw.model import weights
from segfw.model.weights import load_tensors, save_tensors, save_weights

FULL = [
    OSError(errno.ENOSPC, "No space left on device", "/x"),
    OSError(errno.EFBIG, "File too large", "/x"),
    OSError(errno.EDQUOT, "Disk quota exceeded", "/x"),
    Exception("Error while serializing: I/O error: No space left on device (os error 28)"),  # safetensors
    RuntimeError("[enforce fail at inline_container.cc:858] . PytorchStreamWriter failed writing file data/0"),
    RuntimeError("[enforce fail at inline_container.cc:668] . unexpected pos 64 vs 0"),
]
FORBIDDEN = [
    PermissionError(errno.EACCES, "Permission denied", "/x"),
    OSError(errno.EROFS, "Read-only file system", "/x"),
    Exception("I/O error: Permission denied (os error 13)"),
]
DAMAGED = [OSError("unexpected end of data"), RuntimeError("invalid header"), OSError(errno.EIO, "Input/output error")]


@pytest.mark.parametrize("error", FULL, ids=str)
def test_a_full_disk_is_known_by_number_or_words(error, tmp_path):
    assert is_disk_full(error)
    assert not is_forbidden(error)
    with pytest.raises(DiskFull) as full, whole_file(tmp_path / "a.bin"):
        raise error
    said = str(full.value)
    assert said.startswith(f"{tmp_path}/a.bin: the disk is full (")
    assert f"MB are free on {disk_of(tmp_path)}); free some space and call the same command again" in said
    assert "\n" not in said
    assert list(tmp_path.iterdir()) == []


@pytest.mark.parametrize("error", FORBIDDEN, ids=str)
def test_permission_is_no_damage(error):
    assert is_forbidden(error)
    assert not is_disk_full(error)
    said = str(unreadable("w.safetensors", error, "w.safetensors: is torn; train again"))
    assert said.startswith("w.safetensors: may not be read by this user (permission denied); the file is not damaged")


@pytest.mark.parametrize("error", DAMAGED, ids=str)
def test_other_errors_are_neither(error):
    assert not is_disk_full(error)
    assert not is_forbidden(error)


def test_what_a_user_is_told_is_not_searched_for_the_words_of_the_system():
    assert not is_disk_full(UserError("the case 'file too large' is missing"))


def test_a_writer_that_does_not_say_why_has_met_a_full_disk_where_nothing_is_left(tmp_path, monkeypatch):
    usage = type(shutil.disk_usage(tmp_path))
    monkeypatch.setattr(shutil, "disk_usage", lambda _: usage(10**9, 10**9, 4096))
    with pytest.raises(DiskFull, match="0.0 MB are free"), whole_file(tmp_path / "a.nrrd"):
        raise RuntimeError("sitk::ERROR: an error has occurred while writing")
    with pytest.raises(KeyError), whole_file(tmp_path / "a.nrrd"):
        raise KeyError("a")


def test_weights_on_a_full_disk_say_so(tmp_path, monkeypatch):
    def full(*_, **__):
        raise Exception("Error while serializing: I/O error: No space left on device (os error 28)")

    monkeypatch.setattr("safetensors.torch.save_file", full)
    with pytest.raises(DiskFull, match="the disk is full"):
        save_weights(tmp_path / "weights.safetensors", {"a": torch.zeros(2)}, epoch=1, mirror_axes=())


def test_a_new_folder_on_a_full_disk_is_not_there(tmp_path):
    def fill():
        with new_folder(tmp_path / "deep" / "out") as partial:
            write_text(partial / "a", "a")
            raise RuntimeError("PytorchStreamWriter failed writing file data/0: file write failed")

    with pytest.raises(DiskFull, match="out: the disk is full"):
        fill()
    assert list(tmp_path.iterdir()) == []


@pytest.mark.parametrize("umask, expected", [(0o022, 0o644), (0o002, 0o664), (0o077, 0o600)])
def test_every_file_gets_the_mode_of_the_umask(tmp_path, umask, expected):
    before = os.umask(umask)
    try:
        save_tensors(tmp_path / "w.safetensors", {"a": torch.zeros(2)}, {})
        write_text(tmp_path / "a.txt", "a")
    finally:
        os.umask(before)
    modes = {path.name: stat.S_IMODE(path.stat().st_mode) for path in tmp_path.iterdir()}
    assert modes == {"w.safetensors": expected, "a.txt": expected}


def test_weights_that_another_user_may_not_read_are_not_called_torn(tmp_path, monkeypatch):
    path = tmp_path / "weights.safetensors"
    save_tensors(path, {"a": torch.zeros(2)}, {})

    def refused(name, *_, **__):
        raise PermissionError(errno.EACCES, "Permission denied", str(name))

    monkeypatch.setattr(weights, "open", refused, raising=False)
    with pytest.raises(UserError, match=r"weights\.safetensors: may not be read by this user .* not damaged"):
        load_tensors(path)


@pytest.mark.parametrize(
    ("error", "words"),
    [
        (FileNotFoundError(errno.ENOENT, "No such file or directory", "nowhere"), "nowhere: there is no such file"),
        (OSError(errno.ELOOP, "Too many levels of symbolic links", "m.nii"), "m.nii: is a link that leads to itself"),
        (OSError(errno.EMFILE, "Too many open files", "a"), "raise the limit with ulimit -n"),
        (PermissionError(errno.EACCES, "Permission denied", "w"), "w: this user may not read it, or not write there"),
        (RuntimeError("can't start new thread"), "give fewer --workers, or raise the limit with ulimit -u"),
        (ValueError("embedded null byte"), "NUL"),
        (RuntimeError("Symlink loop from '/a'"), "is a link that leads to itself"),
        (OSError(errno.ENOSPC, "No space left on device", "/tmp/x"), "/tmp/x: the disk is full"),
    ],
)
def test_what_the_system_refuses_is_one_sentence(error, words):
    said = reason_of(error)
    assert words in said
    assert "Errno" not in said or "[Errno 28]" in said
    assert "\n" not in said


def test_a_mistake_of_ours_stays_a_traceback():
    assert reason_of(KeyError("a")) is None
    assert reason_of(RuntimeError("shapes do not fit")) is None


def test_a_folder_that_another_process_made_meanwhile_stays_its_own(tmp_path):
    def make():
        with new_folder(tmp_path / "out") as partial:
            (partial / "mine").touch()
            (tmp_path / "out").mkdir()
            (tmp_path / "out" / "theirs").touch()

    with pytest.raises(UserError, match="out: was made by another process meanwhile"):
        make()
    assert [path.name for path in tmp_path.rglob("*")] == ["out", "theirs"]


def test_what_a_killed_process_left_of_a_new_folder_goes_with_the_next(tmp_path, monkeypatch):
    dead = tmp_path / files.partial_path(tmp_path / "out").name.replace(f"-{os.getpid()}-", "-4194304-")
    dead.mkdir()
    with new_folder(tmp_path / "out") as partial:
        (partial / "a").touch()
    assert sorted(path.name for path in tmp_path.rglob("*")) == ["a", "out"]


def test_values_that_nobody_gave_are_not_shown_whole():
    assert (
        str(UserError(f"/a: field 'b' is {'x' * 5000} here; mend it"))
        == f"/a: field 'b' is {'x' * 100}... here; mend it"
    )
    path = "/folder" * 100
    assert str(UserError(f"{path}: no such file")) == f"{path}: no such file"
