"""The formats that masks are written in, by the name that a user gives: one row of FORMATS each."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

from segfw.base.records import UserError
from segfw.base.words import listed
from segfw.dataset.finished_mask import DRAFT, ImageFormat, MaskFormat
from segfw.dataset.labels import LabelSet
from segfw.images.formats import FORMATS as IMAGE_FORMATS
from segfw.images.formats import MASK_ENDINGS, PLAIN_MASK, is_picture
from segfw.interop.segmentation_format import SegmentationFormat
from segfw.interop.viewer_tables import StatedImageFormat, ViewedImageFormat
from segfw.interop.write_bids import BidsFormat
from segfw.interop.write_rtstruct import Holes, StructureSetFormat
from segfw.interop.write_seg_nrrd import SegNrrdFormat
from segfw.interop.written_structures import unknown_note

LABELMAP = "labelmap"


@dataclass(frozen=True, kw_only=True)
class FormatWishes:
    """How formats are written that can be in several ways.

    ``is_reviewed`` masks get beside image files what those have no room to say. ``stage`` and ``about`` are what BIDS
    calls all masks of the folder.
    """

    is_labelmap: bool = False
    report: bool = False
    holes: Holes = "keyhole"
    is_reviewed: bool = False
    stage: str = "draft"
    about: str = DRAFT


FORMATS: Mapping[str, Callable[[FormatWishes], MaskFormat]] = {
    "nifti": lambda wishes: _image_format(PLAIN_MASK, wishes),
    "seg.nrrd": lambda _: SegNrrdFormat(),
    "dicom-seg": lambda wishes: SegmentationFormat(is_labelmap=wishes.is_labelmap, report=wishes.report),
    "rtstruct": lambda wishes: StructureSetFormat(holes=wishes.holes),
    "bids": lambda wishes: BidsFormat(stage=wishes.stage, about=wishes.about),
}
WITH_CODES = ("seg.nrrd", "dicom-seg", "rtstruct", "bids")


def mask_formats(names: Sequence[str], wishes: FormatWishes) -> tuple[MaskFormat, ...]:
    """The formats of these names, each once; UserError for one that is none, and for a wish about one not asked for."""
    if not names:
        raise UserError(f"--as names no format; choose from {listed(FORMATS)}")
    for option, is_wished, needed in (
        ("--sr", wishes.report, "dicom-seg"),
        ("--seg-type labelmap", wishes.is_labelmap, "dicom-seg"),
        ("--holes xor", wishes.holes == "xor", "rtstruct"),
    ):
        if is_wished and needed not in names:
            raise UserError(f"{option} is of {needed}, which --as does not name; add it, or leave out {option}")
    endings = [name for name in names if _ending_of(name)]
    if len(set(map(_ending_of, endings))) > 1:
        raise UserError(f"--as {' '.join(endings)}: masks of one folder have one file format of images; choose one")
    found: dict[str, MaskFormat] = {}
    for name in names:
        ending = _ending_of(name)
        if ending:
            found.setdefault(ending, _image_format(ending, wishes))
        elif name in FORMATS:
            found.setdefault(name, FORMATS[name](wishes))
        else:
            reason = "is lossy and would blur labels" if name in IMAGE_FORMATS else "is unknown"
            raise UserError(f"--as {name!r} {reason}; choose from {', '.join([*FORMATS, *MASK_ENDINGS])}")
    # The file of an image last: it is what people and programs take for the mask.
    return tuple(sorted(found.values(), key=lambda each: isinstance(each, ImageFormat)))


def files_in_any_format(case_id: str) -> tuple[str, ...]:
    """All files that a mask may have been written to, whatever was asked for, from the folder of the masks."""
    apart = [make(FormatWishes(report=True)) for make in FORMATS.values()]
    files = [file for each in apart for file in each.files(case_id)]
    return tuple(dict.fromkeys([*files, *(f"{case_id}{ending}" for ending in MASK_ENDINGS)]))


def _ending_of(name: str) -> str:
    """The ending that a format of images has, '' for others."""
    return PLAIN_MASK if name == "nifti" else name if name in MASK_ENDINGS else ""


def _image_format(ending: str, wishes: FormatWishes) -> ImageFormat:
    if wishes.is_reviewed:
        return StatedImageFormat(ending=ending)
    return ImageFormat(ending=ending) if is_picture(Path(f"a{ending}")) else ViewedImageFormat(ending=ending)


def require_distinct_masks(
    formats: Iterable[MaskFormat], case_ids: Sequence[str], folder: Path | None = None, known: Iterable[str] = ()
) -> None:
    """UserError if two cases would be written into one file, or one over the file in ``folder`` of a ``known`` case."""
    known = tuple(known) if folder is not None else ()
    for each in formats:
        case_of = {each.files(case_id)[-1]: case_id for case_id in known}
        if folder is not None:
            case_of = {file: case_id for file, case_id in case_of.items() if (folder / file).is_file()}
        for case_id in case_ids:
            file = each.files(case_id)[-1]
            other = case_of.setdefault(file, case_id)
            if other != case_id:
                where = "rename one of the images"
                if other in known and other not in case_ids:
                    where = f"{folder} holds that of {other} already: give {case_id} another folder, or another name"
                raise UserError(f"{other} and {case_id} would both be {file}; {where}")


def format_note(names: Sequence[str], labels: LabelSet, only: Sequence[str]) -> str:
    """What is to be known of structures before they are written in formats that hold codes; '' if nothing is."""
    if not set(names) & set(WITH_CODES):
        return ""
    return unknown_note(labels, tuple(only) or tuple(labels.structures))
