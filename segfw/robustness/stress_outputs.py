"""The files of a report: the record, the table and the page; the record last, because it says that they are there."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

from segfw.base.files import write_text
from segfw.base.output_paths import PAGE_ENDINGS, is_json_with, is_page, is_table_of, require_replaceable
from segfw.inference.mask_settings import PredictionSettings
from segfw.robustness.stress_case import StressJob
from segfw.robustness.stress_folder import StressCase
from segfw.robustness.stress_page import write_stress_page
from segfw.robustness.stress_records import StressReport
from segfw.robustness.stress_report import Asked, gathered
from segfw.robustness.stress_table import FIRST_COLUMNS, outputs_of, stress_csv


def require_own_outputs(output: Path) -> None:
    """UserError if a file of a report's name is there that is something else."""
    report, table, page = outputs_of(output)
    require_replaceable(report, (".json",), is_json_with("kind", "changes", "levels"))
    require_replaceable(table, (".csv",), is_table_of(*FIRST_COLUMNS))
    require_replaceable(page, PAGE_ENDINGS, is_page)


def write_outputs(
    work: StressJob,
    cases: Sequence[StressCase],
    settings: PredictionSettings,
    asked: Asked,
) -> StressReport:
    """Writes the report of all that was tried of the cases by now, by whichever process."""
    folder = work.folder
    report_file, table_file, page_file = outputs_of(folder.output)
    with folder.alone():
        report = gathered(
            folder,
            cases,
            settings,
            asked,
            orientation=work.predictor.plan.orientation,
        )
        kept = [found for found in map(folder.current, cases) if found is not None]
        write_text(table_file, stress_csv(kept, asked.structures))
        write_stress_page(page_file, report, work, cases)
        report.save(report_file)
    return report
