"""``segfw retrain``: a model trained on with signed labels, beside a control that sees none, and the verdict."""

from __future__ import annotations

import argparse
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING

from segfw.base.command import Argument, Command
from segfw.base.options import takes_options
from segfw.base.speech import LOG_FILE, LogPlace, aside, say_next
from segfw.retraining.retrain_options import RetrainOptions

if TYPE_CHECKING:
    from segfw.base.options import Precision
    from segfw.model.promotion import Gain, Promotion
    from segfw.retraining.retraining_plan import Base
    from segfw.retraining.retraining_record import AskedRetraining, FoldStart, Retraining

LOCK_FILE = ".retrain.lock"
NOT_PROMOTED = 1  # exit code


@takes_options(options=RetrainOptions)
def retrain(
    work: Path, new: Path, labels: Sequence[Path], options: RetrainOptions = RetrainOptions()
) -> Promotion | None:
    """Trains the folds of a model on with labels that experts signed, and tells whether the labels made it better.

    Each fold goes on from its own weights, with the same plan, half the learning rate and at least half of each batch
    from old cases. A control arm takes the same steps from the same weights on the old labels alone: only what the new
    model has beyond it is due to the labels. The new model is promoted only if no structure lost and the mean gained;
    promotion.json says so, and predict and status tell it. The same call goes on after an interruption.

    Parameters
    ----------
    work
        Work folder of the model, with its data.
    new
        New work folder for the retrained model; with ``raw_only`` a new data set for ``run``.
    labels
        Folders of masks under review. Their signed labels are taken, with ``states='reviewed'`` reviewed ones as well.
    options
        For how long is trained, and what the models are judged on.

    Returns
    -------
    Promotion or None
        The verdict; None with ``raw_only``.

    Raises
    ------
    UserError
        If there is no new label, one is wrong, the model cannot be trained on, or ``new`` was begun otherwise.
    CasesFailed
        If cases could not be preprocessed, predicted or scored, after all others are done.
    """
    from segfw.base.locks import in_turn
    from segfw.base.output_paths import require_outside
    from segfw.base.records import UserError
    from segfw.retraining.retraining_plan import read_base
    from segfw.retraining.retraining_record import RETRAINING_FILE

    work = Path(work)
    new = Path(new)
    folders = (Path(labels),) if isinstance(labels, str | Path) else tuple(map(Path, labels))
    if not folders:
        raise UserError("--labels: names no folder; give folders of masks under review")
    if new.is_file():
        raise UserError(f"{new}: is a file; give a folder for the retrained model")
    require_outside(new, (work, *folders, options.test))
    base = read_base(work, options)
    if options.raw_only:
        _write_raw(base, new, folders, options)
        return None
    begun = (new / RETRAINING_FILE).is_file()
    if not begun and new.is_dir() and any(not path.name.startswith(".") for path in new.iterdir()):
        raise UserError(f"{new}: is not empty and was not begun by segfw retrain; give a new folder")
    with in_turn(new / LOCK_FILE, f"{new}: is being retrained"):
        return _retrain(base, new, folders, options)


def _write_raw(base: Base, output: Path, folders: Sequence[Path], options: RetrainOptions) -> None:
    from segfw.base.device import pick_device
    from segfw.base.files import is_empty
    from segfw.base.records import UserError
    from segfw.base.words import count
    from segfw.retraining.enlarged_raw import PATIENTS_FILE, write_enlarged_raw
    from segfw.retraining.retraining_plan import plan_retraining
    from segfw.retraining.reviewed_labels import require_as_taken

    if output.is_dir() and not is_empty(output):
        raise UserError(f"{output}: exists and is not empty; give a new folder for the data set")
    retraining, splits = plan_retraining(base, folders, options, pick_device(options.device))
    require_as_taken(retraining.new)
    _say_labels(retraining)
    manifest = base.content.manifest
    write_enlarged_raw(output, manifest, retraining.new, splits, retraining.patient_of)
    print(f"{output}: {count(len(manifest.cases) + len(retraining.new), 'case')} in the folds of {base.work}")
    say_next("run", output, "WORK", "--groups", output / PATIENTS_FILE)


def _retrain(base: Base, new: Path, folders: Sequence[Path], options: RetrainOptions) -> Promotion:
    """All that is written into the new work folder, by one process at a time."""
    from segfw.base.device import pick_device
    from segfw.base.records import UserError
    from segfw.model.promotion import PROMOTION_FILE
    from segfw.retraining.arm_settings import precision_found
    from segfw.retraining.before_after import promotion_of, test_scores, validation_scores
    from segfw.retraining.enlarged_work import write_control_arm, write_new_arm
    from segfw.retraining.retrain_page import PAGE_FILE, write_retrain_page
    from segfw.retraining.retraining_plan import asked_retraining, plan_retraining, splits_of, test_cases
    from segfw.retraining.retraining_record import CONTROL_FOLDER, RETRAINING_FILE, read_retraining
    from segfw.retraining.reviewed_labels import require_as_taken

    # What is decided, once: labels that are signed later are of the next retraining
    retraining = read_retraining(new)
    if retraining is None:
        retraining, splits = plan_retraining(base, folders, options, pick_device(options.device))
        retraining.save(new / RETRAINING_FILE)
    else:
        _require_same(retraining.asked, asked_retraining(base.work, folders, options), new)
        splits = splits_of(base, retraining)
        print(f"{new}: going on as begun, with {len(retraining.new)} new cases")
    require_as_taken(retraining.new)
    _say_labels(retraining)
    write_new_arm(new, base.content, retraining.new, splits, base.configuration, options.workers)
    write_control_arm(new, base.content, base.configuration, options.workers)

    # Both arms, fold by fold; the control second, because it computes in what the new arm was found to be faster in
    for start in retraining.folds:
        _train_fold(base, new, start, retraining, options, None)
        precision = precision_found(new, base.configuration.name, start.fold)
        _train_fold(base, new / CONTROL_FOLDER, start, retraining, options, precision)

    # The verdict
    patient_of = dict(retraining.patient_of)
    if options.test is None:
        models = validation_scores(base, new, patient_of)
    else:
        patient_of |= retraining.test_patient_of
        cases = test_cases(base, options.test)
        models = test_scores(base, new, cases, patient_of, options.device)
    if not models.cases:
        raise UserError(f"{base.work}: has no validation case to judge by; give a labelled data set with --test")
    promotion = promotion_of(base, new, retraining, models, is_test=options.test is not None)
    write_retrain_page(new / PAGE_FILE, promotion, retraining)
    promotion.save(new / PROMOTION_FILE)
    return promotion


