"""The images in a folder: files by their endings, DICOM series, and rows of numbers that are channels."""

from __future__ import annotations

import re
from collections.abc import Callable, Iterable
from pathlib import Path

from segfw.base.file_names import (
    BIDS_FOLDER,
    ENSEMBLE_SETTINGS_FILE,
    FORMAT_FOLDERS,
    MASK_SETTINGS_FILE,
    REPORT_FOLDER,
)
from segfw.base.records import UserError
from segfw.images.dicom import ENDINGS as DICOM_ENDINGS
from segfw.images.dicom import holds_dicom, is_dicom, may_be_lost
from segfw.images.dicom_header import read_header
from segfw.images.dicom_masks import MASKS, named_dicom
from segfw.images.formats import split_ending

# Folders that archives, cameras, disks and network stores leave behind; what begins with a point is passed over anyway.
JUNK_FOLDERS = ("__macosx", "@eadir", "$recycle.bin", "system volume information", "lost+found")


def image_files(folder: Path) -> list[Path]:
    """Files of a folder in a format we read and folders in it that hold a DICOM series, sorted; no hidden ones.

    Raises UserError if it is no folder.
    """
    if not folder.is_dir():
        problem = "is a file" if folder.is_file() else "no such folder"
        raise UserError(f"{folder}: {problem}; give a folder of images or masks")
    return sorted(path for path in _visible(folder) if _is_image(path))


def _visible(folder: Path) -> list[Path]:
    """What is in a folder; of one of segfw's masks without the folders of the same masks in other formats."""
    found = [path for path in folder.iterdir() if not path.name.startswith(".")]
    if any((folder / name).is_file() for name in (MASK_SETTINGS_FILE, ENSEMBLE_SETTINGS_FILE)):
        found = [path for path in found if path.name not in (*FORMAT_FOLDERS, REPORT_FOLDER, BIDS_FOLDER)]
    return found


def _is_image(path: Path) -> bool:
    """By its name alone, so that links to nothing, pipes and folders of that name are told of and not passed over."""
    return bool(split_ending(path)[1]) or may_be_lost(path) or (path.is_dir() and holds_dicom(path))


def mask_files(folder: Path) -> list[Path]:
    """As ``image_files``, with the structure sets and segmentations of DICOM, as files or each in a folder of its own.

    Folders of DICOM beside such masks are the images that these were drawn on.
    """
    found = [path for path in _visible(folder) if named_dicom(path) is not None]
    plain = [path for path in image_files(folder) if not found or path.is_file()]
    return sorted({*plain, *found})


def mask_stem(path: Path) -> str:
    """What a mask is called: its name without its ending, of DICOM also without a word for its kind."""
    stem, ending = split_ending(path)
    if ending or not path.is_file():
        return stem
    stem = path.stem if path.suffix.lower() in DICOM_ENDINGS else path.name
    return re.sub(r"[._-](seg|rtstruct|rtss)$", "", stem, flags=re.IGNORECASE) or stem


def series_folders(folder: Path) -> list[Path]:
    """All folders inside ``folder``, however deep, that hold DICOM files themselves; sorted, without hidden ones.

    Links to folders are followed, but no real folder is searched twice, so that links in a circle come to an end.
    """
    found: list[Path] = []
    searched: set[Path] = set()

    def search(inside: Path, above: tuple[Path, ...]) -> None:
        searched.add(inside.resolve())
        for path in sorted(path for path in inside.iterdir() if path.is_dir() and not path.name.startswith(".")):
            real = path.resolve()
            if real in above:
                continue
            if holds_dicom(path) or any(may_be_lost(entry) for entry in path.iterdir()):
                found.append(path)
            if real not in searched:
                search(path, (*above, real))

    search(folder, (folder.resolve(),))
    return found


def series_in(folder: Path) -> list[Path]:
    """What stands for each series in a folder: itself, or where it holds several a file of each, in their order.

    Nothing where there are structure sets and segmentations alone. A folder of which nothing can be told stands for
    itself; reading it says what is wrong.
    """
    first: dict[str, Path] = {}
    kinds = set()
    for path in sorted(folder.iterdir()):
        if not is_dicom(path) or path.name.upper() == "DICOMDIR":
            continue
        header = read_header(path)
        kinds.add("unknown" if header is None else header.kind)
        if header is not None and header.kind == "image":
            first.setdefault(header.series.series, path)
    if kinds and kinds <= set(MASKS):
        return []
    return list(first.values()) if len(first) > 1 else [folder]


def every_series(source: Path) -> list[Path]:
    """What stands for each DICOM series in a folder, however deep, or is ``source`` itself; nothing elsewhere."""
    if source.is_file():
        return [source] if is_dicom(source) else []
    if not source.is_dir():
        return []
    own = [source] if holds_dicom(source) else []
    return [path for folder in (*own, *series_folders(source)) for path in series_in(folder)]


def group_channels(
    files: Iterable[Path], channel_count: int, stem_of: Callable[[Path], str] = lambda path: split_ending(path)[0]
) -> dict[str, list[Path]]:
    """Files by case id. CASE_0000, CASE_0001, ... are channels of CASE; a plain name is a case of its own.

    Names that only look numbered (scan_2021, or frame_0000 to frame_0019 of a single channel) are plain ones: a name
    counts as a channel only if no file of the same CASE has a number that is no channel.
    """
    files = list(files)
    stems = [stem_of(path) for path in files]
    numbered = [re.fullmatch(r"(.+)_(\d{4})", stem) for stem in stems]
    only_looks_numbered = {match[1] for match in numbered if match and int(match[2]) >= channel_count}
    cases: dict[str, list[Path]] = {}
    for path, stem, match in zip(files, stems, numbered):
        case = stem
        if match and match[1] not in only_looks_numbered:
            case = match[1]
        cases.setdefault(case, []).append(path)
    return cases


def inner_folders(folder: Path) -> list[Path]:
    """The folders in a folder, sorted, without hidden ones and what systems leave behind."""
    names = (path for path in folder.iterdir() if not path.name.startswith("."))
    return sorted(path for path in names if path.name.lower() not in JUNK_FOLDERS and path.is_dir())
