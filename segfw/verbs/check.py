"""``segfw check``: a data set before anything is trained on it."""

from __future__ import annotations

import argparse
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING

from segfw.base.command import Argument, Command
from segfw.base.options import takes_options
from segfw.checkup.check_options import CheckOptions

if TYPE_CHECKING:
    from segfw.checkup.check_report import CheckReport

JSON_FILE = "check.json"
PAGE_FILE = "check.html"


@takes_options(options=CheckOptions)
def check_dataset(raw: Path, options: CheckOptions = CheckOptions()) -> CheckReport:
    """Checks a data set and says what is in it and what is wrong.

    Parameters
    ----------
    raw
        Folder of images and masks, in any layout that training takes; or with ``images/`` alone.
    options
        What is written: ``output`` is a folder that gets check.json and check.html, a page with pictures, and of a tree
        of DICOM with structure sets structures.csv, which proposes the labels of their structures; ``fix`` a new
        folder that gets a repaired copy of the data set and fixes.json, if anything can be repaired. ``groups`` tells
        the patient of every case (see ``read_groups``).

    Returns
    -------
    CheckReport
        All findings, the cases and the labels; with ``fix`` those of the copy, which ``output`` then describes too.

    Raises
    ------
    UserError
        If ``raw`` holds no data set, or there is no mask or no new folder for ``fix``.
    """
    from segfw.base.output_paths import PAGE_ENDINGS, is_json_with, is_page, require_outside, require_replaceable
    from segfw.base.records import UserError
    from segfw.checkup.duplicates import TOLD_BY_IDS
    from segfw.checkup.examine import examine
    from segfw.dataset.layouts import find_dataset, find_dataset_or_images
    from segfw.dataset.patients import read_groups
    from segfw.dataset.pseudonyms import with_pseudonyms
    from segfw.dataset.structure_map import STRUCTURES_FILE, read_structure_map, write_proposal

    raw = Path(raw)
    if options.output is not None:
        require_outside(options.output, (raw,))
        require_replaceable(options.output / JSON_FILE, (".json",), is_json_with("findings", "cases"))
        require_replaceable(options.output / PAGE_FILE, PAGE_ENDINGS, is_page)
    if options.fix is not None:
        from segfw.checkup.repair import needs_repair, require_new_folder, write_fixed

        require_new_folder(options.fix, raw)
    found = find_dataset_or_images(raw, options.label_names)
    if options.pseudonyms is not None:
        require_outside(options.pseudonyms, (raw, options.output, options.fix))
        found = with_pseudonyms(found, options.pseudonyms)
    if options.fix is not None and not any(case.label for case in found.cases):
        raise UserError(f"{raw}: has no masks (labels/), without which nothing is repaired; leave out --fix")
    patient_of = read_groups(options.groups, [case.id for case in found.cases], found.patient_of)
    source = TOLD_BY_IDS
    if options.groups is not None or found.patient_of:
        source = "told by the folders" if options.groups is None else "as --groups says"
    examination = examine(found, patient_of, source=source, workers=options.workers)

    if options.fix is not None and needs_repair(found, examination.report):
        write_fixed(found, examination.report, options.fix)
        # The copy goes by the name of what it is a copy of.
        found = replace(find_dataset(options.fix, options.label_names), name=found.name)
        kept = {case.id: patient_of[case.id] for case in found.cases}
        examination = examine(found, kept, source=source, workers=options.workers)

    if options.output is not None:
        from segfw.checkup.check_page import write_report_html

        if found.structure_names:
            given = raw / STRUCTURES_FILE
            known = read_structure_map(given) if given.is_file() else None
            write_proposal(options.output / STRUCTURES_FILE, found.structure_names, known)
        examination.report.save(options.output / JSON_FILE)
        write_report_html(options.output / PAGE_FILE, examination, found)
    return examination.report


def _say_result(typed: argparse.Namespace, report: CheckReport) -> int:
    from segfw.dataset.structure_map import STRUCTURES_FILE

    print(report.text())
    if typed.fix and not typed.fix.exists():
        print(f"nothing was found that --fix can repair, so {typed.fix} was not made: go on with {typed.raw} as it is")
    if typed.output and (typed.output / STRUCTURES_FILE).is_file():
        print(f"labels of structures: {typed.output}/{STRUCTURES_FILE}, to be read, corrected and put into {typed.raw}")
    if typed.output:
        print(f"pictures: {typed.output}/{PAGE_FILE}")
    return report.exit_code


COMMAND = Command(
    function=check_dataset,
    what="The doctor for data: read every case once and say what is wrong, odd or doubtful, and in which case.",
    example="segfw check hippocampus --output report --fix repaired",
    arguments=(Argument(name="raw", help="folder of images and masks"),),
    say_result=_say_result,
    gives_json=True,
)
