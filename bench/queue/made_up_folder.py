"""A made-up folder of many masks with many structures, as ``predict`` leaves it, with few voxels."""

from __future__ import annotations

import json
import shutil
from pathlib import Path

import numpy as np

from segfw.base.progress import progress
from segfw.dataset.labels import LABELS_FILE, LabelSet
from segfw.images.formats import write_labels
from segfw.images.geometry import Geometry
from segfw.inference.prediction_settings import PredictionSettings
from segfw.quality.quality_features import Features

SHAPE = (4, 12, 12)
SLICES = 200
NOT_TOLD = ("voxels", "volume_mm3", "offset_mm")  # features that CASE.json leaves out


def write_folder(folder: Path, cases: int, structures: int, *, regions: int, runs: int, seed: int = 0) -> None:
    """Writes it: each structure with its quality, ``regions`` suspected ones of each of three quarters of the
    structures, with two candidates of so many ``runs``."""
    rng = np.random.default_rng(seed)
    names = tuple(f"structure_{number:03d}" for number in range(structures))
    folder.mkdir(parents=True)
    labels = LabelSet(names=("background", *names), values=tuple(range(structures + 1)))
    labels.save(folder / LABELS_FILE)
    PredictionSettings(
        configuration="3d_fullres", folds=("0", "1"), weights_digest="made up", step=0.5, mirroring=True
    ).save(folder / "prediction.json")
    values = rng.integers(0, structures + 1, SHAPE)
    first = folder / "case_0000.nii.gz"
    write_labels(first, values, Geometry.of(SHAPE, np.diag([1.5, 1.5, 1.5, 1.0])))
    volumes_ml = np.exp(rng.uniform(np.log(0.5), np.log(2000), structures))
    (folder / "quality").mkdir()
    for number in progress("made-up cases", range(cases)):
        case = f"case_{number:04d}"
        if number:
            shutil.copyfile(first, folder / f"{case}.nii.gz")
        quality = _quality(case, names, volumes_ml, rng)
        (folder / "quality" / f"{case}.json").write_text(json.dumps(quality, indent=1))
        suspected = _regions(case, names, volumes_ml, rng, regions=regions, runs=runs)
        (folder / "quality" / f"{case}_regions.json").write_text(json.dumps(suspected, indent=1))


def _quality(case: str, names: tuple[str, ...], volumes_ml: np.ndarray, rng: np.random.Generator) -> dict[str, object]:
    dice = rng.beta(12, 2, len(names))
    told = [name for name in Features.model_fields if name not in NOT_TOLD]
    features = rng.uniform(0, 1, (len(names), len(told)))
    structures = []
    for number, name in enumerate(names):
        quality = float(dice[number])
        structures.append(
            {
                "label": name,
                "value": number + 1,
                "predicted_dice": quality,
                "lower_bound": max(0.0, quality - 0.12),
                "alpha": 0.1,
                "p_fail": 1 - quality,
                "verdict": "use" if quality > 0.85 else "look" if quality > 0.5 else "do-not-use",
                "ranking": quality,
                "features": {"pair": quality, **dict(zip(told, features[number].tolist()))},
                "reasons": [f"the folds agree on only {quality:.2f} of it"] if quality < 0.85 else [],
                "volume_ml": float(volumes_ml[number]) * float(rng.uniform(0.7, 1.4)),
                "volume_interval_ml": None,
                "slices": int(rng.integers(3, SLICES)),
            }
        )
    gate = {"score": 0.4, "percentile": 40.0, "verdict": "usual", "reasons": []}
    return {
        "case": case,
        "model_digest": "made up",
        "quality_digest": "made up",
        "folds": ["0", "1"],
        "gate": gate,
        "structures": structures,
        "guarantee": "exchangeable",
    }


def _regions(
    case: str, names: tuple[str, ...], volumes_ml: np.ndarray, rng: np.random.Generator, *, regions: int, runs: int
) -> dict[str, object]:
    found = []
    for number, name in enumerate(names):
        for _ in range(regions if number % 4 else 0):
            start = int(rng.integers(0, SLICES - 10))
            wide = int(rng.integers(1, 10))
            found.append(
                {
                    "id": len(found) + 1,
                    "label": name,
                    "kind": "doubt",
                    "box_zyx": [[start, start + wide], [10, 40], [10, 40]],
                    "centroid_ras_mm": [1.0, 2.0, 3.0],
                    "volume_mm3": 500.0,
                    "expected_wrong_mm3": float(volumes_ml[number]) * float(rng.uniform(0, 60)),
                    "slices": list(range(start, start + wide)),
                    "candidates": [
                        {"names": [f"fold {fold}"], "runs": rng.integers(1, 90, runs).tolist()} for fold in range(2)
                    ],
                    "candidates_left_out": 0,
                }
            )
    return {"case": case, "shape": [SLICES, 300, 300], "regions": found}
