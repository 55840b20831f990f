"""NIfTI headers that contradict themselves, lack something, or say the wrong ending."""

import gzip
from pathlib import Path

import nibabel
import numpy as np
import pytest

from builders.data import write_nifti
from segfw.images.formats import UnreadableFile, read_volume, write_labels
from segfw.images.geometry import Geometry, shear_degrees
from segfw.images.volume import Volume, from_canonical, to_canonical

ARRAY = np.arange(5 * 4 * 3, dtype=np.int16).reshape(5, 4, 3)  # x, y, z
AFFINE = nibabel.affines.from_matvec(np.diag([2.0, 0.5, 5.0]), (10, 20, 30))


def save(path: Path, sform: np.ndarray | None, qform: np.ndarray | None, codes: tuple[int, int]) -> Path:
    image = nibabel.Nifti1Image(ARRAY, None)
    image.header.set_zooms((2, 0.5, 5))
    image.set_qform(qform, code=codes[1])
    image.set_sform(sform, code=codes[0])
    nibabel.save(image, path)
    return path


def moved(**mm: float) -> np.ndarray:
    affine = AFFINE.copy()
    affine[:3, 3] += [mm.get(axis, 0.0) for axis in "xyz"]
    return affine


def test_a_gzipped_nii_and_a_plain_nii_gz_are_read(tmp_path):
    write_nifti(tmp_path / "image.nii", ARRAY)
    plain = (tmp_path / "image.nii").read_bytes()
    (tmp_path / "zipped.nii").write_bytes(gzip.compress(plain))
    (tmp_path / "plain.nii.gz").write_bytes(plain)
    nibabel.save(nibabel.Nifti2Image(ARRAY, np.diag([1, 1.5, 4, 1])), tmp_path / "two.nii")
    (tmp_path / "two.nii.gz").write_bytes((tmp_path / "two.nii").read_bytes())
    expected = read_volume(tmp_path / "image.nii")
    for name in ("zipped.nii", "plain.nii.gz", "two.nii.gz"):
        volume = read_volume(tmp_path / name)
        np.testing.assert_array_equal(volume.array, expected.array)
        assert volume.geometry == expected.geometry


def test_sform_and_qform_that_agree_within_half_a_voxel_are_fine(tmp_path):
    volume = read_volume(save(tmp_path / "a.nii.gz", AFFINE, moved(y=0.2), (1, 1)))
    np.testing.assert_allclose(volume.geometry.matrix, AFFINE[:, [2, 1, 0, 3]])  # the sform's
    assert volume.notes == ()


def test_sform_and_qform_of_one_code_that_contradict_each_other_are_refused(tmp_path):
    path = save(tmp_path / "a.nii.gz", AFFINE, moved(x=3, y=4), (1, 1))
    with pytest.raises(UnreadableFile) as caught:
        read_volume(path)
    assert str(caught.value) == (
        f"{path}: its sform (scanner, origin 10, 20, 30) and qform (scanner, origin 13, 24, 30) put a corner 5 mm "
        "apart; write the right one over the other, for example with nibabel's set_sform or set_qform"
    )


def test_sform_in_another_space_than_the_qform_is_used_and_noted(tmp_path):
    volume = read_volume(save(tmp_path / "a.nii.gz", moved(z=-7), AFFINE, (4, 1)))
    assert volume.geometry.matrix[2, 3] == 23
    (note,) = volume.notes
    assert "sform (MNI, origin 10, 20, 23) and qform (scanner, origin 10, 20, 30)" in note
    assert "7 mm apart, and the sform is used; check" in note


def test_one_of_the_two_is_enough(tmp_path):
    for codes in ((1, 0), (0, 1)):
        volume = read_volume(save(tmp_path / "a.nii.gz", AFFINE, AFFINE, codes))
        np.testing.assert_allclose(volume.geometry.matrix, AFFINE[:, [2, 1, 0, 3]])
    # Neither: the voxel sizes remain, about the middle, with x to the left as NIfTI's first method has it.
    volume = read_volume(save(tmp_path / "a.nii.gz", None, None, (0, 0)))
    assert volume.geometry.spacing_mm == (5, 0.5, 2)
    np.testing.assert_allclose(volume.geometry.matrix @ [1, 1.5, 2, 1], [0, 0, 0, 1])


