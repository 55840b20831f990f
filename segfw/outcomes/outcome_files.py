"""The files of a study: tables, the frozen model, the page; the report last, because it says that they are there."""

from __future__ import annotations

from pathlib import Path

from segfw.base.files import write_text
from segfw.base.output_paths import PAGE_ENDINGS, is_json_with, is_page, is_table_of, require_replaceable
from segfw.base.printing import csv_text
from segfw.base.records import UserError
from segfw.outcomes.model_figures import THRESHOLDS, mean_net_benefit, net_benefit_of_all
from segfw.outcomes.outcome_model import OutcomeModel
from segfw.outcomes.outcome_page import write_outcome_page
from segfw.outcomes.outcome_report import FeatureShare, OutcomeReport
from segfw.outcomes.outcome_study import Scored

REPORT = "outcome.json"
MODEL = "outcome_model.json"
PAGE = "outcome.html"
PATIENTS = "outcome_patients.csv"
SHARES = "outcome_features.csv"
BENEFIT = "outcome_net_benefit.csv"
TEST_PATIENTS = "outcome_test_patients.csv"
TEST_BENEFIT = "outcome_test_net_benefit.csv"
COLUMNS = {
    PATIENTS: ("patient", "event"),
    TEST_PATIENTS: ("patient", "event"),
    SHARES: ("feature", "considered", "used"),
    BENEFIT: ("threshold", "all"),
    TEST_BENEFIT: ("threshold", "all"),
}


def require_own_outputs(output: Path) -> None:
    """UserError if the place of the folder is taken, or a file of a study's name is there that is something else."""
    if output.is_file():
        raise UserError(f"{output}: is a file; give a folder for the report")
    require_replaceable(output / REPORT, (".json",), is_json_with("kind", "models", "formulas"))
    require_replaceable(output / MODEL, (".json",), is_json_with("kind", "equations"))
    require_replaceable(output / PAGE, PAGE_ENDINGS, is_page)
    for name, columns in COLUMNS.items():
        require_replaceable(output / name, (".csv",), is_table_of(*columns))


def write_study(
    output: Path,
    report: OutcomeReport,
    model: OutcomeModel | None,
    held_out: Scored | None,
    test: Scored | None,
) -> list[Path]:
    """What was written; a file of an earlier call that this one has nothing for does not stay."""
    texts: dict[str, str] = {}
    if held_out is not None:
        texts[PATIENTS] = patients_csv(held_out)
        texts[SHARES] = shares_csv(report.shares)
        texts[BENEFIT] = benefit_csv(held_out)
    if test is not None:
        texts[TEST_PATIENTS] = patients_csv(test)
        texts[TEST_BENEFIT] = benefit_csv(test)
    for name in (REPORT, *COLUMNS.keys() - texts.keys()):
        (output / name).unlink(missing_ok=True)
    for name, text in texts.items():
        write_text(output / name, text)
    written = [output / name for name in texts]
    if model is not None:
        model.save(output / MODEL)
        written.append(output / MODEL)
    write_outcome_page(output / PAGE, report, held_out, test)
    report.save(output / REPORT)
    return [*written, output / PAGE, output / REPORT]


def patients_csv(scored: Scored) -> str:
    """A row a patient: the outcome, and the mean probability of all repeats by each model."""
    rows = []
    for index, patient in enumerate(scored.patients):
        means = [f"{each[:, index].mean():.6g}" for each in scored.probabilities.values()]
        rows.append([patient, int(scored.has_event_n[index]), *means])
    return csv_text([*COLUMNS[PATIENTS], *scored.probabilities], rows)


def shares_csv(shares: tuple[FeatureShare, ...]) -> str:
    """A row for each feature that was considered in any training part."""
    rows = [[each.feature, f"{each.considered:.4g}", f"{each.used:.4g}", f"{each.coefficient:.10g}"] for each in shares]
    return csv_text([*COLUMNS[SHARES], "coefficient"], rows)


def benefit_csv(scored: Scored) -> str:
    """A row a threshold: net benefit of treating all, and by each model, the mean of all repeats."""
    of_all = net_benefit_of_all(scored.has_event_n)
    curves = [mean_net_benefit(rows_rn, scored.has_event_n) for rows_rn in scored.probabilities.values()]
    rows = []
    for index, threshold in enumerate(THRESHOLDS):
        rows.append([threshold, f"{of_all[index]:.6g}", *(f"{curve[index]:.6g}" for curve in curves)])
    return csv_text([*COLUMNS[BENEFIT], *scored.probabilities], rows)
