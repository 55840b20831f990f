"""What is measured of one case while it is in memory; small enough to keep for thousands of cases.

Arrays are (Z, Y, X) in canonical orientation (z to the head, y to the front, x to the patient's right); lengths are
millimetres, places are voxel indices.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from scipy import ndimage
from scipy.spatial import cKDTree

from segfw.checkup.signature import signature
from segfw.dataset.cases import Case
from segfw.dataset.verify import as_integers
from segfw.images.geometry import Geometry, Shape, Spacing, Volume, to_canonical

SAMPLED_VOXELS = 1_000_000  # of each channel, on a regular grid: percentiles need no more
DARK_SHARE = 0.1  # of the way from the darkest to the brightest tissue: air and what is masked out lie below
SMALL_PART = 0.25  # a component below this share of the label's largest one is no part of its own
MOST_PARTS = 100  # a label in more parts (vessels, lesions) has no such thing as a stray one
CT_AIR, CT_WINDOW = -500.0, (-160.0, 240.0)  # Hounsfield units
THUMBNAIL = 192  # pixels of the longer side that are kept for the page


@dataclass(frozen=True, kw_only=True)
class ChannelMeasure:
    """Intensities of one channel; ``low`` and ``high`` are the percentiles 0.5 and 99.5, ``window`` is to be shown."""

    minimum: float
    low: float
    median: float
    high: float
    maximum: float
    window: tuple[float, float]


@dataclass(frozen=True, kw_only=True)
class LabelMeasure:
    """One label of one case. The stray part is the small component farthest from the label's large ones."""

    voxels: int
    volume_ml: float
    centroid_mm: tuple[float, float, float]
    centre: Shape  # a voxel of the slices through the middle of the label
    parts: int
    dark_share: float
    level: float  # mean intensity in the first channel as a share of the way from its low to its high
    is_cut: bool  # reaches the image's border, so that a part of it may lie beyond
    stray_mm: float = 0.0
    stray_voxels: int = 0
    stray_at: Shape | None = None


@dataclass(frozen=True, kw_only=True)
class Slice:
    """The axial slice with most foreground: image as 0..255, mask with file values, size (y, x) in millimetres."""

    image: np.ndarray
    mask: np.ndarray
    size_mm: tuple[float, float]


@dataclass(frozen=True, kw_only=True)
class CaseMeasure:
    """One case, whose files could all be read and have no error."""

    id: str
    shape: Shape
    spacing_mm: Spacing
    orientation: str
    channels: tuple[ChannelMeasure, ...]
    labels: dict[int, LabelMeasure]
    signature: np.ndarray
    thumbnail: Slice

    @property
    def size_mm(self) -> tuple[float, float, float]:
        """Extent of the image."""
        return tuple(count * mm for count, mm in zip(self.shape, self.spacing_mm))


def measure_case(case: Case, image: Volume, mask: Volume, *, background: int = 0) -> CaseMeasure:
    """Figures of one case; ``background`` is the mask value that is no label."""
    canonical, drawn = to_canonical(image), to_canonical(mask)
    values = as_integers(drawn.array)[0]
    channels = tuple(_measure_channel(channel) for channel in canonical.array)
    geometry = canonical.geometry
    return CaseMeasure(
        id=case.id,
        shape=geometry.shape,
        spacing_mm=geometry.spacing_mm,
        orientation=orientation(image.geometry),
        channels=channels,
        labels=_measure_labels(canonical, values, channels, background),
        signature=signature(canonical.array),
        thumbnail=_thumbnail(canonical, values, channels[0], background),
    )


def orientation(geometry: Geometry) -> str:
    """Where the file's x, y and z axes point, such as 'LPS'."""
    from nibabel.orientations import aff2axcodes

    return "".join(code or "?" for code in aff2axcodes(geometry.matrix[:, [2, 1, 0, 3]]))


def _measure_channel(channel: np.ndarray) -> ChannelMeasure:
    step = max(1, int(np.ceil((channel.size / SAMPLED_VOXELS) ** (1 / sum(size > 1 for size in channel.shape)))))
    sample = channel[::step, ::step, ::step] if min(channel.shape) >= step else channel[..., ::step, ::step]
    low, median, high = np.percentile(sample.astype(np.float32), (0.5, 50, 99.5))
    return ChannelMeasure(
        minimum=float(channel.min()),
        low=float(low),
        median=float(median),
        high=float(high),
        maximum=float(channel.max()),
        window=_window(sample, float(low), float(high)),
    )


def _measure_labels(
    image: Volume, values: np.ndarray, channels: tuple[ChannelMeasure, ...], background: int
) -> dict[int, LabelMeasure]:
    spacing = np.asarray(image.geometry.spacing_mm)
    boxes = {value: box for value, box in label_boxes(values).items() if value != background}
    measured = {}
    for value, box in boxes.items():
        inside = values[box] == value
        voxels = int(inside.sum())
        start = np.array([part.start for part in box])
        centroid, centre = _middle(inside)
        dark = np.ones(voxels, bool)
        for channel, figures in zip(image.array, channels):
            dark &= channel[box][inside] <= figures.low + DARK_SHARE * (figures.high - figures.low)
        measured[value] = LabelMeasure(
            voxels=voxels,
            volume_ml=float(voxels * spacing.prod() / 1000),
            centroid_mm=tuple(((start + centroid) * spacing).tolist()),
            centre=tuple((start + centre).tolist()),
            dark_share=float(dark.mean()),
            level=_level(image.array[0][box][inside], channels[0]),
            is_cut=any(size > 1 and (part.start == 0 or part.stop == size) for part, size in zip(box, values.shape)),
            **_parts(inside, start, spacing),
        )
    return measured


