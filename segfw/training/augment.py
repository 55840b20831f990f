"""Applies drawn augmentation to whole batches on the training device: one batched operation per kind of change.

What becomes of a sample does not depend on which others are in the batch.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from itertools import combinations, product
from math import prod

import numpy as np
import torch
import torch.nn.functional as F
from torch import Tensor

from segfw.base.sending import sent
from segfw.images.geometry import Shape
from segfw.planning.patch_shape import is_in_plane
from segfw.training.augment_params import IntensityParams, SpatialParams

# B batch, C channel, L kinds of masks, W warped samples, Z Y X space, N voxels, R rows: single-channel images picked
# from the batch
VOXELS_AT_ONCE = {"cpu": 1 << 16}  # what is computed for so many fits into the processor's cache
VOXELS_AT_ONCE_ELSEWHERE = 1 << 20  # about 100 MB

# (boxes, their parameters, size of the patches) -> images and masks, as ``warp`` gives them
Warp = Callable[[Sequence[tuple[Tensor, Tensor]], Sequence[SpatialParams], Shape], tuple[Tensor, Tensor]]


@dataclass(frozen=True, kw_only=True)
class _Mapping:
    """Where the voxels of the patches lie in the boxes that were read for them."""

    offsets_3N: Tensor  # of each voxel from the patch's centre
    matrix_W331: Tensor  # from offsets to the box
    centre_W31: Tensor  # of the box
    last_W31: Tensor  # voxel of the box
    moves: Sequence[Tensor | None]  # (3, N) by which a patch is bent

    def place(self, axis: int, part: slice) -> Tensor:
        """Where some voxels of the patch lie along one axis of each box: (W, N)."""
        turned = sum(self.matrix_W331[:, axis, other] * self.offsets_3N[other, part] for other in range(3))
        place = turned + self.centre_W31[:, axis]
        for index, move in enumerate(self.moves):
            if move is not None:
                place[index] += move[axis, part]
        # The box holds all that is needed; this is for rounding alone.
        return torch.minimum(place.clamp_(min=0), self.last_W31[:, axis])


def warp(
    boxes: Sequence[tuple[Tensor, Tensor]],
    params: Sequence[SpatialParams],
    patch_size: Shape,
    *,
    voxels_at_once: int | None = None,
) -> tuple[Tensor, Tensor]:
    """Patches (W, C, Z, Y, X) float32 and their masks (W, L, Z, Y, X) from the boxes that were read for them.

    A box is an image (C, Z, Y, X) and its masks (L, Z, Y, X) of ``source_size``. The image is interpolated linearly; in
    a mask the label wins whose linear weight is largest, which keeps it within the image's edges to a fraction of a
    voxel. That takes the same time for any number of labels: a voxel has no more than 8 neighbours, whose weights are
    added up where they agree. ``voxels_at_once`` are worked on at a time, of all patches together.
    """
    # Boxes differ in size. One after the other they can be looked up together, by one index; grid_sample would need
    # borders to make them the same, rounds differently with every border, and takes twice the time on a CPU.
    images = torch.cat([image.flatten(1) for image, _ in boxes], 1)
    masks = torch.cat([mask.flatten(1) for _, mask in boxes], 1)
    count = len(boxes)
    device = images.device
    voxels = prod(patch_size)
    image_WCN = torch.empty(count, len(images), voxels, device=device)
    mask_WLN = torch.empty(count, len(masks), voxels, device=device, dtype=masks.dtype)

    # Where each box begins in the row of all, and how far its neighbours are apart there
    sizes_W3 = np.array([image.shape[1:] for image, _ in boxes])
    strides_W3 = np.stack([sizes_W3[:, 1] * sizes_W3[:, 2], sizes_W3[:, 2], np.ones(count, int)], 1)
    begins_W1 = tensor_on(np.cumsum([0, *sizes_W3.prod(1)[:-1]])[:, None], device, torch.int32)
    turned_axes = (1, 2) if is_in_plane(patch_size) else (0, 1, 2)  # slices of a flat patch stay what they are
    corners = list(product(*[(0, 1) if axis in turned_axes else (0,) for axis in range(3)]))
    steps_to_corners = np.array([(strides_W3 * (sizes_W3 > 1)) @ corner for corner in corners])
    ahead = tensor_on(steps_to_corners[..., None], device, torch.int32)
    strides_W31 = tensor_on(strides_W3, device, torch.int32)[..., None]
    mapping = _mapping(params, sizes_W3, patch_size, device)

    at_once = max(1, (voxels_at_once or VOXELS_AT_ONCE.get(device.type, VOXELS_AT_ONCE_ELSEWHERE)) // count)
    for first in range(0, voxels, at_once):
        part = slice(first, min(voxels, first + at_once))
        index = begins_W1
        weights = [torch.ones((), device=device)] * len(corners)
        for axis in range(3):
            place = mapping.place(axis, part)
            lower = place.floor()
            if axis in turned_axes:  # so that there always is an upper neighbour
                lower = torch.minimum(lower, (mapping.last_W31[:, axis] - 1).clamp_min(0))
            index = index + lower.int() * strides_W31[:, axis]
            share = (1 - (place - lower), place - lower)  # of the lower and the upper neighbour
            weights = [weight * share[corner[axis]] for weight, corner in zip(weights, corners)]
        neighbours = [(index + step).flatten() for step in ahead]
        for image, image_result in zip(images, image_WCN.unbind(1)):
            values = (image.index_select(0, where).view_as(index).float() for where in neighbours)
            image_result[:, part] = sum(value.mul_(weight) for weight, value in zip(weights, values))
        for mask, mask_result in zip(masks, mask_WLN.unbind(1)):
            labels = [mask.index_select(0, where).view_as(index).float() for where in neighbours]
            mask_result[:, part] = _heaviest(labels, weights)
    return image_WCN.unflatten(2, patch_size), mask_WLN.unflatten(2, patch_size)


def _mapping(
    params: Sequence[SpatialParams], sizes_W3: np.ndarray, patch_size: Shape, device: torch.device
) -> _Mapping:
    """From voxel offsets off the patches' centres to voxels of their boxes."""
    centred = [torch.arange(size, device=device) - (size - 1) / 2 for size in patch_size]
    return _Mapping(
        offsets_3N=torch.stack(torch.meshgrid(*centred, indexing="ij")).flatten(1),
        matrix_W331=tensor_on(matrices_of(params), device)[..., None],
        centre_W31=tensor_on((sizes_W3 - 1) / 2, device)[..., None],
        last_W31=tensor_on(sizes_W3 - 1.0, device)[..., None],
        moves=[moves_of(drawn, patch_size, device) for drawn in params],
    )


