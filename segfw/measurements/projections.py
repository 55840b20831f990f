"""A mask seen along each axis: from these three pictures come its size, its moments and its farthest points."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np


@dataclass(frozen=True, kw_only=True)
class Projections:
    """Voxels of a mask along z (Y, X), along y (Z, X) and along x (Z, Y)."""

    along_z: np.ndarray
    along_y: np.ndarray
    along_x: np.ndarray

    @staticmethod
    def of(mask_zyx: np.ndarray) -> Projections:
        """Of a boolean mask, slice by slice, so that nothing is widened as a whole."""
        depth, height, width = mask_zyx.shape
        along_z = np.zeros((height, width), np.int64)
        along_y = np.empty((depth, width), np.int64)
        along_x = np.empty((depth, height), np.int64)
        for index, plane in enumerate(mask_zyx.view(np.uint8)):
            along_z += plane
            along_y[index] = plane.sum(0, dtype=np.int32)
            along_x[index] = plane.sum(1, dtype=np.int32)
        return Projections(along_z=along_z, along_y=along_y, along_x=along_x)

    @property
    def voxels(self) -> int:
        return int(self.along_z.sum())

    @property
    def profiles(self) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
        """Voxels in each slice across z, y and x."""
        return self.along_x.sum(1), self.along_x.sum(0), self.along_y.sum(0)

    def centre(self) -> np.ndarray:
        """Mean index (z, y, x)."""
        return np.array([np.arange(len(line)) @ line for line in self.profiles]) / self.voxels

    def covariance(self) -> np.ndarray:
        """Of the indices, (3, 3), of at least two voxels: divided by their number less one, as IBSI's figures are."""
        sizes = [len(line) for line in self.profiles]
        z, y, x = (np.arange(size) - middle for size, middle in zip(sizes, self.centre()))
        in_z, in_y, in_x = self.profiles
        zy = z @ self.along_x @ y
        zx = z @ self.along_y @ x
        yx = y @ self.along_z @ x
        products = [[z**2 @ in_z, zy, zx], [zy, y**2 @ in_y, yx], [zx, yx, x**2 @ in_x]]
        return np.array(products) / (self.voxels - 1)


def principal_axes_mm(covariance: np.ndarray, axes_mm: np.ndarray) -> np.ndarray:
    """Lengths of the axes of the ellipsoid with these moments, longest first: 4 times the root of each variance."""
    variances_mm2 = np.linalg.eigvalsh(axes_mm @ covariance @ axes_mm.T)[::-1]
    # What is 0 but for rounding, as of a flat mask, is 0.
    return 4 * np.sqrt(np.where(variances_mm2 > 1e-12 * variances_mm2[0], variances_mm2, 0))
