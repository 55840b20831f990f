"""A work folder: what may be one, and decisions in it, which nothing replaces once something is trained by them."""

from __future__ import annotations

from pathlib import Path

from segfw.base.records import Record, UserError
from segfw.dataset.cases import MANIFEST_FILE
from segfw.planning.plan import PLAN_FILE, REFINE, Plan
from segfw.planning.splits import SPLITS_FILE, Splits

SCAN_FILE = "scan.json"


def require_own_folder(work: Path) -> None:
    """A folder with other things in it is not written into: it may be the raw data by mistake."""
    if work.is_file():
        raise UserError(f"{work}: is a file; give a folder to work in")
    known = {MANIFEST_FILE, PLAN_FILE, SCAN_FILE, "preprocessed", "runs"}
    names = {path.name for path in work.iterdir() if not path.name.startswith(".")} if work.is_dir() else set()
    if names and not names & known:
        raise UserError(f"{work}: holds other things ({sorted(names)[0]}); give a new or empty folder to work in")


def load_plan_and_splits(work: Path) -> tuple[Plan, Splits]:
    """The plan and the folds of a work folder; UserError, which says what it is instead, for anything else."""
    remedy = "give the work folder of segfw run or segfw plan-and-preprocess"
    if work.is_file():
        raise UserError(f"{work}: is a file, and training and selecting need the data; {remedy}")
    if not (work / PLAN_FILE).is_file():
        raise UserError(
            f"{work}: holds no {PLAN_FILE}; {remedy}" if work.is_dir() else f"{work}: no such folder; {remedy}"
        )
    plan = Plan.load(work / PLAN_FILE)
    if plan.is_imported and not (work / SPLITS_FILE).is_file():
        raise UserError(
            f"{work}: is a model imported from nnU-Net, without the data that it was trained on, so that it can "
            f"neither be trained nor selected from; {remedy}"
        )
    if not (work / SPLITS_FILE).is_file():
        raise UserError(f"{work}: holds no {SPLITS_FILE}, as models without their data do not; {remedy}")
    return plan, Splits.load(work / SPLITS_FILE)


def trained_by_plan(work: Path) -> str:
    """A fold that has weights or a checkpoint, such as 'runs/2d/fold_0'; '' where there is none."""
    trained = sorted(str(file.parent.relative_to(work)) for file in work.glob("runs/*/*/*.safetensors"))
    return trained[0] if trained else ""


def _decisions(record: Record) -> Record:
    """The record without what depends on the machine and not on the data, and of folds without whose the cases are.

    Folds that stay are the same decision, also where an older version did not keep the patients.
    """
    if isinstance(record, Splits):
        return record.model_copy(update={"patient_of": None})
    return record.without_estimates() if isinstance(record, Plan) else record


def _without_added_refiner(new: Record, kept: Record) -> Record:
    """The new plan without the refiner that the kept one has not: nothing that is trained is changed by it."""
    if not isinstance(new, Plan) or not isinstance(kept, Plan) or REFINE in kept.configurations:
        return new
    rest = {name: each for name, each in new.configurations.items() if not each.is_refiner}
    return new.model_copy(update={"configurations": rest})


def keep_decision(work: Path, name: str, new: Record, overwrite: bool) -> None:
    """Saves a decision; refuses to replace another one that something has been trained by."""
    require_keepable(work, name, new, overwrite)
    new.save(work / name)


def require_keepable(work: Path, name: str, new: Record, overwrite: bool) -> None:
    """Refuses what ``keep_decision`` would refuse, and writes nothing."""
    path = work / name
    if path.is_file():
        try:
            kept = type(new).load(path)
            if _decisions(kept) in (_decisions(new), _decisions(_without_added_refiner(new, kept))):
                return
        except UserError:  # damaged or of another version
            if not overwrite:
                raise
        trained = trained_by_plan(work)
        if trained:
            raise UserError(
                f"{path}: would change, but {trained} is trained by it; use another work folder, or delete "
                f"{work / 'runs'} and train again"
            )
