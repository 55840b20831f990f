"""The tables of the report: by label, by label and metric, by case and label, of components, of a comparison."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

from segfw.base.tables import Column, Table, shown_number
from segfw.evaluation.group_statistics import GroupedScores
from segfw.evaluation.group_text import group_rows
from segfw.evaluation.metrics import METRICS, Comparison, LabelSummary, Scores
from segfw.evaluation.text import comparison_rows, stratum_name

IN_BOTH = "in both"  # what the masks of a case and label are, where nothing is missed or invented
ELSEWHERE = "They are also in the CSV tables that --output writes."
MEANINGS = {
    "dice": "2 x overlap / (reference + predicted), 0 to 1",
    "jaccard": "overlap / union, 0 to 1",
    "tpr": "share of the reference that was found (sensitivity, recall), 0 to 1",
    "precision": "share of what was predicted that is right, 0 to 1",
    "specificity": "share of the rest of the image that was left alone, 0 to 1",
    "volume_similarity": "1 - |predicted - reference| / (predicted + reference), 0 to 1",
    "volume_difference": "(predicted - reference) / reference: 0.1 is a tenth too much, -0.1 a tenth too little",
    "nsd": "share of both surfaces within the tolerance of the other, 0 to 1",
}
MEANINGS |= {f"hd95_{unit}": "the larger of both 95th percentiles of surface distance" for unit in ("mm", "px")}
MEANINGS |= {f"assd_{unit}": "mean distance between the surfaces" for unit in ("mm", "px")}


def label_table(scores: Scores) -> Table:
    """A row per label, with the mean over cases of each metric and its interval; the last is the mean over labels."""
    labels = scores.labels.values()
    columns = [Column(title="Label", values=list(scores.labels), total="Mean over labels")]
    for name in scores.shown:
        metric = scores.metric(name)
        low_high = scores.foreground_interval.get(name)
        columns.append(
            Column(
                title=metric.title,
                unit=metric.unit,
                hint=MEANINGS.get(name, ""),
                values=[getattr(label, name) for label in labels],
                digits=metric.digits,
                notes=[_interval_note(label, name) for label in labels],
                total=shown_number(getattr(scores.foreground_mean, name), metric.digits),
                total_note=_range(*low_high, metric.digits) if low_high else "",
            )
        )
    counts = [
        ("Cases", "cases", "in which the label is in one of the masks"),
        ("Missed", "missed", "in the reference and not predicted at all"),
        ("Invented", "invented", "predicted and not in the reference at all"),
        ("In neither", "both_empty", "in neither mask: no scores"),
    ]
    if any(label.not_annotated for label in labels):
        counts.append(("Not annotated", "not_annotated", "nobody drew the label there: no scores"))
    for title, field, hint in counts:
        columns.append(Column(title=title, hint=hint, values=[getattr(label, field) for label in labels], digits=0))
    return Table(name="Scores by label", columns=columns, search="Find a label", elsewhere=ELSEWHERE)


def _interval_note(label: LabelSummary, name: str) -> str:
    spread = label.spread.get(name)
    if spread is None or spread.low is None or spread.high is None:
        return ""
    return _range(spread.low, spread.high, METRICS[name].digits)


def _range(low: float, high: float, digits: int) -> str:
    return f"{low:.{digits}f} to {high:.{digits}f}"


def spread_table(scores: Scores) -> Table | None:
    """A row per label and metric: how it varies over cases. None without any."""
    rows = [
        (name, scores.metric(key).with_unit, getattr(label, key), spread)
        for name, label in scores.labels.items()
        for key, spread in label.spread.items()
    ]
    if not rows:
        return None
    columns = [
        Column(title="Label", values=[row[0] for row in rows], choose="All labels"),
        Column(title="Metric", values=[row[1] for row in rows], choose="All metrics"),
        Column(title="Mean", values=[row[2] for row in rows], digits=3),
    ]
    for title, field in (
        ("95 % from", "low"),
        ("95 % to", "high"),
        ("Median", "median"),
        ("1st quartile", "q1"),
        ("3rd quartile", "q3"),
        ("Standard deviation", "std"),
    ):
        columns.append(Column(title=title, values=[getattr(row[3], field) for row in rows], digits=3))
    columns.append(Column(title="Cases", values=[row[3].cases for row in rows], digits=0))
    return Table(name="Spread", columns=columns, search="Find a label or metric", elsewhere=ELSEWHERE, sticky=2)


def case_table(scores: Scores, addresses: Mapping[str, str]) -> Table:
    """A row per case and label. ``addresses`` are those of pictures, by case."""
    cells = [(case, name, score) for case, by_label in scores.cases.items() for name, score in by_label.items()]
    found = [score for _, _, score in cells]
    columns = [
        Column(title="Case", values=[case for case, _, _ in cells], links=addresses),
        Column(title="Label", values=[name for _, name, _ in cells], choose="All labels"),
    ]
    for name in scores.shown:
        metric = scores.metric(name)
        values = [getattr(score, name) for score in found]
        hint = MEANINGS.get(name, "")
        columns.append(Column(title=metric.title, unit=metric.unit, hint=hint, values=values, digits=metric.digits))
    for units in scores.units:
        for title, mask in (("Reference", "reference"), ("Predicted", "predicted")):
            sizes = [getattr(score, f"{mask}_{units.size}") for score in found]
            digits = 0 if units.size == "px" else 2
            columns.append(
                Column(
                    title=f"{title} {units.extent}", unit=units.size.replace("mm2", "mm²"), values=sizes, digits=digits
                )
            )
    outcomes = [score.outcome or IN_BOTH for score in found]
    columns.append(Column(title="Label is", values=outcomes, choose="Missed or not"))
    return Table(name="Scores by case", columns=columns, search="Find a case", elsewhere=ELSEWHERE, sticky=2)


def lesion_table(scores: Scores) -> Table | None:
    """A row per label and size class of components, all cases together. None without any."""
    rows = [
        (name, part)
        for name, label in scores.labels.items()
        for part in label.lesions
        if part.reference or part.predicted
    ]
    if not rows:
        return None
    columns = [
        Column(title="Label", values=[name for name, _ in rows], choose="All labels"),
        Column(title=scores.units[0].extent.capitalize(), values=[stratum_name(part) for _, part in rows]),
    ]
    for title, field, digits in (
        ("In reference", "reference", 0),
        ("Found", "found", 0),
        ("TPR", "tpr", 3),
        ("Predicted", "predicted", 0),
        ("Real", "right", 0),
        ("Precision", "precision", 3),
        ("F1", "f1", 3),
    ):
        columns.append(Column(title=title, values=[getattr(part, field) for _, part in rows], digits=digits))
    return Table(name="Components by size", columns=columns, elsewhere=ELSEWHERE, sticky=2)


def comparison_table(comparison: Comparison) -> Table:
    """A row per label and metric: the first against the second predictions."""
    rows = [
        (name, METRICS[metric].with_unit, result)
        for name, by_metric in comparison_rows(comparison)
        for metric, result in by_metric.items()
    ]
    columns = [
        Column(title="Label", values=[name for name, _, _ in rows], choose="All labels"),
        Column(title="Metric", values=[metric for _, metric, _ in rows], choose="All metrics"),
    ]
    for title, field in (
        ("First", "first"),
        ("Second", "second"),
        ("Difference", "difference"),
        ("95 % from", "low"),
        ("95 % to", "high"),
    ):
        columns.append(Column(title=title, values=[getattr(result, field) for _, _, result in rows], digits=3))
    columns.append(Column(title="p", values=[result.p for _, _, result in rows], significant=2))
    for title in ("Wins", "Losses", "Ties", "Cases"):
        columns.append(Column(title=title, values=[getattr(result, title.lower()) for _, _, result in rows], digits=0))
    return Table(name="Comparison", columns=columns, search="Find a label or metric", elsewhere=ELSEWHERE, sticky=2)


def group_table(grouped: Sequence[GroupedScores]) -> Table:
    """A row per column, group, label and metric: means with their intervals, and the worst case."""
    rows = list(group_rows(grouped))
    columns = [
        Column(title="By", values=[row.by.column for row in rows], choose="All columns"),
        Column(title="Group", values=[row.group.name for row in rows]),
        Column(title="Label", values=[row.label for row in rows], choose="All labels"),
        Column(title="Metric", values=[METRICS[row.metric].with_unit for row in rows], choose="All metrics"),
    ]
    for title, field in (("Patients", "patients"), ("Cases", "cases")):
        columns.append(Column(title=title, values=[getattr(row.found, field) for row in rows], digits=0))
    for title, field in (("Mean", "mean"), ("95 % from", "low"), ("95 % to", "high"), ("Worst", "worst")):
        columns.append(Column(title=title, values=[getattr(row.found, field) for row in rows], digits=3))
    columns.append(Column(title="Worst case", values=[row.found.worst_case for row in rows]))
    return Table(name="Scores by group", columns=columns, search="Find a group", elsewhere=ELSEWHERE, sticky=2)


def group_test_table(grouped: Sequence[GroupedScores]) -> Table:
    """A row per column: the groups that are furthest apart in Dice, and the test."""
    gaps = [by.gap for by in grouped]
    columns = [
        Column(title="By", values=[by.column for by in grouped]),
        Column(title="Dice of", values=[by.tested for by in grouped]),
    ]
    for title, field in (("Highest group", "higher"), ("Lowest group", "lower")):
        columns.append(Column(title=title, values=["" if gap is None else getattr(gap, field) for gap in gaps]))
    for title, field in (("Gap", "gap"), ("95 % from", "low"), ("95 % to", "high")):
        columns.append(
            Column(title=title, values=[None if gap is None else getattr(gap, field) for gap in gaps], digits=3)
        )
    columns.append(Column(title="p", values=[by.p for by in grouped], significant=2))
    hint = "after Holm, for all columns"
    columns.append(Column(title="p corrected", hint=hint, values=[by.p_holm for by in grouped], significant=2))
    columns.append(Column(title="Untested", values=[by.untested for by in grouped]))
    return Table(name="Differences between groups", columns=columns, search="Find a column", elsewhere=ELSEWHERE)
