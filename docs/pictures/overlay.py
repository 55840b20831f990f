"""Draws docs/pictures/overlay.png: a made-up case that the model never saw, with the expert's and the model's outlines.

    segfw demo demo
    python docs/pictures/overlay.py demo

Takes the case of median Dice among those that ``segfw demo`` predicted and scored in the folder.
"""

from __future__ import annotations

import json
import sys
from pathlib import Path

import nibabel
import numpy as np

from segfw.evaluation.overlays import draw_overlay

PICTURE = Path(__file__).parent / "overlay.png"


def main() -> None:
    demo = Path(sys.argv[1])
    description = json.loads((demo / "data" / "dataset.json").read_text(encoding="utf-8"))
    names = sorted(description["labels"], key=description["labels"].get)
    values = sorted(description["labels"].values())
    case = median_case(json.loads((demo / "scores.json").read_text(encoding="utf-8"))["cases"])

    def canonical(path: Path) -> tuple[np.ndarray, tuple[float, float, float]]:
        """Array (Z, Y, X), z to the head, y to the front, x to the patient's right, and its spacing in mm."""
        image = nibabel.as_closest_canonical(nibabel.load(path))
        spacing_mm = tuple(float(size) for size in image.header.get_zooms()[2::-1])
        return np.asarray(image.dataobj).transpose(2, 1, 0), spacing_mm

    image, spacing_mm = canonical(demo / "data" / "imagesTs" / f"{case}_0000.nii.gz")
    reference, _ = canonical(demo / "data" / "labelsTs" / f"{case}.nii.gz")
    prediction, _ = canonical(demo / "predictions" / f"{case}.nii.gz")
    classes = [np.searchsorted(values, mask.astype(int)) for mask in (reference, prediction)]
    PICTURE.write_bytes(draw_overlay(image, *classes, spacing_mm, names))
    print(f"{PICTURE}: {case}, {PICTURE.stat().st_size / 1000:.0f} kB")


def median_case(cases: dict[str, dict[str, dict]]) -> str:
    """The case whose mean Dice over labels is in the middle; of an even number the lower one."""
    dice = {case: np.mean([scores["dice"] for scores in labels.values()]) for case, labels in cases.items()}
    return sorted(dice, key=dice.get)[(len(dice) - 1) // 2]


if __name__ == "__main__":
    main()
