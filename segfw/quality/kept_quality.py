"""What ``quality/CASE.json`` and ``quality/CASE_regions.json`` say, for those who show it: read without PyTorch.

The whole records are in ``case_quality.py``, which knows the networks; here keys that are not named are passed over.
"""

from __future__ import annotations

from pathlib import Path

from pydantic import ConfigDict

from segfw.base.errors import UserError
from segfw.base.file_names import QUALITY_FOLDER, REGIONS_ENDING
from segfw.base.records import Record
from segfw.grid.boxes import Box


class Kept(Record):
    """A part of a record: keys that are not named are passed over."""

    model_config = ConfigDict(extra="ignore")


class KeptGate(Kept):
    """What the gate says of the image: its verdict is 'usual', 'odd' or 'far'."""

    score: float
    percentile: float
    verdict: str
    reasons: tuple[str, ...]


class KeptStructure(Kept):
    """How far the mask of one structure may be trusted."""

    label: str
    predicted_dice: float | None = None
    lower_bound: float | None = None
    verdict: str
    ranking: float = 0.0
    p_fail: float | None = None
    reasons: tuple[str, ...] = ()
    volume_ml: float = 0.0
    volume_interval_ml: tuple[float, float] | None = None


class KeptQuality(Kept):
    """How far the mask of one case may be trusted."""

    case: str
    model_digest: str = ""
    gate: KeptGate | None = None
    structures: tuple[KeptStructure, ...]
    guarantee: str = ""


class KeptCandidate(Kept):
    """Another mask inside a region's box, as ``run_lengths`` says it."""

    names: tuple[str, ...]
    runs: tuple[int, ...]


class KeptRegion(Kept):
    """A place that is suspected to be wrong; boxes and slices are of the file's order, None and empty of nowhere."""

    id: int
    label: str
    kind: str
    box_zyx: Box | None = None
    volume_mm3: float = 0.0
    expected_wrong_mm3: float = 0.0
    slices: tuple[int, ...] = ()
    candidates: tuple[KeptCandidate, ...] = ()


class KeptRegions(Kept):
    """The suspected regions of a case, those with the largest volume that is expected to be wrong first."""

    case: str
    shape: tuple[int, int, int]
    regions: tuple[KeptRegion, ...]


def kept_quality(folder: Path, case: str) -> KeptQuality | None:
    """What is told of a case of a folder of masks; None where nothing is, or a file of another version or damaged."""
    file = Path(folder) / QUALITY_FOLDER / f"{case}.json"
    try:
        return KeptQuality.load(file) if file.is_file() else None
    except UserError:
        return None


def kept_regions(folder: Path, case: str) -> KeptRegions | None:
    """The suspected regions of a case; None where none are told of, or by a file of another version or damaged."""
    file = Path(folder) / QUALITY_FOLDER / f"{case}{REGIONS_ENDING}"
    try:
        return KeptRegions.load(file) if file.is_file() else None
    except UserError:
        return None
