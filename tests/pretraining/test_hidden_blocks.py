"""Which voxels are hidden: counted by hand on edges that differ."""

import numpy as np
import pytest

from segfw.pretraining.hidden_blocks import block_size, draw_hidden, hidden_share


def test_blocks_are_as_long_as_the_stride_at_the_bottom_but_4_to_16():
    assert block_size((8, 32, 2), (64, 64, 64)) == (8, 16, 4)
    assert block_size((1, 16, 16), (1, 256, 224)) == (1, 16, 16)  # a flat patch has blocks of one slice
    assert block_size((2, 8, 8), (3, 40, 6)) == (3, 8, 6)  # no longer than the patch


def test_small_patches_hide_less():
    assert hidden_share((48, 48, 48)) == 0.75
    assert hidden_share((40, 56, 40)) == 0.6  # 44.7 in the geometric mean
    assert hidden_share((1, 256, 224)) == 0.75  # by its plane
    assert hidden_share((1, 32, 64)) == 0.6


@pytest.mark.parametrize("seed", range(5))
def test_so_many_whole_blocks_are_hidden(seed):
    """Blocks of 2 x 4 x 3 in 4 x 12 x 9 voxels are 2 x 3 x 3: 18, of which 75 % are 13.5, rounded to 14."""
    hidden = draw_hidden(np.random.default_rng(seed), (4, 12, 9), (2, 4, 3), 0.75)
    blocks = hidden.reshape(2, 2, 3, 4, 3, 3).transpose(0, 2, 4, 1, 3, 5).reshape(18, 24)
    assert set(blocks.sum(1).tolist()) <= {0, 24}
    assert (blocks.sum(1) == 24).sum() == 14
    assert hidden.sum() == 14 * 24


def test_blocks_that_hang_over_the_patch_are_cut():
    """5 x 7 x 4 voxels in blocks of 4 x 4 x 4: 2 x 2 x 1 blocks, of 64, 48, 16 and 12 voxels."""
    sizes = {draw_hidden(np.random.default_rng(seed), (5, 7, 4), (4, 4, 4), 0.25).sum() for seed in range(40)}
    assert sizes == {64, 48, 16, 12}


def test_there_is_something_to_say_and_something_to_see():
    rng = np.random.default_rng(0)
    assert draw_hidden(rng, (4, 8, 4), (4, 4, 4), 0.9).sum() == 64  # one of two
    assert draw_hidden(rng, (4, 8, 4), (4, 4, 4), 0.01).sum() == 64
    assert draw_hidden(rng, (4, 4, 4), (4, 4, 4), 0.75).all()  # a single block


def test_every_block_is_hidden_as_often():
    """Of 2000 draws of 3 of 6 blocks each is hidden in half, give or take four standard errors."""
    rng = np.random.default_rng(1)
    often = sum(draw_hidden(rng, (2, 3, 1), (1, 1, 1), 0.5).astype(int) for _ in range(2000))
    assert np.abs(often - 1000).max() < 4 * (2000 * 0.25) ** 0.5