def _train_fold(
    base: Base,
    arm: Path,
    start: FoldStart,
    retraining: Retraining,
    options: RetrainOptions,
    precision: Precision | None,
) -> None:
    """One fold of one arm, from where it is; UserError if the model was trained anew meanwhile."""
    from segfw.base.files import file_sha256
    from segfw.base.records import UserError
    from segfw.model.source import fold_folder
    from segfw.retraining.arm_settings import arm_settings, base_settings, weights_file
    from segfw.training.checkpoint import CHECKPOINT_FILE
    from segfw.training.settings import TrainOptions
    from segfw.verbs.train import train

    name = base.configuration.name
    weights = weights_file(base.work, name, start.fold)
    if file_sha256(weights) != start.weights_sha256:
        raise UserError(
            f"{weights}: is not what {arm} was begun with; the model was trained again, so give another folder"
        )
    scratch = retraining.asked.scratch
    settings = arm_settings(
        base_settings(base.work, name, start.fold), start, retraining.asked.seed, scratch=scratch, precision=precision
    )
    begin = TrainOptions(
        init_from=None if scratch else weights,
        resume=(fold_folder(arm, name, start.fold) / CHECKPOINT_FILE).is_file(),
        device=options.device,
        tells_length=False,
    )
    train(arm, name, start.fold, settings, begin)


def _require_same(begun: AskedRetraining, asked: AskedRetraining, new: Path) -> None:
    """UserError if the folder was begun with other labels or options."""
    from segfw.base.records import UserError

    for name in type(begun).model_fields:
        before = _said(getattr(begun, name))
        now = _said(getattr(asked, name))
        if before != now:
            raise UserError(f"{new}: was begun with {name} {before}, not {now}; give another folder, or the same again")


def _said(value: object) -> str:
    return ", ".join(map(str, value)) if isinstance(value, tuple) else str(value)


def _say_labels(retraining: Retraining) -> None:
    """What was found, and where it goes."""
    from segfw.base.words import count

    kinds = [(retraining.count(kind), kind) for kind in ("unedited", "edited", "blank")]
    said = ", ".join(f"{number} {kind}" for number, kind in kinds if number)
    print(f"{count(len(retraining.new), 'new case')}: {said}")
    for sentence in retraining.left_out.values():
        print(f"  note: not taken: {sentence}")
    for start in retraining.folds:
        trained = sum(start.fold not in label.held_out_of for label in retraining.new)
        more = f"{count(trained, 'new case')} to train on, old ones {start.old_share:.0%} of a batch"
        print(f"  fold {start.fold}: {more}, {start.steps:,} steps")


def _say_result(typed: argparse.Namespace, promotion: Promotion | None) -> int | None:
    if promotion is None:
        return None
    aside("Dice              before  control      new  new over control")
    for gain in (*promotion.structures, promotion.mean):
        aside(_gain_line(gain))
    print(promotion.labels_text)
    print(f"report: {typed.new / 'retrain.html'}")
    print(f"{typed.new}: {promotion.text}")
    say_next("predict", promotion.recommended, "NEW_IMAGES", "MASKS")
    return None if promotion.is_promoted else NOT_PROMOTED


def _gain_line(gain: Gain) -> str:
    bounds = "" if gain.low is None else f" ({gain.low:+.4f} to {gain.high:+.4f})"
    return (
        f"{gain.structure:16}  {gain.base:.4f}   {gain.control:.4f}   {gain.new:.4f}  {gain.over_control:+.4f}{bounds}"
    )


def _log_place(typed: argparse.Namespace) -> LogPlace:
    from segfw.retraining.retraining_record import RETRAINING_FILE

    return LogPlace(file=typed.new / LOG_FILE, marks=(typed.new / RETRAINING_FILE,))


COMMAND = Command(
    function=retrain,
    what="Train a model on with signed labels, beside a control without them; say whether it may take its place.",
    example="segfw retrain work work_2 --labels masks --length-share 0.2",
    arguments=(
        Argument(name="work", help="work folder of the model"),
        Argument(name="new", help="new work folder for the retrained model"),
        Argument(name="labels", help="folders of masks whose signed labels are taken", shown="--labels", nargs="+"),
    ),
    say_result=_say_result,
    log_place=_log_place,
)
