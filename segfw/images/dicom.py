"""DICOM: a folder that holds the files of one series is one image, placed by the positions of its slices.

Where a folder holds several series, a file of one stands for it. What is said of a series names files and numbers, and
nothing that its elements say, which may hold a patient's name.
"""

from __future__ import annotations

import re
from collections import Counter
from collections.abc import Iterable
from pathlib import Path
from typing import NamedTuple

import numpy as np

from segfw.base.words import count
from segfw.images.dicom_elements import MARK, MARK_AT, check_elements
from segfw.images.dicom_header import DicomHeader, kind_of_class, read_header, require_header
from segfw.images.even_slices import check_distances
from segfw.images.multi_frame import read_multi_frame
from segfw.images.stored_bytes import check_room
from segfw.images.stored_pixels import check_dicom_pixels
from segfw.images.voxels import Refusal, SeriesUids, Voxels, affine_of_lps

ENDINGS = (".dcm", ".dicom", ".ima")
START_BYTES = 1 << 14  # the class of a file stands in these
# Classes of files (DICOM PS3.4, table B.5-1).
SOP_CLASS = re.compile(rb"1\.2\.840\.10008\.(?:1\.3\.10|5\.1\.4\.1\.1\.[0-9.]+)")
NO_IMAGE = "is DICOM but no image; give the images"
ROUNDING_OF_DIRECTIONS = 1e-3

# DICOM tags as SimpleITK names them.
SOP_INSTANCE = "0008|0018"
SERIES = "0020|000e"
FRAME_OF_REFERENCE = "0020|0052"
POSITION = "0020|0032"
ORIENTATION = "0020|0037"
THICKNESS = "0018|0050"
FRAMES = "0028|0008"
ROWS = "0028|0010"
SAMPLES = "0028|0002"
BITS = "0028|0100"
SLOPE = "0028|1053"
INTERCEPT = "0028|1052"


class Slice(NamedTuple):
    """What the header of one file says; ``position`` and ``axes`` are None where it says nothing."""

    path: Path
    tags: dict[str, str]
    columns_rows: tuple[int, int]
    spacing_xy: tuple[float, float]
    position: np.ndarray | None  # LPS, of the first pixel
    axes: np.ndarray | None  # (2, 3), LPS directions of x and y
    pixel_bytes: int | None  # that its element of pixels has; None for compressed ones

    @property
    def frames(self) -> int:
        """Slices that the file itself holds."""
        return _whole_number(self.tags.get(FRAMES), 1)


def is_dicom(path: Path) -> bool:
    """Whether a file is DICOM, by its ending or its mark; many have no ending."""
    if not path.is_file() or path.name.startswith("."):
        return False
    if path.suffix.lower() in ENDINGS:
        return True
    try:
        with path.open("rb") as file:
            file.seek(MARK_AT)
            return file.read(len(MARK)) == MARK
    except PermissionError:  # passed over, its series would lack a slice without a word
        return _may_be_slice(path)


def holds_dicom(folder: Path) -> bool:
    """Whether a folder itself, not one inside it, holds DICOM files."""
    return any(is_dicom(path) for path in sorted(folder.iterdir()))


def may_be_lost(path: Path) -> bool:
    """Whether a name in a folder is a link to nothing and, by its ending or for want of one, may stand for DICOM."""
    if path.name.startswith(".") or not path.is_symlink() or path.exists():
        return False
    return _may_be_slice(path)


def _may_be_slice(path: Path) -> bool:
    """Whether the name may be that of a DICOM file: by its ending, a number in its place, or for want of one."""
    return path.suffix.lower() in ENDINGS or re.fullmatch(r"\.\d+|", path.suffix) is not None


def what_it_is(path: Path) -> str:
    """What something is that has a name but cannot be opened as a file, and the remedy."""
    if path.is_symlink() and not path.exists():
        target = path.readlink()
        return f"is a link to {target}, which is missing; fetch that file (git-annex, DVC), or mount its disk"
    return "is no file but a pipe, a socket or a device; put the file itself there"


