"""The files of the measures: JSON with all of it, and tables for spreadsheets and statistics beside it."""

from __future__ import annotations

import csv
from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path

from segfw.base.files import write_text
from segfw.base.output_paths import PAGE_ENDINGS, is_json_with, is_page, is_table_of, require_replaceable
from segfw.base.printing import csv_text, number_cell
from segfw.dataset.look_up import NameInTable
from segfw.measurements.cohort_measures import Measures
from segfw.measurements.first_order import FirstOrder
from segfw.measurements.structure_measures import StructureMeasures

WIDE = "_wide"
COMPONENTS = "_components"
PATIENTS = "_patients"
# Of each table beside NAME.csv its first columns
FIRST_COLUMNS = {
    "": ("case", "structure", "value", "status"),
    WIDE: ("case",),
    COMPONENTS: ("case", "structure", "component"),
    PATIENTS: ("patient", "structure", "first"),
}
POINTS = {
    "centroid_ras_mm": ("centroid_right_mm", "centroid_front_mm", "centroid_head_mm"),
    "box_ras_mm": ("box_left_right_mm", "box_back_front_mm", "box_feet_head_mm"),
}
# In this order; what no row has is left out, but for the first ones.
ALWAYS = ("case", "structure", "value", "status", "reason", "volume_ml")
OTHERS = (
    *("volume_low_ml", "volume_high_ml", "area_mm2", "area_px", "voxels", "cut_share", "components", "largest_share"),
    *("centroid_ras_mm", "box_ras_mm"),
    *("mesh_volume_ml", "surface_mm2", "surface_smooth_mm2", "sphericity", "diameter_mm"),
    *("major_axis_mm", "middle_axis_mm", "minor_axis_mm", "elongation", "flatness"),
    *("long_axis_mm", "short_axis_mm", "axes_plane", "left_right_ratio"),
)
PART_FIELDS = (
    *("is_cut", "voxels", "volume_ml", "area_mm2", "area_px", "centroid_ras_mm"),
    *("diameter_mm", "long_axis_mm", "short_axis_mm", "mean"),
)
STATISTICS = tuple(FirstOrder.model_fields)
NAME_FIELDS = ("english", "chinese", "scheme", "code")
DIGITS = 10  # significant ones, which no measure has


def check_outputs(output: Path, report: Path | None) -> None:
    """UserError if a name has the wrong ending, or what is there already was not written by this verb."""
    require_replaceable(output, (".csv",), is_table_of(*FIRST_COLUMNS[""]))
    require_replaceable(output.with_suffix(".json"), (".json",), is_json_with("kind", "summary", "cases"))
    for name, columns in FIRST_COLUMNS.items():
        if name:
            require_replaceable(_beside(output, name), (".csv",), is_table_of(*columns))
    require_replaceable(report, PAGE_ENDINGS, is_page)


def _beside(output: Path, name: str) -> Path:
    return output.with_name(f"{output.stem}{name}.csv")


def write_tables(output: Path, measures: Measures, *, wide: bool) -> list[Path]:
    """The tables, and the JSON last, because its presence says that they are there; what was written.

    A table of an earlier call that is not asked for now does not stay with its old numbers: the wide one is written
    anew, the others, of which these measures have nothing, are removed.
    """
    texts = {"": rows_csv(measures.rows, measures.names)}
    if wide or _is_of_measures(_beside(output, WIDE), WIDE):
        texts[WIDE] = wide_csv(measures.rows, measures.unit)
    if measures.per_component:
        texts[COMPONENTS] = components_csv(measures.rows)
    if measures.time_points:
        texts[PATIENTS] = patients_csv(measures)
    written = []
    for name, text in texts.items():
        written.append(_beside(output, name))
        write_text(written[-1], text)
    for name in FIRST_COLUMNS.keys() - texts.keys():
        if _is_of_measures(_beside(output, name), name):
            _beside(output, name).unlink()
            print(f"removed: {_beside(output, name)}, of an earlier call")
    written.append(output.with_suffix(".json"))
    measures.save(written[-1])
    return written


def files_of(output: Path) -> list[Path]:
    """The tables that are there beside one another, and the JSON."""
    tables = [
        _beside(output, name) for name in FIRST_COLUMNS if not name or _is_of_measures(_beside(output, name), name)
    ]
    return [*tables, output.with_suffix(".json")]


