"""What is measured of masks, and where it is written."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

from segfw.base.options import LABEL_NAMES_HELP, NAMINGS, ONLY_HELP, Options, option


@dataclass(frozen=True, kw_only=True)
class EvaluateOptions(Options):
    """What ``evaluate`` measures and writes. ``lesions`` names labels, () stands for all, None for none."""

    compare: Path | None = option(None, "second predictions to compare with, case by case", metavar="DIR")
    output: Path | None = option(None, "scores.json (CSV tables are written beside it)")
    report: Path | None = option(None, "report.html, with pictures")
    images: Path | None = option(
        None, "folder of the images, for the report's pictures (default: where predict found them)"
    )
    tolerance_mm: float = option(
        1.0, "distance that NSD forgives (default: {default}), in pixels for photographs", metavar="MM"
    )
    surface: bool = option(True, "leave out HD95, ASSD and NSD")
    lesions: tuple[str, ...] | None = option(
        None, "labels to score component by component (without names: all)", metavar="LABEL", nargs="*"
    )
    lesion_strata_ml: tuple[float, ...] = option(
        (0.1, 1.0),
        "volumes between which components are counted apart, predicted ones with what they hit (default: {default}); "
        "of areas 1000 mm2 or pixels stand for 1 ml",
        metavar="ML",
    )
    lesion_iou: float = option(
        0.0,
        "intersection over union from which a component is found (default: 0, any overlap)",
        metavar="IOU",
    )
    by: tuple[str, ...] | None = option(
        None,
        "group the scores by a table's columns (sites.csv:site), or by header: spacing, slice thickness, size of "
        "structures, cut or whole",
        metavar="FILE.csv:COLUMN|header",
    )
    groups: str | Path | None = option(
        None,
        "of --by: cases of one patient, a table with columns case and patient, or an expression such as '(pat\\d+)_'",
        metavar="CSV|REGEX",
    )
    only: tuple[str, ...] | None = option(None, ONLY_HELP, metavar="NAME")
    names: str | None = option(
        None,
        "the predictions have another program's numbers: totalsegmentator (its --ml), totalsegmentator-v1 or -mr",
        choices=NAMINGS,
        metavar="NAMING",
    )
    label_names: Path | None = option(None, LABEL_NAMES_HELP, metavar="FILE")
    workers: int | None = option(None, "threads that read and score (default: one per processor)", ge=1)
