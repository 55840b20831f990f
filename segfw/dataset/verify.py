"""What can be wrong with a case, found all at once and said in words: which file, what value, what to do."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path

import numpy as np

from segfw.base.words import count, with_folder
from segfw.dataset.annotated_structures import undrawn_names, values_not_annotated
from segfw.dataset.cases import Case, Finding
from segfw.dataset.labels import LabelSet, apply_map
from segfw.images.geometry import Geometry, largest_displacement_mm
from segfw.images.mask_colours import is_colour, value_in_words
from segfw.images.values import as_integers, count_values
from segfw.images.volume import Volume, stored_like

MOST_LABELS = 256  # in one mask, where nothing says what they are
MOST_COLOURS = 32  # that somebody paints labels in
COLOURS_SHOWN = 8
IN_COLOURS = "mask-colours"
SMOOTHED = "export the masks again without smoothing (antialiasing) or JPEG, which blend colours at borders"


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


def file_notes(case: Case, path: Path, volume: Volume) -> list[Finding]:
    """The reader's doubts about a file; that a picture has no spacing is usual, and no alarm."""
    notes = []
    for note in volume.notes:
        what, _, remedy = note.partition("; ")
        if volume.is_placed:
            notes.append(_warning("doubtful-header", case, with_folder(path), what, remedy))
        else:
            notes.append(
                Finding(
                    kind="no-spacing", severity="note", case=case.id, file=with_folder(path), what=what, remedy=remedy
                )
            )
    return notes


def check_case(
    case: Case,
    images: Sequence[Volume | None],
    mask: Volume | None,
    *,
    channel_count: int | None,
    labels: LabelSet | None,
    labels_source: str = "dataset.json",
) -> list[Finding]:
    """All that is wrong with the files of one case that could be read; those that could not are None.

    ``channel_count`` and ``labels`` None means unknown yet. Grids are compared in the order of the first image.
    ``labels_source`` is the file that names the labels.
    """
    findings = []
    readable = [(path, volume) for path, volume in zip(case.images, images) if volume is not None]
    if channel_count is not None and len(readable) == len(images):
        findings += _check_channel_count(case, readable, channel_count)
    for path, volume in readable:
        findings += _check_image(case, with_folder(path), volume.array)
        findings += _check_grid(case, readable[0], path, volume)
    if mask is not None and case.label is not None:
        first = readable[0][1] if readable else None
        findings += _check_mask(case, with_folder(case.label), mask, first, labels, labels_source)
    return findings


def check_headers(case: Case, images: Sequence[Volume], channel_count: int) -> list[Finding]:
    """What is wrong with the channels and grids of a case's images, of which no voxel is looked at."""
    readable = list(zip(case.images, images))
    findings = _check_channel_count(case, readable, channel_count)
    for path, volume in readable:
        findings += _check_grid(case, readable[0], path, volume)
    return findings


def _check_grid(case: Case, first: tuple[Path, Volume], path: Path, volume: Volume) -> list[Finding]:
    difference = volume_mismatch(first[1], volume)
    if not difference:
        return []
    what = f"its grid differs from {with_folder(first[0])}: {difference}"
    return [_error("channel-grid", case, with_folder(path), what, "resample all channels of a case onto one grid")]


def _error(kind: str, case: Case, file: str, what: str, remedy: str) -> Finding:
    return Finding(kind=kind, severity="error", case=case.id, file=file, what=what, remedy=remedy)


def _warning(kind: str, case: Case, file: str, what: str, remedy: str) -> Finding:
    return Finding(kind=kind, severity="warning", case=case.id, file=file, what=what, remedy=remedy)


def _check_channel_count(case: Case, readable: Sequence[tuple[Path, Volume]], expected: int) -> list[Finding]:
    found = sum(volume.array.shape[0] for _, volume in readable)
    if found == expected:
        return []
    has_fourth_axis = any(volume.array.shape[0] > 1 and ".nii" in path.name.lower() for path, volume in readable)
    remedy = "correct channel_names in dataset.json, or the files"
    if has_fourth_axis and found > expected:
        volumes = "one volume" if expected == 1 else f"{expected} volumes"
        remedy = f"if it is a time series, choose {volumes}; else {remedy}"
    axis = " (fourth axis)" if has_fourth_axis else ""
    return [_error("channel-count", case, "", f"has {count(found, 'channel')}{axis}, expected {expected}", remedy)]


def _check_image(case: Case, file: str, array: np.ndarray) -> list[Finding]:
    if array.dtype.kind == "f":
        broken = array.size - int(np.isfinite(array).sum())
        if broken:
            what = f"{count(broken, 'voxel')} {'is' if broken == 1 else 'are'} NaN or infinite"
            remedy = "replace them by the background value or export the image again"
            return [_error("image-nan", case, file, what, remedy)]
    low = array.min()
    if low == array.max():
        what = f"every voxel has the value {low}"
        return [_error("constant-image", case, file, what, "export the image again or leave it out")]
    return []