def read_series(path: Path) -> Voxels:
    """Reads the one series that a folder holds, or of several the one that a file is of.

    Other files, such as RTSTRUCT, SEG and DICOMDIR, are passed over.
    """
    import SimpleITK

    folder = path if path.is_dir() else path.parent
    entries = sorted(folder.iterdir())
    lost = [entry for entry in entries if may_be_lost(entry)]
    if lost:  # without them the others would pass for the whole series
        raise Refusal(f"has {lost[0].name} in it, which {what_it_is(lost[0])}")
    if path.is_dir():
        files = [entry for entry in entries if is_dicom(entry) and not _is_of_no_image(entry)]
        if not files and any(is_dicom(entry) for entry in entries):
            names = ", ".join(entry.name for entry in entries[:3])
            raise Refusal(f"holds DICOM files but no image among them ({names}); give the folder of the images")
    else:
        files = list(files_of_series(path))
    if not files:
        raise Refusal("is a folder without DICOM files; give a file, or the folder that holds one series")
    found: list[Slice] = []
    damaged: list[Path] = []
    for path in files:
        try:
            header = _read_header(path, check_elements(path))
        except (RuntimeError, ValueError) as error:
            if isinstance(error, Refusal):
                raise
            damaged.append(path)
            continue
        if header is not None:
            found.append(header)
    if damaged and not found:
        what = f"holds DICOM files but no image among them, and {damaged[0].name} is damaged or cut short"
        raise Refusal(f"{what}; copy the series again, or give the folder of the images")
    if not found:
        names = ", ".join(path.name for path in files[:3])
        raise Refusal(f"holds DICOM files but no image among them ({names}); give the folder of the images")
    if damaged:  # left out, the others would pass for the whole series
        what = f"has slices, and beside them {damaged[0].name}, which is damaged or cut short"
        raise Refusal(f"{what}; copy the series again, or move the file away if it is no slice")
    series = _series_of(found)
    if len(series) > 1:
        listed = ", ".join(_in_words(members) for members in series.values())
        remedy = "move each into a folder of its own, or give a file of the one that is meant"
        raise Refusal(f"holds {len(series)} series: {listed}; {remedy}")
    slices = _without_copies(found)
    if len(slices) == 1 and slices[0].frames > 1:
        return read_multi_frame(slices[0].path)
    slices = _ordered(slices)
    affine = _affine(slices)
    _check_pixels(slices)
    reader = SimpleITK.ImageSeriesReader()
    reader.SetImageIO("GDCMImageIO")
    reader.SetFileNames([str(part.path) for part in slices])
    if len({(part.tags.get(SLOPE), part.tags.get(INTERCEPT)) for part in slices}) > 1:
        reader.SetOutputPixelType(SimpleITK.sitkFloat32)  # else the first slice's type, which may be integer
    array = SimpleITK.GetArrayFromImage(reader.Execute())
    array = np.moveaxis(array, -1, 0) if array.ndim == 4 else array[None]
    first = slices[0].tags
    uids = SeriesUids(first.get(SERIES, ""), first.get(FRAME_OF_REFERENCE, ""))
    return Voxels(array.reshape(len(array), -1, *array.shape[-2:]), affine, series=uids)


def files_of_series(file: Path) -> tuple[Path, ...]:
    """All files beside a DICOM file that are of its series, sorted, itself among them."""
    header = require_header(file)
    if header.kind != "image":
        raise Refusal(f"is no image but a {header.kind}; give the images" if header.kind != "other" else NO_IMAGE)
    if not header.series.series:
        return (file,)
    others = (other for other in sorted(file.parent.iterdir()) if is_dicom(other))
    return tuple(other for other in others if _is_of(other, header))


def _is_of(file: Path, header: DicomHeader) -> bool:
    """Whether a file is an image of the series of a header; one that cannot be read may be, and is told of."""
    own = read_header(file)
    return own is None or (own.kind == "image" and own.series.series == header.series.series)


