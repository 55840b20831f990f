"""``segfw stress``: how a model's masks change when its images do."""

from __future__ import annotations

import argparse
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING

from segfw.base.command import Argument, Command
from segfw.base.file_names import HIDDEN
from segfw.base.options import takes_options
from segfw.base.speech import LOG_FILE, LogPlace
from segfw.robustness.stress_options import StressOptions

if TYPE_CHECKING:
    from segfw.dataset.cases import Case
    from segfw.dataset.labels import LabelSet
    from segfw.networks import BuildNetwork
    from segfw.robustness.stress_folder import StressCase
    from segfw.robustness.stress_records import StressReport

SOME_CHANGED = 1  # exit code: what must change nothing has changed a voxel


@takes_options(options=StressOptions)
def stress(
    model: Path,
    source: Path,
    output: Path,
    options: StressOptions = StressOptions(),
    *,
    build: BuildNetwork | None = None,
) -> StressReport:
    """Changes images on purpose, predicts them again, and tells how far the masks go along.

    Three kinds of change: those that must not change a voxel of the mask (how a file stores the same image: axes,
    origin, format, number type), those that should change little (other intensities of a z-scored channel, half a voxel
    of shift, padding, another precision), and those that cost something, as curves: noise, blur, slices, voxel size,
    bias field, gamma, field of view, rotation, lost slices, and streaks in CT.

    The image is changed as a file would bring it, array and header together, and the mask is brought back to the first
    grid. What is tried already, with the same model and images, is kept. Any number of calls may share one folder.

    Parameters
    ----------
    model
        Work folder or model file.
    source
        Folder of images, or one file.
    output
        Folder for stress.json, stress.csv and stress.html.
    options
        ``reference`` is a folder of expert masks of the images' names; without it masks are compared with those of the
        unchanged images alone. ``cases`` images are taken, evenly from all. ``quick`` tries one level of each change.
    build
        Makes the network of a NetworkSpec, where another one than the plan's was trained.

    Returns
    -------
    StressReport
        ``changes`` and ``levels`` by structure; ``broken`` are changes that should have changed nothing, and did.

    Raises
    ------
    UserError
        If the model, the images or an option are wrong, or the folder is of another model.
    CasesFailed
        At the end, if images could not be tried; the others are done and told.
    """
    from segfw.base.parallel import CasesFailed, thread_pool
    from segfw.base.shared_work import WorkWords, share_out
    from segfw.base.words import count
    from segfw.dataset.new_images import find_images
    from segfw.inference.prediction_job import PredictionJob
    from segfw.networks import build_network
    from segfw.robustness.stress_case import StressJob, other_predictor
    from segfw.robustness.stress_folder import StressFolder, StressSettings
    from segfw.robustness.stress_outputs import write_outputs
    from segfw.robustness.stress_report import Asked

    # Whether paths and options go together
    model = Path(model)
    source = Path(source)
    output = Path(output)
    _check_paths(model, source, output, options)

    # The model, and the cases
    job = PredictionJob.of(model, output, options.of_prediction(), build or build_network)
    loaded = job.load()
    structures = _structures(loaded[0].plan.labels, options.only, model)
    found = find_images(source, loaded[0].plan.channels)
    cases = _chosen(found, loaded[0].plan.labels, options, output)
    settings = StressSettings(prediction=job.settings(loaded), has_reference=options.reference is not None)
    folder = StressFolder(output=output, is_quick=options.quick)
    folder.agree(
        settings,
        cases,
        overwrite=options.overwrite,
        otherwise=f"{output}: is of another model or other options",
        remedy="give another folder",
    )

    # The work
    folds_used = ", ".join(settings.prediction.folds)
    chosen = f"{count(len(cases), 'image')} of {len(found)}"
    print(f"trying {chosen} with {settings.prediction.configuration}, folds {folds_used}")
    predictor = job.predictor(loaded, options.device, cases=len(cases))
    work = StressJob(
        predictor=predictor,
        other=None if options.quick else other_predictor(job, loaded, predictor, options),
        structures=loaded[0].plan.labels.structures,
        folder=folder,
        is_quick=options.quick,
    )
    with thread_pool(1) as pool:
        cohort = share_out(work, cases, folder, pool, WorkWords(doing="trying", done="tried", of="image"))
    print(f"{count(cohort.done, 'case')} tried, {cohort.kept} were there")

    # The report, of all calls that have tried so far
    asked = Asked(
        model=model,
        images=source,
        reference=options.reference,
        structures=structures,
        failed={outcome.item.id: str(outcome.error) for outcome in cohort.failures},
    )
    report = write_outputs(work, cases, settings.prediction, asked)
    if cohort.failures:
        raise CasesFailed("under changes", cohort.failures, None, not_begun=cohort.not_begun)
    return report


