"""Which names of ROIs and segments mean which label: ``structures.csv`` in a data set of DICOM, and its proposal.

A line a name; what has no label is left out::

    structure,label,value,cases,note
    Parotid_L,parotid_gland_left,1,38,
    parotis li,parotid_gland_left,1,2,
    BODY,,,40,means no structure that is known: give it a label, or leave it out

``value`` may be left out: labels are then numbered in the order of the lines. A last line ``*`` without a label leaves
out whatever is not listed, which is else refused. Names are the same whatever their capitals, and whatever stands
between their words.
"""

from __future__ import annotations

import csv
import io
import re
from collections.abc import Collection, Iterable, Mapping, Sequence
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path

from segfw.base.files import write_text
from segfw.base.records import UserError
from segfw.base.words import count, did_you_mean, listed
from segfw.base.written_by_people import check_text, read_text
from segfw.dataset.anatomy import anatomy
from segfw.dataset.dataset_json import BACKGROUND, IGNORE
from segfw.dataset.labels import LabelSet
from segfw.dataset.structure_names import Reading, plain, readings
from segfw.images.named_mask import DrawnAs

STRUCTURES_FILE = "structures.csv"
COLUMNS = ("structure", "label", "value", "cases", "note")
NAME_COLUMNS = ("structure", "roi", "segment", "name")
OTHERS = "*"
DELIMITERS = ("\t", ";", ",")
LONGEST_LABEL = 64  # characters
EXAMPLE = "write the header structure,label and a line such as Parotid_L,parotid_left for each name"
UNKNOWN = "means no structure that is known: give it a label, or leave it out"


@dataclass(frozen=True, kw_only=True)
class MappedName:
    """A line of the table: the label of a name, '' where it is left out."""

    line: int
    name: str
    label: str
    value: int | None = None


@dataclass(frozen=True, kw_only=True)
class StructureMap:
    """All lines of a table; ``leaves_out_others`` if it has the line ``*``."""

    path: Path
    rows: tuple[MappedName, ...]
    leaves_out_others: bool = False

    @cached_property
    def label_of(self) -> Mapping[str, str]:
        """Labels by what ``plain`` makes of a name."""
        return {plain(row.name): row.label for row in self.rows}

    def label_of_name(self, name: str) -> str:
        """The label of a name; '' where it is left out or not listed."""
        return self.label_of.get(plain(name), "")

    def unknown(self, names: Iterable[str]) -> list[str]:
        """Names that no line is for, in their order; none where all others are left out."""
        return [] if self.leaves_out_others else [name for name in names if plain(name) not in self.label_of]

    def left_out(self, names: Iterable[str]) -> list[str]:
        """Names that get no label."""
        return [name for name in names if not self.label_of.get(plain(name))]

    def labels(self, described: LabelSet | None) -> LabelSet:
        """The labels of the table, or those of a dataset.json, which must have them all."""
        names = list(
            dict.fromkeys(row.label for row in self.rows if row.label and row.label not in (IGNORE, BACKGROUND))
        )
        if described is not None:
            self._require_among(names, described)
            return described
        values: dict[str, int] = {}
        for row in self.rows:
            if row.value is not None and row.label and values.setdefault(row.label, row.value) != row.value:
                what = f"line {row.line} gives {row.label} the value {row.value}, a line above {values[row.label]}"
                raise UserError(f"{self.path}: {what}; keep one of them")
        if len(set(values.values())) < len(values):
            same = next(name for name in values if list(values.values()).count(values[name]) > 1)
            raise UserError(
                f"{self.path}: {values[same]} is the value of {same} and of another label; change one of them"
            )
        ignore = values.pop(IGNORE, None)
        free = (value for value in range(1, 1 << 16) if value not in {*values.values(), ignore})
        for name in names:
            if name not in values:
                values[name] = next(free)
        if ignore is None and any(row.label == IGNORE for row in self.rows):
            ignore = next(free)
        if not names:
            raise UserError(f"{self.path}: gives no structure a label; fill in the column label of those to be learned")
        return LabelSet(names=(BACKGROUND, *names), values=(0, *(values[name] for name in names)), ignore=ignore)

    def drawn_as(self, names: Collection[str], labels: LabelSet) -> tuple[DrawnAs, ...]:
        """What the structures of a mask of these ``names`` become, in the order in which they are painted."""
        found = []
        for each in meanings_of(labels):
            for name in names:
                if self.label_of.get(plain(name)) == each.name:
                    found.append(DrawnAs(name=name, painted=each.painted, values=each.values))
        return tuple(found)

    def _require_among(self, names: Sequence[str], described: LabelSet) -> None:
        known = [each.name for each in meanings_of(described)]
        for row in self.rows:
            if row.label in names and row.label not in known:
                near = did_you_mean(row.label, known)
                what = (
                    f"line {row.line} gives {row.name} the label {row.label!r}, which dataset.json does not list{near}"
                )
                raise UserError(f"{self.path}: {what}; correct it, or add it to 'labels'")


def meanings_of(labels: LabelSet) -> tuple[DrawnAs, ...]:
    """What a mask of such labels holds by the name of each region and label, regions first, as they are painted."""
    regions = tuple(DrawnAs(name=each.name, painted=each.painted, values=each.values) for each in labels.regions)
    names = {each.name for each in regions}
    plain_labels = tuple(
        DrawnAs(name=name, painted=value, values=(value,))
        for name, value in zip(labels.names[1:], labels.values[1:])
        if name not in names
    )
    ignored = () if labels.ignore is None else (DrawnAs(name=IGNORE, painted=labels.ignore, values=(labels.ignore,)),)
    return (*regions, *plain_labels, *ignored)


# ---- read ----


