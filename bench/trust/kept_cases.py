"""What a model finds in patients that were kept out of everything, clean and spoilt; stored, so that tables need no
network again.

ITEMS/kept/CASE.json is what one case gave, ITEMS/calibration/ what ``segfw calibrate`` kept of the training cases, and
ITEMS/model.json what both are of. A call that was ended goes on.
"""

from __future__ import annotations

import hashlib
from collections.abc import Sequence
from pathlib import Path
from zlib import crc32

import numpy as np

from bench.runs import processor_name
from segfw.base.progress import progress
from segfw.base.records import Record, UserError
from segfw.dataset.cases import MANIFEST_FILE, Case, DatasetManifest
from segfw.dataset.labels import LabelSet
from segfw.dataset.layouts import find_dataset
from segfw.dataset.patients import read_groups
from segfw.inference.predictor import Predictor
from segfw.model.load import load_model
from segfw.perturbations.spoiling import SHIFTS, spoilt
from segfw.planning.work_folder import load_plan_and_splits
from segfw.quality.calibration_folder import RULES_VERSION
from segfw.quality.calibration_pass import CalibratedCase, calibrate_case, read_with_classes
from segfw.quality.image_fingerprint import Fingerprint, image_fingerprint
from segfw.quality.model_identity import ModelIdentity
from segfw.quality.nearest_cases import CALIBRATION_FOLDER
from segfw.quality.quality_model import CLEAN
from segfw.quality.unseen_cases import require_unseen, with_labels_of
from segfw.training.prepare import SETTINGS_FILE
from segfw.training.settings import TrainSettings

MODEL_FILE = "model.json"
SIX_SHIFTS = ("noise", "blur", "low_resolution", "gamma", "inversion", "orientation")


class TrustedModel(Record):
    """What items are of: a model, the patients of its calibration and of those that were kept out."""

    name: str
    seed: int
    minutes_per_fold: float
    processor: str
    identity: ModelIdentity
    labels: LabelSet
    shifts: tuple[str, ...]
    patient_of: dict[str, str]
    kept_patient_of: dict[str, str]


class KeptCase(Record):
    """A case that was kept out: every pass by all folds, and the fingerprint of the image of each."""

    found: CalibratedCase
    fingerprints: dict[str, Fingerprint]


def predict_kept(
    work: Path, kept: Path, items: Path, name: str, *, groups: str | None = None, shifts: Sequence[str] = SIX_SHIFTS
) -> None:
    """Predicts every kept-out case by all folds, clean and by each shift, and gathers what calibration kept.

    Parameters
    ----------
    work
        Work folder with trained folds that ``segfw calibrate`` was called for.
    kept
        Labelled cases, in any layout of training data, that neither training nor calibration saw.
    items
        Folder that gets everything.
    name
        Of the data set, in tables.
    groups
        Which cases are of one patient, as for ``segfw run``.
    shifts
        Names of SHIFTS.
    """
    plan, _ = load_plan_and_splits(work)
    model = load_model(work)
    identity = ModelIdentity.of(model)
    calibrated = work / CALIBRATION_FOLDER / identity.configuration
    if not calibrated.is_dir():
        raise UserError(f"{work}: is not calibrated; call segfw calibrate {work} first")
    found = find_dataset(kept)
    require_unseen(work, found.root, found.cases)
    cases = with_labels_of(plan.labels, found)
    trained = [case.id for case in DatasetManifest.load(work / MANIFEST_FILE).cases]
    settings = TrainSettings.load(
        work / "runs" / identity.configuration / f"fold_{next(iter(identity.folds))}" / SETTINGS_FILE
    )
    TrustedModel(
        name=name,
        seed=settings.seed,
        minutes_per_fold=(settings.time_budget_s or 0.0) / 60,
        processor=processor_name(),
        identity=identity,
        labels=plan.labels,
        shifts=tuple(shifts),
        patient_of=read_groups(groups, trained),
        kept_patient_of=read_groups(groups, [case.id for case in cases], found.patient_of),
    ).save(items / MODEL_FILE)
    for file in sorted(calibrated.glob("[!.]*.json")):
        CalibratedCase.load(file).save(items / "calibration" / file.name)

    predictor = Predictor.of(model, device="cpu")
    folds = tuple(identity.folds)
    for case in progress("kept-out cases", list(cases)):
        made_from = hashlib.sha256(repr((RULES_VERSION, identity.folds, tuple(shifts))).encode()).hexdigest()
        path = items / "kept" / f"{case.id}.json"
        if path.is_file() and KeptCase.load(path).found.made_from == made_from:
            continue
        passes = calibrate_case(predictor, case, folds, tuple(shifts), made_from)
        KeptCase(found=passes, fingerprints=_fingerprints(predictor, case, shifts)).save(path)


def _fingerprints(predictor: Predictor, case: Case, shifts: Sequence[str]) -> dict[str, Fingerprint]:
    """Of the image as it is and spoilt, by the same draws as in ``calibrate_case``."""
    read = read_with_classes(case, predictor.plan.labels)
    images = {CLEAN: read.image}
    for shift in shifts:
        rng = np.random.default_rng([crc32(case.id.encode()), list(SHIFTS).index(shift)])
        images[shift], _ = spoilt(read.image, read.classes, shift, rng)
    found = {}
    for shift, image in images.items():
        prepared = predictor.prepare(image)
        found[shift] = image_fingerprint(prepared.image, prepared.record)
    return found


def read_items(items: Path) -> tuple[TrustedModel, list[CalibratedCase], list[KeptCase]]:
    """Everything that ``predict_kept`` left; UserError where it is not there."""
    model = TrustedModel.load(items / MODEL_FILE)
    calibration = [CalibratedCase.load(file) for file in sorted((items / "calibration").glob("*.json"))]
    kept = [KeptCase.load(file) for file in sorted((items / "kept").glob("*.json"))]
    if not kept or not calibration:
        raise UserError(f"{items}: holds no items; call python -m bench trust predict first")
    return model, calibration, kept
