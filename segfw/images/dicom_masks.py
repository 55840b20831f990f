"""Which DICOM files are masks, and which series each of them was drawn on."""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from pathlib import Path

from segfw.images.dicom import is_dicom
from segfw.images.dicom_header import read_header
from segfw.images.dicom_seg import read_segmentation
from segfw.images.named_mask import NamedMask
from segfw.images.rtstruct import read_structure_set
from segfw.images.voxels import Refusal, SeriesUids

MASKS = ("structure set", "segmentation")
MOST_FILES = 20_000  # that are looked at for the series of a mask


def is_dicom_mask(file: Path) -> bool:
    """Whether a file is a structure set or a segmentation."""
    if not is_dicom(file):
        return False
    header = read_header(file)
    return header is not None and header.kind in MASKS


def named_dicom(path: Path) -> Path | None:
    """The structure set or segmentation that a path is, or that alone lies in a folder without images; else None."""
    if path.is_file():
        return path if is_dicom_mask(path) else None
    if not path.is_dir():
        return None
    files = [file for file in sorted(path.iterdir()) if is_dicom(file)]
    return files[0] if len(files) == 1 and is_dicom_mask(files[0]) else None


def require_same_series(mask: NamedMask, series: SeriesUids) -> None:
    """Refusal if a mask was drawn on another series than the image, and in other coordinates.

    Coordinates are the same in one frame of reference; where files do not say of which they are, nothing is refused.
    """
    said = [each for each in mask.series if each.series or each.frame]
    if not said or not (series.series or series.frame):
        return
    if any(series.series and each.series == series.series for each in said):
        return
    if any(series.frame and each.frame == series.frame for each in said):
        return
    named = next((each.series for each in said if each.series), said[0].frame)
    raise Refusal(
        f"was drawn on another series ({named}) than its image ({series.series or series.frame}); give the series that "
        "it was drawn on"
    )


def series_of_mask(path: Path) -> Path | None:
    """A file of the series that a structure set or segmentation was drawn on, near it; None if it is not there.

    It is looked for in the folder of the mask and in those beside it.
    """
    file = named_dicom(path)
    if file is None:
        return None
    is_structure_set = (header := read_header(file)) is not None and header.kind == "structure set"
    mask: NamedMask = read_structure_set(file) if is_structure_set else read_segmentation(file)
    wanted = {each.series for each in mask.series} - {""}
    for looked_at, candidate in enumerate(_files_near(file)):
        if looked_at >= MOST_FILES:
            return None
        found = read_header(candidate)
        if found is not None and found.kind == "image" and found.series.series in wanted:
            return candidate
    return None


def _files_near(file: Path) -> Iterator[Path]:
    folder = file.parent.absolute()
    yield from _dicom_in(folder)
    yield from _inside(_folders(folder))
    beside = [other for other in _folders(folder.parent) if other != folder]
    yield from _inside(beside)


def _inside(folders: Iterable[Path]) -> Iterator[Path]:
    """DICOM files of folders, and of those in them."""
    for folder in folders:
        yield from _dicom_in(folder)
        for inner in _folders(folder):
            yield from _dicom_in(inner)


def _folders(folder: Path) -> list[Path]:
    return [path for path in sorted(folder.iterdir()) if path.is_dir() and not path.name.startswith(".")]


def _dicom_in(folder: Path) -> Iterator[Path]:
    try:
        entries = sorted(folder.iterdir())
    except OSError:
        return
    for path in entries:
        if path.is_file() and is_dicom(path):
            yield path
