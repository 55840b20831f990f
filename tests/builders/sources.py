"""Data sets of several sources, each of which drew other structures, to be joined."""

from __future__ import annotations

import json
from collections.abc import Mapping
from pathlib import Path

import numpy as np

from builders.data import write_nifti


def write_source(
    raw: Path,
    labels: Mapping[str, int],
    *,
    cases: int = 3,
    seed: int = 0,
    edge: int = 4,
    channel: str = "CT",
    ids: str = "P{number}",
) -> Path:
    """A box of ``edge`` voxels along x, 3 along y and 2 along z for each label, in images/ and labels/.

    Voxels are 1.0 x 1.5 x 4.0 mm: a box of 4 x 3 x 2 is 144 mm3.
    """
    for number in range(cases):
        rng = np.random.default_rng([seed, number])
        mask = np.zeros((24, 20, 10), np.uint8)
        for place, value in enumerate(labels.values()):
            mask[2 : 2 + edge, 2 + 5 * place : 5 + 5 * place, 3:5] = value
        image = 100 + 40 * (mask > 0) + rng.normal(0, 9, mask.shape)
        case = ids.format(number=number + 1)
        write_nifti(raw / "images" / f"{case}.nii.gz", image.astype(np.int16))
        write_nifti(raw / "labels" / f"{case}.nii.gz", mask)
    description = {"channel_names": {"0": channel}, "labels": {"background": 0} | dict(labels)}
    (raw / "dataset.json").write_text(json.dumps(description))
    return raw
