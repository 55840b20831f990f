"""A structure and its image as another day, another scanner or another hand might have given them.

Each version turns and shifts the grid, adds noise of the image's own size, and grows or shrinks the mask (Zwanenburg
et al., Scientific Reports 9, 2019). It is drawn from the names of case and structure, so that a case gives the same
versions in any order, on any machine.
"""

from __future__ import annotations

from dataclasses import dataclass
from zlib import crc32

import numpy as np

from segfw.radiomics.to_levels import Box, NewGrid

MOST_DEGREES = 15.0
SHIFT = (0.25, 0.75)  # new voxels along each axis
MOST_GROWTH = 0.1  # of the volume, up or down
SIGMA_OF_MAD = 1.4826  # of normally distributed values
SECOND_DIFFERENCES = (1.0, -2.0, 1.0)
NOISE_AROUND = 8  # voxels around a structure in which noise is measured


@dataclass(frozen=True, kw_only=True)
class Change:
    """What is changed in one version."""

    rotation: np.ndarray  # (3, 3), of millimetres
    shift: np.ndarray  # new voxels along each axis
    growth: float
    seed: tuple[int, ...]


def changes_of(case: str, structure: str, number: int, normal: np.ndarray | None) -> list[Change]:
    """So many versions, turned about any axis and shifted along all; by slice about the ``normal`` and in it."""
    name = crc32(f"{case}\n{structure}".encode())
    changes = []
    for index in range(number):
        rng = np.random.default_rng((name, index))
        axis = rng.normal(size=3) if normal is None else normal
        shift = rng.uniform(*SHIFT, size=3) * rng.choice((-1, 1), size=3)
        if normal is not None:
            shift[0] = 0
        changes.append(
            Change(
                rotation=rotation_about(axis, np.deg2rad(rng.uniform(-MOST_DEGREES, MOST_DEGREES))),
                shift=shift,
                growth=float(rng.uniform(-MOST_GROWTH, MOST_GROWTH)),
                seed=(name, index, 1),
            )
        )
    return changes


def rotation_about(axis: np.ndarray, angle: float) -> np.ndarray:
    """The matrix (3, 3) that turns by an angle about an axis."""
    from scipy.spatial.transform import Rotation

    return np.asarray(Rotation.from_rotvec(angle * axis / np.linalg.norm(axis)).as_matrix())


def turned(grid: NewGrid, old_axes_mm: np.ndarray, change: Change) -> NewGrid:
    """A grid around the same place, turned and shifted, large enough for all that the first one held."""
    middle = (np.asarray(grid.shape) - 1) / 2
    centre = grid.steps @ middle + grid.start
    # Steps of the turned grid in millimetres, and those in old voxels
    axes_mm = change.rotation @ grid.axes_mm
    steps = np.linalg.solve(old_axes_mm, axes_mm)
    corners = np.array(np.meshgrid(*((-each, each) for each in middle), indexing="ij")).reshape(3, -1)
    reach = np.abs(np.linalg.solve(steps, grid.steps @ corners)).max(1)
    half = np.ceil(reach).astype(int) + 1
    # Its middle voxel lies on a voxel of the first grid, but for the shift
    nearest = np.floor(middle) - middle
    start = centre + grid.steps @ nearest + steps @ (change.shift - half)
    return NewGrid(steps=steps, start=start, shape=tuple(int(2 * each + 1) for each in half), axes_mm=axes_mm)


def grown(inside_zyx: np.ndarray, spacing_mm: np.ndarray, change: Change) -> np.ndarray:
    """A mask with so many more or fewer voxels, those nearest to its border; of equally near ones any.

    The array has room around the mask, or the mask ends where the image does.
    """
    from scipy.ndimage import distance_transform_edt

    distance = distance_transform_edt(~inside_zyx, spacing_mm) - distance_transform_edt(inside_zyx, spacing_mm)
    rng = np.random.default_rng((*change.seed, 0))
    order = (distance + rng.uniform(0, 1e-3 * spacing_mm.min(), distance.shape)).ravel()
    wanted = round(int(np.count_nonzero(inside_zyx)) * (1 + change.growth))
    wanted = min(max(wanted, 1), order.size)
    chosen = np.zeros(order.size, bool)
    chosen[np.argpartition(order, wanted - 1)[:wanted]] = True
    return chosen.reshape(inside_zyx.shape)


def own_noise(image_zyx: np.ndarray, box: Box) -> float:
    """The standard deviation of the noise of an image around a box, in the planes of its last two axes.

    Second differences along both axes, one after the other, take out straight edges (Immerkaer 1996); their median is
    not moved by the edges that are left.
    """
    from scipy.ndimage import convolve1d

    sizes = image_zyx.shape
    z, y, x = (
        slice(max(part.start - NOISE_AROUND, 0), min(part.stop + NOISE_AROUND, size)) for part, size in zip(box, sizes)
    )
    around = image_zyx[z, y, x].astype(np.float64)
    if min(around.shape[1:]) < len(SECOND_DIFFERENCES):
        return 0.0
    left = convolve1d(convolve1d(around, SECOND_DIFFERENCES, 1), SECOND_DIFFERENCES, 2)[:, 1:-1, 1:-1]
    left = left[np.isfinite(left)]
    if not left.size:
        return 0.0
    return float(SIGMA_OF_MAD * np.median(np.abs(left)) / 6)  # 6 is the root of the sum of squares of the weights


def with_noise(image_zyx: np.ndarray, sd: float, change: Change, channel: int) -> np.ndarray:
    """An image with more noise, normally distributed."""
    rng = np.random.default_rng((*change.seed, 1 + channel))
    return image_zyx + rng.normal(0, sd, image_zyx.shape)
