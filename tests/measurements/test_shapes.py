"""Balls, boxes and ellipsoids whose measures are known, slow oracles, and grids of every order and angle."""

from itertools import permutations, product

import numpy as np
import pytest
from scipy.spatial.distance import pdist

from builders.masks import geometry
from segfw.dataset.labels import LabelSet
from segfw.images.formats import write_labels
from segfw.images.geometry import Geometry
from segfw.images.units import SCAN
from segfw.measurements.diameters import axes_in_slice, diameter_mm, outer_points, slice_axis
from segfw.measurements.masks_to_measure import MaskCase
from segfw.measurements.measure_case import MeasuringJob
from segfw.measurements.measure_masks import MaskToMeasure, measure_mask
from segfw.measurements.measures_folder import MeasuresFolder
from segfw.measurements.mesh import cube_counts, face_counts, mesh_surface_mm2, mesh_volume_mm3, smooth_surface_mm2

LABELS = LabelSet(names=("background", "body"), values=(0, 1))
SOLID = 2 / 5**0.5  # of a solid body 4 standard deviations are so much of its axis
SPACINGS_MM = ((1.0, 1.0, 1.0), (2.0, 1.0, 1.0), (1.5, 0.7, 0.9))


def axes_of(spacing_mm):
    return geometry((2, 2, 2), spacing_mm).matrix[:3, :3]


def ellipsoid(radii_mm, spacing_mm, shift_mm=(0.3, -0.2, 0.4)):
    """Its voxels, with some room around it."""
    lines = []
    for radius, edge, shift in zip(radii_mm, spacing_mm, shift_mm):
        reach = int(radius / edge) + 3
        lines.append((np.arange(-reach, reach + 1) * edge + shift) / radius)
    z, y, x = np.meshgrid(*lines, indexing="ij", sparse=True)
    return z**2 + y**2 + x**2 <= 1


def measured(inside, grid, **keywords):
    mask = MaskToMeasure(classes_zyx=inside.astype(np.uint8), geometry=grid, units=SCAN, labels=LABELS, **keywords)
    (found,) = measure_mask("case", mask)
    return found


@pytest.mark.parametrize("spacing_mm", SPACINGS_MM)
def test_a_ball(spacing_mm):
    radius_mm = 10 * max(spacing_mm)
    inside = ellipsoid((radius_mm,) * 3, spacing_mm)
    found = measured(inside, geometry(inside.shape, spacing_mm))
    volume_ml = 4 / 3 * np.pi * radius_mm**3 / 1000
    assert found.status == "whole"
    assert found.volume_ml == pytest.approx(inside.sum() * np.prod(spacing_mm) / 1000, rel=1e-12)
    assert found.volume_ml == pytest.approx(volume_ml, rel=0.01)
    assert found.mesh_volume_ml == pytest.approx(volume_ml, rel=0.01)
    assert found.surface_smooth_mm2 == pytest.approx(4 * np.pi * radius_mm**2, rel=0.03)
    assert (found.major_axis_mm, found.minor_axis_mm) == pytest.approx((SOLID * 2 * radius_mm,) * 2, rel=0.02)
    assert 2 * radius_mm - max(spacing_mm) < found.diameter_mm < 2 * radius_mm + 1.5 * max(spacing_mm)
    assert found.long_axis_mm == pytest.approx(2 * radius_mm, abs=1.5 * max(spacing_mm))
    assert found.short_axis_mm == pytest.approx(2 * radius_mm, abs=1.5 * max(spacing_mm))


