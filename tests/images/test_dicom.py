"""DICOM folders: slices in the order of their places, and everything that is not one even volume said in words."""

from __future__ import annotations

import os
import shutil
import struct
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from builders.data import refusal_of, write_slices
from builders.dicom import (
    BIG,
    DEFLATED,
    END_OF_SEQUENCE,
    EXPLICIT,
    IMPLICIT,
    RLE,
    UNDEFINED,
    dicom,
    element,
    item,
)
from segfw.images.dicom import holds_dicom, is_dicom
from segfw.images.dicom_elements import check_elements
from segfw.images.formats import read_volume, size_and_change, write_labels
from segfw.images.volume import from_canonical, to_canonical

SimpleITK = pytest.importorskip("SimpleITK")  # most tests run without it

ARRAY = np.arange(3 * 4 * 5, dtype=np.int16).reshape(3, 4, 5) - 20
# x runs to the back and y to the feet (LPS): a sagittal series, whose slices follow each other to the right.
SAGITTAL = np.array([[0, 1.0, 0], [0, 0, -1]])
TRANSVERSE = np.eye(3)[:2]
STEP = np.array([-5.0, 0, 0])
ORIGIN = np.array([30.0, 20, 10])


def save_slices(folder: Path, array_zyx: np.ndarray = ARRAY, **changes: Any) -> Path:
    """A series of slices 5 mm apart, sagittal unless ``changes`` say otherwise."""
    places = ORIGIN + np.arange(len(array_zyx))[:, None] * STEP
    return write_slices(folder, array_zyx, **{"positions": places, "axes": SAGITTAL} | changes)


def reason(folder: Path) -> str:
    message = refusal_of(folder)
    assert message.count("; ") == 1  # what; what to do
    return message


@pytest.mark.parametrize("ending", [".dcm", "", ".IMA"])
def test_a_folder_is_one_image_in_the_order_of_the_places(tmp_path, ending):
    volume = read_volume(save_slices(tmp_path / "series", ending=ending))
    assert volume.array.dtype == np.int16
    np.testing.assert_array_equal(volume.array[0], ARRAY)
    assert volume.geometry.spacing_mm == pytest.approx((5, 0.5, 2))
    # LPS 30, 20, 10 is RAS -30, -20, 10; array axes run to the right, to the feet and to the back.
    expected = [[5, 0, 0, -30], [0, 0, -2, -20], [0, -0.5, 0, 10], [0, 0, 0, 1]]
    np.testing.assert_allclose(volume.geometry.matrix, expected, atol=1e-9)


def test_the_affine_agrees_with_simpleitk(tmp_path):
    turned = np.array([[0.8, 0.6, 0], [-0.48, 0.64, 0.6]])
    step = 4 * np.cross(*turned)
    folder = save_slices(tmp_path / "series", axes=turned, positions=ORIGIN + np.arange(3)[:, None] * step)
    reader = SimpleITK.ImageSeriesReader()
    reader.SetFileNames(reader.GetGDCMSeriesFileNames(str(folder)))
    image = reader.Execute()
    volume = read_volume(folder)
    np.testing.assert_array_equal(volume.array[0], SimpleITK.GetArrayFromImage(image))
    for z, y, x in ((0, 0, 0), (2, 0, 0), (0, 3, 0), (0, 0, 4)):
        expected = np.array([-1, -1, 1]) * image.TransformIndexToPhysicalPoint((x, y, z))
        np.testing.assert_allclose(volume.geometry.matrix[:3] @ [z, y, x, 1], expected, atol=1e-3)


def test_a_mask_lies_on_the_grid_of_the_series(tmp_path):
    volume = read_volume(save_slices(tmp_path / "series"))
    restored = from_canonical((to_canonical(volume).array[0] > 0).astype(np.uint8), volume.geometry)
    write_labels(tmp_path / "mask.nii.gz", restored, volume.geometry)
    mask = read_volume(tmp_path / "mask.nii.gz")
    np.testing.assert_array_equal(mask.array[0], ARRAY > 0)
    np.testing.assert_allclose(mask.geometry.matrix, volume.geometry.matrix, atol=1e-5)


def test_gantry_tilt_is_kept_as_shear(tmp_path):
    positions = ORIGIN + np.arange(3)[:, None] * np.array([0, 3, 4.0])
    volume = read_volume(save_slices(tmp_path / "series", axes=TRANSVERSE, positions=positions))
    np.testing.assert_allclose(volume.geometry.matrix[:3, 0], [0, -3, 4])
    assert "miss right angles by 36.9 degrees" in volume.notes[0]


def test_other_files_in_the_folder_are_passed_over(tmp_path):
    folder = save_slices(tmp_path / "series")
    (folder / "DICOMDIR").write_bytes(bytes(128) + b"DICM" + bytes(40))
    (folder / "notes.txt").write_text("no DICOM")
    (folder / ".hidden.dcm").write_text("no DICOM")
    shutil.copy(folder / "a9.dcm", folder / "a9 copy.dcm")  # the same instance twice
    np.testing.assert_array_equal(read_volume(folder).array[0], ARRAY)


