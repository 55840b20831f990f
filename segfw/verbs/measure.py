"""``segfw measure``: numbers of the structures in a folder of masks."""

from __future__ import annotations

import argparse
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING

from segfw.base.command import Argument, Command
from segfw.base.options import takes_options
from segfw.base.speech import aside
from segfw.measurements.measure_options import GUESS, MeasureOptions

if TYPE_CHECKING:
    from segfw.measurements.cohort_measures import Measures
    from segfw.measurements.masks_to_measure import FoundMasks
    from segfw.radiomics.radiomics_cohort import Radiomics


@takes_options(options=MeasureOptions)
def measure(masks: Path, output: Path, options: MeasureOptions = MeasureOptions()) -> Measures:
    """Measures every structure of every mask: sizes, shapes, positions and, with images, intensities.

    Every row has a status: 'whole', 'cut' (it reaches the border of what was scanned), 'absent', 'small' (fewer than 8
    voxels, no shape), 'failed', or 'not annotated' where dataset.json says that nobody drew it in an expert's mask.
    What is not known is empty and has a reason; nothing is written as 0 that is not. Cases that are measured already,
    from the same files and with the same options, are kept. Any number of calls may write to one output at the same
    time: they share the cases.

    Parameters
    ----------
    masks
        Folder of masks, or one mask.
    output
        Table to write, NAME.csv; NAME.json beside it holds all that was found, and how.
    options
        ``images`` is the folder of the images of the same names. ``only`` names structures. ``part`` '3/8' takes every
        eighth case from the third on; ``cluster`` is the address of a Dask scheduler, whose workers measure. ``model``
        is the calibrated model that made the masks: volumes get the interval in which the true one mostly lies.

    Returns
    -------
    Measures
        ``rows`` are a ``StructureMeasures`` for every structure of every case.

    Raises
    ------
    UserError
        If there is no mask, no image of any, no structure of a name, or what is there was measured otherwise; if the
        model is not calibrated, or not the one that made the masks.
    CasesFailed
        At the end, if a case cannot be read or its image lies on another grid; the others are measured and written.
    """
    from segfw.base.case_part import CasePart
    from segfw.base.cluster import cluster_pool, require_cluster
    from segfw.base.output_paths import require_distinct
    from segfw.base.parallel import CasesFailed, thread_pool
    from segfw.base.shared_work import share_out
    from segfw.base.words import count
    from segfw.measurements.masks_to_measure import find_masks, measured_structures
    from segfw.measurements.measure_case import MEASURING, MeasuringJob, cost_bytes
    from segfw.measurements.measures_folder import MeasuresFolder, MeasuringSettings
    from segfw.measurements.whole_cohort import gathered
    from segfw.radiomics.radiomics_cohort import radiomics_of

    masks = Path(masks)
    output = Path(output)
    model = None if options.model is None else Path(options.model)
    _check_paths(masks, output, model, options)
    part = CasePart.of(options.part)
    images = None if options.images is None else Path(options.images)
    reads = [masks] if images is None else [masks, images]
    if options.cluster is not None:
        require_cluster(options.cluster, reads=[path.absolute() for path in reads])
        masks = masks.absolute()
        images = None if images is None else images.absolute()
        output = output.absolute()

    # The masks, their images and names, and the patients
    found = find_masks(masks, images, options.label_names)
    ids = [case.id for case in found.cases]
    require_distinct(ids, output.parent)
    found, only = measured_structures(found, masks, options.only)
    patient_of = None if options.by_patient is None else _patients(options.by_patient, ids)
    volumes = None
    if model is not None:
        # Only here, because it needs PyTorch.
        from segfw.quality.measured_intervals import calibrated_volumes

        volumes = calibrated_volumes(model, masks)
    settings = MeasuringSettings(
        labels=found.labels, channels=found.channels, only=only, per_component=options.per_component
    )
    asked_for = {
        "label_names": str(options.label_names or ""),
        "by_patient": str(options.by_patient or ""),
        "radiomics": options.radiomics,
        "stability": options.stability,
    }
    folder = MeasuresFolder.beside(output)
    cases = part.cases(found.cases)
    radiomics = radiomics_of(output, found, cases, only, options, folder, patient_of) if options.radiomics else None
    folder.agree(
        settings,
        cases,
        overwrite=options.overwrite,
        otherwise=f"{output}: was measured with other options",
        remedy="give another name",
    )

    # The work
    job = MeasuringJob(
        folder=folder,
        labels=found.labels,
        channels=found.channels,
        only=only,
        per_component=options.per_component,
    )
    print(f"measuring {part.text(found.cases)}")
    with (
        thread_pool(options.workers)
        if options.cluster is None
        else cluster_pool(options.cluster, reads=[path.absolute() for path in reads], writes=folder.path)
    ) as pool:
        cohort = share_out(job, cases, folder, pool, MEASURING, cost_bytes=cost_bytes)
        of_features = None if radiomics is None else radiomics.share_out(cases, pool)
    print(f"{count(cohort.done, 'case')} measured, {cohort.kept} were there")
    failures = list(cohort.failures)
    if radiomics is not None and of_features is not None:
        print(f"features of {count(of_features.done, 'case')} told, {of_features.kept} were there")
        for failure in of_features.failures:
            radiomics.job.folder.keep_failure(failure.item, failure.error)
        failures += of_features.failures

    # The tables
    for failure in cohort.failures:
        folder.keep_failure(failure.item, failure.error)
    with folder.alone():
        measures = gathered(folder, found, settings, masks, images, patient_of).model_copy(update=asked_for)
        if volumes is not None and model is not None:
            from segfw.quality.measured_intervals import with_intervals

            measures = with_intervals(measures, volumes, model, masks)
        _write(output, measures, found, radiomics, options)
    if failures:
        raise CasesFailed("in measuring", failures, None, not_begun=cohort.not_begun)
    return measures


