"""From a RAW folder to a work folder that training can start from; what is done is not done again."""

from __future__ import annotations

import hashlib
import threading
from collections.abc import Sequence
from functools import partial
from math import prod
from pathlib import Path
from typing import Literal

import torch

from segfw.base.cluster import cluster_pool
from segfw.base.device import pick_device
from segfw.base.parallel import FAILURES_FILE, CasesFailed
from segfw.base.records import Record, UserError
from segfw.base.resources import free_memory_bytes
from segfw.dataset.cases import MANIFEST_FILE, Case, DatasetManifest, Finding, FoundDataset
from segfw.dataset.layouts import find_dataset
from segfw.dataset.patients import read_groups
from segfw.grid.store import DecodedCases, preprocess_dataset
from segfw.images.formats import size_and_change
from segfw.images.geometry import Spacing
from segfw.nnunet.followed_plans import given_plan, given_wishes
from segfw.planning.case_measure import CaseMeasure
from segfw.planning.fingerprint import FINGERPRINT_FILE, Fingerprint, scan_dataset
from segfw.planning.measure import expected, planned_memory_gb
from segfw.planning.memory import load_counter
from segfw.planning.plan import PLAN_FILE, Plan
from segfw.planning.planner import make_plan, require_possible
from segfw.planning.splits import SPLITS_FILE, Splits, import_splits, make_splits, split_notes

SCAN_FILE = "scan.json"
NOTES_SHOWN = 8
SCAN_RULES = 2  # raised when a scan finds out more than before
KEPT_SHARE = 0.1  # of the free memory for cases that were read for planning and wait to be preprocessed


class Scan(Record):
    """Which files the manifest and the fingerprint were made from."""

    digest: str


def plan_and_preprocess(
    raw: Path,
    work: Path,
    *,
    preset: str = "plain",
    gpu_memory_gb: float | Literal["auto"] | None = None,
    as_published: bool = False,
    configurations: tuple[str, ...] | None = None,
    spacing_mm: Spacing | None = None,
    groups: str | Path | None = None,
    splits: Path | None = None,
    plans: Path | None = None,
    workers: int | None = None,
    plan_only: bool = False,
    device: str = "auto",
    cluster: str | None = None,
    overwrite: bool = False,
) -> Plan:
    """Verifies the data, plans, draws the folds and preprocesses; what is there from the same files is kept.

    ``gpu_memory_gb`` is the memory to fill; 'auto' reads that of ``device``, None takes what the preset was published
    with, or the device's memory if that is less. A plan that was made from the same data with the same wishes is kept,
    on whatever device. ``groups`` says which cases are of one patient: a CSV file, or a regular expression with one
    group; None guesses from the names. ``splits`` is a file of given folds, ``plans`` nnU-Net's plans to follow to the
    letter instead of planning. ``cluster`` is the address of a Dask scheduler, whose workers preprocess; cases are read
    for the plan by ``workers`` threads here.

    Writes manifest.json, fingerprint.json, plan.json, splits.json and preprocessed/ into ``work``. Raises UserError if
    the data have problems or another plan is already trained here, CasesFailed if cases could not be preprocessed.
    """
    raw, work = Path(raw), Path(work)
    chosen_device = pick_device(device)
    found = find_dataset(raw)
    _refuse_foreign_folder(work)
    decoded = DecodedCases(0 if plan_only or cluster else KEPT_SHARE * free_memory_bytes())
    manifest, fingerprint = _scan(found, work, workers, overwrite, decoded)
    wishes = {
        "preset": preset,
        "gpu_memory_gb": gpu_memory_gb,
        "as_published": as_published,
        "spacing_mm": spacing_mm,
    }
    if plans is not None:
        wishes = given_wishes(Path(plans), wishes)
    plan = _plan(work, manifest, fingerprint, wishes, chosen_device, overwrite)
    require_possible(configurations or (), plan, is_given=plans is not None)
    folds, notes = _splits(raw, manifest, fingerprint, groups, splits)
    _keep(work, SPLITS_FILE, folds, overwrite)
    print(f"{folds.source}{''.join(f'{chr(10)}  {note}' for note in notes)}")
    print(f"planned {', '.join(plan.configurations)} for {len(manifest.cases)} cases; segfw info {work} explains it")
    if plan_only:
        return plan
    names = dict.fromkeys(plan.configurations[name].data_name for name in configurations or plan.configurations)
    chosen = {name: plan.configurations[name].preprocessing for name in names}
    how = {"case_bytes": {case.id: _float32_bytes(case, plan) for case in fingerprint.cases}}
    if cluster is None:
        how |= {"decoded": decoded, "workers": workers}
        failures = preprocess_dataset(manifest.cases, manifest.labels, chosen, work / "preprocessed", **how)
    else:
        cases, folder = _from_anywhere(manifest), (work / "preprocessed").absolute()
        with cluster_pool(cluster, reads=[raw.absolute()], writes=folder) as pool:
            failures = preprocess_dataset(cases, manifest.labels, chosen, folder, pool=pool, **how)
    if failures:
        raise CasesFailed("in preprocessing", failures, work)
    (work / FAILURES_FILE).unlink(missing_ok=True)
    print(f"preprocessed {', '.join(chosen)} into {work / 'preprocessed'}")
    return plan


