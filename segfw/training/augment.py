"""Applies drawn augmentation to whole batches on the training device: one batched operation per kind of change.

What becomes of a sample does not depend on which others are in the batch.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from itertools import combinations, product

import numpy as np
import torch
import torch.nn.functional as F
from torch import Tensor

from segfw.images.geometry import Shape
from segfw.planning.patch_shape import is_in_plane
from segfw.training.augment_params import IntensityParams, SpatialParams

# B batch, C channel, L kinds of masks, W warped samples, Z Y X space, N voxels, R rows: single-channel images picked
# from the batch
VOXELS_AT_ONCE = {"cpu": 1 << 16}  # what is computed for so many fits into the processor's cache
VOXELS_AT_ONCE_ELSEWHERE = 1 << 20  # about 100 MB


def warp(
    boxes: Sequence[tuple[Tensor, Tensor]], params: Sequence[SpatialParams], patch_size: Shape
) -> tuple[Tensor, Tensor]:
    """Patches (W, C, Z, Y, X) float32 and their masks (W, L, Z, Y, X) from the boxes that were read for them.

    A box is an image (C, Z, Y, X) and its masks (L, Z, Y, X) of ``source_size``. The image is interpolated linearly; in
    a mask the label wins whose linear weight is largest, which keeps it within the image's edges to a fraction of a
    voxel. That takes the same time for any number of labels: a voxel has no more than 8 neighbours, whose weights are
    added up where they agree.
    """
    # Boxes differ in size. One after the other they can be looked up together, by one index; grid_sample would need
    # borders to make them the same, rounds differently with every border, and takes twice the time on a CPU.
    images, masks = (torch.cat([box.flatten(1) for box in group], 1) for group in zip(*boxes))
    count, device, voxels = len(boxes), images.device, int(np.prod(patch_size))
    image_WCN = torch.empty(count, len(images), voxels, device=device)
    mask_WLN = torch.empty(count, len(masks), voxels, device=device, dtype=masks.dtype)
    sources = np.array([box[0].shape[1:] for box in boxes])
    steps = np.stack([sources[:, 1] * sources[:, 2], sources[:, 2], np.ones(count, int)], 1)
    begins = np.cumsum([0, *sources.prod(1)[:-1]])[:, None]
    mapped = [_on(values, device)[..., None] for values in (*_maps(params, sources), sources - 1.0)]
    moves = [None if drawn.control is None else _moves(drawn, patch_size, device) for drawn in params]
    centred = [torch.arange(size, device=device) - (size - 1) / 2 for size in patch_size]
    offsets_3N = torch.stack(torch.meshgrid(*centred, indexing="ij")).flatten(1)
    turned = (1, 2) if is_in_plane(patch_size) else (0, 1, 2)  # slices of a flat patch stay what they are
    corners = [*product(*((0, 1) if axis in turned else (0,) for axis in range(3)))]
    ahead = _on(np.array([(steps * (sources > 1)) @ corner for corner in corners])[..., None], device, torch.int32)
    at_once = max(1, VOXELS_AT_ONCE.get(device.type, VOXELS_AT_ONCE_ELSEWHERE) // count)
    steps, begins = _on(steps, device, torch.int32)[..., None], _on(begins, device, torch.int32)
    for first in range(0, voxels, at_once):
        part = slice(first, min(voxels, first + at_once))
        index, weights = begins, [1.0] * len(corners)
        for axis in range(3):
            place = _place(axis, part, offsets_3N, mapped, moves)
            lower = place.floor()
            if axis in turned:  # so that there always is an upper neighbour
                lower = torch.minimum(lower, (mapped[2][:, axis] - 1).clamp_min(0))
            index = index + lower.int() * steps[:, axis]
            either = 1 - (place - lower), place - lower
            weights = [weight * either[corner[axis]] for weight, corner in zip(weights, corners)]
        found = [(index + step).flatten() for step in ahead]
        for image, result in zip(images, image_WCN.unbind(1)):
            looked_up = (image.index_select(0, where).view_as(index).float() for where in found)
            result[:, part] = sum(value.mul_(weight) for weight, value in zip(weights, looked_up))
        for mask, result in zip(masks, mask_WLN.unbind(1)):
            looked_up = [mask.index_select(0, where).view_as(index).float() for where in found]
            result[:, part] = _heaviest(looked_up, weights)
    return image_WCN.unflatten(2, patch_size), mask_WLN.unflatten(2, patch_size)


def _maps(params: Sequence[SpatialParams], sources: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """From voxel offsets off the patch's centre to voxels of the box: matrices (W, 3, 3) and centres (W, 3)."""
    flips = [np.diag([-1.0 if axis in drawn.mirrored else 1.0 for axis in range(3)]) for drawn in params]
    matrices = [np.eye(3) if drawn.matrix is None else drawn.matrix for drawn in params]
    return np.stack([matrix @ flip for matrix, flip in zip(matrices, flips)]), (sources - 1) / 2


