"""What can be wrong with a case, found all at once and said in words: which file, what value, what to do."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

import numpy as np

from segfw.dataset.cases import Case, LabelSet, Problem, apply_map
from segfw.images.geometry import Geometry, Volume, largest_displacement_mm, stored_like

LARGEST_TABLE, PART_VOXELS = 1 << 16, 1 << 20
INTEGER_TOLERANCE = 1e-3  # masks stored as scaled or floating numbers come back as 0.99999997


def as_integers(mask: np.ndarray) -> np.ndarray:
    """Integer values of a mask; raises ValueError if a value is no integer, which means it was interpolated."""
    if mask.dtype.kind in "iub":
        return mask.astype(np.uint8) if mask.dtype.kind == "b" else mask
    with np.errstate(invalid="ignore"):
        rounded = np.rint(mask)
        wrong = ~(np.abs(mask - rounded) <= INTEGER_TOLERANCE)
    if wrong.any():
        example = float(mask[wrong][0])
        raise ValueError(f"holds {int(wrong.sum())} values that are not integers, such as {example:.4g}")
    return rounded.astype(np.int32)


def count_values(mask: np.ndarray) -> dict[int, int]:
    """Voxels of each value of an integer mask, by value in ascending order.

    Small values are counted in parts: NumPy's sort, and its count of all at once, take 8 bytes a voxel and time.
    """
    low, high = int(mask.min()), int(mask.max())
    if high - low >= LARGEST_TABLE:
        return dict(zip(*(found.tolist() for found in np.unique(mask, return_counts=True))))
    counts = np.zeros(high - low + 1, dtype=np.int64)
    flat = mask.ravel(order="K")  # in the order of memory, so that nothing is copied
    for start in range(0, len(flat), PART_VOXELS):
        counts += np.bincount(flat[start : start + PART_VOXELS].astype(np.int64) - low, minlength=len(counts))
    present = np.flatnonzero(counts)
    return {int(index) + low: int(counts[index]) for index in present}


def grid_mismatch(first: Geometry, second: Geometry) -> str | None:
    """How two grids differ, in words, or None if they put every voxel in the same place.

    The tolerance is half a voxel at the corner where they differ most: below it, no voxel is taken for another.
    """
    if first.shape != second.shape:
        return f"shape (z, y, x) {second.shape} against {first.shape}"
    distance_mm = largest_displacement_mm(first, second)
    if distance_mm <= 0.5 * min(first.spacing_mm):
        return None
    if not np.allclose(first.spacing_mm, second.spacing_mm, rtol=1e-3):
        spacings = [tuple(round(value, 4) for value in grid.spacing_mm) for grid in (second, first)]
        return f"spacing (z, y, x) {spacings[0]} against {spacings[1]} mm"
    return f"{distance_mm:.2f} mm apart at a corner (origin or direction differ)"


def volume_mismatch(first: Volume, second: Volume) -> str | None:
    """As ``grid_mismatch``, but axes may be stored permuted and flipped, and pictures without a place fit by shape."""
    return grid_mismatch(first.geometry, stored_like(second, first).geometry)


def file_notes(case: Case, path: Path, volume: Volume) -> list[Problem]:
    """The reader's doubts about a file, as warnings."""
    kind = "doubtful-header" if volume.is_placed else "no-spacing"  # which is usual for pictures
    parts = (note.partition("; ") for note in volume.notes)
    return [_problem(kind, case, path.name, what, remedy, is_warning=True) for what, _, remedy in parts]


