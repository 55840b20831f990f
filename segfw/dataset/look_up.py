"""Structures of a model or of masks by name, in English or Chinese: the labels that are meant, or a refusal.

A look-up of labels, and no understanding of text. The answer to a name is, in this order:

1. the label or region that is called so, or that the data set calls so besides (``names.json``);
2. the labels that the table of structures knows under this name (``structure_names.py`` reads it): one, or both sides
   of a pair, or all of a group;
3. the labels that make up the structure together, such as the lobes of a lung, if all of them are there.

What is none of these is refused, with the names that are nearest to it: a wrong structure is worse than none. Nearness
never decides an answer.
"""

from __future__ import annotations

import re
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from difflib import SequenceMatcher
from functools import cached_property
from itertools import chain
from pathlib import Path

from segfw.base.records import Record, UserError
from segfw.base.words import count, listed
from segfw.dataset.anatomy import SCHEME, SIDE_CODES, Side, Structure, anatomy, groups_of, pieces_of
from segfw.dataset.chinese_text import is_chinese, simplified
from segfw.dataset.labels import LabelSet
from segfw.dataset.structure_names import Reading, plain, readings

NEAREST = 3  # names that a refusal shows
MOST_LISTED = 6  # names that a note lists
BETWEEN_NAMES = re.compile(r"[,，、;；]")
SIDES: tuple[Side, Side] = ("left", "right")


class NotFound(UserError):
    """A name that is no structure of a model, or not one alone; ``nearest`` are the names most like it."""

    def __init__(self, source: Path | str, asked: str, reason: str, nearest: Sequence[str]) -> None:
        near = f"; did you mean {listed(nearest)}?" if nearest else ""
        super().__init__(f"{source}: {asked!r} {reason}{near}")
        self.nearest = tuple(nearest)


class NameInTable(Record):
    """What the table calls a structure, and its code. Texts are empty where nothing is known.

    ``code`` has no side in it, unless the meaning says one; ``side`` is 'left', 'right' or ''.
    """

    english: str = ""
    chinese: str = ""
    side: str = ""
    scheme: str = ""
    code: str = ""
    code_meaning: str = ""


class KnownStructure(NameInTable):
    """What the table, or the data set itself, knows of a label or region."""

    name: str
    values: tuple[int, ...]  # in masks: of a region those that it holds
    painted: int  # what a predicted mask has there
    structure: str = ""  # id in the table
    totalsegmentator: str = ""


@dataclass(frozen=True, kw_only=True)
class FoundStructures:
    """The answer to a name: labels or regions in the order of the model, and what must be said of them."""

    names: tuple[str, ...]
    note: str = ""


