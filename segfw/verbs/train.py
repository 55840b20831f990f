"""The whole job: the only place where training meets inference and evaluation. Every step goes on where it stopped."""

from __future__ import annotations

import shutil
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Literal

from torch import nn

from segfw.base.device import pick_device, pick_precision
from segfw.base.files import write_text
from segfw.base.ranks import joined, launched_ranks, local_device
from segfw.base.records import UserError
from segfw.dataset.cases import MANIFEST_FILE, DatasetManifest
from segfw.evaluation.metrics import Scores
from segfw.images.geometry import Spacing
from segfw.inference.first_stage import first_stage_of, hand_on_labels, remember_first_stage, trainable
from segfw.inference.whole_cases import VALIDATION, validate, whole_case_counter
from segfw.model.load import load_model
from segfw.model.source import WEIGHTS_FILE, fold_folder
from segfw.model.training_record import read_curve
from segfw.model.weights import load_tensors
from segfw.networks import BuildNetwork, build_network
from segfw.networks.transfer import transfer
from segfw.planning.plan import CASCADE, LOWRES, PLAN_FILE, Plan, target_of
from segfw.planning.splits import SPLITS_FILE, Splits
from segfw.training.batches import Augment
from segfw.training.checkpoint import CHECKPOINT_FILE, Counters
from segfw.training.initial_weights import find_start
from segfw.training.loop import train as train_fold
from segfw.training.metrics_log import clock
from segfw.training.prepare import SETTINGS_FILE
from segfw.training.schedule import extended
from segfw.training.settings import TrainSettings
from segfw.training.train_request import BuildLoss, TrainRequest
from segfw.training.writers import require_writers
from segfw.verbs.plan_and_preprocess import plan_and_preprocess

BEFORE_EXTENSION = "before_extension"  # folder of what an extended run had made


def train(
    work: Path,
    configuration: str,
    fold: str,
    *,
    device: str = "auto",
    resume: bool = False,
    overwrite: bool = False,
    extend_epochs: int | None = None,
    extend_s: float | None = None,
    build: BuildNetwork = build_network,
    build_loss: BuildLoss | None = None,
    augment: Augment | None = None,
    init_from: Path | None = None,
    log: Sequence[str] = (),
    **settings: object,
) -> Scores | None:
    """Trains one fold and scores it on its validation cases, whole and in their original geometry.

    ``settings`` are fields of TrainSettings. With ``resume`` an interrupted run goes on with the settings it was
    started with. A finished fold is not trained again unless ``overwrite``; ``extend_epochs`` or ``extend_s`` train it
    for so much longer. ``build`` makes another network from the plan's NetworkSpec, ``build_loss`` another loss from
    the configuration and what the outputs mean, ``augment`` changes samples on the device. ``init_from`` is a model
    whose weights, as far as they fit, a new run begins with. ``log`` names writers of the figures besides
    metrics.jsonl. Under ``torchrun`` all processes train one network together. The second stage of a cascade needs all
    folds of the first one, which predict the training cases for it. Returns the validation scores; None for fold
    'all', which has no validation cases.
    """
    work = Path(work)
    plan = Plan.load(work / PLAN_FILE)
    chosen, splits = plan.configuration(configuration), Splits.load(work / SPLITS_FILE)
    part, first_stage = splits.fold(fold), first_stage_of(work, chosen, splits)
    folder = fold_folder(work, configuration, fold)
    wanted, ranks, on = _settings(**settings), launched_ranks(), local_device(device)
    is_extended = bool(extend_epochs or extend_s)
    if overwrite and (resume or is_extended):
        raise UserError("--overwrite deletes the run that --resume or --extend would go on with; leave out one of them")
    resume |= is_extended
    with joined(ranks, on):
        if overwrite and ranks.is_first:  # only now that the arguments are known to be right
            (folder / WEIGHTS_FILE).unlink(missing_ok=True)  # first, or a half-deleted run would count as finished
            shutil.rmtree(folder, ignore_errors=True)
        if is_extended and ranks.is_first:
            _reopen(folder, epochs=extend_epochs, seconds=extend_s)
        ranks.wait()
        is_trained, is_started = (folder / WEIGHTS_FILE).is_file(), (folder / CHECKPOINT_FILE).is_file()
        ranks.wait()  # all have looked before the first one writes
        if first_stage is not None and ranks.is_first:
            remember_first_stage(folder, first_stage, is_started=is_started or is_trained)
        if is_trained:
            print(f"{configuration} fold {fold} is already trained ({folder})")
        elif is_started and not resume:
            raise UserError(f"{folder}: holds an interrupted run; go on with --resume, or start anew with --overwrite")
        else:
            if is_started:
                wanted = TrainSettings.load(folder / SETTINGS_FILE)
            handed_on = None
            if first_stage is not None:
                how = {"device": str(on), "precision": wanted.precision, "build": build, "share": ranks.share}
                handed_on = hand_on_labels(work, chosen, splits, first_stage, **how)
                ranks.wait()
            length = f"in {clock(wanted.time_budget_s)}" if wanted.time_budget_s else f"for {wanted.epochs} epochs"
            again = "going on, as begun, with" if is_started else "training"
            print(f"{again} {configuration} fold {fold} {length} on {len(part.train)} cases")
            preprocessed, target = work / "preprocessed" / chosen.data_name, target_of(plan.labels)
            precision = pick_precision(wanted.precision, on)
            request = TrainRequest(
                folder=folder,
                preprocessed=preprocessed,
                configuration=chosen,
                fold=part,
                settings=wanted,
                label_names=tuple(plan.labels.structures),
                target=target,
                previous=handed_on,
                device=str(on),
                resume=resume,
                extend_epochs=extend_epochs,
                extend_s=extend_s,
                build=build,
                build_loss=build_loss,
                augment=augment,
                start=None if init_from is None else _start_from(init_from, configuration, fold),
                count_whole_case=whole_case_counter(preprocessed, handed_on, chosen, target, on, precision),
                log=log,
                ranks=ranks,
            )
            train_fold(request)
        if not part.validation:
            return None
        cases = [case for case in DatasetManifest.load(work / MANIFEST_FILE).cases if case.id in set(part.validation)]
        # The first stage's other folds were trained on these cases.
        model = load_model(work, configuration, (fold,), previous_folds=(fold,))
        return validate(
            model,
            cases,
            folder,
            device=str(on),
            precision=wanted.precision,
            build=build,
            ranks=ranks,
            curve=read_curve(folder),
        )


