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
from collections.abc import Collection, Mapping
from dataclasses import replace
from pathlib import Path

from segfw.base.files import write_text
from segfw.base.records import UserError
from segfw.base.words import listed
from segfw.base.written_by_people import check_text, read_json, read_text
from segfw.dataset.anatomy import SCHEME
from segfw.dataset.cases import FoundDataset
from segfw.dataset.labels import Code, LabelSet
from segfw.dataset.look_up import KnownStructure
from segfw.dataset.structure_names import plain

NAMES_FILE = "names.json"
CODES_FILE = "codes.csv"
COLUMNS = ("name", "scheme", "code", "meaning", "side")
SIDE_WORDS = ("", "left", "right")
EXAMPLE = '{"GTVp": ["primary tumour"]}'


def with_own_names(found: FoundDataset) -> FoundDataset:
    """The data set with what its files say of its labels; as it is where its labels are not known yet."""
    if found.labels is None:
        return found
    return replace(found, labels=own_names(found.labels, found.root))


def own_names(labels: LabelSet, folder: Path) -> LabelSet:
    """The labels with what ``names.json`` and ``codes.csv`` in a folder say of them.

    Raises UserError if a file cannot be read, is about a label that there is not, or calls two labels alike.
    """
    update: dict[str, object] = {}
    names = folder / NAMES_FILE
    codes = folder / CODES_FILE
    if names.is_file():
        update["also_called"] = _names_in(names, labels)
    if codes.is_file():
        update["codes"] = _codes_in(codes, labels)
    return labels.model_copy(update=update) if update else labels


def _names_in(path: Path, labels: LabelSet) -> dict[str, tuple[str, ...]]:
    written = read_json(path)
    if not isinstance(written, dict):
        raise UserError(f"{path}: must be a JSON object of names by label; write for example {EXAMPLE}")
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
    text = read_text(path)
    try:
        check_text(text)
    except ValueError as error:
        raise UserError(f"{path}: is not a table ({error}); write the header {','.join(COLUMNS)}") from None
    first_line = text.splitlines()[0] if text else ""
    delimiter = next((mark for mark in ("\t", ";") if mark in first_line), ",")
    try:
        rows = list(csv.DictReader(io.StringIO(text), delimiter=delimiter))
    except csv.Error as error:
        raise UserError(f"{path}: is not a table ({error}); write the header {','.join(COLUMNS)}") from None
    lacking = [column for column in ("name", "code") if column not in (rows[0] if rows else {})]
    if lacking:
        raise UserError(f"{path}: has no column {lacking[0]!r}; write the header {','.join(COLUMNS)}")
    found: dict[str, Code] = {}
    for line, row in enumerate(rows, start=2):
        name = (row["name"] or "").strip()
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


def _require_known(path: Path, names: Collection[str], labels: LabelSet) -> None:
    known = (*labels.structures, *labels.foreground)
    unknown = next((name for name in names if name not in known), None)
    if unknown is not None:
        raise UserError(f"{path}: {unknown!r} is no label; the labels are {listed(dict.fromkeys(known), 'and')}")


def write_codes(path: Path, known: Mapping[str, KnownStructure]) -> None:
    """Writes what is known of each structure as ``codes.csv``; a structure without a code has an empty one."""
    lines = io.StringIO()
    writer = csv.writer(lines, lineterminator="\n")
    writer.writerow(COLUMNS)
    for name, each in known.items():
        writer.writerow((name, each.scheme, each.code, each.code_meaning, each.side))
    write_text(path, lines.getvalue())
