"""Dice and volumes of the arms as Markdown: means over seeds, and differences between arms by patient."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

import numpy as np

from bench.figures import markdown
from bench.partial.halves import SETS
from bench.partial.results import Figures, PartialResult

DRAWS = 2000
TWO_MODELS = "two models"
SHOWN = ("all", "background", "marginal", TWO_MODELS)

Cases = Mapping[str, Mapping[str, Figures]]


def tables(lines: Sequence[PartialResult]) -> str:
    """The tables of every data set and length that there are.

    Where one model was trained for twice as long as each of two, it stands beside them: they took as long in all.
    """
    groups: dict[tuple[str, float], list[PartialResult]] = {}
    for line in lines:
        groups.setdefault((line.data_set, line.minutes), []).append(line)
    arms = {key: _by_arm(found) for key, found in sorted(groups.items())}
    parts = []
    for (name, minutes), by_arm in arms.items():
        title = f"{name}, {minutes:g} minutes of one core a training"
        half_as_long = arms.get((name, minutes / 2), {}).get(TWO_MODELS)
        if TWO_MODELS not in by_arm and half_as_long:
            by_arm = {**by_arm, TWO_MODELS: half_as_long}
            title = f"{name}, {minutes:g} minutes of one core in all, of which each of two models has half"
        if by_arm:  # not while one of two models is still to come
            parts.append(_tables_of(name, title, by_arm))
    return "\n\n".join(parts)


def _tables_of(name: str, title: str, by_arm: Mapping[str, Mapping[int, PartialResult]]) -> str:
    labels = SETS[name].labels
    shown = [arm for arm in SHOWN if by_arm.get(arm)]
    kept = len(next(iter(by_arm[shown[0]].values())).kept)
    dice = [["arm", "seeds", "mean Dice", *labels, "less two models", "volume, predicted / drawn"]]
    dice += [_dice_row(arm, by_arm, labels) for arm in shown]
    volumes = [["arm", *(f"{label}, {what}" for label in labels for what in ("drawn there", "not drawn"))]]
    volumes += [_volume_row(name, arm, by_arm[arm], labels) for arm in shown]
    parts = [f"{title}, {kept} kept-out patients", markdown(dice)]
    parts += ["Volumes in images that were trained on, predicted / drawn by the expert:", markdown(volumes)]
    return "\n\n".join(parts)


def _by_arm(lines: Sequence[PartialResult]) -> dict[str, dict[int, PartialResult]]:
    """By arm and seed; both models of a seed are one line of TWO_MODELS, each with its own labels."""
    found: dict[str, dict[int, PartialResult]] = {}
    for line in lines:
        found.setdefault(line.arm, {})[line.seed] = line
    first = found.pop("first", {})
    second = found.pop("second", {})
    for seed in first.keys() & second.keys():
        one = first[seed]
        other = second[seed]
        joined = {
            "arm": TWO_MODELS,
            "kept": _joined(one.kept, other.kept),
            "trained": _joined(one.trained, other.trained),
        }
        found.setdefault(TWO_MODELS, {})[seed] = one.model_copy(update=joined)
    return found


def _joined(first: Cases, second: Cases) -> dict[str, dict[str, Figures]]:
    return {case: {**by_label, **second[case]} for case, by_label in first.items()}


def dice_table(runs: Mapping[int, PartialResult], labels: Sequence[str]) -> np.ndarray:
    """Dice (seeds, patients, labels); NaN where neither mask has the label."""
    values = []
    for seed in sorted(runs):
        kept = runs[seed].kept
        values.append([[_or_nan(kept[case][label].dice) for label in labels] for case in sorted(kept)])
    return np.array(values, dtype=float)


def _or_nan(value: float | None) -> float:
    return float("nan") if value is None else value


def _dice_row(arm: str, by_arm: Mapping[str, Mapping[int, PartialResult]], labels: Sequence[str]) -> list[str]:
    runs = by_arm[arm]
    values_snl = dice_table(runs, labels)
    of_seeds = np.nanmean(values_snl, axis=(1, 2))
    spread = f" (sd {of_seeds.std(ddof=1):.3f})" if len(of_seeds) > 1 else ""
    cells = [arm, str(len(of_seeds)), f"{of_seeds.mean():.3f}{spread}"]
    cells += [f"{value:.3f}" for value in np.nanmean(values_snl, axis=(0, 1))]
    cells.append(difference_text(by_arm, arm, labels))
    cells.append(", ".join(_ratio_text([run.kept for run in runs.values()], label) for label in labels))
    return cells


def difference_text(by_arm: Mapping[str, Mapping[int, PartialResult]], arm: str, labels: Sequence[str]) -> str:
    """Mean Dice less that of two models, of the seeds that both have, with its interval by patient."""
    other = by_arm.get(TWO_MODELS, {})
    seeds = by_arm[arm].keys() & other.keys()
    if arm == TWO_MODELS or not seeds:
        return "-"
    own = dice_table({seed: by_arm[arm][seed] for seed in seeds}, labels)
    theirs = dice_table({seed: other[seed] for seed in seeds}, labels)
    with np.errstate(invalid="ignore"):
        of_patient_n = np.nanmean(own - theirs, axis=(0, 2))
    drawn = np.random.default_rng(0).integers(len(of_patient_n), size=(DRAWS, len(of_patient_n)))
    low, high = np.percentile(of_patient_n[drawn].mean(1), (2.5, 97.5))
    return f"{of_patient_n.mean():+.3f} ({low:+.3f} to {high:+.3f})"


def _volume_row(name: str, arm: str, runs: Mapping[int, PartialResult], labels: Sequence[str]) -> list[str]:
    of = SETS[name]
    cells = [arm]
    for label in labels:
        half = "first" if label in of.first else "second"
        for is_drawn in (True, False):
            chosen = []
            for run in runs.values():
                cases = {case for case, drawn in run.drawn_in.items() if (drawn == half) == is_drawn}
                chosen.append({case: found for case, found in run.trained.items() if case in cases})
            cells.append(_ratio_text(chosen, label))
    return cells


def _ratio_text(runs: Sequence[Cases], label: str) -> str:
    """Predicted volume / drawn volume over all cases and seeds."""
    figures = [by_label[label] for cases in runs for by_label in cases.values()]
    drawn = sum(each.reference_ml for each in figures)
    return f"{sum(each.predicted_ml for each in figures) / drawn:.2f}" if drawn else "-"
