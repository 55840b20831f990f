"""In which units images are measured: volumes in ml, single slices in mm2, pictures without a size in pixels."""

import numpy as np
import pytest
from PIL import Image

from builders.masks import geometry
from segfw.images.formats import read_volume, write_labels
from segfw.images.geometry import Geometry
from segfw.images.units import PICTURE, SCAN, SLICE, lengths_in, units_of


@pytest.mark.parametrize(
    ("shape", "units", "voxel"),
    [((3, 4, 5), SCAN, 0.005), ((1, 4, 5), SLICE, 1.0), ((3, 1, 5), SLICE, 2.5), ((1, 1, 5), SLICE, 1.0)],
)
def test_a_slice_has_an_area_and_a_volume_millilitres(shape, units, voxel):
    found = units_of(shape, is_placed=True)
    assert found == units
    assert found.voxel_size(geometry(shape, (5.0, 2.0, 0.5))) == pytest.approx(voxel)


def test_a_tilted_gantry_changes_no_size():
    # The slices are 5 mm apart, however far each is moved along y: the z axis is longer than that.
    tilted = geometry((3, 4, 5), (5.0, 2.0, 0.5)).matrix
    tilted[1, 0] = 3.0
    assert SCAN.voxel_size(Geometry.of((3, 4, 5), tilted)) == pytest.approx(0.005)
    across = geometry((3, 1, 5), (5.0, 2.0, 0.5)).matrix
    across[0, 0] = 3.0  # the only slice runs along z and x, and is a parallelogram 5 mm high and 2.5 mm wide
    assert SLICE.voxel_size(Geometry.of((3, 1, 5), across)) == pytest.approx(2.5)


@pytest.mark.parametrize("shape", [(1, 4, 5), (3, 4, 5)])
def test_without_a_size_all_is_counted_in_pixels(shape):
    found = units_of(shape, is_placed=False)
    assert (found, found.voxel_size(geometry(shape, (1.0, 1.0, 1.0)))) == (PICTURE, 1.0)


@pytest.mark.parametrize(("ending", "units"), [(".png", SLICE), (".bmp", PICTURE), (".tif", SLICE), (".nii.gz", SLICE)])
def test_files_that_keep_their_spacing_have_millimetres(tmp_path, ending, units):
    path = tmp_path / f"mask{ending}"
    lies_as_pictures_do = np.array([[0, 0, -0.5, 0], [0, -2.0, 0, 0], [1.0, 0, 0, 0], [0, 0, 0, 1]])
    write_labels(path, np.ones((1, 4, 5), np.uint8), Geometry.of((1, 4, 5), lies_as_pictures_do))
    volume = read_volume(path)
    assert (volume.units, volume.is_picture) == (units, ending != ".nii.gz")


@pytest.mark.parametrize(("mode", "is_coloured"), [("RGB", True), ("L", False)])
def test_a_photograph_has_colours_and_pixels(tmp_path, mode, is_coloured):
    Image.new(mode, (5, 4)).save(tmp_path / "photo.png")
    volume = read_volume(tmp_path / "photo.png")
    assert (volume.is_coloured, volume.is_picture, volume.units) == (is_coloured, True, PICTURE)


def test_both_kinds_are_named_where_both_are():
    assert [lengths_in(found) for found in ([SCAN, SLICE], [PICTURE], [PICTURE, SLICE])] == ["mm", "px", "mm or px"]
