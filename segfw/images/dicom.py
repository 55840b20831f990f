"""DICOM: a folder that holds the files of one series is one image, placed by the positions of its slices."""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Iterable
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np

from segfw.images.voxels import Refusal, Voxels, affine_of_lps

ENDINGS = (".dcm", ".dicom", ".ima")
MARK_AT, MARK = 128, b"DICM"
UNEVEN = 0.1  # share of the slice distance by which distances may differ: far above rounding, far below a slice
ROUNDING_OF_DIRECTIONS = 1e-3

# DICOM tags as SimpleITK names them.
SOP_INSTANCE, SERIES, SERIES_NUMBER, DESCRIPTION = "0008|0018", "0020|000e", "0020|0011", "0008|103e"
POSITION, ORIENTATION, THICKNESS = "0020|0032", "0020|0037", "0018|0050"
FRAMES, SLOPE, INTERCEPT = "0028|0008", "0028|1053", "0028|1052"


class Slice(NamedTuple):
    """What the header of one file says; ``position`` and ``axes`` are None where it says nothing."""

    path: Path
    tags: dict[str, str]
    columns_rows: tuple[int, int]
    spacing_xy: tuple[float, float]
    position: np.ndarray | None  # LPS, of the first pixel
    axes: np.ndarray | None  # (2, 3), LPS directions of x and y

    @property
    def frames(self) -> int:
        """Slices that the file itself holds."""
        return int(self.tags.get(FRAMES) or 1)


def is_dicom(path: Path) -> bool:
    """Whether a file is DICOM, by its ending or its mark; many have no ending."""
    if not path.is_file() or path.name.startswith("."):
        return False
    if path.suffix.lower() in ENDINGS:
        return True
    with path.open("rb") as file:
        file.seek(MARK_AT)
        return file.read(len(MARK)) == MARK


def holds_dicom(folder: Path) -> bool:
    """Whether a folder itself, not one inside it, holds DICOM files."""
    return any(is_dicom(path) for path in sorted(folder.iterdir()))


def read_series(folder: Path) -> Voxels:
    """Reads the one series that a folder holds; other files in it, such as RTSTRUCT and DICOMDIR, are passed over."""
    import SimpleITK

    files = sorted(path for path in folder.iterdir() if is_dicom(path))
    if not files:
        raise Refusal("is a folder without DICOM files; give a file, or the folder that holds one series")
    found = [header for header in map(_read_header, files) if header is not None]
    if not found:
        names = ", ".join(path.name for path in files[:3])
        raise Refusal(f"holds DICOM files but no image among them ({names}); give the folder of the images")
    series = _series_of(found)
    if len(series) > 1:
        listed = "; ".join(_in_words(members) for members in series.values()).replace("; ", ", ")
        raise Refusal(f"holds {len(series)} series: {listed}; move each into a folder of its own")
    slices = _ordered(_without_copies(found))
    affine = _affine(slices)
    reader = SimpleITK.ImageSeriesReader()
    reader.SetImageIO("GDCMImageIO")
    reader.SetFileNames([str(part.path) for part in slices])
    if len({(part.tags.get(SLOPE), part.tags.get(INTERCEPT)) for part in slices}) > 1:
        reader.SetOutputPixelType(SimpleITK.sitkFloat32)  # else the first slice's type, which may be integer
    array = SimpleITK.GetArrayFromImage(reader.Execute())
    array = np.moveaxis(array, -1, 0) if array.ndim == 4 else array[None]
    return Voxels(array.reshape(len(array), -1, *array.shape[-2:]), affine)


def _read_header(path: Path) -> Slice | None:
    """The header of one file; None if it is no image."""
    import SimpleITK

    reader = SimpleITK.ImageFileReader()
    reader.SetImageIO("GDCMImageIO")
    reader.SetFileName(str(path))
    try:
        reader.ReadImageInformation()
    except RuntimeError:
        return None
    size = reader.GetSize()
    tags = {key: reader.GetMetaData(key).strip() for key in reader.GetMetaDataKeys()}
    if min(size) == 0 or "0028|0010" not in tags:  # RTSTRUCT and the like have no rows
        return None
    position, axes = _numbers(tags.get(POSITION), 3), _numbers(tags.get(ORIENTATION), 6)
    return Slice(
        path=path,
        tags=tags,
        columns_rows=size[:2],
        spacing_xy=reader.GetSpacing()[:2],
        position=position,
        axes=None if axes is None else axes.reshape(2, 3),
    )


def _numbers(text: str | None, count: int) -> np.ndarray | None:
    try:
        values = np.array([float(part) for part in (text or "").split("\\")])
    except ValueError:
        return None
    return values if len(values) == count and np.isfinite(values).all() else None