def _from_anywhere(manifest: DatasetManifest) -> tuple[Case, ...]:
    """The cases with absolute paths: a worker of a cluster is in a folder of its own."""
    return tuple(
        case.model_copy(
            update={
                "images": tuple(path.absolute() for path in case.images),
                "label": case.label and case.label.absolute(),
            }
        )
        for case in manifest.cases
    )


def _plan(
    work: Path,
    manifest: DatasetManifest,
    fingerprint: Fingerprint,
    wishes: dict,
    device: torch.device,
    overwrite: bool,
) -> Plan:
    """The plan in the work folder if it was made from the same data with the same wishes, else a new one."""
    request = repr(sorted(wishes.items())) + manifest.model_dump_json() + fingerprint.model_dump_json()
    digest = hashlib.sha256(request.encode()).hexdigest()
    path = work / PLAN_FILE
    if path.is_file() and not overwrite:
        kept = Plan.load(path)
        if kept.request == digest:
            return kept
    if "plans" in wishes:
        given = partial(given_plan, manifest, **wishes["plans"], request=digest)
        plan = expected(given, device, fixed=True)
        _keep(work, PLAN_FILE, plan, overwrite)
        return plan
    is_fixed = wishes["as_published"]
    memory_gb = planned_memory_gb(wishes["gpu_memory_gb"], wishes["preset"], device, as_published=is_fixed)
    known = wishes | {"gpu_memory_gb": memory_gb, "request": digest}
    plan = expected(lambda share: make_plan(manifest, fingerprint, use_share=share, **known), device, fixed=is_fixed)
    _keep(work, PLAN_FILE, plan, overwrite)
    return plan


def _refuse_foreign_folder(work: Path) -> None:
    """A folder with other things in it is not written into: it may be the raw data by mistake."""
    if work.is_file():
        raise UserError(f"{work}: is a file; give a folder to work in")
    known = {MANIFEST_FILE, PLAN_FILE, SCAN_FILE, "preprocessed", "runs"}
    names = {path.name for path in work.iterdir() if not path.name.startswith(".")} if work.is_dir() else set()
    if names and not names & known:
        raise UserError(f"{work}: holds other things ({sorted(names)[0]}); give a new or empty folder to work in")


