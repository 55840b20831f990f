"""Tiles: they cover every voxel, blend to what went in, and mirroring is undone."""

import pytest
import torch

from segfw.inference.sliding_window import gaussian_weights, mirror_combinations, sliding_window, tile_starts


def identity(tiles: torch.Tensor) -> torch.Tensor:
    return tiles


@pytest.mark.parametrize(
    "size, tile, step, starts",
    [(10, 16, 0.5, [0]), (16, 16, 0.5, [0]), (17, 16, 0.5, [0, 1]), (32, 16, 0.5, [0, 8, 16]), (33, 16, 1, [0, 8, 17])],
)
def test_tile_starts(size, tile, step, starts):
    assert tile_starts(size, tile, step) == starts


@pytest.mark.parametrize("size", [16, 23, 40, 111])
@pytest.mark.parametrize("step", [0.3, 0.5, 1.0])
def test_tiles_cover_everything_and_overlap_as_promised(size, step):
    starts = tile_starts(size, 16, step)
    assert starts[0] == 0
    assert starts[-1] == size - 16
    assert all(second - first <= 16 * step + 1 for first, second in zip(starts, starts[1:]))  # 1 for rounding


def test_weights_are_largest_in_nnunets_middle_voxel_and_nowhere_zero():
    weights = gaussian_weights((8, 15, 4))
    assert weights.shape == (8, 15, 4)
    assert weights.max() == weights[4, 7, 2] == 1
    assert weights.min() > 0
    torch.testing.assert_close(weights[1:, :, 1:], weights[1:, :, 1:].flip(0, 1, 2))
    assert weights[4, 7, 2] > weights[0, 7, 2] > 0


@pytest.mark.parametrize("shape", [(16, 16, 16), (20, 33, 17), (3, 40, 40), (5, 7, 9), (1, 50, 20)])
def test_sliding_window_of_identity_is_identity(shape):
    image = torch.rand(2, *shape)
    torch.testing.assert_close(sliding_window(image, [identity], (16, 16, 16)), image)


def test_mirroring_is_undone_and_averaged():
    image = torch.rand(1, 12, 18, 10)
    torch.testing.assert_close(sliding_window(image, [identity], (8, 8, 8), mirror_axes=(0, 1, 2)), image)

    def left_half(tiles):  # a network that only ever sees the first half of the last axis
        result = torch.zeros_like(tiles)
        result[..., :4] = 1
        return result

    seen = sliding_window(torch.rand(1, 8, 8, 8), [left_half], (8, 8, 8), mirror_axes=(2,))
    torch.testing.assert_close(seen, torch.full_like(seen, 0.5))


def test_networks_are_averaged():
    image = torch.rand(1, 12, 18, 10)
    double = sliding_window(image, [identity, lambda tiles: 3 * tiles], (8, 8, 8))
    torch.testing.assert_close(double, 2 * image)


def test_every_subset_of_axes_once():
    assert mirror_combinations((1, 2)) == [(), (1,), (2,), (1, 2)]
    assert len(set(mirror_combinations((0, 1, 2)))) == 8


def test_tiles_are_blended_by_their_weights():
    """Two tiles of 4 over 6 voxels: each voxel is the weighted mean of the tiles that hold it."""
    number = iter([1.0, 3.0])

    def constant(tiles):
        return torch.stack([torch.full_like(tile, next(number)) for tile in tiles])

    result = sliding_window(torch.rand(1, 1, 1, 6), [constant], (1, 1, 4))[0, 0, 0]
    w = gaussian_weights((1, 1, 4))[0, 0]
    middle = [(w[2] + 3 * w[0]) / (w[2] + w[0]), (w[3] + 3 * w[1]) / (w[3] + w[1])]
    torch.testing.assert_close(result, torch.tensor([1, 1, *middle, 3, 3]))
