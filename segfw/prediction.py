"""Masks for a folder of new images: resumable, shared by any number of processes, never mixed with another model's."""

from __future__ import annotations

import hashlib
import re
import secrets
import threading
from collections.abc import Sequence
from dataclasses import dataclass, replace
from functools import partial
from pathlib import Path

from segfw.data.cluster import cluster_pool
from segfw.data.formats import check_mask_ending
from segfw.data.manifest import LABELS_FILE, Case
from segfw.data.parallel import FAILURES_FILE, CasesFailed
from segfw.inference.cohort import SETTINGS_FILE as PREDICTION_FILE
from segfw.inference.cohort import Cohort, Lane, PredictionSettings, Worked, predict_cases, share_out
from segfw.inference.folder import OutputFolder
from segfw.inference.images import find_images
from segfw.inference.predictor import Predictor
from segfw.inference.space import require_space
from segfw.model import Model, load_model
from segfw.networks import BuildNetwork, build_network
from segfw.records import UserError, count


@dataclass(frozen=True, kw_only=True)
class Job:
    """All that a process needs to predict cases, in paths and options, so that it can be sent to another machine."""

    model: Path
    output: Path
    configuration: str | None
    folds: tuple[str, ...] | None
    best: bool
    step: float
    mirroring: bool
    precision: str
    ending: str
    build: BuildNetwork

    def load(self) -> Model:
        return load_model(self.model, self.configuration, self.folds, best=self.best)

    def predictor(self, loaded: Model, device: str) -> Predictor:
        return Predictor.of(
            loaded,
            device=device,
            precision=self.precision,
            step=self.step,
            mirroring=self.mirroring,
            build=self.build,
        )

    def folder(self) -> OutputFolder:
        return OutputFolder(path=self.output, ending=self.ending)


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
    device: str | Sequence[str] = "auto",
    ending: str = ".nii.gz",
    best: bool = False,
    part: str | None = None,
    cluster: str | None = None,
    overwrite: bool = False,
    build: BuildNetwork = build_network,
) -> None:
    """Writes a mask for every image in ``source`` into ``output``, on each image's own grid, and timings.json.

    Masks already there from the same model, options and images are kept. Any number of calls may write to one folder
    at the same time: they share the cases. ``part`` '3/8' takes every eighth case from the third on. Each of several
    devices takes cases as it can; ``cluster`` is the address of a Dask scheduler whose workers do.

    Raises CasesFailed, at the end, if images could not be predicted, and when the disk is full; the others are done.
    """
    source, output, model = Path(source), Path(output), Path(model)
    if output.is_file() or output.resolve() in (source.resolve(), source.resolve().parent):
        raise UserError(f"{output}: is a file or the folder of the images; give a folder of its own for the masks")
    check_mask_ending(ending)
    number, parts = _part(part)
    devices = (device,) if isinstance(device, str) else tuple(device)
    if cluster is not None:
        if devices != ("auto",):
            raise UserError("--device with --cluster: each worker takes its own device; leave out --device")
        source, output, model = source.absolute(), output.absolute(), model.absolute()
    job = Job(
        model=model,
        output=output,
        configuration=configuration,
        folds=folds,
        best=best,
        step=step,
        mirroring=mirroring,
        precision=precision,
        ending=ending,
        build=build,
    )
    loaded = job.load()
    found = find_images(source, loaded.plan.channels)
    cases, folder = found[number - 1 :: parts], job.folder()
    # On a cluster nobody but the workers needs it; it is made here to refuse wrong options, on no device.
    predictors = [job.predictor(loaded, name) for name in (devices if cluster is None else ("cpu",))]
    settings = PredictionSettings(
        configuration=loaded.configuration.name,
        folds=tuple(loaded.weights),
        weights_digest=_weights_digest(loaded),
        step=step,
        mirroring=mirroring,
    )
    _agree(folder, settings, loaded, found, cases, overwrite=overwrite)
    require_space([case for case in cases if not folder.is_done(case)], folder)
    which = f"{count(len(cases), 'case')}{f' (part {part} of {len(found)})' if parts > 1 else ''}"
    print(f"predicting {which} with {settings.configuration}, folds {', '.join(settings.folds)}")
    if cluster is None:
        cohort = predict_cases(predictors, cases, folder)
    else:
        cohort = _on_cluster(cluster, replace(job, configuration=settings.configuration), source, cases)
    _finish(cohort, folder, FAILURES_FILE if parts == 1 else f"failures_part_{number}_of_{parts}.json")