def _check_mask(
    case: Case, file: str, mask: Volume, image: Volume | None, labels: LabelSet | None, labels_source: str
) -> list[Finding]:
    findings = []
    array = mask.array
    difference = image and volume_mismatch(image, mask)
    if difference:
        what = f"the mask's grid differs from the image's: {difference}"
        remedy = "resample the mask onto the image (nearest neighbour) or export both from one series"
        findings.append(_error("mask-grid", case, file, what, remedy))
    if array.shape[0] != 1:
        what = f"the mask has {array.shape[0]} channels"
        return [*findings, _error("mask-channels", case, file, what, "store one label value per voxel")]
    if array.dtype.kind == "f" and not np.isfinite(array).all():
        broken = array.size - int(np.isfinite(array).sum())
        what = f"{broken} mask voxels are NaN or infinite"
        return [*findings, _error("mask-nan", case, file, what, "set them to 0")]
    try:
        voxels_of = count_values(as_integers(array))
    except ValueError as error:
        remedy = "the mask was interpolated; export it again with nearest neighbour"
        if len(np.unique(array)) > MOST_LABELS:
            remedy += f", or if it is an image, see whether {_swap_of(case)}"
        return [*findings, _error("mask-not-integer", case, file, str(error), remedy)]
    in_colours = _colour_findings(case, file, voxels_of, labels_source)
    if in_colours:
        return [*findings, *in_colours]
    drawn = np.array(list(voxels_of))
    if labels is None and len(drawn) > MOST_LABELS:
        what = f"holds {len(drawn)} different values, as an image does"
        remedy = f"see whether {_swap_of(case)}; if they are labels, list them in dataset.json"
        return [*findings, _error("mask-is-image", case, file, what, remedy)]
    return [
        *findings,
        *_check_values(case, file, set(apply_map(drawn, case.label_map).tolist()), labels, labels_source),
    ]


def _swap_of(case: Case) -> str:
    """What to look at where a mask looks like an image: the two folders, or two files of one folder."""
    if case.label is None:
        return "it is one"
    if case.label.parent in (case.images[0].parent, case.images[0]):
        return f"{case.images[0].name} and {case.label.name} are exchanged"
    return f"{case.label.parent} holds the images instead of the masks"


def _colour_findings(case: Case, file: str, voxels_of: Mapping[int, int], labels_source: str) -> list[Finding]:
    """What is wrong with a mask that is painted in colours, or whose colours a table names."""
    if not any(is_colour(value) for value, _ in case.label_map):
        if not any(is_colour(value) for value in voxels_of):
            return []
        what = f"is painted in {count(len(voxels_of), 'colour')}, not in label values"
        return [_error(IN_COLOURS, case, file, what, "give the colours names in a table")]
    known = {value for value, _ in case.label_map}
    unknown = sorted((value for value in voxels_of if value not in known), key=lambda value: -voxels_of[value])
    if not unknown:
        return []
    listed = ", ".join(f"{value_in_words(value)} ({voxels_of[value]:,} pixels)" for value in unknown[:COLOURS_SHOWN])
    more = f" and {len(unknown) - COLOURS_SHOWN} more" if len(unknown) > COLOURS_SHOWN else ""
    what = f"holds {listed}{more}, which {labels_source} does not list"
    remedy = "add a line for each, or correct the mask"
    if len(unknown) > MOST_COLOURS:
        remedy = f"{SMOOTHED}; else add a line for each"
    return [_error("unknown-colour", case, file, what, remedy)]


def _check_values(
    case: Case, file: str, values: set[int], labels: LabelSet | None, labels_source: str
) -> list[Finding]:
    """What is wrong with the values of a mask, after the case's label map was applied."""
    findings = []
    if labels is not None:
        unknown = sorted(values - set(labels.stored_values))
        if unknown:
            some = ", ".join(str(value) for value in unknown[:5])
            more = ", ..." if len(unknown) > 5 else ""
            what = f"holds the label value {some}{more}, which {labels_source} does not list"
            place = "'labels'" if labels_source.endswith(".json") else "the table"
            findings.append(_error("unknown-label", case, file, what, f"add it to {place} or correct the mask"))
        for value in values_not_annotated(case, values, labels):
            name = undrawn_names(labels, value)
            what = f"holds the label value {value} ({name}), which by 'annotated' nobody drew in this case"
            remedy = f"add {name} to the case's list in dataset.json, or correct the mask"
            findings.append(_error("not-annotated-label", case, file, what, remedy))
    background = labels.values[0] if labels else 0
    ignore = labels.ignore if labels else None
    if not values - {background, ignore}:
        remedy = "check that nothing is to be seen there, or leave the case out"
        what = "the mask is empty"
        if background not in values:
            what = "no voxel of the mask is annotated (all have the ignore label)"
        findings.append(_warning("empty-mask", case, file, what, remedy))
    return findings
