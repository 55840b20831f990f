"""Brings together what was measured of each case, by whichever process."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path

from segfw.base.own_version import own_version
from segfw.measurements.cohort_measures import (
    Measures,
    main_unit,
    names_in_table,
    outlying_sizes,
    status_counts,
    summaries,
    unit_notes,
)
from segfw.measurements.masks_to_measure import FoundMasks
from segfw.measurements.measures_folder import MeasuresFolder, MeasuringSettings
from segfw.measurements.time_points import TimePoints, time_points


def gathered(
    folder: MeasuresFolder,
    found: FoundMasks,
    settings: MeasuringSettings,
    masks: Path,
    images: Path | None,
    patient_of: Mapping[str, str] | None,
) -> Measures:
    """All cases that were measured as they are now, and which are missing; ``patient_of`` has time points compared."""
    kept = {case.id: folder.current(case) for case in found.cases}
    cases = {case: measures for case, measures in kept.items() if measures is not None}
    measured = Measures(
        version=own_version(),
        masks=str(masks),
        images="" if images is None else str(images),
        labels=found.labels,
        channels=found.channels,
        only=settings.only,
        per_component=settings.per_component,
        unit=main_unit(cases),
        notes=found.notes,
        names=names_in_table(found.labels),
        failed={case: measures.problem for case, measures in cases.items() if measures.problem},
        missing=tuple(case for case, measures in kept.items() if measures is None),
        statuses={},
        summary=(),
        cases=cases,
    )
    rows = measured.rows
    pairs: tuple[TimePoints, ...] = ()
    notes = unit_notes(rows, measured.unit)
    if patient_of is not None:
        pairs, time_notes = time_points(rows, patient_of, measured.unit)
        notes += time_notes
    return measured.model_copy(
        update={
            "statuses": status_counts(rows),
            "summary": summaries(rows, measured.unit),
            "outliers": outlying_sizes(rows, measured.unit),
            "time_points": pairs,
            "notes": (*measured.notes, *notes),
        }
    )
