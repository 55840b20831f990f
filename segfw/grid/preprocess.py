"""From a case as stored to the network's grid, and back: orient, crop, normalise, resample; and its inverse."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import Literal

import numpy as np
import torch
from pydantic import model_validator
from scipy import ndimage
from torch import Tensor

from segfw.base.records import Record
from segfw.grid.boxes import Box, cut, nonzero_box
from segfw.grid.normalize import Normalization, Scaling, scaling_of
from segfw.grid.resample import (
    OF_IMAGES,
    OF_LOGITS,
    Resampling,
    resample_classes,
    resample_image,
    resample_slices,
    resampled_shape,
    thick_axis,
)
from segfw.images.geometry import Geometry, Shape, Spacing, as_shape, as_spacing, header_length, is_axial
from segfw.images.volume import (
    AS_STORED,
    CANONICAL,
    Orientation,
    Volume,
    from_orientation,
    is_axis_order,
    stored_like,
    to_orientation,
)
from segfw.images.voxels import FLAT

# What counts as the edges of voxels: the length of the axes in space, or as in one of nnU-Net's readers what the file
# states beside them (SimpleITKIO, NibabelIO), the same unless axes are turned to RAS, which makes nibabel forget it
# (NibabelIOWithReorient), what a side file states and else 1 (Tiff3DIO), or always 1 (NaturalImage2DIO). All but
# nibabel's readers, and segfw always, turn lengths in other units to millimetres.
VoxelSize = Literal["axes", "stated", "stated in RAS", "side file", "unit"]

HALF_LIMIT = 60_000.0  # float16 ends at 65 504


class Preprocessing(Record):
    """How every case is brought to the network's grid.

    ``axis_order`` says which axis (z, y, x) of the oriented image comes first, second and third for the network;
    ``spacing_mm`` is in that order, and None keeps each case's own spacing (the slices of a 2-D configuration).
    ``logits`` is how the network's outputs come back.
    """

    axis_order: tuple[int, int, int]
    spacing_mm: tuple[float | None, float | None, float | None]
    normalization: tuple[Normalization, ...]
    orientation: Orientation = CANONICAL
    images: Resampling = OF_IMAGES
    logits: Resampling = OF_LOGITS
    voxel_size: VoxelSize = "axes"

    @model_validator(mode="after")
    def _is_a_grid(self) -> Preprocessing:
        if sorted(self.axis_order) != [0, 1, 2]:
            raise ValueError(f"axis_order {self.axis_order} must hold 0, 1 and 2 once each")
        if any(length is not None and length <= 0 for length in self.spacing_mm):
            raise ValueError(f"spacing_mm {self.spacing_mm} must be more than 0")
        return self


class PreprocessRecord(Record):
    """What ``restore.Restoring`` needs. Shapes and spacings after the crop are in the network's axis order."""

    original: Geometry
    box: Box  # of the oriented array
    axis_order: tuple[int, int, int]
    cropped_shape: Shape
    cropped_spacing_mm: Spacing
    shape: Shape
    spacing_mm: Spacing
    orientation: Orientation = CANONICAL
    logits: Resampling = OF_LOGITS


def stack_channels(volumes: Sequence[Volume]) -> Volume:
    """One volume with the channels of all, as the first is stored; their grids have been compared before."""
    first = volumes[0]
    if len(volumes) == 1:
        return first
    return replace(first, array=np.concatenate([stored_like(volume, first).array for volume in volumes]))


def orientation_note(volume: Volume, orientation: Orientation) -> str:
    """A doubt about an image whose axes a model takes as they are stored, though they are in no usual order; or ''."""
    if orientation != AS_STORED or not volume.is_placed or is_axial(volume.geometry):
        return ""
    return (
        "its slices are not axial, and this model takes axes as they are stored, as nnU-Net does: if the images of its "
        "training were axial, the mask is wrong; store the image in their order of axes"
    )