def _window(sample: np.ndarray, low: float, high: float) -> tuple[float, float]:
    """Black and white of pictures: soft tissue of a CT, else the tissue without the air around it."""
    if low <= CT_AIR:
        return CT_WINDOW
    tissue = sample[sample > low + DARK_SHARE * (high - low)]
    if not tissue.size:
        return low, high
    darkest, brightest = np.percentile(tissue.astype(np.float32), (5, 99.5)).tolist()
    return max(low, darkest - 0.25 * (brightest - darkest)), brightest


def _middle(inside: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Centroid of a label, and a voxel of it near its middle; by sums along axes, as a list of voxels may be huge."""
    counts = [inside.sum(tuple({0, 1, 2} - {axis})) for axis in range(3)]
    centroid = np.array([np.average(np.arange(len(along)), weights=along) for along in counts])
    z = int(np.searchsorted(np.cumsum(counts[0]), inside.sum() / 2))
    if not counts[0][z]:
        z = int(counts[0].argmax())
    places = np.argwhere(inside[z])
    nearest = places[np.argmin(np.abs(places - np.median(places, axis=0)).sum(1))]
    return centroid, np.array([z, *nearest])


def _level(inside: np.ndarray, channel: ChannelMeasure) -> float:
    clipped = inside.astype(np.float64).clip(channel.low, channel.high)
    return float((clipped.mean() - channel.low) / max(channel.high - channel.low, 1e-12))


def label_boxes(values: np.ndarray) -> dict[int, tuple[slice, slice, slice]]:
    """Bounding box of every value of a mask, except those of 0."""
    low, high = int(values.min()), int(values.max())
    if low >= 0 and high < 2**16:
        return {index: box for index, box in enumerate(ndimage.find_objects(values), 1) if box is not None}
    present = np.unique(values)
    boxes = ndimage.find_objects(np.searchsorted(present, values) + 1)
    return {int(value): box for value, box in zip(present, boxes) if value != 0}


def _parts(inside: np.ndarray, start: np.ndarray, spacing: np.ndarray) -> dict:
    """Number of components of a label, and the small one that lies farthest from all large ones."""
    components, count = ndimage.label(inside, np.ones((3, 3, 3)))
    if count == 1 or count > MOST_PARTS:
        return {"parts": count}
    sizes = np.bincount(components.ravel())
    sizes[0] = 0
    large = sizes >= SMALL_PART * sizes.max()
    large[0] = False
    body = large[components]
    if large.sum() == count:
        return {"parts": count}
    surface = cKDTree(np.argwhere(body & ~ndimage.binary_erosion(body)) * spacing)
    farthest, which = 0.0, 0
    middle = np.zeros(3)
    for index, box in enumerate(ndimage.find_objects(components), 1):
        if large[index]:
            continue
        places = np.argwhere(components[box] == index) + [part.start for part in box]
        distance = float(surface.query(places * spacing)[0].min())
        if distance > farthest:
            farthest, which, middle = distance, index, places[len(places) // 2]
    place = start + middle
    return {
        "parts": count,
        "stray_mm": farthest,
        "stray_voxels": int(sizes[which]),
        "stray_at": tuple(place.astype(int).tolist()),
    }


def fullest_slice(foreground: np.ndarray, axis: int = 0) -> int:
    """Index of the slice with most foreground, the middle one where there is none."""
    counts = foreground.sum(tuple({0, 1, 2} - {axis}))
    return int(counts.argmax()) if counts.any() else len(counts) // 2


def as_grey(plane: np.ndarray, window: tuple[float, float]) -> np.ndarray:
    """Intensities as 0..255 within a window."""
    low, high = window
    scaled = (np.nan_to_num(plane.astype(np.float32)) - low) / max(high - low, 1e-12)
    return (255 * scaled.clip(0, 1)).astype(np.uint8)


def _shown_box(shown: np.ndarray) -> tuple[slice, slice]:
    """The part of a plane that is not air, and a little around it; all of it where all is air."""
    box = []
    for axis, size in enumerate(shown.shape):
        present = np.flatnonzero(shown.mean(1 - axis) > 0.01)
        start, stop = (present[0], present[-1] + 1) if present.size else (0, size)
        margin = 2 + (stop - start) // 20
        box.append(slice(int(max(0, start - margin)), int(min(size, stop + margin))))
    return tuple(box)


def _thumbnail(image: Volume, values: np.ndarray, channel: ChannelMeasure, background: int) -> Slice:
    index = fullest_slice(values != background)
    plane, mask = image.array[0, index], values[index]
    box = _shown_box((plane > channel.low + DARK_SHARE * (channel.high - channel.low)) | (mask != background))
    plane, mask = plane[box], mask[box]
    size_mm = tuple(count * mm for count, mm in zip(plane.shape, image.geometry.spacing_mm[1:]))
    step = max(1, -(-max(plane.shape) // (2 * THUMBNAIL)))
    return Slice(
        image=as_grey(plane[::step, ::step], channel.window),
        mask=mask[::step, ::step].copy(),
        size_mm=size_mm,
    )