def _place(
    axis: int, part: slice, offsets_3N: Tensor, mapped: Sequence[Tensor], moves: Sequence[Tensor | None]
) -> Tensor:
    """Where some voxels of the patch lie along one axis of each box: (W, N)."""
    matrix_W33, centre_W3, last_W3 = mapped
    place = sum(matrix_W33[:, axis, other] * offsets_3N[other, part] for other in range(3)) + centre_W3[:, axis]
    for index, move in enumerate(moves):
        if move is not None:
            place[index] += move[axis, part]
    # The box holds all that is needed; this is for rounding alone.
    return torch.minimum(place.clamp_(min=0), last_W3[:, axis])


def _moves(params: SpatialParams, patch_size: Shape, device: torch.device) -> Tensor:
    """The drawn spline at every voxel of the patch: (3, N) in voxels."""
    moves = _on(np.flip(params.control, [axis + 1 for axis in params.mirrored]), device)
    for size, points in zip(patch_size, params.control.shape[1:]):
        weights = _on(spline_weights(size, points), device)
        moves = torch.tensordot(moves, weights, dims=([1], [1]))  # the axis done goes last, the next one comes first
    return moves.flatten(1)


def spline_weights(size: int, points: int) -> np.ndarray:
    """Share (size, points) of each control point in each voxel: a cubic B-spline of ``points`` - 3 intervals.

    A single point is the same everywhere.
    """
    if points == 1:
        return np.ones((size, 1))
    place = (np.arange(size) + 0.5) / size * (points - 3)
    distance = np.abs(place[:, None] - (np.arange(points) - 1))
    near, far = 2 / 3 - distance**2 + distance**3 / 2, (2 - distance) ** 3 / 6
    return np.where(distance < 1, near, np.where(distance < 2, far, 0.0))


def _heaviest(labels: Sequence[Tensor], weights: Sequence[Tensor]) -> Tensor:
    """The label with the largest sum of weights, voxel by voxel, among the corners' ``labels``. All are float32.

    Comparisons are written as 0 or 1 in float32: five times faster on a CPU than boolean masks, and exact.
    """
    votes, flag = [weight.clone() for weight in weights], torch.empty_like(weights[0])
    for one, other in combinations(range(len(labels)), 2):
        torch.eq(labels[one], labels[other], out=flag)
        votes[one].addcmul_(flag, weights[other])  # so the first corner of each label gets all its votes
    label, most = labels[0], votes[0]
    for other, vote in zip(labels[1:], votes[1:]):
        torch.gt(vote, most, out=flag)
        label = torch.addcmul(label, flag, other - label)
        most = torch.maximum(most, vote)
    return label


def _on(values: np.ndarray, device: torch.device, dtype: torch.dtype = torch.float32) -> Tensor:
    """A copy on the device, without waiting for it."""
    tensor = torch.from_numpy(np.array(values, order="C")).to(dtype)  # a flipped view has no place in torch
    return tensor.pin_memory().to(device, non_blocking=True) if device.type == "cuda" else tensor.to(device)


def augment_intensity(
    image_BCZYX: Tensor, params: Sequence[IntensityParams], patch_size: Shape, seeds: Sequence[int]
) -> Tensor:
    """Applies each sample's intensity changes in the recipe's order; its noise is drawn from its own seed."""
    shape, keep_z = image_BCZYX.shape, is_in_plane(patch_size)
    image_BCZYX = _add_noise(image_BCZYX, [p.noise_std for p in params], seeds)
    rows = image_BCZYX.flatten(0, 1)  # (R, Z, Y, X)
    stacked = {name: np.concatenate([getattr(p, name) for p in params]) for name in ROW_FIELDS}
    blur, gamma, inverted = stacked["blur_sigma"], stacked["gamma"], stacked["gamma_inverted"]
    rows = _on_rows(rows, blur.any(1), blur, _blur)
    rows = _on_rows(rows, stacked["brightness"] != 1, stacked["brightness"], lambda r, by: r * _column(by, r))
    rows = _on_rows(rows, stacked["contrast"] != 1, stacked["contrast"], _contrast)
    rows = _on_rows(rows, stacked["zoom"] != 1, stacked["zoom"], lambda r, zoom: _low_resolution(r, zoom, keep_z))
    rows = _on_rows(rows, inverted != 1, inverted, lambda r, exponent: -_gamma(-r, exponent))
    rows = _on_rows(rows, gamma != 1, gamma, _gamma)
    return rows.view(shape)


