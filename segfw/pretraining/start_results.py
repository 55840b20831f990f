"""What is kept of each finished training of a comparison of starts, and what all of them together show."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Final, Literal

import numpy as np
from pydantic import JsonValue, ValidationError

from segfw.base.files import append_line
from segfw.base.printing import csv_text
from segfw.base.records import Record
from segfw.base.usable_steps import FEWEST_USABLE_STEPS
from segfw.base.words import count
from segfw.evaluation.statistics import paired

RESULTS_FILE = "compare_starts.jsonl"
SUMMARY_FILE = "compare_starts.json"
TABLE_FILE = "compare_starts.csv"
SCRATCH: Final = "scratch"
SCRATCH_LONGER: Final = "scratch, longer by the pretraining"
PRETRAINED: Final = "pretrained"
MODEL: Final = "from the given model"
QUARTER = 0.25

Arm = Literal["scratch", "scratch, longer by the pretraining", "pretrained", "from the given model"]
ARMS: tuple[Arm, ...] = (SCRATCH, SCRATCH_LONGER, PRETRAINED, MODEL)
At = Literal["quarter", "end"]
Dices = dict[str, dict[str, float | None]]  # by case and structure; None where it does not exist


class StartResult(Record):
    """One finished training: ``quarter`` and ``end`` are the Dice of cases that no arm saw, after so much of it."""

    labelled: str
    seed: int
    arm: Arm
    cases: tuple[str, ...]  # that it was trained on
    steps: int
    seconds: float
    quarter: Dices
    end: Dices

    @property
    def key(self) -> tuple[str, int, str]:
        """What tells it from others of the same comparison."""
        return (self.labelled, self.seed, self.arm)

    def at(self, when: At) -> Dices:
        """The scores after a quarter, or at the end."""
        return self.quarter if when == "quarter" else self.end


class Gain(Record):
    """First arm less second in mean Dice.

    ``low`` and ``high`` are its 95 % interval by patient, for these seeds; ``seed_low`` and ``seed_high`` that by
    seed, from the mean of each (Student's t; None with one seed). ``verdict`` is a gain or a loss only if both lie on
    one side of 0: seeds of short trainings differ by more than patients.
    """

    labelled: str
    at: At
    first: str
    second: str
    seeds: int
    patients: int
    first_dice: float
    second_dice: float
    difference: float
    low: float | None
    high: float | None
    by_seed: tuple[float, ...]
    seed_low: float | None
    seed_high: float | None
    verdict: Literal["gain", "loss", "no gain shown"]

    def text(self) -> str:
        """One line of the table."""
        return (
            f"{self.labelled:>8}  {self.at:7}  {self.first_dice:.4f}  {self.second_dice:.4f}  {self.difference:+.4f}  "
            f"{_bounds(self.low, self.high):18}  {_bounds(self.seed_low, self.seed_high):18}  {self.verdict:13}  "
            f"{self.first} against {self.second}"
        )


def _bounds(low: float | None, high: float | None) -> str:
    return "too few" if low is None or high is None else f"{low:+.4f} to {high:+.4f}"


class StartsSummary(Record):
    """``compare_starts.json``: what was asked, and every gain.

    ``guards`` say by arm what is known of its start having seen what is scored; ``seen_by_model`` are validation cases
    that the given model is known to have seen. ``fewest_steps`` are those of the shortest training, None in files of
    earlier versions.
    """

    kind: Literal["starts"] = "starts"
    asked: dict[str, JsonValue]
    pretrain_s: float
    gains: tuple[Gain, ...]
    guards: dict[Arm, str] = {}
    seen_by_model: tuple[str, ...] = ()
    fewest_steps: int | None = None

    @property
    def caveat(self) -> str:
        """Why no gain says anything: a training was too short; '' if none was."""
        if self.fewest_steps is None or self.fewest_steps >= FEWEST_USABLE_STEPS:
            return ""
        return (
            f"a training of these has {count(self.fewest_steps, 'step')}, and networks of fewer than "
            f"{FEWEST_USABLE_STEPS} have hardly left their beginning: these gains say nothing of longer trainings"
        )


def training_folder(output: Path, labelled: str, seed: int, arm: Arm) -> Path:
    """Where a training of a comparison lies: a work folder of its own."""
    name = arm.split(",")[0].replace(" ", "-")
    return output / "trainings" / f"{labelled}_{seed}_{name}{'-longer' if arm == SCRATCH_LONGER else ''}"


def read_results(path: Path) -> list[StartResult]:
    """All finished trainings; a last line that a kill cut off is left out."""
    found = []
    for line in path.read_text(encoding="utf-8").splitlines() if path.is_file() else []:
        try:
            found.append(StartResult.model_validate_json(line))
        except ValidationError:
            continue
    return found


def append_result(path: Path, result: StartResult) -> None:
    """Adds a line, in one write; one that was cut off ends before it."""
    append_line(path, result.model_dump_json())


def gains_of(results: Sequence[StartResult], patient_of: Mapping[str, str]) -> tuple[Gain, ...]:
    """Every arm against training from nothing: for as long, and for longer by what the pretraining took."""
    pairs = ((PRETRAINED, SCRATCH_LONGER), (PRETRAINED, SCRATCH), (MODEL, SCRATCH))
    found = []
    for labelled in dict.fromkeys(result.labelled for result in results):
        arms: dict[str, dict[int, StartResult]] = defaultdict(dict)
        for result in results:
            if result.labelled == labelled:
                arms[result.arm][result.seed] = result
        moments: tuple[At, ...] = ("quarter", "end")
        for at in moments:
            for first, second in pairs:
                seeds = sorted(arms[first].keys() & arms[second].keys())
                gain = _gain(labelled, at, first, second, arms, seeds, patient_of) if seeds else None
                if gain is not None:
                    found.append(gain)
    return tuple(found)


def _gain(
    labelled: str,
    at: At,
    first: str,
    second: str,
    arms: Mapping[str, Mapping[int, StartResult]],
    seeds: Sequence[int],
    patient_of: Mapping[str, str],
) -> Gain | None:
    """None where no case has a Dice in both arms, because no structure is in any."""
    tables = [patient_means([arms[name][seed].at(at) for seed in seeds], patient_of) for name in (first, second)]
    patients = sorted(tables[0].keys() & tables[1].keys())
    columns = [np.array([table[patient] for patient in patients]) for table in tables]
    found = paired(columns[0], columns[1], larger_is_better=True)
    if found is None:
        return None
    of_seeds = [[patient_means([arms[name][seed].at(at)], patient_of) for name in (first, second)] for seed in seeds]
    by_seed = tuple(float(np.mean([one[each] - two[each] for each in one if each in two])) for one, two in of_seeds)
    seed_low, seed_high = seed_interval(by_seed)
    return Gain(
        labelled=labelled,
        at=at,
        first=first,
        second=second,
        seeds=len(seeds),
        patients=found.cases,
        first_dice=found.first,
        second_dice=found.second,
        difference=found.difference,
        low=found.low,
        high=found.high,
        by_seed=by_seed,
        seed_low=seed_low,
        seed_high=seed_high,
        verdict=verdict((found.low, found.high), (seed_low, seed_high)),
    )


def verdict(*intervals: tuple[float | None, float | None]) -> Literal["gain", "loss", "no gain shown"]:
    """A gain or a loss only where all intervals lie on the same side of 0."""
    if all(low is not None and low > 0 for low, _ in intervals):
        return "gain"
    if all(high is not None and high < 0 for _, high in intervals):
        return "loss"
    return "no gain shown"


def seed_interval(differences: Sequence[float]) -> tuple[float | None, float | None]:
    """The 95 % interval of the mean over seeds, by Student's t; nothing for fewer than two."""
    from scipy.stats import t as student

    if len(differences) < 2:
        return None, None
    values = np.array(differences)
    reach = float(student.ppf(0.975, len(values) - 1) * values.std(ddof=1) / len(values) ** 0.5)
    middle = float(values.mean())
    return middle - reach, middle + reach


def patient_means(scores: Sequence[Dices], patient_of: Mapping[str, str]) -> dict[str, float]:
    """By patient the mean Dice over structures, then over cases, then over seeds; without any Dice left out."""
    by_patient: dict[str, list[float]] = defaultdict(list)
    for cases in scores:
        for case, by_structure in cases.items():
            known = [dice for dice in by_structure.values() if dice is not None]
            if known:
                by_patient[patient_of.get(case, case)].append(sum(known) / len(known))
    return {patient: sum(values) / len(values) for patient, values in by_patient.items()}


def table_text(summary: StartsSummary) -> str:
    """The gains as a table for the console."""
    head = "labelled  at       first   second  gain     95 % by patient     95 % by seed        verdict"
    return "\n".join([head, *(gain.text() for gain in summary.gains), *([summary.caveat] if summary.caveat else [])])


def gains_csv(gains: Sequence[Gain]) -> str:
    """``compare_starts.csv``: a row for each gain, numbers with six decimals; without an interval nothing."""
    names = ("labelled", "at", "first", "second", "seeds", "patients", "verdict")
    numbers = ("first_dice", "second_dice", "difference", "low", "high", "seed_low", "seed_high")
    rows = []
    for gain in gains:
        values = [getattr(gain, name) for name in numbers]
        rows.append([getattr(gain, name) for name in names] + ["" if v is None else f"{v:.6f}" for v in values])
    return csv_text([*names, *numbers], rows)