def _part(text: str | None) -> tuple[int, int]:
    match = re.fullmatch(r"(\d+)/(\d+)", text or "1/1")
    number, parts = (int(group) for group in match.groups()) if match else (0, 0)
    if not 1 <= number <= parts:
        raise UserError(f"--part is {text!r}; give which part of how many, such as 3/8")
    return number, parts


def _agree(
    folder: OutputFolder,
    settings: PredictionSettings,
    loaded: Model,
    found: Sequence[Case],
    cases: Sequence[Case],
    *,
    overwrite: bool,
) -> None:
    """Says in the folder what its masks are made with; UserError if masks of another model, or of others, are there."""
    kept = folder.path / PREDICTION_FILE
    # In this order: another process that has just begun in this folder has said so before its first mask.
    has_masks = any(folder.mask(case.id).exists() for case in found)
    if has_masks and not overwrite and not kept.is_file():
        raise UserError(f"{folder.path}: holds masks that segfw did not write; use another folder or --overwrite")
    with folder.alone():
        is_same = kept.is_file() and PredictionSettings.load(kept) == settings
        if overwrite:
            # Before the settings change, lest a mask of another model pass for one of this. Other parts may be at work
            # with the same settings: theirs are left alone.
            for case in cases if is_same else found:
                folder.forget(case.id)
        elif kept.is_file() and not is_same:
            raise UserError(
                f"{folder.path}: holds masks of another model or other options; use another folder or --overwrite"
            )
        if not is_same:
            settings.save(kept)
        loaded.plan.labels.save(folder.path / LABELS_FILE)


def _on_cluster(address: str, job: Job, source: Path, cases: Sequence[Case]) -> Cohort:
    with cluster_pool(address, reads=[job.model, source], writes=job.output) as pool:
        return share_out(partial(_as_worker, secrets.token_hex(8), job), cases, job.folder(), pool)


_LANES: dict[str, Lane] = {}  # of this worker: the model of the latest call, loaded once
_LOADING = threading.Lock()


def _as_worker(call: str, job: Job, case: Case) -> Worked:
    """Does a case in a worker of a cluster."""
    with _LOADING:
        if call not in _LANES:
            _LANES.clear()
            _LANES[call] = Lane(job.predictor(job.load(), "auto"), job.folder())
        lane = _LANES[call]
    return lane(case)


def _finish(cohort: Cohort, folder: OutputFolder, failures_file: str) -> None:
    try:
        folder.write_timings()
    except OSError as error:
        if not cohort.failures:  # else it is the full disk that they tell of
            raise UserError(f"{folder.path}: the masks are done, but not timings.json ({error})") from None
    print(f"{count(cohort.predicted, 'case')} predicted, {cohort.kept} were there")
    if cohort.failures:
        how = {"file_name": failures_file, "not_begun": cohort.not_begun}
        raise CasesFailed("in prediction", cohort.failures, folder.path, **how)
    (folder.path / failures_file).unlink(missing_ok=True)
    if failures_file == FAILURES_FILE:  # all cases are done, whichever part they were of
        for old in folder.path.glob("failures_part_*.json"):
            old.unlink(missing_ok=True)


def _weights_digest(model: Model) -> str:
    digest = hashlib.sha256()
    both = [*model.weights.values(), *(model.previous.weights.values() if model.previous else ())]
    for weights in both:
        for name, tensor in sorted(weights.items()):
            digest.update(name.encode())
            digest.update(tensor.contiguous().numpy().tobytes())
    return digest.hexdigest()