def overwrite(path: Path, tag: bytes, value: str) -> None:
    """Puts a text of the same length, filled up with spaces, in the place of a decimal string."""
    content = bytearray(path.read_bytes())
    at = content.index(tag) + 8  # the tag and the length, without a type: implicit value representation
    length = int.from_bytes(content[at - 4 : at], "little")
    content[at : at + length] = value.encode().ljust(length)
    path.write_bytes(content)


def test_slopes_of_each_slice_are_applied(tmp_path):
    folder = save_slices(tmp_path / "series", tags={"0008|0060": "CT", "0028|1053": "1", "0028|1052": "0"})
    overwrite(folder / "a8.dcm", b"\x28\x00\x53\x10", ".5")  # the middle one; SimpleITK goes by the first
    volume = read_volume(folder)
    assert volume.array.dtype == np.float32
    np.testing.assert_array_equal(volume.array[0], ARRAY * np.array([1, 0.5, 1])[:, None, None])


def test_a_single_slice_is_as_thick_as_it_says(tmp_path):
    volume = read_volume(save_slices(tmp_path / "one", ARRAY[:1]))
    assert volume.geometry.spacing_mm == pytest.approx((4, 0.5, 2))
    volume = read_volume(save_slices(tmp_path / "x-ray", ARRAY[:1], axes=None, tags={"0018|0050": "0"}))
    assert volume.array.shape == (1, 1, 4, 5)
    assert volume.geometry.spacing_mm[0] == 1


def test_several_series_are_listed(tmp_path):
    folder = save_slices(tmp_path / "series")
    save_slices(folder, ARRAY[:1], series="1.2.3.5", start="b", tags={"0020|0011": "1", "0008|103e": "scout"})
    assert reason(folder) == (
        "holds 2 series: that of a7.dcm (3 slices), that of b9.dcm (1 slice); move each into a folder of its own, or "
        "give a file of the one that is meant"
    )
    np.testing.assert_array_equal(read_volume(folder / "a8.dcm").array[0], ARRAY)
    assert read_volume(folder / "b9.dcm").array.shape == (1, 1, 4, 5)
    assert size_and_change(folder / "a8.dcm")[0] == sum(path.stat().st_size for path in folder.glob("a*"))


def test_missing_doubled_and_turned_slices_are_found(tmp_path):
    four = np.arange(4 * 20, dtype=np.int16).reshape(4, 4, 5)
    gap = ORIGIN + np.array([0, 1, 3, 4])[:, None] * STEP
    assert reason(save_slices(tmp_path / "gap", four, positions=gap)) == (
        "the series of a6.dcm: between -25.0 and -15.0 mm along their normal two slices are 10.00 mm apart, "
        "the others 5.00 mm (slices missing?); complete the series or resample it evenly"
    )
    doubled = ORIGIN + np.array([0, 0, 1, 1])[:, None] * STEP
    assert reason(save_slices(tmp_path / "doubled", four, positions=doubled)) == (
        "the series of a6.dcm: its 4 slices lie at 2 positions, several at one (b-values, echoes or time points?); "
        "keep one file per position"
    )
    folder = save_slices(tmp_path / "turned")
    save_slices(folder, ARRAY[:1], axes=TRANSVERSE, start="b", tags={"0008|0018": "1.2.3.4.77"})
    assert "its slices lie in 2 different orientations (a localizer?); keep those of one" in reason(folder)
    folder = save_slices(tmp_path / "sizes")
    save_slices(folder, np.zeros((1, 6, 5), np.int16), start="b", tags={"0008|0018": "1.2.3.4.77"})
    assert "its slices differ in size (3 of 5 x 4 pixels, 1 of 5 x 6 pixels); keep those of one" in reason(folder)
    overwrite(folder / "a8.dcm", b"\x20\x00\x32\x00", "")
    assert "a8.dcm says no position or orientation, so the slices cannot be put in order; convert" in reason(folder)


def test_folders_without_an_image_are_refused(tmp_path):
    (tmp_path / "empty").mkdir()
    assert reason(tmp_path / "empty").startswith("is a folder without DICOM files; give a file, or the folder")
    (tmp_path / "other").mkdir()
    (tmp_path / "other" / "rt.dcm").write_bytes(bytes(128) + b"DICM" + bytes(40))
    assert reason(tmp_path / "other").startswith("holds DICOM files but no image among them, and rt.dcm is damaged")


def test_one_file_of_a_series_stands_for_the_series(tmp_path):
    folder = save_slices(tmp_path / "series")
    np.testing.assert_array_equal(read_volume(folder / "a9.dcm").array, read_volume(folder).array)


def test_a_file_of_several_frames_is_read_where_simpleitk_puts_it(tmp_path):
    folder = tmp_path / "frames"
    folder.mkdir()
    image = SimpleITK.GetImageFromArray(np.abs(ARRAY).astype(np.uint8))
    image.SetSpacing((2, 0.5, 3))
    image.SetOrigin((4, 5, 6))
    SimpleITK.WriteImage(image, str(folder / "a.dcm"))
    volume = read_volume(folder)
    np.testing.assert_array_equal(volume.array[0], np.abs(ARRAY))
    np.testing.assert_allclose(volume.geometry.spacing_mm, (3, 0.5, 2))
    np.testing.assert_allclose(volume.geometry.matrix[:3, 3], (-4, -5, 6))


