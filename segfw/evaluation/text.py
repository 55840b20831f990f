"""Scores as text: CSV files, and columns for the console."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence

from segfw.base.printing import csv_text
from segfw.base.words import count
from segfw.evaluation.caveats import caveats
from segfw.evaluation.lesions import LesionCounts
from segfw.evaluation.metrics import METRICS, NOT_ANNOTATED, Comparison, Scores
from segfw.evaluation.statistics import Paired
from segfw.evaluation.summary import INTERVALS, empty_mask_sentences
from segfw.images.units import ALL_UNITS, lengths_in

COUNTS = ("tp", "fp", "fn")
COMPARED = ("dice", "nsd", "hd95_mm", "hd95_px")  # on the console
Row = tuple[object, ...]
SPREADS = ("cases", "median", "std", "q1", "q3", "low", "high")


def scores_csv(scores: Scores) -> str:
    """One row per case and label, with what its masks were; a metric that does not exist is an empty cell.

    The columns of distances and sizes are those of the units that there are.
    """
    lengths = {units.length for units in scores.units}
    unused = tuple(f"_{units.length}" for units in ALL_UNITS if units.length not in lengths)
    columns = [metric for metric in METRICS if not metric.endswith(unused)]
    counts_from = len(columns)
    columns += COUNTS
    for units in scores.units:
        columns += [f"reference_{units.size}", f"predicted_{units.size}"]
    rows: list[Row] = []
    for case, by_label in scores.cases.items():
        for name, score in by_label.items():
            cells = [getattr(score, column) for column in columns]
            if not score.annotated:
                cells[counts_from : counts_from + len(COUNTS)] = [None] * len(COUNTS)
            rows.append((case, name, *cells, score.outcome))
    return csv_text(("case", "label", *columns, "mask"), rows)


def summary_csv(scores: Scores) -> str:
    """One row per label and metric: mean, cases, median, deviation, quartiles and the interval of the mean."""
    rows: list[Row] = []
    for name, label in scores.labels.items():
        for metric, spread in label.spread.items():
            rows.append((name, metric, getattr(label, metric), *(getattr(spread, key) for key in SPREADS)))
    for metric in METRICS:
        low, high = scores.foreground_interval.get(metric, (None, None))
        mean = getattr(scores.foreground_mean, metric)
        if mean is not None:
            rows.append(("foreground mean", metric, mean, None, None, None, None, None, low, high))
    return csv_text(("label", "metric", "mean", *SPREADS), rows)


def lesions_csv(scores: Scores) -> str:
    """One row per case, label and size class of components."""
    bounds: list[str] = []
    for units in scores.units:
        bounds += [f"from_{units.size}", f"to_{units.size}"]
    rows: list[Row] = []
    for case, by_label in scores.cases.items():
        for name, score in by_label.items():
            for part in score.lesions:
                known = {f"from_{part.unit}": part.from_size, f"to_{part.unit}": part.to_size}
                counts = (part.reference, part.found, part.predicted, part.right)
                rows.append((case, name, *(known.get(bound) for bound in bounds), *counts))
    return csv_text(("case", "label", *bounds, "reference", "found", "predicted", "right"), rows)


def comparison_csv(comparison: Comparison) -> str:
    """One row per label and metric."""
    columns = tuple(Paired.model_fields)
    rows: list[Row] = []
    for name, by_metric in comparison_rows(comparison):
        for metric, result in by_metric.items():
            rows.append((name, metric, *(getattr(result, column) for column in columns)))
    return csv_text(("label", "metric", *columns), rows)


def comparison_rows(comparison: Comparison) -> list[tuple[str, dict[str, Paired]]]:
    """The foreground first, then every label."""
    return [("mean of each case", comparison.foreground), *comparison.labels.items()]


def scores_table(scores: Scores) -> str:
    """The means of every label as plain text columns, for the console, with what was counted and how."""
    metrics = scores.shown
    heads = ("label", *(scores.metric(metric).head for metric in metrics))
    is_partial = any(label.not_annotated for label in scores.labels.values())
    more = (NOT_ANNOTATED,) if is_partial else ()
    rows: list[Sequence[str]] = [(*heads, "Dice 95 %", "cases", "missed", "invented", "both empty", *more)]
    for name, label in scores.labels.items():
        counts = [label.cases, label.missed, label.invented, label.both_empty]
        counts += [label.not_annotated] if is_partial else []
        dice = label.spread.get("dice")
        interval = "-" if dice is None else _interval(dice.low, dice.high)
        rows.append((name, *_means(label, metrics), interval, *map(str, counts)))
    low, high = scores.foreground_interval.get("dice", (None, None))
    foreground = _means(scores.foreground_mean, metrics)
    rows.append(("foreground mean", *foreground, _interval(low, high), "", "", "", "", *("" for _ in more)))
    lines = [_table(rows)]
    for name, label in scores.labels.items():
        lines += [f"lesions of {name}{stratum}" for stratum in _strata(label.lesions)]
    lines += scores.notes
    lines += [*caveats(scores), *empty_mask_sentences(scores)]
    if scores.measures is not None and "nsd" in metrics:
        lines.append(f"NSD is at a tolerance of {scores.measures.tolerance_mm:g} {lengths_in(scores.units)}")
    if scores.foreground_interval:
        lines.append(INTERVALS)
    return "\n".join(lines)


def comparison_table(comparison: Comparison) -> str:
    """Differences in Dice and, where measured, NSD and HD95, for the console."""
    heads = ("label", "metric", "first", "second", "difference", "95 %", "p", "wins", "losses", "ties")
    rows: list[Sequence[str]] = [heads]
    for name, by_metric in comparison_rows(comparison):
        for metric in COMPARED:
            if metric not in by_metric:
                continue
            found = by_metric[metric]
            means = [f"{value:.3f}" for value in (found.first, found.second, found.difference)]
            certainty = [_interval(found.low, found.high), f"{found.p:.2g}"]
            outcomes = [str(number) for number in (found.wins, found.losses, found.ties)]
            rows.append((name, METRICS[metric].with_unit, *means, *certainty, *outcomes))
    compared = count(len(comparison.cases), "case")
    lines = [f"first: {comparison.first}, second: {comparison.second}, {compared}", _table(rows)]
    for which, cases in (("first", comparison.only_first), ("second", comparison.only_second)):
        if cases:
            lines.append(f"only in the {which}, not compared: {', '.join(cases)}")
    return "\n".join([*lines, comparison.policy])


def stratum_name(part: LesionCounts) -> str:
    """Such as '0.1 to 1 ml' or '1 ml and more'."""
    if part.to_size is None:
        return f"{part.from_size:g} {part.unit} and more"
    return f"{part.from_size:g} to {part.to_size:g} {part.unit}"


def _strata(lesions: Iterable[LesionCounts]) -> list[str]:
    return [
        f", {stratum_name(part)}: {part.found} of {part.reference} found, "
        f"{part.right} of {part.predicted} predicted are real, F1 {_digits(part.f1)}"
        for part in lesions
        if part.reference or part.predicted
    ]


def _means(scores: object, metrics: Iterable[str]) -> list[str]:
    return [_digits(getattr(scores, metric), METRICS[metric].digits) for metric in metrics]


def aligned_columns(rows: Sequence[Sequence[str]]) -> list[str]:
    """A line for each row: its first cell flush left, the others flush right."""
    widths = [max(len(row[column]) for row in rows) for column in range(len(rows[0]))]
    lines = []
    for row in rows:
        cells = [row[0].ljust(widths[0])]
        cells += [cell.rjust(width) for cell, width in zip(row[1:], widths[1:])]
        lines.append("  ".join(cells))
    return lines


def _table(rows: Sequence[Sequence[str]]) -> str:
    return "\n".join(line.rstrip() for line in aligned_columns(rows))


def _interval(low: float | None, high: float | None) -> str:
    return "-" if low is None or high is None else f"{low:.3f} to {high:.3f}"


def _digits(value: float | None, digits: int = 3) -> str:
    return "-" if value is None else f"{value:.{digits}f}"


def folds_table(scores: Mapping[str, Mapping[str, Scores]]) -> str:
    """Mean Dice over labels of each fold and of several their mean, a line per configuration.

    '2d: mean Dice 0.7183 (fold 0)', '2d: mean Dice 0.7100 over 2 folds (fold 0 0.7183, fold 1 0.7017)'.
    """
    lines = []
    for configuration, by_fold in scores.items():
        dice = {fold: result.foreground_mean.dice for fold, result in by_fold.items()}
        known = [value for value in dice.values() if value is not None]
        each = [f"fold {fold} {'-' if value is None else format(value, '.4f')}" for fold, value in dice.items()]
        if not known:
            mean = "no validation cases"
        elif len(dice) == 1:
            mean = f"mean Dice {known[0]:.4f} (fold {next(iter(dice))})"
        else:
            mean = f"mean Dice {sum(known) / len(known):.4f} over {count(len(known), 'fold')} ({', '.join(each)})"
        lines.append(f"{configuration}: {mean}")
    return "\n".join(lines) + "\n"