@pytest.mark.parametrize("spacing_mm", SPACINGS_MM)
def test_from_a_radius_of_8_voxels_on_the_mesh_holds_the_volume_to_one_percent_wherever_the_grid_lies(spacing_mm):
    radius_mm = 8 * max(spacing_mm)
    shifts = np.random.default_rng(0).uniform(-0.5, 0.5, (8, 3)) * spacing_mm
    balls = [cube_counts(ellipsoid((radius_mm,) * 3, spacing_mm, shift)) for shift in shifts]
    volumes = np.array([mesh_volume_mm3(ball, axes_of(spacing_mm)) for ball in balls]) / (4 / 3 * np.pi * radius_mm**3)
    surfaces = np.array([mesh_surface_mm2(ball, axes_of(spacing_mm)) for ball in balls]) / (4 * np.pi * radius_mm**2)
    assert volumes.mean() == pytest.approx(1, abs=0.01)
    assert np.abs(volumes - 1).max() < 0.02  # where it lies alone moves a ball that small by so much
    # The steps of the voxels, which any mesh of them has; more where these are no cubes
    assert 1.06 < surfaces.mean() < (1.11 if len(set(spacing_mm)) == 1 else 1.14)


def test_the_mesh_of_a_round_body_overstates_its_surface_by_what_the_manual_says():
    inside = ellipsoid((12.0,) * 3, (1.0, 1.0, 1.0))
    found = measured(inside, geometry(inside.shape, (1.0, 1.0, 1.0)))
    assert 1.06 < found.surface_mm2 / (4 * np.pi * 144) < 1.11
    assert found.sphericity == pytest.approx(0.92, abs=0.01)


@pytest.mark.parametrize("spacing_mm", SPACINGS_MM)
def test_an_ellipsoid_has_its_own_axes(spacing_mm):
    radii_mm = (30.0, 22.0, 14.0)
    inside = ellipsoid(radii_mm, spacing_mm)
    found = measured(inside, geometry(inside.shape, spacing_mm))
    lengths = (found.major_axis_mm, found.middle_axis_mm, found.minor_axis_mm)
    assert lengths == pytest.approx([SOLID * 2 * radius for radius in radii_mm], rel=0.02)
    assert found.elongation == pytest.approx(22 / 30, rel=0.02)
    assert found.flatness == pytest.approx(14 / 30, rel=0.02)
    assert found.mesh_volume_ml == pytest.approx(4 / 3 * np.pi * np.prod(radii_mm) / 1000, rel=0.01)
    if slice_axis(axes_of(spacing_mm), inside.shape) == 0:
        assert found.axes_plane == "axial"
        assert found.long_axis_mm == pytest.approx(44, abs=2)
        assert found.short_axis_mm == pytest.approx(28, abs=2)


@pytest.mark.parametrize("spacing_mm", SPACINGS_MM)
def test_a_box_counted_by_hand(spacing_mm):
    inside = np.zeros((9, 12, 15), bool)
    inside[2:6, 3:9, 1:11] = True  # 4 x 6 x 10 voxels
    found = measured(inside, geometry(inside.shape, spacing_mm, (7.0, 5.0, 3.0)))
    z, y, x = spacing_mm
    assert (found.voxels, found.components, found.largest_share, found.cut_share) == (240, 1, 1.0, 0.0)
    assert found.volume_ml == pytest.approx(0.24 * z * y * x)
    assert found.box_ras_mm == pytest.approx((10 * x, 6 * y, 4 * z))
    assert found.centroid_ras_mm == pytest.approx((3 + 5.5 * x, 5 + 5.5 * y, 7 + 3.5 * z))
    # Each of the two farthest points lies in the middle of a side, half a voxel outside along one axis alone.
    ends = [
        np.linalg.norm(((3, 5, 9) + np.eye(3)[first] / 2 + np.eye(3)[second] / 2) * spacing_mm)
        for first, second in product(range(3), repeat=2)
    ]
    assert found.diameter_mm == pytest.approx(max(ends))


def drawn_masks():
    for seed, share in enumerate((0.1, 0.5, 0.9)):
        yield np.random.default_rng(seed).random((7, 8, 9)) < share


@pytest.mark.parametrize("inside", list(drawn_masks()))
def test_the_counted_mesh_is_that_of_marching_cubes(inside):
    from skimage.measure import marching_cubes

    axes_mm = axes_of((2.0, 0.7, 1.3))
    axes_mm[0, 0] = 0.4  # sheared
    vertices, faces, _, _ = marching_cubes(np.pad(inside, 1).astype(np.float32), 0.5)
    first, second, third = np.moveaxis(vertices.astype(np.float64)[faces] @ axes_mm.T, 1, 0)
    surface = np.linalg.norm(np.cross(second - first, third - first), axis=1).sum() / 2
    volume = abs(np.einsum("ij,ij->i", first, np.cross(second, third)).sum()) / 6
    counts = cube_counts(inside)
    assert mesh_surface_mm2(counts, axes_mm) == pytest.approx(surface, rel=1e-9)
    assert mesh_volume_mm3(counts, axes_mm) == pytest.approx(volume, rel=1e-6)


