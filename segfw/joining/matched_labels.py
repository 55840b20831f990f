"""Which labels of several data sets are one structure: by what they are called, and by a table where that is in doubt.

Two labels are one without a question if they are called alike but for case and signs, or if the table of structures
knows both and they are the same structure of the same side ('kidney_left', 'left kidney', '左肾'). In doubt are labels
that are nearly called alike, or that are one structure with and without a side: whether these are one is said in a
table, for a wrong pair teaches a wrong structure.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from difflib import SequenceMatcher
from pathlib import Path

from segfw.base.records import UserError
from segfw.base.words import listed
from segfw.dataset.case_tables import cell_of, column_of, table_rows
from segfw.dataset.labels import LabelSet
from segfw.dataset.look_up import KnownStructure, known_as
from segfw.dataset.structure_names import plain

ALIKE = 0.75  # share of letters: 'oesophagus' and 'esophagus' are above, 'liver' and 'larynx' below
COLUMNS = "source, label and joined"
SHOWN = 8  # pairs that a refusal lists

Given = Mapping[tuple[str, str], str]  # (source, label) -> what it is called in the joined data set


@dataclass(frozen=True, kw_only=True)
class _Joined:
    """A label of the joined data set: its name, and all that labels of sources were called and known as."""

    name: str
    called: tuple[str, ...]
    known: tuple[KnownStructure, ...]


def match_labels(
    labels_of: Mapping[str, LabelSet], given: Given, table: Path | str = "--labels"
) -> dict[tuple[str, str], str]:
    """The joined name of every label of every source, in the order in which they are met.

    ``given`` names, which errors say are of the ``table``, go before all else. Raises UserError that lists what is in
    doubt, as lines of such a table.
    """
    _require_known(labels_of, given, table)
    joined: list[_Joined] = []
    names: dict[tuple[str, str], str] = {}
    doubts: list[tuple[str, str, str]] = []
    for source, labels in labels_of.items():
        known = known_as(labels)
        taken: dict[str, str] = {}
        for label in labels.names[1:]:
            name = given.get((source, label))
            if name is None:
                same = [each.name for each in joined if _is_same(label, known[label], each)]
                near = [each.name for each in joined if each.name not in same and _is_near(label, known[label], each)]
                if len(same) > 1 or (not same and near):
                    doubts.append((source, label, (same or near)[0]))
                    continue
                name = same[0] if same else label
            if name in taken:
                raise UserError(
                    f"{source}: its labels {taken[name]!r} and {label!r} would both be {name!r}; say with --labels "
                    "what each is called, or give them one value first"
                )
            taken[name] = label
            names[source, label] = name
            joined = _with(joined, name, label, known[label])
    if doubts:
        raise UserError(_question(doubts))
    return names


def _with(joined: Sequence[_Joined], name: str, label: str, known: KnownStructure) -> list[_Joined]:
    found = [each for each in joined if each.name == name]
    before = found[0] if found else _Joined(name=name, called=(name,), known=())
    after = _Joined(name=name, called=(*before.called, label), known=(*before.known, known))
    return [after if each is before else each for each in joined] if found else [*joined, after]


def _is_same(label: str, known: KnownStructure, other: _Joined) -> bool:
    if plain(label) in map(plain, other.called):
        return True
    return bool(known.structure) and any(
        each.structure == known.structure and each.side == known.side for each in other.known
    )


def _is_near(label: str, known: KnownStructure, other: _Joined) -> bool:
    """Whether a label may be the other one and nothing says so."""
    if known.structure and any(each.structure == known.structure for each in other.known):
        return "" in (known.side, *(each.side for each in other.known))  # left and right are surely two
    if known.structure and all(each.structure for each in other.known):
        return False  # the table knows both, as two structures
    text = plain(label)
    return any(SequenceMatcher(None, text, plain(name)).ratio() >= ALIKE for name in other.called)


def _question(doubts: Sequence[tuple[str, str, str]]) -> str:
    said = [f"{label!r} of {source} may be {other!r}" for source, label, other in doubts[:SHOWN]]
    more = [f"{len(doubts) - SHOWN} more"] if len(doubts) > SHOWN else []
    lines = [f"{source},{label},{other}" for source, label, other in doubts]
    return (
        f"{listed([*said, *more], 'and')}; give --labels a file with the line source,label,joined and for each of them "
        f"one such as {lines[0]!r} (its own name where it is another structure)"
    )


def read_given(path: Path | None) -> Given:
    """A table with the columns source, label and joined; UserError names the line that is wrong."""
    if path is None:
        return {}
    if not path.is_file():
        raise UserError(f"{path}: no such file; give a CSV file with the columns {COLUMNS}")
    header, *rows = table_rows(path, COLUMNS)
    columns = [column_of(path, header, frozenset((name,)), name) for name in ("source", "label", "joined")]
    given: dict[tuple[str, str], str] = {}
    for number, row in rows:
        source, label, name = (cell_of(row, column) for column in columns)
        if not source or not label or not name:
            raise UserError(f"{path}: line {number} has an empty cell; fill in {COLUMNS}")
        if given.setdefault((source, label), name) != name:
            raise UserError(f"{path}: line {number} names {label!r} of {source} again; keep one line for each label")
    return given


def _require_known(labels_of: Mapping[str, LabelSet], given: Given, table: Path | str) -> None:
    for source, label in given:
        if source not in labels_of:
            raise UserError(f"{table}: names the source {source!r}, and there is {listed(list(labels_of), 'and')}")
        if label not in labels_of[source].names[1:]:
            raise UserError(
                f"{table}: names {label!r} of {source}, which has {listed(labels_of[source].names[1:], 'and')}"
            )
