"""Depth, strides and kernels of the U-Net, by hand from the published rule."""

import numpy as np
import pytest

from segfw.planning.topology import unet_topology


def test_equal_spacing_halves_all_axes_together_down_to_four_voxels():
    # 32 -> 16 -> 8 -> 4 along every axis.
    topology = unet_topology((1, 1, 1), (32, 32, 32))
    assert topology.strides == ((1, 1, 1), (2, 2, 2), (2, 2, 2), (2, 2, 2))
    assert topology.kernels == ((3, 3, 3),) * 4
    assert topology.patch_size == (32, 32, 32)
    assert topology.multiple_of == (8, 8, 8)


def test_a_thick_axis_waits_until_the_others_have_caught_up():
    # Spacing 5, 1, 1: y and x are halved to 2 and 4 mm before z is within a factor of two of them.
    topology = unet_topology((5, 1, 1), (16, 64, 64))
    assert topology.strides == ((1, 1, 1), (1, 2, 2), (1, 2, 2), (2, 2, 2), (2, 2, 2))
    assert topology.kernels == ((1, 3, 3), (1, 3, 3), (3, 3, 3), (3, 3, 3), (3, 3, 3))
    assert topology.multiple_of == (4, 16, 16)


def test_an_axis_that_got_a_kernel_of_three_keeps_it():
    # z starts with 1.9 (within a factor of two of 1), and is left behind as too short to be halved.
    topology = unet_topology((1.9, 1, 1), (6, 32, 32))
    assert topology.strides == ((1, 1, 1), (1, 2, 2), (1, 2, 2), (1, 2, 2))
    assert topology.kernels == ((3, 3, 3),) * 4


def test_a_short_axis_is_left_alone_and_the_factor_of_two_is_strict():
    # 2.0 is not less than twice 1.0: z has kernel 1 first, and is halved from the second pooling on.
    topology = unet_topology((2, 1, 1), (16, 32, 32))
    assert topology.strides == ((1, 1, 1), (1, 2, 2), (2, 2, 2), (2, 2, 2))
    assert topology.kernels == ((1, 3, 3), (3, 3, 3), (3, 3, 3), (3, 3, 3))


@pytest.mark.parametrize("size, stages", [(11, 1), (12, 2)])
def test_a_single_axis_is_only_halved_from_twelve_voxels_on(size, stages):
    topology = unet_topology((1, 1, 1), (size, 7, 7))
    assert len(topology.strides) == stages
    assert topology.strides[-1] == ((2, 1, 1) if stages == 2 else (1, 1, 1))


def test_two_axes_are_halved_from_eight_voxels_on():
    assert unet_topology((1, 1, 1), (8, 8, 7)).strides == ((1, 1, 1), (2, 2, 1))
    assert unet_topology((1, 1, 1), (7, 7, 7)).strides == ((1, 1, 1),)
    assert unet_topology((1, 1, 1), (7, 7, 7)).kernels == ((3, 3, 3),)


def test_odd_sizes_round_up_and_the_patch_is_padded_to_fit():
    # 35 -> 18 -> 9 -> 5; 50 -> 25 -> 13 -> 7; the patch of the hippocampus plan.
    topology = unet_topology((1, 1, 1), (36, 50, 35))
    assert topology.strides == ((1, 1, 1), (2, 2, 2), (2, 2, 2), (2, 2, 2))
    assert topology.patch_size == (40, 56, 40)
    assert unet_topology((1, 1), (50.5, 35)).patch_size == (56, 40)
    assert unet_topology((1, 1, 1), (15, 15, 15)).patch_size == (16, 16, 16)  # 15 -> 8 -> 4
    assert len(unet_topology((1, 1, 1), (15, 15, 15)).strides) == 3


def test_two_dimensions():
    topology = unet_topology((1, 2.5), (64, 16))
    assert topology.strides == ((1, 1), (2, 1), (2, 2), (2, 2))
    assert topology.kernels == ((3, 1), (3, 3), (3, 3), (3, 3))


def test_what_must_always_hold():
    rng = np.random.default_rng(0)
    for _ in range(300):
        spacing = np.exp(rng.uniform(-2, 2, 3))
        size = rng.integers(1, 300, 3)
        topology = unet_topology(spacing, size)
        poolings = np.prod(topology.strides, axis=0)
        assert tuple(poolings) == topology.multiple_of
        assert len(topology.strides) == len(topology.kernels)
        assert topology.strides[0] == (1, 1, 1)
        assert topology.kernels[-1] == (3, 3, 3)
        assert not np.any(np.array(topology.patch_size) % poolings)
        padding = np.array(topology.patch_size) - size
        assert (padding >= 0).all()
        assert (padding < poolings).all()
        bottom = np.array(topology.patch_size) // poolings
        assert (bottom[poolings > 1] >= 4).all()
        assert (np.diff(topology.kernels, axis=0) >= 0).all()  # once 3, always 3
