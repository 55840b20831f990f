"""All sums over voxels that cross entropy and Dice of a softmax are made of, in one pass over the logits.

Plain operations make a float32 copy of the logits, keep another for the backward pass, and read one of them once more
for every class. Here each voxel's logits are read once forward and once backward, whatever their layout and type, and
one number a voxel is kept: the logarithm of the sum of exponentials, from which the probabilities come again.

Where samples are annotated in part, a voxel of class 0 may be any of the ``hidden`` outputs: its truth has the
probability of all of these together, whose logarithm is a sum of exponentials again.
"""

# B sample, K class, V voxel, S slab: a part of the voxels that one program adds up

from __future__ import annotations

import torch
import triton
import triton.language as tl
from torch import Tensor
from torch.autograd.function import FunctionCtx, once_differentiable

from segfw.kernels.launch import on_its_device
from segfw.kernels.logit_tiles import Tiles, dense, strides_of

TILE = 2048  # logits that a program works on at once
NOTHING_IGNORED = -(2**31)  # a class that no voxel has


@triton.jit
def _log_sum_of(value: tl.tensor, is_in: tl.tensor) -> tl.tensor:
    """Logarithm of the sum of exponentials of those outputs (K) of ``value`` (V, K) that are in; at least one is."""
    largest = tl.max(tl.where(is_in[None, :], value, -float("inf")), 1)
    power = tl.where(is_in[None, :], tl.exp(value - largest[:, None]), 0.0)
    return largest + tl.log(tl.sum(power, 1))