def _check_paths(model: Path, source: Path, output: Path, options: StressOptions) -> None:
    from segfw.base.output_paths import require_outside
    from segfw.base.records import UserError
    from segfw.model.source import kept_folders
    from segfw.robustness.stress_outputs import require_own_outputs

    if output.is_file():
        raise UserError(f"{output}: is a file; give a folder for the report")
    if output.resolve() == (source.resolve().parent if source.is_file() else source.resolve()):
        raise UserError(f"{output}: is the folder of the images; give a folder of its own for the report")
    require_outside(output, (source, options.reference, *kept_folders(model)))
    require_own_outputs(output)


def _structures(labels: LabelSet, only: tuple[str, ...] | None, model: Path) -> tuple[str, ...]:
    """The structures that are told of."""
    from segfw.dataset.look_up import only_structures

    return tuple(labels.structures) if only is None else only_structures(labels, only, model)


def _chosen(found: Sequence[Case], labels: LabelSet, options: StressOptions, output: Path) -> list[StressCase]:
    """So many cases as are asked for, evenly from all, each with the expert's mask if there is one."""
    from segfw.base.output_paths import require_distinct
    from segfw.base.records import UserError
    from segfw.evaluation.pairs import annotated_of, label_maps_of, masks_by_id
    from segfw.robustness.stress_folder import StressCase

    number = min(options.cases, len(found))
    chosen = [found[index * len(found) // number] for index in range(number)]
    masks = {} if options.reference is None else masks_by_id(options.reference)
    pairs = {case.id: (masks[case.id], masks[case.id]) for case in chosen if case.id in masks}
    maps = {} if options.reference is None else label_maps_of(pairs, options.reference, labels)
    drawn = {} if options.reference is None else annotated_of(pairs, options.reference, labels)
    cases = [
        StressCase(
            id=case.id,
            images=case.images,
            reference=masks.get(case.id),
            label_map=maps.get(case.id, ()),
            annotated=drawn.get(case.id),
        )
        for case in chosen
    ]
    require_distinct([case.id for case in cases], output)
    lacking = [case.id for case in cases if case.reference is None]
    if masks and len(lacking) == len(cases):
        raise UserError(f"{options.reference}: has a mask of none of the images, such as {lacking[0]}; name them alike")
    if masks and lacking:
        print(f"note: without a mask in {options.reference}: {', '.join(lacking)}")
    return cases


def _say_result(typed: argparse.Namespace, report: StressReport) -> int | None:
    from segfw.robustness.stress_report import report_text
    from segfw.robustness.stress_table import outputs_of

    print(report_text(report))
    print(f"written: {', '.join(map(str, outputs_of(typed.output)))}")
    return SOME_CHANGED if report.broken else None


def _log_place(typed: argparse.Namespace) -> LogPlace:
    return LogPlace(file=typed.output / HIDDEN / LOG_FILE, marks=(typed.output / HIDDEN,))


COMMAND = Command(
    function=stress,
    what="Tell how a model's masks change when images are stored otherwise, noisier, blurred, coarser, cut or turned.",
    example="segfw stress work new_scans robustness --reference expert_masks --cases 8",
    arguments=(
        Argument(name="model", help="work folder or model file"),
        Argument(name="source", help="folder of images, or one file", shown="images"),
        Argument(name="output", help="folder for stress.json, stress.csv and stress.html"),
    ),
    say_result=_say_result,
    log_place=_log_place,
)
