"""Every real file is read where SimpleITK puts it, or refused for the reason that its data set's description gives."""

from __future__ import annotations

from pathlib import Path

import nibabel
import numpy as np
import pytest

from segfw.dataset.layouts import find_dataset
from segfw.dataset.verify import volume_mismatch
from segfw.images.formats import UnreadableFile, read_mask, read_volume, split_ending
from segfw.images.geometry import shear_degrees
from segfw.images.volume import to_canonical
from segfw.planning.fingerprint import scan_cases

pytestmark = pytest.mark.real_data

SERIES = "dicom/ProstateX-0000/07-07-2011"
MASK_FOLDERS = ("labels", "labelsTr", "scribbles", "brainmask", "predictions", "predictions_no_mirroring")

# Files that are no image, or not one image, and the words that say so.
REFUSED = {
    "awkward/complex.nii.gz": "voxels of type complex64",
    "awkward/ct_perfusion.nii.gz": "voxels of type RGB (complex or colour)",
    "awkward/pval.LH.nii.gz": "163842 x 1 x 1 voxels, a list of values",
}
# What SimpleITK cannot judge: it flattens shear in silence and lacks NIfTI-2.
BEYOND_ITK = {"awkward/shear.nii.gz", "awkward/example_nifti2.nii.gz"}

FOLDERS = (
    "awkward",
    "awkward/48_orientations",
    "brain_slices_2d_many_labels",
    "brain_tumour_2channel",
    "cardiac_cine",
    "head_neck_ct",
    "hippocampus",
    "nnunet_models",
    "refuse_or_repair",
    "spleen_ct_one_case",
    "torso_ct_100_labels",
)


def world_by_itk(image, index_zyx: tuple[int, ...]) -> np.ndarray:
    """RAS millimetres of a voxel as SimpleITK has it, which counts x first and in LPS."""
    index = [int(value) for value in index_zyx[::-1]][: image.GetDimension()]
    index += [0] * (image.GetDimension() - len(index))
    point = [*image.TransformIndexToPhysicalPoint(index), 0.0][:3]
    return np.array([-1, -1, 1]) * point


def assert_itk_agrees(path: Path) -> None:
    SimpleITK = pytest.importorskip("SimpleITK")
    volume = read_volume(path)
    image = SimpleITK.ReadImage(str(path))
    z, y, x = (size - 1 for size in volume.geometry.shape)
    for index in ((0, 0, 0), (z, 0, 0), (0, y, 0), (0, 0, x), (z, y, x)):
        ours = volume.geometry.matrix[:3] @ [*index, 1]
        np.testing.assert_allclose(ours, world_by_itk(image, index), atol=2e-3, err_msg=f"{path} {index}")
    spacing = (*image.GetSpacing(), 1.0)[:3]
    np.testing.assert_allclose(volume.geometry.spacing_mm, spacing[::-1], rtol=1e-5, err_msg=str(path))
    voxels = SimpleITK.GetArrayFromImage(image)
    ours = volume.array.reshape(voxels.shape)
    if ours.dtype.kind == "f":
        ours = np.nan_to_num(ours)  # as SimpleITK does without a word; segfw's data check names them
    # Scaled integers are rounded to float32 in two ways.
    np.testing.assert_allclose(ours, voxels, rtol=1e-6, err_msg=str(path))


@pytest.mark.parametrize("folder", FOLDERS)
def test_every_file_is_read_where_itk_puts_it_or_refused(real_data, folder):
    files = sorted((real_data / folder).rglob("*") if folder != "awkward" else (real_data / folder).iterdir())
    files = [path for path in files if path.is_file() and split_ending(path)[1]]
    assert files
    for path in files:
        name = str(path.relative_to(real_data))
        if name in REFUSED:
            with pytest.raises(UnreadableFile) as caught:
                read_volume(path)
            assert REFUSED[name] in str(caught.value)
        elif name in BEYOND_ITK:
            image = nibabel.load(path)
            volume = read_volume(path)
            assert volume.array.shape[1:] == image.shape[2::-1]
            np.testing.assert_allclose(volume.geometry.matrix, image.affine[:, [2, 1, 0, 3]])
        else:
            assert_itk_agrees(path)


def test_shear_is_read_and_noted(real_data):
    volume = read_volume(real_data / "awkward" / "shear.nii.gz")
    assert volume.geometry.shape == (54, 422, 306)
    assert shear_degrees(volume.geometry.matrix) == pytest.approx(18.5, abs=0.1)
    assert "miss right angles by 18.5 degrees" in volume.notes[0]


