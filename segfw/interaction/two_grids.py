"""Between the grid of the image's file and the network's: points, and any block of a mask, there and back."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import torch

from segfw.grid.block_resampler import BlockResampler
from segfw.grid.boxes import Block, Box, cut, relative, shape_of
from segfw.grid.file_boxes import FileBox
from segfw.grid.preprocess import PreprocessRecord
from segfw.grid.resample import thick_axis
from segfw.images.geometry import Shape
from segfw.images.volume import Volume, to_orientation

VoxelPoint = tuple[float, float, float]


@dataclass(frozen=True, kw_only=True)
class TwoGrids:
    """A mask in the order of the image's file, and how to see it on the network's grid.

    ``of_crop`` is the mask as the network's axes have it, without what lies outside the crop; a view, so that it is
    always the mask of now.
    """

    record: PreprocessRecord
    of_crop: np.ndarray
    there: BlockResampler
    back: BlockResampler

    @staticmethod
    def of(record: PreprocessRecord, values_zyx: np.ndarray) -> TwoGrids:
        """Of a mask in the order of the image's file."""
        volume = Volume(array=values_zyx[None], geometry=record.original)
        oriented = to_orientation(volume, record.orientation).array[0]
        of_crop = cut(oriented, record.box).transpose(record.axis_order)
        if not np.shares_memory(of_crop, values_zyx):
            raise ValueError("turning a mask copied it, so that changes would be lost")
        thick = thick_axis(record.cropped_spacing_mm, record.spacing_mm)
        return TwoGrids(
            record=record,
            of_crop=of_crop,
            there=BlockResampler(record.cropped_shape, record.shape, thick),
            back=BlockResampler.back(record),
        )

    @property
    def shape(self) -> Shape:
        """Voxels of the network's grid."""
        return self.record.shape

    def to_network(self, index_zyx: Sequence[float]) -> VoxelPoint:
        """Where on the network's grid a voxel of the image's file lies; it may lie outside of it."""
        original = self.record.original
        empty = Volume(array=np.broadcast_to(np.uint8(0), (1, *original.shape)), geometry=original)
        oriented = to_orientation(empty, self.record.orientation).geometry
        place = (np.linalg.inv(oriented.matrix) @ original.matrix @ [*index_zyx, 1.0])[:3]
        found = []
        for axis, old, new in zip(self.record.axis_order, self.record.cropped_shape, self.record.shape):
            in_crop = place[axis] - self.record.box[axis][0]
            found.append(float((in_crop + 0.5) * new / old - 0.5))
        z, y, x = found
        return z, y, x

    def share_on_network(self, values: Sequence[int], block: Block) -> np.ndarray:
        """How much of each voxel of a block of the network's grid has one of the values, float32."""
        source = self.there.source(block)
        is_one = np.isin(self.of_crop[source], values)
        if self.there.keeps_grid:
            return is_one.astype(np.float32)
        if not is_one.any():
            return np.zeros(shape_of(block), np.float32)
        tensor = torch.from_numpy(is_one.astype(np.float32))[None]
        return np.asarray(self.there.resize(tensor, block)[0])

    def to_file(self, fields: Sequence[np.ndarray], origin: Block, block: Block) -> tuple[Box, list[np.ndarray]]:
        """Fields of the network's grid, given on ``origin``, on the voxels of the file that a block covers.

        ``origin`` must hold ``source_of(block)``. Returns the box, and the fields in the order of the file's axes.
        """
        place = FileBox.around(block, self.record, self.back)
        found = []
        for values in fields:
            part = np.ascontiguousarray(values[relative(place.source, origin)], dtype=np.float32)
            tensor = torch.from_numpy(part)[None]
            resized = tensor if self.back.keeps_grid else self.back.resize(tensor, place.crop)
            found.append(place.in_file_order(np.asarray(resized[0])))
        return place.box, found

    def source_of(self, block: Block) -> Block:
        """What the voxels of the file that a block covers are made from: the block, and a voxel around it."""
        return FileBox.around(block, self.record, self.back).source
