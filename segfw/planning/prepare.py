"""From a RAW folder to a work folder that training can start from; what is done is not done again."""

from __future__ import annotations

import hashlib
from math import prod
from pathlib import Path

from segfw.data.formats import size_and_change
from segfw.data.geometry import Spacing
from segfw.data.layouts import find_dataset
from segfw.data.manifest import DatasetManifest, FoundDataset
from segfw.data.parallel import FAILURES_FILE, CasesFailed
from segfw.data.store import preprocess_dataset
from segfw.planning.fingerprint import Fingerprint, scan_dataset
from segfw.planning.plan import PLAN_FILE, Plan
from segfw.planning.planner import make_plan
from segfw.planning.splits import Splits, import_splits, make_splits
from segfw.records import Record, UserError

MANIFEST_FILE, SPLITS_FILE = "manifest.json", "splits.json"
FINGERPRINT_FILE, SCAN_FILE = "fingerprint.json", "scan.json"


class Scan(Record):
    """Which files the manifest and the fingerprint were made from."""

    digest: str


def plan_and_preprocess(
    raw: Path,
    work: Path,
    *,
    preset: str = "plain",
    gpu_memory_gb: float | None = None,
    configurations: tuple[str, ...] | None = None,
    spacing_mm: Spacing | None = None,
    workers: int | None = None,
    plan_only: bool = False,
    overwrite: bool = False,
) -> Plan:
    """Verifies the data, plans, draws the folds and preprocesses; what is there from the same files is kept.

    Writes manifest.json, fingerprint.json, plan.json, splits.json and preprocessed/ into ``work``. Raises UserError
    if the data have problems or another plan is already trained here, CasesFailed if cases could not be preprocessed.
    """
    raw, work = Path(raw), Path(work)
    found = find_dataset(raw)
    _refuse_foreign_folder(work)
    manifest, fingerprint = _scan(found, work, workers, overwrite)
    plan = make_plan(manifest, fingerprint, preset=preset, gpu_memory_gb=gpu_memory_gb, spacing_mm=spacing_mm)
    for name in configurations or ():
        plan.configuration(name)
    _keep(work, PLAN_FILE, plan, overwrite)
    _keep(work, SPLITS_FILE, _splits(raw, manifest), overwrite)
    print(f"planned {', '.join(plan.configurations)} for {len(manifest.cases)} cases; segfw info {work} explains it")
    if plan_only:
        return plan
    chosen = {name: plan.configurations[name].preprocessing for name in configurations or plan.configurations}
    shapes = {case.id: prod(case.shape) * len(plan.channels) * 4 for case in fingerprint.cases}
    failures = preprocess_dataset(
        manifest.cases, manifest.labels, chosen, work / "preprocessed", case_bytes=shapes, workers=workers
    )
    if failures:
        raise CasesFailed("in preprocessing", failures, work)
    (work / FAILURES_FILE).unlink(missing_ok=True)
    print(f"preprocessed {', '.join(chosen)} into {work / 'preprocessed'}")
    return plan


def _refuse_foreign_folder(work: Path) -> None:
    """A folder with other things in it is not written into: it may be the raw data by mistake."""
    if work.is_file():
        raise UserError(f"{work}: is a file; give a folder to work in")
    known = {MANIFEST_FILE, PLAN_FILE, SCAN_FILE, "preprocessed", "runs"}
    names = {path.name for path in work.iterdir() if not path.name.startswith(".")} if work.is_dir() else set()
    if names and not names & known:
        raise UserError(f"{work}: holds other things ({sorted(names)[0]}); give a new or empty folder to work in")


def _scan(found: FoundDataset, work: Path, workers: int | None, overwrite: bool) -> tuple[DatasetManifest, Fingerprint]:
    """Manifest and fingerprint, from the work folder if no file has changed since."""
    digest = _files_digest(found)
    kept = work / SCAN_FILE
    if not overwrite and kept.is_file() and Scan.load(kept).digest == digest:
        return DatasetManifest.load(work / MANIFEST_FILE), Fingerprint.load(work / FINGERPRINT_FILE)
    manifest, fingerprint = scan_dataset(found, workers=workers)
    work.mkdir(parents=True, exist_ok=True)
    manifest.save(work / MANIFEST_FILE)
    fingerprint.save(work / FINGERPRINT_FILE)
    Scan(digest=digest).save(kept)
    print(f"checked {len(manifest.cases)} cases of {manifest.name} ({manifest.layout} layout)")
    for note in manifest.notes:
        print(f"  {note}")
    return manifest, fingerprint


def _files_digest(found: FoundDataset) -> str:
    """Changes when a file of the data set is added, removed or written to."""
    digest = hashlib.sha256(repr((found.channels, found.labels, found.problems)).encode())
    for case in found.cases:
        for path in (*case.images, case.label):
            size, change = size_and_change(path)
            digest.update(f"{path.resolve()} {size} {change}\n".encode())
    return digest.hexdigest()


def _splits(raw: Path, manifest: DatasetManifest) -> Splits:
    ids = [case.id for case in manifest.cases]
    given = raw / "splits_final.json"
    return import_splits(given, ids) if given.is_file() else make_splits(ids)


def _keep(work: Path, name: str, new: Record, overwrite: bool) -> None:
    """Saves a decision; refuses to replace another one that something has been trained by."""
    path = work / name
    if path.is_file():
        try:
            if type(new).load(path) == new:
                return
        except UserError:  # damaged or of another version
            if not overwrite:
                raise
        trained = sorted(str(file.parent.relative_to(work)) for file in work.glob("runs/*/*/*.safetensors"))
        if trained:
            raise UserError(
                f"{path}: would change, but {trained[0]} is trained by it; use another work folder, or delete "
                f"{work / 'runs'} and train again"
            )
    new.save(path)
