"""The check of a data set before anything is trained on it: one read of every case, then all that can be told."""

from __future__ import annotations

from pathlib import Path

from segfw.base.records import UserError
from segfw.checkup.check_report import CheckReport
from segfw.checkup.examine import examine
from segfw.dataset.layouts import find_dataset, find_images_alone
from segfw.dataset.patients import read_groups

JSON_FILE = "check.json"
PAGE_FILE = "check.html"


def check_dataset(
    raw: Path,
    *,
    output: Path | None = None,
    groups: str | Path | None = None,
    fix: Path | None = None,
    workers: int | None = None,
) -> CheckReport:
    """Checks the data set in ``raw`` and says what is in it and what is wrong; raises UserError if it is none.

    ``output`` is a folder that gets check.json and check.html, a page with pictures. ``groups`` tells the patient of
    every case (see ``read_groups``). ``fix`` is a new folder that gets a repaired copy of the data set and fixes.json;
    the report returned is then that of the copy, and ``output`` describes it too.
    """
    raw = Path(raw)
    if fix is not None:
        from segfw.checkup.repair import require_new_folder, write_fixed

        require_new_folder(Path(fix), raw)
    is_alone = (raw / "images").is_dir() and not (raw / "labels").is_dir()
    if is_alone and fix is not None:
        raise UserError(f"{raw}: has no masks (labels/), without which nothing is repaired; leave out --fix")
    found = find_images_alone(raw) if is_alone else find_dataset(raw)
    patient_of = read_groups(groups, [case.id for case in found.cases])
    examination = examine(found, patient_of, are_given=groups is not None, workers=workers)
    if fix is not None:
        write_fixed(found, examination.report, Path(fix))
        found = find_dataset(Path(fix))
        kept = {case.id: patient_of[case.id] for case in found.cases}
        examination = examine(found, kept, are_given=groups is not None, workers=workers)
    if output is not None:
        from segfw.checkup.check_page import write_report_html

        examination.report.save(Path(output) / JSON_FILE)
        write_report_html(Path(output) / PAGE_FILE, examination, found)
    return examination.report
