"""Warping: phantoms that can be counted by hand, masks that follow their image, batchgenerators for the same matrix."""

from dataclasses import replace

import numpy as np
import pytest
import torch
from batchgenerators.augmentations.utils import create_zero_centered_coordinate_mesh, interpolate_img
from scipy import interpolate, ndimage

from segfw.planning.patch_shape import is_in_plane
from segfw.training.augment import spline_weights, warp
from segfw.training.augment_params import SpatialParams, draw_spatial, source_size

PATCH = (24, 28, 32)
QUARTER_TURN = np.array([[1.0, 0, 0], [0, 0, -1], [0, 1, 0]])  # output offset (y, x) -> input offset (-x, y)


def warped_one(image, classes, params, patch=None):
    """Image (Z, Y, X) and mask (Z, Y, X) of one box."""
    boxes = [(torch.as_tensor(image)[None].float(), torch.as_tensor(classes)[None].to(torch.int16))]
    image, labels = warp(boxes, [params], patch or tuple(boxes[0][0].shape[1:]))
    return image[0, 0], labels[0, 0]


def warps(count, patch=PATCH, elastic=False, seed=0):
    """Drawn parameters that need interpolation; with ``elastic`` those that bend."""
    rng, found = np.random.default_rng(seed), []
    while len(found) < count:
        params = draw_spatial(rng, patch, (0, 1, 2), elastic)
        if params.is_warped and (params.control is not None) == elastic:
            found.append(params)
    return found


def grid_of(size):
    return torch.meshgrid(*(torch.arange(n) - (n - 1) / 2 for n in size), indexing="ij")


# Geometry


def test_a_quarter_turn_moves_voxels_where_a_human_expects():
    image, classes = torch.zeros(3, 7, 5), torch.zeros(3, 7, 5)
    image[1, 1, 2], classes[1, 1, 2] = 9.0, 1  # two voxels above the centre of the middle slice
    turned, labels = warped_one(image, classes, SpatialParams(matrix=QUARTER_TURN), (3, 5, 7))
    assert labels.nonzero().tolist() == [[1, 2, 5]]  # two voxels to the right of it
    assert turned.nonzero().tolist() == [[1, 2, 5]]
    assert turned[1, 2, 5] == 9


def test_scaling_is_about_the_centre_and_the_same_in_voxels_of_every_axis():
    image = torch.zeros(9, 13, 17)
    image[4, 6, 8 + 4] = 1.0
    smaller, _ = warped_one(image, torch.zeros(9, 13, 17), SpatialParams(matrix=np.eye(3) * 2), (5, 7, 9))
    assert smaller.nonzero().tolist() == [[2, 3, 4 + 2]]  # four voxels off the centre become two


def test_half_a_voxel_is_half_of_both_neighbours():
    image = torch.arange(12.0).expand(6, 6, 12)
    wider, _ = warped_one(image, torch.zeros(6, 6, 12), SpatialParams(matrix=np.diag([1.0, 1.0, 0.5])), (6, 6, 6))
    # Offsets -2.5 ... 2.5 become -1.25 ... 1.25 off 5.5.
    torch.testing.assert_close(wider[3, 3], torch.tensor([4.25, 4.75, 5.25, 5.75, 6.25, 6.75]))


def test_a_label_without_a_majority_wins_if_it_is_the_heaviest():
    classes = torch.tensor([[[4, 2], [3, 2]]]).expand(
        2, 2, 2
    )  # 2 has half of the weight in the middle, the others less
    still = SpatialParams(matrix=np.eye(3))
    assert warped_one(torch.zeros(2, 2, 2), classes, still, (1, 1, 1))[1].tolist() == [[[2]]]


@pytest.mark.parametrize("elastic", [False, True])
def test_mirrored_is_warped_the_other_way_round(elastic):
    for params in warps(3, elastic=elastic):
        size = source_size(PATCH, params)
        image, classes = torch.randn(size), torch.randint(0, 4, size)
        plain = warped_one(image, classes, SpatialParams(matrix=params.matrix, control=params.control), PATCH)
        mirrored = SpatialParams(matrix=params.matrix, control=params.control, mirrored=(0, 2))
        for straight, flipped in zip(plain, warped_one(image, classes, mirrored, PATCH)):
            torch.testing.assert_close(straight.flip(0, 2), flipped, atol=1e-3, rtol=0)


