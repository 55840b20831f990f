"""What the check measures of one case while it is in memory; small enough to keep for thousands of cases.

Arrays are (Z, Y, X) in canonical orientation (z to the head, y to the front, x to the patient's right); lengths are
millimetres, or pixels where an image tells no size of these (``CaseMeasure.units``), places are voxel indices.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import NamedTuple

import numpy as np
from scipy import ndimage
from scipy.spatial import cKDTree

from segfw.base.components import connected_components
from segfw.base.records import Record
from segfw.checkup.signature import signature
from segfw.images.geometry import Geometry, Shape, Spacing, as_shape, as_spacing
from segfw.images.values import as_integers
from segfw.images.volume import Volume, to_canonical
from segfw.planning.case_measure import CaseMeasure, centroid

SAMPLED_VOXELS = 1_000_000  # of each channel, on a regular grid: percentiles need no more
DARK_SHARE = 0.1  # of the way from the darkest to the brightest tissue: air and what is masked out lie below
SMALL_PART = 0.25  # a component below this share of the label's largest one is no part of its own
MOST_PARTS = 100  # a label in more parts (vessels, lesions) has no such thing as a stray one
CT_AIR = -500.0  # Hounsfield units
CT_WINDOW = (-160.0, 240.0)  # Hounsfield units
THUMBNAIL = 192  # pixels of the longer side that are kept for the page

LabelBox = tuple[slice, slice, slice]


class ChannelMeasure(Record):
    """Intensities of one channel; ``low`` and ``high`` are the percentiles 0.5 and 99.5."""

    minimum: float
    low: float
    median: float
    high: float
    maximum: float


class LabelMeasure(Record):
    """One label of one case; ``parts`` counts its connected components, ``size`` is a volume or an area in ``unit``.

    The stray part is the small component farthest from the label's large ones.
    """

    voxels: int
    size: float
    unit: str
    parts: int
    centroid_mm: Spacing  # (z, y, x) from the first voxel
    centre: Shape  # a voxel of the slices through the middle of the label
    dark_share: float
    level: float  # mean intensity in the first channel as a share of the way from its low to its high
    is_cut: bool  # reaches the image's border, so that a part of it may lie beyond
    stray_mm: float = 0.0
    stray_voxels: int = 0
    stray_at: Shape | None = None


class CheckedCase(CaseMeasure):
    """One case, whose files could all be read and have no error: what planning measures of it, and what the check does.

    ``orientation`` says where the file's x, y and z axes point, such as 'LPS', and is '' of pictures, whose axes point
    nowhere in a body; ``labels`` are by file value.
    """

    orientation: str
    channels: tuple[ChannelMeasure, ...]
    labels: dict[int, LabelMeasure]

    @property
    def size_mm(self) -> Spacing:
        """Extent of the image."""
        return as_spacing(voxels * mm for voxels, mm in zip(self.shape, self.spacing_mm))


@dataclass(frozen=True, kw_only=True)
class Slice:
    """The axial slice with most foreground: image as 0..255, mask with file values, size (y, x) in millimetres.

    The image is (Y, X), or (Y, X, 3) of a picture in colour.
    """

    image: np.ndarray
    mask: np.ndarray
    size_mm: tuple[float, float]


@dataclass(frozen=True, kw_only=True)
class CaseDetails:
    """What only the check measures of a case; ``window`` is the black and white of pictures of it."""

    orientation: str
    channels: tuple[ChannelMeasure, ...]
    labels: dict[int, LabelMeasure]
    signature: np.ndarray
    window: tuple[float, float]
    thumbnail: Slice
    has_directions: bool = True  # False: a picture, which has no left and right of a patient

    def joined(self, measure: CaseMeasure) -> CheckedCase:
        """All that is known of the case and kept."""
        return CheckedCase(
            id=measure.id,
            shape=measure.shape,
            spacing_mm=measure.spacing_mm,
            cropped_shape=measure.cropped_shape,
            label_voxels=measure.label_voxels,
            label_centroids_mm=measure.label_centroids_mm,
            in_pixels=measure.in_pixels,
            orientation=self.orientation,
            channels=self.channels,
            labels=self.labels,
        )


def measure_details(image: Volume, mask: Volume, *, background: int = 0) -> CaseDetails:
    """Details of one case; ``background`` is the mask value that is no label."""
    canonical = to_canonical(image)
    values = as_integers(to_canonical(mask).array)[0]
    channels = tuple(_measure_channel(channel) for channel in canonical.array)
    window = _window(canonical, channels[0])
    return CaseDetails(
        orientation="" if image.is_picture else orientation(image.geometry),
        channels=channels,
        labels=_measure_labels(canonical, values, channels, background),
        signature=signature(canonical.array),
        window=window,
        thumbnail=_thumbnail(canonical, values, channels[0], window, background),
        has_directions=not image.is_picture,
    )


def orientation(geometry: Geometry) -> str:
    """Where the file's x, y and z axes point, such as 'LPS'."""
    from nibabel.orientations import aff2axcodes

    return "".join(code or "?" for code in aff2axcodes(geometry.matrix[:, [2, 1, 0, 3]]))


