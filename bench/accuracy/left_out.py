"""The rule of usefulness on data sets that it was not made on: its limits fitted to the others, one left out in turn.

Many limits fit the others equally well: trainings of large structures alone say nothing of small ones. All of them are
kept, and what they say of the data set that was left out is a range, whose width is what the others leave open.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from itertools import product

from bench.accuracy.statements import Told, said_by, statement_of
from segfw.model.short_runs import Limits

# Steps of about a factor of two or three around the limits in use; 0 asks nothing of the number of structures.
USABLE_STEPS = (50, 100, 150, 300, 600)
STEPS_A_STRUCTURE = (0, 10, 30, 100)
SMALL_SHARES = (0.001, 0.002, 0.005, 0.01, 0.02)
STEPS_FOR_SMALL = (650, 1300, 2600, 5200)
FEATURES_FOR_SMALL = (8, 16, 32, 64)


@dataclass(frozen=True, kw_only=True)
class LeftOut:
    """Of some trainings of one data set, how many statements were right by limits that the other sets were fitted with.

    ``least`` and ``most`` are over all limits that fit equally well; ``wrong_for_all`` are statements of all structures
    with a mean Dice that is no use, by the worst limits.
    """

    runs: int
    least: int
    most: int
    wrong_for_all: int

    @property
    def text(self) -> str:
        """'0 to 2 of 3'."""
        right = f"{self.least}" if self.least == self.most else f"{self.least} to {self.most}"
        return f"{right} of {self.runs}"


@dataclass(frozen=True, kw_only=True)
class _Outcome:
    is_right: bool
    is_wrong_for_all: bool


def grid() -> list[Limits]:
    """All limits that are tried."""
    every = product(USABLE_STEPS, STEPS_A_STRUCTURE, SMALL_SHARES, STEPS_FOR_SMALL, FEATURES_FOR_SMALL)
    return [
        Limits(
            usable_steps=usable,
            steps_a_structure=each,
            small_share=share,
            steps_for_small=steps,
            features_for_small=features,
        )
        for usable, each, share, steps, features in every
    ]


class LeftOutRules:
    """What rules that never saw a data set say of its trainings; of those of which not all is known they say nothing.

    Parameters
    ----------
    trainings
        Of all data sets; with a single one there is nothing to fit to.
    limits
        Those that are tried.
    """

    def __init__(self, trainings: Sequence[Told], limits: Sequence[Limits] | None = None) -> None:
        tried = grid() if limits is None else limits
        self.trainings = [told for told in trainings if said_by(told, tried[0]) is not None]
        self.data_sets = list(dict.fromkeys(told.data_set for told in self.trainings))
        self._outcomes = [[_outcome(told, each) for told in self.trainings] for each in tried]

    def of(self, chosen: Sequence[Told]) -> LeftOut | None:
        """Of some trainings of one data set; None where there is nothing to tell."""
        places = [place for place, told in enumerate(self.trainings) if any(told is each for each in chosen)]
        if not places or len(self.data_sets) < 2:
            return None
        data_set = self.trainings[places[0]].data_set
        others = [place for place, told in enumerate(self.trainings) if told.data_set != data_set]
        errors = [_errors(outcomes, others) for outcomes in self._outcomes]
        best = [outcomes for outcomes, error in zip(self._outcomes, errors) if error == min(errors)]
        right = [sum(outcomes[place].is_right for place in places) for outcomes in best]
        wrong_for_all = [sum(outcomes[place].is_wrong_for_all for place in places) for outcomes in best]
        return LeftOut(runs=len(places), least=min(right), most=max(right), wrong_for_all=max(wrong_for_all))

    def each_set(self) -> list[LeftOut]:
        """Of each data set as a whole."""
        chosen = ([told for told in self.trainings if told.data_set == name] for name in self.data_sets)
        return [found for found in map(self.of, chosen) if found is not None]


def _errors(outcomes: Sequence[_Outcome], places: Sequence[int]) -> tuple[int, int]:
    """What a fit makes least of: first statements that promise all structures wrongly, then all wrong ones."""
    wrong_for_all = sum(outcomes[place].is_wrong_for_all for place in places)
    return wrong_for_all, sum(not outcomes[place].is_right for place in places)


def _outcome(told: Told, limits: Limits) -> _Outcome:
    said = said_by(told, limits)
    statement = None if said is None else statement_of(said)
    assert statement is not None  # only trainings of which all is known are asked for
    return _Outcome(is_right=statement.is_right, is_wrong_for_all=statement.is_for_all and not statement.is_right)
