"""What was said of each training before its first step, beside what it reached: was it of use for what was named?

A statement names structures that so many steps are enough for (``usefulness`` in segfw/model/short_runs.py). It is
right where those it names have a mean Dice of at least USEFUL, and the others, if there are any, less.
"""

from __future__ import annotations

import re
from collections.abc import Sequence
from dataclasses import dataclass

from bench.accuracy.intervals import estimate, patients_in, values_of
from bench.accuracy.results import Result, structures_of
from bench.accuracy.tables import markdown
from segfw.base.records import UserError
from segfw.base.words import count

USEFUL = 0.5  # mean Dice of structures that somebody may correct by hand rather than draw anew
FOR_ALL = re.compile("enough for large and small structures|enough for large structures, such as (all|the one) here")
FOR_NONE = re.compile(r"too few for a usable model|too few for structures under [0-9.]+% of a case, which all here are")
NOT_FOR = re.compile(r"enough for large structures, not for small ones \((?P<names>[^()]*)\)")


@dataclass(frozen=True, kw_only=True)
class Statement:
    """What was said of one training, and the mean Dice of the structures it was enough for, and of the others."""

    result: Result
    words: str
    named_dice: float | None  # None where there are none
    other_dice: float | None
    is_for_all: bool

    @property
    def is_right(self) -> bool:
        """True if those that were named, and no others, are of use."""
        is_named_right = self.named_dice is None or self.named_dice >= USEFUL
        return is_named_right and (self.other_dice is None or self.other_dice < USEFUL)


def statement_of(result: Result) -> Statement | None:
    """None where nothing was said, by versions that could not."""
    words = str(result.said.get("expected") or "").rpartition(": ")[2]
    if not words:
        return None
    structures = structures_of([result])
    named = enough_for(words, structures, result.text)
    return Statement(
        result=result,
        words=words,
        named_dice=_mean(result, named),
        other_dice=_mean(result, [name for name in structures if name not in named]),
        is_for_all=len(named) == len(structures),
    )


def enough_for(words: str, structures: Sequence[str], source: str) -> list[str]:
    """Structures that the steps are said to be enough for; UserError, naming ``source``, where that is unclear."""
    if FOR_ALL.fullmatch(words):
        return list(structures)
    if FOR_NONE.fullmatch(words):
        return []
    found = NOT_FOR.fullmatch(words)
    names = re.split(", ", found["names"]) if found else []
    if not names or not set(names) <= set(structures):
        raise UserError(f"{source}: was said to be {words!r}, which names no structures that can be counted")
    return [name for name in structures if name not in names]


def table(results: Sequence[Result]) -> str:
    """A line for each data set, length, arm and statement, and how many were right."""
    statements = [found for found in map(statement_of, results) if found is not None]
    if not statements:
        raise UserError("none of these results says what was expected of it")
    groups: dict[tuple, list[Statement]] = {}
    for each in statements:
        groups.setdefault((*each.result.group, each.result.arm.name, each.words), []).append(each)
    head = ["data", "core-minutes", "arm", "steps", "said before the first step", "runs"]
    rows = [[*head, "Dice of what it was enough for", "of the others", "right"]]
    for (data_set, minutes, _, arm, words), found in groups.items():
        steps = [each.result.steps for each in found]
        named = [each.named_dice for each in found if each.named_dice is not None]
        others = [each.other_dice for each in found if each.other_dice is not None]
        right = sum(each.is_right for each in found)
        reach = f"{min(steps)}" if min(steps) == max(steps) else f"{min(steps)} to {max(steps)}"
        cells = [data_set, f"{minutes:g}", arm, reach, words, str(len(found))]
        rows.append([*cells, _range(named), _range(others), f"{right} of {len(found)}"])
    right = sum(each.is_right for each in statements)
    wrong_for_all = sum(each.is_for_all and not each.is_right for each in statements)
    summary = (
        f"Right in {right} of {count(len(statements), 'run')} ({right / len(statements):.0%}); said to be enough for "
        f"all structures, with a mean Dice under {USEFUL}: {wrong_for_all}."
    )
    return "\n\n".join([markdown(rows), summary])


def _mean(result: Result, structures: Sequence[str]) -> float | None:
    if not structures:
        return None
    return estimate([values_of(result, structures, "dice")], patients_in([result])).mean


def _range(values: Sequence[float]) -> str:
    if not values:
        return "-"
    low = f"{min(values):.3f}"
    return low if len(values) == 1 else f"{low} to {max(values):.3f}"
