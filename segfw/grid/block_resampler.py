"""Resizing of any block of a grid from just the voxels that it needs."""

# K logits, A channels that they are made of, Z Y X space of the old or the new grid

from __future__ import annotations

import numpy as np
import torch
from torch import Tensor

from segfw.grid.boxes import Block
from segfw.grid.preprocess import PreprocessRecord
from segfw.grid.resample import OF_LOGITS, Resampling, axis_matrix, thick_axis
from segfw.images.geometry import Shape, as_shape


class BlockResampler:
    """Linear resizing (nearest along the ``thick`` axis) of any block of a grid, from just the voxels it needs.

    The same numbers as from ``axis_matrix``, one product per axis. ``resampling`` may ask for other orders than these,
    0 or 1: others are no convex combinations.
    """

    def __init__(
        self, old_shape: Shape, new_shape: Shape, thick: int | None, resampling: Resampling = OF_LOGITS
    ) -> None:
        self.old_shape = as_shape(old_shape)
        self.new_shape = as_shape(new_shape)
        orders = [resampling.across if axis == thick else resampling.order for axis in range(3)]
        matrices = [axis_matrix(old, new, order) for old, new, order in zip(old_shape, new_shape, orders)]
        is_used = [matrix.numpy() != 0 for matrix in matrices]
        self._first = [used.argmax(1) for used in is_used]
        self._last = [used.shape[1] - 1 - used[:, ::-1].argmax(1) for used in is_used]
        self._matrices = {"cpu": matrices}

    @classmethod
    def back(cls, record: PreprocessRecord, onto: PreprocessRecord | None = None) -> BlockResampler:
        """From the network's grid to the voxels of the crop as stored, or onto another network's grid."""
        shape = record.cropped_shape
        spacing_mm = record.cropped_spacing_mm
        if onto is not None:
            shape = onto.shape
            spacing_mm = onto.spacing_mm
        thick = thick_axis(record.spacing_mm, spacing_mm, record.logits.apart)
        return cls(record.shape, shape, thick, record.logits)

    @property
    def keeps_grid(self) -> bool:
        """True where nothing is resized."""
        return self.old_shape == self.new_shape

    def source(self, block: Block) -> Block:
        """The block of the old grid that a block of the new one is made from; both have explicit bounds."""
        z, y, x = (
            slice(int(first[part.start]), int(last[part.stop - 1]) + 1)
            for first, last, part in zip(self._first, self._last, block)
        )
        return z, y, x

    def complete(self, stop: int) -> int:
        """How many slices of the new grid can be made from slices 0 to ``stop`` of the old one."""
        return int(np.searchsorted(self._last[0], stop))

    def resize(self, values_kzyx: Tensor, block: Block) -> Tensor:
        """Values (K, Z, Y, X) of ``source(block)`` at the block's own voxels, float32 (K, Z, Y, X)."""
        along_z, along_y, along_x = self._matrices_of(block, values_kzyx.device)
        result = values_kzyx.float()
        if along_z is not None:
            result = (along_z @ result.flatten(2)).unflatten(2, result.shape[2:])
        if along_x is not None:
            result = result @ along_x.T
        return result if along_y is None else along_y @ result

    def resize_rows(self, values_zyxa: Tensor, block: Block) -> Tensor:
        """As ``resize``, of channels that lie next to each other: (Z, Y, X, A) float32."""
        along_z, along_y, along_x = self._matrices_of(block, values_zyxa.device)
        result = values_zyxa
        if along_z is not None:
            result = (along_z @ result.flatten(1)).unflatten(1, result.shape[1:])
        if along_y is not None:
            result = (along_y @ result.flatten(2)).unflatten(2, result.shape[2:])
        return result if along_x is None else along_x @ result

    def _matrices_of(self, block: Block, device: torch.device) -> list[Tensor | None]:
        """The part of each axis' matrix that makes a block; None along axes that stay as they are."""
        if str(device) not in self._matrices:
            self._matrices[str(device)] = [matrix.to(device) for matrix in self._matrices["cpu"]]
        source = self.source(block)
        parts: list[Tensor | None] = []
        for axis, matrix in enumerate(self._matrices[str(device)]):
            keeps_axis = self.old_shape[axis] == self.new_shape[axis]
            parts.append(None if keeps_axis else matrix[block[axis], source[axis]])
        return parts
