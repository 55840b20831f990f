"""Where voxels are: derived figures, canonical orientation and its inverse, and distances between grids."""

import nibabel
import numpy as np
import pytest
from pydantic import ValidationError

from builders.grids import ORIENTATIONS
from segfw.images.geometry import Geometry, axis_directions, header_length, largest_displacement_mm, shear_degrees
from segfw.images.volume import Volume, from_canonical, stored_like, to_canonical

SPACING_ZYX = (5.0, 0.5, 2.0)


def oriented(shape: tuple[int, int, int], order: tuple[int, ...], signs: tuple[int, ...], tilt: float = 0) -> Geometry:
    """Array axis i runs along RAS axis ``order[i]`` in direction ``signs[i]``, turned by ``tilt`` radians about z."""
    affine = np.zeros((4, 4))
    for axis in range(3):
        affine[order[axis], axis] = signs[axis] * SPACING_ZYX[axis]
    turn = np.array([[np.cos(tilt), -np.sin(tilt), 0], [np.sin(tilt), np.cos(tilt), 0], [0, 0, 1]])
    affine[:3, :3] = turn @ affine[:3, :3]
    affine[:, 3] = (-7, 11, 13, 1)
    return Geometry.of(shape, affine)


def numbered(shape: tuple[int, ...]) -> np.ndarray:
    return np.arange(np.prod(shape)).reshape(shape)


def test_spacing_is_the_length_of_the_affines_columns():
    assert oriented((2, 3, 4), (2, 1, 0), (1, 1, 1), tilt=0.3).spacing_mm == pytest.approx(SPACING_ZYX)
    sheared = np.array([[0, 0, 2, 0], [0, 4, 0, 0], [5, 3, 0, 0], [0, 0, 0, 1.0]])
    assert Geometry.of((2, 2, 2), sheared).spacing_mm == (5, 5, 2)  # (4, 3) has length 5


def test_a_grid_without_volume_is_refused_but_a_microscopic_one_is_not():
    flat = np.diag([1.0, 0, 1, 1])
    parallel = np.array([[1.0, 2, 0, 0], [1, 2, 0, 0], [0, 0, 1, 0], [0, 0, 0, 1]])
    for affine in (flat, parallel):
        with pytest.raises(ValidationError, match="the affine has no volume"):
            Geometry.of((2, 2, 2), affine)
    with pytest.raises(ValidationError, match="finite"):
        Geometry.of((2, 2, 2), np.diag([1, np.nan, 1, 1]))
    assert Geometry.of((2, 2, 2), np.diag([2e-5, 2e-5, 1e-4, 1])).spacing_mm == (2e-5, 2e-5, 1e-4)


@pytest.mark.parametrize("order, signs", ORIENTATIONS)
def test_canonical_is_what_nibabel_calls_closest_canonical(order, signs):
    geometry = oriented((2, 3, 4), order, signs, tilt=0.2)
    array = numbered((2, 3, 4))
    canonical = to_canonical(Volume(array=array[None], geometry=geometry))
    xyz = [2, 1, 0]
    image = nibabel.Nifti1Image(array.transpose(2, 1, 0).astype(np.int16), geometry.matrix[:, [*xyz, 3]])
    expected = nibabel.as_closest_canonical(image)
    np.testing.assert_array_equal(canonical.array[0].transpose(2, 1, 0), np.asarray(expected.dataobj))
    np.testing.assert_allclose(canonical.geometry.matrix[:, [*xyz, 3]], expected.affine, atol=1e-12)
    assert canonical.geometry.shape == canonical.array.shape[1:]


@pytest.mark.parametrize("order, signs", ORIENTATIONS)
def test_canonical_keeps_every_voxel_in_its_place_and_comes_back(order, signs):
    geometry = oriented((2, 3, 4), order, signs, tilt=-0.4)
    array = numbered((2, 3, 4))
    canonical = to_canonical(Volume(array=np.stack([array, -array]), geometry=geometry))
    for value in (0, 7, 23):
        before, after = (np.append(np.argwhere(a == value)[0], 1) for a in (array, canonical.array[0]))
        np.testing.assert_allclose(geometry.matrix @ before, canonical.geometry.matrix @ after, atol=1e-12)
    np.testing.assert_array_equal(canonical.array[1], -canonical.array[0])  # channels stay together
    np.testing.assert_array_equal(from_canonical(canonical.array[0], geometry), array)


def test_canonical_axes_run_to_head_front_and_right():
    # Stored as x to the left, z to the feet, y to the back; the marked voxel is the first of each axis.
    geometry = oriented((2, 3, 4), (0, 2, 1), (-1, -1, -1))
    array = np.zeros((1, 2, 3, 4), np.uint8)
    array[0, 0, 0, 0] = 1
    canonical = to_canonical(Volume(array=array, geometry=geometry))
    assert canonical.geometry.shape == (3, 4, 2)
    assert canonical.geometry.spacing_mm == (0.5, 2.0, 5.0)
    np.testing.assert_array_equal(np.argwhere(canonical.array[0]), [[2, 3, 1]])
    assert (np.diag(canonical.geometry.matrix[[2, 1, 0]]) > 0).all()


