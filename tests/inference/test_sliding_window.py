"""Tiles: they cover every voxel, blend to what went in, and come out as slabs equal to the slow whole computation."""

import pytest
import torch

from builders.networks import spec
from builders.sliding import blurred, slow_oracle, unet
from segfw.grid.slabs import dense
from segfw.inference.host_memory import LearnedLimits
from segfw.inference.sliding_window import sliding_window
from segfw.inference.summands import gives_features, summands_of
from segfw.inference.tiles import blending_weights, mirror_combinations, tile_count, tile_starts


def identity(tiles: torch.Tensor) -> torch.Tensor:
    return tiles


def whole(slab) -> tuple[slice, slice, slice]:
    return slice(slab.start, slab.stop), slice(None), slice(None)


@pytest.mark.parametrize(
    "size, tile, step, starts",
    [(10, 16, 0.5, [0]), (16, 16, 0.5, [0]), (17, 16, 0.5, [0, 1]), (32, 16, 0.5, [0, 8, 16]), (33, 16, 1, [0, 8, 17])],
)
def test_tile_starts(size, tile, step, starts):
    assert tile_starts(size, tile, step) == starts
    assert tile_count((size, 5, size), (tile, 5, tile), step) == len(starts) ** 2


@pytest.mark.parametrize("size", [16, 23, 40, 111])
@pytest.mark.parametrize("step", [0.3, 0.5, 1.0])
def test_tiles_cover_everything_and_overlap_as_promised(size, step):
    starts = tile_starts(size, 16, step)
    assert starts[0] == 0
    assert starts[-1] == size - 16
    assert all(second - first <= 16 * step + 1 for first, second in zip(starts, starts[1:]))  # 1 for rounding


@pytest.mark.parametrize("size, tile, step", [(8, 8, 0.5), (20, 8, 0.5), (33, 16, 0.3), (5, 8, 0.5), (40, 1, 0.5)])
def test_weights_sum_to_one_in_every_voxel_and_are_nowhere_zero(size, tile, step):
    weights = blending_weights(size, tile, step)
    starts = tile_starts(size, tile, step)
    total = torch.zeros(max(size, tile))
    for start, line in zip(starts, weights):
        total[start : start + tile] += line
    torch.testing.assert_close(total, torch.ones(max(size, tile)))
    assert weights.min() > 0


def test_where_two_tiles_overlap_the_voxel_nearer_to_the_middle_weighs_more():
    first, second = blending_weights(6, 4, 0.5)
    assert first[0] == first[1] == second[2] == second[3] == 1  # nobody else is there
    assert first[2] > second[0]
    assert first[3] == second[1] == 0.5  # the middle lies at size // 2, as nnU-Net's: a voxel beside both


@pytest.mark.parametrize("shape", [(16, 16, 16), (20, 33, 17), (3, 40, 40), (5, 7, 9), (1, 50, 20)])
def test_sliding_window_of_identity_is_identity(shape):
    image = torch.rand(2, *shape)
    torch.testing.assert_close(dense(sliding_window(image, [identity], (16, 16, 16))), image)


def test_mirroring_is_undone_and_averaged():
    image = torch.rand(1, 12, 18, 10)
    all_axes = summands_of([identity], (0, 1, 2))
    torch.testing.assert_close(dense(sliding_window(image, all_axes, (8, 8, 8))), image)

    def left_half(tiles):  # a network that only ever sees the first half of the last axis
        result = torch.zeros_like(tiles)
        result[..., :4] = 1
        return result

    seen = dense(sliding_window(torch.rand(1, 8, 8, 8), summands_of([left_half], (2,)), (8, 8, 8)))
    torch.testing.assert_close(seen, torch.full_like(seen, 0.5))


def test_networks_are_averaged():
    image = torch.rand(1, 12, 18, 10)
    double = dense(sliding_window(image, [identity, lambda tiles: 3 * tiles], (8, 8, 8)))
    torch.testing.assert_close(double, 2 * image)


