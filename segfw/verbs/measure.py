"""``segfw measure``: numbers of the structures in a folder of masks."""

from __future__ import annotations

import argparse
from collections.abc import Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import TYPE_CHECKING

from segfw.base.command import Argument, Command
from segfw.base.options import takes_options
from segfw.base.speech import aside
from segfw.measurements.measure_options import GUESS, MeasureOptions

if TYPE_CHECKING:
    from segfw.base.parallel import Outcome
    from segfw.base.shared_work import CaseResult
    from segfw.measurements.cohort_measures import Measures
    from segfw.measurements.masks_to_measure import FoundMasks, MaskCase
    from segfw.measurements.measures_folder import MeasuresFolder, MeasuringSettings
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
    from segfw.base.output_paths import require_distinct
    from segfw.base.parallel import CasesFailed
    from segfw.measurements.masks_to_measure import find_masks, measured_structures
    from segfw.measurements.measures_folder import MeasuresFolder, MeasuringSettings
    from segfw.measurements.whole_cohort import gathered
    from segfw.radiomics.radiomics_cohort import radiomics_of

    part = CasePart.of(options.part)
    places = _places(masks, output, options)

    # The masks, their images and names, and the patients
    found = find_masks(places.masks, places.images, options.label_names)
    ids = [case.id for case in found.cases]
    require_distinct(ids, places.output.parent)
    found, only = measured_structures(found, places.masks, options.only)
    patient_of = None if options.by_patient is None else _patients(options.by_patient, ids)
    volumes = None
    if places.model is not None:
        # Only here, because it needs PyTorch.
        from segfw.quality.measured_intervals import calibrated_volumes

        volumes = calibrated_volumes(places.model, places.masks)
    settings = MeasuringSettings(
        labels=found.labels, channels=found.channels, only=only, per_component=options.per_component
    )
    folder = MeasuresFolder.beside(places.output)
    cases = part.cases(found.cases)
    radiomics = None
    if options.radiomics:
        radiomics = radiomics_of(places.output, found, cases, only, options, folder, patient_of)
    folder.agree(
        settings,
        cases,
        overwrite=options.overwrite,
        otherwise=f"{places.output}: was measured with other options",
        remedy="give another name",
    )

    # The work
    print(f"measuring {part.text(found.cases)}")
    failures, not_begun = _measured(cases, folder, settings, radiomics, places, options)

    # The tables
    with folder.alone():
        measures = gathered(folder, found, settings, places.masks, places.images, patient_of)
        measures = measures.model_copy(update=_asked_for(options))
        if places.model is not None and volumes is not None:
            from segfw.quality.measured_intervals import with_intervals

            measures = with_intervals(measures, volumes, places.model, places.masks)
        _write(places.output, measures, found, radiomics, options)
    if failures:
        raise CasesFailed("in measuring", failures, None, not_begun=not_begun)
    return measures


@dataclass(frozen=True, kw_only=True)
class _Places:
    """Where everything lies that is read and written; of a cluster, as its workers find it."""

    masks: Path
    images: Path | None
    output: Path
    model: Path | None

    @property
    def reads(self) -> list[Path]:
        """What a case is measured of."""
        return [self.masks] if self.images is None else [self.masks, self.images]


def _places(masks: Path, output: Path, options: MeasureOptions) -> _Places:
    """The paths; UserError where they and the options do not go together, or a cluster does not see them."""
    from segfw.base.cluster import require_cluster
    from segfw.base.output_paths import require_outside
    from segfw.measurements.measure_tables import check_outputs
    from segfw.model.source import kept_folders
    from segfw.radiomics.radiomics_cohort import check_asked

    places = _Places(
        masks=Path(masks),
        images=None if options.images is None else Path(options.images),
        output=Path(output),
        model=None if options.model is None else Path(options.model),
    )
    check_outputs(places.output, options.report)
    check_asked(places.output, options)
    kept = () if places.model is None else kept_folders(places.model)
    for each in (places.output, options.report):
        require_outside(each, (places.masks, options.images, *kept))
    if options.cluster is None:
        return places
    shared = replace(
        places,
        masks=places.masks.absolute(),
        images=None if places.images is None else places.images.absolute(),
        output=places.output.absolute(),
    )
    require_cluster(options.cluster, reads=shared.reads)
    return shared


def _asked_for(options: MeasureOptions) -> dict[str, object]:
    """What the table keeps of the options, so that ``status`` can propose the same call again."""
    return {
        "label_names": str(options.label_names or ""),
        "by_patient": str(options.by_patient or ""),
        "radiomics": options.radiomics,
        "stability": options.stability,
    }


def _measured(
    cases: Sequence[MaskCase],
    folder: MeasuresFolder,
    settings: MeasuringSettings,
    radiomics: Radiomics | None,
    places: _Places,
    options: MeasureOptions,
) -> tuple[list[Outcome[MaskCase, CaseResult]], int]:
    """Measures cases, with ``radiomics`` their features too; the failures, which are kept, and how many never began."""
    from segfw.base.cluster import cluster_pool
    from segfw.base.parallel import thread_pool
    from segfw.base.shared_work import share_out
    from segfw.base.words import count
    from segfw.measurements.measure_case import MEASURING, MeasuringJob, cost_bytes

    job = MeasuringJob(
        folder=folder,
        labels=settings.labels,
        channels=settings.channels,
        only=settings.only,
        per_component=settings.per_component,
    )
    with (
        thread_pool(options.workers)
        if options.cluster is None
        else cluster_pool(options.cluster, reads=places.reads, writes=folder.path)
    ) as pool:
        cohort = share_out(job, cases, folder, pool, MEASURING, cost_bytes=cost_bytes)
        of_features = None if radiomics is None else radiomics.share_out(cases, pool)
    print(f"{count(cohort.done, 'case')} measured, {cohort.kept} were there")
    for failure in cohort.failures:
        folder.keep_failure(failure.item, failure.error)
    if radiomics is None or of_features is None:
        return cohort.failures, cohort.not_begun
    print(f"features of {count(of_features.done, 'case')} told, {of_features.kept} were there")
    for failure in of_features.failures:
        radiomics.job.folder.keep_failure(failure.item, failure.error)
    return [*cohort.failures, *of_features.failures], cohort.not_begun


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