@pytest.mark.parametrize("inside", list(drawn_masks()))
def test_faces_are_counted_like_neighbours(inside):
    padded = np.pad(inside, 1)
    assert face_counts(cube_counts(inside)).tolist() == [np.diff(padded, axis=axis).sum() for axis in range(3)]


@pytest.mark.parametrize("inside", list(drawn_masks()))
def test_the_diameter_is_the_largest_distance_of_any_two_points_of_the_surface(inside):
    axes_mm = axes_of((2.0, 0.7, 1.3))
    padded = np.pad(inside, 1)
    points = []
    for axis in range(3):
        places = np.argwhere(np.diff(padded, axis=axis)).astype(float)
        places[:, axis] += 0.5
        points.append(places)
    expected = pdist(np.concatenate(points) @ axes_mm.T).max()
    assert diameter_mm(inside, axes_mm) == pytest.approx(expected, rel=1e-12)


def test_one_slice_has_no_thickness():
    inside = np.ones((1, 3, 4), bool)
    assert outer_points(inside, 0)[:, 0].tolist() == [0.0] * len(outer_points(inside, 0))
    # From the middle of one side to that of a far edge: the corners themselves are cut off by half a pixel.
    assert diameter_mm(inside, axes_of((5.0, 1.0, 1.0)), 0) == pytest.approx(np.hypot(4, 2))


def test_long_and_short_axis_of_a_rectangle_with_a_hole_and_a_smaller_part_beside_it():
    inside = np.zeros((3, 20, 30), bool)
    inside[1, 4:10, 5:25] = True
    inside[1, 6:8, 10:20] = False  # a hole, which neither axis minds
    inside[1, 15:18, 5:8] = True  # a part of the slice that is not its largest
    axes = axes_in_slice(inside, axes_of((5.0, 1.0, 1.0)), np.zeros(3), 0)
    assert axes.long_mm == pytest.approx(np.hypot(20, 5))
    first, second = np.array(axes.ends_ras_mm)
    assert np.linalg.norm(first - second) == pytest.approx(axes.long_mm)
    assert (first[2], second[2]) == (5.0, 5.0)
    # At a right angle to a line that is a little oblique, across a rectangle 6 mm high
    assert axes.short_mm == pytest.approx(6 / np.cos(np.arctan2(5, 20)), rel=0.01)


def test_the_short_axis_stays_inside_of_a_bent_part():
    inside = np.zeros((1, 30, 40), bool)
    inside[0, 20:25, 2:38] = True
    inside[0, 2:25, 2:6] = True
    inside[0, 2:25, 34:38] = True  # a U, between whose arms there is nothing
    axes = axes_in_slice(inside, axes_of((1.0, 1.0, 1.0)), np.zeros(3), 0)
    assert axes.short_mm < 30


@pytest.mark.parametrize(
    ("spacing_mm", "shape", "axis"),
    [
        ((1.0, 1.0, 1.0), (5, 5, 5), 0),
        ((1.0, 6.0, 1.0), (5, 5, 5), 1),
        ((10.0, 1.0, 1.0), (5, 5, 5), 0),
        ((1.0, 1.0, 1.2), (5, 5, 5), 0),
        ((1.0, 1.0, 3.0), (5, 5, 1), 2),
    ],
)
def test_axes_are_measured_in_the_slices_that_were_taken(spacing_mm, shape, axis):
    assert slice_axis(axes_of(spacing_mm), shape) == axis


