"""A made CT data set in nnU-Net's raw layout: a torso of smooth organs with noise, as large as a clinical scan."""

from __future__ import annotations

import json
from pathlib import Path

import nibabel
import numpy as np
import torch

# Their medians are 1.5, 0.8 and 0.8 mm, which is the spacing of none of them: every case is resampled.
SPACINGS_MM = ((1.5, 0.85, 0.85), (1.25, 0.8, 0.8), (2.0, 0.75, 0.75))
# Name: centre and half-axes (z, y, x) as shares of the volume, and Hounsfield units.
ORGANS = {
    "lung_right": ((0.72, 0.50, 0.34), (0.22, 0.17, 0.11), -820),
    "lung_left": ((0.72, 0.50, 0.66), (0.21, 0.16, 0.10), -830),
    "heart": ((0.62, 0.56, 0.53), (0.09, 0.09, 0.09), 130),
    "aorta": ((0.50, 0.36, 0.53), (0.40, 0.022, 0.022), 210),
    "spine": ((0.50, 0.28, 0.50), (0.47, 0.055, 0.055), 330),
    "liver": ((0.42, 0.53, 0.36), (0.12, 0.15, 0.16), 105),
    "spleen": ((0.42, 0.40, 0.74), (0.08, 0.08, 0.06), 120),
    "kidney_right": ((0.30, 0.36, 0.36), (0.08, 0.045, 0.045), 170),
    "kidney_left": ((0.32, 0.36, 0.64), (0.08, 0.045, 0.045), 175),
    "stomach": ((0.42, 0.58, 0.64), (0.07, 0.07, 0.09), 20),
    "pancreas": ((0.36, 0.50, 0.55), (0.025, 0.03, 0.09), 90),
    "bladder": ((0.09, 0.55, 0.50), (0.06, 0.07, 0.08), 8),
    "gallbladder": ((0.36, 0.60, 0.40), (0.025, 0.03, 0.025), 12),
    "lesion": ((0.44, 0.57, 0.33), (0.02, 0.02, 0.02), 55),
}
BODY = ((0.5, 0.48, 0.5), (0.75, 0.30, 0.40))
AIR = -1000.0
TISSUE = 45.0
NOISE = 18.0


def make_phantom(folder: Path, size_zyx: tuple[int, int, int], *, seed: int = 0) -> Path:
    """Writes three cases of about ``size_zyx`` voxels with 15 label values into ``folder`` and returns it."""
    for number, spacing_mm in enumerate(SPACINGS_MM):
        image, mask = phantom_case(size_zyx, np.random.default_rng([seed, number]))
        affine = np.diag([*spacing_mm[::-1], 1.0])
        for array, path in (
            (image, folder / "imagesTr" / f"phantom_{number:03}_0000.nii.gz"),
            (mask, folder / "labelsTr" / f"phantom_{number:03}.nii.gz"),
        ):
            path.parent.mkdir(parents=True, exist_ok=True)
            nibabel.save(nibabel.Nifti1Image(array.T, affine), path)
    labels = {"background": 0} | {name: value for value, name in enumerate(ORGANS, start=1)}
    description = {"channel_names": {"0": "CT"}, "labels": labels, "numTraining": len(SPACINGS_MM)}
    (folder / "dataset.json").write_text(json.dumps(description | {"file_ending": ".nii.gz"}, indent=1))
    return folder


def phantom_image(path: Path, size_zyx: tuple[int, int, int], spacing_mm: tuple[float, ...], *, seed: int = 0) -> None:
    """Writes one such image without a mask."""
    image, _ = phantom_case(size_zyx, np.random.default_rng(seed))
    path.parent.mkdir(parents=True, exist_ok=True)
    nibabel.save(nibabel.Nifti1Image(image.T, np.diag([*spacing_mm[::-1], 1.0])), path)


def phantom_case(size_zyx: tuple[int, int, int], rng: np.random.Generator) -> tuple[np.ndarray, np.ndarray]:
    """Image (int16, Hounsfield units) and mask (uint8), both (Z, Y, X)."""
    bumps = torch.from_numpy(rng.normal(0, 0.25, (1, 1, 10, 14, 14)).astype(np.float32))
    surface = 1 + torch.nn.functional.interpolate(bumps, size_zyx, mode="trilinear", align_corners=True)[0, 0].numpy()
    image = np.full(size_zyx, AIR, np.float32)
    mask = np.zeros(size_zyx, np.uint8)
    region, inside = _ellipsoid(size_zyx, *BODY, surface)
    image[region][inside] = TISSUE
    for value, (centre, half_axes, units) in enumerate(ORGANS.values(), start=1):
        moved = tuple(np.add(centre, rng.normal(0, 0.008, 3)))
        scaled = tuple(np.multiply(half_axes, rng.uniform(0.9, 1.1, 3)))
        region, inside = _ellipsoid(size_zyx, moved, scaled, surface)
        image[region][inside] = units + rng.normal(0, 5)
        mask[region][inside] = value
    image += rng.standard_normal(size_zyx, dtype=np.float32) * NOISE
    return np.clip(np.rint(image), -1024, 3071).astype(np.int16), mask


def _ellipsoid(
    size_zyx: tuple[int, int, int], centre: tuple, half_axes: tuple, surface: np.ndarray
) -> tuple[tuple[slice, ...], np.ndarray]:
    """Box around an ellipsoid with a bumpy surface, and which of its voxels are inside."""
    region = []
    squares = []
    for size, middle, half in zip(size_zyx, centre, half_axes):
        reach = 2.0 * half  # the bumps may push the surface outwards
        region.append(slice(max(0, int((middle - reach) * size)), min(size, int((middle + reach) * size) + 1)))
        places = (np.arange(region[-1].start, region[-1].stop, dtype=np.float32) + 0.5) / size
        squares.append(((places - middle) / half) ** 2)
    z, y, x = squares
    region = tuple(region)
    return region, (z[:, None, None] + y[:, None] + x) * surface[region] < 1
