"""``segfw calibrate``: learns how far the masks of a model may be trusted, from cases that its networks never saw."""

from __future__ import annotations

import argparse
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

from segfw.base.command import Argument, Command
from segfw.base.options import takes_options
from segfw.base.speech import aside, say_next
from segfw.planning.work_log import log_in_work
from segfw.quality.calibration_options import CalibrateOptions

if TYPE_CHECKING:
    from segfw.dataset.cases import Case
    from segfw.inference.predictor import Predictor
    from segfw.model.load import Model
    from segfw.networks import BuildNetwork
    from segfw.planning.plan import Plan
    from segfw.planning.splits import Splits
    from segfw.quality.calibration_folder import CalibratedCase, CaseToCalibrate
    from segfw.quality.model_identity import ModelIdentity
    from segfw.quality.quality_fitting import FittedQuality
    from segfw.quality.quality_model import QualityModel

PAGE_FILE = "quality.html"
LOCK_FILE = ".calibrate.lock"


@takes_options(options=CalibrateOptions)
def calibrate(
    work: Path, options: CalibrateOptions = CalibrateOptions(), *, build: BuildNetwork | None = None
) -> QualityModel:
    """Learns to tell the quality of masks without a reference, and writes quality.json and quality.html.

    Each validation case is predicted by the fold that did not see it, as it is and spoilt in five ways of nine, and
    compared with its mask. ``predict`` then says of each mask how good it most likely is, and whether to look at it. A
    call that was ended goes on where it was.

    Parameters
    ----------
    work
        Work folder with trained folds; or any folder of a model, with ``cases``.
    options
        Of which configuration, what counts as failed, and how it is predicted. ``cases`` is a folder of images and
        masks that the model never saw: then all folds predict each of them.
    build
        Makes the network of a NetworkSpec, where another one than the plan's was trained.

    Returns
    -------
    QualityModel
        What quality.json holds.

    Raises
    ------
    UserError
        If there is no fold with validation cases, or there are fewer than five cases.
    CasesFailed
        If cases could not be read or predicted, after all others are done; then nothing is learned.
    """
    from segfw.base.locks import in_turn
    from segfw.base.records import UserError
    from segfw.model.source import is_model_file

    work = Path(work)
    if is_model_file(work):
        raise UserError(f"{work}: is one file, into which nothing is written; calibrate the folder that it was made of")
    cohort = _cohort(work, options)
    with in_turn(work / LOCK_FILE, f"{work}: is being calibrated"):
        return _calibrate(work, cohort, options, build)


@dataclass(frozen=True, kw_only=True)
class _Cohort:
    """Which cases are predicted by which folds of what; ``unseen`` if by all, since none of them saw any."""

    plan: Plan
    configuration: str
    folds: tuple[str, ...]
    cases: Sequence[Case]
    folds_of: Mapping[str, tuple[str, ...]]  # by case; nothing of those that no fold held out
    patient_of: Mapping[str, str]
    unseen: bool
    notes: tuple[str, ...]


def _cohort(work: Path, options: CalibrateOptions) -> _Cohort:
    """What there is to calibrate on; UserError where it is not enough, before anything is read or loaded."""
    from segfw.dataset.patients import read_groups
    from segfw.model.source import load_plan
    from segfw.planning.splits import SPLITS_FILE, Splits
    from segfw.quality.calibration_options import fail_limits

    plan = load_plan(work)
    fail_limits(options.fail_below, tuple(plan.labels.structures))
    configuration = _configuration(work, plan, options)
    if options.cases is not None:
        return _cohort_of_unseen(work, plan, configuration, options)
    cases, folds_of, notes = _held_out(work, plan, configuration)
    ids = [case.id for case in cases]
    splits = Splits.load(work / SPLITS_FILE)
    patient_of = read_groups(options.groups, ids, splits.patients_of(ids))
    return _Cohort(
        plan=plan,
        configuration=configuration,
        folds=tuple(sorted({fold for folds in folds_of.values() for fold in folds})),
        cases=cases,
        folds_of=folds_of,
        patient_of=patient_of,
        unseen=False,
        notes=(*notes, *_patients_notes(splits, len(set(patient_of.values())))),
    )


def _patients_notes(splits: Splits, patients: int) -> tuple[str, ...]:
    """A note where folds were drawn by fewer patients than are known here, whose cases would count as others'."""
    from segfw.base.words import count

    drawn = splits.patients
    if drawn is None or drawn >= patients:
        return ()
    return (
        f"folds were drawn by {count(drawn, 'patient')}, and here cases count as of {patients}: quality promises too "
        "much where those of one patient count as several; give --groups as for plan-and-preprocess",
    )


