"""The whole job: the only place where training meets inference and evaluation. Every step goes on where it stopped."""

from __future__ import annotations

import hashlib
import shutil
from collections.abc import Sequence
from math import prod
from pathlib import Path

from pydantic import ValidationError

from segfw.data.geometry import Spacing
from segfw.data.layouts import find_dataset
from segfw.data.manifest import Case, DatasetManifest, FoundDataset
from segfw.data.parallel import FAILURES_FILE, CasesFailed
from segfw.data.store import preprocess_dataset
from segfw.evaluation.evaluate import evaluate_pairs
from segfw.evaluation.metrics import Scores
from segfw.inference.predictor import SETTINGS_FILE as PREDICTION_FILE
from segfw.inference.predictor import PredictionSettings, Predictor, find_images, predict_cases
from segfw.model import PLAN_FILE, WEIGHTS_FILE, Model, fold_folder, load_model
from segfw.networks import build_network
from segfw.planning.fingerprint import Fingerprint, scan_dataset
from segfw.planning.plan import Plan
from segfw.planning.planner import make_plan
from segfw.planning.splits import Splits, import_splits, make_splits
from segfw.records import Record, UserError, write_text
from segfw.training.checkpoint import CHECKPOINT_FILE
from segfw.training.loop import BuildNetwork
from segfw.training.loop import train as train_fold
from segfw.training.runlog import clock, read_metrics
from segfw.training.settings import EPOCHS, TrainSettings

MANIFEST_FILE, FINGERPRINT_FILE, SPLITS_FILE = "manifest.json", "fingerprint.json", "splits.json"
SCAN_FILE = "scan.json"


class Scan(Record):
    """Which files the manifest and the fingerprint were made from."""

    digest: str


def plan_and_preprocess(
    raw: Path,
    work: Path,
    *,
    preset: str = "plain",
    gpu_memory_gb: float | None = None,
    configurations: tuple[str, ...] | None = None,
    spacing_mm: Spacing | None = None,
    workers: int | None = None,
    plan_only: bool = False,
    overwrite: bool = False,
) -> Plan:
    """Verifies the data, plans, draws the folds and preprocesses; what is there from the same files is kept.

    Writes manifest.json, fingerprint.json, plan.json, splits.json and preprocessed/ into ``work``. Raises UserError
    if the data have problems or another plan is already trained here, CasesFailed if cases could not be preprocessed.
    """
    raw, work = Path(raw), Path(work)
    found = find_dataset(raw)
    _refuse_foreign_folder(work)
    manifest, fingerprint = _scan(found, work, workers, overwrite)
    plan = make_plan(manifest, fingerprint, preset=preset, gpu_memory_gb=gpu_memory_gb, spacing_mm=spacing_mm)
    for name in configurations or ():
        plan.configuration(name)
    _keep(work, PLAN_FILE, plan, overwrite)
    _keep(work, SPLITS_FILE, _splits(raw, manifest), overwrite)
    print(f"planned {', '.join(plan.configurations)} for {len(manifest.cases)} cases; segfw info {work} explains it")
    if plan_only:
        return plan
    chosen = {name: plan.configurations[name].preprocessing for name in configurations or plan.configurations}
    shapes = {case.id: prod(case.shape) * len(plan.channels) * 4 for case in fingerprint.cases}
    failures = preprocess_dataset(
        manifest.cases, manifest.labels, chosen, work / "preprocessed", case_bytes=shapes, workers=workers
    )
    if failures:
        raise CasesFailed("in preprocessing", failures, work)
    (work / FAILURES_FILE).unlink(missing_ok=True)
    print(f"preprocessed {', '.join(chosen)} into {work / 'preprocessed'}")
    return plan


def _refuse_foreign_folder(work: Path) -> None:
    """A folder with other things in it is not written into: it may be the raw data by mistake."""
    if work.is_file():
        raise UserError(f"{work}: is a file; give a folder to work in")
    known = {MANIFEST_FILE, PLAN_FILE, SCAN_FILE, "preprocessed", "runs"}
    names = {path.name for path in work.iterdir() if not path.name.startswith(".")} if work.is_dir() else set()
    if names and not names & known:
        raise UserError(f"{work}: holds other things ({sorted(names)[0]}); give a new or empty folder to work in")


def _scan(found: FoundDataset, work: Path, workers: int | None, overwrite: bool) -> tuple[DatasetManifest, Fingerprint]:
    """Manifest and fingerprint, from the work folder if no file has changed since."""
    digest = _files_digest(found)
    kept = work / SCAN_FILE
    if not overwrite and kept.is_file() and Scan.load(kept).digest == digest:
        return DatasetManifest.load(work / MANIFEST_FILE), Fingerprint.load(work / FINGERPRINT_FILE)
    manifest, fingerprint = scan_dataset(found, workers=workers)
    work.mkdir(parents=True, exist_ok=True)
    manifest.save(work / MANIFEST_FILE)
    fingerprint.save(work / FINGERPRINT_FILE)
    Scan(digest=digest).save(kept)
    print(f"checked {len(manifest.cases)} cases of {manifest.name} ({manifest.layout} layout)")
    for note in manifest.notes:
        print(f"  {note}")
    return manifest, fingerprint


def _files_digest(found: FoundDataset) -> str:
    """Changes when a file of the data set is added, removed or written to."""
    digest = hashlib.sha256(repr((found.channels, found.labels, found.problems)).encode())
    for case in found.cases:
        for path in (*case.images, case.label):
            stat = path.stat()
            digest.update(f"{path.resolve()} {stat.st_size} {stat.st_mtime_ns}\n".encode())
    return digest.hexdigest()


