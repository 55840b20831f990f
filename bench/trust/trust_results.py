"""All figures of one model, as a line of bench/results/trust.jsonl, and as Markdown."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

import numpy as np

from bench.trust.figures_of_trust import (
    POOLED,
    BoundRow,
    DifferenceRow,
    Figure,
    GateRow,
    ScoreRow,
    UseRow,
    bound_rows,
    difference_rows,
    gate_rows,
    kinds_of,
    score_rows,
    use_rows,
)
from bench.trust.judged import FAIL_BELOW, fitted_splits, gate_scores, kept_masks, masks_of_one_fold
from bench.trust.kept_cases import read_items
from segfw.base.own_version import own_version
from segfw.base.records import Record
from segfw.quality.quality_model import CLEAN


class Worth(Record):
    """The figures of one way to predict: by the mean of all folds, or by one fold."""

    sd_clean: float
    scores: tuple[ScoreRow, ...]
    differences: tuple[DifferenceRow, ...]
    bounds: tuple[BoundRow, ...]
    uses: tuple[UseRow, ...]


class TrustResult(Record):
    """Of one model; patients are those of the calibration, and those that were kept out."""

    name: str
    seed: int
    minutes_per_fold: float
    processor: str
    version: str
    configuration: str
    folds: int
    splits: int
    fail_below: float
    patients: int
    kept_patients: int
    kept_cases: int
    why_no_use: str
    all_folds: Worth
    one_fold: Worth
    gate: tuple[GateRow, ...]


def result_of(
    items: Path, splits: int, fail_below: float = FAIL_BELOW, *, leaves_shifts_out: bool = True
) -> TrustResult:
    """Fits the models of all splits and judges the kept-out masks by each."""
    model, calibration, kept = read_items(items)
    fitted = fitted_splits(model, calibration, splits, fail_below=fail_below, leaves_shifts_out=leaves_shifts_out)
    why = next((one.model.use_rule.why for one in fitted if one.model.use_rule.threshold is None), "")
    gates = gate_scores(kept, fitted)
    worth = []
    for masks in (kept_masks(model, kept, fitted, gates), masks_of_one_fold(model, kept, fitted, gates)):
        kinds = kinds_of(masks)
        worth.append(
            Worth(
                sd_clean=float(masks.of(masks.shift == CLEAN).dice.std(ddof=1)),
                scores=tuple(score_rows(masks, kinds[:2])),
                differences=tuple(difference_rows(masks, kinds[:2])),
                bounds=tuple(bound_rows(masks, kinds)),
                uses=tuple(use_rows(masks, kinds, fitted)),
            )
        )
    return TrustResult(
        name=model.name,
        seed=model.seed,
        minutes_per_fold=model.minutes_per_fold,
        processor=model.processor,
        version=own_version(),
        configuration=model.identity.configuration,
        folds=len(model.identity.folds),
        splits=splits,
        fail_below=fail_below,
        patients=len({model.patient_of[case.case] for case in calibration}),
        kept_patients=len(set(model.kept_patient_of.values())),
        kept_cases=len(kept),
        why_no_use=why,
        all_folds=worth[0],
        one_fold=worth[1],
        gate=tuple(gate_rows(model, gates)),
    )


def append_line(path: Path, result: Record) -> None:
    """Adds a line to a file of results."""
    path.parent.mkdir(parents=True, exist_ok=True)
    with open(path, "a", encoding="utf-8") as file:
        file.write(result.model_dump_json() + "\n")


def read_lines(path: Path) -> list[TrustResult]:
    """The newest result of each model, and Dice that counts as failed, in a file."""
    found: dict[tuple[str, int, float], TrustResult] = {}
    for number, line in enumerate(path.read_text(encoding="utf-8").splitlines(), 1):
        if line.strip():
            result = TrustResult.parse(line, f"{path}, line {number}")
            found[(result.name, result.seed, result.fail_below)] = result
    return list(found.values())


def as_markdown(result: TrustResult) -> str:
    """Every table of a result."""
    head = (
        f"**{result.name}, seed {result.seed}** ({result.configuration}, {result.folds} folds of "
        f"{result.minutes_per_fold:g} min on one core; quality from {result.patients} patients, judged on "
        f"{result.kept_cases} cases of {result.kept_patients} kept-out ones; failed is a Dice below "
        f"{result.fail_below}; SD of clean Dice {result.all_folds.sd_clean:.3f})"
    )
    lines = [head]
    for title, worth in (("Mean of all folds", result.all_folds), ("One fold, its own Dice", result.one_fold)):
        lines += ["", f"{title}: what scores are worth", "", *_score_lines(worth)]
        lines += ["", f"{title}: 90 % bound and verdict 'use'", "", *_bound_lines(worth)]
    if result.why_no_use:
        lines += ["", f"No 'use' in some or all splits: {result.why_no_use}."]
    lines += ["", "Input gate", "", *_gate_lines(result.gate)]
    return "\n".join(lines)


def _score_lines(worth: Worth) -> list[str]:
    """A row per score: on clean masks, and on clean and spoilt ones together."""
    rows = {(row.score, row.kind): row for row in worth.scores}
    less = {(row.score, row.kind): row.difference for row in worth.differences}
    counts = {row.kind: f"{row.masks} masks, {row.failed} failed" for row in worth.scores}
    names = list(dict.fromkeys(row.score for row in worth.scores))
    lines = []
    for kind, title in ((POOLED, "clean and six shifts"), (CLEAN, "clean")):
        lines += [
            "",
            f"| {title}: {counts[kind]} | nAURC | less pairs | Spearman | AUROC | MAE | bias |",
            "|---|---|---|---|---|---|---|",
        ]
        for name in names:
            row = rows[name, kind]
            difference = less.get((name, kind), Figure(mean=None))
            cells = [_cell(row.naurc), _cell(difference), _cell(row.spearman)]
            cells += [_mean(figure) for figure in (row.auroc, row.mae, row.bias)]
            lines.append(f"| {name} | {' | '.join(cells)} |")
    return lines[1:]


def _bound_lines(worth: Worth) -> list[str]:
    lines = [
        "| images | masks | Dice | bound covers | margin | covers, shift left out of the fit | MAE then | bias then | "
        "good masks released | wrong among released |",
        "|---|---|---|---|---|---|---|---|---|---|",
    ]
    for bound, use in zip(worth.bounds, worth.uses):
        cells = [_cell(bound.covered), _mean(bound.margin), _cell(bound.covered_unseen), _mean(bound.mae_unseen)]
        cells += [_mean(bound.bias_unseen), _cell(use.good_released), _cell(use.wrong_share)]
        shown = " | ".join(cells)
        lines.append(f"| {bound.kind} | {bound.masks} | {bound.dice:.3f} | {shown} |")
    return lines


def _gate_lines(rows: Sequence[GateRow]) -> list[str]:
    lines = ["| images | called odd or far | AUROC against clean |", "|---|---|---|"]
    for row in rows:
        flagged = "-" if row.flagged is None else f"{row.flagged:.2f}"
        lines.append(f"| {row.kind} | {flagged} | {'-' if row.auroc is None else f'{row.auroc:.2f}'} |")
    return lines


def _mean(figure: Figure) -> str:
    return _cell(Figure(mean=figure.mean))


def _cell(figure: Figure) -> str:
    if figure.mean is None or not np.isfinite(figure.mean):
        return "-"
    if figure.low is None or figure.high is None:
        return f"{figure.mean:.3f}"
    return f"{figure.mean:.3f} ({figure.low:.3f} to {figure.high:.3f})"