@pytest.mark.parametrize("patch", [(9, 15, 21), (1, 24, 30), (4, 24, 30)])
@pytest.mark.parametrize("elastic", [False, True])
def test_box_that_is_read_holds_all_that_the_warp_needs(patch, elastic):
    """Warping from the box gives what warping from a far larger image gives."""
    edge, margin = 100, 8
    big, spots = torch.randn(edge, edge, edge), torch.randint(0, 3, (edge, edge, edge))
    for params in warps(5, patch, elastic):
        size = source_size(patch, params)
        box = tuple(slice(20, 20 + n) for n in size)
        around = tuple(slice(20 - margin, 20 + n + margin) for n in size)
        if is_in_plane(patch):  # slices stay what they are: of the larger image as many
            around = (box[0], *around[1:])
        small, large = (warped_one(big[cut], spots[cut], params, patch) for cut in (box, around))
        torch.testing.assert_close(small[0], large[0], atol=2e-4, rtol=0)
        assert (small[1] != large[1]).float().mean() < 1e-3  # ties fall either way by rounding


@pytest.mark.parametrize("elastic", [False, True])
def test_every_slice_of_a_flat_patch_is_warped_alike_and_alone(elastic):
    for params in warps(4, (4, 20, 16), elastic):
        size = source_size((4, 20, 16), params)
        image, classes = torch.randn(size), torch.randint(0, 4, size)
        flipped = SpatialParams(matrix=params.matrix, control=params.control, mirrored=(0,))
        for drawn, order in ((replace(params, mirrored=(1,)), (0, 1, 2, 3)), (flipped, (3, 2, 1, 0))):
            together = warped_one(image, classes, drawn, (4, 20, 16))
            for index, source in enumerate(order):
                one = (array[source : source + 1] for array in (image, classes))
                alone = warped_one(*one, drawn, (1, 20, 16))
                assert torch.equal(together[0][index], alone[0][0])
                assert torch.equal(together[1][index], alone[1][0])


def test_boxes_of_unlike_sizes_are_warped_together_as_they_are_alone():
    params = warps(4) + warps(2, elastic=True)
    sizes = [source_size(PATCH, drawn) for drawn in params]
    boxes = [(torch.randn(2, *size).half(), torch.randint(0, 9, (2, *size), dtype=torch.int16)) for size in sizes]
    together = warp(boxes, params, PATCH)
    for index, drawn in enumerate(params):
        in_parts = warp([boxes[index]], [drawn], PATCH, voxels_at_once=5000)  # that end anywhere
        for whole, alone in zip(together, in_parts):
            assert torch.equal(whole[index], alone[0])


# Masks


