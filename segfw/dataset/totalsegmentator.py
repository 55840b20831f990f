"""What TotalSegmentator calls structures, and the numbers that it writes into masks, by task.

``totalsegmentator.csv`` beside this file lists the classes of its tasks ``total`` (CT, version 2, 117 of them),
``total_v1`` (CT, version 1, 104) and ``total_mr`` (50). Which label of a model is which of these is told by the table
of structures (``look_up.py``), so that neither need be called alike.
"""

from __future__ import annotations

import csv
from collections.abc import Mapping, Sequence
from functools import cache
from itertools import combinations
from pathlib import Path
from typing import Literal

from segfw.base.records import UserError
from segfw.base.words import listed
from segfw.dataset.labels import LabelMap, LabelSet
from segfw.dataset.look_up import LookUp, known_as

TABLE = Path(__file__).with_name("totalsegmentator.csv")
Task = Literal["total", "total_v1", "total_mr"]
# What can be typed, with the task.
TASKS: Mapping[str, Task] = {
    "totalsegmentator": "total",
    "totalsegmentator-v1": "total_v1",
    "totalsegmentator-mr": "total_mr",
}


@cache
def classes_of(names: str) -> Mapping[str, int]:
    """{class: number} of a task, by what is typed for it: 'totalsegmentator'."""
    with TABLE.open(encoding="utf-8", newline="") as stream:
        rows = list(csv.DictReader(stream))
    return {row["name"]: int(row["value"]) for row in rows if row["task"] == TASKS[names]}


@cache
def label_set_of(names: str) -> LabelSet:
    """The labels of masks that TotalSegmentator writes with --ml."""
    classes = classes_of(names)
    return LabelSet(names=("background", *classes), values=(0, *classes.values()))


def class_of_structures(labels: LabelSet, names: str) -> dict[str, str]:
    """{structure: TotalSegmentator's class} of those structures that are one of its classes."""
    classes = classes_of(names)
    return {
        name: known.totalsegmentator for name, known in known_as(labels).items() if known.totalsegmentator in classes
    }


def values_of_other(labels: LabelSet, names: str, source: Path | str) -> LabelMap:
    """What each number in TotalSegmentator's masks is in ours; 0, the background, for classes that we do not have.

    Several of its classes can be one structure of ours, such as the lobes a lung; none of them is cut in two. A class
    that several of ours hold is of the one that holds the least, such as 'left kidney' beside 'kidneys'. Raises
    UserError naming ``source`` where none of them lies within the others: two labels of one class, or such as overlap.
    """
    background = labels.values[0]
    meaning = dict.fromkeys(classes_of(names).values(), background)
    theirs = LookUp(label_set_of(names), names)
    known = known_as(labels)
    held = {name: frozenset(_counterparts(theirs, name, each.english)) for name, each in known.items()}
    for one, other in combinations(known, 2):
        shared = held[one] & held[other]
        if shared and (held[one] == held[other] or shared not in (held[one], held[other])):
            raise _both_are(source, one, other, sorted(shared), names)
    # The least last: what lies within another one is taken out of it, in whatever order the labels stand.
    for name in sorted(known, key=lambda name: -len(held[name])):
        for found in held[name]:
            meaning[classes_of(names)[found]] = known[name].painted
    meaning[0] = background
    return tuple(sorted(meaning.items()))


def _both_are(source: Path | str, one: str, other: str, classes: Sequence[str], names: str) -> UserError:
    return UserError(
        f"{source}: {one!r} and {other!r} both are {listed(classes, 'and')} of {names}, which one number cannot mean; "
        "leave out --names, or rename the one that is something else"
    )


def _counterparts(theirs: LookUp, name: str, english: str) -> Sequence[str]:
    for text in dict.fromkeys((english, name)):
        try:
            return theirs.find(text).names if text else ()
        except UserError:
            continue
    return ()


def in_their_numbers(labels: LabelSet, structures: Sequence[str], names: str, source: Path | str) -> LabelSet:
    """Labels with TotalSegmentator's names and numbers in the order of ours, whose classes are the same.

    Those that are none of its classes keep their name and get a value that no class of its has. Raises UserError naming
    ``source`` if one of ``structures`` is such, or if the labels are regions, or if another label is of the same class.
    """
    if labels.regions:
        raise UserError(f"{source}: finds regions that overlap, which {names} has no numbers for; leave out --names")
    class_of = class_of_structures(labels, names)
    lacking = [name for name in structures if name not in class_of]
    if lacking:
        are = "is no class" if len(lacking) == 1 else "are no classes"
        remedy = "choose others with --only, or leave out --names"
        raise UserError(f"{source}: {listed(lacking, 'and')} {are} of {names}; {remedy}")
    unwanted: set[str] = set()
    for one, other in combinations(class_of, 2):
        if class_of[one] == class_of[other]:
            if one in structures or other in structures:
                raise _both_are(source, one, other, [class_of[one]], names)
            unwanted |= {one, other}
    classes = classes_of(names)
    free = max(classes.values())
    new_names = []
    new_values = []
    for name in labels.names:
        their_name = None if name in unwanted else class_of.get(name)
        if their_name is None and name != labels.names[0]:
            free += 1
        new_names.append(their_name or name)
        new_values.append(classes[their_name] if their_name else 0 if name == labels.names[0] else free)
    return LabelSet(names=tuple(new_names), values=tuple(new_values))