@pytest.mark.parametrize(
    "name, kind, shape, spacing_zyx",
    [
        ("CT_AVM.nii.gz", np.float32, (1, 154, 242, 256), (1, 0.7209136, 0.7199426)),
        ("anatomical.nii", np.int16, (1, 25, 41, 33), (2, 2, 2)),
        ("resampled_anat_moved.nii", np.float32, (1, 3, 21, 17), (8, 4, 4)),
        ("example4d.nii.gz", np.int16, (2, 24, 96, 128), (2.2, 2, 2)),
        ("example_nifti2.nii.gz", np.int16, (2, 12, 20, 32), (2.2, 2, 2)),
        ("pcasl.nii.gz", np.int16, (10, 20, 68, 52), (6, 3, 3)),
        ("FLAIR.nrrd", np.uint8, (1, 140, 160, 124), (1, 1, 1)),
    ],
)
def test_awkward_files_have_the_shape_that_their_headers_say(real_data, name, kind, shape, spacing_zyx):
    volume = read_volume(real_data / "awkward" / name)
    assert (volume.array.dtype, volume.array.shape) == (kind, shape)
    assert volume.geometry.spacing_mm == pytest.approx(spacing_zyx, rel=1e-5)


@pytest.mark.parametrize(
    "series, shape, spacing_zyx",
    [
        (f"{SERIES}/4.000000-t2tsetra-00702", (19, 384, 384), (3, 0.5, 0.5)),
        (f"{SERIES}/7.000000-ep2ddifftraDYNDISTADC-48780", (19, 128, 84), (3, 2, 2)),
        (f"{SERIES}/8.000000-ep2ddifftraDYNDISTCALCBVAL-83202", (19, 128, 84), (3, 2, 2)),
        (f"{SERIES}/9.000000-tfl3d PD reftra1.5x1.5t3-67276", (16, 128, 128), (3, 1.5, 1.5)),
        ("dicom/mock_data", (2, 512, 512), (5, 0.488281, 0.488281)),  # beside them three RTSTRUCT files
    ],
)
def test_dicom_series_lie_where_itk_puts_them(real_data, series, shape, spacing_zyx):
    SimpleITK = pytest.importorskip("SimpleITK")
    volume = read_volume(real_data / series)
    assert volume.array.shape == (1, *shape)
    assert volume.geometry.spacing_mm == pytest.approx(spacing_zyx, abs=1e-4)
    reader = SimpleITK.ImageSeriesReader()
    reader.SetFileNames(reader.GetGDCMSeriesFileNames(str(real_data / series)))
    image = reader.Execute()
    np.testing.assert_array_equal(volume.array[0], SimpleITK.GetArrayFromImage(image))
    for index in ((0, 0, 0), tuple(size - 1 for size in shape)):
        ours = volume.geometry.matrix[:3] @ [*index, 1]
        np.testing.assert_allclose(ours, world_by_itk(image, index), atol=1e-3)


def test_dicom_series_agree_with_the_nifti_files_made_of_them(real_data):
    converted = real_data / "refuse_or_repair" / "channels_on_different_grids" / "images"
    folders = sorted((real_data / SERIES).iterdir())
    twins = [(folder, file) for folder in folders for file in converted.glob(f"*{folder.name}.nii.gz")]
    assert len(twins) == 3
    for folder, file in twins:
        series = read_volume(folder)
        twin = read_volume(file)
        assert volume_mismatch(series, twin) is None
        np.testing.assert_array_equal(to_canonical(series).array, to_canonical(twin).array)


def test_a_series_of_three_b_values_is_refused(real_data):
    with pytest.raises(UnreadableFile) as caught:
        read_volume(real_data / SERIES / "6.000000-ep2ddifftraDYNDIST-69284")
    assert "the series of 1-01.dcm: its 57 slices lie at 19 positions, several at one" in str(caught.value)


def test_retina_photographs_are_three_channels_and_their_gif_masks_0_and_255(real_data):
    SimpleITK = pytest.importorskip("SimpleITK")
    found = find_dataset(real_data / "retina_2d")
    assert len(found.cases) == 14
    for case in found.cases:
        image = read_volume(case.images[0])
        mask = read_mask(case.label)
        assert image.array.shape == (3, 1, 584, 565)
        assert image.array.dtype == np.uint8
        np.testing.assert_array_equal(np.unique(mask.array), [0, 255])
        assert mask.array.shape == (1, 1, 584, 565)
        assert volume_mismatch(image, mask) is None
        pixels = SimpleITK.GetArrayFromImage(SimpleITK.ReadImage(str(case.images[0])))
        np.testing.assert_array_equal(image.array[:, 0], np.moveaxis(pixels, -1, 0))
    _, problems = scan_cases(found)
    (note,) = (problem.full_sentence for problem in problems)
    assert note.startswith(
        "note: 21 and 13 other cases: says no size of its pixels, so lengths and areas are in pixels; "
    )


def test_every_mask_is_read_as_it_is_read_as_an_image(real_data):
    for folder in ("hippocampus/labelsTr", "cardiac_cine/labels", "torso_ct_100_labels/labels"):
        path = sorted((real_data / folder).iterdir())[0]
        np.testing.assert_array_equal(read_mask(path).array, read_volume(path).array)
