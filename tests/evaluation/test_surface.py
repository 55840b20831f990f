"""Surface distances: counted by hand on unequal spacing, and against MONAI and distance maps."""

import numpy as np
import pytest
import torch
from monai.metrics import compute_average_surface_distance, compute_hausdorff_distance, compute_surface_dice
from scipy import ndimage

from segfw.evaluation.surface import NO_SURFACE, distances_mm, surface_points, surface_scores

SPACING_MM = (5.0, 1.0, 0.5)  # unequal, as are all shapes: a swapped axis must fail
SHAPE = (9, 14, 20)


def box(*ranges, value=1, shape=SHAPE) -> np.ndarray:
    mask = np.zeros(shape, np.uint8)
    if ranges:
        mask[tuple(slice(*limits) for limits in ranges)] = value
    return mask


def score(reference, prediction, *, tolerance_mm=1.0, spacing_mm=SPACING_MM, members=(1,), ignored=None):
    return surface_scores(reference, prediction, [members], spacing_mm, tolerance_mm, ignored)[0]


def blobs(seed: int, classes=4, shape=SHAPE) -> list[np.ndarray]:
    """Two masks of smooth, touching labels that agree in part."""
    rng = np.random.default_rng(seed)
    fields = ndimage.gaussian_filter(rng.normal(size=(classes, *shape)), (0, 1, 2, 2))
    noise = ndimage.gaussian_filter(rng.normal(size=(classes, *shape)), (0, 1, 2, 2))
    return [np.argmax(field, axis=0).astype(np.uint8) for field in (fields, fields + 0.4 * noise)]


@pytest.mark.parametrize("axis", [0, 1, 2])
def test_a_plate_moved_along_an_axis_is_that_far_away_in_mm(axis):
    first, second = np.zeros((2, *SHAPE), np.uint8)
    np.moveaxis(first, axis, 0)[2] = np.moveaxis(second, axis, 0)[5] = 1  # one voxel thick, three apart
    found = score(first, second, tolerance_mm=3 * SPACING_MM[axis] - 0.1)
    assert found.hd95_mm == pytest.approx(3 * SPACING_MM[axis])
    assert found.assd_mm == pytest.approx(3 * SPACING_MM[axis])
    assert found.nsd == 0
    assert score(first, second, tolerance_mm=3 * SPACING_MM[axis]).nsd == 1


def test_a_box_moved_along_z_counted_by_hand():
    reference = box((1, 4), (2, 4), (3, 5))
    prediction = box((2, 5), (2, 4), (3, 5))
    # Each box is 3 x 2 x 2 voxels, all on its surface; 2 of 3 slices lie in the other, and the third 5 mm off.
    found = score(reference, prediction)
    assert found.assd_mm == pytest.approx((4 + 4) * 5 / 24)
    assert found.nsd == pytest.approx(16 / 24)
    assert found.hd95_mm == 5


def test_hd95_is_of_the_worse_direction():
    reference = box((4, 5), (0, 14), (0, 20))
    prediction = box((4, 5), (0, 14), (0, 2))
    # The prediction lies on the reference; the columns 2 to 19 of the reference are 0.5 to 9 mm away from it.
    distances = np.repeat(np.concatenate([[0.0, 0.0], 0.5 * np.arange(1, 19)]), 14)
    assert score(reference, prediction).hd95_mm == pytest.approx(np.percentile(distances, 95))
    assert score(prediction, reference).hd95_mm == pytest.approx(np.percentile(distances, 95))
    assert score(reference, prediction).assd_mm == pytest.approx(distances.sum() / (14 * 20 + 14 * 2))


def test_the_inside_of_a_structure_is_no_surface():
    points, classes = surface_points(box((1, 6), (2, 8), (3, 10)))
    assert len(points) == 5 * 6 * 7 - 3 * 4 * 5
    assert set(classes.tolist()) == {1}
    inner = box((2, 5), (3, 7), (4, 9))
    assert not inner.ravel()[points].any()


def test_the_border_of_the_image_is_outside_but_a_single_slice_has_none_across():
    assert len(surface_points(np.ones((3, 4, 5), np.uint8))[0]) == 60 - 1 * 2 * 3
    assert len(surface_points(np.ones((1, 4, 5), np.uint8))[0]) == 20 - 2 * 3
    assert len(surface_points(np.ones((6, 1, 5), np.uint8))[0]) == 30 - 4 * 3


@pytest.mark.parametrize("seed", range(3))
def test_surfaces_are_those_of_erosion_however_the_volume_is_cut(seed):
    mask, _ = blobs(seed)
    for slab_voxels in (1, 14 * 20 * 2, 14 * 20 * 4, 1 << 20):
        points, classes = surface_points(mask, slab_voxels=slab_voxels)
        assert (np.diff(points) > 0).all()
        for index in (1, 2, 3):
            own = mask == index
            expected = np.flatnonzero(own & ~ndimage.binary_erosion(own))
            assert np.array_equal(points[classes == index], expected)


