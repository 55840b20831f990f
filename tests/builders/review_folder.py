"""A folder of drafts of made-up patients with quality, suspected regions and doubt, as ``predict`` leaves them."""

from __future__ import annotations

import json
from pathlib import Path

import nibabel
import numpy as np
from scipy import ndimage

from builders.drafts_folder import make_drafts, write_table
from segfw.dataset.labels import LabelSet
from segfw.dataset.toy import LABELS, make_case
from segfw.quality.run_lengths import run_lengths

NAMES = tuple(sorted(LABELS, key=LABELS.__getitem__))
LABEL_SET = LabelSet(names=NAMES, values=tuple(LABELS[name] for name in NAMES))
VERDICTS = ("use", "look", "do-not-use")


def make_toy_review(root: Path, cases: int = 3) -> Path:
    """Drafts of toy patients that are wrong in places, as a model's would be; returns the folder of masks."""
    drafts = {}
    images = {}
    for number in range(cases):
        image, label, affine = make_case(np.random.default_rng((0, 0, number)))
        draft = _spoilt(label.transpose(2, 1, 0), number)
        drafts[f"patient_{number + 1:02}"] = draft
        images[f"patient_{number + 1:02}"] = (image, affine, label.transpose(2, 1, 0))
    folder = make_drafts(root, drafts, labels=LABEL_SET, has_images=False)
    (root / "images").mkdir(exist_ok=True)
    for case, (image, affine, truth_zyx) in images.items():
        nibabel.save(nibabel.Nifti1Image(image, affine), root / "images" / f"{case}_0000.nii.gz")
        nibabel.save(nibabel.Nifti1Image(drafts[case].transpose(2, 1, 0), affine), folder / f"{case}.nii.gz")
        _write_doubt(folder, case, drafts[case], truth_zyx, affine)
        _write_quality(folder, case, drafts[case], truth_zyx)
    write_table(folder)
    return folder


def _spoilt(truth_zyx: np.ndarray, number: int) -> np.ndarray:
    """The expert's mask with a structure cut short and another grown over its edge."""
    draft = truth_zyx.astype(np.uint8).copy()
    organs = [value for value in LABEL_SET.values if value and (truth_zyx == value).any()]
    short = organs[number % len(organs)]
    slices = np.flatnonzero((draft == short).any((1, 2)))
    ends = slices[-max(1, len(slices) // 4) :]
    draft[ends] = np.where(draft[ends] == short, 0, draft[ends])
    grown = organs[(number + 1) % len(organs)]
    larger = ndimage.binary_dilation(draft == grown, iterations=2) & (draft == 0)
    half = np.indices(draft.shape)[2] > np.argwhere(draft == grown)[:, 2].mean()
    draft[larger & half] = grown
    return draft


def _write_doubt(folder: Path, case: str, draft: np.ndarray, truth: np.ndarray, affine: np.ndarray) -> None:
    (folder / "uncertainty").mkdir(exist_ok=True)
    edges = ndimage.morphological_gradient(draft, size=3) > 0
    doubt = np.clip(ndimage.gaussian_filter((draft != truth) * 1.4 + edges * 0.35, 1.2), 0, 1).astype(np.float32)
    nibabel.save(
        nibabel.Nifti1Image(doubt.transpose(2, 1, 0), affine), folder / "uncertainty" / f"{case}_entropy.nii.gz"
    )


def _write_quality(folder: Path, case: str, draft: np.ndarray, truth: np.ndarray) -> None:
    """Dice as it is, called predicted, and a region at each place where draft and expert differ most."""
    path = folder / "quality" / f"{case}.json"
    quality = json.loads(path.read_text(encoding="utf-8"))
    regions = []
    for told in quality["structures"]:
        mine = draft == told["value"]
        theirs = truth == told["value"]
        dice = 2 * (mine & theirs).sum() / max(1, mine.sum() + theirs.sum())
        told["predicted_dice"] = round(min(0.97, float(dice) - 0.02), 3)
        told["lower_bound"] = round(told["predicted_dice"] - 0.11, 3)
        told["ranking"] = told["predicted_dice"]
        told["verdict"] = VERDICTS[0 if dice > 0.95 else 1 if dice > 0.8 else 2]
        told["reasons"] = [f"the folds agree on {dice:.2f} of it"]
        regions += _regions(told["label"], mine, theirs, len(regions))
    path.write_text(json.dumps(quality), encoding="utf-8")
    kept = {"case": case, "shape": list(draft.shape), "regions": regions}
    (folder / "quality" / f"{case}_regions.json").write_text(json.dumps(kept), encoding="utf-8")


def _regions(label: str, mine: np.ndarray, theirs: np.ndarray, known: int) -> list[dict]:
    parts, count = ndimage.label(mine != theirs, np.ones((3, 3, 3)))
    sizes = ndimage.sum_labels(np.ones(mine.shape), parts, range(1, count + 1))
    found = []
    for part in np.argsort(-sizes)[:2] + 1:
        if sizes[part - 1] < 40:
            continue
        places = np.argwhere(parts == part)
        box = [[max(0, int(low) - 2), int(high) + 3] for low, high in zip(places.min(0), places.max(0))]
        box = [[low, min(high, size)] for (low, high), size in zip(box, mine.shape)]
        inside = tuple(slice(low, high) for low, high in box)
        found.append(
            {
                "id": known + len(found) + 1,
                "label": label,
                "kind": "doubt",
                "box_zyx": box,
                "centroid_ras_mm": [0.0, 0.0, 0.0],
                "volume_mm3": float(sizes[part - 1]),
                "expected_wrong_mm3": float(sizes[part - 1]),
                "slices": list(range(*box[0])),
                "candidates": [
                    {"names": ["fold 0", "fold 2"], "runs": list(run_lengths(theirs[inside]))},
                    {"names": ["fold 1"], "runs": list(run_lengths((mine | theirs)[inside]))},
                    {"names": ["p > 0.65"], "runs": list(run_lengths((mine & theirs)[inside]))},
                ],
            }
        )
    return found
