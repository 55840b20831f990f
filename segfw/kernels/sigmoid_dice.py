"""All sums over voxels that binary cross entropy and Dice of overlapping regions are made of, in one pass.

Plain operations read classes and logits anew for every region, and keep a float32 copy of all probabilities. Here each
voxel's logits are read once forward and once backward, whatever their layout and type, and nothing is kept.

Which regions a class lies in is looked up in a table of the class, so that their number costs no launch: it also says
of which classes, such as ignored ones, nobody knows whether they lie in a region.
"""

# B sample, K region, V voxel, R row of the table, S slab: a part of the voxels that one program adds up

from __future__ import annotations

import torch
import triton
import triton.language as tl
from torch import Tensor
from torch.autograd.function import FunctionCtx, once_differentiable

from segfw.kernels.launch import on_its_device
from segfw.kernels.logit_tiles import Tiles, dense, strides_of

TILE = 1024  # logits that a program works on at once; of twice as many some do not fit its registers
# What the table says of a class and a region
OUTSIDE = 0
INSIDE = 1
UNKNOWN = 2  # voxels that count nowhere
_INSIDE = tl.constexpr(INSIDE)
_UNKNOWN = tl.constexpr(UNKNOWN)
# exp(-|x|) below which three terms of the logarithm's series are closer than the logarithm of a sum with 1
_SMALL_POWER = tl.constexpr(0.01)


@triton.jit
def _log_of_one_and(power: tl.tensor) -> tl.tensor:
    """log(1 + power) for 0 <= power <= 1, with small results as exact as large ones."""
    series = power * (1.0 - power * (0.5 - power * (1.0 / 3.0)))
    return tl.where(power < _SMALL_POWER, series, tl.log(1.0 + power))


@triton.jit
def _region_sums_of_slabs(
    logits: tl.tensor,
    classes: tl.tensor,
    table: tl.tensor,
    entropies: tl.tensor,
    counts: tl.tensor,
    overlaps: tl.tensor,
    volumes: tl.tensor,
    truths: tl.tensor,
    outputs: tl.tensor,
    voxels: tl.tensor,
    slab_voxels: tl.tensor,
    rows: tl.tensor,
    table_of_sample: tl.tensor,
    of_sample: tl.tensor,
    of_output: tl.tensor,
    of_voxel: tl.tensor,
    BY_VOXEL: tl.constexpr,
    BLOCK_V: tl.constexpr,
    BLOCK_K: tl.constexpr,
) -> None:
    """Entropy and voxels (B, S), and for each region (B, S, K) its probability at its voxels, in all, and its voxels.

    With BY_VOXEL the entropy is (B, K, V), and -1 where a voxel does not count in a region.
    """
    slab = tl.program_id(0)
    sample = tl.program_id(1).to(tl.int64)
    output = tl.arange(0, BLOCK_K)
    is_output = output < outputs
    first = slab * slab_voxels
    end = tl.minimum(first + slab_voxels, voxels)
    entropy = tl.zeros([BLOCK_V], dtype=tl.float32)
    count = tl.zeros([BLOCK_V], dtype=tl.float32)
    overlap = tl.zeros([BLOCK_V, BLOCK_K], dtype=tl.float32)
    volume = tl.zeros([BLOCK_V, BLOCK_K], dtype=tl.float32)
    truth = tl.zeros([BLOCK_V, BLOCK_K], dtype=tl.float32)
    for start in range(first, end, BLOCK_V):
        voxel = start + tl.arange(0, BLOCK_V)
        is_voxel = voxel < end
        inside = is_voxel[:, None] & is_output[None, :]
        place = sample * of_sample + voxel[:, None].to(tl.int64) * of_voxel + output[None, :].to(tl.int64) * of_output
        value = tl.load(logits + place, mask=inside, other=0.0).to(tl.float32)
        label = tl.load(classes + sample * voxels + voxel, mask=is_voxel, other=0).to(tl.int32)
        row = tl.minimum(label, rows - 1)
        entry = sample * table_of_sample + row[:, None] * outputs + output[None, :]
        known = tl.load(table + entry, mask=inside, other=_UNKNOWN)
        is_truth = known == _INSIDE
        is_counted = known != _UNKNOWN
        power = tl.exp(-tl.abs(value))  # at most 1, so that nothing overflows
        prob = tl.where(is_counted, tl.where(value >= 0, 1.0, power) * (1.0 / (1.0 + power)), 0.0)
        surprise = tl.maximum(tl.where(is_truth, -value, value), 0.0) + _log_of_one_and(power)
        if BY_VOXEL:
            of_voxels = tl.where(is_counted, surprise, -1.0)
            of_region = (sample * outputs + output[None, :]) * voxels + voxel[:, None]
            tl.store(entropies + of_region, of_voxels, mask=inside)
        else:
            entropy += tl.sum(tl.where(is_counted, surprise, 0.0), 1)
        count += tl.sum(is_counted.to(tl.float32), 1)
        overlap += tl.where(is_truth, prob, 0.0)
        volume += prob
        truth += is_truth.to(tl.float32)
    number = sample * tl.num_programs(0) + slab
    if not BY_VOXEL:
        tl.store(entropies + number, tl.sum(entropy, 0))
    tl.store(counts + number, tl.sum(count, 0))
    place = number * outputs + output
    tl.store(overlaps + place, tl.sum(overlap, 0), mask=is_output)
    tl.store(volumes + place, tl.sum(volume, 0), mask=is_output)
    tl.store(truths + place, tl.sum(truth, 0), mask=is_output)


