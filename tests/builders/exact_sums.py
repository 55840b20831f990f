"""The sums that losses are made of, in double precision and voxel by voxel: what kernels are compared with."""

from __future__ import annotations

from math import ceil

import torch
from torch import Tensor

from segfw.networks.loss_sums import Target


def exact_sums(
    logits: Tensor, classes: Tensor, target: Target, hardest: float = 1.0, annotated: Tensor | None = None
) -> tuple[Tensor, ...]:
    """Entropy, its voxels, and (B, structures) overlap, volume and voxels; autograd gives the gradient."""
    flat = logits.double().flatten(2)
    labels = classes.flatten(1)
    known = torch.ones(flat.shape[:2], dtype=torch.bool) if annotated is None else annotated
    of_sample = _of_regions if target.regions else _of_labels
    parts = [of_sample(flat[b], labels[b].tolist(), target, hardest, known[b].tolist()) for b in range(len(flat))]
    entropy, counted = (sum(part[index] for part in parts) for index in (0, 1))
    return entropy, torch.tensor(counted), *(torch.stack([part[index] for part in parts]) for index in (2, 3, 4))


def exact_loss(sums: tuple[Tensor, ...]) -> Tensor:
    """Any function of all sums that have a gradient, of which each one has another slope."""
    entropy, _, overlap, volume, _ = sums
    weights = torch.arange(overlap.numel(), device=overlap.device).view_as(overlap).cos()
    return entropy * 0.7 + (overlap * weights).sum() - (volume * weights.sin()).sum() * 0.3


def _of_labels(logits: Tensor, labels: list[int], target: Target, hardest: float, known: list[bool]) -> list:
    outputs = len(logits)
    probs = logits.softmax(0)
    hidden = [k for k in range(outputs) if k == 0 or not known[k]]
    surprises = []
    for voxel, label in enumerate(labels):
        if label != target.ignore:
            truth = hidden if label == 0 else [label]
            surprises.append(logits[:, voxel].logsumexp(0) - logits[truth, voxel].logsumexp(0))
    counting = [voxel for voxel, label in enumerate(labels) if label != target.ignore]
    sums = [
        _of_structure(probs[k], counting, [v for v in counting if labels[v] == k], known[k]) for k in range(outputs)
    ]
    return [*_entropy(surprises, hardest, logits), *(torch.stack(each) for each in zip(*sums[1:], strict=True))]


def _of_regions(logits: Tensor, labels: list[int], target: Target, hardest: float, known: list[bool]) -> list:
    probs = logits.sigmoid()
    entropy = logits.new_zeros(())
    counted = 0
    sums = []
    for k, members in enumerate(target.regions):
        counting = [
            voxel
            for voxel, label in enumerate(labels)
            if label != target.ignore and (known[k] or _is_told(label, members, target, known))
        ]
        inside = [voxel for voxel in counting if labels[voxel] in members]
        surprises = [torch.nn.functional.softplus(logits[k, v] * (-1 if v in inside else 1)) for v in counting]
        of_region, of_voxels = _entropy(surprises, hardest, logits)
        entropy = entropy + of_region
        counted += of_voxels
        sums.append(_of_structure(probs[k], counting, inside, known[k]))
    return [entropy, counted, *(torch.stack(each) for each in zip(*sums, strict=True))]


def _is_told(label: int, members: tuple[int, ...], target: Target, known: list[bool]) -> bool:
    """Whether a region that somebody drew says of a class that it lies in, or outside of, one that nobody drew."""
    return any(
        is_known and label in other and (set(other) <= set(members) or not set(other) & set(members))
        for other, is_known in zip(target.regions, known, strict=True)
    )


def _entropy(surprises: list[Tensor], hardest: float, like: Tensor) -> tuple[Tensor, int]:
    wanted = ceil(hardest * len(surprises))
    if not surprises:
        return like.new_zeros(()), 0
    return torch.stack(surprises).sort(descending=True).values[:wanted].sum(), wanted


def _of_structure(probs: Tensor, counting: list[int], inside: list[int], is_known: bool) -> tuple[Tensor, ...]:
    if not is_known:
        return (probs[:0].sum(),) * 3
    return probs[inside].sum(), probs[counting].sum(), probs.new_tensor(float(len(inside)))