def check_case(
    case: Case,
    images: Sequence[Volume | None],
    mask: Volume | None,
    *,
    channel_count: int | None,
    labels: LabelSet | None,
) -> list[Problem]:
    """All problems of the files of one case that could be read; those that could not are None.

    ``channel_count`` and ``labels`` None means unknown yet. Grids are compared in the order of the first image.
    """
    problems = []
    readable = [(path, volume) for path, volume in zip(case.images, images) if volume is not None]
    found = sum(volume.array.shape[0] for _, volume in readable)
    if channel_count is not None and found != channel_count and len(readable) == len(images):
        has_fourth_axis = any(volume.array.shape[0] > 1 and ".nii" in path.name.lower() for path, volume in readable)
        axis = " (fourth axis)" if has_fourth_axis else ""
        remedy = "correct channel_names in dataset.json, or the files"
        if has_fourth_axis and found > channel_count:
            remedy = f"if it is a time series, choose {_volumes(channel_count)}; else {remedy}"
        problems.append(
            _problem("channel-count", case, "", f"has {found} channels{axis}, expected {channel_count}", remedy)
        )
    for path, volume in readable:
        problems += _check_image(case, path.name, volume.array)
        difference = volume_mismatch(readable[0][1], volume)
        if difference:
            what = f"its grid differs from {readable[0][0].name}: {difference}"
            problems.append(
                _problem("channel-grid", case, path.name, what, "resample all channels of a case onto one grid")
            )
    if mask is not None:
        problems += _check_mask(case, mask, readable[0][1] if readable else None, labels)
    return problems


def _volumes(number: int) -> str:
    return "one volume" if number == 1 else f"{number} volumes"


def _problem(kind: str, case: Case, file: str, what: str, remedy: str, is_warning: bool = False) -> Problem:
    return Problem(kind=kind, case=case.id, file=file, what=what, remedy=remedy, is_warning=is_warning)


def _check_image(case: Case, file: str, array: np.ndarray) -> list[Problem]:
    if array.dtype.kind == "f":
        broken = array.size - int(np.isfinite(array).sum())
        if broken:
            what = f"{broken} voxels are NaN or infinite"
            return [
                _problem(
                    "image-nan", case, file, what, "replace them by the background value or export the image again"
                )
            ]
    low, high = array.min(), array.max()
    if low == high:
        return [
            _problem(
                "constant-image",
                case,
                file,
                f"every voxel has the value {low}",
                "export the image again or leave it out",
            )
        ]
    return []


def _check_mask(case: Case, mask: Volume, image: Volume | None, labels: LabelSet | None) -> list[Problem]:
    file, array, problems = case.label.name, mask.array, []
    difference = image and volume_mismatch(image, mask)
    if difference:
        what = f"the mask's grid differs from the image's: {difference}"
        remedy = "resample the mask onto the image (nearest neighbour) or export both from one series"
        problems.append(_problem("mask-grid", case, file, what, remedy))
    if array.shape[0] != 1:
        what = f"the mask has {array.shape[0]} channels"
        return [*problems, _problem("mask-channels", case, file, what, "store one label value per voxel")]
    if array.dtype.kind == "f" and not np.isfinite(array).all():
        broken = array.size - int(np.isfinite(array).sum())
        return [
            *problems,
            _problem("mask-nan", case, file, f"{broken} mask voxels are NaN or infinite", "set them to 0"),
        ]
    try:
        values = np.unique(apply_map(np.array([*count_values(as_integers(array))]), case.label_map))
    except ValueError as error:
        remedy = "the mask was interpolated; export it again with nearest neighbour"
        return [*problems, _problem("mask-not-integer", case, file, str(error), remedy)]
    if labels is not None:
        unknown = sorted(set(values.tolist()) - set(labels.stored_values))
        if unknown:
            some = ", ".join(str(value) for value in unknown[:5]) + (", ..." if len(unknown) > 5 else "")
            what = f"holds the label value {some}, which dataset.json does not list"
            problems.append(_problem("unknown-label", case, file, what, "add it to 'labels' or correct the mask"))
    background = labels.values[0] if labels else 0
    if not set(values.tolist()) - {background, labels and labels.ignore}:
        remedy = "check that nothing is to be seen there, or leave the case out"
        is_blank = background not in values
        what = "no voxel of the mask is annotated (all have the ignore label)" if is_blank else "the mask is empty"
        problems.append(_problem("empty-mask", case, file, what, remedy, is_warning=True))
    return problems
