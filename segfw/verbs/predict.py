"""``segfw predict``: masks for a folder of new images."""

from __future__ import annotations

import argparse
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

from segfw.base.command import Argument, Command
from segfw.base.options import takes_options
from segfw.base.speech import LOG_FILE, LogPlace
from segfw.inference.prediction_options import PredictOptions
from segfw.verbs.mask_formats_asked import formats_of, say_where_masks_are

if TYPE_CHECKING:
    from segfw.base.case_part import CasePart
    from segfw.base.shared_work import CohortResult
    from segfw.dataset.cases import Case
    from segfw.inference.foretold import ForetoldPrediction
    from segfw.inference.output_folder import OutputFolder
    from segfw.inference.prediction_job import PredictionJob
    from segfw.inference.prediction_settings import PredictionSettings
    from segfw.inference.selected_predictor import SelectedPredictor
    from segfw.model.load import Model
    from segfw.networks import BuildNetwork


@takes_options(options=PredictOptions)
def predict(
    model: Path,
    source: Path,
    output: Path,
    options: PredictOptions = PredictOptions(),
    *,
    build: BuildNetwork | None = None,
) -> None:
    """Writes a mask for every image in ``source`` into ``output``, on each image's own grid, and timings.json.

    Masks already there from the same model, options and images are kept. Any number of calls may write to one folder at
    the same time: they share the cases.

    Parameters
    ----------
    model
        Work folder or model file.
    source
        Folder of images, or one file.
    output
        Folder for the masks.
    options
        Without ``configuration`` it is what ``segfw select`` chose, or the only one that is trained, or of several the
        calibrated one. ``part`` '3/8' takes every eighth case from the third on. Each of several devices takes cases as
        it can; ``cluster`` is the address of a Dask scheduler whose workers do. ``only`` are names of structures, as
        ``find`` takes them: others stay out of the masks, and the rest of a mask is as it would be. ``names`` gives the
        masks another program's numbers. ``pseudonyms`` is a table of patients and the names of their cases.
        ``save_probabilities`` is the bits of each, 16 or 8, of all structures. ``postprocessing`` is a selection.json,
        or the postprocessing.json of an imported model. ``max_memory_gb`` is of this computer's memory. ``formats``
        (``--as``) are those of the masks: an image file lies in the folder itself, others in a folder of their name.
        Whatever is written says that it is a draft. With ``dry_run`` what would be done is printed, from headers alone,
        and nothing is written.
    build
        Makes the network of a NetworkSpec, where another one than the plan's was trained.

    Raises
    ------
    UserError
        If the model, the images or an option are wrong, or the folder holds masks of another model; also with
        ``overwrite`` while somebody has a case of the folder open to review it.
    CasesFailed
        At the end, if images could not be predicted, and when the disk is full; the others are done.
    """
    from dataclasses import replace

    from segfw.inference.axis_orders import axis_order_note
    from segfw.inference.host_memory import host_room_bytes
    from segfw.inference.prediction_job import finish_folder, without_weights
    from segfw.model.promotion import warn_if_not_promoted
    from segfw.quality.quality_table import quality_lines

    if options.dry_run:
        print(_foretell(model, source, output, options, build=build))
        return
    asked = _asked(model, source, output, options, build)
    settings = asked.job.settings(asked.loaded)

    # The networks
    cases_each = len(asked.cases) // len(asked.devices)
    predictors = [asked.job.predictor(asked.loaded, device, cases=cases_each) for device in asked.devices]
    room = host_room_bytes(options.max_memory_gb) / len(asked.devices)  # now that all models are loaded
    predictors = [predictor.with_room(room) for predictor in predictors]
    # The weights are in the networks, and need not lie in memory twice.
    asked = replace(asked, loaded=without_weights(asked.loaded), job=replace(asked.job, digest=settings.digest))

    # The work
    folder = _begun_folder(asked, settings, options)
    warn_if_not_promoted(asked.job.model)
    # Of all cases, whichever part, process or device does them
    note = axis_order_note(asked.found, asked.loaded[0].plan.orientation)
    if note:
        print(note)
    cases_text = asked.case_part.text(asked.found)
    print(f"predicting {cases_text} with {settings.configuration}, folds {', '.join(settings.folds)}")
    cohort = _predicted(asked, predictors, folder, options.cluster)
    if asked.job.quality is not None and options.quality:
        for line in quality_lines(folder.path, asked.ids):
            print(line)
    finish_folder(cohort, folder, asked.case_part.failures_file)