def _is_of_measures(table: Path, name: str) -> bool:
    """Whether a table beside NAME.csv was written by this verb; one with a first column 'case' may be anybody's."""
    if not table.is_file():
        return False
    with open(table, encoding="utf-8", errors="replace", newline="") as file:
        head = next(csv.reader(file), [])
    columns = FIRST_COLUMNS[name]
    is_wide = name != WIDE or (len(head) > 2 and head[1].endswith("_status"))
    return tuple(head[: len(columns)]) == columns and is_wide


def rows_csv(rows: Sequence[StructureMeasures], names: Mapping[str, NameInTable]) -> str:
    """A row for every structure of every case; the last columns are its names and code, where any is known."""
    fields = [*ALWAYS, *(field for field in OTHERS if any(getattr(row, field) not in (None, "") for row in rows))]
    channels = dict.fromkeys(_every(row.channels for row in rows))
    heads = _heads(fields) + [f"{_word(channel)}_{name}" for channel in channels for name in STATISTICS]
    name_fields = [field for field in NAME_FIELDS if any(getattr(each, field) for each in names.values())]
    heads += name_fields
    lines = []
    for row in rows:
        cells = _cells(row, fields)
        for channel in channels:
            found = row.channels.get(channel)
            cells += [number_cell(None if found is None else getattr(found, name), DIGITS) for name in STATISTICS]
        cells += _cells(names.get(row.structure, NameInTable()), name_fields)
        lines.append(cells)
    return csv_text(heads, lines)


def _every(keys: Iterable[Mapping[str, object]]) -> list[str]:
    found: list[str] = []
    for each in keys:
        found += each
    return found


def _word(name: str) -> str:
    """A name as part of a column's."""
    return "_".join(name.split())


def _heads(fields: Sequence[str]) -> list[str]:
    heads: list[str] = []
    for field in fields:
        heads += POINTS.get(field, (field,))
    return heads


def _cells(record: object, fields: Sequence[str]) -> list[object]:
    cells: list[object] = []
    for field in fields:
        value = getattr(record, field)
        if field in POINTS:
            cells += [number_cell(part, DIGITS) for part in value or (None, None, None)]
        else:
            cells.append(number_cell(value, DIGITS))
    return cells


def wide_csv(rows: Sequence[StructureMeasures], unit: str) -> str:
    """A row a case: of each structure its status, its size and its mean intensities."""
    names = list(dict.fromkeys(row.structure for row in rows))
    channels = list(dict.fromkeys(_every(row.channels for row in rows)))
    size = {"ml": "volume_ml", "mm2": "area_mm2", "px": "area_px"}[unit]
    heads = ["case"]
    for name in names:
        heads += [f"{_word(name)}_status", f"{_word(name)}_{size}"]
        heads += [f"{_word(name)}_{_word(channel)}_mean" for channel in channels]
    by_case: dict[str, dict[str, StructureMeasures]] = {}
    for row in rows:
        by_case.setdefault(row.case, {})[row.structure] = row
    lines = []
    for case, found in by_case.items():
        cells: list[object] = [case]
        for name in names:
            each = found[name]
            means = [each.channels[channel].mean if channel in each.channels else None for channel in channels]
            cells += [each.status, *(number_cell(value, DIGITS) for value in (getattr(each, size), *means))]
        lines.append(cells)
    return csv_text(heads, lines)


def components_csv(rows: Sequence[StructureMeasures]) -> str:
    """A row for every connected part, the largest of a structure first."""
    parts = [(row, part) for row in rows for part in row.parts]
    fields = [field for field in PART_FIELDS if any(getattr(part, field) is not None for _, part in parts)]
    lines = [[row.case, row.structure, part.number, *_cells(part, fields)] for row, part in parts]
    return csv_text(["case", "structure", "component", *_heads(fields)], lines)


def patients_csv(measures: Measures) -> str:
    """A row for every structure and pair of time points."""
    unit = measures.unit
    fields = ("patient", "structure", "first", "second", "status", "first_size", "second_size", "change")
    heads = [f"{field}_{unit}" if field.endswith(("size", "change")) else field for field in fields]
    lines = [_cells(each, (*fields, "ratio", "fall")) for each in measures.time_points]
    return csv_text([*heads, "ratio", "fall"], lines)