def matrices_of(params: Sequence[SpatialParams]) -> np.ndarray:
    """Of each sample (W, 3, 3), from offsets off the patch's centre to offsets off the box's; it is mirrored first."""
    flips = [np.diag([-1.0 if axis in drawn.mirrored else 1.0 for axis in range(3)]) for drawn in params]
    matrices = [np.eye(3) if drawn.matrix is None else drawn.matrix for drawn in params]
    return np.stack([matrix @ flip for matrix, flip in zip(matrices, flips)])


def moves_of(params: SpatialParams, patch_size: Shape, device: torch.device) -> Tensor | None:
    """The drawn spline at every voxel of the patch: (3, N) in voxels; None where the patch is not bent."""
    if params.control is None:
        return None
    moves = tensor_on(np.flip(params.control, tuple(axis + 1 for axis in params.mirrored)), device)
    for size, points in zip(patch_size, params.control.shape[1:]):
        weights = tensor_on(spline_weights(size, points), device)
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
    near = 2 / 3 - distance**2 + distance**3 / 2
    far = (2 - distance) ** 3 / 6
    return np.where(distance < 1, near, np.where(distance < 2, far, 0.0))


def _heaviest(labels: Sequence[Tensor], weights: Sequence[Tensor]) -> Tensor:
    """The label with the largest sum of weights, voxel by voxel, among the corners' ``labels``. All are float32.

    Comparisons are written as 0 or 1 in float32: five times faster on a CPU than boolean masks, and exact.
    """
    votes = [weight.clone() for weight in weights]
    flag = torch.empty_like(weights[0])
    for first, second in combinations(range(len(labels)), 2):
        torch.eq(labels[first], labels[second], out=flag)
        votes[first].addcmul_(flag, weights[second])  # so the first corner of each label gets all its votes
    label = labels[0]
    most = votes[0]
    for other, vote in zip(labels[1:], votes[1:]):
        torch.gt(vote, most, out=flag)
        label = torch.addcmul(label, flag, other - label)
        most = torch.maximum(most, vote)
    return label