@dataclass(frozen=True, kw_only=True)
class _Asked:
    """What a call asks for, after all that can be wrong with it was looked at, and before anything is written."""

    job: PredictionJob
    loaded: Sequence[Model]
    source: Path
    found: list[Case]
    cases: list[Case]  # of the found ones, the part that this call predicts
    case_part: CasePart
    devices: tuple[str, ...]

    @property
    def ids(self) -> tuple[str, ...]:
        """Of the cases that this call predicts."""
        return tuple(case.id for case in self.cases)


def _asked(model: Path, source: Path, output: Path, options: PredictOptions, build: BuildNetwork | None) -> _Asked:
    """Loads the models and finds the images; raises UserError where paths, options and images do not go together."""
    from dataclasses import replace

    from segfw.base.case_part import CasePart
    from segfw.base.cluster import require_cluster
    from segfw.base.records import UserError
    from segfw.inference.prediction_job import PredictionJob
    from segfw.interop.mask_formats import format_note
    from segfw.networks import build_network

    # Whether paths and options go together
    model = Path(model)
    source = Path(source)
    output = Path(output)
    _require_own_folder(output, model, source)
    formats = formats_of(options)
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

    # The models, and the cases
    job = replace(PredictionJob.of(model, output, options, build or build_network), formats=formats)
    loaded = job.load()
    job = job.with_wanted(loaded)
    job.check_postprocessing(loaded)
    found = _found_cases(job, loaded, source, options)
    note = format_note(options.formats, job.labels(loaded), job.written_only(loaded))
    if note:
        print(f"note: {note}")
    job = _with_makers(job, loaded, [case.id for case in found], options)
    if options.cluster is not None:
        require_cluster(options.cluster, reads=[model, source])
    return _Asked(
        job=job,
        loaded=loaded,
        source=source,
        found=found,
        cases=case_part.cases(found),
        case_part=case_part,
        devices=devices,
    )


def _require_own_folder(output: Path, model: Path, source: Path) -> None:
    """UserError if masks would lie among the images or in a model, or ``output`` is no folder."""
    from segfw.base.output_paths import require_outside
    from segfw.base.records import UserError
    from segfw.images.formats import split_ending
    from segfw.model.source import kept_folders

    images_folder = source.resolve().parent if source.is_file() else source.resolve()
    if output.is_file() or output.resolve() == images_folder:
        raise UserError(f"{output}: is a file or the folder of the images; give a folder of its own for the masks")
    require_outside(output, (source, *kept_folders(model)))
    if split_ending(output)[1] and not output.is_dir():
        raise UserError(
            f"{output}: is named like a file, but masks go into a folder, each under its image's name; give a folder "
            f"such as {output.parent / 'masks'}"
        )


def _found_cases(job: PredictionJob, loaded: Sequence[Model], source: Path, options: PredictOptions) -> list[Case]:
    """The images, under the names of their masks; UserError where two masks would have one name or lack what they need.

    Pseudonyms that are drawn now are written into their table, unless it is a dry run.
    """
    from segfw.base.output_paths import require_distinct, require_outside
    from segfw.dataset.new_images import find_images
    from segfw.dataset.pseudonyms import cases_with_pseudonyms
    from segfw.inference.output_folder import OutputFolder
    from segfw.interop.mask_formats import require_distinct_masks

    found = find_images(source, loaded[0].plan.channels)
    if options.pseudonyms is not None:
        require_outside(options.pseudonyms, (source, job.output))
        found = cases_with_pseudonyms(found, options.pseudonyms, writes=not options.dry_run)
    ids = [case.id for case in found]
    require_distinct(ids, job.output)
    require_distinct_masks(job.formats, ids, job.output, OutputFolder(path=job.output).known())
    for case in found:
        for each in job.formats:
            each.require_kind(case.id, case.images[0])
    return found


def _with_makers(
    job: PredictionJob, loaded: Sequence[Model], ids: Sequence[str], options: PredictOptions
) -> PredictionJob:
    """The job with what is made beside each mask: judgements of a calibrated model, pages and plausible masks."""
    from dataclasses import replace

    from segfw.quality.calibrated_prediction import judge_of, page_maker, plausible_of, require_distinct_files

    judge = judge_of(job.model, loaded, options)
    if judge is not None:
        require_distinct_files(ids, job.output)
        job = replace(job, makers=(judge,), quality=judge.digest)
    if options.report:
        gate = None if judge is None else judge.quality.gate
        job = replace(job, makers=(*job.makers, page_maker(job.model, loaded, gate)))
    plausible = plausible_of(job.model, loaded, options, job.only)
    if plausible is not None:
        job = replace(job, makers=(*job.makers, plausible), quality=plausible.digest)
    return job