def test_a_sheared_grid_has_the_volume_of_its_slices():
    inside = ellipsoid((14.0, 11.0, 9.0), (1.0, 1.0, 1.0))
    straight = geometry(inside.shape, (1.0, 1.0, 1.0))
    matrix = straight.matrix
    matrix[1, 0] = 0.5  # every slice lies half a millimetre further to the front
    found = measured(inside, Geometry.of(inside.shape, matrix))
    plain = measured(inside, straight)
    assert found.volume_ml == pytest.approx(plain.volume_ml, rel=1e-12)
    assert found.mesh_volume_ml == pytest.approx(plain.mesh_volume_ml, rel=1e-12)
    assert found.surface_mm2 != pytest.approx(plain.surface_mm2, rel=0.01)
    assert found.major_axis_mm > plain.major_axis_mm + 1
    # By hand: a shear keeps what lies in a slice, and moves the centre of each.
    assert found.long_axis_mm == pytest.approx(plain.long_axis_mm)
    assert smooth_surface_mm2(cube_counts(inside), matrix[:3, :3]) > found.surface_mm2 / 1.2


def stored_in_other_orders(array_zyx, matrix):
    """The same voxels in all 48 orders and directions of their axes, each with its affine."""
    for order in permutations(range(3)):
        for flips in product((False, True), repeat=3):
            turned = array_zyx.transpose(order)
            change = np.zeros((4, 4))
            change[3, 3] = 1
            for new, old in enumerate(order):
                change[old, new] = -1 if flips[new] else 1
                change[old, 3] += array_zyx.shape[old] - 1 if flips[new] else 0
            flipped = np.flip(turned, [axis for axis in range(3) if flips[axis]])
            yield np.ascontiguousarray(flipped), matrix @ change


@pytest.mark.parametrize("angle", [0.0, 0.35])
def test_all_48_orders_of_storage_give_one_row(tmp_path, angle):
    """Also where the axes are oblique and sheared; through files, whose headers keep places in float64."""
    rng = np.random.default_rng(3)
    inside = np.zeros((13, 17, 19), np.uint8)
    inside[3:10, 4:13, 2:16] = rng.random((7, 9, 14)) < 0.6
    inside[0, 5:9, 5:9] = 1  # reaches the border
    image = rng.normal(100, 20, inside.shape).astype(np.float32)
    turn = np.array([[np.cos(angle), -np.sin(angle), 0], [np.sin(angle), np.cos(angle), 0], [0, 0, 1]])
    matrix = geometry(inside.shape, (2.5, 0.8, 1.1), (7.0, -4.0, 3.0)).matrix
    matrix[:3, :3] = turn @ matrix[:3, :3]
    if angle:
        matrix[1, 0] += 0.2
    job = MeasuringJob(
        folder=MeasuresFolder(path=tmp_path / "kept"), labels=LABELS, channels=("image",), only=None, per_component=True
    )
    rows = []
    for number, ((mask, affine), (picture, _)) in enumerate(
        zip(stored_in_other_orders(inside, matrix), stored_in_other_orders(image, matrix))
    ):
        path = tmp_path / f"{number}.nrrd"
        write_labels(path, mask, Geometry.of(mask.shape, affine))
        image_path = tmp_path / f"{number}_image.nrrd"
        write_image(image_path, picture, affine)
        rows.append(job.measured(MaskCase(id="case", mask=path, images=(image_path,))).structures[0])
    assert len(rows) == 48
    first = flat(rows[0].model_dump())
    assert first["status"] == "cut"
    for row in rows[1:]:
        other = flat(row.model_dump())
        assert other.keys() == first.keys()
        for name, value in first.items():
            expected = pytest.approx(value, rel=1e-9, abs=1e-9) if isinstance(value, float) else value
            assert other[name] == expected, name


def write_image(path, array_zyx, affine):
    """A float image as NRRD, whose header keeps every digit."""
    from segfw.images.itk import write_itk

    write_itk(path, array_zyx, affine)


def flat(values, name=""):
    """All numbers and texts of a record, by their path."""
    if isinstance(values, dict):
        items = values.items()
    elif isinstance(values, list | tuple):
        items = enumerate(values)
    else:
        return {name: values}
    found = {}
    for key, value in items:
        found |= flat(value, f"{name}.{key}" if name else str(key))
    return found