def _sampled(channel: np.ndarray) -> np.ndarray:
    """About SAMPLED_VOXELS of a channel, on a regular grid."""
    dimensions = sum(size > 1 for size in channel.shape)
    step = max(1, int(np.ceil((channel.size / SAMPLED_VOXELS) ** (1 / dimensions))))
    return channel[::step, ::step, ::step] if min(channel.shape) >= step else channel[..., ::step, ::step]


def _measure_channel(channel: np.ndarray) -> ChannelMeasure:
    low, median, high = np.percentile(_sampled(channel).astype(np.float32), (0.5, 50, 99.5))
    return ChannelMeasure(
        minimum=float(channel.min()),
        low=float(low),
        median=float(median),
        high=float(high),
        maximum=float(channel.max()),
    )


def _air_level(channel: ChannelMeasure) -> float:
    """Intensity below which air and what is masked out lie."""
    return channel.low + DARK_SHARE * (channel.high - channel.low)


def _measure_labels(
    image: Volume, values: np.ndarray, channels: tuple[ChannelMeasure, ...], background: int
) -> dict[int, LabelMeasure]:
    spacing = np.asarray(image.geometry.spacing_mm)
    voxel_size = image.units.voxel_size(image.geometry)
    measured = {}
    for value, box in label_boxes(values).items():
        if value == background:
            continue
        inside = values[box] == value
        voxels = int(inside.sum())
        start = np.array([part.start for part in box])
        dark = np.ones(voxels, bool)
        for channel, measure in zip(image.array, channels):
            dark &= channel[box][inside] <= _air_level(measure)
        parts = _parts(inside, spacing)
        measured[value] = LabelMeasure(
            voxels=voxels,
            size=voxels * voxel_size,
            unit=image.units.size,
            parts=parts.number,
            centroid_mm=as_spacing((start + centroid(inside)) * spacing),
            centre=as_shape(start + _central_voxel(inside)),
            dark_share=float(dark.mean()),
            level=_level(image.array[0][box][inside], channels[0]),
            is_cut=any(size > 1 and (part.start == 0 or part.stop == size) for part, size in zip(box, values.shape)),
            stray_mm=parts.stray_mm,
            stray_voxels=parts.stray_voxels,
            stray_at=None if parts.stray_at is None else as_shape(start + parts.stray_at),
        )
    return measured


def _window(image: Volume, measure: ChannelMeasure) -> tuple[float, float]:
    """Black and white of pictures: a photograph's own, soft tissue of a CT, else the tissue without air around it."""
    channel_zyx = image.array[0]
    if image.is_coloured:
        return 0.0, 255.0 if channel_zyx.dtype == np.uint8 else float(image.array.max())
    if measure.low <= CT_AIR:
        return CT_WINDOW
    sample = _sampled(channel_zyx)
    tissue = sample[sample > _air_level(measure)]
    if not tissue.size:
        return measure.low, measure.high
    darkest, brightest = np.percentile(tissue.astype(np.float32), (5, 99.5)).tolist()
    return max(measure.low, darkest - 0.25 * (brightest - darkest)), brightest


def _central_voxel(inside: np.ndarray) -> np.ndarray:
    """A voxel (z, y, x) of a label near its middle."""
    counts = inside.sum((1, 2))
    z = int(np.searchsorted(np.cumsum(counts), inside.sum() / 2))
    if not counts[z]:
        z = int(counts.argmax())
    places = np.argwhere(inside[z])
    nearest = places[np.argmin(np.abs(places - np.median(places, axis=0)).sum(1))]
    return np.array([z, *nearest])


