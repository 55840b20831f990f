"""The table of structures: what each is called in English and Chinese, its code, its sides, and what it is part of.

``anatomy.csv`` beside this file holds a row a structure. Columns:

- ``id``; ``english`` and ``chinese``: the names that are shown;
- ``english_synonyms``, ``chinese_synonyms``: others, between semicolons; 'left:la' is a name of the left one alone;
- ``sct``, ``sct_meaning``: the SNOMED CT code as DICOM uses it, and what DICOM calls it. Only codes that stand in a
  context group of DICOM PS3.16 are here, which may be used without a licence of SNOMED's. They were found in the
  mapping that TotalSegmentator publishes, or by their meaning, and each was looked up in the context groups as the
  public value sets of ``dicom-terminology-in-fhir`` list them. What is not there is empty and never guessed, also where
  that mapping has a code (ribs, gluteal muscles), or one that is of the right side alone (subclavian artery). Sides are
  said by modifiers (``SIDE_CODES``), but where both have codes of their own ('left:82471001;right:73829009');
- ``paired``: ``yes`` (left and right, mirror images), ``unlike`` (left and right that do not look alike, as the
  chambers of the heart), ``no``; ``laterality``: the side of what exists on one side alone;
- ``part_of``: the group that it is one of, however many of it are there (a rib, a vertebra); ``makes_up``: the whole
  that all rows with this word make up together (lobes, a lung);
- ``region``: where in the body, by which a word of two meanings is told (a ventricle among parts of the brain);
- ``totalsegmentator``: what TotalSegmentator calls it, with ``{side}`` for left or right.
"""

from __future__ import annotations

import csv
from collections.abc import Mapping
from dataclasses import dataclass
from functools import cache
from pathlib import Path
from typing import Literal

TABLE = Path(__file__).with_name("anatomy.csv")
SCHEME = "SCT"  # SNOMED CT in DICOM
SIDE_CODES = {"left": ("7771000", "Left"), "right": ("24028007", "Right")}

Side = Literal["", "left", "right", "both"]
Paired = Literal["yes", "no", "unlike"]


@dataclass(frozen=True, kw_only=True)
class Structure:
    """A row of the table. ``codes`` are (code, meaning) by side, '' for both; synonyms come with the side they say."""

    id: str
    english: str
    chinese: str
    english_synonyms: tuple[tuple[Side, str], ...]
    chinese_synonyms: tuple[tuple[Side, str], ...]
    codes: Mapping[Side, tuple[str, str]]
    paired: Paired
    laterality: Side
    part_of: str
    makes_up: str
    region: str
    totalsegmentator: str

    @property
    def has_sides(self) -> bool:
        """True if there is a left and a right one."""
        return self.paired != "no"

    def name_of(self, side: Side, *, chinese: bool = False) -> str:
        """'left kidney', '左肾'; without a side the name as it is."""
        if not self.has_sides or side not in SIDE_CODES:
            return self.chinese if chinese else self.english
        if chinese:
            return ("左" if side == "left" else "右") + self.chinese
        return f"{side} {self.english}"

    def code_of(self, side: Side) -> tuple[str, str]:
        """(Code, meaning) of the structure, without a modifier for the side; empty texts where none is known."""
        return self.codes.get(side) or self.codes.get("", ("", ""))

    def in_totalsegmentator(self, side: Side) -> str:
        """What TotalSegmentator calls it; '' if it has no name there."""
        if "{side}" not in self.totalsegmentator:
            return self.totalsegmentator
        return self.totalsegmentator.format(side=side) if side in SIDE_CODES else ""


@cache
def anatomy() -> Mapping[str, Structure]:
    """All structures of the table by their id."""
    with TABLE.open(encoding="utf-8", newline="") as stream:
        rows = list(csv.DictReader(stream))
    return {row["id"]: _structure(row) for row in rows}


@cache
def pieces_of(whole: str) -> tuple[Structure, ...]:
    """The structures that make up another one together; nothing where none do."""
    return tuple(each for each in anatomy().values() if each.makes_up == whole)


def groups_of(structure_id: str) -> tuple[str, ...]:
    """The structure itself and the groups that it is one of: ('vertebra_L1', 'lumbar_vertebra', 'vertebra')."""
    found = []
    table = anatomy()
    while structure_id:
        found.append(structure_id)
        structure_id = table[structure_id].part_of
    return tuple(found)


def _structure(row: Mapping[str, str]) -> Structure:
    meanings = row["sct_meaning"].split(";")
    codes = {side: (code, meaning) for (side, code), meaning in zip(_sided(row["sct"]), meanings)}
    return Structure(
        id=row["id"],
        english=row["english"],
        chinese=row["chinese"],
        english_synonyms=_sided(row["english_synonyms"]),
        chinese_synonyms=_sided(row["chinese_synonyms"]),
        codes=codes,
        paired=_PAIRED[row["paired"]],
        laterality=_SIDES[row["laterality"]],
        part_of=row["part_of"],
        makes_up=row["makes_up"],
        region=row["region"],
        totalsegmentator=row["totalsegmentator"],
    )


_SIDES: Mapping[str, Side] = {"": "", "left": "left", "right": "right"}
_PAIRED: Mapping[str, Paired] = {"yes": "yes", "no": "no", "unlike": "unlike"}


def _sided(cell: str) -> tuple[tuple[Side, str], ...]:
    """'atrium;left:la' -> (('', 'atrium'), ('left', 'la'))."""
    found = []
    for part in filter(None, cell.split(";")):
        side, _, text = part.rpartition(":")
        found.append((_SIDES[side], text))
    return tuple(found)
