"""The whole job: the only place where training meets inference and evaluation. Every step goes on where it stopped."""

from __future__ import annotations

import hashlib
import shutil
from collections.abc import Sequence
from pathlib import Path
from typing import Literal

from pydantic import ValidationError

from segfw.cascade import first_stage_of, hand_on_labels, remember_first_stage, trainable
from segfw.data.formats import check_mask_ending
from segfw.data.geometry import Spacing
from segfw.data.manifest import Case, DatasetManifest
from segfw.data.parallel import FAILURES_FILE, CasesFailed
from segfw.device import pick_device
from segfw.evaluation.evaluate import evaluate_pairs
from segfw.evaluation.metrics import Scores
from segfw.inference.predictor import SETTINGS_FILE as PREDICTION_FILE
from segfw.inference.predictor import PredictionSettings, Predictor, find_images, predict_cases
from segfw.model import WEIGHTS_FILE, Model, fold_folder, load_model
from segfw.networks import build_network
from segfw.planning.plan import CASCADE, LOWRES, PLAN_FILE, Plan, target_of
from segfw.planning.prepare import MANIFEST_FILE, SPLITS_FILE, plan_and_preprocess
from segfw.planning.splits import Splits
from segfw.records import UserError, write_text
from segfw.training.checkpoint import CHECKPOINT_FILE
from segfw.training.loop import SETTINGS_FILE, BuildNetwork
from segfw.training.loop import train as train_fold
from segfw.training.runlog import clock, read_metrics
from segfw.training.settings import TrainSettings


def train(
    work: Path,
    configuration: str,
    fold: str,
    *,
    epochs: int | None = None,
    steps_per_epoch: int | None = None,
    time_budget_s: float | None = None,
    batch_size: int | None = None,
    seed: int = 0,
    precision: str = "auto",
    augmentation: str = "device",
    mirroring: bool | None = None,
    device: str = "auto",
    resume: bool = False,
    overwrite: bool = False,
    build: BuildNetwork = build_network,
) -> Scores | None:
    """Trains one fold and scores it on its validation cases, whole and in their original geometry.

    With ``resume`` an interrupted run goes on with the settings it was started with. A finished fold is not trained
    again unless ``overwrite``. Returns the validation scores; None for fold 'all', which has no validation cases.
    The second stage of a cascade needs all folds of the first one, and predicts the training cases with them.
    """
    work = Path(work)
    plan, manifest = Plan.load(work / PLAN_FILE), DatasetManifest.load(work / MANIFEST_FILE)
    chosen, splits = plan.configuration(configuration), Splits.load(work / SPLITS_FILE)
    part = splits.fold(fold)
    first_stage = first_stage_of(work, chosen, splits)
    folder = fold_folder(work, configuration, fold)
    pick_device(device)
    settings = _settings(
        epochs=epochs,
        steps_per_epoch=steps_per_epoch,
        time_budget_s=time_budget_s,
        batch_size=batch_size,
        mirroring=mirroring,
        seed=seed,
        precision=precision,
        augmentation=augmentation,
    )
    if overwrite:  # only now that the arguments are known to be right
        shutil.rmtree(folder, ignore_errors=True)
    is_started, is_trained = ((folder / name).is_file() for name in (CHECKPOINT_FILE, WEIGHTS_FILE))
    if first_stage is not None:
        remember_first_stage(folder, first_stage, is_started=is_started or is_trained)
    if is_trained:
        print(f"{configuration} fold {fold} is already trained ({folder})")
    elif is_started and not resume:
        raise UserError(f"{folder}: holds an interrupted run; go on with --resume, or start anew with --overwrite")
    else:
        if is_started:
            settings = TrainSettings.load(folder / SETTINGS_FILE)
        length = f"in {clock(settings.time_budget_s)}" if settings.time_budget_s else f"for {settings.epochs} epochs"
        handed_on = None
        if first_stage is not None:
            how = {"device": device, "precision": precision, "build": build}
            handed_on = hand_on_labels(work, chosen, splits, first_stage, **how)
        again = "going on with" if is_started else "training"
        print(f"{again} {configuration} fold {fold} {length} on {len(part.train)} cases")
        train_fold(
            folder,
            work / "preprocessed" / chosen.data_name,
            chosen,
            part,
            settings,
            label_names=list(plan.labels.structures),
            target=target_of(plan.labels),
            previous=handed_on,
            device=device,
            resume=resume,
            build=build,
        )
    if not part.validation:
        return None
    cases = [case for case in manifest.cases if case.id in set(part.validation)]
    # The first stage's other folds were trained on these cases.
    model = load_model(work, configuration, (fold,), previous_folds=(fold,))
    return _validate(model, cases, folder, device=device, precision=precision, build=build)


def _settings(**values: object) -> TrainSettings:
    """Training settings, with a sentence that names the option where a value is out of range; None is the default."""
    try:
        return TrainSettings(**{name: value for name, value in values.items() if value is not None})
    except ValidationError as error:
        first = error.errors()[0]
        option = "--" + str(first["loc"][0]).removesuffix("_s").replace("_", "-")
        raise UserError(f"{option} is {first['input']!r}: {first['msg']}") from None


