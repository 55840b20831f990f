"""From a block of the network's grid to the voxels of the image's own file that it covers."""

from __future__ import annotations

from dataclasses import dataclass
from functools import lru_cache
from math import ceil, floor

import numpy as np
import torch

from segfw.grid.block_resampler import BlockResampler
from segfw.grid.boxes import Block, Box
from segfw.grid.preprocess import PreprocessRecord
from segfw.images.geometry import Geometry
from segfw.images.volume import Orientation, Volume, from_orientation, to_orientation


@dataclass(frozen=True, kw_only=True)
class FileBox:
    """Voxels of a file that a block of the network's grid covers.

    ``box`` is in the order of the file's array (z, y, x), ``crop`` the same on the grid of the crop, as stored but in
    the network's order of axes, and ``source`` the block of the network's grid that its voxels are made from.
    """

    record: PreprocessRecord
    resampler: BlockResampler
    crop: Block
    source: Block
    box: Box

    @staticmethod
    def around(block: Block, record: PreprocessRecord, resampler: BlockResampler) -> FileBox:
        """The smallest one that covers a block of the network's grid; ``resampler`` is ``BlockResampler.back``."""
        parts = []
        for part, old, new in zip(block, record.shape, record.cropped_shape):
            start = max(0, floor(part.start * new / old))
            stop = min(new, ceil(part.stop * new / old))
            parts.append(slice(min(start, new - 1), max(stop, min(start, new - 1) + 1)))
        z, y, x = parts
        crop = (z, y, x)
        source = resampler.source(crop)
        return FileBox(record=record, resampler=resampler, crop=crop, source=source, box=_box_in_file(crop, record))

    def of_mask(self, mask_zyx: np.ndarray) -> np.ndarray:
        """A mask on ``source`` on the file's voxels of ``box``, bool: where more than half of it is."""
        if self.resampler.keeps_grid:
            return self.in_file_order(mask_zyx)
        values = torch.from_numpy(np.ascontiguousarray(mask_zyx, dtype=np.float32))[None]
        return self.in_file_order(self.resampler.resize(values, self.crop)[0].numpy() > 0.5)

    def in_file_order(self, values_zyx: np.ndarray) -> np.ndarray:
        """Values on ``crop`` in the order of the file's axes."""
        in_order = values_zyx.transpose(np.argsort(self.record.axis_order))
        return np.ascontiguousarray(from_orientation(in_order, self.record.original, self.record.orientation))


def _box_in_file(crop: Block, record: PreprocessRecord) -> Box:
    """The corners of a block of the crop, as indices of the file's array."""
    to_file = _to_file(record.original, record.orientation)
    order = np.argsort(record.axis_order)
    first = [crop[axis].start + start for axis, (start, _) in zip(order, record.box)]
    last = [crop[axis].stop - 1 + start for axis, (start, _) in zip(order, record.box)]
    corners = np.array([[*first, 1], [*last, 1]]) @ to_file.T
    low = np.rint(corners[:, :3].min(0)).astype(int)
    high = np.rint(corners[:, :3].max(0)).astype(int) + 1
    z, y, x = ((int(start), int(stop)) for start, stop in zip(low, high))
    return z, y, x


@lru_cache(maxsize=16)
def _to_file(original: Geometry, orientation: Orientation) -> np.ndarray:
    """From indices of the oriented array to those of the file's, 4x4: the same for every box of an image."""
    empty = Volume(array=np.broadcast_to(np.uint8(0), (1, *original.shape)), geometry=original)
    return np.linalg.inv(original.matrix) @ to_orientation(empty, orientation).geometry.matrix
