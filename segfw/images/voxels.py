"""What the readers of all file formats give back, and how they refuse a file."""

from __future__ import annotations

from collections.abc import Sequence
from typing import NamedTuple

import numpy as np

from segfw.images.geometry import Spacing, as_spacing

# SimpleITK and DICOM count x to the left and y to the back; our affines count to the right and to the front.
LPS_TO_RAS = np.diag([-1.0, -1.0, 1.0, 1.0])

# Thickness of the slice of a file of two dimensions in nnU-Net's readers: SimpleITKIO counts in the longer edge of a
# pixel, NaturalImage2DIO in units.
FLAT = 999.0


class Refusal(ValueError):
    """A file that can be opened but not used. The message is 'what is wrong; what to do', without the file's name."""


class SeriesUids(NamedTuple):
    """Which DICOM series an image is, and the frame of reference of its coordinates; '' where nothing says it."""

    series: str = ""
    frame: str = ""


NO_SERIES = SeriesUids()


class Voxels(NamedTuple):
    """A file as stored: ``affine`` leads from index (z, y, x, 1) to RAS millimetres."""

    array: np.ndarray  # (C, Z, Y, X)
    affine: np.ndarray
    notes: tuple[str, ...] = ()  # doubts that do not stop the work, each 'what is doubtful; what to do'
    is_placed: bool = True  # False: the file says nothing about spacing or place, and ``affine`` is nominal
    stated_mm: Spacing | None = None  # voxel size that the file gives apart from its axes, see Volume
    series: SeriesUids = NO_SERIES


def stated_spacing(edges_mm: Sequence[float]) -> Spacing | None:
    """Voxel size (z, y, x) of the two or three edges (y, x) or (z, y, x) that a file states; None if one is no length.

    A file of two dimensions gets slices a thousand times as thick, as in nnU-Net, so that it is never resampled as if
    a long edge of its pixels were the distance between slices.
    """
    edges = [float(edge) for edge in edges_mm]
    if not all(np.isfinite(edge) and edge > 0 for edge in edges):
        return None
    if len(edges) == 2:
        edges = [max(edges) * FLAT, *edges]
    return as_spacing(edges)


def affine_of_lps(direction: np.ndarray, spacing_xyz: np.ndarray, origin_xyz: np.ndarray) -> np.ndarray:
    """Our affine of a grid described as SimpleITK and DICOM do; the columns of ``direction`` are the axes x, y, z."""
    affine = np.eye(4)
    affine[:3, :3] = np.asarray(direction) * spacing_xyz
    affine[:3, 3] = origin_xyz
    return (LPS_TO_RAS @ affine)[:, [2, 1, 0, 3]]
