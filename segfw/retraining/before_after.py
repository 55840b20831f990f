"""The verdict on a retraining, from the scores of its three models and from what the labels and trainings took."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path

from segfw.base.ranks import ALONE
from segfw.dataset.cases import Case
from segfw.evaluation.metrics import LabelScore, Scores
from segfw.inference.whole_cases import validate
from segfw.model.load import load_model
from segfw.model.promotion import Promotion
from segfw.model.source import fold_folder
from segfw.model.training_record import read_run_record
from segfw.networks import build_network
from segfw.retraining.promotion_rule import LIMIT_MEAN, LIMIT_STRUCTURE, CaseScores, ThreeModels, gains, verdict
from segfw.retraining.retraining_plan import SCORES, Base
from segfw.retraining.retraining_record import CONTROL_FOLDER, TEST_FOLDER, Retraining
from segfw.reviewing.review_ledger import read_ledger

MODELS = ("base", "control", "new")


def model_folders(base: Base, new_work: Path) -> dict[str, Path]:
    """The work folder of each of the three models."""
    return {"base": base.work, "control": new_work / CONTROL_FOLDER, "new": new_work}


def validation_scores(base: Base, new_work: Path, patient_of: Mapping[str, str]) -> ThreeModels:
    """Scores of the old validation cases, each by the fold that did not see it; those of new cases are left out."""
    old = {fold: set(base.content.splits.fold(fold).validation) for fold in base.folds}
    scores: dict[str, CaseScores] = {}
    for name, work in model_folders(base, new_work).items():
        of_cases: dict[str, Mapping[str, LabelScore]] = {}
        for fold in reversed(base.folds):  # a case that several folds validate on is of the first
            found = Scores.load(fold_folder(work, base.configuration.name, fold) / SCORES)
            of_cases |= {case: by_label for case, by_label in found.cases.items() if case in old[fold]}
        scores[name] = of_cases
    return ThreeModels(base=scores["base"], control=scores["control"], new=scores["new"], patient_of=patient_of)


def test_scores(
    base: Base, new_work: Path, cases: tuple[Case, ...], patient_of: Mapping[str, str], device: str
) -> ThreeModels:
    """Scores of the test cases by all retrained folds of each model together; masks that are there are kept."""
    scores: dict[str, CaseScores] = {}
    for name, work in model_folders(base, new_work).items():
        print(f"test cases by the {name} model")
        found = validate(
            load_model(work, base.configuration.name, base.folds),
            cases,
            new_work / TEST_FOLDER / name,
            device=device,
            precision="auto",
            build=build_network,
            ranks=ALONE,
            curve=(),
        )
        scores[name] = {case: dict(by_label) for case, by_label in found.cases.items()}
    return ThreeModels(base=scores["base"], control=scores["control"], new=scores["new"], patient_of=patient_of)


def promotion_of(
    base: Base, new_work: Path, retraining: Retraining, models: ThreeModels, *, is_test: bool
) -> Promotion:
    """The verdict, and all that is told beside it."""
    structures, mean = gains(models, tuple(base.content.plan.labels.structures))
    is_promoted, why = verdict(structures, mean)
    folders = model_folders(base, new_work)
    return Promotion(
        is_promoted=is_promoted,
        why=why,
        recommended=(new_work if is_promoted else base.work).resolve(),
        base=base.work.resolve(),
        judged_on="test" if is_test else "validation",
        limit_structure=LIMIT_STRUCTURE,
        limit_mean=LIMIT_MEAN,
        structures=tuple(structures),
        mean=mean,
        new_cases=len(retraining.new),
        unedited_cases=retraining.count("unedited"),
        blank_cases=retraining.count("blank"),
        extra_steps=sum(start.steps for start in retraining.folds),
        expert_minutes=expert_minutes(retraining),
        training_minutes=training_minutes(folders["new"], base),
        control_minutes=training_minutes(folders["control"], base),
    )


def expert_minutes(retraining: Retraining) -> float | None:
    """What people worked on the new cases, as the ledgers of their folders say; None where these say nothing."""
    cases_of: dict[Path, set[str]] = {}
    for label in retraining.new:
        cases_of.setdefault(label.folder, set()).add(label.case.id)
    rows = [row for folder, cases in cases_of.items() for row in read_ledger(folder) if row.case in cases]
    return sum(row.active_s for row in rows) / 60 if rows else None


def training_minutes(work: Path, base: Base) -> float:
    """Of all retrained folds in a work folder."""
    seconds = 0.0
    for fold in base.folds:
        record = read_run_record(fold_folder(work, base.configuration.name, fold))
        if record is not None and record.end is not None:
            seconds += record.end.seconds
    return seconds / 60
