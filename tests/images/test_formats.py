"""Files: what is written comes back, geometry agrees with SimpleITK, and what cannot be read says why."""

import gzip
from pathlib import Path

import nibabel
import numpy as np
import pytest

from builders.data import refusal_of, write_nifti
from segfw.images import formats
from segfw.images.formats import FORMATS, read_volume, split_ending, write_labels
from segfw.images.geometry import Geometry

SHAPE_ZYX = (3, 4, 5)
VOLUMES = (".nii.gz", ".nii", ".nrrd", ".mha", ".mhd")  # what has a place in space; pictures have tests of their own
# Turned about two axes, left-handed, unequal spacing (5, 0.5, 2): columns are the z, y and x axes of the array.
TURNED = np.array([[-4 / 13, -9.6 / 13, 0.6], [3 / 13, 7.2 / 13, 0.8], [-12 / 13, 5 / 13, 0]])
OBLIQUE = nibabel.affines.from_matvec(TURNED * (5, 0.5, 2), (-30, 40.5, 7.25))


def world_by_itk(path: Path, index_zyx: tuple[int, ...]) -> np.ndarray:
    """RAS millimetres of a voxel as SimpleITK has it, which counts x first and in LPS."""
    SimpleITK = pytest.importorskip("SimpleITK")
    image = SimpleITK.ReadImage(str(path))
    index = [int(value) for value in index_zyx[::-1]] + [0] * (image.GetDimension() - 3)
    return np.array([-1, -1, 1]) * image.TransformIndexToPhysicalPoint(index)[:3]


def assert_agrees_with_itk(path: Path) -> None:
    geometry = read_volume(path).geometry
    last = tuple(size - 1 for size in geometry.shape)
    for index in ((0, 0, 0), (last[0], 0, 0), (0, last[1], 0), (0, 0, last[2]), last):
        expected = world_by_itk(path, index)
        np.testing.assert_allclose(geometry.matrix[:3] @ [*index, 1], expected, atol=1e-4, err_msg=str(index))


def numbers(kind: type = np.int16, shape: tuple[int, ...] = SHAPE_ZYX) -> np.ndarray:
    return np.arange(np.prod(shape)).reshape(shape).astype(kind)


@pytest.mark.parametrize("ending", VOLUMES)
@pytest.mark.parametrize("affine", [np.diag([5.0, 0.5, 2, 1])[[2, 1, 0, 3]], OBLIQUE])
def test_a_mask_comes_back_with_its_grid(tmp_path, ending, affine):
    path = tmp_path / f"mask{ending}"
    geometry = Geometry.of(SHAPE_ZYX, affine)
    write_labels(path, numbers(), geometry)
    volume = read_volume(path)
    np.testing.assert_array_equal(volume.array, numbers()[None])
    assert volume.geometry.shape == SHAPE_ZYX
    np.testing.assert_allclose(volume.geometry.matrix, affine, atol=1e-5)
    assert_agrees_with_itk(path)
    assert [entry.name for entry in tmp_path.iterdir()] == [path.name]  # one file, nothing hidden beside it


def test_the_grid_of_a_nifti_file_comes_back_to_the_last_bit(tmp_path):
    image = tmp_path / "image.nii.gz"
    copy = tmp_path / "copy.nii.gz"
    affine = nibabel.affines.from_matvec([[0.7, 0.1, 0], [-0.1, 0.7, 0.2], [0, 0.01, 3.3]], [1 / 3, -77.7, 12.34567])
    nibabel.save(nibabel.Nifti1Image(numbers().transpose(2, 1, 0), affine), image)
    first = read_volume(image).geometry
    write_labels(copy, numbers(), first)
    assert read_volume(copy).geometry == first


@pytest.mark.parametrize(
    "values, kind",
    [
        ((0, 255), np.uint8),
        ((0, 256), np.int16),
        ((-1, 1), np.int16),
        ((0, 32_768), np.int32),
        ((-40_000, 7), np.int32),
    ],
)
def test_masks_take_the_smallest_type_that_holds_them(tmp_path, values, kind):
    mask = np.array(values, np.int64).reshape(1, 1, 2)
    write_labels(tmp_path / "mask.nii.gz", mask, Geometry.of((1, 1, 2), np.eye(4)))
    volume = read_volume(tmp_path / "mask.nii.gz")
    assert volume.array.dtype == kind
    np.testing.assert_array_equal(volume.array[0], mask)


