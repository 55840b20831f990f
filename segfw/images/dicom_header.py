"""Which series a DICOM file is of, and whether it is an image, a structure set or a segmentation.

Both are told by its first elements. Of a patient there is nothing here but the identifier, by which cases of one
patient are told, and which is printed and written nowhere.
"""

from __future__ import annotations

from dataclasses import dataclass
from functools import lru_cache
from pathlib import Path
from typing import Literal

from segfw.images.dicom_elements import Tag, first_elements
from segfw.images.voxels import Refusal, SeriesUids

Kind = Literal["image", "structure set", "segmentation", "other"]

# Classes of files (PS3.4, table B.5-1).
STRUCTURE_SET = "1.2.840.10008.5.1.4.1.1.481.3"
SEGMENTATIONS = ("1.2.840.10008.5.1.4.1.1.66.4", "1.2.840.10008.5.1.4.1.1.66.7")  # the second one: label maps
# Waveforms, presentation states, raw data and surfaces, reports, documents, doses and plans, the directory.
OTHERS = tuple(
    f"1.2.840.10008.5.1.4.1.1.{number}"
    for number in ("9", "11", "66", "67", "88", "104", *(f"481.{number}" for number in range(2, 30)))
)
DIRECTORY = "1.2.840.10008.1.3.10"
# What images of a class are of; the enhanced and converted ones begin with the same number.
CHANNELS = {"1.2.840.10008.5.1.4.1.1.2": "CT", "1.2.840.10008.5.1.4.1.1.4": "MR", "1.2.840.10008.5.1.4.1.1.128": "PET"}

SOP_CLASS: Tag = (0x0008, 0x0016)
SOP_INSTANCE: Tag = (0x0008, 0x0018)
PATIENT: Tag = (0x0010, 0x0020)
STUDY: Tag = (0x0020, 0x000D)
SERIES: Tag = (0x0020, 0x000E)
FRAME: Tag = (0x0020, 0x0052)
TAGS = (SOP_CLASS, SOP_INSTANCE, PATIENT, STUDY, SERIES, FRAME)


@dataclass(frozen=True, kw_only=True)
class DicomHeader:
    """Identifiers of one file; '' where it says none. ``channel`` is CT, MR or PET by its class, else ''."""

    kind: Kind
    channel: str
    instance_uid: str
    series: SeriesUids
    study_uid: str
    patient: str

    def __repr__(self) -> str:
        """Without the patient, so that no message can hold it."""
        return f"DicomHeader({self.kind}, {self.series.series})"


def read_header(path: Path) -> DicomHeader | None:
    """The identifiers of a file; None if its first elements cannot be read."""
    try:
        state = path.stat()
        return _header(path, state.st_size, state.st_mtime_ns)
    except (OSError, ValueError):
        return None


@lru_cache(maxsize=65_536)
def _header(path: Path, size: int, changed_ns: int) -> DicomHeader:
    """``size`` and ``changed_ns`` tell a file from one that lay there before."""
    found = {tag: _text(value) for tag, value in first_elements(path, TAGS).items()}
    if not found:
        raise ValueError("none of its elements says what it is")
    return DicomHeader(
        kind=kind_of_class(found.get(SOP_CLASS, "")),
        channel=_channel(found.get(SOP_CLASS, "")),
        instance_uid=found.get(SOP_INSTANCE, ""),
        series=SeriesUids(found.get(SERIES, ""), found.get(FRAME, "")),
        study_uid=found.get(STUDY, ""),
        patient=found.get(PATIENT, ""),
    )


def kind_of_class(sop_class: str) -> Kind:
    """What the files of a class are; those without a class are images, as the library takes them."""
    if sop_class == STRUCTURE_SET:
        return "structure set"
    if sop_class in SEGMENTATIONS:
        return "segmentation"
    is_other = sop_class == DIRECTORY or any(
        sop_class == other or sop_class.startswith(f"{other}.") for other in OTHERS
    )
    return "other" if is_other else "image"


def _channel(sop_class: str) -> str:
    return next((name for first, name in CHANNELS.items() if f"{sop_class}.".startswith(f"{first}.")), "")


def _text(value: bytes) -> str:
    return value.strip(b"\0 ").decode("ascii", "backslashreplace")


def require_header(path: Path) -> DicomHeader:
    """As ``read_header``; Refusal where there is none."""
    header = read_header(path)
    if header is None:
        raise Refusal("is damaged or no DICOM; copy or export it again")
    return header
