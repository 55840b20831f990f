"""Which training images are most like a new one, by their fingerprints."""

from __future__ import annotations

from pathlib import Path

import numpy as np
from pydantic import ConfigDict

from segfw.base.records import Record, UserError
from segfw.dataset.cases import MANIFEST_FILE, DatasetManifest
from segfw.quality.image_fingerprint import Fingerprint

CALIBRATION_FOLDER = "calibration"  # of a work folder; in it a folder for each configuration
MOST_NEAREST = 3
LEAST_CASES = 4  # of which deviations mean something
LEAST_SD = 0.01


class SeenCase(Record):
    """Of what calibration keeps of a training case; the rest does not matter here."""

    model_config = ConfigDict(extra="ignore")

    fingerprint: Fingerprint


def training_fingerprints(model: Path, configuration: str) -> dict[str, Fingerprint]:
    """Of the training cases by their ids; nothing of a model file, which names no case.

    Cases of ``calibrate --cases`` are kept beside them, and are none: the manifest tells which are. Where there is no
    manifest, as of an imported model, nobody knows what it was trained on.
    """
    manifest = Path(model) / MANIFEST_FILE
    if not manifest.is_file():
        return {}
    trained = {case.id for case in DatasetManifest.load(manifest).cases}
    found = {}
    for file in sorted((Path(model) / CALIBRATION_FOLDER / configuration).glob("[!.]*.json")):
        case = file.name.removesuffix(".json")
        if case not in trained:
            continue
        try:
            found[case] = SeenCase.load(file).fingerprint
        except UserError:  # of another version
            continue
    return found


def nearest_cases(
    fingerprint: Fingerprint, training: dict[str, Fingerprint], most: int = MOST_NEAREST
) -> list[tuple[str, float]]:
    """Ids and distances of the training images that are most like this one, the nearest first.

    Distances are root mean squares over the entries, in standard deviations of the training images.
    """
    same = {case: each for case, each in training.items() if each.names == fingerprint.names}
    if len(same) < LEAST_CASES:
        return []
    rows = np.array([each.values for each in same.values()])
    scale = np.maximum(rows.std(0), LEAST_SD)
    apart = np.sqrt((((rows - np.array(fingerprint.values)) / scale) ** 2).mean(1))
    cases = list(same)
    return [(cases[index], float(apart[index])) for index in np.argsort(apart, kind="stable")[:most]]