def _splits(raw: Path, manifest: DatasetManifest) -> Splits:
    ids = [case.id for case in manifest.cases]
    given = raw / "splits_final.json"
    return import_splits(given, ids) if given.is_file() else make_splits(ids)


def _keep(work: Path, name: str, new: Record, overwrite: bool) -> None:
    """Saves a decision; refuses to replace another one that something has been trained by."""
    path = work / name
    if path.is_file() and not overwrite:
        if type(new).load(path) == new:
            return
        trained = sorted(str(file.parent.relative_to(work)) for file in work.glob("runs/*/*/*.safetensors"))
        if trained:
            raise UserError(
                f"{path}: would change, but {trained[0]} is trained by it; use another work folder, or --overwrite "
                "and train again"
            )
    new.save(path)


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
    """
    work = Path(work)
    plan, manifest = Plan.load(work / PLAN_FILE), DatasetManifest.load(work / MANIFEST_FILE)
    chosen, part = plan.configuration(configuration), Splits.load(work / SPLITS_FILE).fold(fold)
    folder = fold_folder(work, configuration, fold)
    if overwrite:
        shutil.rmtree(folder, ignore_errors=True)
    is_started = (folder / CHECKPOINT_FILE).is_file()
    if (folder / WEIGHTS_FILE).is_file():
        print(f"{configuration} fold {fold} is already trained ({folder})")
    elif is_started and not resume:
        raise UserError(f"{folder}: holds an interrupted run; go on with --resume, or start anew with --overwrite")
    else:
        settings = _settings(
            epochs=EPOCHS if epochs is None else epochs,
            steps_per_epoch=steps_per_epoch,
            time_budget_s=time_budget_s,
            batch_size=batch_size,
            mirroring=mirroring,
            seed=seed,
            precision=precision,
            augmentation=augmentation,
        )
        length = f"in {clock(time_budget_s)}" if settings.time_budget_s else f"for {settings.epochs} epochs"
        print(f"training {configuration} fold {fold} {length} on {len(part.train)} cases")
        train_fold(
            folder,
            work / "preprocessed" / configuration,
            chosen,
            part,
            settings,
            label_names=list(plan.labels.foreground),
            device=device,
            resume=resume,
            build=build,
        )
    if not part.validation:
        return None
    cases = [case for case in manifest.cases if case.id in set(part.validation)]
    model = load_model(work, configuration, (fold,))
    return _validate(model, cases, folder, device=device, precision=precision, build=build)


def _settings(**values: object) -> TrainSettings:
    """Training settings, with a sentence that names the option where a value is out of range."""
    try:
        return TrainSettings(**values)
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
        return Scores.load(output / "scores.json")
    predictor = Predictor.of(model, device=device, precision=precision, build=build)
    inputs = [Case(id=case.id, images=case.images) for case in cases]
    print(f"validating on {len(cases)} whole cases")
    failures = predict_cases(predictor, inputs, output)
    if failures:
        raise CasesFailed("in validation", failures, folder)
    return evaluate_pairs(
        {case.id: (case.label, output / f"{case.id}.nii.gz") for case in cases},
        model.plan.labels,
        title=f"{model.plan.dataset}: {folder.parent.name} {folder.name}",
        output=output / "scores.json",
        report=folder / "report.html",
        images={case.id: case.images[0] for case in cases},
        curve=read_metrics(folder),
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
    output = Path(output)
    loaded = load_model(Path(model), configuration, folds)
    cases = find_images(Path(source), loaded.plan.channels)
    settings = PredictionSettings(
        configuration=loaded.configuration.name,
        folds=tuple(loaded.weights),
        weights_digest=_weights_digest(loaded),
        step=step,
        mirroring=mirroring,
    )
    kept = output / PREDICTION_FILE
    if kept.is_file() and not overwrite and PredictionSettings.load(kept) != settings:
        raise UserError(f"{output}: holds masks of another model or other options; use another folder or --overwrite")
    settings.save(kept)
    predictor = Predictor.of(loaded, device=device, precision=precision, step=step, mirroring=mirroring, build=build)
    print(f"predicting {len(cases)} cases with {settings.configuration}, folds {', '.join(settings.folds)}")
    failures = predict_cases(predictor, cases, output, ending=ending, overwrite=overwrite)
    if failures:
        raise CasesFailed("in prediction", failures, output)
    (output / FAILURES_FILE).unlink(missing_ok=True)


def _weights_digest(model: Model) -> str:
    digest = hashlib.sha256()
    for weights in model.weights.values():
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
    gpu_memory_gb: float | None = None,
    spacing_mm: Spacing | None = None,
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
    validation scores by configuration and fold, and writes summary.json.
    """
    work = Path(work)
    plan = plan_and_preprocess(
        raw,
        work,
        preset=preset,
        gpu_memory_gb=gpu_memory_gb,
        configurations=configurations,
        spacing_mm=spacing_mm,
        workers=workers,
    )
    all_folds = [str(number) for number in range(len(Splits.load(work / SPLITS_FILE).folds))]
    scores: dict[str, dict[str, Scores]] = {}
    for name in configurations or tuple(plan.configurations):
        scores[name] = {}
        for fold in folds or all_folds:
            folder = fold_folder(work, name, fold)
            result = train(
                work,
                name,
                fold,
                epochs=epochs,
                steps_per_epoch=steps_per_epoch,
                time_budget_s=time_budget_s,
                batch_size=batch_size,
                seed=seed,
                precision=precision,
                augmentation=augmentation,
                mirroring=mirroring,
                device=device,
                resume=(folder / CHECKPOINT_FILE).is_file(),
            )
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