def _configuration(work: Path, plan: Plan, options: CalibrateOptions) -> str:
    """The configuration that is asked for, or that ``predict`` takes by itself."""
    from segfw.model.default_configuration import default_configuration
    from segfw.model.load import require_predicting
    from segfw.model.source import ModelSource

    if options.configuration is not None:
        require_predicting(plan.configuration(options.configuration), work)
        return options.configuration
    advice = "quality is of the masks of one, so choose it with --configuration, here and for predict"
    with ModelSource.open(work) as source:
        return default_configuration(source, plan, advice=advice)


def _held_out(
    work: Path, plan: Plan, configuration: str
) -> tuple[Sequence[Case], Mapping[str, tuple[str, ...]], tuple[str, ...]]:
    """The training cases, by which fold each was held out, and notes."""
    from segfw.base.records import UserError
    from segfw.base.words import count, named
    from segfw.dataset.cases import MANIFEST_FILE, DatasetManifest
    from segfw.inference.held_out import validating_folds
    from segfw.inference.ranking import trained_validating_folds
    from segfw.planning.splits import SPLITS_FILE, Splits
    from segfw.quality.quality_fitting import TooFewCases

    if not (work / SPLITS_FILE).is_file() or not (work / MANIFEST_FILE).is_file():
        raise UserError(
            f"{work}: is without the cases that it was trained on; give labelled ones that it never saw with --cases"
        )
    splits = Splits.load(work / SPLITS_FILE)
    cases = DatasetManifest.load(work / MANIFEST_FILE).cases
    folds = trained_validating_folds(work, configuration, splits)
    if not folds:
        raise TooFewCases(
            f"{work}: no fold of {configuration} that holds cases out is trained to its end; train one first"
        )
    known = {case.id for case in cases}
    folds_of: dict[str, tuple[str, ...]] = {}
    for fold in reversed(folds):  # a case that several folds hold out is of the first
        folds_of |= {case: (fold,) for case in splits.fold(fold).validation if case in known}
    missing = [fold for fold in validating_folds(splits) if fold not in folds]
    notes: tuple[str, ...] = ()
    if missing:
        notes = (
            f"{named('fold', missing)} {'is' if len(missing) == 1 else 'are'} not trained: quality is learned from "
            f"{count(len(folds_of), 'case')} of {len(cases)}",
        )
    return cases, folds_of, notes


def _cohort_of_unseen(work: Path, plan: Plan, configuration: str, options: CalibrateOptions) -> _Cohort:
    """Labelled cases from elsewhere, which every fold predicts."""
    from segfw.dataset.layouts import find_dataset
    from segfw.dataset.patients import read_groups
    from segfw.model.source import ModelSource
    from segfw.quality.unseen_cases import require_unseen, with_labels_of

    assert options.cases is not None  # of the caller
    found = find_dataset(options.cases)
    cases = with_labels_of(plan.labels, found)
    require_unseen(work, found.root, cases)
    with ModelSource.open(work) as source:
        folds = tuple(source.weight_names(configuration))
    return _Cohort(
        plan=plan,
        configuration=configuration,
        folds=folds,
        cases=cases,
        folds_of={case.id: folds for case in cases},
        patient_of=read_groups(options.groups, [case.id for case in cases], found.patient_of),
        unseen=True,
        notes=(f"learned from the cases of {found.name}, which the model is said never to have seen",),
    )


def _calibrate(work: Path, cohort: _Cohort, options: CalibrateOptions, build: BuildNetwork | None) -> QualityModel:
    """All that is written, by one process at a time."""
    from segfw.base.parallel import CasesFailed
    from segfw.inference.prediction_job import without_weights
    from segfw.inference.predictor import Predictor
    from segfw.model.load import load_model
    from segfw.model.source import QUALITY_FILE
    from segfw.networks import build_network
    from segfw.quality.calibration_folder import calibrate_cases
    from segfw.quality.calibration_page import write_calibration_page
    from segfw.quality.folds_together import fold_notes, trained_steps
    from segfw.quality.model_identity import ModelIdentity
    from segfw.quality.nearest_cases import CALIBRATION_FOLDER
    from segfw.quality.quality_fitting import require_cases
    from segfw.quality.quality_worth import WORTH_FILE, quality_worth

    require_cases(len(cohort.folds_of), len({cohort.patient_of[case] for case in cohort.folds_of}))
    # The model, and what each case is to be predicted by
    model = load_model(work, cohort.configuration, cohort.folds)
    identity = ModelIdentity.of(model, trained_steps(work, cohort.configuration, cohort.folds))
    notes = (*cohort.notes, *fold_notes(model, identity))
    for note in notes:
        print(f"note: {note}")
    items = _items(model, identity, cohort, options)
    together = without_weights([model])[0]
    del model

    def predictor_of(folds: tuple[str, ...]) -> Predictor:
        chosen = folds or cohort.folds[:1]
        previous = None if cohort.unseen else chosen  # whose first stage did not see the case either
        alone = load_model(work, cohort.configuration, chosen, previous_folds=previous)
        return Predictor.of(
            alone.tiled_like(together),  # as predict has them, which averages all
            device=options.device,
            precision=options.precision,
            step=options.step,
            mirroring=options.mirroring,
            build=build or build_network,
        )

    # Every case, clean and spoilt
    folder = work / CALIBRATION_FOLDER / cohort.configuration
    _announce(items, folder, cohort, predictor_of)
    found, failures = calibrate_cases(items, folder, predictor_of)
    if failures:
        raise CasesFailed("in calibration, so that nothing is learned", failures, work / CALIBRATION_FOLDER)

    # What is learned
    fitted = _learned(found, identity, cohort, options, notes)
    worth = quality_worth(fitted)
    worth.save(folder / WORTH_FILE)
    fitted.model.save(work / QUALITY_FILE)
    # Last: it tells of the file that is there.
    write_calibration_page(work / PAGE_FILE, fitted, worth, cohort.plan.dataset)
    return fitted.model