class LookUp:
    """The structures of a set of labels, to be asked for by name; ``source`` is named in refusals."""

    def __init__(self, labels: LabelSet, source: Path | str) -> None:
        self._labels = labels
        self._source = source
        self._names = tuple(labels.structures)
        self._readings = _without_other_regions({name: _of_label(name) for name in self._names})

    def find(self, text: str) -> FoundStructures:
        """The structures that a single name means; raises NotFound if it means none, or several that differ."""
        own = self._own(text)
        if own:
            return FoundStructures(names=(own,))
        meant = readings(text)
        found = {reading: self._labels_of(reading) for reading in meant}
        answers = {reading: names for reading, names in found.items() if names}
        if len(set(answers.values())) > 1:
            different = listed(_said_of(reading) for reading in answers)
            raise NotFound(self._source, text, f"may be {different}", self._nearest(text))
        if not answers:
            raise NotFound(self._source, text, self._reason(meant), self._nearest(text))
        reading, names = next(iter(answers.items()))
        return FoundStructures(names=names, note=self._note(reading, names))

    def all_of(self, asked: Sequence[str]) -> FoundStructures:
        """What several texts mean together, in each of which names may stand between commas; raises NotFound."""
        found: list[FoundStructures] = []
        for text in asked:
            parts = (text,) if self._own(text) else BETWEEN_NAMES.split(text)
            found += [self.find(part) for part in parts if part.strip()]
        if not found:
            first = self._names[0]
            raise UserError(f"{self._source}: no structure is asked for; give a name such as {first!r}")
        chosen = set(chain.from_iterable(each.names for each in found))
        notes = dict.fromkeys(each.note for each in found if each.note)
        return FoundStructures(names=tuple(name for name in self._names if name in chosen), note="; ".join(notes))

    @cached_property
    def known(self) -> Mapping[str, KnownStructure]:
        """What is known of each structure, by name."""
        return {name: self._known(name) for name in self._names}

    # ---- names of the model's own ----

    def _own(self, text: str) -> str:
        """The one structure that is called so, but for case and what stands between words; '' if none is."""
        if text in self._names:
            return text
        sought = plain(text)
        alike = [name for name in self._names if sought in map(plain, (name, *self._also_called(name)))]
        return alike[0] if len(alike) == 1 and sought else ""

    def _also_called(self, name: str) -> tuple[str, ...]:
        return self._labels.also_called.get(name, ())

    # ---- by the table ----

    def _labels_of(self, reading: Reading) -> tuple[str, ...]:
        """The labels that a reading means; nothing if there are none, or only some of what it is made of."""
        structure = anatomy()[reading.id]
        if reading.side and not structure.has_sides:
            if reading.side != structure.laterality:
                return ()
            found = self._of_one_side(structure, reading.side)
        elif not structure.has_sides:
            found = self._of_one_side(structure, "")
        elif reading.side in SIDES:
            found = self._of_one_side(structure, reading.side)
        else:
            found = self._of_all_sides(structure, needs_both=reading.side == "both")
        return tuple(name for name in self._names if name in found)

    def _of_all_sides(self, structure: Structure, *, needs_both: bool) -> set[str]:
        together = self._of_one_side(structure, "")
        by_side = [self._of_one_side(structure, side) for side in SIDES]
        # Of one side that is there in pieces nobody knows whether the other one is not, or lacks a piece.
        is_made_up = any(found and not self._named(structure, side) for found, side in zip(by_side, SIDES))
        if (needs_both or is_made_up) and not together and not all(by_side):
            return set()
        return together.union(*by_side)

    def _of_one_side(self, structure: Structure, side: Side) -> set[str]:
        """Labels of a structure, or of what makes it up, on a side ('': that hold no side, or both)."""
        return self._named(structure, side) or self._pieces(structure, side)

    def _named(self, structure: Structure, side: Side) -> set[str]:
        """Labels that are called like a structure, or like members of a group, on a side."""
        return {
            name
            for name, means in self._readings.items()
            if any(structure.id in groups_of(each.id) and each.side == side for each in means)
        }

    def _pieces(self, whole: Structure, side: Side) -> set[str]:
        """The labels that make up a structure together; nothing if any of them is not there."""
        found: set[str] = set()
        for piece in pieces_of(whole.id):
            for piece_side in _sides_of_piece(whole, piece, side):
                part = self._whole_piece(piece, piece_side)
                if not part:
                    return set()
                found |= part
        return found

    def _whole_piece(self, piece: Structure, side: Side) -> set[str]:
        """A piece; of one that is a group, such as the segments of a liver, all members, if each of them is there."""
        members = [each for each in anatomy().values() if each.part_of == piece.id]
        parts = [self._of_one_side(member, side) for member in members]
        if parts and not all(parts):
            return set()
        return self._of_one_side(piece, side)

    # ---- what is said ----

    def _note(self, reading: Reading, names: Sequence[str]) -> str:
        structure = anatomy()[reading.id]
        if len(names) > 1:
            shown = ", ".join(names[:MOST_LISTED]) + ("" if len(names) <= MOST_LISTED else ", ...")
            return f"{_said_of(reading)} is {count(len(names), 'label')} here: {shown}"
        of_label = {each.side for each in self._readings[names[0]] if each.id == reading.id}
        if structure.has_sides and not reading.side and of_label & set(SIDES):
            return f"there is the {listed(sorted(of_label))} one alone: {names[0]}"
        return ""

    def _reason(self, meant: Sequence[Reading]) -> str:
        """Why a name is refused, in words that follow it."""
        if not meant:
            return "is no name of a structure that is known here as a whole"
        reading = meant[0]
        structure = anatomy()[reading.id]
        if reading.side and not structure.has_sides and reading.side != structure.laterality:
            return f"says a side, but {structure.english} has none"
        without_side = self._labels_of(Reading(reading.id, structure.laterality))
        if reading.side and without_side:
            return f"is {_said_of(reading)}, which has no label of its own: there is {', '.join(without_side)}"
        return f"is {listed(_said_of(each) for each in meant)}, which has no label here"

    def _nearest(self, text: str) -> list[str]:
        """The names most like a text, for a refusal to show, in the language of the text."""
        sought = simplified(plain(text))
        likeness = {name: self._likeness(name, sought) for name in self._names}
        ranked = sorted(self._names, key=lambda name: -likeness[name])[:NEAREST]
        if not is_chinese(text):
            return ranked
        return [f"{name} ({self.known[name].chinese})" if self.known[name].chinese else name for name in ranked]

    def _likeness(self, name: str, sought: str) -> float:
        """How like a text the nearest of all names of a structure is, 0 to 1."""
        known = self.known[name]
        texts = (name, *self._also_called(name), known.english, known.chinese)
        return max(SequenceMatcher(None, sought, plain(text)).ratio() for text in texts if text)

    def _known(self, name: str) -> KnownStructure:
        region = next((region for region in self._labels.regions if region.name == name), None)
        if region is not None:
            values = region.values
            painted = region.painted
        else:
            painted = self._labels.values[self._labels.names.index(name)]
            values = (painted,)
        own = self._labels.codes.get(name)
        scheme, code, meaning = (own.scheme, own.code, own.meaning) if own else ("", "", "")
        means = self._readings[name]
        if len(means) != 1:
            side = own.side if own else ""
            return KnownStructure(
                name=name, values=values, painted=painted, side=side, scheme=scheme, code=code, code_meaning=meaning
            )
        structure = anatomy()[means[0].id]
        side = means[0].side
        if own is None:
            code, meaning = structure.code_of(side)
            scheme = SCHEME if code else ""
        return KnownStructure(
            name=name,
            values=values,
            painted=painted,
            structure=structure.id,
            english=structure.name_of(side),
            chinese=structure.name_of(side, chinese=True),
            side=(own.side if own else "") or (side if side in SIDE_CODES else ""),
            scheme=scheme,
            code=code,
            code_meaning=meaning,
            totalsegmentator=structure.in_totalsegmentator(side),
        )