def _scan(
    found: FoundDataset, work: Path, workers: int | None, overwrite: bool, decoded: DecodedCases
) -> tuple[DatasetManifest, Fingerprint]:
    """Manifest and fingerprint, from the work folder if no file has changed since."""
    digest = _files_digest(found)
    kept = work / SCAN_FILE
    if not overwrite and kept.is_file() and Scan.load(kept).digest == digest:
        return DatasetManifest.load(work / MANIFEST_FILE), Fingerprint.load(work / FINGERPRINT_FILE)
    threading.Thread(target=load_counter, daemon=True).start()  # new data need a new plan, for which steps are counted
    manifest, fingerprint = scan_dataset(found, workers=workers, also=decoded.keep)
    work.mkdir(parents=True, exist_ok=True)
    _keep(work, MANIFEST_FILE, manifest, overwrite)  # first of all: it may refuse, and nothing has changed then
    fingerprint.save(work / FINGERPRINT_FILE)
    Scan(digest=digest).save(kept)
    print(f"checked {len(manifest.cases)} cases of {manifest.name} ({manifest.layout} layout)")
    for note in manifest.notes:
        print(f"  {note}")
    return manifest, fingerprint


def _files_digest(found: FoundDataset) -> str:
    """Changes when a file of the data set is added, removed or written to."""
    label_maps = [case.label_map for case in found.cases]
    findings = _as_digested(found.findings)
    text = f"({SCAN_RULES!r}, {found.channels!r}, {found.labels!r}, {findings}, {label_maps!r})"
    digest = hashlib.sha256(text.encode())
    for case in found.cases:
        for path in (*case.images, case.label):
            size, change = size_and_change(path)
            digest.update(f"{path.resolve()} {size} {change}\n".encode())
    return digest.hexdigest()


def _as_digested(findings: Sequence[Finding]) -> str:
    """Findings as work folders have always digested them: in other words all of them would be read anew."""
    texts = []
    for finding in findings:
        texts.append(
            f"Problem(kind={finding.kind!r}, case={finding.case!r}, file={finding.file!r}, what={finding.what!r}, "
            f"remedy={finding.remedy!r}, is_warning={finding.severity != 'error'!r}, others={finding.others!r})"
        )
    return f"({texts[0]},)" if len(texts) == 1 else f"({', '.join(texts)})"


def _splits(
    raw: Path, manifest: DatasetManifest, fingerprint: Fingerprint, groups: str | Path | None, given: Path | None
) -> tuple[Splits, list[str]]:
    """The folds, given or drawn, and what is to be said about them."""
    ids = [case.id for case in manifest.cases]
    patients = read_groups(groups, ids)
    names = {str(value): name for value, name in zip(manifest.labels.values[1:], manifest.labels.names[1:])}
    labels_of = {case.id: {names[value] for value in case.label_voxels if value in names} for case in fingerprint.cases}
    with_data = raw / "splits_final.json"
    path = given or (with_data if with_data.is_file() else None)
    if path is None:
        folds = make_splits(ids, groups=patients, labels_of_case=labels_of)
    else:
        folds = import_splits(Path(path), ids, patients)
    notes = split_notes(folds, labels_of)
    more = [f"... and {len(notes) - NOTES_SHOWN} more"] if len(notes) > NOTES_SHOWN else []
    return folds, notes[:NOTES_SHOWN] + more


def _float32_bytes(case: CaseMeasure, plan: Plan) -> int:
    """Bytes of a case's image as float32, on its own grid or on the finest that it is resampled to."""
    voxels = [prod(case.shape)]
    for configuration in plan.configurations.values():
        how = configuration.preprocessing
        own_mm = [1.0 if how.voxel_size == "unit" else case.spacing_mm[axis] for axis in how.axis_order]
        target_mm = [own if wanted is None else wanted for own, wanted in zip(own_mm, how.spacing_mm)]
        voxels.append(int(prod(case.cropped_shape) * prod(own_mm) / prod(target_mm)))
    return 4 * len(plan.channels) * max(voxels)


def _decisions(record: Record) -> Record:
    """The record without what depends on the machine and not on the data."""
    return record.without_estimates() if isinstance(record, Plan) else record


def _keep(work: Path, name: str, new: Record, overwrite: bool) -> None:
    """Saves a decision; refuses to replace another one that something has been trained by."""
    path = work / name
    if path.is_file():
        try:
            if _decisions(type(new).load(path)) == _decisions(new):
                new.save(path)
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
