"""Names for the values in masks, from a small table: CSV, TSV, JSON, or one that ITK-SNAP, 3D Slicer or BIDS writes.

A table may also say colours, by which pictures are read whose masks are painted in colours.
"""

from __future__ import annotations

import csv
import re
from collections import Counter
from collections.abc import Callable, Collection, Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from unicodedata import normalize

from segfw.base.records import UserError
from segfw.base.written_by_people import check_text, read_json, read_text
from segfw.dataset.bids import lookup_tables
from segfw.dataset.cases import FoundDataset
from segfw.dataset.dataset_json import BACKGROUND, DESCRIPTION_FILE, IGNORE, labels_of
from segfw.dataset.labels import LABELS_FILE, LabelMap, LabelSet
from segfw.images.formats import is_picture
from segfw.images.mask_colours import BLACK, Colour, values_of_colour

# Tables that are found by themselves beside the folders of images and masks.
TABLE_FILES = ("labels.csv", "labels.tsv", "labels.txt", LABELS_FILE)
SHOWN = 8  # labels that a sentence lists
EXAMPLE = "write a header value,name and a line such as 1,liver for each label"
VALUE_COLUMNS = frozenset({"value", "label", "labelvalue", "index", "id", "idx", "number"})
NAME_COLUMNS = frozenset({"name", "labelname", "structure", "description", "segment"})
COLOUR_COLUMNS = (
    frozenset({"r", "red", "colorr", "colourr"}),
    frozenset({"g", "green", "colorg", "colourg"}),
    frozenset({"b", "blue", "colorb", "colourb"}),
)
# ITK-SNAP: index, red, green, blue, alpha, visible, mesh, "name"
ITK_SNAP_LINE = re.compile(r'(-?\d{1,9})\s+(\d+)\s+(\d+)\s+(\d+)\s+[\d.]+\s+\d+\s+\d+\s+"(.*)"')
# 3D Slicer and FreeSurfer: index, name, red, green, blue, alpha
COLOUR_TABLE_LINE = re.compile(r"(-?\d{1,9})\s+(\S+)\s+(\d+)\s+(\d+)\s+(\d+)(?:\s+\d+)?")
PLAIN_LINE = re.compile(r"(-?\d{1,9})\s*[,;:=\t ]\s*([^,;\t]+)")  # no header: 1,liver or 1 liver
NAMES_OF_BACKGROUND = frozenset({"background", "clearlabel", "unknown", "none", "bg"})


@dataclass(frozen=True, kw_only=True)
class LabelRow:
    """A line of a table: what a value, or a colour, means."""

    line: int
    name: str
    value: int | None
    colour: Colour | None = None


@dataclass(frozen=True, kw_only=True)
class LabelTable:
    """The labels that a table names; ``by_colour`` is what colours in masks mean, empty where it says none."""

    path: Path
    labels: LabelSet
    by_colour: LabelMap = ()
    declares: bool = False  # as a dataset.json does: what no mask holds is a label all the same


def read_label_table(path: Path) -> LabelTable:
    """Reads a table of label names.

    Parameters
    ----------
    path
        CSV or TSV with the columns value and name, and perhaps r, g and b; or name, r, g and b, which numbers the
        labels from 1 in the order of the lines; lines of a value and a name; JSON {"name": value}, or with nnU-Net's
        "labels"; ITK-SNAP's label descriptions; 3D Slicer's or FreeSurfer's colour table; BIDS' dseg.tsv.

    Returns
    -------
    LabelTable
        The labels, with the background, and what the colours mean.

    Raises
    ------
    UserError
        Naming file, line and value, if it is none of these, or two lines contradict each other.
    """
    path = Path(path)
    if not path.is_file():
        raise UserError(f"{path}: no such file; give a table of label names, with a header value,name")
    if path.suffix.lower() == ".json":
        return _from_json(path)
    try:
        text = read_text(path)
        check_text(text)
    except OSError as error:
        raise UserError(f"{path}: cannot be read ({error.strerror}); give a table of label names") from None
    except ValueError as error:
        raise UserError(f"{path}: is no table ({error}); {EXAMPLE}") from None
    lines = normalize("NFC", text).splitlines()
    used = [(number, line.strip()) for number, line in enumerate(lines, 1) if line.strip() and line.strip()[0] != "#"]
    if not used:
        raise UserError(f"{path}: is empty; {EXAMPLE}")
    for pattern, read in LINES.items():
        if pattern.fullmatch(used[0][1]):
            return _table(path, [read(path, number, line) for number, line in used])
    return _table(path, _rows_with_header(path, used))