@triton.jit
def _sums_of_slabs(
    logits: tl.tensor,
    classes: tl.tensor,
    hidden: tl.tensor,
    log_sums: tl.tensor,
    entropies: tl.tensor,
    counts: tl.tensor,
    overlaps: tl.tensor,
    volumes: tl.tensor,
    truths: tl.tensor,
    outputs: tl.tensor,
    voxels: tl.tensor,
    slab_voxels: tl.tensor,
    of_sample: tl.tensor,
    of_output: tl.tensor,
    of_voxel: tl.tensor,
    ignore: tl.tensor,
    IS_PARTIAL: tl.constexpr,
    BY_VOXEL: tl.constexpr,
    BLOCK_V: tl.constexpr,
    BLOCK_K: tl.constexpr,
) -> None:
    """Entropy and voxels (B, S), and for each class (B, S, K) its probability at its voxels, in all, and its voxels.

    With BY_VOXEL the entropy is (B, V), and -1 where a voxel does not count.
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
    if IS_PARTIAL:
        is_hidden = tl.load(hidden + sample * outputs + output, mask=is_output, other=0) != 0
    for start in range(first, end, BLOCK_V):
        voxel = start + tl.arange(0, BLOCK_V)
        is_voxel = voxel < end
        inside = is_voxel[:, None] & is_output[None, :]
        place = sample * of_sample + voxel[:, None].to(tl.int64) * of_voxel + output[None, :].to(tl.int64) * of_output
        value = tl.load(logits + place, mask=inside, other=-float("inf")).to(tl.float32)
        value = tl.where(is_voxel[:, None], value, 0.0)  # so that rows without a voxel hold numbers
        largest = tl.max(value, 1)
        power = tl.exp(value - largest[:, None])
        total = tl.sum(power, 1)
        log_sum = largest + tl.log(total)
        tl.store(log_sums + sample * voxels + voxel, log_sum, mask=is_voxel)
        label = tl.load(classes + sample * voxels + voxel, mask=is_voxel, other=0).to(tl.int32)
        is_counted = is_voxel & (label != ignore)
        is_truth = (output[None, :] == label[:, None]) & is_counted[:, None]
        prob = tl.where(is_counted[:, None], power / total[:, None], 0.0)
        at_truth = tl.sum(tl.where(is_truth, value, 0.0), 1)
        if IS_PARTIAL:
            at_truth = tl.where(label == 0, _log_sum_of(value, is_hidden), at_truth)
        if BY_VOXEL:
            of_voxels = tl.where(is_counted, tl.maximum(log_sum - at_truth, 0.0), -1.0)
            tl.store(entropies + sample * voxels + voxel, of_voxels, mask=is_voxel)
        else:
            entropy += tl.where(is_counted, log_sum - at_truth, 0.0)
        count += is_counted.to(tl.float32)
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
def _gradient(
    logits: tl.tensor,
    classes: tl.tensor,
    hidden: tl.tensor,
    log_sums: tl.tensor,
    by_logits: tl.tensor,
    by_entropy: tl.tensor,
    by_overlap: tl.tensor,
    by_volume: tl.tensor,
    outputs: tl.tensor,
    voxels: tl.tensor,
    of_sample: tl.tensor,
    of_output: tl.tensor,
    of_voxel: tl.tensor,
    ignore: tl.tensor,
    IS_PARTIAL: tl.constexpr,
    BY_VOXEL: tl.constexpr,
    BLOCK_V: tl.constexpr,
    BLOCK_K: tl.constexpr,
) -> None:
    """Gradient of the logits, in their layout.

    With g = d loss / d probability, softmax gives p * (g - sum over classes of p * g); g is by_volume everywhere and
    by_overlap more at the true class. The entropy adds p, and -1 at the true class, which at a voxel of class 0 is
    shared by what is hidden there, by the probabilities.
    """
    sample = tl.program_id(1).to(tl.int64)
    output = tl.arange(0, BLOCK_K)
    is_output = output < outputs
    voxel = tl.program_id(0) * BLOCK_V + tl.arange(0, BLOCK_V)
    is_voxel = voxel < voxels
    inside = is_voxel[:, None] & is_output[None, :]
    place = sample * of_sample + voxel[:, None].to(tl.int64) * of_voxel + output[None, :].to(tl.int64) * of_output
    value = tl.load(logits + place, mask=inside, other=-float("inf")).to(tl.float32)
    log_sum = tl.load(log_sums + sample * voxels + voxel, mask=is_voxel, other=0.0)
    label = tl.load(classes + sample * voxels + voxel, mask=is_voxel, other=0).to(tl.int32)
    is_counted = is_voxel & (label != ignore)
    is_truth = (output[None, :] == label[:, None]) & is_counted[:, None]
    prob = tl.exp(value - log_sum[:, None])
    if BY_VOXEL:
        of_entropy = tl.load(by_entropy + sample * voxels + voxel, mask=is_voxel, other=0.0)
    else:
        of_entropy = tl.zeros([BLOCK_V], dtype=tl.float32) + tl.load(by_entropy)
    of_overlap = tl.load(by_overlap + sample * outputs + output, mask=is_output, other=0.0)
    of_volume = tl.load(by_volume + sample * outputs + output, mask=is_output, other=0.0)
    slope = of_volume[None, :] + tl.where(is_truth, of_overlap[None, :], 0.0)
    mean_slope = tl.sum(prob * slope, 1)
    share = is_truth.to(tl.float32)
    if IS_PARTIAL:
        is_hidden = tl.load(hidden + sample * outputs + output, mask=is_output, other=0) != 0
        value = tl.where(is_voxel[:, None], value, 0.0)  # so that rows without a voxel hold numbers
        among_hidden = tl.exp(value - _log_sum_of(value, is_hidden)[:, None])
        among_hidden = tl.where(is_hidden[None, :], among_hidden, 0.0)
        share = tl.where((label == 0)[:, None], among_hidden, share)
    gradient = prob * (slope - mean_slope[:, None]) + of_entropy[:, None] * (prob - share)
    gradient = tl.where(is_counted[:, None], gradient, 0.0)
    tl.store(by_logits + place, gradient.to(by_logits.dtype.element_ty), mask=inside)


class _Context(FunctionCtx):
    # Logits, classes, logarithms of sums (B, V), and hidden (B, K) or, where nothing is, the classes once more.
    saved_tensors: tuple[Tensor, Tensor, Tensor, Tensor]
    ignore: int
    is_partial: bool
    by_voxel: bool


class _SoftmaxDice(torch.autograd.Function):
    @staticmethod
    @on_its_device
    def forward(
        ctx: _Context, logits: Tensor, classes: Tensor, ignore: int, hidden_BK: Tensor | None, by_voxel: bool
    ) -> tuple[Tensor, ...]:
        tiles = Tiles.of(logits, TILE)
        hidden = classes if hidden_BK is None else hidden_BK.to(torch.uint8)
        log_sums = logits.new_empty((tiles.samples, tiles.voxels), dtype=torch.float32)
        entropies = logits.new_empty((tiles.samples, tiles.voxels if by_voxel else tiles.slabs), dtype=torch.float32)
        counts = logits.new_empty((tiles.samples, tiles.slabs), dtype=torch.float32)
        of_classes = logits.new_empty((3, tiles.samples, tiles.slabs, tiles.outputs), dtype=torch.float32)
        _sums_of_slabs[(tiles.slabs, tiles.samples)](
            logits,
            classes,
            hidden,
            log_sums,
            entropies,
            counts,
            *of_classes,
            tiles.outputs,
            tiles.voxels,
            tiles.slab_voxels,
            *strides_of(logits),
            ignore,
            IS_PARTIAL=hidden_BK is not None,
            BY_VOXEL=by_voxel,
            BLOCK_V=tiles.block_v,
            BLOCK_K=tiles.block_k,
        )
        ctx.save_for_backward(logits, classes, log_sums, hidden)
        ctx.ignore = ignore
        ctx.is_partial = hidden_BK is not None
        ctx.by_voxel = by_voxel
        counted = counts.sum()
        overlap_BK, volume_BK, truth_BK = of_classes.sum(2)[:, :, 1:]  # the background has no Dice
        ctx.mark_non_differentiable(truth_BK, counted)
        return entropies if by_voxel else entropies.sum(), counted, overlap_BK, volume_BK, truth_BK

    @staticmethod
    @once_differentiable
    @on_its_device
    def backward(
        ctx: _Context, by_entropy: Tensor, _: None, by_overlap_BK: Tensor, by_volume_BK: Tensor, __: None
    ) -> tuple[Tensor | None, ...]:
        logits, classes, log_sums, hidden = ctx.saved_tensors
        tiles = Tiles.of(logits, TILE)
        by_logits = torch.empty_like(logits)
        pad = torch.nn.functional.pad
        _gradient[(triton.cdiv(tiles.voxels, tiles.block_v), tiles.samples)](
            logits,
            classes,
            hidden,
            log_sums,
            by_logits,
            by_entropy.float().contiguous(),
            pad(by_overlap_BK.float(), (1, 0)),
            pad(by_volume_BK.float(), (1, 0)),
            tiles.outputs,
            tiles.voxels,
            *strides_of(by_logits),
            ctx.ignore,
            IS_PARTIAL=ctx.is_partial,
            BY_VOXEL=ctx.by_voxel,
            BLOCK_V=tiles.block_v,
            BLOCK_K=tiles.block_k,
        )
        return by_logits, None, None, None, None


def softmax_dice_sums(
    logits: Tensor,
    classes: Tensor,
    ignore: int | None,
    *,
    hidden_BK: Tensor | None = None,
    by_voxel: bool = False,
) -> tuple[Tensor, ...]:
    """Cross entropy's sum and voxels; for each class but 0 its overlap, its probability in all, and its voxels (B, K).

    Parameters
    ----------
    logits
        (B, K, Z, Y, X), K at most 1024.
    classes
        (B, Z, Y, X); voxels of ``ignore`` count nowhere.
    hidden_BK
        Bool: the outputs, 0 among them, that a voxel of class 0 may be; None where class 0 is the background alone.
    by_voxel
        The entropy as it is at each voxel (B, V), and -1 where one does not count, in place of its sum.
    """
    wanted = NOTHING_IGNORED if ignore is None else ignore
    return _SoftmaxDice.apply(dense(logits), classes.contiguous(), wanted, hidden_BK, by_voxel)