def tensor_on(values: np.ndarray, device: torch.device, dtype: torch.dtype = torch.float32) -> Tensor:
    """A copy on the device, without waiting for it."""
    tensor = torch.from_numpy(np.array(values, order="C")).to(dtype)  # a flipped view has no place in torch
    return sent(tensor, device)


def augment_intensity(
    image_BCZYX: Tensor, params: Sequence[IntensityParams], patch_size: Shape, seeds: Sequence[int]
) -> Tensor:
    """Applies each sample's intensity changes in the recipe's order; its noise is drawn from its own seed."""
    keep_z = is_in_plane(patch_size)
    noisy = _add_noise(image_BCZYX, [drawn.noise_std for drawn in params], seeds)
    rows = noisy.flatten(0, 1)  # (R, Z, Y, X)
    sigma_R3 = np.concatenate([drawn.blur_sigma for drawn in params])
    rows = _on_rows(rows, sigma_R3 != 0, sigma_R3, _blur)
    brightness = np.concatenate([drawn.brightness for drawn in params])
    rows = _on_rows(rows, brightness != 1, brightness, lambda chosen, factor: chosen * _column(factor, chosen))
    contrast = np.concatenate([drawn.contrast for drawn in params])
    rows = _on_rows(rows, contrast != 1, contrast, _contrast)
    zoom = np.concatenate([drawn.zoom for drawn in params])
    rows = _on_rows(rows, zoom != 1, zoom, lambda chosen, share: _low_resolution(chosen, share, keep_z))
    inverted = np.concatenate([drawn.gamma_inverted for drawn in params])
    rows = _on_rows(rows, inverted != 1, inverted, lambda chosen, exponent: -_gamma(-chosen, exponent))
    gamma = np.concatenate([drawn.gamma for drawn in params])
    rows = _on_rows(rows, gamma != 1, gamma, _gamma)
    return rows.view(image_BCZYX.shape)


def _on_rows(
    rows: Tensor, chosen: np.ndarray, values: np.ndarray, apply: Callable[[Tensor, np.ndarray], Tensor]
) -> Tensor:
    """``rows`` with ``apply(chosen rows, their values)`` in place of the chosen ones, where any entry is chosen."""
    index_R = np.flatnonzero(chosen.reshape(len(rows), -1).any(1))
    if len(index_R) == 0:
        return rows
    if len(index_R) == len(rows):
        return apply(rows, values)
    index = tensor_on(index_R, rows.device, torch.int64)
    return rows.index_copy(0, index, apply(rows.index_select(0, index), values[index_R]))


def _column(values: np.ndarray, rows: Tensor) -> Tensor:
    """One value per row, shaped to broadcast over Z Y X."""
    return tensor_on(values, rows.device)[:, None, None, None]


def _add_noise(image_BCZYX: Tensor, stds: Sequence[float], seeds: Sequence[int]) -> Tensor:
    """Gaussian noise, the same in all channels of a sample, as in the reference."""
    if not any(stds):
        return image_BCZYX
    result = image_BCZYX.clone()
    device = image_BCZYX.device
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
        weights = tensor_on(weights / weights.sum(1, keepdims=True), rows_RZYX.device)[..., None, None, None]
        padding = [0] * 6
        padding[2 * (2 - axis)] = radius  # F.pad begins with the last axis
        padding[2 * (2 - axis) + 1] = radius
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
    low = rows_RZYX.amin((1, 2, 3), keepdim=True)
    high = rows_RZYX.amax((1, 2, 3), keepdim=True)
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