def test_every_subset_of_axes_once():
    assert mirror_combinations((1, 2)) == [(), (1,), (2,), (1, 2)]
    assert len(set(mirror_combinations((0, 1, 2)))) == 8


@pytest.mark.parametrize(
    "shape, patch", [((30, 20, 13), (8, 8, 8)), ((5, 20, 13), (8, 8, 8)), ((11, 20, 9), (1, 8, 8))]
)
@pytest.mark.parametrize("step, axes", [(0.5, ()), (0.3, (0, 2)), (1.0, (1,))])
def test_slabs_equal_the_whole_computation(shape, patch, step, axes):
    image = torch.rand(2, *shape)
    wanted = slow_oracle(image, [blurred], patch, step=step, axes=axes)
    slabs = sliding_window(image, summands_of([blurred], axes), patch, step=step)
    torch.testing.assert_close(dense(slabs), wanted, rtol=1e-5, atol=1e-5)


def test_slabs_are_in_order_overlap_by_one_slice_and_few_slices_exist_at_a_time():
    image = torch.rand(2, 61, 9, 10)
    patch = (8, 8, 8)
    wanted = slow_oracle(image, [blurred], patch)
    at = 0
    kept = 0
    for slab in sliding_window(image, [blurred], patch, limits=LearnedLimits(copies=1)):
        assert (slab.first, slab.start) == (max(0, at - 1), at)
        block = (slice(slab.first, slab.stop), slice(2, 9), slice(0, 5))
        torch.testing.assert_close(slab.logits(block), wanted[(slice(None), *block)], rtol=1e-5, atol=1e-5)
        at = slab.stop
        kept = max(kept, slab.channels_azyx.untyped_storage().nbytes())
    assert at == 61
    assert kept == 3 * (8 + 1) * 9 * 10 * 4  # three classes, a tile and a slice of them, float32


@pytest.mark.parametrize("by_member", [False, True])
@pytest.mark.parametrize("folds, classes", [(1, 40), (2, 40), (2, 9)])
def test_features_in_place_of_logits_give_the_same(folds, classes, by_member):
    networks = [unet(seed, classes=classes) for seed in range(folds)]
    image = torch.randn(1, 10, 8, 9)
    patch = (8, 8, 8)
    orders = {2: (0, 2, 1, *range(3, classes))}  # two of the classes are left and right
    members = summands_of(networks, (2,), output_orders=orders, by_member=by_member)
    # Eight features for each fold and for each of two orders of the classes, or the classes.
    assert (members.heads is not None) == (2 * 8 * folds < classes * (folds if by_member else 1))
    with torch.no_grad():
        wanted = slow_oracle(image, networks, patch, axes=(2,), outputs=orders)
    found = dense(sliding_window(image, members, patch))
    torch.testing.assert_close(found, wanted, rtol=1e-4, atol=1e-4)
    ties = (found.argmax(0) != wanted.argmax(0)).sum()
    assert ties <= 2, f"{ties} of {found[0].numel()} voxels differ"
    for member, network in enumerate(networks if by_member else ()):
        slabs = sliding_window(image, members, patch)
        blocks = [slab.logits(whole(slab), member).clone() for slab in slabs]
        with torch.no_grad():
            alone = slow_oracle(image, [network], patch, axes=(2,), outputs=orders)
        torch.testing.assert_close(torch.cat(blocks, 1), alone, rtol=1e-4, atol=1e-4)


def test_a_network_of_another_way_to_its_logits_gives_no_features():
    class Doubled(type(unet())):
        def forward(self, image):
            return 2 * super().forward(image)

    network = unet(classes=40)
    image = torch.randn(1, 9, 17, 21)
    plain = dense(sliding_window(image, [network], (8, 16, 16)))
    other = Doubled(spec(classes=40)).eval()
    other.load_state_dict(network.state_dict())
    assert gives_features(network)
    assert not gives_features(other)
    torch.testing.assert_close(dense(sliding_window(image, [other], (8, 16, 16))), 2 * plain, rtol=1e-4, atol=1e-4)
