"""One identity of an input: every file that a reader reads counts, each by itself."""

import os
from pathlib import Path

import pytest

from segfw.images.formats import files_read, size_and_change


def touch(path: Path, changed_s: int, size: int = 3) -> Path:
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_bytes(bytes(size))
    os.utime(path, ns=(changed_s * 10**9,) * 2)
    return path


def header(path: Path, text: str) -> Path:
    path.write_text(text)
    os.utime(path, ns=(5 * 10**9,) * 2)
    return path


META = """NDims = 3
DimSize = 1 1 3
ElementType = MET_UCHAR
ElementDataFile = {}
"""
NRRD = """NRRD0004
type: uchar
dimension: 3
sizes: 1 1 3
encoding: raw
data file: {}
"""


def inputs(folder: Path) -> dict[str, tuple[Path, list[Path]]]:
    """Inputs of several files: what is given to the reader, and the other files that it reads."""
    folder.mkdir(parents=True)
    list_of_two = "LIST\ns 1.raw\ns 2.raw\ns 3.raw\n"
    slices = [touch(folder / f"s {number}.raw", 1, size=1) for number in (1, 2, 3)]
    patterned = [touch(folder / f"p{number:03}.raw", 1, size=1) for number in (1, 2, 3)]
    found = {
        "a space in the name": (header(folder / "a.mhd", META.format("pat 0.raw")), [touch(folder / "pat 0.raw", 1)]),
        "a list": (header(folder / "b.mhd", META.format(list_of_two)), slices),
        "a pattern": (header(folder / "c.mhd", META.format("p%03d.raw 1 3 1")), patterned),
        "an absolute path": (
            header(folder / "d.mhd", META.format(folder / "x" / "v.raw")),
            [touch(folder / "x" / "v.raw", 1)],
        ),
        "a header of NRRD": (header(folder / "e.nrrd", NRRD.format("pat 0.raw")), [folder / "pat 0.raw"]),
        "a list of NRRD": (header(folder / "f.nrrd", NRRD.format(list_of_two)), slices),
        "an .mha with its voxels elsewhere": (
            header(folder / "g.mha", META.format("pat 0.raw")),
            [folder / "pat 0.raw"],
        ),
        "a picture": (touch(folder / "h_0000.png", 5), [touch(folder / "h.json", 1)]),
        "a series": (folder / "series", [touch(folder / "series" / f"{number}.dcm", number) for number in range(3)]),
    }
    return found


KINDS = tuple(inputs_kind for inputs_kind in (
    "a space in the name", "a list", "a pattern", "an absolute path", "a header of NRRD", "a list of NRRD",
    "an .mha with its voxels elsewhere", "a picture", "a series",
))  # fmt: skip


@pytest.mark.parametrize("kind", KINDS)
def test_every_file_that_is_read_counts_by_itself(tmp_path, kind):
    given, others = inputs(tmp_path / "in")[kind]
    assert set(files_read(given)) - {given} == set(others)
    before = size_and_change(given)
    assert before == size_and_change(given)
    for other in others:
        state = other.stat()
        os.utime(other, ns=(0, 500_000_000))  # older than all others: a copy that kept its time
        assert size_and_change(given)[0] == before[0]
        assert size_and_change(given)[1] != before[1]
        os.utime(other, ns=(state.st_mtime_ns,) * 2)
        assert size_and_change(given) == before
        content = other.read_bytes()
        other.write_bytes(content + b"x")
        os.utime(other, ns=(state.st_mtime_ns,) * 2)
        assert size_and_change(given)[0] == before[0] + 1
        other.write_bytes(content)
        os.utime(other, ns=(state.st_mtime_ns,) * 2)
    others[0].unlink()
    assert size_and_change(given) != before


@pytest.mark.parametrize("name", ["a.nii.gz", "a.nii", "a.nrrd", "a.mha", "a.tif", "a.png"])
def test_a_single_file_keeps_the_identity_that_work_folders_have(tmp_path, name):
    path = touch(tmp_path / name, 7, size=11)
    assert size_and_change(path) == (11, 7 * 10**9)


def test_what_is_missing_or_no_file_is_for_the_reader_to_complain_of(tmp_path):
    assert size_and_change(tmp_path / "nothing.mha") == (0, 0)
    (tmp_path / "loop.mha").symlink_to(tmp_path / "loop.mha")
    assert size_and_change(tmp_path / "loop.mha") == (0, 0)
    os.mkfifo(tmp_path / "pipe.mha")
    assert size_and_change(tmp_path / "pipe.mha")[0] == 0  # and does not wait for a writer
