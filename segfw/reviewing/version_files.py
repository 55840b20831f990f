"""The files of versions: ``review/labels/CASE/v0001.nii.gz`` with ``v0001.json``. No file is ever written over."""

from __future__ import annotations

import re
from contextlib import suppress
from pathlib import Path

import numpy as np

from segfw.base.errors import UserError
from segfw.base.file_names import REVIEW_FOLDER
from segfw.base.files import remove_partials
from segfw.images.formats import PLAIN_MASK, read_mask, write_labels
from segfw.images.geometry import Geometry
from segfw.images.volume import Volume
from segfw.reviewing.mask_version import MaskVersion, content_sha256

LABELS_FOLDER = "labels"
VERSION_NAME = re.compile(r"v(\d{4,})(\.nii\.gz|\.json)")
UNSIGNED = "segfw review version; see review/log.jsonl whether it is signed"


def versions_folder(folder: Path, case: str) -> Path:
    """Where the versions of a case lie, in a folder of masks."""
    return folder / REVIEW_FOLDER / LABELS_FOLDER / case


def version_file(folder: Path, case: str, number: int) -> Path:
    """The mask of a version."""
    return versions_folder(folder, case) / f"v{number:04d}{PLAIN_MASK}"


def record_file(folder: Path, case: str, number: int) -> Path:
    """What is said of a version."""
    return versions_folder(folder, case) / f"v{number:04d}.json"


def next_number(folder: Path, case: str) -> int:
    """A number that no file has, not even one that a killed process left."""
    place = versions_folder(folder, case)
    found = [VERSION_NAME.fullmatch(path.name) for path in place.iterdir()] if place.is_dir() else []
    return max((int(match[1]) for match in found if match), default=0) + 1


def read_record(folder: Path, case: str, number: int) -> MaskVersion:
    """What is said of a version; UserError if the file is gone or damaged."""
    return MaskVersion.load(record_file(folder, case, number))


def read_version(folder: Path, case: str, number: int) -> Volume:
    """The mask of a version, (1, Z, Y, X); UserError if it is gone or damaged."""
    return read_mask(version_file(folder, case, number))


def write_version(
    folder: Path, about: MaskVersion, values_zyx: np.ndarray, geometry: Geometry, like: Path | None
) -> MaskVersion:
    """Writes the files of a new version, and gives what is said of it with the hash of the file that was written.

    Both files are there or none. ``like`` is a mask or image whose header says the place.
    """
    mask = version_file(folder, about.case, about.number)
    record = record_file(folder, about.case, about.number)
    if mask.exists() or record.exists():
        raise UserError(f"{mask}: is there already, and no version is written over; call the same again")
    if mask.parent.is_dir():
        remove_partials(mask.parent)  # of processes that died while they wrote another version
    try:
        write_labels(mask, values_zyx, geometry, like, said=UNSIGNED, is_checked=True)
        written = read_mask(mask)
        sha256 = content_sha256(written.array[0], written.geometry.matrix, about.label_names)
        made = about.model_copy(update={"sha256": sha256})
        made.save(record)
    except BaseException:
        remove_version(folder, about.case, about.number)
        raise
    return made


def remove_version(folder: Path, case: str, number: int) -> None:
    """Removes the files of a version that no line of the log knows."""
    for path in (record_file(folder, case, number), version_file(folder, case, number)):
        with suppress(OSError):
            path.unlink(missing_ok=True)