def preprocess_image(
    volume: Volume, preprocessing: Preprocessing, *, in_half: bool = False
) -> tuple[Tensor, PreprocessRecord]:
    """Image as stored in its file to (C, Z, Y, X) on the network's grid, and how to come back.

    Float32, or float16 with ``in_half`` unless values exceed its range.
    """
    # Orient and crop. The axes of what has no place point nowhere, and are those of its training as they are.
    is_nowhere = is_axis_order(preprocessing.orientation) and not volume.is_placed
    orientation = AS_STORED if is_nowhere else preprocessing.orientation
    oriented = to_orientation(volume, orientation)
    box = nonzero_box(oriented.array)
    cropped = _crop(oriented.array, box, preprocessing.axis_order)
    cropped_shape = as_shape(cropped.shape[1:])
    # The grids before and after.
    edges_mm = voxel_edges(oriented, preprocessing.voxel_size, is_turned=oriented.geometry != volume.geometry)
    spacing_mm = as_spacing(edges_mm[axis] for axis in preprocessing.axis_order)
    target_mm = as_spacing(
        present if wanted is None else wanted for present, wanted in zip(spacing_mm, preprocessing.spacing_mm)
    )
    shape = resampled_shape(cropped_shape, spacing_mm, target_mm)
    # Normalise and resample.
    channels = _normalized_channels(cropped, preprocessing.normalization)
    fits_half = all(channel.low > -HALF_LIMIT and channel.high < HALF_LIMIT for channel in channels)
    result = torch.empty((len(channels), *shape), dtype=torch.float16 if in_half and fits_half else torch.float32)
    thick = thick_axis(spacing_mm, target_mm, preprocessing.images.apart)
    for index, channel in enumerate(channels):
        # The data set's coarsest axis comes first, but not that of this very case.
        if thick in (1, 2) or (thick == 0 and preprocessing.images.across):
            whole = channel.slices(0, cropped_shape[0])[None]
            result[index] = resample_image(whole, shape, thick, preprocessing.images)[0]
        else:
            bounds = (channel.low, channel.high)
            resample_slices(channel.slices, cropped_shape, result[index], thick, bounds, preprocessing.images.order)
    record = PreprocessRecord(
        original=volume.geometry,
        box=box,
        axis_order=preprocessing.axis_order,
        cropped_shape=cropped_shape,
        cropped_spacing_mm=spacing_mm,
        shape=shape,
        spacing_mm=target_mm,
        orientation=orientation,
        logits=preprocessing.logits,
    )
    return result, record


def _crop(image_czyx: np.ndarray, box: Box, axis_order: tuple[int, int, int]) -> np.ndarray:
    """The image inside the box, with its axes in the network's order."""
    first, second, third = axis_order
    return cut(image_czyx, box).transpose(0, first + 1, second + 1, third + 1)


@dataclass(frozen=True, kw_only=True)
class _NormalizedChannel:
    """A channel whose normalisation is measured but done only slice by slice, to save memory."""

    voxels_zyx: np.ndarray
    mask_zyx: np.ndarray | None
    scaling: Scaling
    low: float  # smallest and largest value after normalisation
    high: float

    def slices(self, start: int, stop: int) -> Tensor:
        """Normalised slices, float32."""
        mask = None if self.mask_zyx is None else self.mask_zyx[start:stop]
        return torch.from_numpy(self.scaling(self.voxels_zyx[start:stop], mask))


def _normalized_channels(image_czyx: np.ndarray, rules: Sequence[Normalization]) -> list[_NormalizedChannel]:
    filled = _filled(image_czyx) if any(rule.inside_mask for rule in rules) else None
    channels = []
    for voxels, rule in zip(image_czyx, rules):
        mask = filled if rule.inside_mask else None
        scaling = scaling_of(voxels, rule, mask)
        low, high = _bounds(voxels, scaling, mask)
        channels.append(_NormalizedChannel(voxels_zyx=voxels, mask_zyx=mask, scaling=scaling, low=low, high=high))
    return channels


