"""How far one mask may be trusted, as ``quality/CASE.json`` and ``quality/CASE_regions.json`` tell it."""

from __future__ import annotations

from pathlib import Path

from segfw.base.file_names import QUALITY_FOLDER, REGIONS_ENDING
from segfw.base.records import Record, UserError
from segfw.grid.boxes import Box
from segfw.quality.input_gate import GateVerdict
from segfw.quality.quality_model import VERDICTS, StructureQuality
from segfw.quality.suspected_regions import RegionKind

EXCHANGEABLE = "exchangeable"
WITHDRAWN = "withdrawn: "  # and why


class CaseQuality(Record):
    """How far the mask of one case may be trusted, structure by structure.

    ``model_digest`` is of weights, plan and options, ``quality_digest`` of the quality.json that judged. ``guarantee``
    is 'exchangeable' where bounds hold for images like the training images, else 'withdrawn: why'.
    """

    case: str
    model_digest: str
    quality_digest: str
    folds: tuple[str, ...]
    gate: GateVerdict | None
    structures: tuple[StructureQuality, ...]
    guarantee: str


class Candidate(Record):
    """Another mask of the structure inside a region's box: ``runs`` are lengths of runs of voxels that lie outside and
    inside by turns, beginning outside, along the last axis first. ``names`` say who says so."""

    names: tuple[str, ...]
    runs: tuple[int, ...]


class SuspectedRegion(Record):
    """A place that is suspected to be wrong. ``box_zyx`` are first voxel and the one behind the last, in the order of
    the file's array; ``slices`` are those along its first axis, from 0. Both are None of what was found nowhere."""

    id: int
    label: str
    kind: RegionKind
    box_zyx: Box | None
    centroid_ras_mm: tuple[float, float, float] | None
    volume_mm3: float
    expected_wrong_mm3: float
    slices: tuple[int, ...]
    candidates: tuple[Candidate, ...]
    candidates_left_out: int = 0  # for the sake of the file's size


class CaseRegions(Record):
    """The suspected regions of a case, those with the largest volume that is expected to be wrong first."""

    case: str
    shape: tuple[int, int, int]  # of the file's array
    regions: tuple[SuspectedRegion, ...]


def order_of(structure: StructureQuality) -> tuple[int, float]:
    """By this the least trusted come first: by verdict, then by ``ranking``."""
    return -VERDICTS.index(structure.verdict), structure.ranking


def quality_file(folder: Path, case: str) -> Path:
    """Where what is told of a case is kept, in a folder of masks."""
    return Path(folder) / QUALITY_FOLDER / f"{case}.json"


def regions_file(path: Path) -> Path:
    """Beside the file of a case, its suspected regions."""
    return path.with_name(path.name.removesuffix(".json") + REGIONS_ENDING)


def judged_cases(folder: Path) -> list[str]:
    """Ids of the cases of a folder of masks that something is told of, in order."""
    names = sorted(file.name for file in (Path(folder) / QUALITY_FOLDER).glob("[!.]*.json"))
    cases = {name.removesuffix(".json") for name in names if not name.endswith(REGIONS_ENDING)}
    return sorted(cases | {name.removesuffix(".json") for name in names if _case_of_regions(name) not in cases})


def _case_of_regions(name: str) -> str:
    return name.removesuffix(REGIONS_ENDING)


def read_qualities(folder: Path) -> list[CaseQuality]:
    """What is told of every case of a folder of masks; files of another version, or damaged ones, are left out."""
    found = []
    for case in judged_cases(folder):
        try:
            found.append(CaseQuality.load(quality_file(folder, case)))
        except UserError:
            continue
    return found