def test_integers_stay_integers_and_everything_else_becomes_float32(tmp_path):
    for kind, expected in ((np.uint8, np.uint8), (np.int32, np.int32), (np.float64, np.float32)):
        write_nifti(tmp_path / "image.nii.gz", numbers(kind))
        assert read_volume(tmp_path / "image.nii.gz").array.dtype == expected
    for kind in (np.int16, np.float32, np.float64):
        header = nibabel.Nifti1Header(endianness=">")
        header.set_data_dtype(kind)
        nibabel.save(nibabel.Nifti1Image(numbers(kind), np.eye(4), header), tmp_path / "big.nii")
        assert nibabel.load(tmp_path / "big.nii").header.endianness == ">"
        volume = read_volume(tmp_path / "big.nii")
        assert volume.array.dtype == (np.int16 if kind == np.int16 else np.float32)  # in the machine's byte order
        np.testing.assert_array_equal(volume.array[0].transpose(2, 1, 0), numbers())
    scaled = nibabel.Nifti1Image(numbers(), np.eye(4))
    scaled.header.set_slope_inter(0.5, -1)
    nibabel.save(scaled, tmp_path / "scaled.nii")
    volume = read_volume(tmp_path / "scaled.nii")
    assert volume.array.dtype == np.float32
    np.testing.assert_array_equal(volume.array[0].transpose(2, 1, 0), numbers() * 0.5 - 1)


def test_channels_are_the_fourth_axis_of_nifti_or_the_fifth_of_its_vectors(tmp_path):
    array_xyzc = numbers(np.int16, (5, 4, 3, 2))
    four = nibabel.Nifti1Image(array_xyzc, OBLIQUE[:, [2, 1, 0, 3]])
    nibabel.save(four, tmp_path / "four.nii.gz")
    nibabel.save(nibabel.Nifti1Image(array_xyzc[:, :, :, None], four.affine), tmp_path / "five.nii.gz")
    for name in ("four", "five"):
        volume = read_volume(tmp_path / f"{name}.nii.gz")
        np.testing.assert_array_equal(volume.array, array_xyzc.transpose(3, 2, 1, 0))
        assert volume.geometry.shape == SHAPE_ZYX
    assert_agrees_with_itk(tmp_path / "four.nii.gz")


@pytest.mark.parametrize("ending", [".nrrd", ".mha"])
def test_vectors_and_fourth_dimensions_of_itk_are_channels(tmp_path, ending):
    SimpleITK = pytest.importorskip("SimpleITK")
    array_zyxc = numbers(np.int16, (3, 4, 5, 2))
    vectors = SimpleITK.GetImageFromArray(array_zyxc, isVector=True)
    series = SimpleITK.GetImageFromArray(np.moveaxis(array_zyxc, -1, 0), isVector=False)
    vectors.SetSpacing((2, 0.5, 5))
    vectors.SetOrigin((1, 2, 3))
    for name, image in (("vectors", vectors), ("series", series)):
        SimpleITK.WriteImage(image, str(tmp_path / f"{name}{ending}"))
        volume = read_volume(tmp_path / f"{name}{ending}")
        np.testing.assert_array_equal(volume.array, np.moveaxis(array_zyxc, -1, 0))
    assert read_volume(tmp_path / f"vectors{ending}").geometry.spacing_mm == (5, 0.5, 2)
    assert_agrees_with_itk(tmp_path / f"vectors{ending}")


@pytest.mark.parametrize("ending", [".nii.gz", ".nrrd", ".mha"])
def test_two_dimensions_are_a_volume_of_one_slice(tmp_path, ending):
    SimpleITK = pytest.importorskip("SimpleITK")
    image = SimpleITK.GetImageFromArray(numbers(np.int16, (4, 5)))
    image.SetSpacing((2, 0.5))
    image.SetOrigin((10, 20))
    SimpleITK.WriteImage(image, str(tmp_path / f"slice{ending}"))
    volume = read_volume(tmp_path / f"slice{ending}")
    np.testing.assert_array_equal(volume.array, numbers(np.int16, (1, 1, 4, 5)))
    assert volume.geometry.spacing_mm == (1, 0.5, 2)
    # Index y = 3, x = 4 lies 4 * 2 mm to the left of -10 and 3 * 0.5 mm to the back of -20.
    np.testing.assert_allclose(volume.geometry.matrix @ [0, 3, 4, 1], [-18, -21.5, 0, 1])


