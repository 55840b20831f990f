"""``segfw measure``: numbers of the structures in a folder of masks."""

from __future__ import annotations

import argparse
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING

from segfw.base.command import Argument, Command
from segfw.base.options import takes_options
from segfw.base.speech import aside
from segfw.measurements.measure_options import GUESS, MeasureOptions

if TYPE_CHECKING:
    from segfw.measurements.cohort_measures import Measures


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
    from segfw.base.output_paths import require_distinct, require_outside
    from segfw.base.parallel import CasesFailed, thread_pool
    from segfw.base.shared_work import share_out
    from segfw.base.words import count, listed
    from segfw.dataset.look_up import only_structures
    from segfw.dataset.patients import guess_groups, read_groups
    from segfw.evaluation.mask_facts import read_mask_facts, require_in_masks, structures_in_masks
    from segfw.measurements.masks_to_measure import find_masks
    from segfw.measurements.measure_case import MEASURING, MeasuringJob, cost_bytes
    from segfw.measurements.measure_page import write_measures_page
    from segfw.measurements.measure_tables import check_outputs, write_tables
    from segfw.measurements.measures_folder import MeasuresFolder, MeasuringSettings
    from segfw.measurements.whole_cohort import gathered
    from segfw.model.source import kept_folders
    from segfw.radiomics.radiomics_cohort import check_asked, radiomics_of
    from segfw.radiomics.radiomics_section import radiomics_section
    from segfw.radiomics.radiomics_tables import remove_feature_tables

    # Whether paths and options go together
    masks = Path(masks)
    output = Path(output)
    report = options.report
    check_outputs(output, report)
    check_asked(output, options)
    model = None if options.model is None else Path(options.model)
    for each in (output, report):
        require_outside(each, (masks, options.images, *(() if model is None else kept_folders(model))))
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
    # Of masks that were predicted for some structures nothing is known of the others; they are not absent.
    beside = masks if masks.is_dir() else masks.parent
    facts = read_mask_facts(beside)
    made_for = structures_in_masks(found.labels, beside, facts) if facts.only else ()
    only = only_structures(found.labels, options.only, masks) if options.only else made_for or None
    if made_for:
        require_in_masks(masks, made_for, only or ())
        note = f"the masks were predicted for {listed(made_for, 'and')} alone, and nothing else is measured"
        found = replace(found, notes=(*found.notes, note))
    patient_of = None
    if options.by_patient is not None:
        if options.by_patient == GUESS:
            patient_of = guess_groups(ids, for_folds=False)
        else:
            patient_of = read_groups(options.by_patient, ids, called="--by-patient")
    volumes = None
    if model is not None:
        # Only here, because it needs PyTorch.
        from segfw.quality.measured_intervals import calibrated_volumes

        volumes = calibrated_volumes(model, masks)
    settings = MeasuringSettings(
        labels=found.labels, channels=found.channels, only=only, per_component=options.per_component
    )
    asked_for = {"label_names": str(options.label_names or ""), "by_patient": str(options.by_patient or "")}
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

    # The tables, of all parts that have measured so far
    for failure in cohort.failures:
        folder.keep_failure(failure.item, failure.error)
    with folder.alone():
        measures = gathered(folder, found, settings, masks, images, patient_of).model_copy(update=asked_for)
        if volumes is not None and model is not None:
            from segfw.quality.measured_intervals import with_intervals

            measures = with_intervals(measures, volumes, model, masks)
        write_tables(output, measures, wide=options.wide)
        features = None
        if radiomics is not None:
            features = radiomics.write()
            aside(features.text())
        else:
            remove_feature_tables(output)
        if report is not None:
            sections = [] if features is None else [radiomics_section(features)]
            write_measures_page(report, measures, found, sections)
    if failures:
        raise CasesFailed("in measuring", failures, None, not_begun=cohort.not_begun)
    return measures


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