def read_structure_map(path: Path) -> StructureMap:
    """Reads a table of names and labels; UserError naming file and line."""
    if not path.is_file():
        raise UserError(f"{path}: no such file; {EXAMPLE}")
    try:
        text = read_text(path)
        check_text(text)
    except OSError as error:
        raise UserError(f"{path}: cannot be read ({error.strerror}); give a table of names and labels") from None
    except ValueError as error:
        raise UserError(f"{path}: is no table ({error}); {EXAMPLE}") from None
    first = text.splitlines()[0] if text.strip() else ""
    delimiter = max(DELIMITERS, key=first.count)
    try:
        reader = csv.reader(io.StringIO(text), delimiter=delimiter)
        lines = [(reader.line_num, [cell.strip() for cell in row]) for row in reader]
    except csv.Error as error:
        raise UserError(f"{path}: is no table ({error}); {EXAMPLE}") from None
    lines = [(number, cells) for number, cells in lines if any(cells)]
    header = [cell.casefold() for cell in lines[0][1]] if lines else []
    name_at = next((header.index(name) for name in NAME_COLUMNS if name in header), None)
    if name_at is None or "label" not in header:
        raise UserError(f"{path}: its first line is {first[:80]!r}; {EXAMPLE}")
    value_at = header.index("value") if "value" in header else None
    rows = [_row(path, number, cells, name_at, header.index("label"), value_at) for number, cells in lines[1:]]
    _require_one_label_each(path, rows)
    others = [row for row in rows if row.name == OTHERS]
    if any(row.label for row in others):
        raise UserError(f"{path}: gives all other structures (*) the label {others[0].label}; leave that label empty")
    if not rows:
        raise UserError(f"{path}: has a header but no line below it; {EXAMPLE}")
    named = tuple(row for row in rows if row.name != OTHERS)
    return StructureMap(path=path, rows=named, leaves_out_others=bool(others))


def _row(
    path: Path, number: int, cells: Sequence[str], name_at: int, label_at: int, value_at: int | None
) -> MappedName:
    def cell(index: int | None) -> str:
        return cells[index] if index is not None and index < len(cells) else ""

    name = cell(name_at)
    label = cell(label_at)
    value = cell(value_at)
    if not name:
        raise UserError(f"{path}: line {number} names no structure; fill it in, or delete the line")
    if len(label) > LONGEST_LABEL:
        raise UserError(f"{path}: line {number} has a label of {len(label)} letters; shorten it to {LONGEST_LABEL}")
    if value and not (re.fullmatch(r"\d{1,5}", value) and 0 < int(value) < 1 << 16):
        raise UserError(f"{path}: line {number} has the value {value[:20]!r}; write a whole number from 1 to 65535")
    return MappedName(line=number, name=name, label=label, value=int(value) if value else None)


def _require_one_label_each(path: Path, rows: Iterable[MappedName]) -> None:
    first: dict[str, MappedName] = {}
    for row in rows:
        other = first.setdefault(plain(row.name), row)
        if other.label != row.label:
            labels = listed([each.label or "no label" for each in (other, row)])
            what = f"lines {other.line} and {row.line} give {row.name} different labels ({labels})"
            raise UserError(f"{path}: {what}; keep one of them")


# ---- propose ----


def proposed(names: Mapping[str, int], path: Path, known: StructureMap | None = None) -> tuple[StructureMap, list[str]]:
    """A table for these names, each with its number of cases: the lines of a ``known`` one, and labels by the table of
    structures where a name means one of them alone; and a note for each line.
    """
    rows = list(known.rows) if known is not None else []
    notes = [""] * len(rows)
    there = {plain(row.name) for row in rows}
    values: dict[str, int] = {}
    for row in rows:
        if row.label and row.value is not None:
            values[row.label] = row.value
    for name in sorted(names, key=lambda each: (-names[each], each)):
        if plain(name) in there and known is not None:
            continue
        label, note = _proposed_label(name)
        if label:
            values.setdefault(label, max(values.values(), default=0) + 1)
        rows.append(MappedName(line=len(rows) + 2, name=name, label=label, value=values.get(label)))
        notes.append(note)
    return StructureMap(path=path, rows=tuple(rows)), notes


def _proposed_label(name: str) -> tuple[str, str]:
    found = readings(name)
    if len(found) == 1:
        return _label_of(found[0]), ""
    if found:
        return "", f"may be {listed(_label_of(each) for each in found)}: give it the label that is meant"
    return "", UNKNOWN


def _label_of(reading: Reading) -> str:
    """'kidney_left', or 'liver' of what has no sides."""
    structure = anatomy()[reading.id]
    return f"{structure.id}_{reading.side}" if structure.has_sides and reading.side else structure.id


def write_proposal(path: Path, names: Mapping[str, int], known: StructureMap | None) -> None:
    """Writes the proposal as a table."""
    table, notes = proposed(names, path, known)
    number = {plain(name): cases for name, cases in names.items()}
    text = io.StringIO()
    writer = csv.writer(text, lineterminator="\n")
    writer.writerow(COLUMNS)
    for row, note in zip(table.rows, notes):
        value = "" if row.value is None else row.value
        writer.writerow([row.name, row.label, value, number.get(plain(row.name), 0), note])
    if known is not None and known.leaves_out_others:
        writer.writerow([OTHERS, "", "", "", "whatever is not listed"])
    write_text(path, text.getvalue())


def names_in_words(names: Sequence[str], cases_of: Mapping[str, int], shown: int = 8) -> str:
    """'BODY (in 3 cases), PTV (in 1 case) and 4 more'."""
    said = ", ".join(f"{name} (in {count(cases_of[name], 'case')})" for name in names[:shown])
    return said if len(names) <= shown else f"{said} and {len(names) - shown} more"
