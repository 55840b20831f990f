"""The surface of a mask by marching cubes, from counts of 2 x 2 x 2 neighbourhoods instead of a list of triangles.

At the level 0.5 of a mask of zeros and ones every vertex lies in the middle of an edge between two voxels. So the
triangles of a cube are one of 256 sets, and a whole surface is told by how often each cube occurs: what a mesh of
millions of triangles would give is a product of counts and a table, exact and in the memory of one slice.

The table is made of scikit-image's marching cubes (Lewiner et al. 2003), cube by cube.
"""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass
from functools import cache
from itertools import product

import numpy as np

CUBES = 256
CORNERS = np.array([[corner >> 2 & 1, corner >> 1 & 1, corner & 1] for corner in range(8)])  # (z, y, x) of each bit


@dataclass(frozen=True, kw_only=True)
class CubeTriangles:
    """Triangles of all cubes: corners (T, 3, 3) in voxels from the cube's first voxel, and the cube of each (T,)."""

    corners: np.ndarray
    cube: np.ndarray


@cache
def cube_triangles() -> CubeTriangles:
    """Of the 254 cubes that have some."""
    from skimage.measure import marching_cubes

    corners = []
    cubes = []
    for cube in range(1, CUBES - 1):
        values = np.zeros((2, 2, 2), np.float32)
        values[tuple(CORNERS[[cube >> bit & 1 == 1 for bit in range(8)]].T)] = 1
        vertices, faces, _, _ = marching_cubes(values, 0.5)
        corners.append(vertices[faces].astype(np.float64))
        cubes.append(np.full(len(faces), cube))
    return CubeTriangles(corners=np.concatenate(corners), cube=np.concatenate(cubes))


def cube_counts(mask_zyx: np.ndarray) -> np.ndarray:
    """How often each cube occurs, (Z + 1, 256): between each two slices of a mask that has nothing around it."""
    zeros = np.zeros((mask_zyx.shape[1] + 1, mask_zyx.shape[2] + 1), np.uint8)
    counts = np.empty((len(mask_zyx) + 1, CUBES), np.int64)
    below = zeros
    for layer in range(len(mask_zyx) + 1):
        above = _squares(mask_zyx[layer]) if layer < len(mask_zyx) else zeros
        counts[layer] = np.bincount((below | above << 4).ravel(), minlength=CUBES)
        below = above
    return counts


def _squares(mask_yx: np.ndarray) -> np.ndarray:
    """Which of each 2 x 2 pixels are set, in four bits, (Y + 1, X + 1)."""
    pixels = np.pad(mask_yx.view(np.uint8), 1)
    return pixels[:-1, :-1] | pixels[:-1, 1:] << 1 | pixels[1:, :-1] << 2 | pixels[1:, 1:] << 3


def mesh_volume_mm3(counts: np.ndarray, axes_mm: np.ndarray) -> float:
    """What the surface encloses: the sum of a . (b x c) / 6 over its triangles."""
    triangles = cube_triangles()
    first, second, third = np.moveaxis(triangles.corners, 1, 0)
    # By the flux of z: per cube, and per cube and layer that it lies above the first one.
    normal_z = np.cross(second - first, third - first)[:, 0] / 2
    flux = np.bincount(triangles.cube, normal_z * triangles.corners[:, :, 0].mean(1), minlength=CUBES)
    flux_per_layer = np.bincount(triangles.cube, normal_z, minlength=CUBES)
    volume = counts.sum(0) @ flux + np.arange(len(counts)) @ counts @ flux_per_layer
    return float(abs(volume * np.linalg.det(axes_mm)))


def mesh_surface_mm2(counts: np.ndarray, axes_mm: np.ndarray) -> float:
    """The area of the surface: the sum of |(b - a) x (c - a)| / 2 over its triangles."""
    triangles = cube_triangles()
    first, second, third = np.moveaxis(triangles.corners @ axes_mm.T, 1, 0)
    areas = np.linalg.norm(np.cross(second - first, third - first), axis=1) / 2
    return float(counts.sum(0) @ np.bincount(triangles.cube, areas, minlength=CUBES))


def sphericity(volume_mm3: float, surface_mm2: float) -> float:
    """The surface of a ball of the same volume over this one."""
    return float((36 * np.pi * volume_mm3**2) ** (1 / 3) / surface_mm2)


def smooth_surface_mm2(counts: np.ndarray, axes_mm: np.ndarray) -> float:
    """The area of the smooth body that the mask stands for, of which the mesh shows the steps of its voxels.

    By Crofton's formula: how often lines of 13 directions enter and leave the body, each direction with its share of
    the sphere (Lehmann and Legland, The Insight Journal 2012).
    """
    from scipy.spatial import SphericalVoronoi

    steps_mm = DIRECTIONS @ axes_mm.T
    lengths_mm = np.linalg.norm(steps_mm, axis=1)
    units = steps_mm / lengths_mm[:, None]
    shares = SphericalVoronoi(np.concatenate([units, -units])).calculate_areas()[: len(units)] / (2 * np.pi)
    total = counts.sum(0)
    crossings = np.array([total @ _crossings(tuple(step)) for step in DIRECTIONS.tolist()])
    return float(2 * abs(np.linalg.det(axes_mm)) * (shares * crossings / lengths_mm).sum())


def _half(directions: Iterable[tuple[int, ...]]) -> np.ndarray:
    """Of each two opposite directions one."""
    return np.array([step for step in directions if step > (0, 0, 0)])


DIRECTIONS = _half(product((-1, 0, 1), repeat=3))


@cache
def _crossings(step: tuple[int, ...]) -> np.ndarray:
    """Of each cube how many of its pairs of voxels a ``step`` apart are inside and outside, shared with other cubes."""
    cubes = np.arange(CUBES)
    number = {tuple(corner): bit for bit, corner in enumerate(CORNERS.tolist())}
    ends = [(tuple(np.add(corner, step).tolist()), bit) for corner, bit in number.items()]
    pairs = [(bit, number[end]) for end, bit in ends if end in number]
    return np.sum([(cubes >> first & 1) != (cubes >> second & 1) for first, second in pairs], axis=0) / len(pairs)


def face_counts(counts: np.ndarray) -> np.ndarray:
    """Faces between a voxel of the mask and one outside, across z, y and x, (3,)."""
    total = counts.sum(0)
    return np.array([total @ _crossings(step) for step in ((1, 0, 0), (0, 1, 0), (0, 0, 1))])


def face_areas_mm2(axes_mm: np.ndarray) -> np.ndarray:
    """Area of a voxel's face across z, y and x, (3,)."""
    z, y, x = axes_mm.T
    return np.array([np.linalg.norm(np.cross(*pair)) for pair in ((y, x), (z, x), (z, y))])
