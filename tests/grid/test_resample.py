"""Resampling by matrices equals the slow methods it replaces, for every combination of up, down and odd shapes."""

import numpy as np
import pytest
import torch
from batchgenerators.augmentations.utils import resize_segmentation
from scipy import ndimage

from builders.grids import CHANGES
from segfw.grid import resample
from segfw.grid.resample import axis_matrix, resample_classes, resample_image, resampled_shape, thick_axis

LONG_CHANGES = [((400, 3, 4), (9, 3, 4)), ((90, 6, 7), (61, 6, 9)), ((40, 6, 7), (97, 5, 7)), ((50, 4, 4), (50, 4, 4))]


def noise(shape: tuple[int, ...], seed: int = 0) -> np.ndarray:
    return np.random.default_rng(seed).normal(100, 50, shape).astype(np.float32)


def by_scipy(array: np.ndarray, shape: tuple[int, ...], order: int) -> np.ndarray:
    zoom = [new / old for old, new in zip(array.shape, shape)]
    result = ndimage.zoom(array.astype(np.float64), zoom, order=order, mode="nearest", grid_mode=True)
    assert result.shape == tuple(shape)
    return result


def slices(array: np.ndarray, axis: int) -> list[np.ndarray]:
    return [array.take(index, axis) for index in range(array.shape[axis])]


def without(shape: tuple[int, ...], axis: int) -> tuple[int, ...]:
    return tuple(size for index, size in enumerate(shape) if index != axis)


@pytest.mark.parametrize("old, new", CHANGES)
def test_an_image_is_resized_like_scipys_spline(old, new):
    channels = [noise(old, seed=seed) for seed in (1, 2)]
    result = resample_image(torch.from_numpy(np.stack(channels)), new, None).numpy()
    assert result.dtype == np.float32
    for channel, resized in zip(channels, result):
        expected = by_scipy(channel, new, order=3).clip(channel.min(), channel.max())
        np.testing.assert_allclose(resized, expected, atol=1e-4 * np.ptp(channel))  # float32 and zeroed tails


@pytest.mark.parametrize(
    "old, new", [*CHANGES, ((90, 6, 7), (61, 6, 9)), ((40, 6, 7), (97, 5, 7)), ((50, 4, 4), (50, 4, 4))]
)
@pytest.mark.parametrize("thick", [None, 0])
@pytest.mark.parametrize("slab_voxels", [1, 300, 1 << 22])
def test_an_image_that_comes_slice_by_slice_is_resized_like_a_whole_one(old, new, thick, slab_voxels):
    image = torch.from_numpy(noise(old))
    asked = []

    def some(start: int, stop: int) -> torch.Tensor:
        asked.extend(range(start, stop))
        return image[start:stop]

    result = torch.empty(new)
    bounds = (float(image.min()), float(image.max()))
    resample.resample_slices(some, old, result, thick, bounds, slab_voxels=slab_voxels)
    torch.testing.assert_close(result, resample_image(image[None], new, thick)[0], atol=1e-3, rtol=0)
    if thick is None:
        assert len(asked) == len(set(asked))  # no slice is made twice


@pytest.mark.parametrize("old, new", CHANGES)
@pytest.mark.parametrize("thick", [0, 1, 2])
def test_along_the_thick_axis_slices_are_picked_and_only_in_plane_is_there_a_spline(old, new, thick):
    image = noise(old)
    result = resample_image(torch.from_numpy(image)[None], new, thick)[0].numpy()
    flat = [by_scipy(part, without(new, thick), order=3).clip(part.min(), part.max()) for part in slices(image, thick)]
    picked = by_scipy(np.arange(old[thick]), (new[thick],), order=0).astype(int)
    np.testing.assert_allclose(result, np.stack([flat[index] for index in picked], thick), atol=0.03)


def test_a_step_does_not_overshoot():
    image = torch.zeros(1, 4, 8, 8)
    image[..., 4:] = 1000
    result = resample_image(image, (4, 16, 16), None)
    assert (result.min(), result.max()) == (0, 1000)
    image[0, 1] += 5  # with a thick axis every slice keeps its own range
    result = resample_image(image, (4, 16, 16), 0)
    assert result[0].amin((1, 2)).tolist() == [0, 5, 0, 0]
    assert result[0].amax((1, 2)).tolist() == [1000, 1005, 1000, 1000]