def only_structures(labels: LabelSet, asked: Sequence[str], source: Path | str) -> tuple[str, ...]:
    """Names of the structures that ``--only`` asks for, in the order of the labels; says which ones stand for a group.

    Raises UserError naming ``source`` for a name that is none, with the nearest ones.
    """
    found = LookUp(labels, source).all_of(asked)
    if found.note:
        print(f"only {', '.join(found.names)} ({found.note})")
    return found.names


def known_as(labels: LabelSet) -> Mapping[str, KnownStructure]:
    """What the table, and the data set itself, know of each label or region, by name."""
    return LookUp(labels, "").known


def _of_label(name: str) -> tuple[Reading, ...]:
    """All that a label can mean. One that is called 'both kidneys' holds what one called 'kidney' does."""
    return tuple(
        dict.fromkeys(
            Reading(each.id, "") if each.side == "both" and anatomy()[each.id].has_sides else each
            for each in readings(name)
        )
    )


def _without_other_regions(all_readings: Mapping[str, tuple[Reading, ...]]) -> dict[str, tuple[Reading, ...]]:
    """Of names with several meanings those that lie where most labels of one meaning do; all, if that is undecided."""
    certain = [anatomy()[means[0].id].region for means in all_readings.values() if len(means) == 1]
    chosen = {}
    for name, means in all_readings.items():
        votes = {each: certain.count(anatomy()[each.id].region) for each in means}
        most = max(votes.values(), default=0)
        chosen[name] = tuple(each for each in means if votes[each] == most)
    return chosen


def _sides_of_piece(whole: Structure, piece: Structure, side: Side) -> Iterable[Side]:
    """Which sides of a piece are needed for a side of the whole ('': all of it, of what has no sides)."""
    if whole.has_sides:
        if side not in SIDES:
            return ("",) if piece.has_sides else ()
        if not piece.has_sides:
            return (side,) if piece.laterality == side else ()
        return (side,)
    return SIDES if piece.has_sides else ("",)


def _said_of(reading: Reading) -> str:
    """'left kidney (左肾)', 'kidney on both sides'."""
    structure = anatomy()[reading.id]
    if reading.side == "both":
        return f"{structure.english} on both sides"
    english = structure.name_of(reading.side)
    return f"{english} ({structure.name_of(reading.side, chinese=True)})"