def _settings(**values: object) -> TrainSettings:
    """Training settings, with a sentence that names the option where a value is out of range; None is the default."""
    return TrainSettings(**{name: value for name, value in values.items() if value is not None})


def _start_from(path: Path, configuration: str, fold: str) -> Callable[[nn.Module], None]:
    """Changes a new network's weights to those of another model, and says which it has taken."""

    def start(network: nn.Module) -> None:
        file = find_start(path, configuration, fold)
        weights, _ = load_tensors(file)
        print(f"starting from {file}: {transfer(network, weights).text()}")
        if file.parent.name != f"fold_{fold}":
            print(f"note: if it was trained on the cases that fold {fold} validates on, the scores will be too good")

    return start


def _reopen(folder: Path, *, epochs: int | None, seconds: float | None) -> None:
    """Makes a finished run one that can go on; its weights and masks so far are kept beside it."""
    if not (folder / WEIGHTS_FILE).is_file():
        raise UserError(f"{folder}: holds no finished run to extend; finish it first, with --resume if it was started")
    extended(TrainSettings.load(folder / SETTINGS_FILE), Counters(), epochs=epochs, seconds=seconds)  # or a UserError
    before = folder / BEFORE_EXTENSION
    shutil.rmtree(before, ignore_errors=True)
    before.mkdir()
    for name in ("report.html", VALIDATION, WEIGHTS_FILE):  # the weights last: until then the run counts as finished
        if (folder / name).exists():
            (folder / name).rename(before / name)


def run(
    raw: Path,
    work: Path,
    *,
    configurations: tuple[str, ...] | None = None,
    folds: tuple[str, ...] | None = None,
    preset: str = "plain",
    gpu_memory_gb: float | Literal["auto"] | None = None,
    as_published: bool = False,
    spacing_mm: Spacing | None = None,
    groups: str | Path | None = None,
    splits: Path | None = None,
    plans: Path | None = None,
    workers: int | None = None,
    device: str = "auto",
    cluster: str | None = None,
    init_from: Path | None = None,
    log: Sequence[str] = (),
    **settings: object,
) -> dict[str, dict[str, Scores]]:
    """Everything from RAW to validated models: plan, preprocess, train and score every fold asked for.

    ``settings`` are fields of TrainSettings.
    Call it again after an interruption with the same arguments: what is done is not done again. Returns the
    validation scores by configuration and fold, and writes summary.txt.
    """
    work = Path(work)
    # Wrong arguments are better found now than after an hour of preprocessing.
    pick_device(device)
    if CASCADE in (configurations or ()):
        configurations = tuple(dict.fromkeys((LOWRES, *(name for name in configurations if name != CASCADE), CASCADE)))
    _settings(**settings)
    require_writers(log)
    if init_from is not None and not Path(init_from).exists():
        raise UserError(f"--init-from {init_from}: no such file or folder")
    if launched_ranks().count > 1:
        raise UserError("torchrun is for segfw train; call segfw plan-and-preprocess first, once")
    plan = plan_and_preprocess(
        raw,
        work,
        preset=preset,
        gpu_memory_gb=gpu_memory_gb,
        as_published=as_published,
        configurations=configurations,
        spacing_mm=spacing_mm,
        groups=groups,
        splits=splits,
        plans=plans,
        workers=workers,
        device=device,
        cluster=cluster,
    )
    drawn = Splits.load(work / SPLITS_FILE)
    folds = folds or tuple(str(number) for number in range(len(drawn.folds)))
    scores: dict[str, dict[str, Scores]] = {}
    for name in trainable(work, plan, drawn, configurations, folds):
        scores[name] = {}
        for fold in folds:
            folder = fold_folder(work, name, fold)
            is_started = (folder / CHECKPOINT_FILE).is_file()
            result = train(work, name, fold, device=device, resume=is_started, init_from=init_from, log=log, **settings)
            if result is not None:
                scores[name][fold] = result
    write_text(work / "summary.txt", summary(scores))
    return scores


def summary(scores: dict[str, dict[str, Scores]]) -> str:
    """Foreground mean Dice of each fold and its mean, a line per configuration."""
    lines = []
    for configuration, by_fold in scores.items():
        dice = {fold: result.foreground_mean.dice for fold, result in by_fold.items()}
        known = [value for value in dice.values() if value is not None]
        folds = "  ".join(
            f"fold {fold} {'-' if value is None else format(value, '.4f')}" for fold, value in dice.items()
        )
        mean = f"mean {sum(known) / len(known):.4f}" if known else "no validation cases"
        lines.append(f"{configuration}: foreground mean Dice {mean}  ({folds})")
    return "\n".join(lines) + "\n"