def test_forty_labels_equal_each_label_sampled_alone():
    """A slow oracle: every label's mask interpolated by scipy, and the largest taken."""
    rng = np.random.default_rng(2)
    for params in warps(3, (12, 16, 14)):
        size = source_size((12, 16, 14), params)
        classes = ndimage.zoom(rng.integers(-1, 40, tuple(-(-n // 3) for n in size)), 3, order=0)
        classes = classes[tuple(slice(n) for n in size)]
        offsets = create_zero_centered_coordinate_mesh((12, 16, 14)).reshape(3, -1)
        flip = np.diag([-1.0 if axis in params.mirrored else 1.0 for axis in range(3)])
        places = params.matrix @ flip @ offsets + (np.array(size)[:, None] - 1) / 2
        weights = np.stack([ndimage.map_coordinates((classes == k) * 1.0, places, order=1) for k in range(-1, 40)])
        labels = warped_one(np.zeros(size), classes, params, (12, 16, 14))[1].numpy().ravel()
        lost = weights.max(0) - weights[labels + 1, np.arange(labels.size)]
        assert lost.max() < 1e-4
        assert len(np.unique(labels)) > 30


@pytest.mark.parametrize("elastic", [False, True])
def test_mask_follows_the_image_to_a_tenth_of_a_voxel(elastic):
    """A smooth blob as a distance image and as its mask: both surfaces lie in the same place after any warp."""
    for params in warps(6, elastic=elastic):
        size = source_size(PATCH, params)
        z, y, x = grid_of(size)
        radius = 8 + torch.sin(3 * torch.atan2(y, x)) + 0.1 * z
        distance = ((z - 2) ** 2 + (y + 1) ** 2 + (x - 1.5) ** 2).sqrt() - radius
        moved, labels = warped_one(distance, distance < 0, params, PATCH)
        scale = torch.stack(torch.gradient(moved)).square().sum(0).sqrt().clamp_min(0.1)
        # Voxels by how much of them lies within the image's surface, against whole voxels of the mask.
        inside = (0.5 - moved / scale).clamp(0, 1)
        area = ((moved / scale).abs() < 0.5).sum()
        assert area > 150
        assert abs(inside.sum() - labels.sum()) / area < 0.1
        centres = [(weights[..., None] * torch.stack(grid_of(PATCH), -1)).sum((0, 1, 2)) / weights.sum()
                   for weights in (inside, labels.float())]  # fmt: skip
        assert (centres[0] - centres[1]).abs().max() < 0.1


def test_labels_that_touch_leave_no_gap_between_them():
    for params in warps(5, (8, 16, 16)):
        size = source_size((8, 16, 16), params)
        classes = 1 + (grid_of(size)[2] > 1).int() + 2 * (grid_of(size)[1] > 0).int()
        _, labels = warped_one(torch.zeros(size), classes, params, (8, 16, 16))
        assert set(labels.unique().tolist()) == {1, 2, 3, 4}


def test_two_kinds_of_masks_are_warped_alike():
    params = warps(1)
    size = source_size(PATCH, params[0])
    classes = torch.randint(0, 5, size, dtype=torch.int16)
    _, labels = warp([(torch.zeros(1, *size), torch.stack((classes, classes + 7)))], params, PATCH)
    assert torch.equal(labels[0, 0] + 7, labels[0, 1])


def test_batchgenerators_with_the_same_matrix():
    """Away from voxels where it leaves a label below one half out, the same image and mask."""
    size = (40, 44, 46)
    z, y, x = grid_of(size)
    image = torch.sin(z / 3) + torch.cos(y / 4) * torch.sin(x / 5)
    classes = (image > 0.3).int() + (image > 0.9).int()
    for params in warps(4, (20, 24, 22)):
        params = SpatialParams(matrix=params.matrix)
        ours = warped_one(image, classes, params, (20, 24, 22))
        mesh = create_zero_centered_coordinate_mesh((20, 24, 22))
        places = np.einsum("ij,jzyx->izyx", params.matrix, mesh) + np.array(size).reshape(3, 1, 1, 1) / 2 - 0.5
        theirs = interpolate_img(image.numpy(), places, 1, "constant", 0)
        their_classes = interpolate_img(classes.numpy(), places, 1, "constant", -1, is_seg=True)
        np.testing.assert_allclose(ours[0].numpy(), theirs, atol=1e-4)
        assert (ours[1].numpy() == their_classes).mean() > 0.99


# Bending


def test_spline_weights_are_scipys():
    weights = spline_weights(17, 8)  # five intervals
    knots = np.arange(-3, 9)
    places = (np.arange(17) + 0.5) / 17 * 5
    for point in range(8):
        expected = interpolate.BSpline(knots, np.eye(8)[point], 3)(places)
        np.testing.assert_allclose(weights[:, point], expected, atol=1e-12)
    np.testing.assert_allclose(weights.sum(1), 1)


def test_control_points_that_all_move_alike_shift_the_image():
    control = np.zeros((3, 5, 5, 5))
    control[0], control[2] = 1, -2
    image = torch.zeros(9, 7, 11)
    image[5, 3, 2] = 1.0
    assert source_size((7, 7, 7), SpatialParams(control=control)) == (9, 7, 11)
    shifted, _ = warped_one(image, torch.zeros(9, 7, 11), SpatialParams(control=control), (7, 7, 7))
    # Voxel (3, 3, 2) of the patch, (4, 3, 4) of the box, shows (4 + 1, 3, 4 - 2).
    torch.testing.assert_close(shifted[3, 3, 2], torch.tensor(1.0), atol=1e-4, rtol=0)
    assert shifted.sum() == pytest.approx(1, abs=1e-3)


def test_bending_never_folds_space():
    """Coordinates as the image: along every axis they keep their order, and volumes stay positive."""
    for params in warps(20, PATCH, elastic=True):
        params = SpatialParams(control=params.control)
        size = source_size(PATCH, params)
        places = [warped_one(axis, torch.zeros(size), params, PATCH)[0] for axis in grid_of(size)]
        jacobian = torch.stack([torch.stack(torch.gradient(place)) for place in places]).movedim((0, 1), (3, 4))
        assert torch.linalg.det(jacobian).min() > 0
        assert (torch.stack(places) - torch.stack(grid_of(PATCH))).abs().max() > 0.05