def _validate(
    model: Model, cases: Sequence[Case], folder: Path, *, device: str, precision: str, build: BuildNetwork
) -> Scores:
    """Predicts and scores whole validation cases; masks that are there already are kept."""
    output = folder / "validation"
    if (output / "scores.json").is_file():
        kept = Scores.load(output / "scores.json")
        if set(kept.cases) == {case.id for case in cases}:  # not so if some cases failed the last time
            return kept
    predictor = Predictor.of(model, device=device, precision=precision, build=build)
    inputs = [Case(id=case.id, images=case.images) for case in cases]
    print(f"validating on {len(cases)} whole cases")
    failures = predict_cases(predictor, inputs, output)
    if failures:
        raise CasesFailed("in validation", failures, folder)
    (folder / FAILURES_FILE).unlink(missing_ok=True)
    return evaluate_pairs(
        {case.id: (case.label, output / f"{case.id}.nii.gz") for case in cases},
        model.plan.labels,
        title=f"{model.plan.dataset}: {folder.parent.name} {folder.name}",
        output=output / "scores.json",
        report=folder / "report.html",
        images={case.id: case.images[0] for case in cases},
        curve=read_metrics(folder),
        label_maps={case.id: case.label_map for case in cases},
    )


def predict(
    model: Path,
    source: Path,
    output: Path,
    *,
    configuration: str | None = None,
    folds: tuple[str, ...] | None = None,
    step: float = 0.5,
    mirroring: bool = True,
    precision: str = "auto",
    device: str = "auto",
    ending: str = ".nii.gz",
    overwrite: bool = False,
    build: BuildNetwork = build_network,
) -> None:
    """Writes a mask for every image in ``source`` into ``output``, on each image's own grid.

    Masks already there from the same model and options are kept. Raises CasesFailed, at the end, if images could not
    be predicted; the others are done.
    """
    source, output = Path(source), Path(output)
    if output.is_file() or output.resolve() in (source.resolve(), source.resolve().parent):
        raise UserError(f"{output}: is a file or the folder of the images; give a folder of its own for the masks")
    check_mask_ending(ending)
    loaded = load_model(Path(model), configuration, folds)
    cases = find_images(source, loaded.plan.channels)
    predictor = Predictor.of(loaded, device=device, precision=precision, step=step, mirroring=mirroring, build=build)
    settings = PredictionSettings(
        configuration=loaded.configuration.name,
        folds=tuple(loaded.weights),
        weights_digest=_weights_digest(loaded),
        step=step,
        mirroring=mirroring,
    )
    kept, masks = output / PREDICTION_FILE, [output / f"{case.id}{ending}" for case in cases]
    if overwrite:
        for mask in masks:  # before the settings change, lest a mask of another model pass for one of this
            mask.unlink(missing_ok=True)
    elif kept.is_file() and PredictionSettings.load(kept) != settings:
        raise UserError(f"{output}: holds masks of another model or other options; use another folder or --overwrite")
    elif not kept.is_file() and any(mask.exists() for mask in masks):
        raise UserError(f"{output}: holds masks that segfw did not write; use another folder or --overwrite")
    settings.save(kept)
    print(f"predicting {len(cases)} cases with {settings.configuration}, folds {', '.join(settings.folds)}")
    failures = predict_cases(predictor, cases, output, ending=ending)
    if failures:
        raise CasesFailed("in prediction", failures, output)
    (output / FAILURES_FILE).unlink(missing_ok=True)


def _weights_digest(model: Model) -> str:
    digest = hashlib.sha256()
    both = [*model.weights.values(), *(model.previous.weights.values() if model.previous else ())]
    for weights in both:
        for name, tensor in sorted(weights.items()):
            digest.update(name.encode())
            digest.update(tensor.contiguous().numpy().tobytes())
    return digest.hexdigest()


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
    workers: int | None = None,
    epochs: int | None = None,
    steps_per_epoch: int | None = None,
    time_budget_s: float | None = None,
    batch_size: int | None = None,
    seed: int = 0,
    precision: str = "auto",
    augmentation: str = "device",
    mirroring: bool | None = None,
    device: str = "auto",
) -> dict[str, dict[str, Scores]]:
    """Everything from RAW to validated models: plan, preprocess, train and score every fold asked for.

    Call it again after an interruption with the same arguments: what is done is not done again. Returns the
    validation scores by configuration and fold, and writes summary.txt.
    """
    work = Path(work)
    # Wrong arguments are better found now than after an hour of preprocessing.
    pick_device(device)
    if CASCADE in (configurations or ()):
        configurations = tuple(dict.fromkeys((LOWRES, *(name for name in configurations if name != CASCADE), CASCADE)))
    training = {
        "epochs": epochs,
        "steps_per_epoch": steps_per_epoch,
        "time_budget_s": time_budget_s,
        "batch_size": batch_size,
        "seed": seed,
        "precision": precision,
        "augmentation": augmentation,
        "mirroring": mirroring,
    }
    _settings(**training)
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
        workers=workers,
        device=device,
    )
    splits = Splits.load(work / SPLITS_FILE)
    chosen_folds = folds or tuple(str(number) for number in range(len(splits.folds)))
    scores: dict[str, dict[str, Scores]] = {}
    for name in trainable(work, plan, splits, configurations, chosen_folds):
        scores[name] = {}
        for fold in chosen_folds:
            folder = fold_folder(work, name, fold)
            is_started = (folder / CHECKPOINT_FILE).is_file()
            result = train(work, name, fold, device=device, resume=is_started, **training)
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
