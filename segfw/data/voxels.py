"""What the readers of all file formats give back, and how they refuse a file."""

from __future__ import annotations

from typing import NamedTuple

import numpy as np

# SimpleITK and DICOM count x to the left and y to the back; our affines count to the right and to the front.
LPS_TO_RAS = np.diag([-1.0, -1.0, 1.0, 1.0])


class Refusal(ValueError):
    """A file that can be opened but not used. The message is 'what is wrong; what to do', without the file's name."""


class Voxels(NamedTuple):
    """A file as stored: ``affine`` leads from index (z, y, x, 1) to RAS millimetres."""

    array: np.ndarray  # (C, Z, Y, X)
    affine: np.ndarray
    notes: tuple[str, ...] = ()  # doubts that do not stop the work, each 'what is doubtful; what to do'
    is_placed: bool = True  # False: the file says nothing about spacing or place, and ``affine`` is nominal


def affine_of_lps(direction: np.ndarray, spacing_xyz: np.ndarray, origin_xyz: np.ndarray) -> np.ndarray:
    """Our affine of a grid described as SimpleITK and DICOM do; the columns of ``direction`` are the axes x, y, z."""
    affine = np.eye(4)
    affine[:3, :3], affine[:3, 3] = np.asarray(direction) * spacing_xyz, origin_xyz
    return (LPS_TO_RAS @ affine)[:, [2, 1, 0, 3]]