@triton.jit
def _region_gradient(
    logits: tl.tensor,
    classes: tl.tensor,
    table: tl.tensor,
    by_logits: tl.tensor,
    by_entropy: tl.tensor,
    by_overlap: tl.tensor,
    by_volume: tl.tensor,
    outputs: tl.tensor,
    voxels: tl.tensor,
    rows: tl.tensor,
    table_of_sample: tl.tensor,
    of_sample: tl.tensor,
    of_output: tl.tensor,
    of_voxel: tl.tensor,
    BY_VOXEL: tl.constexpr,
    BLOCK_V: tl.constexpr,
    BLOCK_K: tl.constexpr,
) -> None:
    """Gradient of the logits, in their layout.

    With g = d loss / d probability, by_volume everywhere and by_overlap more inside, sigmoid gives p * (1 - p) * g;
    the entropy adds p, and -1 inside.
    """
    sample = tl.program_id(1).to(tl.int64)
    output = tl.arange(0, BLOCK_K)
    is_output = output < outputs
    voxel = tl.program_id(0) * BLOCK_V + tl.arange(0, BLOCK_V)
    is_voxel = voxel < voxels
    inside = is_voxel[:, None] & is_output[None, :]
    place = sample * of_sample + voxel[:, None].to(tl.int64) * of_voxel + output[None, :].to(tl.int64) * of_output
    value = tl.load(logits + place, mask=inside, other=0.0).to(tl.float32)
    label = tl.load(classes + sample * voxels + voxel, mask=is_voxel, other=0).to(tl.int32)
    row = tl.minimum(label, rows - 1)
    entry = sample * table_of_sample + row[:, None] * outputs + output[None, :]
    known = tl.load(table + entry, mask=inside, other=_UNKNOWN)
    is_truth = known == _INSIDE
    power = tl.exp(-tl.abs(value))
    inverse = 1.0 / (1.0 + power)
    prob = tl.where(value >= 0, 1.0, power) * inverse
    curve = power * inverse * inverse  # p * (1 - p), with no difference of near numbers
    of_overlap = tl.load(by_overlap + sample * outputs + output, mask=is_output, other=0.0)
    of_volume = tl.load(by_volume + sample * outputs + output, mask=is_output, other=0.0)
    slope = of_volume[None, :] + tl.where(is_truth, of_overlap[None, :], 0.0)
    if BY_VOXEL:
        of_region = (sample * outputs + output[None, :]) * voxels + voxel[:, None]
        of_entropy = tl.load(by_entropy + of_region, mask=inside, other=0.0)
    else:
        of_entropy = tl.zeros([BLOCK_V, BLOCK_K], dtype=tl.float32) + tl.load(by_entropy)
    gradient = curve * slope + of_entropy * (prob - is_truth.to(tl.float32))
    gradient = tl.where(known != _UNKNOWN, gradient, 0.0)
    tl.store(by_logits + place, gradient.to(by_logits.dtype.element_ty), mask=inside)