def voxel_edges(oriented: Volume, voxel_size: VoxelSize, *, is_turned: bool = False) -> Spacing:
    """Edges (z, y, x) of a voxel in millimetres by the rule; ``is_turned`` if the file has the axes in another order.

    Where the rule asks for stated ones and the file states none, they are those of the axes, but 1 by 'side file'.
    """
    if voxel_size == "unit":
        return (FLAT if oriented.geometry.shape[0] == 1 else 1.0, 1.0, 1.0)
    if voxel_size == "stated in RAS" and is_turned:
        return as_spacing(np.asarray(oriented.geometry.spacing_mm, dtype=np.float32))
    if voxel_size != "axes" and oriented.stated_mm is not None:
        return oriented.stated_mm
    if voxel_size == "side file":
        return (1.0, 1.0, 1.0)
    return as_spacing(header_length(length) for length in oriented.geometry.spacing_mm)


def _bounds(channel_zyx: np.ndarray, scaling: Scaling, mask_zyx: np.ndarray | None) -> tuple[float, float]:
    """Smallest and largest value after normalisation, which keeps the order of values; outside a mask all are 0."""
    inside = channel_zyx if mask_zyx is None else channel_zyx[mask_zyx]
    low, high = scaling(np.array([inside.min(), inside.max()])).tolist()
    return (low, high) if mask_zyx is None or mask_zyx.all() else (min(low, 0.0), max(high, 0.0))


def preprocess_classes(classes: Volume, record: PreprocessRecord, outside_zyx: np.ndarray | None = None) -> Tensor:
    """Class indices (1, Z, Y, X) on the image's original grid to (Z, Y, X) on the network's grid.

    With ``outside_zyx`` background there and elsewhere are resampled as two classes and joined afterwards.
    """
    cropped = cut(to_orientation(classes, record.orientation).array[0], record.box).transpose(record.axis_order)
    thick = thick_axis(record.cropped_spacing_mm, record.spacing_mm)
    if outside_zyx is None:
        return resample_classes(torch.from_numpy(np.ascontiguousarray(cropped)), record.shape, thick)
    # Outside is the lowest of all classes, to which a tie of three or more may fall.
    fits = cropped.dtype == np.uint8 and cropped.max() < np.iinfo(np.uint8).max
    one_up = cropped + (np.uint8(1) if fits else np.int32(1))  # torch has hardly any operation for uint16
    one_up[outside_zyx & (cropped == 0)] = 0
    resampled = resample_classes(torch.from_numpy(np.ascontiguousarray(one_up)), record.shape, thick)
    return resampled.clamp(min=1) - 1


def outside_of(volume: Volume, record: PreprocessRecord) -> np.ndarray | None:
    """Where the image is zero in every channel, holes apart: (Z, Y, X) bool after the crop; None if nowhere.

    nnU-Net calls background there another class than elsewhere (``crop_to_nonzero``). Where both meet a structure, its
    weight in a resampled voxel is compared with either of theirs, not with their sum: it grows there a little.
    """
    oriented = to_orientation(volume, record.orientation)
    outside = ~_filled(_crop(oriented.array, record.box, record.axis_order))
    return outside if outside.any() else None


def _filled(image_czyx: np.ndarray) -> np.ndarray:
    return ndimage.binary_fill_holes((image_czyx != 0).any(0))


def place_back(values_zyx: np.ndarray, record: PreprocessRecord) -> np.ndarray:
    """Puts values on the cropped grid, in the network's axis order, back into the original file's array; 0 outside."""
    to_zyx = np.argsort(record.axis_order)
    full = np.zeros(oriented_shape_of(record.original, record.orientation), dtype=values_zyx.dtype)
    cut(full, record.box)[...] = values_zyx.transpose(to_zyx)
    return np.ascontiguousarray(from_orientation(full, record.original, record.orientation))


def canonical_shape_of(geometry: Geometry) -> Shape:
    """Shape of the volume after ``to_canonical``."""
    return oriented_shape_of(geometry, CANONICAL)


def oriented_shape_of(geometry: Geometry, orientation: Orientation) -> Shape:
    """Shape of the volume after ``to_orientation``."""
    empty = Volume(array=np.broadcast_to(np.uint8(0), (1, *geometry.shape)), geometry=geometry)
    return to_orientation(empty, orientation).geometry.shape