def _begun_folder(asked: _Asked, settings: PredictionSettings, options: PredictOptions) -> OutputFolder:
    """The folder of the masks, with all in it that is not of one case; UserError if it holds masks of another model."""
    from segfw.dataset.labels import LABELS_FILE
    from segfw.evaluation.mask_facts import FACTS_FILE
    from segfw.inference.disk_space import require_space
    from segfw.inference.made_with import mask_facts
    from segfw.inference.mask_settings import agree_on_settings, require_agreement
    from segfw.inference.prediction_calls import note_call
    from segfw.reviewing.new_draft import is_under_review, note_new_drafts, require_same_model

    job = asked.job
    cases = asked.cases
    part = asked.case_part
    folder = job.folder(asked.loaded)
    require_agreement(folder, settings, asked.found, overwrite=options.overwrite)
    if is_under_review(folder.path):
        require_same_model(folder.path, settings.digest, overwrite=options.overwrite)
        replaced = {case.id for case in cases if options.overwrite or folder.is_outdated(case)}
        note_new_drafts(folder.path, settings.digest, "segfw predict", replaced)
    agree_on_settings(folder, settings, asked.found, cases, overwrite=options.overwrite)
    job.labels(asked.loaded).save(folder.path / LABELS_FILE)
    for each in folder.formats:
        each.write_about(folder.path, job.labels(asked.loaded), folder.maker)
    facts = mask_facts(job.model, asked.loaded, asked.source, job.output)
    facts.model_copy(update={"only": job.written_only(asked.loaded)}).save(folder.path / FACTS_FILE)
    note_call(folder.path, job.model, asked.source, asked.ids, f"{part.number}/{part.count}")
    require_space([case for case in cases if not folder.is_done(case)], folder)
    return folder


def _predicted(
    asked: _Asked, predictors: Sequence[SelectedPredictor], folder: OutputFolder, cluster: str | None
) -> CohortResult[Case]:
    """Writes the masks, by this process or by the workers of a Dask cluster."""
    import secrets
    from functools import partial

    from segfw.base.cluster import cluster_pool
    from segfw.base.shared_work import share_out
    from segfw.inference.many_cases import PREDICTING, predict_cases
    from segfw.inference.prediction_job import predict_as_worker

    job = asked.job
    if cluster is None:
        return predict_cases(predictors, asked.cases, folder)
    with cluster_pool(cluster, reads=[job.model, asked.source], writes=job.output) as pool:
        call = partial(predict_as_worker, secrets.token_hex(8), job)
        return share_out(call, asked.cases, folder, pool, PREDICTING)


def _foretell(
    model: Path, source: Path, output: Path, options: PredictOptions, *, build: BuildNetwork | None = None
) -> ForetoldPrediction:
    """What would be done, from headers alone; UserError where the real call would not start."""
    from segfw.inference.foretold import ForetoldPrediction
    from segfw.inference.mask_settings import require_agreement
    from segfw.reviewing.new_draft import require_same_model

    asked = _asked(model, source, output, options, build)
    folder = asked.job.folder(asked.loaded)
    settings = asked.job.settings(asked.loaded)
    require_agreement(folder, settings, asked.found, overwrite=options.overwrite)
    require_same_model(folder.path, settings.digest, overwrite=options.overwrite)
    return ForetoldPrediction.of(asked.loaded, asked.cases, folder, step=options.step, mirroring=options.mirroring)


def _say_result(typed: argparse.Namespace, _: None) -> None:
    say_where_masks_are(typed.output, typed.formats)


def _log_place(typed: argparse.Namespace) -> LogPlace:
    from segfw.inference.output_folder import HIDDEN

    return LogPlace(file=typed.output / HIDDEN / LOG_FILE, marks=(typed.output / HIDDEN,))


COMMAND = Command(
    function=predict,
    what="Write masks for new images.",
    example="segfw predict work new_scans masks --folds 0",
    arguments=(
        Argument(name="model", help="work folder or model file"),
        Argument(name="source", help="folder of images, or one file", shown="input"),
        Argument(name="output", help="folder for the masks"),
    ),
    say_result=_say_result,
    log_place=_log_place,
    foretell=_foretell,
)
