"""Shapes and orientations that what works on voxel grids is tried with."""

from itertools import permutations, product

# Up, down, both, one-voxel axes on either side, and no change along an axis.
CHANGES = [
    ((5, 9, 12), (11, 17, 25)),
    ((12, 17, 20), (5, 8, 11)),
    ((7, 20, 9), (13, 11, 9)),
    ((1, 9, 12), (1, 14, 7)),
    ((1, 6, 7), (4, 9, 5)),
    ((6, 1, 8), (1, 3, 12)),
]
# Every order of the axes with every choice of their directions: 48.
ORIENTATIONS = list(product(permutations(range(3)), product((1, -1), repeat=3)))