class _Context(FunctionCtx):
    saved_tensors: tuple[Tensor, Tensor, Tensor]  # logits, classes, table
    by_voxel: bool


class _SigmoidDice(torch.autograd.Function):
    @staticmethod
    @on_its_device
    def forward(
        ctx: _Context, logits: Tensor, classes: Tensor, table_BRK: Tensor, by_voxel: bool
    ) -> tuple[Tensor, ...]:
        tiles = Tiles.of(logits, TILE)
        by_voxels = (tiles.samples, tiles.outputs, tiles.voxels)
        entropies = logits.new_empty(by_voxels if by_voxel else (tiles.samples, tiles.slabs), dtype=torch.float32)
        counts = logits.new_empty((tiles.samples, tiles.slabs), dtype=torch.float32)
        of_regions = logits.new_empty((3, tiles.samples, tiles.slabs, tiles.outputs), dtype=torch.float32)
        _region_sums_of_slabs[(tiles.slabs, tiles.samples)](
            logits,
            classes,
            table_BRK,
            entropies,
            counts,
            *of_regions,
            tiles.outputs,
            tiles.voxels,
            tiles.slab_voxels,
            *_of_table(table_BRK),
            *strides_of(logits),
            BY_VOXEL=by_voxel,
            BLOCK_V=tiles.block_v,
            BLOCK_K=tiles.block_k,
        )
        ctx.save_for_backward(logits, classes, table_BRK)
        ctx.by_voxel = by_voxel
        counted = counts.sum()
        overlap_BK, volume_BK, truth_BK = of_regions.sum(2)
        ctx.mark_non_differentiable(truth_BK, counted)
        return entropies if by_voxel else entropies.sum(), counted, overlap_BK, volume_BK, truth_BK

    @staticmethod
    @once_differentiable
    @on_its_device
    def backward(
        ctx: _Context, by_entropy: Tensor, _: None, by_overlap_BK: Tensor, by_volume_BK: Tensor, __: None
    ) -> tuple[Tensor | None, ...]:
        logits, classes, table_BRK = ctx.saved_tensors
        tiles = Tiles.of(logits, TILE)
        by_logits = torch.empty_like(logits)
        _region_gradient[(triton.cdiv(tiles.voxels, tiles.block_v), tiles.samples)](
            logits,
            classes,
            table_BRK,
            by_logits,
            by_entropy.float().contiguous(),
            by_overlap_BK.float().contiguous(),
            by_volume_BK.float().contiguous(),
            tiles.outputs,
            tiles.voxels,
            *_of_table(table_BRK),
            *strides_of(by_logits),
            BY_VOXEL=ctx.by_voxel,
            BLOCK_V=tiles.block_v,
            BLOCK_K=tiles.block_k,
        )
        return by_logits, None, None, None


def _of_table(table_BRK: Tensor) -> tuple[int, int]:
    """Rows, and how far the table of the next sample is: nowhere where one serves all."""
    rows, outputs = table_BRK.shape[1:]
    return rows, 0 if len(table_BRK) == 1 else rows * outputs


def sigmoid_dice_sums(
    logits: Tensor, classes: Tensor, table_BRK: Tensor, *, by_voxel: bool = False
) -> tuple[Tensor, ...]:
    """Binary entropy's sum and voxels over all regions; of each overlap, probability in all, and voxels (B, K).

    Parameters
    ----------
    logits
        (B, K, Z, Y, X), K regions; with more than 512 of them registers do not suffice.
    classes
        (B, Z, Y, X), from 0 on.
    table_BRK
        Of each class, by row, and region OUTSIDE, INSIDE or UNKNOWN, uint8; of one sample where it serves all. The
        last row is for all classes from there on.
    by_voxel
        The entropy as it is at each voxel (B, K, V), and -1 where one does not count, in place of its sum.
    """
    return _SigmoidDice.apply(dense(logits), classes.contiguous(), table_BRK.contiguous(), by_voxel)
