"""Pictures for the page of a check: slices in true proportions with the labels' outlines, as PNG.

Around each slice there is room for the letters of the patient's sides and for a scale bar, which cover nothing there.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import replace

import numpy as np
from scipy import ndimage

from segfw.base.figures import VIEWS, label_color, palette_png, scale_bar, shown_plane, views_of
from segfw.checkup.case_details import CaseDetails, Slice, as_bytes, shown_channels
from segfw.dataset.cases import Case, read_label
from segfw.dataset.labels import apply_map
from segfw.grid.preprocess import stack_channels
from segfw.images.formats import read_volume
from segfw.images.geometry import Shape
from segfw.images.units import Units
from segfw.images.values import as_integers
from segfw.images.volume import stored_like, to_canonical

FILL = 0.16
BAR_SHARE = 0.4  # of a slice's width that the scale bar may take
# In pixels
LONGER_SIDE = 384  # of a case's slice
PLACE_HEIGHT = 380  # of the slices through a place, which stand side by side
MARK_RADIUS = 20  # of the ring around a place
MARGIN = 30  # around a slice
LETTERS = 22
LEAST_WIDTH = 140  # of a picture, for the words at its scale bar
GROUND = (0, 0, 0)
TEXT = (214, 220, 226)


def thumbnail(details: CaseDetails, units: Units, classes: Mapping[int, int], pixels: int = LONGER_SIDE) -> bytes:
    """The slice with most foreground, from what was kept when the case was read."""
    kept = details.thumbnail
    shown = Slice(image=kept.image[::-1, ::-1], mask=kept.mask[::-1, ::-1], size_mm=kept.size_mm)
    letters = VIEWS[0][2] if details.has_directions else ""
    scale = pixels / max(kept.size_mm)
    return _png(_framed(_drawn(shown, scale, classes), scale, letters, units))


def views_of_place(
    case: Case, window: tuple[float, float], place: Shape, classes: Mapping[int, int]
) -> tuple[bytes, str] | None:
    """The slices through a voxel (z, y, x in canonical orientation), which is marked, and which slices they are.

    Reads the case again. A volume of one slice gives one view; a case without a mask has none.
    """
    if case.label is None:
        return None
    stored = stack_channels([read_volume(path) for path in case.images])
    mask = replace(stored_like(read_label(case, stored), stored), geometry=stored.geometry)
    image = to_canonical(stored)
    values = apply_map(as_integers(to_canonical(mask).array), case.label_map)[0]
    size_mm = np.multiply(image.geometry.shape, image.geometry.spacing_mm)
    views = views_of(values.shape)
    whole = (slice(None), slice(None), slice(None))
    scale = PLACE_HEIGHT / max(np.delete(size_mm, axis).max() for _, axis, _ in views)
    pictures = []
    names = []
    for name, axis, letters in views:
        vertical, horizontal = (each for each in range(3) if each != axis)
        shown = Slice(
            image=as_bytes(shown_plane(shown_channels(image), axis, place[axis], whole), window),
            mask=shown_plane(values, axis, place[axis], whole),
            size_mm=(float(size_mm[vertical]), float(size_mm[horizontal])),
        )
        mark = (
            1 - (place[vertical] + 0.5) / values.shape[vertical],
            1 - (place[horizontal] + 0.5) / values.shape[horizontal],
        )
        drawn = _drawn(shown, scale, classes, mark)
        pictures.append(_framed(drawn, scale, "" if image.is_picture else letters, image.units))
        slices = f"slice {place[axis] + 1} of {values.shape[axis]}"
        names.append(slices if image.is_picture else f"{name} {slices}")
    return _png(_side_by_side(pictures)), ", ".join(names)


def _drawn(
    shown: Slice, scale: float, classes: Mapping[int, int], mark: tuple[float, float] | None = None
) -> np.ndarray:
    """RGB 0..255 of ``shown``, which already lies as it is to be seen, at ``scale`` pixels per millimetre.

    ``mark`` is a place in it as shares of height and width.
    """
    size = (max(8, round(shown.size_mm[0] * scale)), max(8, round(shown.size_mm[1] * scale)))
    picture = _resized(shown.image, size)
    mask = _nearest(shown.mask, size)
    edges = np.zeros(size, bool)
    for axis in (0, 1):
        for step in (-1, 1):
            edges |= np.roll(mask, step, axis) != mask
    edges = ndimage.binary_dilation(edges)  # two pixels are seen beside bright tissue
    for value in np.intersect1d(np.unique(mask), list(classes)):
        color = np.array(label_color(classes[int(value)]))
        inside = mask == value
        picture[inside] = (1 - FILL) * picture[inside] + FILL * color
        picture[inside & edges] = color
    if mark is not None:
        _ring(picture, (mark[0] * size[0], mark[1] * size[1]))
    return (255 * picture.clip(0, 1)).round().astype(np.uint8)


def _nearest(mask: np.ndarray, shape: tuple[int, int]) -> np.ndarray:
    """The mask in another size, every pixel with the value at its place."""
    rows, columns = (
        np.minimum((np.arange(new) + 0.5) * old // new, old - 1).astype(int) for new, old in zip(shape, mask.shape)
    )
    return mask[rows][:, columns]


def _resized(image: np.ndarray, shape: tuple[int, int]) -> np.ndarray:
    """RGB 0..1 of greys (Y, X) or colours (Y, X, 3), 0..255, in another size."""
    colours = np.atleast_3d(image)
    factors = [*(new / old for new, old in zip(shape, image.shape)), 1]
    resized = ndimage.zoom(colours.astype(np.float32), factors, order=1, mode="nearest", grid_mode=True) / 255
    return np.repeat(resized, 3, axis=2) if colours.shape[2] == 1 else resized


def _ring(picture: np.ndarray, centre: tuple[float, float]) -> None:
    y, x = np.ogrid[: picture.shape[0], : picture.shape[1]]
    distance = np.hypot(y - centre[0], x - centre[1])
    picture[np.abs(distance - MARK_RADIUS) < 2.5] = (0, 0, 0)
    picture[np.abs(distance - MARK_RADIUS) < 1.2] = (1, 1, 0.2)


def _framed(picture: np.ndarray, scale: float, letters: str, units: Units) -> np.ndarray:
    """The picture on a black ground with letters at its left, right, top and bottom, and a scale bar below it."""
    from PIL import Image, ImageDraw, ImageFont

    height, width = picture.shape[:2]
    left = max(MARGIN, (LEAST_WIDTH - width) // 2)
    frame = Image.new("RGB", (width + 2 * left, height + 3 * MARGIN), GROUND)
    frame.paste(Image.fromarray(picture), (left, MARGIN))
    draw = ImageDraw.Draw(frame)
    font = ImageFont.load_default(LETTERS)
    middle_y = MARGIN + height / 2
    middle_x = frame.width / 2
    half = MARGIN / 2
    places = (
        (left - half, middle_y),
        (left + width + half, middle_y),
        (middle_x, half),
        (middle_x, MARGIN + height + half),
    )
    for letter, place in zip(letters, places):
        draw.text(place, letter, TEXT, font, anchor="mm")
    bar_mm = scale_bar(width / scale, BAR_SHARE)
    bar = bar_mm * scale
    y = frame.height - half
    draw.line((MARGIN, y, MARGIN + bar, y), TEXT, 3)
    small = ImageFont.load_default(LETTERS - 4)
    draw.text((MARGIN + bar + 6, y), f"{bar_mm:g} {units.length}", TEXT, small, anchor="lm")
    return np.asarray(frame)


def _side_by_side(pictures: Sequence[np.ndarray]) -> np.ndarray:
    """Pictures of any height in a row, each in the middle of it."""
    height = max(picture.shape[0] for picture in pictures)
    row = np.zeros((height, sum(picture.shape[1] for picture in pictures), 3), np.uint8)
    left = 0
    for picture in pictures:
        top = (height - picture.shape[0]) // 2
        row[top : top + picture.shape[0], left : left + picture.shape[1]] = picture
        left += picture.shape[1]
    return row


def _png(picture: np.ndarray) -> bytes:
    from PIL import Image

    return palette_png(Image.fromarray(picture))
