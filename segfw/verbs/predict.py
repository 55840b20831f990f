"""Masks for a folder of new images: resumable, shared by any number of processes, never mixed with another model's."""

from __future__ import annotations

import secrets
from collections.abc import Sequence
from dataclasses import replace
from functools import partial
from pathlib import Path

from segfw.base.cluster import cluster_pool
from segfw.base.options import Precision
from segfw.base.records import UserError
from segfw.dataset.labels import LABELS_FILE
from segfw.dataset.new_images import find_images
from segfw.images.formats import check_mask_ending
from segfw.inference.disk_space import require_space
from segfw.inference.host_memory import host_room_bytes
from segfw.inference.many_cases import predict_cases, share_out
from segfw.inference.mask_settings import agree
from segfw.inference.prediction_job import CasePart, PredictionJob, finish_folder, predict_as_worker, without_weights
from segfw.inference.prediction_options import PredictOptions
from segfw.networks import BuildNetwork, build_network


def predict(
    model: Path,
    source: Path,
    output: Path,
    *,
    configuration: str | None = None,
    folds: tuple[str, ...] | None = None,
    step: float = 0.5,
    mirroring: bool = True,
    precision: Precision = "auto",
    device: str | Sequence[str] = "auto",
    ending: str = ".nii.gz",
    best: bool = False,
    postprocessing: Path | None = None,
    save_probabilities: int | None = None,
    uncertainty: bool = False,
    max_memory_gb: float | None = None,
    part: str | None = None,
    cluster: str | None = None,
    overwrite: bool = False,
    build: BuildNetwork = build_network,
) -> None:
    """Writes a mask for every image in ``source`` into ``output``, on each image's own grid, and timings.json.

    Without ``configuration`` it is what ``segfw select`` chose, or the only one that is trained. Masks already there
    from the same model, options and images are kept. Any number of calls may write to one folder at the same time:
    they share the cases. ``part`` '3/8' takes every eighth case from the third on. Each of several devices takes cases
    as it can; ``cluster`` is the address of a Dask scheduler whose workers do. ``save_probabilities`` is the bits of
    each, 16 or 8. ``postprocessing`` is a selection.json, or the postprocessing.json of an imported model.

    Raises CasesFailed, at the end, if images could not be predicted, and when the disk is full; the others are done.
    """
    options = PredictOptions(
        configuration=configuration,
        folds=None if folds is None else tuple(folds),
        step=step,
        mirroring=mirroring,
        precision=precision,
        device=device if isinstance(device, str) else tuple(device),
        ending=ending,
        best=best,
        postprocessing=postprocessing,
        save_probabilities=save_probabilities,
        uncertainty=uncertainty,
        max_memory_gb=max_memory_gb,
        part=part,
        cluster=cluster,
        overwrite=overwrite,
    )
    model = Path(model)
    source = Path(source)
    output = Path(output)

    # Whether paths and options go together
    images_folder = source.resolve().parent if source.is_file() else source.resolve()
    if output.is_file() or output.resolve() == images_folder:
        raise UserError(f"{output}: is a file or the folder of the images; give a folder of its own for the masks")
    check_mask_ending(options.ending)
    case_part = CasePart.of(options.part)
    devices = (options.device,) if isinstance(options.device, str) else options.device
    if options.cluster is not None:
        if devices != ("auto",):
            raise UserError("--device with --cluster: each worker takes its own device; leave out --device")
        model = model.absolute()
        source = source.absolute()
        output = output.absolute()
        # Nobody but the workers needs networks; they are made here to refuse wrong options, on no device.
        devices = ("cpu",)

    # The networks, and the cases
    job = PredictionJob.of(model, output, options, build)
    loaded = job.load()
    job.check_postprocessing(loaded)
    found = find_images(source, loaded[0].plan.channels)
    cases = case_part.cases(found)
    predictors = [job.predictor(loaded, device, cases=len(cases) // len(devices)) for device in devices]
    room = host_room_bytes(options.max_memory_gb) / len(devices)  # now that all models are loaded
    predictors = [predictor.with_room(room) for predictor in predictors]

    # The folder of the masks
    settings = job.settings(loaded)
    job = replace(job, digest=settings.digest)
    loaded = without_weights(loaded)
    folder = job.folder(loaded)
    agree(folder, settings, found, cases, overwrite=options.overwrite)
    loaded[0].plan.labels.save(folder.path / LABELS_FILE)
    require_space([case for case in cases if not folder.is_done(case)], folder)

    # The work
    folds_used = ", ".join(settings.folds)
    print(f"predicting {case_part.text(found)} with {settings.configuration}, folds {folds_used}")
    if options.cluster is None:
        cohort = predict_cases(predictors, cases, folder)
    else:
        with cluster_pool(options.cluster, reads=[model, source], writes=output) as pool:
            cohort = share_out(partial(predict_as_worker, secrets.token_hex(8), job), cases, folder, pool)
    finish_folder(cohort, folder, case_part.failures_file)
