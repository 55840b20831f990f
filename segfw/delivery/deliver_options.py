"""The options of ``segfw deliver``."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

from segfw.base.options import option
from segfw.inference.prediction_options import FormatOptions


@dataclass(frozen=True, kw_only=True)
class DeliverOptions(FormatOptions):
    """Which masks are delivered, in which formats, and who does it.

    Without ``cases`` all that are signed. ``research`` delivers others as well, stamped as drafts and logged.
    ``without_image`` also delivers what was signed on an image that is not found any more; the log and the list say so.
    ``check`` writes nothing and tells whether what was delivered is as it was, and still holds.
    """

    cases: tuple[str, ...] | None = option(None, "these alone (default: all that are signed)", metavar="CASE")
    dicom: Path | None = option(
        None,
        "the DICOM series that dicom-seg and rtstruct refer to: one, or a folder of them by the names of cases "
        "(default: the images that were predicted)",
        metavar="SERIES",
    )
    research: bool = option(False, "also what nobody signed, stamped as drafts in names and headers, and logged")
    without_image: bool = option(
        False, "also what was signed on an image that is not found any more, so that it cannot be compared; logged"
    )
    user: str | None = option(None, "who delivers (default: the account of this computer)", metavar="NAME")
    check: bool = option(False, "write nothing; say whether the output folder is as it was delivered, and still holds")
