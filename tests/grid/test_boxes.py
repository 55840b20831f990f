"""Boxes divide a grid without gap or overlap, and cut what is not zero out of an image."""

import numpy as np
import pytest

from segfw.grid.boxes import blocks, cut, nonzero_box, relative, shape_of, whole_grid


@pytest.mark.parametrize("size", [(1, 1, 1), (2, 4, 3), (9, 9, 9)])
def test_blocks_cover_a_grid_once(size):
    within = (slice(1, 5), slice(0, 6), slice(2, 9))
    times = np.zeros((6, 7, 9), int)
    for block in blocks(within, size):
        times[block] += 1
        assert all(0 < voxels <= most for voxels, most in zip(shape_of(block), size))
    assert (times[within] == 1).all()
    assert times.sum() == 4 * 6 * 7


def test_blocks_come_with_the_last_axis_first():
    found = [tuple(part.start for part in block) for block in blocks(whole_grid((2, 3, 3)), (1, 2, 2))]
    assert found[:4] == [(0, 0, 0), (0, 0, 2), (0, 2, 0), (0, 2, 2)]
    assert len(found) == 8


def test_a_block_is_counted_from_another():
    origin = (slice(3, 9), slice(1, 9), slice(0, 9))
    assert relative((slice(4, 6), slice(1, 3), slice(5, 7)), origin) == (slice(1, 3), slice(0, 2), slice(5, 7))


def test_the_box_of_what_is_not_zero_in_some_channel():
    image = np.zeros((2, 4, 5, 6), np.int16)
    assert nonzero_box(image) == ((0, 4), (0, 5), (0, 6))
    image[0, 1, 2, 3] = -1
    image[1, 2, 4, 3] = 7
    assert nonzero_box(image) == ((1, 3), (2, 5), (3, 4))
    assert cut(image, nonzero_box(image)).shape == (2, 2, 3, 1)
