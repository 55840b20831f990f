"""What was said of each training before its first step, beside what it reached: was it of use for what was named?

A statement names structures that so many steps are enough for (``usefulness`` in segfw/model/short_runs.py). It is
right where those it names have a mean Dice of at least USEFUL, and the others, if there are any, less.

The rule has been changed since the first trainings. What it would say now is counted beside what was said then, by the
steps that were foretold then; such a count says little for a rule that was made on the same trainings. So its limits
are fitted anew without each data set in turn, and what they then say of that one is counted too (``left_out``).
"""

from __future__ import annotations

import math
import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path

from bench.accuracy.intervals import estimate, patients_in, values_of
from bench.accuracy.results import Result, structures_of
from segfw.base.records import UserError
from segfw.evaluation.metrics import Scores
from segfw.model.short_runs import LIMITS, Limits, features_that_tell, usefulness
from segfw.model.source import load_plan
from segfw.model.training_record import read_run_record
from segfw.planning.structure_sizes import kept_structure_shares
from segfw.training.expected_length import NOTHING_KNOWN

USEFUL = 0.5  # mean Dice of structures that somebody may correct by hand rather than draw anew
SCORES = Path("validation") / "scores.json"
FOR_ALL = re.compile("enough for large and small structures|enough for large structures, such as (all|the one) here")
FOR_NONE = re.compile(
    r"too few for a usable model|too few for [0-9,]+ structures?"
    r"|too few (features )?for structures under [0-9.]+% of a case, which all here are"
)
NOT_FOR = re.compile(r"enough for large structures, not for small ones \((?P<names>.*?)( and (?P<more>[0-9]+) more)?\)")
FORETOLD = re.compile(r"(?:^|about )(?P<steps>[0-9,]+) steps")


@dataclass(frozen=True, kw_only=True)
class Told:
    """A training of which something was said: what it is called in tables, and what it reached.

    ``features`` and ``shares`` are what the rule goes by, besides the steps that were foretold; None and nothing where
    they are not known.
    """

    data_set: str
    minutes: str
    arm: str
    steps: int
    expected: str
    dice: Mapping[str, float]  # by structure, means over cases
    name: str
    features: int | None = None
    shares: Mapping[str, float]


@dataclass(frozen=True, kw_only=True)
class Statement:
    """What was said of one training, and the mean Dice of the structures it was enough for, and of the others."""

    told: Told
    words: str
    named_dice: float | None  # None where there are none
    other_dice: float | None
    is_for_all: bool

    @property
    def is_right(self) -> bool:
        """True if those that were named, and no others, are of use."""
        is_named_right = self.named_dice is None or self.named_dice >= USEFUL
        return is_named_right and (self.other_dice is None or self.other_dice < USEFUL)


def told_of(result: Result) -> Told:
    """Of a line of results."""
    structures = structures_of([result])
    found = estimate([values_of(result, structures, "dice")], patients_in([result])).of_structures
    return Told(
        data_set=result.data_set,
        minutes=f"{result.minutes:g}",
        arm=result.arm.name,
        steps=result.steps,
        expected=str(result.said.get("expected") or ""),
        dice={name: value for name, value in zip(structures, found) if math.isfinite(value)},
        name=result.text,
        features=result.features,
        shares=result.shares,
    )


def told_in_work(work: Path) -> list[Told]:
    """Of every fold of a work folder that is trained and scored and of which something was said."""
    plan = load_plan(work)
    shares = kept_structure_shares(work, plan.labels)
    found = []
    for file in sorted(work.glob(f"runs/*/fold_*/{SCORES}")):
        folder = file.parents[1]
        run = read_run_record(folder)
        if run is None or run.end is None or not run.sessions[0].expected:
            continue
        by_label = Scores.load(file).labels
        found.append(
            Told(
                data_set=plan.dataset,
                minutes=f"{run.end.seconds / 60:.0f}",
                arm=f"{work.name} {folder.parent.name}",
                steps=run.end.steps,
                expected=run.sessions[0].expected,
                dice={name: score.dice for name, score in by_label.items() if score.dice is not None},
                name=str(folder),
                features=features_that_tell(plan.configuration(folder.parent.name)),
                shares=shares,
            )
        )
    return found


def statement_of(told: Told) -> Statement | None:
    """None where nothing was said, by versions that could not."""
    words = told.expected.rpartition(": ")[2]
    if not words:
        return None
    named = enough_for(words, list(told.dice), told.name, told.shares)
    return Statement(
        told=told,
        words=words,
        named_dice=_mean(told, named),
        other_dice=_mean(told, [name for name in told.dice if name not in named]),
        is_for_all=len(named) == len(told.dice),
    )


def by_the_rule_of_now(told: Told) -> Told | None:
    """The same training with what is said by now of the steps that were foretold; None where not all is known."""
    return said_by(told, LIMITS)


def said_by(told: Told, limits: Limits) -> Told | None:
    """The same training with what a rule of such limits says; None where not all is known that it goes by."""
    foretold = FORETOLD.search(told.expected)
    if foretold is None or not told.shares or told.features is None:
        return None
    steps = int(foretold["steps"].replace(",", ""))
    words = usefulness(steps, told.shares, told.features, limits, shown=len(told.shares))
    return replace(told, expected=f"{steps} steps: {words}")


def enough_for(
    words: str, structures: Sequence[str], source: str, shares: Mapping[str, float] = NOTHING_KNOWN
) -> list[str]:
    """Structures that the steps are said to be enough for; UserError, naming ``source``, where that is unclear.

    Where only the first of the small ones are named, ``shares`` tell the others, if they are as many as were said.
    """
    if FOR_ALL.fullmatch(words):
        return list(structures)
    if FOR_NONE.fullmatch(words):
        return []
    found = NOT_FOR.fullmatch(words)
    names = re.split(", ", found["names"]) if found else []
    if found and found["more"]:
        small = [name for name, share in shares.items() if share < LIMITS.small_share]
        names = small if len(small) == len(names) + int(found["more"]) else []
    if not names or not set(names) <= {*structures, *shares}:
        raise UserError(f"{source}: was said to be {words!r}, which names no structures that can be counted")
    return [name for name in structures if name not in names]


def _mean(told: Told, structures: Sequence[str]) -> float | None:
    return sum(told.dice[name] for name in structures) / len(structures) if structures else None