def test_nothing_changes_where_the_shape_is_the_same():
    image = torch.from_numpy(noise((1, 3, 4, 5)))
    torch.testing.assert_close(resample_image(image, (3, 4, 5), None), image, rtol=0, atol=0)


def test_the_callers_arrays_are_left_alone():
    image = torch.from_numpy(noise((1, 3, 4, 5)))
    classes = torch.randint(0, 3, (3, 4, 5), dtype=torch.uint8)
    before = image.clone(), classes.clone()
    resample_image(image, (6, 5, 4), 0)
    resample_classes(classes, (6, 5, 4), 0)
    assert torch.equal(image, before[0])
    assert torch.equal(classes, before[1])


@pytest.mark.parametrize("order", [0, 1, 3])
def test_every_matrix_is_scipys_resize_of_a_line(order):
    for old in (2, 3, 7, 16, 31):
        for new in (1, 2, 5, 16, 40):
            line = noise((old,), seed=old * new)
            expected = by_scipy(line, (new,), order)
            result = axis_matrix(old, new, order).numpy() @ line
            np.testing.assert_allclose(result, expected, atol=2e-3, err_msg=f"{old} to {new}")
    assert axis_matrix(1, 4, order).tolist() == [[1]] * 4
    matrix = axis_matrix(40, 97, order)
    assert not ((matrix != 0) & (matrix.abs() < 1e-9)).any()  # denormals make the product slow
    torch.testing.assert_close(matrix.sum(1), torch.ones(97))


def slow_classes(classes: np.ndarray, shape: tuple[int, ...], thick: int | None) -> tuple[np.ndarray, np.ndarray]:
    """Full one-hot volumes, linear, then argmax; also the lead of the winner over the second."""
    if thick is not None:
        picked = by_scipy(np.arange(classes.shape[thick]), (shape[thick],), order=0).astype(int)
        classes = classes.take(picked, thick)
    one_hot = np.stack([by_scipy(classes == index, shape, order=1) for index in range(classes.max() + 1)])
    ordered = np.sort(one_hot, 0)
    return one_hot.argmax(0), ordered[-1] - ordered[-2]


def patches_of_classes(shape: tuple[int, int, int], count: int) -> np.ndarray:
    """Blobs of classes 0..count-1, each in a part of the volume, all touching others."""
    field = ndimage.gaussian_filter(np.random.default_rng(3).normal(size=shape), 1.5, mode="nearest")
    edges = np.quantile(field, np.linspace(0, 1, count + 1)[1:-1])
    return np.digitize(field, edges).astype(np.uint8)


@pytest.mark.parametrize("old, new", CHANGES)
@pytest.mark.parametrize("thick", [None, 0, 2])
def test_classes_equal_the_argmax_of_one_hot_volumes(old, new, thick):
    classes = patches_of_classes(old, 4)
    result = resample_classes(torch.from_numpy(classes), new, thick).numpy()
    expected, lead = slow_classes(classes, new, thick)
    assert result.dtype == np.uint8
    is_clear = lead > 1e-5  # elsewhere float rounding decides
    assert is_clear.mean() > 0.5
    np.testing.assert_array_equal(result[is_clear], expected[is_clear])


@pytest.mark.parametrize("edge", [3, 7])
@pytest.mark.parametrize("thick", [None, 1])
def test_classes_do_not_depend_on_the_blocks_in_which_they_are_resized(edge, thick):
    classes = torch.from_numpy(patches_of_classes((12, 20, 15), 4))
    shapes = (10, 16, 13), (15, 27, 6), (3, 2, 25), (18, 10, 45)
    for shape in shapes:
        whole = resample_classes(classes, shape, thick)
        assert torch.equal(resample_classes(classes, shape, thick, block_edge=edge), whole)


def test_a_block_is_bounded_on_both_grids():
    # Eight old voxels for a new one, a half, two: eight voxels at most on either grid.
    assert resample.block_size((16, 6, 40), (2, 12, 20), edge=8) == (1, 8, 4)
    assert resample.block_size((100, 6, 6), (1, 6, 6), edge=8) == (1, 8, 8)


