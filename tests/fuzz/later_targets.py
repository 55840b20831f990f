"""Files that came later: of refiners, outcomes, pretrainings and comparisons of starts, each with its reader."""

from __future__ import annotations

from pathlib import Path

import numpy as np

from builders.models import write_fold
from builders.networks import spec
from builders.refiner import untrained_refiner
from builders.training import ZSCORE, configuration
from segfw.base.errors import UserError
from segfw.checkup.signature import signature
from segfw.clicks.click import Click
from segfw.interaction.edits_log import Edit, read_edits
from segfw.model.load import load_refiner
from segfw.model.pretraining_record import PretrainingEnd, PretrainingRecord, SeenImage
from segfw.model.source import fold_folder
from segfw.outcomes.cohorts import LeftOut
from segfw.outcomes.fitting_models import MODELS
from segfw.outcomes.outcome_model import Equation, OutcomeModel, Term
from segfw.outcomes.outcome_options import OutcomeOptions
from segfw.outcomes.outcome_report import ModelFigures, OutcomeReport
from segfw.outcomes.outcome_table import Covariate
from segfw.planning.plan import PLAN_FILE, REFINE, Plan
from segfw.pretraining.seen_images import read_signatures, save_signatures
from segfw.pretraining.start_results import SCRATCH, Gain, StartsSummary
from segfw.standing.of_outcome import outcome_standing
from segfw.verbs.export import export_model

PRETRAINED = PretrainingRecord(
    configuration="3d_fullres",
    network=spec(),
    heads=("heads.0.weight",),
    asked={"images": [], "seed": 0},
    folds=("0",),
    seen=(SeenImage(id="a", sha256="0" * 64, source=Path("a.nii.gz"), voxels_sha256="1" * 64),),
    judged=(),
    kept_out=(),
    end=PretrainingEnd(steps=9, seconds=1.5, explained=0.25),
)
FROZEN = OutcomeModel(
    version="1",
    target="died",
    event="yes",
    covariates=(Covariate(column="sex", texts=("f", "m")),),
    settings="",
    patients=90,
    events=30,
    explore=False,
    equations={
        name: Equation(intercept=-1.5, terms=(Term(name="x", coefficient=0.5, stand_in=2.0),)) for name in MODELS
    },
    fitted_on=("0" * 16,),
)
FIGURES = ModelFigures(auc=0.7, auc_low=0.6, auc_high=0.8, brier=0.2, calibration_intercept=0.0, calibration_slope=1.0)
STUDY = OutcomeReport(
    version="1",
    measures="m.csv",
    table="t.csv",
    target="died",
    event="yes",
    explore=False,
    patients=90,
    events=30,
    covariates=("sex",),
    features=5,
    settings="",
    left_out=LeftOut(),
    imputed=0.0,
    models={"covariates": FIGURES},
    gain=None,
    shares=(),
    formulas={},
    test=None,
    notes=(),
    asked=OutcomeOptions(covariates=("sex",), by_patient="p.csv", permutations=19).as_json(),
)
GAIN = Gain(
    labelled="10",
    at="end",
    first="pretrained",
    second=SCRATCH,
    seeds=1,
    patients=6,
    first_dice=0.5,
    second_dice=0.4,
    difference=0.1,
    low=0.05,
    high=0.15,
    by_seed=(0.1,),
    seed_low=None,
    seed_high=None,
    verdict="no gain shown",
)
COMPARED = StartsSummary(asked={"seeds": 1}, pretrain_s=1.5, gains=(GAIN,), guards={"pretrained": "On 9 images."})
EDIT = Edit(
    mask="b.nii.gz",
    made_from="a.nii.gz",
    number=1,
    click=Click(label="liver", ras_mm=(1.0, 2.0, 3.0)),
    may_overwrite=False,
    gained={"liver": 5},
    lost={},
    seconds=0.5,
    model="0" * 64,
)


def refiner_plan(folder: Path) -> Path:
    return untrained_refiner(folder / "work") / PLAN_FILE


def refiner_weights(folder: Path) -> Path:
    return fold_folder(untrained_refiner(folder / "work"), REFINE, "0") / "weights.safetensors"


def refiner_file(folder: Path) -> Path:
    """A model with its refiner, in one file."""
    work = untrained_refiner(folder / "work")
    plan = Plan.load(work / PLAN_FILE)
    found = configuration(ZSCORE, spec())
    plan = plan.model_copy(update={"configurations": {found.name: found, **plan.configurations}})
    plan.save(work / PLAN_FILE)
    write_fold(work, found, "0")
    export_model(work, folder / "refiner.zip")
    return folder / "refiner.zip"


def refiner_of(file: Path) -> object:
    """The refiner that a file is, or that it is of."""
    return sorted(load_refiner(next((parent for parent in file.parents if parent.name == "work"), file)).weights)


def signatures(folder: Path) -> Path:
    image = np.random.default_rng(3).normal(size=(1, 8, 9, 10)).astype(np.float32)
    save_signatures(folder, {"a": signature(image)})
    return folder / "signatures.safetensors"


def signatures_of(file: Path) -> object:
    found = read_signatures(file.parent, PRETRAINED)
    return {name: float(np.abs(each).sum()) for name, each in found.items()}


def study(folder: Path) -> Path:
    STUDY.save(folder / "outcome.json")
    return folder / "outcome.json"


def standing_of_study(file: Path) -> object:
    found = outcome_standing(file)
    if found is None:
        raise UserError(f"{file}: is no study of an outcome")
    return found


def edits(folder: Path) -> Path:
    (folder / "edits.jsonl").write_text(2 * f"{EDIT.model_dump_json()}\n")
    return folder / "edits.jsonl"


def edits_of(file: Path) -> object:
    return len(read_edits(file))
