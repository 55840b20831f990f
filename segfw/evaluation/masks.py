"""Reads masks that are to be compared: on one grid, in one orientation, as class indices."""

from __future__ import annotations

import math
from dataclasses import replace
from pathlib import Path

import numpy as np

from segfw.base.records import UserError
from segfw.dataset.labels import LabelMap, LabelSet
from segfw.dataset.named_structures import drawn_as_of
from segfw.images.dicom_masks import series_of_mask
from segfw.images.formats import has_names, is_picture, open_named_mask, read_mask, read_volume, split_ending
from segfw.images.geometry import Geometry, largest_displacement_mm
from segfw.images.mask_colours import is_colour, value_in_words
from segfw.images.named_mask import joined
from segfw.images.values import as_integers
from segfw.images.volume import Volume, stored_like, to_canonical
from segfw.images.voxels import Refusal

IDS_SHOWN = 10  # a sentence that lists hundreds of ids hides what it says


def mask_values(path: Path) -> set[int]:
    """Values in a mask; raises UserError if one is no whole number."""
    values: set[int] = set()
    for slice_yx in read_stored_mask(path).array[0]:
        drawn = np.unique(slice_yx)
        try:
            values.update(as_integers(drawn).tolist())
        except ValueError:
            odd = next(value for value in drawn.tolist() if not _is_whole(value))
            message = f"{path}: holds {odd}, which is no whole number; give the masks, not the images"
            raise UserError(message) from None
    return values


def _is_whole(value: float) -> bool:
    try:
        as_integers(np.array([value]))
    except ValueError:
        return False
    return True


def read_stored_mask(path: Path, labels: LabelSet | None = None, of: Volume | None = None) -> Volume:
    """A mask as stored, (1, Z, Y, X).

    One whose structures have names is put on the grid of the image that it is ``of``, by what its names are among the
    ``labels``.
    """
    volume = read_mask(path, of, None if labels is None else drawn_as_of(path, labels))
    if volume.array.shape[0] != 1:
        raise UserError(f"{path}: has {volume.array.shape[0]} channels; a mask has one, with a number per label")
    return volume


def read_pair(
    reference: Path,
    prediction: Path,
    labels: LabelSet,
    label_map: LabelMap,
    image: Path | None = None,
    *,
    prediction_map: LabelMap = (),
) -> tuple[np.ndarray, np.ndarray, Volume]:
    """Class indices (Z, Y, X) of both masks in canonical orientation, and their common grid as stored.

    ``image`` is the image that both are of, if it is known: masks of a photograph have no millimetres in any format.
    """
    wanted, predicted = _read_both(reference, prediction, labels, image)
    photograph = _photograph(image) if wanted.is_placed or predicted.is_placed else None
    if photograph is not None:
        wanted = stored_like(wanted, photograph)
        predicted = stored_like(predicted, photograph)
    # A photograph's mask as NIfTI has the nominal place of its image, and knows no more of millimetres.
    is_nominal = predicted.geometry == wanted.geometry and not (wanted.is_placed and predicted.is_placed)
    if not wanted.is_placed:  # a picture: the prediction lies where its image does
        wanted = stored_like(wanted, predicted)
    predicted = stored_like(predicted, wanted)
    require_same_grid(prediction, predicted.geometry, reference, wanted.geometry)
    predicted = replace(predicted, geometry=wanted.geometry)  # oriented by the same rounding
    wanted = replace(
        wanted,
        is_placed=wanted.is_placed and not is_nominal,
        is_picture=wanted.is_picture or (image is not None and is_picture(image)),
    )
    return (
        classes_of(to_canonical(wanted), labels, reference, label_map),
        classes_of(to_canonical(predicted), labels, prediction, prediction_map),
        wanted,
    )


def _read_both(reference: Path, prediction: Path, labels: LabelSet, image: Path | None) -> tuple[Volume, Volume]:
    """Both masks; one whose structures have names on the grid of the image, or of the other mask."""
    named = [has_names(path) for path in (reference, prediction)]
    if not any(named):
        return read_stored_mask(reference), read_stored_mask(prediction)
    grid = None if image is None else read_volume(image)
    if grid is None and all(named):
        grid = _grid_of_both(reference, prediction)
    if grid is not None or named[1]:
        wanted = read_stored_mask(reference, labels, grid)
        return wanted, read_stored_mask(prediction, labels, grid or wanted)
    predicted = read_stored_mask(prediction, labels)
    return read_stored_mask(reference, labels, predicted), predicted