def test_of_two_equally_heavy_classes_the_nearest_wins():
    for pair in ((2, 1), (1, 2), (0, 3), (3, 0)):  # the new voxel lies half way between the two: halves go up
        classes = torch.tensor(pair, dtype=torch.uint8).reshape(1, 1, 2)
        assert resample_classes(classes, (1, 1, 1), None).tolist() == [[[pair[1]]]]


def test_where_the_nearest_class_is_not_among_the_heaviest_the_lowest_of_them_wins():
    # The new voxel is the centre of all eight: 1 and 2 weigh 3/8 each, and 3, which is nearest, 1/4.
    classes = torch.tensor([3, 1, 1, 1, 2, 2, 2, 3], dtype=torch.uint8).reshape(2, 2, 2)
    assert resample_classes(classes, (1, 1, 1), None).tolist() == [[[1]]]


@pytest.mark.parametrize("new", [(10, 20, 30), (8, 20, 13), (5, 9, 7), (16, 25, 11)])
def test_classes_equal_those_of_nnunets_library_ties_included(new):
    classes = patches_of_classes((12, 20, 15), 4)  # 12 -> 10: every fifth new slice lies half way
    result = resample_classes(torch.from_numpy(classes), new, None).numpy()
    np.testing.assert_array_equal(result, resize_segmentation(classes, new, 1))


def test_a_tie_that_rounding_settles_in_nnunet_is_settled_alike():
    # New voxel (4, 22) has its centre at (4.5, 24) of the old ones: half way between slices 4 and 5, of which 5 would
    # be picked as the nearest. Its row 24 is 24 - 3.6e-15 in float64, so that row 23 weighs 3.6e-15, and is of class 0.
    classes = torch.zeros(20, 49, 3, dtype=torch.uint8)
    classes[5:, 24:] = 1
    result = resample_classes(classes, (18, 45, 2), None)
    assert result[4, 22].tolist() == [0, 0]
    assert result[4, 23].tolist() == [1, 1]  # 25.1: row 25 and 26 alone, a tie for the nearest to win
    np.testing.assert_array_equal(result.numpy(), resize_segmentation(classes.numpy(), (18, 45, 2), 1))


def test_a_class_between_the_new_voxels_vanishes_without_harm():
    classes = torch.zeros(9, 9, 9, dtype=torch.uint8)
    classes[0, 0, 0] = 2  # new centres lie at 1, 4 and 7
    classes[4, 4, 4] = 1
    result = resample_classes(classes, (3, 3, 3), None)
    assert result.sum() == 1
    assert result[1, 1, 1] == 1


def test_more_than_256_classes_can_be_resized():
    classes = np.zeros((4, 6, 8), np.uint16)
    classes[1:3, 2:4, 2:6] = 300
    result = resample_classes(torch.from_numpy(classes), (8, 12, 4), None)
    assert result.dtype == torch.uint16
    expected = np.zeros((8, 12, 4), np.uint16)
    expected[2:6, 4:8, 1:3] = 300
    np.testing.assert_array_equal(result.numpy(), expected)


@pytest.mark.parametrize(
    "shape, old, new, expected",
    [
        ((10, 20, 30), (5, 1, 2), (2.5, 2, 2), (20, 10, 30)),
        ((3, 5, 7), (1, 1, 1), (2, 2, 2), (2, 2, 4)),  # 1.5, 2.5 and 3.5: halves go to the even number
        ((1, 2, 100), (0.1, 1, 1), (9, 9, 0.3), (1, 1, 333)),
    ],
)
def test_resampled_shape_covers_the_same_extent(shape, old, new, expected):
    assert resampled_shape(shape, old, new) == expected


@pytest.mark.parametrize(
    "current, target, axis",
    [
        ((5, 1, 1), (1, 1, 1), 0),
        ((1, 5, 1), (9, 1, 1), 1),  # the current spacing decides if it is uneven
        ((1, 1, 1), (1, 1, 5), 2),
        ((3, 1, 1), (3, 1, 1), None),  # three times is not over three times
        ((3.01, 1, 1), (1, 1, 1), 0),
        ((5, 5, 1), (1, 1, 9), None),  # two equally thick axes, and the target is not asked
        ((2, 1, 1.5), (1, 1, 1), None),
    ],
)
def test_thick_axis(current, target, axis):
    assert thick_axis(current, target) == axis
