"""How kernels share out the logits of a batch (B, K, ...): tiles of voxels by outputs, slabs of voxels a program."""

from __future__ import annotations

from typing import NamedTuple

import torch
import triton
from torch import Tensor

MOST_OUTPUTS = 1024  # which a program holds at once
PROGRAMS = 1024  # that add up at the same time


class Tiles(NamedTuple):
    """``slabs`` of ``slab_voxels`` each cover the ``voxels`` of a sample; a tile has ``block_v`` of them."""

    samples: int
    outputs: int
    voxels: int
    block_v: int
    block_k: int  # all outputs
    slab_voxels: int
    slabs: int

    @staticmethod
    def of(logits: Tensor, tile: int) -> Tiles:
        """Of logits (B, K, ...), K at most MOST_OUTPUTS, of which a program works on ``tile`` at once."""
        samples, outputs = logits.shape[:2]
        assert outputs <= MOST_OUTPUTS, logits.shape
        voxels = logits[0, 0].numel()
        block_k = triton.next_power_of_2(outputs)
        block_v = max(1, tile // block_k)
        most_slabs = max(1, PROGRAMS // samples)
        slab_voxels = triton.cdiv(triton.cdiv(voxels, block_v), most_slabs) * block_v
        slabs = triton.cdiv(voxels, slab_voxels)
        return Tiles(samples, outputs, voxels, block_v, block_k, slab_voxels, slabs)


def strides_of(logits: Tensor) -> tuple[int, int, int]:
    """Of a sample, of an output and of a voxel. Not as PyTorch states them, which for axes of one voxel is anything."""
    outputs = logits.shape[1]
    voxels = logits[0, 0].numel()
    if logits.is_contiguous():
        return outputs * voxels, voxels, 1
    return outputs * voxels, 1, outputs


def dense(logits: Tensor) -> Tensor:
    """The logits (B, K, ...) with channels last or contiguous; a copy where they are neither."""
    layout = torch.channels_last_3d if logits.dim() == 5 else torch.channels_last
    return logits if logits.is_contiguous() else logits.contiguous(memory_format=layout)
