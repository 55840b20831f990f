"""All sums over voxels that cross entropy and Dice of a softmax are made of, in one pass over the logits.

Plain operations make a float32 copy of the logits, keep another for the backward pass, and read one of them once more
for every class. Here each voxel's logits are read once forward and once backward, whatever their layout and type, and
one number a voxel is kept: the logarithm of the sum of exponentials, from which the probabilities come again.
"""

# B sample, K class, V voxel, S slab: a part of the voxels that one program adds up

from __future__ import annotations

import torch
import triton
import triton.language as tl
from torch import Tensor
from torch.autograd.function import FunctionCtx, once_differentiable

from segfw.kernels.launch import on_its_device

TILE = 2048  # logits that a program works on at once
MOST_CLASSES = 1024  # which a program holds at once
PROGRAMS = 1024  # that add up at the same time
NOTHING_IGNORED = -(2**31)  # a class that no voxel has


@triton.jit
def _sums_of_slabs(
    logits: tl.tensor,
    classes: tl.tensor,
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
    BLOCK_V: tl.constexpr,
    BLOCK_K: tl.constexpr,
) -> None:
    """Entropy and voxels (B, S), and for each class (B, S, K) its probability at its voxels, in all, and its voxels."""
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
        entropy += tl.where(is_counted, log_sum - at_truth, 0.0)
        count += is_counted.to(tl.float32)
        overlap += tl.where(is_truth, prob, 0.0)
        volume += prob
        truth += is_truth.to(tl.float32)
    number = sample * tl.num_programs(0) + slab
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
    BLOCK_V: tl.constexpr,
    BLOCK_K: tl.constexpr,
) -> None:
    """Gradient of the logits, in their layout.

    With g = d loss / d probability, softmax gives p * (g - sum over classes of p * g); g is by_volume everywhere and
    by_overlap more at the true class. The entropy adds p, and -1 at the true class.
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
    of_entropy = tl.load(by_entropy)
    of_overlap = tl.load(by_overlap + sample * outputs + output, mask=is_output, other=0.0)
    of_volume = tl.load(by_volume + sample * outputs + output, mask=is_output, other=0.0)
    slope = of_volume[None, :] + tl.where(is_truth, of_overlap[None, :], 0.0)
    mean_slope = tl.sum(prob * slope, 1)
    gradient = prob * (slope - mean_slope[:, None] + of_entropy) - tl.where(is_truth, of_entropy, 0.0)
    gradient = tl.where(is_counted[:, None], gradient, 0.0)
    tl.store(by_logits + place, gradient.to(by_logits.dtype.element_ty), mask=inside)


class _Context(FunctionCtx):
    saved_tensors: tuple[Tensor, Tensor, Tensor]  # logits, classes, logarithms of sums (B, V)
    ignore: int


class _SoftmaxDice(torch.autograd.Function):
    @staticmethod
    @on_its_device
    def forward(ctx: _Context, logits: Tensor, classes: Tensor, ignore: int) -> tuple[Tensor, ...]:
        samples, outputs = logits.shape[:2]
        voxels = classes[0].numel()
        block_k, block_v = _blocks(outputs)
        most_slabs = max(1, PROGRAMS // samples)
        slab_voxels = triton.cdiv(triton.cdiv(voxels, block_v), most_slabs) * block_v
        slabs = triton.cdiv(voxels, slab_voxels)
        log_sums = torch.empty(samples, voxels, dtype=torch.float32, device=logits.device)
        of_slabs = torch.empty(2, samples, slabs, dtype=torch.float32, device=logits.device)
        of_classes = torch.empty(3, samples, slabs, outputs, dtype=torch.float32, device=logits.device)
        _sums_of_slabs[(slabs, samples)](
            logits,
            classes,
            log_sums,
            *of_slabs,
            *of_classes,
            outputs,
            voxels,
            slab_voxels,
            *_strides(logits),
            ignore,
            BLOCK_V=block_v,
            BLOCK_K=block_k,
        )
        ctx.save_for_backward(logits, classes, log_sums)
        ctx.ignore = ignore
        entropy, counted = of_slabs.sum((1, 2))
        overlap_BK, volume_BK, truth_BK = of_classes.sum(2)[:, :, 1:]  # the background has no Dice
        ctx.mark_non_differentiable(truth_BK, counted)
        return entropy, counted, overlap_BK, volume_BK, truth_BK

    @staticmethod
    @once_differentiable
    @on_its_device
    def backward(
        ctx: _Context, by_entropy: Tensor, _: None, by_overlap_BK: Tensor, by_volume_BK: Tensor, __: None
    ) -> tuple[Tensor | None, ...]:
        logits, classes, log_sums = ctx.saved_tensors
        samples, outputs = logits.shape[:2]
        voxels = log_sums.shape[1]
        block_k, block_v = _blocks(outputs)
        by_logits = torch.empty_like(logits)
        pad = torch.nn.functional.pad
        _gradient[(triton.cdiv(voxels, block_v), samples)](
            logits,
            classes,
            log_sums,
            by_logits,
            by_entropy.float(),
            pad(by_overlap_BK.float(), (1, 0)),
            pad(by_volume_BK.float(), (1, 0)),
            outputs,
            voxels,
            *_strides(by_logits),
            ctx.ignore,
            BLOCK_V=block_v,
            BLOCK_K=block_k,
        )
        return by_logits, None, None


def _blocks(outputs: int) -> tuple[int, int]:
    """Classes, all of them, and voxels of a tile."""
    block_k = triton.next_power_of_2(outputs)
    return block_k, max(1, TILE // block_k)


def _strides(logits: Tensor) -> tuple[int, int, int]:
    """Of a sample, of an output and of a voxel. Not as PyTorch states them, which for axes of one voxel is anything."""
    outputs = logits.shape[1]
    voxels = logits[0, 0].numel()
    if logits.is_contiguous():
        return outputs * voxels, voxels, 1
    return outputs * voxels, 1, outputs


def _dense(logits: Tensor) -> Tensor:
    """The logits (B, K, ...) with channels last or contiguous; a copy where they are neither."""
    layout = torch.channels_last_3d if logits.dim() == 5 else torch.channels_last
    return logits if logits.is_contiguous() else logits.contiguous(memory_format=layout)


def softmax_dice_sums(logits: Tensor, classes: Tensor, ignore: int | None) -> tuple[Tensor, ...]:
    """Cross entropy's sum and voxels; for each class but 0 its overlap, its probability in all, and its voxels (B, K).

    Of ``logits`` (B, K, Z, Y, X), K at most 1024, and ``classes`` (B, Z, Y, X); voxels of ``ignore`` count nowhere.
    """
    assert logits.shape[1] <= MOST_CLASSES, logits.shape
    wanted = NOTHING_IGNORED if ignore is None else ignore
    return _SoftmaxDice.apply(_dense(logits), classes.contiguous(), wanted)
