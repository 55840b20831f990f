"""Connected components as scipy finds them, numbers included."""

import numpy as np
import pytest
from scipy import ndimage

from segfw.base.components import connected_components

EVERY_NEIGHBOUR = np.ones((3, 3, 3))


@pytest.mark.parametrize("share", [0.05, 0.2, 0.5])
@pytest.mark.parametrize("axes", [(0, 1, 2), (2, 0, 1)])
def test_components_and_their_numbers_are_those_of_scipy(share, axes):
    rng = np.random.default_rng(0)
    for _ in range(50):
        mask = (rng.random(rng.integers(1, 12, 3)) < share).transpose(axes)
        expected, number = ndimage.label(mask, EVERY_NEIGHBOUR)
        components, count = connected_components(mask)
        assert count == number
        np.testing.assert_array_equal(components, expected)


def test_voxels_that_touch_by_a_corner_belong_together_and_those_two_apart_do_not():
    mask = np.zeros((3, 3, 5), bool)
    mask[0, 0, 0] = mask[1, 1, 1] = mask[1, 1, 3] = True
    components, count = connected_components(mask)
    assert count == 2
    assert components[mask].tolist() == [1, 1, 2]


@pytest.mark.parametrize("shape", [(7, 1, 1), (1, 7, 1), (1, 1, 7)])
def test_every_other_voxel_of_a_line_is_a_component(shape):
    components, count = connected_components((np.arange(7) % 2 == 0).reshape(shape))
    assert count == 4
    assert components.ravel().tolist() == [1, 0, 2, 0, 3, 0, 4]


def test_an_empty_mask_has_none():
    assert connected_components(np.zeros((2, 3, 4), bool))[1] == 0
    components, count = connected_components(np.zeros((0, 3, 4), bool))
    assert (components.shape, count) == ((0, 3, 4), 0)
