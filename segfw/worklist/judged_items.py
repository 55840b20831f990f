"""Items of a folder of masks, from what ``predict`` told of each: ``quality/CASE.json`` and its suspected regions.

One pass; of every file only the fields that a queue needs are turned into objects, so that candidates of regions,
which are most of the bytes, cost nothing but being skipped. Nothing here needs torch.
"""

# N items

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Literal

import numpy as np
from pydantic import BaseModel, ConfigDict, ValidationError

from segfw.base.file_names import QUALITY_FOLDER, REGIONS_ENDING
from segfw.base.progress import progress
from segfw.worklist.minutes_model import ball_surface_mm2, wrong_slices
from segfw.worklist.work_items import WHOLE, WorkItems

VERDICTS = ("use", "look", "do-not-use", "")  # the last of folders that say none
AS_A_WHOLE = ("missing", "outlier-shape")  # kinds of regions that are the structure itself
ROUND = 0.67  # surface of a ball over that of a ball of voxels, which roundness compares with (quality_features)
ASSUMED_SLICE_MM = 3.0  # where files do not say how many slices a structure has


class _Lean(BaseModel):
    model_config = ConfigDict(extra="ignore", frozen=True)


class _Structure(_Lean):
    label: str
    predicted_dice: float | None
    lower_bound: float | None
    verdict: Literal["use", "look", "do-not-use"]
    ranking: float
    features: dict[str, float | None]
    reasons: tuple[str, ...]
    volume_ml: float
    slices: int | None = None


class _Gate(_Lean):
    score: float


class _Quality(_Lean):
    case: str
    gate: _Gate | None
    structures: tuple[_Structure, ...]


class _Region(_Lean):
    id: int
    label: str
    kind: str
    expected_wrong_mm3: float
    slices: tuple[int, ...]


class _Regions(_Lean):
    regions: tuple[_Region, ...]


@dataclass(frozen=True, kw_only=True)
class JudgedItems:
    """Items, and the features of every structure of every case, (cases, structures, features), NaN where there is none.

    ``left_out`` are files that could not be read: damaged, or of another version. ``features`` is empty unless asked.
    """

    items: WorkItems
    left_out: tuple[str, ...]
    features: np.ndarray
    gate_scores: np.ndarray  # of each case, NaN without a gate


@dataclass
class _Columns:
    """Columns that grow; what is a text is kept once."""

    rows: list[tuple[float, ...]] = field(default_factory=list)
    reasons: dict[str, int] = field(default_factory=dict)
    structures: dict[str, int] = field(default_factory=dict)
    cases: list[str] = field(default_factory=list)
    gate_scores: list[float] = field(default_factory=list)
    features: list[dict[tuple[int, str], float]] = field(default_factory=list)

    def number_of(self, known: dict[str, int], text: str) -> int:
        """The number of a text, the next one if it is new."""
        return known.setdefault(text, len(known))


def is_judged(folder: Path) -> bool:
    """Whether a folder of masks tells how far these may be trusted."""
    return any(Path(folder, QUALITY_FOLDER).glob("[!.]*.json"))


def judged_items(
    folder: Path, cases: Sequence[str], *, has_regions: bool = True, has_features: bool = False
) -> JudgedItems:
    """The items of some cases of a folder.

    Parameters
    ----------
    folder
        Of masks, with ``quality/``.
    cases
        Which; those without a file there, or with one that cannot be read, are told in ``left_out``.
    has_regions
        Whether suspected regions become items of their own, beside the structure as a whole.
    has_features
        Whether features are kept, by which cases are told to be alike.
    """
    found = _Columns()
    left_out = []
    for case in progress("quality of cases", list(cases)):
        path = Path(folder) / QUALITY_FOLDER / f"{case}.json"
        try:
            quality = _Quality.model_validate_json(path.read_bytes())
        except (OSError, ValidationError):
            left_out.append(case)
            continue
        regions = _regions_of(path) if has_regions else ()
        _add_case(found, case, quality, regions, has_features=has_features)
    return JudgedItems(
        items=_as_items(found),
        left_out=tuple(left_out),
        features=_as_features(found) if has_features else np.empty((0, 0, 0), np.float32),
        gate_scores=np.array(found.gate_scores),
    )


def _regions_of(path: Path) -> tuple[_Region, ...]:
    """None where there is no such file, or none that can be read: a queue of structures is left then."""
    beside = path.with_name(path.name.removesuffix(".json") + REGIONS_ENDING)
    try:
        return _Regions.model_validate_json(beside.read_bytes()).regions
    except (OSError, ValidationError):
        return ()


