"""How far the work in a work folder is: plan, preprocessed cases, folds, selection, and what comes next."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from statistics import mean
from typing import Any, Literal

from segfw.base.answers import Answer
from segfw.base.durations import HOUR_S, duration_text, typed_duration
from segfw.base.file_names import PLAN_FILE, PLAN_LOCK_FILE, SPLITS_FILE
from segfw.base.locks import Holder, holder_now
from segfw.base.records import Record
from segfw.base.shell_line import shell_line
from segfw.base.words import count
from segfw.base.written_by_people import read_json
from segfw.dataset.cases import MANIFEST_FILE, DatasetManifest
from segfw.model.calibration_facts import CalibrationFacts, calibration_text, read_calibration
from segfw.model.promotion import Promotion, read_promotion
from segfw.model.selection import read_selection
from segfw.model.source import ModelSource
from segfw.retraining.retraining_record import read_retraining
from segfw.standing.facts import ConfigurationFacts, PlanFacts
from segfw.standing.of_fold import FoldStanding, fold_standing
from segfw.standing.of_pretraining import PretrainingStanding, pretrainings_in

FULLRES = "3d_fullres"  # which is trained first where nothing else is said


class ConfigurationStanding(Record):
    """What is done of a configuration."""

    name: str
    patch_size: tuple[int, int, int]
    batch_size: int
    cases_preprocessed: int
    is_refiner: bool = False  # corrects masks, so that none of its own are scored or chosen
    folds: tuple[FoldStanding, ...]

    def of_state(self, *states: str) -> list[FoldStanding]:
        """Its folds in one of the states."""
        return [fold for fold in self.folds if fold.state in states]


class WorkStanding(Answer):
    """How far a work folder is.

    Hours left are an estimate from the epochs so far: ``hours_left`` of the folds that are begun,
    ``hours_left_with_all`` also of those that are not, where another fold of the configuration tells how long one
    takes; None where nothing is known.
    """

    kind: Literal["work"] = "work"
    path: Path
    dataset: str
    cases: int
    channels: tuple[str, ...]
    labels: tuple[str, ...]
    preset: str
    planner: Holder | None  # who is planning or preprocessing now
    configurations: tuple[ConfigurationStanding, ...]
    selection: str | None
    calibration: CalibrationFacts | None = None
    promotion: Promotion | None = None  # of a retrained model
    pretrained: tuple[PretrainingStanding, ...] = ()
    hours_spent: float
    hours_left: float | None
    hours_left_with_all: float | None
    next: str

    def text(self) -> str:
        """What is there, a line for each configuration and fold that is begun, and the next command."""
        labels = ", ".join(self.labels)
        lines = [
            f"{self.path}: work folder of {self.dataset}, {count(self.cases, 'case')}, channels "
            f"{', '.join(self.channels)}, labels {labels}",
            f"planned with the {self.preset!r} preset: {', '.join(each.name for each in self.configurations)}",
        ]
        if self.planner is not None:
            lines.append(f"being planned or preprocessed now by {self.planner}")
        for each in self.configurations:
            lines.append(f"{each.name}: {each.cases_preprocessed} of {count(self.cases, 'case')} preprocessed")
            lines += [f"  {fold.text()}" for fold in each.folds if fold.state != "not begun"]
            waiting = each.of_state("not begun")
            if waiting:
                lines.append(f"  not begun: fold {', '.join(fold.fold for fold in waiting)}")
        lines += [pretraining.text() for pretraining in self.pretrained]
        lines.append(f"selection: {self.selection or 'none was made (segfw select)'}")
        if self.calibration is not None or any(each.of_state("trained", "finished") for each in self.configurations):
            lines.append(f"calibration: {calibration_text(self.calibration)}")
        if self.promotion is not None:
            lines.append(f"retrained, {self.promotion.text}")
            lines.append(f"retrained with {self.promotion.labels_text}")
        if self.hours_spent:
            lines.append(f"spent on training: {duration_text(self.hours_spent * HOUR_S)}")
        if self.hours_left:
            lines.append(f"left, estimated from the epochs so far: {duration_text(self.hours_left * HOUR_S)}")
        if self.hours_left_with_all and self.hours_left_with_all > (self.hours_left or 0):
            lines.append(f"left with all folds that are not begun: {duration_text(self.hours_left_with_all * HOUR_S)}")
        return "\n".join([*lines, f"next: {self.next}"])


def work_standing(path: Path) -> WorkStanding | None:
    """How far a work folder is; None if it is none. UserError if one of its files is damaged."""
    if not (path / PLAN_FILE).is_file() or not (path / SPLITS_FILE).is_file():
        return None
    plan = PlanFacts.load(path / PLAN_FILE)
    splits = read_json(path / SPLITS_FILE)
    folds = [str(number) for number in range(len(splits["folds"]))] if isinstance(splits, dict) else []
    configurations = tuple(_configuration(path, each, folds) for each in plan.configurations.values())
    pretrained = tuple(pretrainings_in(path, plan, _validation(splits)))
    begun = [fold for each in configurations for fold in each.of_state("running", "interrupted")]
    known = [fold.hours_left for fold in begun if fold.hours_left is not None]
    with ModelSource.open(path) as source:
        selection = read_selection(source)
        calibration = read_calibration(source)
    return WorkStanding(
        path=path,
        dataset=plan.dataset,
        cases=plan.training_cases,
        channels=plan.channel_names,
        labels=plan.label_names,
        preset=plan.preset,
        planner=holder_now(path / PLAN_LOCK_FILE),
        configurations=configurations,
        selection=None if selection is None else selection.name,
        calibration=calibration,
        promotion=read_promotion(path),
        pretrained=pretrained,
        hours_spent=sum(fold.hours_spent for each in configurations for fold in each.folds),
        hours_left=sum(known) if known or not begun else None,
        hours_left_with_all=_hours_with_all(configurations),
        next=_of_retraining(path)
        or _next(
            path,
            plan,
            configurations,
            pretrained,
            has_selection=selection is not None,
            calibrated=None if calibration is None else calibration.identity.configuration,
        ),
    )


def _validation(splits: Any) -> dict[str, tuple[str, ...]]:
    """By fold the cases that it validates on."""
    found = {}
    for number, fold in enumerate(splits["folds"] if isinstance(splits, dict) else []):
        validation = fold.get("validation") if isinstance(fold, dict) else None
        found[str(number)] = tuple(map(str, validation)) if isinstance(validation, list) else ()
    return found


def _configuration(work: Path, facts: ConfigurationFacts, folds: Sequence[str]) -> ConfigurationStanding:
    stored = work / "preprocessed" / (FULLRES if facts.previous_stage else facts.name)
    if facts.is_refiner and not stored.is_dir():  # of single slices
        stored = work / "preprocessed" / "2d"
    of_all = ["all"] if (work / "runs" / facts.name / "fold_all").is_dir() else []
    return ConfigurationStanding(
        name=facts.name,
        patch_size=facts.patch_size,
        batch_size=facts.batch_size,
        cases_preprocessed=len(list(stored.glob("[!.]*.json"))),
        is_refiner=facts.is_refiner,
        folds=tuple(
            fold_standing(work, facts.name, fold, is_scored=not facts.is_refiner) for fold in (*folds, *of_all)
        ),
    )


def _hours_with_all(configurations: Sequence[ConfigurationStanding]) -> float | None:
    total = 0.0
    for each in configurations:
        lengths = [fold.hours_spent + fold.hours_left for fold in each.folds if fold.hours_left is not None]
        if not lengths and each.of_state("running", "interrupted"):
            return None
        total += sum(fold.hours_left or 0.0 for fold in each.folds)
        total += len(each.of_state("not begun")) * mean(lengths) if lengths else 0.0
    return total


def _next(
    work: Path,
    plan: PlanFacts,
    configurations: Sequence[ConfigurationStanding],
    pretrained: Sequence[PretrainingStanding],
    *,
    has_selection: bool,
    calibrated: str | None,
) -> str:
    """The command that brings the work on."""
    for each in configurations:
        if each.of_state("running"):
            return shell_line("segfw", "status", work)
    for each in configurations:
        for fold in each.of_state("interrupted", "trained"):
            resume = ["--resume"] if fold.state == "interrupted" else []
            return shell_line("segfw", "train", work, each.name, fold.fold, *resume)
    predicting = [each for each in configurations if not each.is_refiner]
    if not any(each.of_state("finished") for each in predicting):
        return _of_pretraining(work, plan, pretrained) or _first_training(work, plan, predicting)
    whole = [each for each in predicting if len(each.of_state("finished")) == len(each.folds)]
    if len(whole) > 1 and not has_selection:
        return shell_line("segfw", "select", work)
    finished = {each.name: len(each.of_state("finished")) for each in predicting if each.of_state("finished")}
    is_settled = len(finished) == 1 or has_selection or calibrated in finished
    choice = [] if is_settled else ["--configuration", max(finished, key=finished.__getitem__)]
    return shell_line("segfw", "predict", work, "NEW_IMAGES", "MASKS", *choice)


def _of_pretraining(work: Path, plan: PlanFacts, pretrained: Sequence[PretrainingStanding]) -> str:
    """The command that follows a pretraining; '' where none was begun that is still of the plan."""
    for each in pretrained:
        if each.outdated:
            continue
        if each.state == "running":
            return shell_line("segfw", "status", work)
        if each.again:
            return each.again
        start = ["--init-from", str(each.folder), *_length(plan)]
        fold = each.folds[0] if each.folds else "all"  # which is validated on nothing, where nothing stayed unseen
        return shell_line("segfw", "train", work, each.configuration, fold, *start)
    return ""


def _of_retraining(work: Path) -> str:
    """The command that brings a retraining on, or follows its verdict; '' of any other work folder."""
    promotion = read_promotion(work)
    if promotion is not None:
        return shell_line("segfw", "predict", promotion.recommended, "NEW_IMAGES", "MASKS")
    retraining = read_retraining(work)
    return "" if retraining is None else shell_line(*retraining.asked.words(work))


def _first_training(work: Path, plan: PlanFacts, configurations: Sequence[ConfigurationStanding]) -> str:
    ready = [each.name for each in configurations if each.cases_preprocessed]
    if not ready:
        raw = DatasetManifest.load(work / MANIFEST_FILE).root if (work / MANIFEST_FILE).is_file() else "RAW"
        return shell_line("segfw", "plan-and-preprocess", raw, work)
    name = next((name for name in (plan.chosen, FULLRES) if name in ready), ready[0])
    return shell_line("segfw", "train", work, name, "0", *_length(plan))


def _length(plan: PlanFacts) -> list[str]:
    return [] if plan.planned_time_s is None else ["--time-budget", typed_duration(plan.planned_time_s)]