def _check_pixels(slices: list[Slice]) -> None:
    """Proves that all slices hold their pixels, and that memory takes them."""
    voxel_bytes = 0
    for part in slices:
        columns, rows = part.columns_rows
        bits = _whole_number(part.tags.get(BITS), 16)
        samples = _whole_number(part.tags.get(SAMPLES), 1)
        announced = -(-columns * rows * samples * bits // 8)
        if part.pixel_bytes is not None and part.pixel_bytes < announced:
            what = f"announces {announced:,} bytes of pixels, but {part.pixel_bytes:,} are stored"
            raise ValueError(f"the header of {part.path.name} {what}")
        check_dicom_pixels(part.path, columns=columns, rows=rows, bits=bits, samples=samples)
        voxel_bytes += columns * rows * samples * -(-bits // 8)
    check_room(voxel_bytes)


def _whole_number(text: str | None, default: int) -> int:
    return int(text) if text and text.isdigit() else default


def _read_header(path: Path, pixel_bytes: int | None) -> Slice | None:
    """The header of one file; None if it is no image. Raises RuntimeError if it cannot be read."""
    import SimpleITK

    reader = SimpleITK.ImageFileReader()
    reader.SetImageIO("GDCMImageIO")
    reader.SetFileName(str(path))
    reader.ReadImageInformation()
    size = reader.GetSize()
    tags = {key: reader.GetMetaData(key).strip() for key in reader.GetMetaDataKeys()}
    if min(size) == 0 or ROWS not in tags:  # RTSTRUCT and the like have no rows
        return None
    axes = _numbers(tags.get(ORIENTATION), 6)
    return Slice(
        path=path,
        tags=tags,
        columns_rows=size[:2],
        spacing_xy=reader.GetSpacing()[:2],
        position=_numbers(tags.get(POSITION), 3),
        axes=None if axes is None else axes.reshape(2, 3),
        pixel_bytes=pixel_bytes,
    )


def _is_of_no_image(path: Path) -> bool:
    """Whether a file is of a kind without an image: structures, segmentations, plans, reports, the directory."""
    if path.name.upper() == "DICOMDIR":
        return True
    header = read_header(path)
    if header is not None:
        return header.kind != "image"
    with path.open("rb") as file:  # which is damaged
        kind = SOP_CLASS.search(file.read(START_BYTES))
    return kind is not None and kind_of_class(kind[0].decode()) != "image"


def _numbers(text: str | None, number: int) -> np.ndarray | None:
    try:
        values = np.array([float(part) for part in (text or "").split("\\")])
    except ValueError:
        return None
    return values if len(values) == number and np.isfinite(values).all() else None


def _series_of(slices: Iterable[Slice]) -> dict[str, list[Slice]]:
    series: dict[str, list[Slice]] = {}
    for part in slices:
        series.setdefault(part.tags.get(SERIES, ""), []).append(part)
    return series


def _in_words(members: list[Slice]) -> str:
    """'that of 1-01.dcm (19 slices)'."""
    return f"that of {members[0].path.name} ({count(sum(part.frames for part in members), 'slice')})"


def _without_copies(slices: list[Slice]) -> list[Slice]:
    """One of each: the same instance may lie in a folder under two names."""
    first: dict[str, Slice] = {}
    for part in slices:
        first.setdefault(part.tags.get(SOP_INSTANCE) or str(part.path), part)
    return list(first.values())


def _ordered(slices: list[Slice]) -> list[Slice]:
    """Slices along their common normal; refuses those that do not make one volume."""
    name = f"the series of {slices[0].path.name}"
    multi_frame = next((part for part in slices if part.frames > 1), None)
    if multi_frame:
        what = f"{name} has files of several frames each ({multi_frame.frames} in {multi_frame.path.name})"
        raise Refusal(f"{what}, of which one alone is an image; keep one of them")
    if len(slices) == 1:
        return slices
    positions: list[np.ndarray] = []
    axes: list[np.ndarray] = []
    for part in slices:
        if part.position is None or part.axes is None:
            what = f"{name}: {part.path.name} says no position or orientation"
            raise Refusal(f"{what}, so the slices cannot be put in order; convert the series to NIfTI")
        positions.append(part.position)
        axes.append(part.axes)
    _check_orientations(axes, name)
    _check_sizes(slices, name)
    normal = np.cross(axes[0][0], axes[0][1])
    along_normal = np.array([float(position @ normal) for position in positions])
    order = np.argsort(along_normal, kind="stable")
    check_distances(along_normal[order], name)
    return [slices[index] for index in order]


def _check_orientations(axes: list[np.ndarray], name: str) -> None:
    orientations: list[np.ndarray] = []
    for directions in axes:
        if not any(np.abs(directions - other).max() <= ROUNDING_OF_DIRECTIONS for other in orientations):
            orientations.append(directions)
    if len(orientations) > 1:
        what = f"{name}: its slices lie in {len(orientations)} different orientations (a localizer?)"
        raise Refusal(f"{what}; keep those of one orientation")


def _check_sizes(slices: list[Slice], name: str) -> None:
    """Refuses slices that differ in the number or the spacing of their pixels."""
    sizes = Counter(f"{part.columns_rows[0]} x {part.columns_rows[1]}" for part in slices)
    if len(sizes) > 1:
        listed = ", ".join(f"{number} of {size} pixels" for size, number in sizes.items())
        raise Refusal(f"{name}: its slices differ in size ({listed}); keep those of one size")
    spacings = np.array([part.spacing_xy for part in slices])
    if not np.allclose(spacings, spacings[0], rtol=1e-3):
        raise Refusal(f"{name}: its slices differ in pixel spacing; keep those of one spacing")


def _affine(slices: list[Slice]) -> np.ndarray:
    """From the first and the last position: under a gantry tilt slices do not follow each other along their normal."""
    first = slices[0]
    last = slices[-1]
    x, y = np.eye(3)[:2] if first.axes is None else first.axes
    origin = np.zeros(3) if first.position is None else first.position
    step = np.cross(x, y) * _thickness(first)
    if len(slices) > 1 and last.position is not None:
        step = (last.position - origin) / (len(slices) - 1)
    length = float(np.linalg.norm(step))
    direction = np.column_stack([x, y, step / length])
    return affine_of_lps(direction, np.array([*first.spacing_xy, length]), origin)


def _thickness(part: Slice) -> float:
    thickness = _numbers(part.tags.get(THICKNESS), 1)
    return float(thickness[0]) if thickness is not None and thickness[0] > 0 else 1.0
