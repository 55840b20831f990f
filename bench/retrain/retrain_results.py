"""What is kept of each seed, a line of bench/results/retrain.jsonl, and the table over all of them."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

import numpy as np

from segfw.base.records import Record, UserError
from segfw.evaluation.metrics import Scores
from segfw.retraining.promotion_rule import LIMIT_MEAN, LIMIT_STRUCTURE, paired_difference

DIGITS = 5
STRUCTURES = ("anterior", "posterior")
# What each model is compared with: it is better than ...
COMPARED = (
    ("control_1", "base", "as many steps, old labels"),
    ("queue_1", "base", "round 1, batch by segfw queue --for model"),
    ("queue_1", "control_1", "round 1, batch by segfw queue --for model"),
    ("random_1", "control_1", "round 1, batch drawn"),
    ("queue_1", "random_1", "round 1, queue against drawn"),
    ("control_2", "base", "both rounds' steps, old labels"),
    ("queue_2", "queue_2_control", "round 2 alone, batch by queue"),
    ("random_2", "random_2_control", "round 2 alone, batch drawn"),
    ("queue_2", "control_2", "both rounds, batches by queue"),
    ("random_2", "control_2", "both rounds, batches drawn"),
    ("queue_2", "random_2", "both rounds, queue against drawn"),
    ("queue_2", "scratch_extra", "warm against new weights, minutes of both rounds"),
    ("queue_2", "scratch_all", "warm against new weights, minutes of everything"),
)


class ModelResult(Record):
    """A model's own training (that of the last round) and its Dice in every test case."""

    steps: int
    minutes: float
    cases: dict[str, dict[str, float]]


class RetrainResult(Record):
    """All models of one seed."""

    seed: int
    old_cases: int
    validation_cases: int
    batch: int
    first_minutes: float
    length_share: float
    processor: str
    version: str
    configuration: str
    shared_by_queue_and_random: int
    models: dict[str, ModelResult]


def scores_of(scores: Scores) -> dict[str, dict[str, float]]:
    """Dice of every structure that is in a case."""
    found = {}
    for case, by_label in sorted(scores.cases.items()):
        found[case] = {name: round(each.dice, DIGITS) for name, each in by_label.items() if each.dice is not None}
    return found


def append_line(path: Path, result: RetrainResult) -> None:
    """Adds a seed, in place of what was there of it."""
    lines = [line for line in (read_lines(path) if path.is_file() else []) if line.seed != result.seed]
    path.parent.mkdir(parents=True, exist_ok=True)
    text = "".join(f"{line.model_dump_json()}\n" for line in sorted([*lines, result], key=lambda line: line.seed))
    path.write_text(text, encoding="utf-8")


def read_lines(path: Path) -> list[RetrainResult]:
    """All seeds."""
    if not path.is_file():
        raise UserError(f"{path}: no such file; call python -m bench retrain run first")
    lines = path.read_text(encoding="utf-8").splitlines()
    return [RetrainResult.parse(line, f"{path}, line {number}") for number, line in enumerate(lines, 1)]


def dice_n(results: Sequence[RetrainResult], model: str, structures: Sequence[str] = STRUCTURES) -> np.ndarray:
    """Dice of each test case: the mean over structures, and over seeds, (N,)."""
    of_seeds = []
    for result in results:
        cases = result.models[model].cases
        of_seeds.append([[cases[case][name] for name in structures] for case in sorted(cases)])
    return np.array(of_seeds).mean((0, 2))


def as_markdown(results: Sequence[RetrainResult]) -> str:
    """Dice of all models, then what each is better than, with 95 % intervals over test patients."""
    seeds = ", ".join(str(result.seed) for result in results)
    lines = [f"seeds {seeds}; {len(results[0].models['base'].cases)} test cases", ""]
    lines += ["| model | own steps | own minutes | Dice | by seed |", "|---|---|---|---|---|"]
    for model in results[0].models:
        steps = np.mean([result.models[model].steps for result in results])
        minutes = np.mean([result.models[model].minutes for result in results])
        by_seed = ", ".join(f"{dice_n([result], model).mean():.4f}" for result in results)
        lines.append(f"| {model} | {steps:.0f} | {minutes:.2f} | {dice_n(results, model).mean():.4f} | {by_seed} |")
    lines += ["", "| what | gain in Dice | 95 % | by seed | promoted, by seed |", "|---|---|---|---|---|"]
    for model, other, what in COMPARED:
        found = _difference(results, model, other)
        by_seed = ", ".join(f"{_difference([result], model, other)[0]:+.4f}" for result in results)
        promoted = ", ".join("yes" if is_promoted(result, model, other) else "no" for result in results)
        shown = promoted if "control" in other else ""
        lines.append(
            f"| {what}: {model} over {other} | {found[0]:+.4f} | {found[1]:+.4f} to {found[2]:+.4f} | {by_seed} | "
            f"{shown} |"
        )
    return "\n".join(lines)


def _difference(
    results: Sequence[RetrainResult], model: str, other: str, structures: Sequence[str] = STRUCTURES
) -> tuple[float, float, float]:
    """The mean difference with its interval, patients drawn anew; seeds are averaged, as they share the patients."""
    first_n = dice_n(results, model, structures)
    found = paired_difference(first_n, dice_n(results, other, structures), np.arange(len(first_n)))
    if found is None or found.low is None or found.high is None:
        raise UserError("fewer than five test cases tell nothing; give more with --test")
    return found.difference, found.low, found.high


def is_promoted(result: RetrainResult, model: str, control: str) -> bool:
    """The rule of ``segfw retrain``, on the test cases."""
    mean_low = _difference([result], model, control)[1]
    lows = [_difference([result], model, control, (name,))[1] for name in STRUCTURES]
    return mean_low > LIMIT_MEAN and min(lows) > LIMIT_STRUCTURE
