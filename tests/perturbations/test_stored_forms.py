"""The same image in other files: segfw's readers give the same values at the same places."""

from dataclasses import replace

import numpy as np
import pytest

from segfw.images.formats import read_volume
from segfw.images.geometry import Geometry, axis_order, largest_displacement_mm
from segfw.images.volume import Volume
from segfw.perturbations.stored_forms import ALL_AXIS_ORDERS, FORMS, can_hold, in_axis_order, in_steps, reread

AFFINE = np.array([[0, 0.1, -1.5, -20], [0.2, -0.9, 0, 5], [3.0, 0, 0.2, 8], [0, 0, 0, 1]])
SHAPE = (5, 9, 7)


def image(dtype, channels=1, affine=AFFINE):
    rng = np.random.default_rng(3)
    array = rng.normal(90, 40, (channels, *SHAPE)).clip(0, 250)
    array = array if np.dtype(dtype).kind == "f" else array.round()
    return Volume(array=array.astype(dtype), geometry=Geometry.of(SHAPE, affine))


@pytest.mark.parametrize("dtype", [np.uint8, np.int16, np.uint16, np.int32, np.float32, bool])
@pytest.mark.parametrize("form", [form for form in FORMS if form != "tif"])
def test_every_form_holds_every_type_exactly(tmp_path, form, dtype):
    volume = in_steps(image(dtype, channels=2, affine=np.diag([3.0, 0.9, 1.5, 1])[[2, 1, 0, 3]]))
    if not can_hold(volume, form):
        assert dtype is bool
        return
    found = reread(volume, form, tmp_path)
    np.testing.assert_array_equal(found.array.astype(np.float64), volume.array.astype(np.float64))
    assert largest_displacement_mm(found.geometry, volume.geometry) < 1e-4
    assert len(list(tmp_path.iterdir())) == 2


def test_files_are_what_they_are_called(tmp_path):
    import nibabel

    volume = image(np.int16)
    for form, (ending, write) in FORMS.items():
        if form != "tif" and can_hold(volume, form):
            write(tmp_path / f"{form}{ending}", volume)
    stored = {path.name: nibabel.load(path) for path in tmp_path.glob("*.nii*")}
    assert stored["big-endian.nii"].header.endianness == ">"
    assert stored["float64.nii.gz"].get_data_dtype() == np.float64
    assert stored["float32.nii.gz"].get_data_dtype() == np.float32
    scaled = stored["scaled integers.nii.gz"]
    assert (float(scaled.dataobj.slope), scaled.get_data_dtype()) == (0.5, np.int16)
    assert float(scaled.dataobj.inter) == volume.array.min()


def test_floats_are_rounded_once_to_steps_that_a_file_holds():
    volume = image(np.float32)
    rounded = in_steps(volume)
    assert 0 < np.abs(rounded.array - volume.array).max() < 250 / 30_000
    np.testing.assert_array_equal(in_steps(rounded).array, rounded.array)
    same = replace(volume, array=np.full_like(volume.array, 3.5))
    np.testing.assert_array_equal(in_steps(same).array, same.array)


def test_sheared_grids_are_not_for_every_format():
    volume = image(np.int16)
    assert not can_hold(volume, "mha")
    assert can_hold(volume, "float64")


@pytest.mark.parametrize("order", ALL_AXIS_ORDERS)
def test_all_orders_of_axes_are_read_as_they_were_meant(tmp_path, order):
    volume = image(np.int16)
    found = reread(in_axis_order(volume, order), "nii.gz", tmp_path)
    assert axis_order(found.geometry) == order
    back = in_axis_order(found, axis_order(volume.geometry))
    np.testing.assert_array_equal(back.array, volume.array)
    assert largest_displacement_mm(back.geometry, volume.geometry) < 1e-4


def test_there_are_48_orders():
    assert len(set(ALL_AXIS_ORDERS)) == 48


def test_pictures_have_a_form_of_their_own(tmp_path):
    array = np.random.default_rng(0).integers(0, 255, (3, 1, 8, 6)).astype(np.uint8)
    picture = Volume(array=array, geometry=Geometry.of((1, 8, 6), np.eye(4)), is_placed=False, is_picture=True)
    assert [form for form in FORMS if can_hold(picture, form)] == ["tif"]
    np.testing.assert_array_equal(reread(picture, "tif", tmp_path).array, array)
    grey = replace(picture, array=array[:1])
    FORMS["tif"][1](tmp_path / "grey.tif", grey)
    np.testing.assert_array_equal(read_volume(tmp_path / "grey.tif").array, array[:1])