def _level(inside: np.ndarray, channel: ChannelMeasure) -> float:
    clipped = inside.astype(np.float64).clip(channel.low, channel.high)
    return float((clipped.mean() - channel.low) / max(channel.high - channel.low, 1e-12))


def label_boxes(values: np.ndarray) -> dict[int, LabelBox]:
    """Bounding box of every value of a mask, except those of 0."""
    if values.min() >= 0 and values.max() < 2**16:
        return {index: box for index, box in enumerate(ndimage.find_objects(values), 1) if box is not None}
    present = np.unique(values)
    boxes = ndimage.find_objects(np.searchsorted(present, values) + 1)
    return {int(value): box for value, box in zip(present, boxes) if value != 0}


class Parts(NamedTuple):
    """Connected components of a label, and the small one that lies farthest from all large ones, if there is one."""

    number: int
    stray_mm: float = 0.0
    stray_voxels: int = 0
    stray_at: np.ndarray | None = None


def _parts(inside: np.ndarray, spacing: np.ndarray) -> Parts:
    components, number = connected_components(inside)
    if number == 1 or number > MOST_PARTS:
        return Parts(number)
    sizes = np.bincount(components.ravel())
    sizes[0] = 0
    large = sizes >= SMALL_PART * sizes.max()
    large[0] = False
    if large.sum() == number:
        return Parts(number)
    body = large[components]
    surface = cKDTree(np.argwhere(body & ~ndimage.binary_erosion(body)) * spacing)
    stray = Parts(number, stray_at=np.zeros(3, int))
    for index, box in enumerate(ndimage.find_objects(components), 1):
        if large[index]:
            continue
        places = np.argwhere(components[box] == index) + [part.start for part in box]
        distance_mm = float(surface.query(places * spacing)[0].min())
        if distance_mm > stray.stray_mm:
            stray = Parts(number, distance_mm, int(sizes[index]), places[len(places) // 2])
    return stray


def fullest_slice(foreground: np.ndarray, axis: int = 0) -> int:
    """Index of the slice with most foreground, the middle one where there is none."""
    counts = foreground.sum(tuple({0, 1, 2} - {axis}))
    return int(counts.argmax()) if counts.any() else len(counts) // 2


def shown_channels(image: Volume) -> np.ndarray:
    """What pictures show of an image: its first channel (Z, Y, X), or the colours of a photograph (Z, Y, X, 3)."""
    return np.moveaxis(image.array, 0, -1) if image.is_coloured else image.array[0]


def as_bytes(plane: np.ndarray, window: tuple[float, float]) -> np.ndarray:
    """Intensities as 0..255 within a window."""
    low, high = window
    scaled = (np.nan_to_num(plane.astype(np.float32)) - low) / max(high - low, 1e-12)
    return (255 * scaled.clip(0, 1)).astype(np.uint8)


def _shown_box(shown: np.ndarray) -> tuple[slice, slice]:
    """The part of a plane that is not air, and a little around it; all of it where all is air."""
    return _shown_along(shown, 0), _shown_along(shown, 1)


def _shown_along(shown: np.ndarray, axis: int) -> slice:
    size = shown.shape[axis]
    present = np.flatnonzero(shown.mean(1 - axis) > 0.01)
    if not present.size:
        return slice(0, size)
    start = int(present[0])
    stop = int(present[-1]) + 1
    margin = 2 + (stop - start) // 20
    return slice(max(0, start - margin), min(size, stop + margin))


def _thumbnail(
    image: Volume, values: np.ndarray, channel: ChannelMeasure, window: tuple[float, float], background: int
) -> Slice:
    foreground = values != background
    # Of an empty mask not the middle of the volume, which may be air.
    index = fullest_slice(foreground if foreground.any() else image.array[0] > _air_level(channel))
    mask = values[index]
    box = _shown_box((image.array[0, index] > _air_level(channel)) | (mask != background))
    plane = shown_channels(image)[index][box]
    mask = mask[box]
    _, y_mm, x_mm = image.geometry.spacing_mm
    step = max(1, -(-max(mask.shape) // (2 * THUMBNAIL)))
    return Slice(
        image=as_bytes(plane[::step, ::step], window),
        mask=mask[::step, ::step].copy(),
        size_mm=(plane.shape[0] * y_mm, plane.shape[1] * x_mm),
    )
