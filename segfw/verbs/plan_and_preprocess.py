"""From a RAW folder to a work folder that training can start from; what is done is not done again."""

from __future__ import annotations

import hashlib
import threading
from collections.abc import Sequence
from math import prod
from pathlib import Path
from typing import Any

import torch

from segfw.base.cluster import cluster_pool
from segfw.base.device import pick_device
from segfw.base.options import takes_options
from segfw.base.parallel import FAILURES_FILE, CasesFailed
from segfw.base.records import Record, UserError
from segfw.base.resources import free_memory_bytes
from segfw.dataset.cases import MANIFEST_FILE, Case, DatasetManifest, Finding, FoundDataset
from segfw.dataset.layouts import find_dataset
from segfw.dataset.patients import read_groups
from segfw.grid.store import DecodedCases, preprocess_dataset
from segfw.images.formats import size_and_change
from segfw.nnunet.followed_plans import followed_plan, require_nothing_else
from segfw.nnunet.read_plans import read_json
from segfw.planning.case_measure import CaseMeasure
from segfw.planning.fingerprint import FINGERPRINT_FILE, Fingerprint, scan_dataset
from segfw.planning.measure import measure_plan, plan_for_device, training_device, with_estimates
from segfw.planning.memory import load_counter
from segfw.planning.plan import PLAN_FILE, Plan
from segfw.planning.planner import request_digest, require_possible
from segfw.planning.request import PlanRequest, PrepareOptions
from segfw.planning.splits import SPLITS_FILE, Splits, import_splits, make_splits, split_notes

SCAN_FILE = "scan.json"
NOTES_SHOWN = 8
SCAN_RULES = 2  # raised when a scan finds out more than before
KEPT_SHARE = 0.1  # of the free memory for cases that were read for planning and wait to be preprocessed


class Scan(Record):
    """Which files the manifest and the fingerprint were made from."""

    digest: str


@takes_options(request=PlanRequest, options=PrepareOptions)
def plan_and_preprocess(
    raw: Path, work: Path, request: PlanRequest = PlanRequest(), options: PrepareOptions = PrepareOptions()
) -> Plan:
    """Verifies the data, plans, draws the folds and preprocesses; what is there from the same files is kept.

    Parameters
    ----------
    raw
        Folder of images and masks, in any layout that is read.
    work
        Folder that gets manifest.json, fingerprint.json, plan.json, splits.json and preprocessed/.
    request
        What is asked of the plan. ``gpu_memory_gb`` is the memory to fill; 'auto' reads that of the device, None takes
        what the preset was published with, or the device's memory if that is less. ``groups`` says which cases are of
        one patient: a CSV file, or a regular expression with one group; None guesses from the names. ``splits`` is a
        file of given folds, ``plans`` nnU-Net's plans to follow to the letter instead of planning. ``cluster`` is the
        address of a Dask scheduler, whose workers preprocess; cases are read for the plan by ``workers`` threads here.
    options
        Where and how far to go. A plan that was made from the same data for the same request is kept, on whatever
        device, unless ``overwrite``.

    Returns
    -------
    Plan
        The plan in ``work``.

    Raises
    ------
    UserError
        If the data have problems or another plan is already trained here.
    CasesFailed
        If cases could not be preprocessed.
    """
    raw = Path(raw)
    work = Path(work)
    device = pick_device(options.device)
    found = find_dataset(raw)
    _refuse_foreign_folder(work)

    # Plan and folds
    keeps_cases = not options.plan_only and request.cluster is None
    decoded = DecodedCases(KEPT_SHARE * free_memory_bytes() if keeps_cases else 0)
    manifest, fingerprint = _scan(found, work, request.workers, options.overwrite, decoded)
    plan = _plan(work, manifest, fingerprint, request, device, options.overwrite)
    require_possible(request.configurations or (), plan, is_given=request.plans is not None)
    folds, notes = _splits(raw, manifest, fingerprint, request.groups, request.splits)
    _keep(work, SPLITS_FILE, folds, options.overwrite)
    print("\n  ".join([folds.source, *notes]))
    print(f"planned {', '.join(plan.configurations)} for {len(manifest.cases)} cases; segfw info {work} explains it")
    if options.plan_only:
        return plan

    # Preprocessed cases, once for configurations that share them
    names = request.configurations or tuple(plan.configurations)
    chosen = {plan.configurations[name].data_name: None for name in names}
    recipes = {name: plan.configurations[name].preprocessing for name in chosen}
    case_bytes = {case.id: float32_bytes(case, plan) for case in fingerprint.cases}
    folder = work / "preprocessed"
    if request.cluster is None:
        failures = preprocess_dataset(
            manifest.cases,
            manifest.labels,
            recipes,
            folder,
            case_bytes=case_bytes,
            decoded=decoded,
            workers=request.workers,
        )
    else:
        cases = _from_anywhere(manifest)
        with cluster_pool(request.cluster, reads=[raw.absolute()], writes=folder.absolute()) as pool:
            failures = preprocess_dataset(
                cases, manifest.labels, recipes, folder.absolute(), case_bytes=case_bytes, pool=pool
            )
    if failures:
        raise CasesFailed("in preprocessing", failures, work)
    (work / FAILURES_FILE).unlink(missing_ok=True)
    print(f"preprocessed {', '.join(recipes)} into {folder}")
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
    request: PlanRequest,
    device: torch.device,
    overwrite: bool,
) -> Plan:
    """The plan in the work folder if it was made from the same data for the same request, else a new one."""
    decisive = request.decisive
    nnunet_plans: dict[str, Any] = {}
    if request.plans is not None:
        require_nothing_else(request.plans, request)
        nnunet_plans = read_json(request.plans)
        decisive = {"plans": {"plans": nnunet_plans, "path": request.plans}}
    digest = request_digest(decisive, manifest, fingerprint)
    path = work / PLAN_FILE
    if path.is_file() and not overwrite:
        kept = Plan.load(path)
        if kept.request == digest:
            return kept
    target = training_device(device)
    if request.plans is not None:
        followed = followed_plan(manifest, nnunet_plans, request.plans)
        plan = with_estimates(followed, target, measure_plan(followed, target))
    else:
        plan = plan_for_device(manifest, fingerprint, request, target)
    plan = plan.model_copy(update={"request": digest})
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
    name_of = {str(value): name for value, name in zip(manifest.labels.values[1:], manifest.labels.names[1:])}
    labels_of = {
        case.id: {name_of[value] for value in case.label_voxels.keys() & name_of} for case in fingerprint.cases
    }
    with_data = raw / "splits_final.json"
    path = given or (with_data if with_data.is_file() else None)
    if path is None:
        folds = make_splits(ids, groups=patients, labels_of_case=labels_of)
    else:
        folds = import_splits(Path(path), ids, patients)
    notes = split_notes(folds, labels_of)
    more = [f"... and {len(notes) - NOTES_SHOWN} more"] if len(notes) > NOTES_SHOWN else []
    return folds, notes[:NOTES_SHOWN] + more


def float32_bytes(case: CaseMeasure, plan: Plan) -> int:
    """Bytes of a case's image as float32, on its own grid or on the finest that it is resampled to."""
    voxels = [prod(case.shape)]
    for configuration in plan.configurations.values():
        recipe = configuration.preprocessing
        edges_mm = [1.0 if recipe.voxel_size == "unit" else case.spacing_mm[axis] for axis in recipe.axis_order]
        target_mm = [edge if target is None else target for edge, target in zip(edges_mm, recipe.spacing_mm)]
        voxels.append(int(prod(case.cropped_shape) * prod(edges_mm) / prod(target_mm)))
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
