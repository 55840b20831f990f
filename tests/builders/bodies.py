"""Bodies with two kidneys and a liver, made up of ellipsoids, for the data check."""

from __future__ import annotations

import json
from pathlib import Path

import nibabel
import numpy as np
from scipy import ndimage

from builders.data import write_nifti
from segfw.checkup.check_report import CheckReport

SHAPE_XYZ = (30, 26, 12)
SPACING_XYZ = (1.0, 1.5, 4.0)
LABELS = {"background": 0, "kidney_left": 1, "kidney_right": 2, "liver": 5}


def ball(centre_xyz: tuple, radii_mm: tuple) -> np.ndarray:
    """Voxels of an ellipsoid; the centre is in millimetres."""
    axes = np.meshgrid(*(np.arange(size) * mm for size, mm in zip(SHAPE_XYZ, SPACING_XYZ)), indexing="ij")
    return sum(((axis - at) / radius) ** 2 for axis, at, radius in zip(axes, centre_xyz, radii_mm)) <= 1


def body_case(seed: int) -> tuple[np.ndarray, np.ndarray]:
    """A body in air that is exactly 0, with its own texture, kidneys (1 at the left, 2 at the right) and a liver."""
    rng = np.random.default_rng(seed)

    def near(values: tuple, by: float) -> tuple:
        return tuple(value + by * rng.normal() for value in values)

    body = ball((14.5, 18.5, 22), near((13, 17, 30), 0.4))
    mask = np.zeros(SHAPE_XYZ, np.uint8)
    mask[ball(near((14.5, 26, 24), 0.5), near((6, 4.5, 9), 0.2))] = 5
    radii = near((3.2, 4.5, 9), 0.15)
    mask[ball(near((7, 14, 20), 0.4), radii)] = 1  # x ascends to the patient's right
    mask[ball(near((22, 14, 20), 0.4), radii)] = 2
    texture = ndimage.gaussian_filter(rng.normal(size=SHAPE_XYZ), 1.2)
    image = 100 + 20 * (mask > 0) + 15 * texture / texture.std() + rng.normal(0, 3, SHAPE_XYZ)
    return np.where(body, image, 0).astype(np.float32), mask * body


def files(folder: Path, case: str) -> tuple[Path, Path]:
    return folder / "imagesTr" / f"{case}_0000.nii.gz", folder / "labelsTr" / f"{case}.nii.gz"


def read(path: Path) -> np.ndarray:
    return np.asarray(nibabel.load(path).dataobj)


def kinds_of(report: CheckReport, case: str) -> set[str]:
    return {finding.kind for finding in report.findings if finding.case == case and finding.severity != "note"}


def with_nan(image: np.ndarray) -> np.ndarray:
    image[3, 4, 5] = np.nan
    return image


def write_bodies(folder: Path) -> Path:
    """A clean nnU-Net raw folder of twelve bodies."""
    for number in range(12):
        for path, array in zip(files(folder, f"case_{number:02}"), body_case(number)):
            write_nifti(path, array, spacing_xyz=SPACING_XYZ)
    description = {"channel_names": {"0": "MR"}, "labels": LABELS, "numTraining": 12, "file_ending": ".nii.gz"}
    (folder / "dataset.json").write_text(json.dumps(description))
    return folder