def _learned(
    found: Sequence[CalibratedCase],
    identity: ModelIdentity,
    cohort: _Cohort,
    options: CalibrateOptions,
    notes: Sequence[str],
) -> FittedQuality:
    """The quality model of the masks that were predicted and compared; ``notes`` are what a reader should know."""
    from dataclasses import replace
    from datetime import UTC, datetime

    from segfw.quality.calibrated_quality import quality_of_cases
    from segfw.quality.calibration_options import fail_limits
    from segfw.quality.quality_fitting import QualityRequest

    labels = cohort.plan.labels
    request = QualityRequest(
        alpha=options.alpha,
        fail_below=fail_limits(options.fail_below, tuple(labels.structures)),
        use_target=options.wrong_share,
    )
    fitted = quality_of_cases(
        found,
        cohort.patient_of,
        labels,
        identity,
        request,
        made=datetime.now(UTC).date().isoformat(),
        notes=notes,
    )
    used = {"step": options.step, "mirroring": options.mirroring}
    return replace(fitted, model=fitted.model.model_copy(update=used))


def _items(model: Model, identity: ModelIdentity, cohort: _Cohort, options: CalibrateOptions) -> list[CaseToCalibrate]:
    """Every case with the folds that predict it, and all that its figures depend on besides its files."""
    from segfw.inference.mask_settings import plan_digest, weights_digest
    from segfw.quality.calibration_folder import CaseToCalibrate
    from segfw.quality.folds_together import is_cut_alike

    first_stage = "" if model.previous is None else weights_digest([model.previous])
    how = repr((plan_digest([model]), first_stage, options.step, options.mirroring, options.precision))
    if cohort.plan.labels.ignore is not None:  # earlier versions took what it hides for nothing
        how += " without what the ignore label hides"
    # Earlier versions predicted with tiles that these folds alone know; of a cascade the first stage for longer.
    in_tiles = " in tiles of all folds" if model.previous is None else " in tiles of all folds, in both stages"
    items = []
    for case in cohort.cases:
        folds = cohort.folds_of.get(case.id, ())
        tiles = "" if not folds or is_cut_alike(model, folds) else in_tiles
        items.append(CaseToCalibrate.of(case, folds, identity.folds, how + tiles, spoils=options.shifts))
    return items


def _announce(
    items: Sequence[CaseToCalibrate],
    folder: Path,
    cohort: _Cohort,
    predictor_of: Callable[[tuple[str, ...]], Predictor],
) -> None:
    """Says beforehand what is done and how long it takes the network."""
    from segfw.base.durations import duration_text
    from segfw.base.words import count
    from segfw.inference.held_out import seconds_per_case

    waiting = [item for item in items if item.folds and item.kept(folder) is None]
    if not waiting:
        return
    passes = sum((1 + len(item.shifts)) * len(item.folds) for item in waiting)
    seconds = passes * seconds_per_case(predictor_of(waiting[0].folds[:1]))
    by = "all folds" if cohort.unseen else "the fold that did not see it"
    spoilt = ", as it is and spoilt" if waiting[0].shifts else ""
    print(
        f"predicting {count(len(waiting), 'case')} with {cohort.configuration}, each by {by}{spoilt}: about "
        f"{duration_text(seconds)} for the network"
    )


def _say_result(typed: argparse.Namespace, model: QualityModel) -> None:
    from segfw.model.source import QUALITY_FILE
    from segfw.quality.quality_text import quality_text

    aside(quality_text(model).rstrip())
    print(f"written: {typed.work / QUALITY_FILE}, {typed.work / PAGE_FILE}")
    say_next("predict", typed.work, "NEW_IMAGES", "MASKS")


COMMAND = Command(
    function=calibrate,
    what="Learn how far masks may be trusted, from cases that the networks never saw; predict then says it of each.",
    example="segfw calibrate work",
    arguments=(Argument(name="work", help="work folder with trained folds, or with --cases any model's folder"),),
    say_result=_say_result,
    log_place=log_in_work,
)
