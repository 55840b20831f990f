"""The page of the measures: distributions, outliers, pictures and tables, in one HTML file that needs no network."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from segfw.base.figures import write_page
from segfw.base.records import UserError
from segfw.base.tables import Column, Table
from segfw.base.words import count
from segfw.dataset.look_up import NameInTable
from segfw.evaluation.masks import classes_of
from segfw.evaluation.overlays import draw_overlay
from segfw.images.volume import Volume, to_canonical
from segfw.measurements.cohort_measures import Measures, StructureSummary
from segfw.measurements.masks_to_measure import FoundMasks, MaskCase
from segfw.measurements.measure_case import read_case
from segfw.measurements.measure_figures import draw_sizes
from segfw.measurements.structure_measures import NOT_ANNOTATED, STATUSES, Status, StructureMeasures

TEMPLATE = Path(__file__).with_name("measures.html.jinja")
ELSEWHERE = "They are in the CSV tables, too."
FIGURES = 4  # significant ones
MOST_ODD = 6  # cases with an outlier that are shown
OTHERS = 3  # cases without one that are shown
UNITS = {"ml": "ml", "mm2": "mm²", "px": "pixels"}


@dataclass(frozen=True, kw_only=True)
class CasePicture:
    """The mask of a case, over its image where there is one; what is told below it."""

    case: str
    text: str
    png: bytes
    has_directions: bool


@dataclass(frozen=True, kw_only=True)
class PageSection:
    """Something more on the page: what is said above its table and below it."""

    title: str
    lead: str
    table: Table
    below: str = ""


def write_measures_page(
    path: Path, measures: Measures, found: FoundMasks, sections: Sequence[PageSection] = ()
) -> None:
    """Writes the page, atomically; the cases that are shown are read again."""
    pictures = _pictures(measures, found)
    links = {picture.case: f"#picture-{number}" for number, picture in enumerate(pictures, start=1)}
    rows = measures.rows
    write_page(
        Path(path),
        TEMPLATE,
        title=f"Measures of {Path(measures.masks).resolve().name}",
        measures=measures,
        cases=count(len(measures.cases), "case").split(" ", 1),
        structures=count(len(measures.summary), "structure").split(" ", 1),
        unit=UNITS[measures.unit],
        structure_table=structure_table(measures),
        outliers=outlier_table(measures, links) if measures.outliers else None,
        plot_png=draw_sizes(measures, found.labels.drawn_classes),
        pictures=pictures,
        time_points=time_point_table(measures) if measures.time_points else None,
        row_table=row_table(rows, measures, links),
        sections=sections,
    )


def structure_table(measures: Measures) -> Table:
    """A row for each structure: how often it has which status, and how large it is where it is whole."""
    summary = measures.summary
    names = [each.structure for each in summary]
    others = [_known_name(measures.names.get(name)) for name in names]
    unit = UNITS[measures.unit]
    columns = [
        Column(title="Structure", values=names, notes=others if any(others) else ()),
        _counted(summary, "whole"),
    ]
    for title, values in (
        ("Median", [each.median for each in summary]),
        ("25%", [None if each.quartiles is None else each.quartiles[0] for each in summary]),
        ("75%", [None if each.quartiles is None else each.quartiles[1] for each in summary]),
        ("Smallest", [each.smallest for each in summary]),
        ("Largest", [each.largest for each in summary]),
    ):
        columns.append(Column(title=title, unit=unit, values=values, significant=FIGURES))
    columns += [_counted(summary, status) for status in STATUSES if status != "whole"]
    if any(NOT_ANNOTATED in each.statuses for each in summary):
        columns.append(_counted(summary, NOT_ANNOTATED))
    return Table(name="Structures", columns=columns, search="Find a structure", elsewhere=ELSEWHERE)


def _counted(summary: Sequence[StructureSummary], status: Status) -> Column:
    """In how many cases a structure has a status."""
    return Column(title=status.capitalize(), values=[each.statuses.get(status, 0) for each in summary], digits=0)


def _known_name(known: NameInTable | None) -> str:
    """What a structure is called in English and Chinese; '' where it is unknown."""
    return "" if known is None else " ".join(filter(None, (known.english, known.chinese)))


def outlier_table(measures: Measures, links: Mapping[str, str]) -> Table:
    """A row for each size that stands out."""
    outliers = measures.outliers
    unit = UNITS[measures.unit]
    return Table(
        name="Outliers",
        search="Find a case or a structure",
        elsewhere=ELSEWHERE,
        columns=[
            Column(title="Case", values=[each.case for each in outliers], links=links),
            Column(title="Structure", values=[each.structure for each in outliers]),
            Column(title="Size", unit=unit, values=[each.size for each in outliers], significant=FIGURES),
            Column(title="Others from", unit=unit, values=[each.usual[0] for each in outliers], significant=FIGURES),
            Column(title="to", unit=unit, values=[each.usual[1] for each in outliers], significant=FIGURES),
        ],
    )


def time_point_table(measures: Measures) -> Table:
    """A row for each structure and pair of time points of a patient."""
    found = measures.time_points
    unit = UNITS[measures.unit]
    columns = [
        Column(title="Patient", values=[each.patient for each in found]),
        Column(title="Structure", values=[each.structure for each in found], choose="All structures"),
        Column(title="First", values=[each.first for each in found]),
        Column(title="Second", values=[each.second for each in found]),
        Column(title="Status", values=[each.status for each in found], choose="All"),
    ]
    for title, shown, values in (
        ("First", unit, [each.first_size for each in found]),
        ("Second", unit, [each.second_size for each in found]),
        ("Change", unit, [each.change for each in found]),
        ("Ratio", "", [each.ratio for each in found]),
        ("Fall", "", [each.fall for each in found]),
    ):
        columns.append(Column(title=title, unit=shown, values=values, significant=FIGURES))
    return Table(name="Time points", columns=columns, search="Find a patient", elsewhere=ELSEWHERE, sticky=2)


def row_table(rows: Sequence[StructureMeasures], measures: Measures, links: Mapping[str, str]) -> Table:
    """A row for every structure of every case, with what is looked at most."""
    columns = [
        Column(title="Case", values=[row.case for row in rows], links=links, choose="All cases"),
        Column(title="Structure", values=[row.structure for row in rows], choose="All structures"),
        Column(title="Status", values=[row.status for row in rows], choose="All"),
        Column(
            title="Size",
            unit=UNITS[measures.unit],
            values=[row.size_in(measures.unit) for row in rows],
            significant=FIGURES,
        ),
    ]
    for title, unit, field in (
        ("Parts", "", "components"),
        ("Cut share", "", "cut_share"),
        ("Long axis", "mm", "long_axis_mm"),
        ("Short axis", "mm", "short_axis_mm"),
        ("Diameter", "mm", "diameter_mm"),
        ("Left / right", "", "left_right_ratio"),
    ):
        values = [getattr(row, field) for row in rows]
        if any(value is not None for value in values):
            columns.append(Column(title=title, unit=unit, values=values, significant=FIGURES))
    names = list(dict.fromkeys(name for row in rows for name in row.channels))
    for name in names:
        means = [row.channels[name].mean if name in row.channels else None for row in rows]
        columns.append(Column(title=f"Mean of {name}", values=means, significant=FIGURES))
    columns.append(Column(title="Why", values=[row.reason for row in rows]))
    return Table(name="Measures", columns=columns, search="Find a case or a structure", elsewhere=ELSEWHERE, sticky=2)


def _pictures(measures: Measures, found: FoundMasks) -> list[CasePicture]:
    """Cases with outliers, and some others, evenly spread over the names."""
    told: dict[str, list[str]] = {}
    for outlier in measures.outliers:
        told.setdefault(outlier.case, []).append(f"{outlier.structure} is an outlier")
    odd = list(told)[:MOST_ODD]
    measured = [case for case in found.cases if case.id in measures.cases and not measures.cases[case.id].problem]
    rest = [case for case in measured if case.id not in told]
    number = min(OTHERS, len(rest))
    others = [rest[index * len(rest) // number].id for index in range(number)]
    by_id = {case.id: case for case in measured}
    pictures = []
    for name in (*odd, *others):
        picture = _picture(by_id[name], "; ".join(told.get(name, [])), found)
        if picture is not None:
            pictures.append(picture)
    return pictures


def _picture(case: MaskCase, text: str, found: FoundMasks) -> CasePicture | None:
    """None where a file has gone meanwhile: a picture is not worth losing the page for."""
    try:
        stored, images = read_case(case, found.labels)
        classes_zyx = classes_of(to_canonical(stored), found.labels, case.mask, case.label_map)
    except UserError:
        return None
    if found.labels.ignored_class is not None:  # which is not drawn
        classes_zyx[classes_zyx == found.labels.ignored_class] = 0
    png = draw_overlay(
        _shown(images[0]) if images else None,
        classes_zyx,
        None,
        to_canonical(stored).geometry.spacing_mm,
        found.labels.names,
        has_directions=not stored.is_picture,
        units=stored.units,
    )
    return CasePicture(case=case.id, text=text, png=png, has_directions=not stored.is_picture)


def _shown(image: Volume) -> np.ndarray:
    """The first channel (Z, Y, X), or the colours (Z, Y, X, 3) of a picture that has them."""
    canonical = to_canonical(image)
    return np.moveaxis(canonical.array, 0, -1) if canonical.is_coloured else canonical.array[0]