def _series_of(slices: Iterable[Slice]) -> dict[str, list[Slice]]:
    series: dict[str, list[Slice]] = {}
    for part in slices:
        series.setdefault(part.tags.get(SERIES, ""), []).append(part)
    return series


def _in_words(members: list[Slice]) -> str:
    """'4 "t2_tse_tra" of 19 slices'."""
    tags, count = members[0].tags, sum(part.frames for part in members)
    description = tags.get(DESCRIPTION, "without description").replace(";", ",")
    return f'{tags.get(SERIES_NUMBER, "?")} "{description}" of {count} slice{"" if count == 1 else "s"}'


def _without_copies(slices: list[Slice]) -> list[Slice]:
    """One of each: the same instance may lie in a folder under two names."""
    first: dict[str, Slice] = {}
    for part in slices:
        first.setdefault(part.tags.get(SOP_INSTANCE) or str(part.path), part)
    return list(first.values())


def _ordered(slices: list[Slice]) -> list[Slice]:
    """Slices along their common normal; refuses those that do not make one volume."""
    name = f"series {_in_words(slices)}"
    several = next((part for part in slices if part.frames > 1), None)
    if several:
        what = f"{name} is multi-frame DICOM ({several.frames} frames in {several.path.name})"
        raise Refusal(f"{what}, which segfw does not read; convert it to NIfTI with a DICOM converter")
    if len(slices) == 1:
        return slices
    lacking = [part for part in slices if part.position is None or part.axes is None]
    if lacking:
        what = f"{name}: {lacking[0].path.name} says no position or orientation"
        raise Refusal(f"{what}, so the slices cannot be put in order; convert the series to NIfTI")
    _check_same(slices, name)
    normal = np.cross(*slices[0].axes)
    along = {part.path: float(part.position @ normal) for part in slices}
    ordered = sorted(slices, key=lambda part: along[part.path])
    places = np.array([along[part.path] for part in ordered])
    _check_distances(places, name)
    return ordered


def _check_same(slices: list[Slice], name: str) -> None:
    def kinds(what: Callable[[Slice], Any]) -> Counter:
        return Counter(what(part) for part in slices)

    axes = [part.axes for part in slices]
    directions: list[np.ndarray] = []
    for own in axes:
        if not any(np.abs(own - other).max() <= ROUNDING_OF_DIRECTIONS for other in directions):
            directions.append(own)
    if len(directions) > 1:
        what = f"{name}: its slices lie in {len(directions)} different orientations (a localizer?)"
        raise Refusal(f"{what}; keep those of one orientation")
    sizes = kinds(lambda part: f"{part.columns_rows[0]} x {part.columns_rows[1]}")
    if len(sizes) > 1:
        listed = ", ".join(f"{count} of {size} pixels" for size, count in sizes.items())
        raise Refusal(f"{name}: its slices differ in size ({listed}); keep those of one size")
    spacings = np.array([part.spacing_xy for part in slices])
    if not np.allclose(spacings, spacings[0], rtol=1e-3):
        raise Refusal(f"{name}: its slices differ in pixel spacing; keep those of one spacing")


def _check_distances(places_mm: np.ndarray, name: str) -> None:
    steps = np.diff(places_mm)
    usual = float(np.median(steps[steps > 1e-3 * steps.max()])) if steps.max() > 0 else 0.0
    distinct = 1 + int((steps > UNEVEN * usual).sum()) if usual else 1
    if distinct < len(places_mm):
        what = f"{name} lie at {distinct} position{'' if distinct == 1 else 's'}, several at one"
        raise Refusal(f"{what} (b-values, echoes or time points?); keep one file per position")
    wrong = np.flatnonzero(np.abs(steps - usual) > UNEVEN * usual)
    if len(wrong):
        first, step = places_mm[wrong[0]], steps[wrong[0]]
        what = f"{name}: between {first:.1f} and {first + step:.1f} mm along their normal two slices are {step:.2f} mm "
        what += f"apart, the others {usual:.2f} mm (slices missing?)"
        raise Refusal(f"{what}; complete the series or resample it evenly")


def _affine(slices: list[Slice]) -> np.ndarray:
    """From the first and the last position: under a gantry tilt slices do not follow each other along their normal."""
    first, last = slices[0], slices[-1]
    x, y = np.eye(3)[:2] if first.axes is None else first.axes
    step = np.cross(x, y) * _thickness(first)
    if len(slices) > 1:
        step = (last.position - first.position) / (len(slices) - 1)
    length = float(np.linalg.norm(step))
    direction = np.column_stack([x, y, step / length])
    origin = np.zeros(3) if first.position is None else first.position
    return affine_of_lps(direction, np.array([*first.spacing_xy, length]), origin)


def _thickness(part: Slice) -> float:
    thickness = _numbers(part.tags.get(THICKNESS), 1)
    return float(thickness[0]) if thickness is not None and thickness[0] > 0 else 1.0