def test_colours_of_a_flat_image_are_channels(tmp_path):
    SimpleITK = pytest.importorskip("SimpleITK")
    array_yxc = numbers(np.uint8, (4, 5, 3))
    SimpleITK.WriteImage(SimpleITK.GetImageFromArray(array_yxc, isVector=True), str(tmp_path / "flat.nrrd"))
    volume = read_volume(tmp_path / "flat.nrrd")
    np.testing.assert_array_equal(volume.array, array_yxc.transpose(2, 0, 1)[:, None])


def test_flipped_and_permuted_files_agree_with_itk(tmp_path):
    for number, order in enumerate([(0, 1, 2), (1, 2, 0), (2, 0, 1)]):
        affine = np.zeros((4, 4))
        affine[order, range(3)] = np.array([2, -0.5, 5]) * (-1) ** number
        affine[:, 3] = (1, 2, 3, 1)
        path = tmp_path / f"{number}.nii.gz"
        nibabel.save(nibabel.Nifti1Image(numbers().transpose(2, 1, 0), affine), path)
        assert_agrees_with_itk(path)


@pytest.mark.parametrize("unit, factor", [("mm", 1), ("meter", 1000), ("micron", 0.001), ("unknown", 1)])
def test_units_of_the_header_are_converted_to_millimetres(tmp_path, unit, factor):
    affine = nibabel.affines.from_matvec(np.diag([2.0, 0.5, 5]), (30, -20, 10))
    image = nibabel.Nifti1Image(numbers().transpose(2, 1, 0), affine)
    image.header.set_xyzt_units(unit)
    nibabel.save(image, tmp_path / "image.nii.gz")
    assert read_volume(tmp_path / "image.nii.gz").geometry.spacing_mm == pytest.approx(
        (5 * factor, 0.5 * factor, 2 * factor)
    )
    assert_agrees_with_itk(tmp_path / "image.nii.gz")


def test_endings_are_recognised_in_any_case():
    assert split_ending(Path("a/case.01_0000.NII.GZ")) == ("case.01_0000", ".nii.gz")
    assert split_ending(Path("case.nii")) == ("case", ".nii")
    assert split_ending(Path("photo.xcf")) == ("photo.xcf", "")
    assert split_ending(Path("photo.PNG")) == ("photo", ".png")


def test_upper_case_endings_can_be_read(tmp_path):
    write_nifti(tmp_path / "image.nii.gz", numbers())
    (tmp_path / "image.nii.gz").rename(tmp_path / "IMAGE.NII.GZ")
    np.testing.assert_array_equal(read_volume(tmp_path / "IMAGE.NII.GZ").array[0], numbers().transpose(2, 1, 0))


def noise_file(path: Path) -> bytes:
    """Writes a mask that hardly compresses, so that half of the file is half of the voxels; returns its bytes."""
    noise = np.random.default_rng(0).integers(0, 255, (10, 20, 30))
    write_labels(path, noise, Geometry.of(noise.shape, np.eye(4)))
    return path.read_bytes()


def reason(path: Path) -> str:
    message = refusal_of(path)
    assert "; " in message  # a remedy
    return message


