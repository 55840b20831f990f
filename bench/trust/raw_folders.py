"""Raw folders of a data set without the patients that are kept out, and of these alone: links to its files."""

from __future__ import annotations

from collections.abc import Collection
from pathlib import Path

import numpy as np

from bench.accuracy.sets import raw_folder
from segfw.base.records import UserError
from segfw.dataset.layouts import find_dataset
from segfw.dataset.patients import read_groups
from segfw.images.formats import split_ending

# How many patients are kept out of each set, whatever is fitted or chosen; hippocampus has enough for narrow intervals.
KEPT = {"hippocampus": 68, "cardiac_cine": 6, "head_neck_ct": 8}
GROUPS = {"cardiac_cine": "(patient[0-9]+)_"}
SEED = 0


def split_raw(
    data: Path, name: str, output: Path, number: int | None = None, also: Collection[str] = ()
) -> dict[str, int]:
    """Writes OUTPUT/train and OUTPUT/kept, each with images/ and labels/; returns how many cases each has.

    ``number`` patients are kept out, by default those of KEPT, and those of ``also``.
    """
    found = find_dataset(raw_folder(data, name))
    if output.exists():
        raise UserError(f"{output}: is there already; give a new folder")
    ids = sorted(case.id for case in found.cases)
    patient_of = read_groups(GROUPS.get(name), ids, found.patient_of)
    patients = sorted(set(patient_of.values()))
    drawn = np.random.default_rng(SEED).choice(patients, number or KEPT[name], replace=False).tolist()
    kept = {*drawn, *also}
    counts = {"train": 0, "kept": 0}
    for case in found.cases:
        if len(case.images) != 1 or case.label is None:
            raise UserError(f"{case.id}: has {len(case.images)} images; sets of one channel alone are split here")
        part = "kept" if patient_of[case.id] in kept else "train"
        counts[part] += 1
        for folder, file in (("images", case.images[0]), ("labels", case.label)):
            link = output / part / folder / (case.id + split_ending(file)[1])
            link.parent.mkdir(parents=True, exist_ok=True)
            link.symlink_to(file.resolve())
    return counts
