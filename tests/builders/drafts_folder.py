"""Folders of drafts as ``predict`` leaves them, made without a model: for tests of what people do with masks."""

from __future__ import annotations

import json
from collections.abc import Mapping
from pathlib import Path

import nibabel
import numpy as np

from segfw.dataset.labels import LABELS_FILE, LabelSet
from segfw.evaluation.mask_facts import FACTS_FILE, MaskFacts
from segfw.inference.prediction_settings import PredictionSettings
from segfw.quality.run_lengths import run_lengths

LABELS = LabelSet(names=("background", "liver", "tumour"), values=(0, 1, 2))
# Axes x and y to the left and to the back, as most CT has them; x y z spacing 0.5, 2 and 5 mm
AFFINE_LPS = np.array([[-0.5, 0, 0, 40], [0, -2.0, 0, 60], [0, 0, 5.0, -30], [0, 0, 0, 1]])
SHAPE = (5, 6, 8)  # z y x


def write_volume(path: Path, array_zyx: np.ndarray, affine_xyz: np.ndarray = AFFINE_LPS) -> None:
    """A NIfTI file of an array (z, y, x)."""
    path.parent.mkdir(parents=True, exist_ok=True)
    image = nibabel.Nifti1Image(np.ascontiguousarray(array_zyx.transpose(2, 1, 0)), affine_xyz)
    image.header.set_xyzt_units("mm")
    nibabel.save(image, path)


def drawn_mask(shape=SHAPE) -> np.ndarray:
    """Liver: 2 x 3 x 4 voxels; in it one voxel of tumour."""
    mask = np.zeros(shape, np.uint8)
    mask[1:3, 1:4, 2:6] = 1
    mask[2, 2, 3] = 2
    return mask


def liver_with_tumour() -> np.ndarray:
    """Liver of 4 x 8 x 10 voxels with a tumour of 2 x 2 x 2, far from the middle so that a wrong side shows."""
    mask = np.zeros((12, 20, 24), np.uint8)
    mask[3:7, 5:13, 2:12] = 1
    mask[4:6, 7:9, 4:6] = 2
    return mask


def make_drafts(
    root: Path,
    masks: Mapping[str, np.ndarray] | None = None,
    *,
    labels: LabelSet = LABELS,
    affine_xyz: np.ndarray = AFFINE_LPS,
    has_quality: bool = True,
    has_images: bool = True,
) -> Path:
    """The folder ``root/masks`` with drafts by case (two, if none are given), and ``root/images`` that they are of."""
    masks = masks or {"case_1": drawn_mask(), "case_2": drawn_mask()}
    folder = root / "masks"
    folder.mkdir(parents=True)
    labels.save(folder / LABELS_FILE)
    settings = PredictionSettings(
        configuration="3d", folds=("0", "1"), weights_digest="a" * 64, plan_digest="b" * 64, step=0.5, mirroring=True
    )
    settings.save(folder / "prediction.json")
    MaskFacts(images="../images").save(folder / FACTS_FILE)
    for number, (case, mask) in enumerate(masks.items()):
        write_volume(folder / f"{case}.nii.gz", mask, affine_xyz)
        if has_images:
            rng = np.random.default_rng(number)
            image = (rng.integers(-50, 50, mask.shape) + 100 * (mask > 0) - 1000 * (mask == 0)).astype(np.int16)
            write_volume(root / "images" / f"{case}_0000.nii.gz", image, affine_xyz)
        if has_quality:
            write_quality(folder, case, labels, mask, predicted=0.9 - 0.1 * number)
    if has_quality:
        write_table(folder)
    return folder


def write_quality(folder: Path, case: str, labels: LabelSet, mask: np.ndarray, *, predicted: float) -> None:
    """What a calibrated model tells of a case, with one suspected region around the first structure."""
    structures = [
        {
            "label": name,
            "value": labels.values[classes[0]],
            "predicted_dice": round(predicted - 0.05 * place, 3),
            "lower_bound": round(predicted - 0.2, 3),
            "alpha": 0.1,
            "p_fail": 0.2,
            "verdict": "look",
            "ranking": round(predicted - 0.05 * place, 3),
            "features": {},
            "reasons": ["the folds agree on only 0.71 of it"],
            "volume_ml": 1.5,
        }
        for place, (name, classes) in enumerate(labels.structures.items())
    ]
    gate = {"score": 0.4, "percentile": 30.0, "verdict": "usual", "reasons": []}
    quality = {
        "case": case,
        "model_digest": "c" * 64,
        "quality_digest": "d" * 64,
        "folds": ["0", "1"],
        "gate": gate,
        "structures": structures,
        "guarantee": "exchangeable",
    }
    (folder / "quality").mkdir(exist_ok=True)
    (folder / "quality" / f"{case}.json").write_text(json.dumps(quality), encoding="utf-8")
    places = np.argwhere(mask > 0)
    regions = []
    if len(places):
        box = [[int(low), int(high) + 1] for low, high in zip(places.min(0), places.max(0))]
        inside = np.zeros([stop - start for start, stop in box], bool)
        inside[0] = True
        region = {
            "id": 1,
            "label": next(iter(labels.structures)),
            "kind": "doubt",
            "box_zyx": box,
            "centroid_ras_mm": [0.0, 0.0, 0.0],
            "volume_mm3": 60.0,
            "expected_wrong_mm3": 20.0,
            "slices": [box[0][0]],
            "candidates": [{"names": ["fold 0"], "runs": list(run_lengths(inside))}],
        }
        regions.append(region)
    kept = {"case": case, "shape": list(mask.shape), "regions": regions}
    (folder / "quality" / f"{case}_regions.json").write_text(json.dumps(kept), encoding="utf-8")


def write_table(folder: Path) -> None:
    """quality.csv of the cases in ``quality/``, the least trusted first."""
    rows = []
    for path in folder.glob("quality/*.json"):
        content = json.loads(path.read_text(encoding="utf-8"))
        for each in content.get("structures", ()):
            rows.append((each["predicted_dice"], content["case"], each))
    lines = ["case,structure,verdict,predicted_dice,lower_bound,p_fail,ranking,volume_ml,reasons"]
    for _, case, each in sorted(rows, key=lambda row: row[:2]):
        told = (each["label"], each["verdict"], each["predicted_dice"], each["lower_bound"], each["p_fail"])
        lines.append(",".join(map(str, (case, *told, each["ranking"], each["volume_ml"], each["reasons"][0]))))
    (folder / "quality.csv").write_text("\n".join(lines) + "\n", encoding="utf-8")
