"""One training of a comparison of starts: some labelled patients, one arm, scored on cases that no arm saw."""

from __future__ import annotations

import shutil
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from torch import nn

from segfw.base.file_names import RUN_SETTINGS_FILE
from segfw.base.files import link_or_copy
from segfw.base.parallel import CasesFailed
from segfw.base.records import UserError
from segfw.dataset.cases import Case
from segfw.evaluation.evaluate_pairs import evaluate_pairs
from segfw.evaluation.metrics import Scores
from segfw.evaluation.pairs import LabelledPairs
from segfw.inference.many_cases import predict_cases
from segfw.inference.output_folder import OutputFolder
from segfw.inference.predictor import Predictor
from segfw.model.load import load_model
from segfw.model.source import WEIGHTS_FILE, fold_folder
from segfw.model.training_record import read_run_record
from segfw.planning.mirroring import output_orders
from segfw.planning.plan import PLAN_FILE, Configuration, Plan, target_of
from segfw.planning.splits import Fold, Splits
from segfw.pretraining.fine_tuning import fine_tuning_settings
from segfw.pretraining.given_start import GivenStart
from segfw.pretraining.start_curves import FOLD
from segfw.pretraining.start_results import (
    MODEL,
    PRETRAINED,
    QUARTER,
    SCRATCH_LONGER,
    Arm,
    Dices,
    StartResult,
    training_folder,
)
from segfw.training.checkpoint import CHECKPOINT_FILE, GOOD_FILE
from segfw.training.initial_weights import start_from
from segfw.training.kept_weights import kept_file
from segfw.training.loop import train
from segfw.training.settings import TrainSettings
from segfw.training.train_request import TrainRequest

QUARTER_FOLDER = "quarter"
ALL = "all"


@dataclass(frozen=True, kw_only=True)
class StartsPlan:
    """What all trainings of a comparison have in common. ``cases`` are those that no arm is trained on.

    ``seen_by_model`` are validation cases that ``model`` is known to have seen, and what tells so.
    """

    work: Path
    output: Path
    plan: Plan
    configuration: Configuration
    cases: tuple[Case, ...]
    annotated: Mapping[str, tuple[bool, ...]]  # outputs, of cases annotated in part
    time_budget_s: float
    pretrain_s: float
    pretrained: Path
    model: GivenStart | None
    seen_by_model: Mapping[str, str]
    device: str


def training_patients(splits: Splits, fold: Fold) -> list[str]:
    """The patients that a fold trains on, each case one where patients are not known."""
    return sorted(set((splits.patients_of(fold.train) or {case: case for case in fold.train}).values()))


def labelled_cases(splits: Splits, fold: Fold, labelled: str, seed: int) -> tuple[str, ...]:
    """The cases of so many patients of a fold's training part: the first of an order that the seed draws.

    So those of fewer patients are among those of more. Raises UserError if there are not so many.
    """
    patient_of = splits.patients_of(fold.train) or {case: case for case in fold.train}
    patients = training_patients(splits, fold)
    number = len(patients) if labelled == ALL else int(labelled)
    if number > len(patients):
        raise UserError(f"--labelled {labelled}: the fold trains on {len(patients)} patients only; give fewer, or all")
    order = np.random.default_rng([seed, 23]).permutation(len(patients))
    chosen = {patients[index] for index in order[:number]}
    return tuple(case for case in fold.train if patient_of[case] in chosen)


