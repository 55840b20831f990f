"""What a data set says of its own labels besides: other names in ``names.json``, codes in ``codes.csv``.

Both lie beside dataset.json, and go with the labels into plans, model files and the folders of masks::

    names.json    {"GTVp": ["原发灶", "primary tumour"]}
    codes.csv     name,scheme,code,meaning,side
                  kidney_left,SCT,64033007,Kidney,left

``segfw find RAW --codes codes.csv`` writes the second one, with what is known of each label, to be corrected.
"""

from __future__ import annotations

import csv
import io
from collections.abc import Collection, Iterable, Mapping
from dataclasses import replace
from pathlib import Path
from typing import NamedTuple

from segfw.base.files import write_text
from segfw.base.records import UserError
from segfw.base.words import listed
from segfw.base.written_by_people import Unreadable, check_text, read_json, read_text
from segfw.dataset.anatomy import SCHEME
from segfw.dataset.cases import FoundDataset
from segfw.dataset.labels import Code, LabelSet
from segfw.dataset.look_up import KnownStructure
from segfw.dataset.structure_names import plain

NAMES_FILE = "names.json"
CODES_FILE = "codes.csv"
COLUMNS = ("name", "scheme", "code", "meaning", "side")
DELIMITERS = ("\t", ";", ",")
SIDE_WORDS = ("", "left", "right")
EXAMPLE = '{"GTVp": ["primary tumour"]}'
WHAT_IT_HOLDS = {
    NAMES_FILE: f"write for example {EXAMPLE}",
    CODES_FILE: f"write the header {','.join(COLUMNS)} and a line a label",
}


class _NotOurs(Exception):
    """A file tells nothing of the labels; the text says what it holds."""


class OwnNames(NamedTuple):
    """Labels with what files say of them, and which files were left alone, in words."""

    labels: LabelSet
    notes: tuple[str, ...] = ()


def with_own_names(found: FoundDataset) -> FoundDataset:
    """The data set with what its files say of its labels; as it is where its labels are not known yet."""
    if found.labels is None:
        return found
    labels, notes = own_names(found.labels, found.root)
    return replace(found, labels=labels, notes=(*found.notes, *notes))


def own_names(labels: LabelSet, folder: Path) -> OwnNames:
    """The labels with what ``names.json`` and ``codes.csv`` in a folder say of them.

    Others keep files of these names with other contents: one that tells of none of the labels is left alone, with a
    note. Raises UserError if one that does cannot be understood, is about a label that there is not too, or calls two
    labels alike.
    """
    update: dict[str, object] = {}
    notes: list[str] = []
    readers = {NAMES_FILE: ("also_called", _names_in), CODES_FILE: ("codes", _codes_in)}
    for name, (field, read) in readers.items():
        path = folder / name
        if not path.is_file():
            continue
        try:
            update[field] = read(path, labels)
        except _NotOurs as other:
            notes.append(f"{name} {other}, so that it was left alone; {WHAT_IT_HOLDS[name]} if it is meant for labels")
    return OwnNames(labels.model_copy(update=update) if update else labels, tuple(notes))


def _names_in(path: Path, labels: LabelSet) -> dict[str, tuple[str, ...]]:
    try:
        written = read_json(path)
    except Unreadable as error:
        if _holds(path, [f'"{name}"' for name in _known(labels)]):
            raise
        raise _NotOurs(f"is not readable JSON ({error.reason})") from None
    if not isinstance(written, dict):
        raise _NotOurs("is no JSON object of names by label")
    if written and not _is_any_known(written, labels):
        raise _NotOurs("names none of the labels")
    _require_known(path, written, labels)
    found: dict[str, tuple[str, ...]] = {}
    label_of = {plain(name): name for name in labels.structures}
    for name, texts in written.items():
        given = [texts] if isinstance(texts, str) else texts
        if not isinstance(given, list) or not all(isinstance(text, str) and plain(text) for text in given):
            raise UserError(f"{path}: {name!r} has {texts!r}; give a list of names, for example {EXAMPLE}")
        for text in given:
            other = label_of.setdefault(plain(text), name)
            if other != name:
                raise UserError(f"{path}: {name!r} and {other!r} are both called {text!r}; leave it to one of them")
        found[name] = tuple(given)
    return found


def _codes_in(path: Path, labels: LabelSet) -> dict[str, Code]:
    header, rows = _table_in(path, labels)
    names = [(row.get("name") or "").strip() for row in rows]
    if not set(COLUMNS[:3]) <= set(header) and not _is_any_known(names, labels):
        raise _NotOurs("names none of the labels")
    if "code" not in header:
        raise UserError(f"{path}: has no column 'code'; write the header {','.join(COLUMNS)}")
    found: dict[str, Code] = {}
    for line, (name, row) in enumerate(zip(names, rows), start=2):
        code = (row["code"] or "").strip()
        side = (row.get("side") or "").strip()
        if side not in SIDE_WORDS:
            raise UserError(f"{path}, line {line}: the side is {side!r}; write left, right or nothing")
        if name in found:
            raise UserError(f"{path}, line {line}: {name!r} has a code already; keep one of the lines")
        if code:
            scheme = (row.get("scheme") or "").strip() or SCHEME
            meaning = (row.get("meaning") or "").strip() or name
            found[name] = Code(scheme=scheme, code=code, meaning=meaning, side=side)
    _require_known(path, found, labels)
    return found


def _table_in(path: Path, labels: LabelSet) -> tuple[list[str], list[dict[str, str]]]:
    """Header and rows of a table of any delimiter; UserError if it is none but has a line of a label."""
    try:
        text = read_text(path)
        check_text(text)
        first_line = text.splitlines()[0] if text else ""
        delimiter = next((mark for mark in DELIMITERS if mark in first_line), ",")
        reader = csv.DictReader(io.StringIO(text), delimiter=delimiter)
        rows = list(reader)
    except (Unreadable, ValueError, csv.Error) as error:
        reason = error.reason if isinstance(error, Unreadable) else str(error)
        if _holds(path, [f"\n{name}{mark}" for name in _known(labels) for mark in DELIMITERS]):
            raise UserError(f"{path}: is not a table ({reason}); write the header {','.join(COLUMNS)}") from None
        raise _NotOurs(f"is not a table ({reason})") from None
    return list(reader.fieldnames or ()), rows


def _holds(path: Path, texts: Iterable[str]) -> bool:
    """True if any of the texts stands in a file that cannot be read as what it should be."""
    content = path.read_bytes()
    return any(text.encode() in content for text in texts)


def _is_any_known(names: Iterable[str], labels: LabelSet) -> bool:
    known = {plain(name) for name in _known(labels)}
    return any(plain(name) in known for name in names)


def _known(labels: LabelSet) -> tuple[str, ...]:
    return tuple(dict.fromkeys((*labels.structures, *labels.foreground)))


def _require_known(path: Path, names: Collection[str], labels: LabelSet) -> None:
    known = _known(labels)
    unknown = next((name for name in names if name not in known), None)
    if unknown is not None:
        raise UserError(f"{path}: {unknown!r} is no label; the labels are {listed(known, 'and')}")


def write_codes(path: Path, known: Mapping[str, KnownStructure]) -> None:
    """Writes what is known of each structure as ``codes.csv``; a structure without a code has an empty one."""
    lines = io.StringIO()
    writer = csv.writer(lines, lineterminator="\n")
    writer.writerow(COLUMNS)
    for name, each in known.items():
        writer.writerow((name, each.scheme, each.code, each.code_meaning, each.side))
    write_text(path, lines.getvalue())
