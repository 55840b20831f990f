"""Pools to be reviewed: kept-out cases as they are and spoilt by simulated shifts, with the expert's masks, predicted.

POOL/images and POOL/expert hold CASE__clean and CASE__SHIFT, POOL/masks what ``segfw predict`` makes of these, with
quality and suspected regions, and POOL/pool.json what all of it is of. A call that was ended goes on.
"""

from __future__ import annotations

from pathlib import Path
from zlib import crc32

import nibabel
import numpy as np

from bench.runs import processor_name
from bench.trust.kept_cases import SIX_SHIFTS
from bench.trust.raw_folders import GROUPS
from segfw.base.progress import progress
from segfw.base.records import Record, UserError
from segfw.dataset.labels import LabelSet
from segfw.dataset.layouts import find_dataset
from segfw.dataset.patients import read_groups
from segfw.images.formats import write_labels
from segfw.images.volume import Volume
from segfw.perturbations.spoiling import SHIFTS, spoilt
from segfw.planning.work_folder import load_plan_and_splits
from segfw.quality.calibration_pass import read_with_classes
from segfw.quality.quality_model import CLEAN
from segfw.quality.unseen_cases import require_unseen, with_labels_of
from segfw.verbs.predict import predict

POOL_FILE = "pool.json"
MASKS = "masks"
EXPERT = "expert"


class PoolFacts(Record):
    """``versions`` of each case are the shifts it was spoilt by, CLEAN among them."""

    name: str
    processor: str
    labels: LabelSet
    patient_of: dict[str, str]
    versions: dict[str, tuple[str, ...]]


def version_name(case: str, shift: str) -> str:
    """'a__noise'."""
    return f"{case}__{shift}"


def predict_pool(work: Path, kept: Path, pool: Path, name: str, *, spoilt_copies: int, mirroring: bool = True) -> None:
    """Writes the pool of the kept-out cases of a calibrated model."""
    plan, _ = load_plan_and_splits(work)
    if not (work / "quality.json").is_file():
        raise UserError(f"{work}: is not calibrated; call segfw calibrate {work} first")
    found = find_dataset(kept)
    require_unseen(work, found.root, found.cases)
    cases = with_labels_of(plan.labels, found)
    versions = {}
    for case in progress("cases of the pool", list(cases)):
        rng = np.random.default_rng(crc32(case.id.encode()))
        drawn = rng.choice(len(SIX_SHIFTS), min(spoilt_copies, len(SIX_SHIFTS)), replace=False).tolist()
        versions[case.id] = (CLEAN, *(SIX_SHIFTS[index] for index in sorted(drawn)))
        if all((pool / EXPERT / f"{version_name(case.id, one)}.nii.gz").is_file() for one in versions[case.id]):
            continue
        read = read_with_classes(case, plan.labels)
        for shift in versions[case.id]:
            image, classes = read.image, read.classes
            if shift != CLEAN:
                own = np.random.default_rng([crc32(case.id.encode()), list(SHIFTS).index(shift)])
                image, changed = spoilt(read.image, read.classes, shift, own)
                classes = changed or read.classes
            _write(pool, version_name(case.id, shift), image, classes, plan.labels)
    PoolFacts(
        name=name,
        processor=processor_name(),
        labels=plan.labels,
        patient_of=read_groups(GROUPS.get(name), [case.id for case in cases], found.patient_of),
        versions=versions,
    ).save(pool / POOL_FILE)
    predict(work, pool / "images", pool / MASKS, device="cpu", mirroring=mirroring)


def _write(pool: Path, name: str, image: Volume, classes: Volume, labels: LabelSet) -> None:
    """The expert's mask last: it says that both are there."""
    for folder in ("images", EXPERT):
        (pool / folder).mkdir(parents=True, exist_ok=True)
    affine = image.geometry.matrix[:, [2, 1, 0, 3]]
    array_xyz = np.ascontiguousarray(image.array[0].astype(np.float32).T)
    nibabel.save(nibabel.Nifti1Image(array_xyz, affine), pool / "images" / f"{name}.nii.gz")
    values = np.array(labels.stored_values)[classes.array[0]]
    write_labels(pool / EXPERT / f"{name}.nii.gz", values, image.geometry)
