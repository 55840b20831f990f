"""Which voxels of a patch are hidden: whole blocks, so that copying a neighbour explains little."""

from __future__ import annotations

from math import prod

import numpy as np

from segfw.images.geometry import Shape, as_shape

SHORTEST_BLOCK = 4
LONGEST_BLOCK = 16
HIDDEN_SHARE = 0.75  # of the blocks, as published for masked reconstruction
HIDDEN_SHARE_OF_SMALL = 0.6  # small patches have few blocks, and little that tells what is hidden
SMALL_PATCH = 48  # voxels: the mean edge below which a patch is small


def block_size(downsampling: Shape, patch_size: Shape) -> Shape:
    """Voxels (z, y, x) of a block: the stride of the network's bottom stage, but 4 to 16; within a flat patch 1.

    No block is longer than the patch.
    """
    wanted = [min(max(stride, SHORTEST_BLOCK), LONGEST_BLOCK) for stride in downsampling]
    return as_shape(min(block, edge) for block, edge in zip(wanted, patch_size))


def hidden_share(patch_size: Shape) -> float:
    """Which share of the blocks is hidden; by the geometric mean of the edges that are longer than a voxel."""
    edges = [edge for edge in patch_size if edge > 1] or [1]
    is_small = prod(edges) < SMALL_PATCH ** len(edges)
    return HIDDEN_SHARE_OF_SMALL if is_small else HIDDEN_SHARE


def draw_hidden(rng: np.random.Generator, patch_size: Shape, block: Shape, share: float) -> np.ndarray:
    """Bool (Z, Y, X), True where voxels are hidden: ``share`` of all blocks, rounded; at least one, and not all.

    Blocks lie side by side from the first corner on; the last ones may hang over the patch. A patch of a single block
    is hidden as a whole.
    """
    grid = as_shape(-(-edge // length) for edge, length in zip(patch_size, block))
    blocks = prod(grid)
    number = min(max(1, round(share * blocks)), max(1, blocks - 1))
    is_hidden = np.zeros(blocks, bool)
    is_hidden[rng.permutation(blocks)[:number]] = True
    hidden = is_hidden.reshape(grid)
    for axis, length in enumerate(block):
        hidden = hidden.repeat(length, axis)
    z, y, x = patch_size
    return hidden[:z, :y, :x]
