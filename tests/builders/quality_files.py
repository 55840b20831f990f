"""Files of quality for tests: as predict writes them, with the figures that a test gives."""

from __future__ import annotations

from pathlib import Path

from segfw.quality.case_quality import (
    Candidate,
    CaseQuality,
    CaseRegions,
    SuspectedRegion,
    quality_file,
    regions_file,
)
from segfw.quality.input_gate import GateVerdict
from segfw.quality.quality_model import StructureQuality


def structure(label, dice, *, value=1, volume_ml=8.0, verdict="look", reasons=("a reason",), features=None):
    """What is told of one structure; ``dice`` None is one that was not found, rightly with a chance of 0.1."""
    return StructureQuality(
        label=label,
        value=value,
        predicted_dice=dice,
        lower_bound=None if dice is None else max(0.0, dice - 0.1),
        alpha=0.1,
        p_fail=0.9 if dice is None else 0.2,
        verdict=verdict,
        ranking=0.1 if dice is None else dice,
        features={"roundness": 0.67, "soft": dice} if features is None else features,
        reasons=reasons,
        volume_ml=volume_ml,
    )


def region(number, label, wrong_mm3, *, kind="doubt", slices=(3, 4), runs=(0, 8)):
    """A suspected region of 2 x 2 x 2 voxels."""
    return SuspectedRegion(
        id=number,
        label=label,
        kind=kind,
        box_zyx=((3, 5), (0, 2), (0, 2)),
        centroid_ras_mm=(0.0, 0.0, 0.0),
        volume_mm3=8.0,
        expected_wrong_mm3=wrong_mm3,
        slices=slices,
        candidates=(Candidate(names=("fold 0",), runs=runs),),
    )


def write_quality(folder: Path, case: str, structures, regions=(), *, gate_score=None):
    """``quality/CASE.json`` and its regions."""
    gate = None
    if gate_score is not None:
        gate = GateVerdict(score=gate_score, percentile=50.0, verdict="usual", reasons=())
    path = quality_file(folder, case)
    CaseQuality(
        case=case,
        model_digest="m",
        quality_digest="q",
        folds=("0", "1"),
        gate=gate,
        structures=tuple(structures),
        guarantee="exchangeable",
    ).save(path)
    CaseRegions(case=case, shape=(10, 20, 30), regions=tuple(regions)).save(regions_file(path))