@pytest.mark.parametrize(
    "ending, words",
    [
        (".nii.gz", "is cut short"),
        (".nii", "announces 6,352 bytes with the voxels, but 3,176 are stored"),
        (".nrrd", "voxels are cut short"),
        (".mha", "compressed bytes, but"),
        (".mhd", "compressed bytes, but"),
    ],
)
def test_a_truncated_file_is_named(tmp_path, ending, words):
    path = tmp_path / f"case{ending}"
    whole = noise_file(path)
    path.write_bytes(whole[: len(whole) // 2])
    message = reason(path)
    assert words in message
    assert "copy or export the file again" in message
    assert "No such file" not in message  # what MetaImage guesses, wrongly


def test_damage_inside_a_compressed_file_is_found(tmp_path):
    path = tmp_path / "case.nii.gz"
    content = gzip.decompress(noise_file(path))
    damaged = bytearray(gzip.compress(content, compresslevel=0))  # stored as it is: any byte may change unnoticed
    damaged[-1000] ^= 1
    path.write_bytes(damaged)
    assert "incorrect data check" in reason(path)


@pytest.mark.parametrize("ending", VOLUMES)
def test_text_under_an_image_name_is_named(tmp_path, ending):
    path = tmp_path / f"case{ending}"
    path.write_text("<html>404 not found</html>")
    assert "cannot be read (" in reason(path)
    path.write_bytes(b"")
    assert "cannot be read (" in reason(path)


def test_files_that_hold_no_single_numbers_are_refused(tmp_path):
    write_nifti(tmp_path / "complex.nii.gz", numbers(np.complex64))
    assert "type complex64 (complex or colour)" in reason(tmp_path / "complex.nii.gz")
    colours = numbers(np.uint8, (*SHAPE_ZYX, 3)).view([("R", "u1"), ("G", "u1"), ("B", "u1")])[..., 0]
    write_nifti(tmp_path / "colour.nii.gz", colours)
    assert "(complex or colour)" in reason(tmp_path / "colour.nii.gz")
    write_nifti(tmp_path / "tensor.nii.gz", numbers(np.int16, (3, 4, 5, 2, 2)))
    assert "has 5 dimensions (3, 4, 5, 2, 2), expected 2, 3 or 4" in reason(tmp_path / "tensor.nii.gz")
    nibabel.save(nibabel.Nifti1Image(numbers(np.int16, (3, 0, 2)), np.eye(4)), tmp_path / "empty.nii")
    assert "has no voxels" in reason(tmp_path / "empty.nii")


def test_a_grid_without_volume_missing_file_and_unknown_ending_are_named(tmp_path):
    image = nibabel.Nifti1Image(numbers(), None)
    image.header.set_sform(np.diag([1.0, 0, 1, 1]), code=1)
    nibabel.save(image, tmp_path / "flat.nii.gz")
    assert "bad geometry" in reason(tmp_path / "flat.nii.gz")
    assert "no such file; check the name" in reason(tmp_path / "none.nii.gz")
    (tmp_path / "photo.xcf").write_bytes(b"png")
    assert reason(tmp_path / "photo.xcf").startswith(f"unknown ending; segfw reads {', '.join(FORMATS)}")


def test_a_mask_that_fails_to_be_written_keeps_the_old_one(tmp_path, monkeypatch):
    path = tmp_path / "mask.nii.gz"
    geometry = Geometry.of(SHAPE_ZYX, np.eye(4))
    write_labels(path, numbers(), geometry)

    def half(partial: Path, _array: np.ndarray, _affine: np.ndarray) -> None:
        partial.write_bytes(b"half")
        raise OSError("disk full")

    monkeypatch.setitem(FORMATS, ".nii.gz", formats.Format(formats.NIFTI.read, half))
    with pytest.raises(OSError, match="disk full"):
        write_labels(path, numbers() * 2, geometry)
    np.testing.assert_array_equal(read_volume(path).array[0], numbers())
    assert [entry.name for entry in tmp_path.iterdir()] == ["mask.nii.gz"]


@pytest.mark.real_data
@pytest.mark.parametrize(
    "name, outcome",
    [
        ("complex.nii.gz", "complex or colour"),
        ("ct_perfusion.nii.gz", "complex or colour"),
        ("CT_AVM.nii.gz", (1, 154, 242, 256)),
        ("example4d.nii.gz", (2, 24, 96, 128)),
        ("example_nifti2.nii.gz", (2, 12, 20, 32)),
        ("anatomical.nii", (1, 25, 41, 33)),
        ("FLAIR.nrrd", (1, 140, 160, 124)),
    ],
)
def test_awkward_files_are_read_or_refused_with_a_sentence(real_data, name, outcome):
    path = real_data / "awkward" / name
    if isinstance(outcome, str):
        assert outcome in reason(path)
    else:
        assert read_volume(path).array.shape == outcome
        if "nifti2" not in name:  # which SimpleITK cannot read
            assert_agrees_with_itk(path)
