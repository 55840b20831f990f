"""The published augmentation by batchgenerators, on the CPU in the feeding threads: to compare with, and much slower.

Parameters as in the recipe. Two laws are batchgenerators' own: scales are drawn below and above 1 with equal chance,
and every channel has its own noise.
"""

from __future__ import annotations

import random
import threading
from collections.abc import Callable, Sequence
from functools import lru_cache
from math import ceil, pi

import numpy as np
import torch
from torch import Tensor

from segfw.base.records import UserError
from segfw.images.geometry import Shape, as_shape
from segfw.planning.patch_shape import is_in_plane, largest_angle

SMALLEST_SCALE = 0.85  # that the box is read for; corners of patches scaled further lie outside of it, as published
# batchgenerators draws from the generators of ``random`` and ``numpy.random``, which all threads share.
_GLOBAL_GENERATORS = threading.Lock()


def published_source_size(patch_size: Shape) -> Shape:
    """Box that is read: the patch turned about one axis at a time by the largest angle (at most a quarter), scaled."""
    in_plane = is_in_plane(patch_size)
    angle = min(largest_angle(patch_size), pi / 2)
    size = np.array(patch_size, float)
    for axis in (0,) if in_plane else (0, 1, 2):
        one, other = (index for index in range(3) if index != axis)
        for first, second in ((one, other), (other, one)):
            turned = patch_size[first] * np.cos(angle) + patch_size[second] * np.sin(angle)
            size[first] = max(size[first], turned)
    grown = [size[axis] if in_plane and axis == 0 else size[axis] / SMALLEST_SCALE for axis in range(3)]
    # The same parity as the patch, so that both have the same centre.
    return as_shape(patch + 2 * ceil((edge - patch) / 2 - 1e-6) for edge, patch in zip(grown, patch_size))


def augment_as_published(
    image_czyx: Tensor, masks: Sequence[Tensor], patch_size: Shape, seed: int
) -> tuple[Tensor, list[Tensor]]:
    """Image (C, Z, Y, X) float32 and masks (Z, Y, X) int16 of the patch size, from boxes around the patch.

    The same ``seed`` gives the same result, whatever other threads do; mirroring is left to the caller.
    """
    image = image_czyx.cpu().float().numpy()
    labels = torch.stack(list(masks)).cpu().float().numpy()
    channels = image.shape[0]
    flat = is_in_plane(patch_size)  # turned and scaled slice by slice: slices are channels
    data = {"data": _folded(image, flat)[None], "seg": _folded(labels, flat)[None]}
    with _GLOBAL_GENERATORS:
        state = random.getstate()
        numpy_state = np.random.get_state()  # noqa: NPY002
        random.seed(seed)
        np.random.seed(seed % 2**32)  # noqa: NPY002
        try:
            warp, change = _published(patch_size)
            data = warp(**data)
            data = {
                "data": data["data"].reshape(1, channels, *patch_size),
                "seg": data["seg"].reshape(1, len(masks), *patch_size),
            }
            data = change(**data)
        finally:
            random.setstate(state)
            np.random.set_state(numpy_state)  # noqa: NPY002
    warped = torch.from_numpy(np.ascontiguousarray(data["data"][0], dtype=np.float32))
    return warped, [torch.from_numpy(mask.astype(np.int16)) for mask in data["seg"][0]]


def _folded(array_czyx: np.ndarray, flat: bool) -> np.ndarray:
    return array_czyx.reshape(-1, *array_czyx.shape[2:]) if flat else array_czyx


@lru_cache
def _published(patch_size: Shape) -> tuple[Callable[..., dict], Callable[..., dict]]:
    """The spatial transform, and the intensity transforms in their order. Raises UserError without batchgenerators."""
    try:
        from batchgenerators.transforms.abstract_transforms import Compose
        from batchgenerators.transforms.color_transforms import (
            BrightnessMultiplicativeTransform,
            ContrastAugmentationTransform,
            GammaTransform,
        )
        from batchgenerators.transforms.noise_transforms import GaussianBlurTransform, GaussianNoiseTransform
        from batchgenerators.transforms.resample_transforms import SimulateLowResolutionTransform
        from batchgenerators.transforms.spatial_transforms import SpatialTransform
    except ImportError as error:
        raise UserError(
            f"--augmentation reference needs the package batchgenerators ({error}): pip install batchgenerators"
        ) from None

    flat = is_in_plane(patch_size)
    angles = (-largest_angle(patch_size), largest_angle(patch_size))
    warp = SpatialTransform(
        patch_size[1:] if flat else patch_size,
        patch_center_dist_from_border=None,
        random_crop=False,
        do_elastic_deform=False,
        do_rotation=True,
        angle_x=angles,
        angle_y=angles,
        angle_z=angles,
        p_rot_per_sample=0.2,
        do_scale=True,
        scale=(0.7, 1.4),
        p_scale_per_sample=0.2,
        independent_scale_for_each_axis=False,
        border_mode_data="constant",
        border_cval_data=0,
        order_data=1,
        border_mode_seg="constant",
        border_cval_seg=-1,
        order_seg=1,
    )
    change = Compose(
        [
            GaussianNoiseTransform(noise_variance=(0, 0.1), p_per_sample=0.1),
            GaussianBlurTransform((0.5, 1.0), different_sigma_per_axis=True, p_per_sample=0.2, p_per_channel=0.5),
            BrightnessMultiplicativeTransform((0.75, 1.25), per_channel=True, p_per_sample=0.15),
            ContrastAugmentationTransform((0.75, 1.25), preserve_range=True, per_channel=True, p_per_sample=0.15),
            SimulateLowResolutionTransform(
                zoom_range=(0.5, 1),
                per_channel=True,
                p_per_channel=0.5,
                order_downsample=0,
                order_upsample=1,
                p_per_sample=0.25,
                ignore_axes=(0,) if flat else None,
            ),
            GammaTransform((0.7, 1.5), True, True, retain_stats=True, p_per_sample=0.1),
            GammaTransform((0.7, 1.5), False, True, retain_stats=True, p_per_sample=0.3),
        ]
    )
    return warp, change