def _check_paths(masks: Path, output: Path, model: Path | None, options: MeasureOptions) -> None:
    """UserError where paths and options do not go together."""
    from segfw.base.output_paths import require_outside
    from segfw.measurements.measure_tables import check_outputs
    from segfw.model.source import kept_folders
    from segfw.radiomics.radiomics_cohort import check_asked

    check_outputs(output, options.report)
    check_asked(output, options)
    for each in (output, options.report):
        require_outside(each, (masks, options.images, *(() if model is None else kept_folders(model))))


def _patients(by_patient: Path | str, ids: Sequence[str]) -> dict[str, str]:
    """The patient of each case, by a table or by the names of the cases."""
    from segfw.dataset.patients import guess_groups, read_groups

    if by_patient == GUESS:
        return guess_groups(ids, for_folds=False)
    return read_groups(by_patient, ids, called="--by-patient")


def _write(
    output: Path, measures: Measures, found: FoundMasks, radiomics: Radiomics | None, options: MeasureOptions
) -> None:
    """The tables of all parts that have measured so far, and the page."""
    from segfw.measurements.measure_page import write_measures_page
    from segfw.measurements.measure_tables import write_tables
    from segfw.radiomics.radiomics_section import radiomics_section
    from segfw.radiomics.radiomics_tables import remove_feature_tables

    write_tables(output, measures, wide=options.wide)
    sections = []
    if radiomics is None:
        remove_feature_tables(output)
    else:
        features = radiomics.write()
        aside(features.text())
        sections.append(radiomics_section(features))
    if options.report is not None:
        write_measures_page(options.report, measures, found, sections)


def _say_result(typed: argparse.Namespace, measures: Measures) -> None:
    from segfw.measurements.measure_tables import files_of
    from segfw.radiomics.radiomics_cohort import feature_files

    aside(measures.text())
    print(f"written: {', '.join(map(str, [*files_of(typed.output), *feature_files(typed.output)]))}")
    if typed.report:
        print(f"written: {typed.report}")


COMMAND = Command(
    function=measure,
    what="Measure the structures in a folder of masks: sizes, shapes, positions, intensities, each with its status.",
    example="segfw measure masks --images imagesTs --output measures.csv --report measures.html",
    arguments=(
        Argument(name="masks", help="folder of masks, or one mask"),
        Argument(name="output", help="table to write, .csv; .json lies beside it", shown="--output"),
    ),
    say_result=_say_result,
)