def test_what_counts_as_dicom(tmp_path, monkeypatch):
    folder = save_slices(tmp_path / "series", ending="")
    assert holds_dicom(folder)
    assert not holds_dicom(tmp_path)  # not its folders
    assert is_dicom(folder / "a9")
    (tmp_path / "scan.nii").write_bytes(b"x")

    def refused(*_, **__):
        raise PermissionError

    with monkeypatch.context() as patch:
        patch.setattr(Path, "open", refused)
        assert is_dicom(folder / "a9")  # a series must not pass for whole without it
        assert not is_dicom(tmp_path / "scan.nii")
    (tmp_path / "short").write_bytes(b"x")
    assert not is_dicom(tmp_path / "short")


def test_the_size_of_a_series_is_that_of_its_files_and_a_changed_file_is_seen(tmp_path):
    folder = save_slices(tmp_path / "series")
    size, change = size_and_change(folder)
    assert size == sum(path.stat().st_size for path in folder.iterdir())
    assert size_and_change(folder) == (size, change)
    later = (folder / "a9.dcm").stat().st_mtime_ns + 10**9
    os.utime(folder / "a9.dcm", ns=(later, later))
    assert size_and_change(folder)[0] == size
    assert size_and_change(folder)[1] != change
    assert size_and_change(folder / "a9.dcm")[0] == size  # it stands for its series


def test_run_lengths_in_no_segment_never_reach_the_library(tmp_path):
    """Which divides by their number, and takes the process with it."""
    (tmp_path / "series").mkdir()
    packed = item(b"", length=0) + item(bytes(64), length=64) + END_OF_SEQUENCE
    content = dicom(syntax=RLE, pixel_length=UNDEFINED, pixels=packed)
    (tmp_path / "series" / "a.dcm").write_bytes(content)
    assert "a.dcm is damaged or cut short" in reason(tmp_path / "series")
    two = struct.pack("<16I", 2, 64, 66, *(0,) * 13) + b"\x89\0" * 2  # 120 zeros, twice
    packed = item(b"", length=0) + item(two, length=len(two)) + END_OF_SEQUENCE
    (tmp_path / "series" / "a.dcm").write_bytes(dicom(syntax=RLE, pixel_length=UNDEFINED, pixels=packed))
    assert read_volume(tmp_path / "series").array.shape == (1, 1, 10, 12)


@pytest.mark.parametrize("syntax", [EXPLICIT, IMPLICIT, BIG, DEFLATED])
def test_sequences_are_followed_in_every_way_of_writing(tmp_path, syntax):
    """An element in sequences with and without a length, and behind them; then pixels that lack two bytes."""
    (tmp_path / "series").mkdir()
    order = ">" if syntax == BIG else "<"
    name = element(0x08, 0x1155, b"UI", b"1.2.3.4.", syntax=syntax)
    inner = struct.pack(order + "HHI", 0xFFFE, 0xE000, len(name)) + name
    endless = struct.pack(order + "HHI", 0xFFFE, 0xE000, UNDEFINED) + name
    endless += struct.pack(order + "HHI", 0xFFFE, 0xE00D, 0) + struct.pack(order + "HHI", 0xFFFE, 0xE0DD, 0)
    for sequence in (
        element(0x08, 0x1140, b"SQ", inner, syntax=syntax),
        element(0x08, 0x1140, b"SQ", endless, length=UNDEFINED, syntax=syntax),
    ):
        path = tmp_path / "series" / "a.dcm"
        path.write_bytes(dicom(more=sequence + name, syntax=syntax))
        assert check_elements(path) == 240
        assert read_volume(tmp_path / "series").array.shape == (1, 1, 10, 12)
        path.write_bytes(dicom(more=sequence + name, syntax=syntax, pixels=bytes(238), pixel_length=240))
        with pytest.raises(ValueError, match="a.dcm: an element announces 240 bytes, 238 are left"):
            check_elements(path)


@pytest.mark.parametrize("where", [b"\2\0\3\0UI", b"\x08\0\x30\x10LO"])
def test_the_length_of_a_type_that_nobody_knows_is_where_the_library_looks_for_it(tmp_path, where):
    """A flipped bit makes SI of SH; the library takes 1.3 GB for the letters after it, also before the data set."""
    whole = dicom(more=element(0x08, 0x1030, b"LO", b"GDCM ITK"))
    assert whole.count(where) == 1
    path = tmp_path / "a.dcm"
    path.write_bytes(whole)
    assert check_elements(path) == 240
    path.write_bytes(whole.replace(where, where[:4] + b"SI"))
    with pytest.raises(ValueError, match=r"a\.dcm: an element announces [0-9,]{11,13} bytes, [0-9]{3} are left"):
        check_elements(path)