def _add_case(found: _Columns, case: str, quality: _Quality, regions: Sequence[_Region], *, has_features: bool) -> None:
    number = len(found.cases)
    found.cases.append(case)
    found.gate_scores.append(np.nan if quality.gate is None else quality.gate.score)
    of_case: dict[tuple[int, str], float] = {}
    for each in quality.structures:
        structure = found.number_of(found.structures, each.label)
        volume_mm3 = 1000 * each.volume_ml
        loss = min(1.0, max(0.0, 1 - each.ranking))
        surface_mm2 = _surface_mm2(volume_mm3, each.features.get("roundness"))
        slices = each.slices if each.slices is not None else _assumed_slices(volume_mm3)
        reason = found.number_of(found.reasons, "; ".join(each.reasons))
        said = (
            1 - loss,
            np.nan if each.predicted_dice is None else each.predicted_dice,
            np.nan if each.lower_bound is None else each.lower_bound,
            VERDICTS.index(each.verdict),
        )
        whole_slices = float(wrong_slices(np.array(slices), np.array(1 - loss)))
        # Of a mask with Dice D a share 2 (1 - D) of the voxels is wrong, and so, it is assumed, is the surface.
        wrong_mm2 = surface_mm2 * min(1.0, 2 * loss)
        found.rows.append((number, structure, WHOLE, *said, reason, slices, whole_slices, wrong_mm2, loss))
        own = [region for region in regions if region.label == each.label and region.kind not in AS_A_WHOLE]
        gains = _gains_of_regions(own, volume_mm3, loss)
        for region, gain in zip(own, gains):
            kind = found.number_of(found.reasons, f"suspected region {region.id}: {region.kind}")
            wide = len(region.slices)
            area = float(ball_surface_mm2(np.array(region.expected_wrong_mm3)))
            found.rows.append((number, structure, region.id, *said, kind, wide, wide, area, gain))
        if has_features:
            of_case |= {(structure, name): value for name, value in each.features.items() if value is not None}
    if has_features:
        found.features.append(of_case)


def _gains_of_regions(regions: Sequence[_Region], volume_mm3: float, loss: float) -> list[float]:
    """The Dice that each is worth: wrong volume over that of both masks, which 1 - Dice is of all that is wrong.

    Together they are worth no more than what is missing of the structure, as the predicted Dice has it.
    """
    if volume_mm3 <= 0:
        return [0.0] * len(regions)
    gains = [region.expected_wrong_mm3 / (2 * volume_mm3) for region in regions]
    total = sum(gains)
    return [gain * loss / total for gain in gains] if total > loss else gains


def _surface_mm2(volume_mm3: float, roundness: float | None) -> float:
    ball = float(ball_surface_mm2(np.array(volume_mm3)))
    return ball if not roundness else ball * ROUND / min(ROUND, max(0.01, roundness))


def _assumed_slices(volume_mm3: float) -> int:
    """Those of a ball in slices of ASSUMED_SLICE_MM."""
    return int(np.ceil((6 * volume_mm3 / np.pi) ** (1 / 3) / ASSUMED_SLICE_MM))


def _as_items(found: _Columns) -> WorkItems:
    table = np.array(found.rows, np.float64).reshape(-1, 12)
    return WorkItems(
        cases=tuple(found.cases),
        structures=tuple(found.structures),
        verdicts=VERDICTS,
        reasons=tuple(found.reasons),
        case=table[:, 0].astype(np.int32),
        structure=table[:, 1].astype(np.int32),
        region=table[:, 2].astype(np.int32),
        quality=table[:, 3].astype(np.float32),
        predicted=table[:, 4].astype(np.float32),
        lower=table[:, 5].astype(np.float32),
        verdict=table[:, 6].astype(np.int8),
        reason=table[:, 7].astype(np.int32),
        slices=table[:, 8].astype(np.float32),
        wrong_slices=table[:, 9].astype(np.float32),
        wrong_mm2=table[:, 10].astype(np.float32),
        gain=table[:, 11],
    )


def _as_features(found: _Columns) -> np.ndarray:
    names = sorted({name for of_case in found.features for _, name in of_case})
    column = {name: index for index, name in enumerate(names)}
    table = np.full((len(found.cases), len(found.structures), len(names)), np.nan, np.float32)
    for case, of_case in enumerate(found.features):
        for (structure, name), value in of_case.items():
            table[case, structure, column[name]] = value
    return table