@pytest.mark.parametrize("seed", range(3))
def test_distances_are_those_of_a_distance_map(seed):
    first, second = (np.flatnonzero(mask.ravel() == 1) for mask in blobs(seed))
    is_other = np.ones(SHAPE, bool)
    is_other.ravel()[second] = False
    expected = ndimage.distance_transform_edt(is_other, sampling=SPACING_MM).ravel()[first]
    np.testing.assert_allclose(distances_mm(first, second, SHAPE, SPACING_MM), expected, atol=1e-9)


@pytest.mark.parametrize("seed", range(4))
@pytest.mark.parametrize("spacing_mm", [(5.0, 1.0, 0.5), (1.0, 1.0, 1.0), (0.7, 2.0, 1.3)])
def test_scores_match_monai(seed, spacing_mm):
    reference, prediction = blobs(seed)
    one_hot = [
        torch.nn.functional.one_hot(torch.from_numpy(mask).long(), 4).movedim(-1, 0)[None]
        for mask in (prediction, reference)
    ]
    hd95 = compute_hausdorff_distance(*one_hot, percentile=95, spacing=spacing_mm)[0]
    assd = compute_average_surface_distance(*one_hot, symmetric=True, spacing=spacing_mm)[0]
    nsd = compute_surface_dice(*one_hot, class_thresholds=[1.2] * 3, spacing=spacing_mm)[0]
    found = surface_scores(reference, prediction, [(1,), (2,), (3,)], spacing_mm, 1.2)
    for index, result in enumerate(found):
        assert result.hd95_mm == pytest.approx(float(hd95[index]), abs=1e-4)
        assert result.assd_mm == pytest.approx(float(assd[index]), abs=1e-4)
        assert result.nsd == pytest.approx(float(nsd[index]), abs=1e-6)


def test_equal_masks_are_perfect():
    mask, _ = blobs(5)
    assert set(surface_scores(mask, mask, [(1,), (2,), (1, 3)], SPACING_MM, 0.0)) == {(0.0, 0.0, 1.0)}


def test_a_structure_in_one_mask_only_is_as_far_as_the_image_is_long():
    diagonal_mm = ((9 * 5) ** 2 + 14**2 + (20 * 0.5) ** 2) ** 0.5
    present = box((0, 1), (0, 1), (0, 1))
    for pair in ((present, box()), (box(), present)):
        assert score(*pair) == (pytest.approx(diagonal_mm), pytest.approx(diagonal_mm), 0.0)
    assert score(box(), box()) == NO_SURFACE
    opposite = score(present, box((8, 9), (13, 14), (19, 20)))
    assert opposite.hd95_mm < diagonal_mm  # no miss is better than the worst hit


def test_a_region_is_scored_as_the_union_of_its_labels():
    reference, prediction = blobs(2)
    expected = score(*((np.isin(mask, (1, 3))).astype(np.uint8) for mask in (reference, prediction)))
    assert score(reference, prediction, members=(1, 3)) == expected
    assert score(reference, prediction, members=(1,)) != expected


def test_the_tolerance_forgives_the_rounding_of_a_spacing():
    first = box((3, 4), (2, 9), (2, 9))
    second = box((4, 5), (2, 9), (2, 9))
    assert score(first, second, spacing_mm=(1.0000001, 1, 1), tolerance_mm=1.0).nsd == 1
    assert score(first, second, spacing_mm=(1.01, 1, 1), tolerance_mm=1.0).nsd < 1


def test_ignored_voxels_have_no_surface_and_make_none():
    # A bar along x; from x = 10 on nothing is annotated, whatever lies there in either mask.
    bar = box((4, 5), (5, 6), (2, 10))
    reference = bar.copy()
    short = box((4, 5), (5, 6), (2, 9))
    for mask in (reference, short):
        mask[:, :, 10:] = 2
    assert score(reference, reference, ignored=2) == (0, 0, 1)
    points, _ = surface_points(reference, ignored=2)
    assert np.unravel_index(points, SHAPE)[2].max() == 9
    # A block that only ends where the ignored voxels begin: its face towards them is no surface.
    block = box((3, 6), (4, 9), (2, 10))
    block[:, :, 10:] = 2
    inside = {tuple(place) for place in np.argwhere(block == 1)} - {
        tuple(place) for place in np.stack(np.unravel_index(surface_points(block, 2)[0], SHAPE), 1)
    }
    assert (4, 6, 9) in inside
    assert (4, 6, 2) not in inside
    # The prediction stops one voxel short: that voxel is 0.5 mm away.
    assert score(reference, short, ignored=2).assd_mm == pytest.approx(0.5 / 15)
    region = score(reference, short, ignored=2, members=(1, 3))
    assert region == score(reference, short, ignored=2)


def test_a_label_walled_in_by_ignored_voxels_has_no_surface_but_can_be_missed():
    reference = np.full((3, 4, 5), 2, np.uint8)
    reference[1, 1, 2] = 1
    assert score(reference, reference, ignored=2) == NO_SURFACE
    missed = np.where(reference == 1, 0, reference).astype(np.uint8)
    assert score(reference, missed, ignored=2).nsd == 0
