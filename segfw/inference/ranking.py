"""Which configuration, or pair of them, is best in cases that the networks did not see, and the table that says so."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path

from segfw.base.records import UserError
from segfw.base.words import count
from segfw.dataset.labels import LabelSet
from segfw.evaluation.confusion import dice
from segfw.evaluation.metrics import mean
from segfw.evaluation.text import aligned_columns
from segfw.inference.held_out import validating_folds
from segfw.inference.held_out_counts import CaseCounts
from segfw.model.selection import SEPARATOR, Candidate, DecodingTrial, Selection
from segfw.model.source import trained_folds
from segfw.planning.plan import Plan
from segfw.planning.splits import Splits

MOST_COLUMNS = 6  # of single structures in the table
TOLERANCE = 0.001  # of the mean Dice: a candidate that takes longer must be better by more


def trained_validating_folds(work: Path, configuration: str, splits: Splits) -> list[str]:
    """Names of the folds that hold cases out and are trained to their end."""
    trained = trained_folds(work, configuration)
    return [fold for fold in validating_folds(splits) if fold in trained]


def compared_folds(trained: Mapping[str, Sequence[str]], splits: Splits) -> tuple[list[str], list[str]]:
    """Folds that all configurations with any have trained, and what is not compared, a sentence each."""
    able = {name: folds for name, folds in trained.items() if folds}
    if not able:
        raise UserError(f"no fold that validates is trained to its end for {', '.join(trained)}; run segfw train first")
    common = [fold for fold in validating_folds(splits) if all(fold in folds for folds in able.values())]
    if not common:
        what = "; ".join(f"{name} has {', '.join(folds)}" for name, folds in able.items())
        raise UserError(f"the configurations have no trained fold in common ({what}); train one for all")
    notes = [f"{name} has no trained fold and is left out" for name in trained if name not in able]
    for name, folds in able.items():
        extra = [fold for fold in folds if fold not in common]
        if extra:
            notes.append(f"{name} is compared without its folds {', '.join(extra)}, which others have not trained")
    missing = [fold for fold in validating_folds(splits) if fold not in common]
    if missing:
        notes.append(
            f"this is no whole cross-validation: folds {', '.join(missing)} are not trained for all, so that fewer "
            "cases decide; train them and select again before relying on it"
        )
    return common, notes


def rank(candidates: Sequence[tuple[str, ...]], counted: Mapping[str, CaseCounts], plan: Plan) -> list[Candidate]:
    """All candidates by their mean Dice over cases and then over structures, best first."""
    result = []
    for candidate in candidates:
        of_cases = [case.counts[SEPARATOR.join(candidate)] for case in counted.values()]
        dice_of = {name: mean(dice(counts[name]) for counts in of_cases) for name in plan.labels.structures}
        stages = sum(2 if plan.configuration(name).previous_stage else 1 for name in candidate)
        result.append(
            Candidate(configurations=candidate, stages=stages, foreground_mean=mean(dice_of.values()), labels=dice_of)
        )
    return sorted(result, key=lambda candidate: -(candidate.foreground_mean or 0))


def simplest_of_the_best(ranked: Sequence[Candidate]) -> Candidate:
    """Of those within TOLERANCE of the best that which runs the fewest networks, and of these the best."""
    limit = (ranked[0].foreground_mean or 0) - TOLERANCE
    near = [candidate for candidate in ranked if (candidate.foreground_mean or 0) >= limit]
    return min(near, key=lambda candidate: (candidate.stages, len(candidate.configurations)))


def selection_table(selection: Selection, labels: LabelSet) -> str:
    """All candidates, what was selected and why, as plain text."""
    names = list(labels.structures)
    if len(names) > MOST_COLUMNS:
        names = []
    rows = [["candidate", "mean Dice", *names]]
    for candidate in selection.candidates:
        values = (candidate.foreground_mean, *(candidate.labels[name] for name in names))
        rows.append([candidate.name, *map(_digits, values)])
    lines = aligned_columns(rows)
    cases = count(selection.cases, "validation case")
    lines += ["", f"selected: {selection.name}, by {cases} of folds {', '.join(selection.compared_folds)}"]
    best = selection.candidates[0].name
    if selection.name != best:
        lines.append(f"{best} is better by no more than {selection.tolerance} and takes longer")
    lines += [_decoding_line(trial) for trial in selection.decoding_trials]
    for trial in selection.trials:
        verdict = "kept" if trial.is_kept else "not kept"
        change = f"{(trial.after or 0) - (trial.before or 0):+.5f}"
        lines.append(f"only the largest component of {trial.name}: {change} mean Dice, {verdict}")
    mean_dice = _digits(selection.foreground_mean)
    done = f"postprocessing ({selection.postprocessing.text})"
    if selection.postprocessing.decoding:
        done = f"largest expected Dice ({selection.postprocessing.decoding_text}) and {done}"
    lines.append(f"with {done}: mean Dice {mean_dice}")
    lines += [f"note: {note}" for note in selection.notes]
    return "\n".join(lines) + "\n"


def _decoding_line(trial: DecodingTrial) -> str:
    interval = "too few patients for an interval"
    if trial.low is not None and trial.high is not None:
        interval = f"90 % interval {trial.low:+.5f} to {trial.high:+.5f} by {count(trial.patients, 'patient')}"
    by = "no temperature" if trial.temperature is None else f"temperature {trial.temperature:.3g}"
    verdict = "kept" if trial.is_kept else "not kept"
    always = f"by {trial.calibrated:.3g}, calibrated, {trial.gain_calibrated:+.5f}, by 1 {trial.gain_uncalibrated:+.5f}"
    return f"largest expected Dice of {trial.name}: {trial.gain:+.5f} ({interval}; {by}), {verdict}; always {always}"


def _digits(value: float | None) -> str:
    return "-" if value is None else f"{value:.4f}"
