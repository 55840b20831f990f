"""How large structures are, as shares of the cases: what few steps of training can find depends on it."""

from __future__ import annotations

from pathlib import Path

import numpy as np

from segfw.base.records import UserError
from segfw.dataset.labels import LabelSet
from segfw.planning.fingerprint import FINGERPRINT_FILE, Fingerprint

SMALL_SHARE = 0.005  # of the voxels of a case: structures under it need more steps, and wider networks


def structure_shares(fingerprint: Fingerprint, labels: LabelSet) -> dict[str, float]:
    """By structure its median share of the voxels of a case, after the crop, over the cases that have it."""
    shares = {}
    values_of = {name: [labels.values[index] for index in classes] for name, classes in labels.structures.items()}
    for name, values in values_of.items():
        of_cases = []
        for case in fingerprint.cases:
            voxels = sum(case.label_voxels.get(str(value), 0) for value in values)
            if voxels:
                of_cases.append(voxels / np.prod(case.cropped_shape))
        if of_cases:
            shares[name] = float(np.median(of_cases))
    return shares


def kept_structure_shares(work: Path, labels: LabelSet) -> dict[str, float]:
    """The same of a work folder; nothing of one that does not say what its cases hold."""
    try:
        return structure_shares(Fingerprint.load(work / FINGERPRINT_FILE), labels)
    except (OSError, UserError):
        return {}
