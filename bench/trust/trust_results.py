"""All figures of one model, as a line of bench/results/trust.jsonl, and as Markdown."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

import numpy as np

from bench.figures import markdown
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

    @property
    def key(self) -> tuple[str, int, float]:
        """What tells results apart."""
        return self.name, self.seed, self.fail_below


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


def as_markdown(result: TrustResult) -> str:
    """Every table of a result."""
    head = (
        f"**{result.name}, seed {result.seed}** ({result.configuration}, {result.folds} folds of "
        f"{result.minutes_per_fold:g} min on one core; quality from {result.patients} patients, judged on "
        f"{result.kept_cases} cases of {result.kept_patients} kept-out ones; failed is a Dice below "
        f"{result.fail_below}; SD of clean Dice {result.all_folds.sd_clean:.3f})"
    )
    parts = [head]
    for title, worth in (("Mean of all folds", result.all_folds), ("One fold, its own Dice", result.one_fold)):
        parts += [f"{title}: what scores are worth", *_score_tables(worth)]
        parts += [f"{title}: 90 % bound and verdict 'use'", _bound_table(worth)]
    if result.why_no_use:
        parts.append(f"No 'use' in some or all splits: {result.why_no_use}.")
    parts += ["Input gate", _gate_table(result.gate)]
    return "\n\n".join(parts)


def _score_tables(worth: Worth) -> list[str]:
    """A row per score: on clean and spoilt masks together, and on clean ones."""
    row_of = {(row.score, row.kind): row for row in worth.scores}
    less = {(row.score, row.kind): row.difference for row in worth.differences}
    counts = {row.kind: f"{row.masks} masks, {row.failed} failed" for row in worth.scores}
    names = list(dict.fromkeys(row.score for row in worth.scores))
    tables = []
    for kind, title in ((POOLED, "clean and six shifts"), (CLEAN, "clean")):
        rows = [[f"{title}: {counts[kind]}", "nAURC", "less pairs", "Spearman", "AUROC", "MAE", "bias"]]
        for name in names:
            row = row_of[name, kind]
            difference = less.get((name, kind), Figure(mean=None))
            cells = [_cell(row.naurc), _cell(difference), _cell(row.spearman)]
            cells += [_mean(figure) for figure in (row.auroc, row.mae, row.bias)]
            rows.append([name, *cells])
        tables.append(markdown(rows))
    return tables


def _bound_table(worth: Worth) -> str:
    head = ["images", "masks", "Dice", "bound covers", "margin", "covers, shift left out of the fit", "MAE then"]
    rows = [[*head, "bias then", "good masks released", "wrong among released"]]
    for bound, use in zip(worth.bounds, worth.uses):
        cells = [_cell(bound.covered), _mean(bound.margin), _cell(bound.covered_unseen), _mean(bound.mae_unseen)]
        cells += [_mean(bound.bias_unseen), _cell(use.good_released), _cell(use.wrong_share)]
        rows.append([bound.kind, str(bound.masks), f"{bound.dice:.3f}", *cells])
    return markdown(rows)


def _gate_table(rows: Sequence[GateRow]) -> str:
    shown = [["images", "called odd or far", "AUROC against clean"]]
    for row in rows:
        flagged = "-" if row.flagged is None else f"{row.flagged:.2f}"
        shown.append([row.kind, flagged, "-" if row.auroc is None else f"{row.auroc:.2f}"])
    return markdown(shown)


def _mean(figure: Figure) -> str:
    return _cell(Figure(mean=figure.mean))


def _cell(figure: Figure) -> str:
    if figure.mean is None or not np.isfinite(figure.mean):
        return "-"
    if figure.low is None or figure.high is None:
        return f"{figure.mean:.3f}"
    return f"{figure.mean:.3f} ({figure.low:.3f} to {figure.high:.3f})"