def scored_cases(splits: Splits, fold: Fold, patients: int | None) -> tuple[str, ...]:
    """The validation cases that all arms are scored on: those of so many patients, spread evenly; or all."""
    if patients is None:
        return fold.validation
    patient_of = splits.patients_of(fold.validation) or {case: case for case in fold.validation}
    names = sorted(set(patient_of.values()))
    number = min(patients, len(names))
    chosen = {names[index * len(names) // number] for index in range(number)}
    return tuple(case for case in fold.validation if patient_of[case] in chosen)


def train_and_score(common: StartsPlan, labelled: str, seed: int, arm: Arm, cases: tuple[str, ...]) -> StartResult:
    """Trains one arm from where it is, and scores it after a quarter of its schedule and at its end."""
    home = training_folder(common.output, labelled, seed, arm)
    folder = fold_folder(home, common.configuration.name, FOLD)
    common.plan.save(home / PLAN_FILE)
    if not (folder / WEIGHTS_FILE).is_file():
        train(_request(common, folder, seed, arm, cases))
    at_quarter = home / QUARTER_FOLDER
    early = fold_folder(at_quarter, common.configuration.name, FOLD)
    early.mkdir(parents=True, exist_ok=True)
    common.plan.save(at_quarter / PLAN_FILE)
    link_or_copy(kept_file(folder, QUARTER), early / WEIGHTS_FILE)
    run = read_run_record(folder)
    end = None if run is None else run.end
    result = StartResult(
        labelled=labelled,
        seed=seed,
        arm=arm,
        cases=cases,
        steps=0 if end is None else end.steps,
        seconds=0.0 if end is None else end.seconds,
        quarter=_scores(common, at_quarter),
        end=_scores(common, home),
    )
    for name in (CHECKPOINT_FILE, GOOD_FILE):  # of many trainings, they are most of what is on the disk
        (folder / name).unlink(missing_ok=True)
    return result


def require_one_rule(common: StartsPlan, trainings: Sequence[tuple[str, int, Arm]]) -> None:
    """UserError if a training was begun with another warm-up, or another rate of the encoder, than its arm has now.

    An earlier version did not train gently what begins with given weights that are pretrained; the rest of such an arm,
    and of what it is compared with, would follow another rule.
    """
    for labelled, seed, arm in trainings:
        home = training_folder(common.output, labelled, seed, arm)
        path = fold_folder(home, common.configuration.name, FOLD) / RUN_SETTINGS_FILE
        if not path.is_file():
            continue
        before = TrainSettings.load(path)
        now = _settings(common, seed, arm)
        if (before.warm_up_share, before.encoder_rate) != (now.warm_up_share, now.encoder_rate):
            raise UserError(
                f"{path}: the arm '{arm}' was begun with {_rule_text(before)}, and would go on with {_rule_text(now)}, "
                f"as such weights are trained now; give another --output than {common.output} to begin all arms anew"
            )


def _rule_text(settings: TrainSettings) -> str:
    return (
        f"a warm-up of {settings.warm_up_share:.0%} of its steps and {settings.encoder_rate:g} times the encoder's rate"
    )


def _settings(common: StartsPlan, seed: int, arm: Arm) -> TrainSettings:
    longer_s = common.pretrain_s if arm == SCRATCH_LONGER else 0.0
    settings = TrainSettings(time_budget_s=common.time_budget_s + longer_s, seed=seed)
    is_gentle = arm == PRETRAINED or (arm == MODEL and common.model is not None and common.model.is_gentle)
    return fine_tuning_settings(settings) if is_gentle else settings


def _request(common: StartsPlan, folder: Path, seed: int, arm: Arm, cases: tuple[str, ...]) -> TrainRequest:
    plan = common.plan
    chosen = common.configuration
    return TrainRequest(
        folder=folder,
        preprocessed=common.work / "preprocessed" / chosen.data_name,
        configuration=chosen,
        fold=Fold(train=cases, validation=()),
        settings=_settings(common, seed, arm),
        label_names=tuple(plan.labels.structures),
        target=target_of(plan.labels),
        annotated=common.annotated,
        output_orders=output_orders(chosen.swapped_pairs, plan.labels),
        device=common.device,
        resume=(folder / CHECKPOINT_FILE).is_file(),
        keeps_patch=plan.as_published,
        keep_at=(QUARTER,),
        start=_start(common, arm),
    )


def _start(common: StartsPlan, arm: Arm) -> Callable[[nn.Module], None] | None:
    if arm == PRETRAINED:
        return start_from(common.pretrained, common.configuration.name, FOLD)
    if arm == MODEL and common.model is not None:
        return common.model.begin
    return None


def _scores(common: StartsPlan, home: Path) -> Dices:
    """Dice of every structure in every case that no arm saw, on the cases' own grid; masks are not kept."""
    output = home / "masks"
    model = load_model(home, common.configuration.name, (FOLD,))
    predictor = Predictor.of(model, device=common.device)
    inputs = [Case(id=case.id, images=case.images) for case in common.cases]
    cohort = predict_cases([predictor], inputs, OutputFolder(path=output))
    if cohort.failures:
        raise CasesFailed("in scoring a start", cohort.failures, home, not_begun=cohort.not_begun)
    scores = _evaluated(common, output, common.cases)
    shutil.rmtree(output, ignore_errors=True)
    return {
        case: {name: None if score.dice is None else round(score.dice, 5) for name, score in by_structure.items()}
        for case, by_structure in scores.cases.items()
    }


def _evaluated(common: StartsPlan, output: Path, cases: Sequence[Case]) -> Scores:
    return evaluate_pairs(
        LabelledPairs(
            files={case.id: (case.label, output / f"{case.id}.nii.gz") for case in cases if case.label is not None},
            labels=common.plan.labels,
            label_maps={case.id: case.label_map for case in cases},
            annotated={case.id: case.annotated for case in cases if case.annotated is not None},
        )
    )
