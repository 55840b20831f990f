"""All that is decided before a retraining trains: which cases, in which folds, from which weights, for how long."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

import torch

from segfw.base.own_version import own_version
from segfw.base.records import UserError
from segfw.base.shell_line import shell_line
from segfw.base.words import count, listed
from segfw.dataset.cases import Case
from segfw.dataset.layouts import find_dataset
from segfw.dataset.patients import read_groups
from segfw.evaluation.metrics import Scores
from segfw.inference.ranking import trained_validating_folds
from segfw.model.default_configuration import default_configuration
from segfw.model.load import require_predicting
from segfw.model.source import ModelSource, fold_folder
from segfw.planning.plan import Configuration, Plan
from segfw.planning.splits import Splits
from segfw.planning.work_folder import load_plan_and_splits
from segfw.quality.unseen_cases import require_unseen, with_labels_of
from segfw.retraining.arm_settings import fold_start
from segfw.retraining.enlarged_folds import (
    dealt_folds,
    enlarged_splits,
    old_share,
    require_no_leak,
    require_patients_apart,
    require_same_patients,
)
from segfw.retraining.enlarged_work import WorkContent, measured_labels
from segfw.retraining.retrain_options import RetrainOptions
from segfw.retraining.retraining_record import AskedRetraining, NewLabel, Retraining, read_retraining
from segfw.retraining.reviewed_labels import reviewed_labels
from segfw.retraining.same_images import same_images

SCORES = Path("validation") / "scores.json"  # in the folder of a fold


@dataclass(frozen=True, kw_only=True)
class Base:
    """The model that is trained on: its work folder, what is trained in it, and what it was retrained from itself."""

    work: Path
    content: WorkContent
    configuration: Configuration
    folds: tuple[str, ...]
    before: Retraining | None

    @property
    def case_ids(self) -> tuple[str, ...]:
        """Of its data."""
        return tuple(case.id for case in self.content.manifest.cases)


def read_base(work: Path, options: RetrainOptions) -> Base:
    """The model in a work folder; UserError where it cannot be trained on and compared."""
    plan, splits = load_plan_and_splits(work)
    configuration = plan.configuration(_configuration(work, plan, options))
    require_predicting(configuration, work)
    if configuration.previous_stage is not None:
        raise UserError(
            f"{configuration.name}: is the second stage of a cascade, and both stages would have to be trained on; "
            "write the enlarged data set with --raw-only and call segfw run"
        )
    trained = trained_validating_folds(work, configuration.name, splits)
    folds = options.folds or tuple(trained)
    missing = [fold for fold in folds if fold not in trained]
    if missing or not folds:
        which = f"fold {listed(missing, 'and')}" if missing else "no fold"
        raise UserError(
            f"{work}: {which} of {configuration.name} {'is not' if missing else 'that holds cases out is'} trained to "
            "its end; train it first, or name others with --folds"
        )
    for fold in folds:
        _require_scores(work, configuration.name, fold, splits.fold(fold).validation)
    return Base(
        work=work,
        content=WorkContent.load(work, plan, splits),
        configuration=configuration,
        folds=folds,
        before=read_retraining(work),
    )


def _require_scores(work: Path, configuration: str, fold: str, validation: Sequence[str]) -> None:
    """UserError unless the fold has scores of all its validation cases, with which the new model is compared."""
    path = fold_folder(work, configuration, fold) / SCORES
    lacking = set(validation) - (Scores.load(path).cases.keys() if path.is_file() else set())
    if lacking:
        raise UserError(
            f"{path}: has no scores of {min(lacking)}, with which the new model would be compared; "
            f"{shell_line('segfw', 'train', work, configuration, fold)} makes them"
        )


def _configuration(work: Path, plan: Plan, options: RetrainOptions) -> str:
    if options.configuration is not None:
        return options.configuration
    with ModelSource.open(work) as source:
        return default_configuration(source, plan)


def asked_retraining(work: Path, labels: Sequence[Path], options: RetrainOptions) -> AskedRetraining:
    """What the command asks for, as it is kept."""
    return AskedRetraining(
        base=work.resolve(),
        labels=tuple(folder.resolve() for folder in labels),
        states=options.states,
        scratch=options.scratch,
        length_share=options.length_share,
        epochs=options.epochs,
        time_budget_s=options.time_budget_s,
        test=None if options.test is None else options.test.resolve(),
        groups=None if options.groups is None else str(options.groups),
        configuration=options.configuration,
        folds=options.folds,
        seed=options.seed,
    )


def plan_retraining(
    base: Base, folders: Sequence[Path], options: RetrainOptions, device: torch.device
) -> tuple[Retraining, Splits]:
    """All decisions, and the folds that follow from them. UserError if there is nothing new, or what there is is wrong.

    Every new case is read once, and verified as training data are.
    """
    candidates = reviewed_labels(folders, base.content.plan.labels, options.states)
    left_out = _left_out(base, candidates)
    taken = [label for label in candidates if label.case.id not in left_out]
    tested = () if options.test is None else test_cases(base, options.test)
    test = [case.id for case in tested]
    ids = [*base.case_ids, *(label.case.id for label in taken), *test]
    patient_of = _patients(base, options, ids)
    new, apart = _dealt(base, taken, patient_of, options.seed)
    left_out |= apart
    if not new:
        raise UserError(
            f"{listed(map(str, folders), 'and')}: {count(len(left_out), 'label')} found, none of them new: "
            f"{next(iter(left_out.values()))}; review others"
        )
    _require_none_tested(base, new, tested, patient_of)
    measured_labels(folders, new, base.content)
    known = {case: patient_of[case] for case in (*base.case_ids, *(label.case.id for label in new))}
    splits = enlarged_splits(base.content.splits, new, known)
    require_no_leak(base.content.splits, splits, known)
    starts = []
    for fold in base.folds:
        start = fold_start(
            base.work,
            base.configuration,
            fold,
            base.before,
            options,
            scratch=options.scratch,
            device=device,
        )
        old = len(base.content.splits.fold(fold).train)
        starts.append(start.model_copy(update={"old_share": old_share(splits.fold(fold), old)}))
    retraining = Retraining(
        asked=asked_retraining(base.work, folders, options),
        configuration=base.configuration.name,
        new=tuple(new),
        left_out=left_out,
        patient_of=known,
        test_patient_of={case: patient_of[case] for case in test},
        folds=tuple(starts),
        version=own_version(),
    )
    return retraining, splits


def splits_of(base: Base, retraining: Retraining) -> Splits:
    """The folds of a retraining that is gone on with."""
    return enlarged_splits(base.content.splits, retraining.new, retraining.patient_of)


def test_cases(base: Base, test: Path) -> tuple[Case, ...]:
    """Labelled cases that nothing was trained on, whose masks mean what the model's do."""
    found = find_dataset(test)
    require_unseen(base.work, found.root, found.cases)
    return with_labels_of(base.content.plan.labels, found)