def _from_json(path: Path) -> LabelTable:
    content = read_json(path)
    if not isinstance(content, dict) or not content:
        raise UserError(f'{path}: must be a JSON object of names and values; write for example {{"liver": 1}}')
    if isinstance(content.get("names"), list):  # as segfw writes it beside masks
        return LabelTable(path=path, labels=LabelSet.load(path), declares=True)
    if isinstance(content.get("labels"), dict):
        return LabelTable(path=path, labels=labels_of(content, path), declares=True)
    return LabelTable(path=path, labels=labels_of({"labels": content}, path))


def _itk_snap_row(path: Path, number: int, line: str) -> LabelRow:
    found = ITK_SNAP_LINE.fullmatch(line)
    if found is None:
        raise UserError(f'{path}: line {number} is {line!r}; write it as 1 255 0 0 1 1 1 "liver", as ITK-SNAP does')
    value, red, green, blue, name = found.groups()
    return LabelRow(line=number, name=name.strip(), value=int(value), colour=_colour(path, number, (red, green, blue)))


def _colour_table_row(path: Path, number: int, line: str) -> LabelRow:
    found = COLOUR_TABLE_LINE.fullmatch(line)
    if found is None:
        raise UserError(f"{path}: line {number} is {line!r}; write it as 1 liver 221 130 101 255, as 3D Slicer does")
    value, name, red, green, blue = found.groups()
    return LabelRow(line=number, name=name, value=int(value), colour=_colour(path, number, (red, green, blue)))


def _plain_row(path: Path, number: int, line: str) -> LabelRow:
    found = PLAIN_LINE.fullmatch(line)
    if found is None:
        raise UserError(f"{path}: line {number} is {line!r}; write a value and a name, such as 1,liver")
    return LabelRow(line=number, name=found[2].strip().strip('"'), value=int(found[1]))


LINES: Mapping[re.Pattern[str], Callable[[Path, int, str], LabelRow]] = {
    ITK_SNAP_LINE: _itk_snap_row,
    COLOUR_TABLE_LINE: _colour_table_row,
    PLAIN_LINE: _plain_row,
}


def _rows_with_header(path: Path, lines: Sequence[tuple[int, str]]) -> list[LabelRow]:
    delimiter = max(",;\t", key=lines[0][1].count)  # spreadsheets in many countries write semicolons
    try:
        header, *rows = [(number, next(csv.reader([line], delimiter=delimiter))) for number, line in lines]
    except csv.Error as error:
        raise UserError(f"{path}: is no table ({error}); {EXAMPLE}") from None
    names = [re.sub(r"[^a-z]", "", cell.casefold()) for cell in header[1]]

    def column(words: frozenset[str]) -> int | None:
        return next((index for index, name in enumerate(names) if name in words), None)

    value_at = column(VALUE_COLUMNS)
    name_at = column(NAME_COLUMNS)
    colour_at = [column(words) for words in COLOUR_COLUMNS]
    has_colours = None not in colour_at
    if name_at is None or (value_at is None and not has_colours):
        what = f"its first line is {lines[0][1]!r}"
        raise UserError(f"{path}: {what}; {EXAMPLE}, or name,r,g,b where masks are in colours")
    found = []
    for number, cells in rows:
        name = _cell(cells, name_at)
        value = None if value_at is None else _whole(path, number, _cell(cells, value_at))
        parts = [_cell(cells, index) for index in colour_at if index is not None]
        colour = _colour(path, number, parts) if has_colours and any(parts) else None
        if not name:
            raise UserError(f"{path}: line {number} has no name; fill it in")
        if value is None and colour is None:
            raise UserError(f"{path}: line {number} ({name}) has no colour; write three numbers from 0 to 255")
        found.append(LabelRow(line=number, name=name, value=value, colour=colour))
    if not found:
        raise UserError(f"{path}: has a header but no line below it; {EXAMPLE}")
    return found


