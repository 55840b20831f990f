"""The page of a study: figures, curves, features and formulas, in one HTML file."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path

from segfw.base.figures import write_page
from segfw.base.tables import Column, Table
from segfw.outcomes.fitting_models import ModelName
from segfw.outcomes.outcome_plots import draw_curves, draw_shares
from segfw.outcomes.outcome_report import OF_MODELS, FeatureShare, ModelFigures, OutcomeReport
from segfw.outcomes.outcome_study import Scored

TEMPLATE = Path(__file__).with_name("outcome.html.jinja")


def write_outcome_page(path: Path, report: OutcomeReport, held_out: Scored | None, test: Scored | None) -> None:
    """Writes the page, atomically."""
    figures = report.models or (report.test.models if report.test is not None else {})
    head_name = head_of(figures)
    write_page(
        path,
        TEMPLATE,
        title=f"Outcome: {report.target}",
        report=report,
        head=figures[head_name],
        head_name=_headline(head_name),
        head_patients=report.patients if report.models or report.test is None else report.test.patients,
        head_events=report.events if report.models or report.test is None else report.test.events,
        left_out=report.left_out.texts(),
        model_names={name: text.capitalize() for name, text in OF_MODELS.items()},
        model_table=model_table("Models on held-out patients", report.models) if report.models else None,
        share_table=share_table(report.shares) if report.models else None,
        curves_png=None if held_out is None else draw_curves(held_out),
        shares_png=draw_shares(report.shares),
        test_table=None if report.test is None else model_table("Models on the second cohort", report.test.models),
        test_left_out=[] if report.test is None else report.test.left_out.texts(),
        test_png=None if test is None else draw_curves(test),
    )


def head_of(figures: Mapping[ModelName, ModelFigures]) -> ModelName:
    """The model that was meant before anything was seen: of both, where there are covariates."""
    return "both" if "both" in figures else "features"


def _headline(name: ModelName) -> str:
    return "covariates and features" if name == "both" else OF_MODELS[name]


def model_table(name: str, figures: Mapping[ModelName, ModelFigures]) -> Table:
    """A row a model."""
    rows = list(figures.values())
    columns = [
        Column(title="Model", values=[OF_MODELS[each] for each in figures]),
        Column(title="AUC", values=[each.auc for each in rows], digits=3),
        Column(title="from", values=[each.auc_low for each in rows], digits=3, hint="95 % interval over patients"),
        Column(title="to", values=[each.auc_high for each in rows], digits=3, hint="95 % interval over patients"),
    ]
    if any(each.auc_of_repeats for each in rows):
        ranges = [each.auc_of_repeats or (each.auc, each.auc) for each in rows]
        columns.append(Column(title="Repeats", values=[f"{low:.3f} to {high:.3f}" for low, high in ranges]))
    if any(each.p is not None for each in rows):
        columns.append(Column(title="p", values=[each.p for each in rows], digits=3, hint="by permutation"))
    columns += [
        Column(title="Brier", values=[each.brier for each in rows], digits=3, hint="less is better"),
        Column(title="Calibration", unit="intercept", values=[each.calibration_intercept for each in rows], digits=2),
        Column(title="Calibration", unit="slope", values=[each.calibration_slope for each in rows], digits=2),
    ]
    return Table(name=name, columns=columns)


def share_table(shares: Sequence[FeatureShare]) -> Table:
    """A row a feature."""
    return Table(
        name="Features",
        search="Find a feature",
        elsewhere="outcome_features.csv has all rows.",
        columns=[
            Column(title="Feature", values=[each.feature for each in shares]),
            Column(title="Handed on", unit="% of parts", values=[100 * each.considered for each in shares], digits=0),
            Column(title="Used", unit="% of parts", values=[100 * each.used for each in shares], digits=0),
            Column(
                title="Coefficient",
                unit="of the frozen model",
                values=[each.coefficient or None for each in shares],
                significant=4,
            ),
        ],
    )