def test_a_missing_spacing_is_taken_as_1_mm_and_noted(tmp_path):
    save(tmp_path / "a.nii", None, None, (0, 0))
    content = bytearray((tmp_path / "a.nii").read_bytes())
    content[76 + 4 * 2 : 76 + 4 * 3] = bytes(4)  # pixdim[2], that of y
    (tmp_path / "a.nii.gz").write_bytes(gzip.compress(content))
    volume = read_volume(tmp_path / "a.nii.gz")
    assert volume.geometry.spacing_mm == (5, 1, 2)
    assert volume.notes == ("says no spacing along y, so 1 mm is taken; write the true spacing into its header",)


def test_a_single_slice_without_thickness_is_one_unit_thick(tmp_path):
    image = nibabel.Nifti1Image(ARRAY[:, :, :1], None)
    image.header.set_sform(np.array([[0, 2, 0, 1], [0.5, 0, 0, 2], [0, 0, 0, 3], [0, 0, 0, 1.0]]), code=1)
    nibabel.save(image, tmp_path / "a.nii.gz")
    assert read_volume(tmp_path / "a.nii.gz").geometry.spacing_mm == (1, 2, 0.5)


def test_numbers_that_are_not_finite_are_named(tmp_path):
    affine = AFFINE.copy()
    affine[0, 3] = np.nan
    path = save(tmp_path / "a.nii.gz", affine, None, (1, 0))
    with pytest.raises(UnreadableFile, match="places voxels by a number that is infinite or NaN; repair the file's"):
        read_volume(path)


@pytest.mark.parametrize("ending", [".nii.gz", ".nrrd", ".mha"])
def test_sheared_axes_come_back_exactly(tmp_path, ending):
    # z runs 5 mm up and 2 mm to the front, as under a gantry tilt of 21.8 degrees.
    affine = nibabel.affines.from_matvec([[0, 0, 2.0], [2, 0.5, 0], [5, 0, 0]], (10, 20, 30))
    mask = ARRAY.transpose(2, 1, 0)
    path = tmp_path / f"mask{ending}"
    write_labels(path, mask, Geometry.of(mask.shape, affine))
    volume = read_volume(path)
    np.testing.assert_allclose(volume.geometry.matrix, affine, atol=1e-6)
    np.testing.assert_array_equal(volume.array[0], mask)
    assert shear_degrees(volume.geometry.matrix) == pytest.approx(21.80, abs=0.01)
    assert "its axes miss right angles by 21.8 degrees" in volume.notes[0]
    if ending == ".nii.gz":  # a qform cannot hold it, so it must not claim to
        assert int(nibabel.load(path).header["qform_code"]) == 0


def test_a_sheared_sform_beside_the_qform_that_tools_write_is_no_conflict(tmp_path):
    sheared = nibabel.affines.from_matvec([[2.0, 0, 0], [0, 0.5, 2], [0, 0, 5]], (10, 20, 30))
    volume = read_volume(save(tmp_path / "a.nii.gz", sheared, sheared, (1, 1)))
    np.testing.assert_allclose(volume.geometry.matrix, sheared[:, [2, 1, 0, 3]])


def test_a_line_of_many_values_is_no_image_but_a_short_one_is(tmp_path):
    write_nifti(tmp_path / "surface.nii.gz", np.zeros((1, 2000, 1), np.float32))
    with pytest.raises(UnreadableFile, match=r"holds 1 x 2000 x 1 voxels, a list of values \(on a surface\?\)"):
        read_volume(tmp_path / "surface.nii.gz")
    write_nifti(tmp_path / "line.nii.gz", np.zeros((1, 1, 20), np.uint8))
    assert read_volume(tmp_path / "line.nii.gz").array.shape == (1, 20, 1, 1)


def test_a_restored_mask_lies_on_a_sheared_flipped_grid(tmp_path):
    affine = nibabel.affines.from_matvec([[-2.0, 0, 0], [0, 0, 0.5], [0.3, 5, 0]], (10, 20, 30))
    nibabel.save(nibabel.Nifti1Image(ARRAY, affine), tmp_path / "image.nii.gz")
    image = read_volume(tmp_path / "image.nii.gz")
    canonical = to_canonical(Volume(array=image.array, geometry=image.geometry)).array[0]
    write_labels(tmp_path / "mask.nii.gz", from_canonical(canonical, image.geometry), image.geometry)
    mask = nibabel.load(tmp_path / "mask.nii.gz")
    np.testing.assert_array_equal(mask.dataobj, ARRAY)
    np.testing.assert_allclose(mask.affine, affine, atol=1e-6)