def test_displacement_is_that_of_the_worst_corner_in_millimetres():
    first = oriented((3, 5, 9), (2, 1, 0), (1, 1, 1))
    moved = first.matrix
    moved[:3, 3] += (3, 0, 4)
    assert largest_displacement_mm(first, Geometry.of(first.shape, moved)) == pytest.approx(5)
    wider = first.matrix
    wider[0, 2] += 0.25  # x spacing 2.25 instead of 2: eight voxels further the last one is 2 mm off
    assert largest_displacement_mm(first, Geometry.of(first.shape, wider)) == pytest.approx(2)
    assert largest_displacement_mm(first, first) == 0


@pytest.mark.parametrize("tilt", [0, 0.2, np.pi / 4])  # at 45 degrees rounding alone says which axis is which
@pytest.mark.parametrize("order, signs", ORIENTATIONS)
def test_a_volume_in_any_storage_order_is_brought_to_that_of_another(order, signs, tilt):
    wanted = oriented((2, 3, 4), (1, 2, 0), (1, -1, 1), tilt)
    array = numbered((2, 3, 4))
    nibabel_order = np.stack([order, signs], 1).astype(float)
    stored = nibabel.orientations.apply_orientation(array, nibabel_order)
    affine = wanted.matrix @ nibabel.orientations.inv_ornt_aff(nibabel_order, array.shape)
    affine[:3] += np.random.default_rng(0).normal(0, 1e-7, (3, 4))  # as headers round
    mask = Volume(array=stored[None], geometry=Geometry.of(stored.shape, affine))
    image = Volume(array=array[None], geometry=wanted)
    again = stored_like(mask, image)
    np.testing.assert_array_equal(again.array, image.array)
    assert again.geometry.shape == (2, 3, 4)
    np.testing.assert_allclose(again.geometry.matrix, wanted.matrix, atol=1e-5)


def test_a_picture_takes_the_place_of_what_it_belongs_to():
    image = Volume(array=numbered((1, 2, 3, 4)), geometry=oriented((2, 3, 4), (1, 2, 0), (1, -1, 1)))
    picture = Volume(array=-image.array, geometry=Geometry.of((2, 3, 4), np.eye(4)), is_placed=False)
    placed = stored_like(picture, image)
    assert (placed.geometry, placed.is_placed) == (image.geometry, True)
    np.testing.assert_array_equal(placed.array, picture.array)
    bare = stored_like(image, picture)
    assert (bare.geometry, bare.is_placed) == (picture.geometry, False)
    smaller = Volume(array=picture.array[:, :, :2], geometry=Geometry.of((2, 2, 4), np.eye(4)), is_placed=False)
    assert stored_like(smaller, image) is smaller


def test_shear_is_the_angle_by_which_axes_miss_a_right_one():
    assert shear_degrees(oriented((2, 3, 4), (1, 2, 0), (1, -1, 1), tilt=0.3).matrix) == pytest.approx(0, abs=1e-9)
    sheared = np.array([[0, 0, 2, 0], [4, 1, 0, 0], [4, 0, 0, 0], [0, 0, 0, 1.0]])
    assert shear_degrees(sheared) == pytest.approx(45)


@pytest.mark.real_data
def test_one_head_in_48_orientations_reads_as_one(real_data):
    from segfw.images.formats import read_volume

    paths = sorted((real_data / "awkward" / "48_orientations").glob("*.nii.gz"))
    assert len(paths) == 48
    first, *others = (to_canonical(read_volume(path)) for path in paths)
    shapes_stored = {read_volume(path).geometry.shape for path in paths}
    assert len(shapes_stored) > 1  # otherwise this proves nothing
    for path, other in zip(paths[1:], others):
        np.testing.assert_array_equal(other.array, first.array, err_msg=path.name)
        np.testing.assert_allclose(other.geometry.matrix, first.geometry.matrix, atol=1e-4, err_msg=path.name)


@pytest.mark.parametrize("size", [0.5, 0.9, 6.0, 0.7421875, 3.3, 5.0])
def test_voxel_sizes_of_rotated_axes_are_what_the_header_held(size):
    angle = np.deg2rad(20)
    column = np.array([np.cos(angle) * size, np.sin(angle) * size, 0], np.float32).astype(float)
    stored = float(np.float32(size))
    assert header_length(float(np.linalg.norm(column))) == (stored if size != 0.7421875 else pytest.approx(size))
    assert header_length(stored) == stored
    assert header_length(size) == size
    assert header_length(size * (1 + 1e-15)) == pytest.approx(size, rel=1e-12)


@pytest.mark.parametrize(
    "columns, directions",
    [
        ([(0, 0, 3), (0, 1, 0), (1, 0, 0)], "SAR"),
        ([(0, 0, -3), (0, 1, 0), (-1, 0, 0)], "IAL"),
        ([(-1, 0, 0.4), (0, 0.3, 2), (0, -1, 0.2)], "LSP"),  # oblique
    ],
)
def test_directions_are_the_nearest_of_each_axis(columns, directions):
    matrix = np.eye(4)
    matrix[:3, :3] = np.array(columns).T
    assert axis_directions(Geometry.of((2, 3, 4), matrix)) == directions
