"""Work folders of both arms: the model's plan and data, for the new arm with the new cases, for the control without.

What is preprocessed already is taken over as hard links, which take no room and stay whole when the first folder is
deleted; as copies where the disk has none.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from segfw.base.files import link_or_copy, remove_partials
from segfw.base.parallel import FAILURES_FILE, CasesFailed
from segfw.base.records import GIGABYTE, UserError
from segfw.base.words import count
from segfw.dataset.cases import MANIFEST_FILE, Case, DatasetManifest, FoundDataset, has_errors
from segfw.dataset.labels import LabelSet
from segfw.grid.store import load_stored, preprocess_dataset
from segfw.planning.case_measure import CaseMeasure
from segfw.planning.fingerprint import FINGERPRINT_FILE, DataProblems, Fingerprint, scan_cases
from segfw.planning.plan import PLAN_FILE, Configuration, Plan
from segfw.planning.preprocessed_bytes import float32_bytes
from segfw.planning.splits import SPLITS_FILE, Splits
from segfw.retraining.retraining_record import CONTROL_FOLDER, NewLabel


@dataclass(frozen=True, kw_only=True)
class WorkContent:
    """What a work folder holds besides what is trained; ``root`` is where it lies."""

    root: Path
    plan: Plan
    splits: Splits
    manifest: DatasetManifest
    fingerprint: Fingerprint

    @classmethod
    def load(cls, work: Path, plan: Plan, splits: Splits) -> WorkContent:
        """Of a work folder whose plan and folds are read already."""
        return cls(
            root=work,
            plan=plan,
            splits=splits,
            manifest=DatasetManifest.load(work / MANIFEST_FILE),
            fingerprint=Fingerprint.load(work / FINGERPRINT_FILE),
        )


def measured_labels(folders: Sequence[Path], new: Sequence[NewLabel], base: WorkContent) -> list[CaseMeasure]:
    """Reads every new case, verifies it as training data are, and measures it.

    DataProblems, which lists all that is wrong in a folder, if a case cannot be trained on.
    """
    measures = []
    for folder in folders:
        cases = tuple(label.case for label in new if label.folder == folder.absolute())
        if not cases:
            continue
        found = FoundDataset(
            name=base.manifest.name,
            root=folder,
            layout="reviewed masks",
            channels=base.plan.channels,
            labels=base.manifest.labels,
            cases=cases,
        )
        scans, findings = scan_cases(found)
        if has_errors(findings):
            raise DataProblems(found, findings)
        for finding in findings:
            print(f"  {finding.full_sentence}")
        measures += [scan.measured.measure for scan in scans if scan.measured is not None]
    return measures


def write_new_arm(
    new_work: Path,
    base: WorkContent,
    new: Sequence[NewLabel],
    splits: Splits,
    configuration: Configuration,
    workers: int | None,
) -> None:
    """The work folder of the new arm: old cases taken over, new ones preprocessed by the same plan.

    Raises CasesFailed if new cases could not be preprocessed. What is there is not done again.
    """
    cases = (*base.manifest.cases, *(label.case for label in new))
    note = f"{count(len(new), 'case')} of segfw retrain, with masks that experts reviewed"
    manifest = base.manifest.model_copy(update={"cases": cases, "notes": (*base.manifest.notes, note)})
    measures = measured_labels(sorted({label.folder for label in new}), new, base) if new else []
    fingerprint = base.fingerprint.model_copy(update={"cases": (*base.fingerprint.cases, *measures)})
    manifest.save(new_work / MANIFEST_FILE)
    fingerprint.save(new_work / FINGERPRINT_FILE)
    plan = base.plan.model_copy(update={"training_cases": len(cases), "request": ""})
    plan.save(new_work / PLAN_FILE)
    splits.save(new_work / SPLITS_FILE)
    _take_over(base, new_work, base.manifest.cases, configuration, workers)
    sizes = {measure.id: float32_bytes(measure, base.plan) for measure in measures}
    _preprocess(new_work, tuple(label.case for label in new), base.manifest.labels, configuration, sizes, workers)


def write_control_arm(new_work: Path, base: WorkContent, configuration: Configuration, workers: int | None) -> None:
    """The work folder of the control arm: the model's own data and folds, as they were."""
    control = new_work / CONTROL_FOLDER
    base.manifest.save(control / MANIFEST_FILE)
    base.fingerprint.save(control / FINGERPRINT_FILE)
    base.plan.model_copy(update={"request": ""}).save(control / PLAN_FILE)
    base.splits.save(control / SPLITS_FILE)
    _take_over(base, control, base.manifest.cases, configuration, workers)


def _take_over(
    base: WorkContent, work: Path, cases: Sequence[Case], configuration: Configuration, workers: int | None
) -> None:
    """Preprocessed cases of the first work folder; those that it lacks, or has by another plan, are made."""
    name = configuration.data_name
    source = base.root / "preprocessed" / name
    target = work / "preprocessed" / name
    target.mkdir(parents=True, exist_ok=True)
    remove_partials(target)
    lacking: list[Case] = []
    copied_bytes = 0
    for case in cases:
        if not _is_stored(source, case, configuration):
            lacking.append(case)
        elif not _is_stored(target, case, configuration):
            copied_bytes += _link_case(source, target, case.id)
    how = f"copied ({copied_bytes / GIGABYTE:.2g} GB), because the disk has no hard links" if copied_bytes else "linked"
    print(f"{target}: {count(len(cases) - len(lacking), 'old case')} {how}")
    sizes = {case.id: float32_bytes(case, base.plan) for case in base.fingerprint.cases}
    _preprocess(work, tuple(lacking), base.manifest.labels, configuration, sizes, workers)


def _is_stored(folder: Path, case: Case, configuration: Configuration) -> bool:
    """Whether a case is there, by this plan. Its files need not be: what was trained on them is there to be gone on."""
    try:
        return load_stored(folder, case.id).preprocessing == configuration.preprocessing
    except UserError:
        return False


def _link_case(source: Path, target: Path, case: str) -> int:
    """Links or copies a case's arrays, then its record, which says that they are whole; returns the bytes copied."""
    names = (f"{case}.image.b2nd", f"{case}.classes.b2nd", f"{case}.foreground.b2nd", f"{case}.json")
    return sum(link_or_copy(source / name, target / name) for name in names)


def _preprocess(
    work: Path,
    cases: tuple[Case, ...],
    labels: LabelSet,
    configuration: Configuration,
    sizes: dict[str, int],
    workers: int | None,
) -> None:
    if not cases:
        return
    failures = preprocess_dataset(
        cases,
        labels,
        {configuration.data_name: configuration.preprocessing},
        work / "preprocessed",
        case_bytes=sizes,
        workers=workers,
    )
    if failures:
        raise CasesFailed("in preprocessing", failures, work)
    (work / FAILURES_FILE).unlink(missing_ok=True)
    print(f"preprocessed {count(len(cases), 'case')} into {work / 'preprocessed' / configuration.data_name}")