def _grid_of_both(reference: Path, prediction: Path) -> Volume | None:
    """The image of two masks that say none: the series of one of them beside it, else a grid that holds both.

    None where one has no grid and no series: reading it says so.
    """
    for path in (reference, prediction):
        series = None if split_ending(path)[1] else series_of_mask(path)
        if series is not None:
            return read_volume(series)
    masks = (open_named_mask(reference), open_named_mask(prediction))
    grids = [mask.grid for mask in masks if mask is not None and mask.grid is not None]
    if len(grids) == 1:  # a structure set lies on the grid of the other one
        shared = grids[0]
    elif len(grids) == 2:
        try:
            shared = joined(grids[0], grids[1])
        except Refusal as error:
            raise UserError(f"{prediction}: {error}") from None
    else:
        return None
    return Volume(array=np.broadcast_to(np.uint8(0), (1, *shared.shape)), geometry=shared)


def _photograph(image: Path | None) -> Volume | None:
    """The image, if it is a picture that says no size of its pixels; its masks have no place but its own."""
    if image is None or not is_picture(image):
        return None
    try:
        volume = read_volume(image)
    except UserError:  # what cannot be shown is told by the report
        return None
    return None if volume.is_placed else volume


def require_same_grid(
    path: Path, geometry: Geometry, reference: Path, wanted: Geometry, called: str = "its reference"
) -> None:
    """UserError unless both grids are the same to within half a voxel; ``reference`` is ``called`` so."""
    remedy = f"resample it to the grid of {reference}, or check that both belong to the same scan"
    if geometry.shape != wanted.shape:
        raise UserError(
            f"{path}: has {_voxels(geometry)} voxels and {called} {_voxels(wanted)} "
            f"(z, y, x after reorientation); {remedy}"
        )
    displacement_mm = largest_displacement_mm(geometry, wanted)
    limit_mm = min(wanted.spacing_mm) / 2
    if displacement_mm >= limit_mm:
        raise UserError(
            f"{path}: lies up to {displacement_mm:.4g} mm away from {called} "
            f"(less than half a voxel, {limit_mm:.4g} mm, is allowed); {remedy}"
        )


def _voxels(geometry: Geometry) -> str:
    return " x ".join(str(size) for size in geometry.shape)


def classes_of(volume: Volume, labels: LabelSet, path: Path, label_map: LabelMap = ()) -> np.ndarray:
    """Class index of every voxel, (Z, Y, X); slice by slice, so that float masks are not rounded all at once."""
    mask_zyx = volume.array[0]
    classes_zyx = np.empty(mask_zyx.shape, dtype=labels.to_classes(np.asarray(labels.values)).dtype)
    for slice_yx, classes_yx in zip(mask_zyx, classes_zyx):
        try:
            classes_yx[...] = labels.to_classes(as_integers(slice_yx), label_map)
        except ValueError:
            expected = [*labels.stored_values, *(value for value, _ in label_map)]
            unknown = ", ".join(_in_words(value) for value in np.setdiff1d(slice_yx, expected)[:IDS_SHOWN].tolist())
            known = ", ".join(f"{value} {name}" for name, value in zip((*labels.names, "ignore"), labels.stored_values))
            raise UserError(
                f"{path}: holds {unknown}, which is no label ({known}); correct the mask, or "
                "give the labels that it was made with"
            ) from None
    return classes_zyx


def _in_words(value: float) -> str:
    is_one = math.isfinite(value) and is_colour(int(value))
    return value_in_words(int(value)) if is_one else f"{value:.15g}"


def read_image(path: Path, reference: Path, stored: Volume) -> np.ndarray:
    """What is shown of an image, in canonical orientation; raises UserError unless it lies on the masks' grid.

    The first channel (Z, Y, X), or the colours (Z, Y, X, 3) of a picture that has them.
    """
    volume = stored_like(read_volume(Path(path)), stored)
    require_same_grid(Path(path), volume.geometry, reference, stored.geometry)
    canonical = to_canonical(replace(volume, geometry=stored.geometry))
    return np.moveaxis(canonical.array, 0, -1) if canonical.is_coloured else canonical.array[0]