def _left_out(base: Base, candidates: Sequence[NewLabel]) -> dict[str, str]:
    """Labels of images that are in the data already, which stay so; UserError for another image of that name."""
    same = same_images([label.case for label in candidates], base.content.manifest.cases)
    known = set(base.case_ids)
    clashes = [label for label in candidates if label.case.id in known and same.get(label.case.id) != label.case.id]
    if clashes:
        raise UserError(
            f"{clashes[0].folder}: case {clashes[0].case.id!r} has the name of a case of {base.work}, but another "
            "image; rename the image, predict and review it again, so that one name is one case"
        )
    left_out = {}
    for case, other in same.items():
        where = "is in the data already" if other in known else "is twice among the new labels"
        named = "" if other == case else f", as {other}"
        left_out[case] = f"{case}: its image {where}{named}"
    return left_out


def _patients(base: Base, options: RetrainOptions, ids: Sequence[str]) -> dict[str, str]:
    """The patient of every case, old, new and of the test; UserError where names do not tell them as the folds know."""
    groups = options.groups
    if groups is None and base.before is not None:
        groups = base.before.asked.groups
    patient_of = read_groups(groups, ids)
    old = {case: patient_of[case] for case in base.case_ids}
    require_patients_apart(base.content.splits, old, str(base.work))
    known = base.content.splits.patients_of(base.case_ids)
    if known is not None:
        require_same_patients(known, old, str(base.work))
    return patient_of


def _dealt(
    base: Base, taken: Sequence[NewLabel], patient_of: Mapping[str, str], seed: int
) -> tuple[list[NewLabel], dict[str, str]]:
    """The new labels with their patient and folds; and those of patients that no fold may train on."""
    old = {case: patient_of[case] for case in base.case_ids}
    mine = {label.case.id: patient_of[label.case.id] for label in taken}
    folds = dealt_folds(base.content.splits, old, mine, seed)
    new = []
    left_out = {}
    for label in taken:
        case = label.case.id
        if len(folds[case]) == len(base.content.splits.folds):
            left_out[case] = f"{case}: no fold of {base.work} trains on its patient {mine[case]}, and none shall"
        else:
            new.append(label.model_copy(update={"patient": mine[case], "held_out_of": folds[case]}))
    return new, left_out


def _require_none_tested(
    base: Base, new: Sequence[NewLabel], tested: Sequence[Case], patient_of: Mapping[str, str]
) -> None:
    """UserError if a test case is of a patient, or has the image of a case, that is or was trained on."""
    trained_cases = [*base.content.manifest.cases, *(label.case for label in new)]
    trained = {patient_of[case.id]: case.id for case in trained_cases}
    same = same_images(tested, trained_cases)
    for case in tested:
        other = trained.get(patient_of[case.id])
        if other is not None:
            raise UserError(
                f"{case.images[0]}: is of patient {patient_of[case.id]!r}, as is {other!r}, which is trained on; leave "
                "it out of the test, or correct --groups"
            )
        if case.id in same:
            raise UserError(
                f"{case.images[0]}: is the same image as that of {same[case.id]!r}; leave it out of the test"
            )