def _cell(cells: Sequence[str], index: int) -> str:
    return cells[index].strip() if index < len(cells) else ""


def _whole(path: Path, number: int, text: str) -> int:
    if not re.fullmatch(r"-?\d{1,9}", text):
        raise UserError(f"{path}: line {number} has the value {text!r}; it must be an integer, as in the masks")
    return int(text)


def _colour(path: Path, number: int, parts: Sequence[str]) -> Colour:
    if not all(re.fullmatch(r"\d{1,3}", part) and int(part) <= 255 for part in parts):
        what = f"line {number} has the colour {','.join(parts)!r}"
        raise UserError(f"{path}: {what}; write three whole numbers from 0 to 255 for red, green and blue")
    red, green, blue = map(int, parts)
    return red, green, blue


def _table(path: Path, rows: Sequence[LabelRow]) -> LabelTable:
    are_numbered = all(row.value is not None for row in rows)
    if not are_numbered:
        _require_distinct(path, rows, "colour", lambda row: row.colour and ",".join(map(str, row.colour)))
        rows = _numbered(rows)
    _require_distinct(path, rows, "value", lambda row: row.value)
    _require_distinct(path, rows, "name", lambda row: row.name)
    entries = {BACKGROUND if row.value == 0 else row.name: row.value for row in rows}
    if set(entries) <= {BACKGROUND}:
        raise UserError(f"{path}: names the background alone; add a line for each structure")
    labels = labels_of({"labels": entries}, path)
    return LabelTable(path=path, labels=labels, by_colour=_by_colour(rows, are_numbered=are_numbered))


def _numbered(rows: Sequence[LabelRow]) -> list[LabelRow]:
    """The rows with the values that they get by their order, 0 for the background."""
    found = []
    next_value = 1
    for row in rows:
        is_background = re.sub(r"[^a-z]", "", row.name.casefold()) in NAMES_OF_BACKGROUND
        found.append(replace(row, value=0 if is_background else next_value))
        next_value += not is_background
    return found


def _require_distinct(path: Path, rows: Sequence[LabelRow], what: str, key: Callable[[LabelRow], object]) -> None:
    """UserError for two lines that have the same value, name or colour."""
    first: dict[object, LabelRow] = {}
    for row in rows:
        other = first.setdefault(key(row), row)
        if other is not row:
            raise UserError(
                f"{path}: lines {other.line} and {row.line} have the same {what}, {key(row)}; keep one of them"
            )


def _by_colour(rows: Sequence[LabelRow], *, are_numbered: bool) -> LabelMap:
    """What colours mean, and black as background unless the table says otherwise; listed values mean themselves.

    3D Slicer and others give several labels one colour: it means nothing then.
    """
    coloured = [row for row in rows if row.colour is not None]
    if not coloured:
        return ()
    times = Counter(row.colour for row in coloured)
    meaning: dict[int, int] = {}
    if BLACK not in times:
        meaning |= dict.fromkeys(values_of_colour(BLACK), 0)
    for row in coloured:
        if row.colour is not None and times[row.colour] == 1:
            meaning |= dict.fromkeys(values_of_colour(row.colour), row.value or 0)
    if are_numbered:
        meaning |= {row.value: row.value for row in rows if row.value is not None}
    return tuple(sorted(meaning.items()))