ROW_FIELDS = ("blur_sigma", "brightness", "contrast", "zoom", "gamma_inverted", "gamma")


def _on_rows(
    rows: Tensor, chosen: np.ndarray, values: np.ndarray, apply: Callable[[Tensor, np.ndarray], Tensor]
) -> Tensor:
    """``rows`` with ``apply(chosen rows, their values)`` in place of the chosen ones."""
    if not chosen.any():
        return rows
    if chosen.all():
        return apply(rows, values)
    index = _on(np.flatnonzero(chosen), rows.device, torch.int64)
    return rows.index_copy(0, index, apply(rows.index_select(0, index), values[chosen]))


def _column(values: np.ndarray, rows: Tensor) -> Tensor:
    """One value per row, shaped to broadcast over Z Y X."""
    return _on(values, rows.device)[:, None, None, None]


def _add_noise(image_BCZYX: Tensor, stds: Sequence[float], seeds: Sequence[int]) -> Tensor:
    """Gaussian noise, the same in all channels of a sample, as in the reference."""
    if not any(stds):
        return image_BCZYX
    result, device = image_BCZYX.clone(), image_BCZYX.device
    for sample, (std, seed) in enumerate(zip(stds, seeds)):
        if std > 0:
            rng = torch.Generator(device).manual_seed(seed)
            result[sample] += torch.randn(image_BCZYX.shape[2:], generator=rng, device=device) * std
    return result


def _blur(rows_RZYX: Tensor, sigma_R3: np.ndarray) -> Tensor:
    """Gaussian blur with a sigma per axis in voxels; edges are repeated."""
    radius = 4  # four times the largest sigma of the recipe
    offsets = np.arange(-radius, radius + 1)
    for axis in range(3):
        size = rows_RZYX.shape[axis + 1]
        if size == 1:
            continue
        weights = np.exp(-0.5 * (offsets / sigma_R3[:, axis, None]) ** 2)
        weights = _on(weights / weights.sum(1, keepdims=True), rows_RZYX.device)[..., None, None, None]
        padding = [0] * 6
        padding[2 * (2 - axis)] = padding[2 * (2 - axis) + 1] = radius
        padded = F.pad(rows_RZYX[None], padding, mode="replicate")[0]
        rows_RZYX = padded.narrow(axis + 1, 0, size) * weights[:, 0]
        for tap in range(1, 2 * radius + 1):  # sums of shifted images: quicker than a grouped convolution on the CPU
            rows_RZYX.addcmul_(padded.narrow(axis + 1, tap, size), weights[:, tap])
    return rows_RZYX


def _mean(rows_RZYX: Tensor) -> Tensor:
    """Mean per row, in two steps: in one, the order of summation depends on the number of rows and threads."""
    return rows_RZYX.mean(-1, keepdim=True).mean((1, 2), keepdim=True)


def _contrast(rows_RZYX: Tensor, factor: np.ndarray) -> Tensor:
    """Distances from the mean times ``factor``, within the range the image had."""
    mean = _mean(rows_RZYX)
    low, high = rows_RZYX.amin((1, 2, 3), keepdim=True), rows_RZYX.amax((1, 2, 3), keepdim=True)
    return torch.clamp((rows_RZYX - mean) * _column(factor, rows_RZYX) + mean, low, high)


def _low_resolution(rows_RZYX: Tensor, zoom: np.ndarray, keep_z: bool) -> Tensor:
    """Fewer voxels by nearest neighbour and back by linear interpolation, as a coarser scan would look."""
    size = rows_RZYX.shape[1:]
    results = []
    for row, share in zip(rows_RZYX, zoom.tolist()):
        small = [max(1, round(edge * share)) for edge in size]
        if keep_z:
            small[0] = size[0]
        coarse = F.interpolate(row[None, None], small, mode="nearest-exact")
        results.append(F.interpolate(coarse, size, mode="trilinear", align_corners=False)[0, 0])
    return torch.stack(results)


def _gamma(rows_RZYX: Tensor, exponent: np.ndarray) -> Tensor:
    """Power law on the image scaled to its range; mean and deviation are kept."""
    axes = (1, 2, 3)
    mean = _mean(rows_RZYX)
    std = _mean((rows_RZYX - mean).square_()).sqrt_()
    low = rows_RZYX.amin(axes, keepdim=True)
    extent = (rows_RZYX.amax(axes, keepdim=True) - low).clamp_min(1e-7)
    bent = ((rows_RZYX - low) / extent) ** _column(exponent, rows_RZYX) * extent + low
    bent -= _mean(bent)
    bent_std = _mean(bent.square()).sqrt_().clamp_min_(1e-8)
    return bent * (std / bent_std) + mean
