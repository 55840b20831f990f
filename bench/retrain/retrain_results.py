"""What is kept of each seed, a line of bench/results/retrain.jsonl, and the table over all of them."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np

from bench.figures import markdown
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

    @property
    def key(self) -> tuple[int]:
        """What tells results apart."""
        return (self.seed,)


def scores_of(scores: Scores) -> dict[str, dict[str, float]]:
    """Dice of every structure that is in a case."""
    found = {}
    for case, by_label in sorted(scores.cases.items()):
        found[case] = {name: round(each.dice, DIGITS) for name, each in by_label.items() if each.dice is not None}
    return found


def dice_n(results: Sequence[RetrainResult], model: str, structures: Sequence[str] = STRUCTURES) -> np.ndarray:
    """Dice of each test case: the mean over structures, and over seeds, (N,)."""
    of_seeds = []
    for result in results:
        cases = result.models[model].cases
        of_seeds.append([[cases[case][name] for name in structures] for case in sorted(cases)])
    return np.array(of_seeds).mean((0, 2))


def as_markdown(results: Sequence[RetrainResult]) -> str:
    """Dice of all models, then what each is better than, with 95 % intervals over test patients; by seed in order."""
    results = sorted(results, key=lambda result: result.seed)
    seeds = ", ".join(str(result.seed) for result in results)
    title = f"seeds {seeds}; {len(results[0].models['base'].cases)} test cases"
    rows = [["model", "own steps", "own minutes", "Dice", "by seed"]]
    for model in results[0].models:
        steps = np.mean([result.models[model].steps for result in results])
        minutes = np.mean([result.models[model].minutes for result in results])
        by_seed = ", ".join(f"{dice_n([result], model).mean():.4f}" for result in results)
        rows.append([model, f"{steps:.0f}", f"{minutes:.2f}", f"{dice_n(results, model).mean():.4f}", by_seed])
    gains = [["what", "gain in Dice", "95 %", "by seed", "promoted, by seed"]]
    for model, other, what in COMPARED:
        gain, low, high = _difference(results, model, other)
        by_seed = ", ".join(f"{_difference([result], model, other)[0]:+.4f}" for result in results)
        promoted = ", ".join("yes" if is_promoted(result, model, other) else "no" for result in results)
        shown = promoted if "control" in other else ""
        gains.append([f"{what}: {model} over {other}", f"{gain:+.4f}", f"{low:+.4f} to {high:+.4f}", by_seed, shown])
    return "\n\n".join([title, markdown(rows), markdown(gains)])


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