# ---- names for a data set ----


def label_table_of(raw: Path, given: Path | None) -> LabelTable | None:
    """The table of label names that is given, or the one beside the folders of a data set; None without both.

    Raises UserError if it cannot be read, or if there are several.
    """
    if given is not None:
        return read_label_table(given)
    tables = [raw / name for name in TABLE_FILES if (raw / name).is_file()] or lookup_tables(raw)
    if len(tables) > 1:
        names = ", ".join(path.relative_to(raw).as_posix() for path in tables)
        raise UserError(f"{raw}: has several tables of label names ({names}); keep one, or give it as --label-names")
    return read_label_table(tables[0]) if tables else None


def with_label_names(found: FoundDataset, table: LabelTable | None) -> FoundDataset:
    """The data set with the labels of a table; UserError if its dataset.json calls a value otherwise."""
    if table is None:
        return found
    if found.labels is not None:
        _require_agreement(found.labels, table, found.root)
        return found
    return replace(
        found,
        labels=table.labels,
        labels_source=table.path.name,
        labels_may_be_absent=not table.declares,
        notes=(*found.notes, f"label names by {table.path.name}"),
    )


def with_colours(found: FoundDataset, table: LabelTable | None) -> FoundDataset:
    """The data set with what colours mean in the label map of each case whose mask is a picture."""
    if table is None or not table.by_colour:
        return found
    cases = []
    for case in found.cases:
        if case.label is not None and is_picture(case.label):
            merged = dict(table.by_colour) | dict(case.label_map)
            case = case.model_copy(update={"label_map": tuple(sorted(merged.items()))})
        cases.append(case)
    return replace(found, cases=tuple(cases))


def with_present_labels(found: FoundDataset, present: Collection[int]) -> FoundDataset:
    """The data set without the labels that a table names and no mask holds, and a note on these.

    A table is often made for more than one data set: 3D Slicer's have hundreds of lines. What nnU-Net's "labels"
    declare stays, as in nnU-Net.
    """
    labels = found.labels
    if labels is None or labels.regions or not found.labels_may_be_absent:
        return found
    kept = [index for index, value in enumerate(labels.values) if index == 0 or value in present]
    if len(kept) in (1, len(labels.values)):
        return found
    named = [f"{value} {name}" for value, name in zip(labels.values, labels.names)]
    absent = [text for index, text in enumerate(named) if index not in kept]
    more = f" and {len(absent) - SHOWN} more" if len(absent) > SHOWN else ""
    note = f"{found.labels_source} names {', '.join(absent[:SHOWN])}{more}, which no mask holds: left out"
    names = tuple(labels.names[index] for index in kept)
    values = tuple(labels.values[index] for index in kept)
    fewer = LabelSet(
        names=names,
        values=values,
        ignore=labels.ignore,
        also_called={name: texts for name, texts in labels.also_called.items() if name in names},
        codes={name: code for name, code in labels.codes.items() if name in names},
    )
    cases = []
    for case in found.cases:
        label_map = tuple(pair for pair in case.label_map if pair[1] in fewer.stored_values)
        cases.append(case.model_copy(update={"label_map": label_map}))
    return replace(found, labels=fewer, cases=tuple(cases), notes=(*found.notes, note))


def _require_agreement(labels: LabelSet, table: LabelTable, root: Path) -> None:
    described = dict(zip(labels.stored_values, (*labels.names, IGNORE)))
    named = dict(zip(table.labels.stored_values, (*table.labels.names, IGNORE)))
    for value, name in named.items():
        known = described.get(value)
        if known != name and value != table.labels.values[0]:
            said = f"has no value {value}" if known is None else f"calls {value} {known!r}"
            what = f"calls {value} {name!r}, but {root / DESCRIPTION_FILE} {said}"
            raise UserError(f"{table.path}: {what}; correct one of them, or keep one alone")
