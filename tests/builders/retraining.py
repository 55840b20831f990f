"""New labels of a retraining, scores of made-up models; a small model, and a simulated expert who signs new masks."""

from __future__ import annotations

import json
import zlib
from collections.abc import Sequence
from pathlib import Path

from builders.data import blocks_case, write_nifti
from builders.networks import spec
from segfw.dataset.cases import Case
from segfw.evaluation.metrics import LabelScore
from segfw.images.formats import read_mask
from segfw.planning.plan import PLAN_FILE
from segfw.retraining.retraining_record import BeganAs, NewLabel
from segfw.reviewing.people import Person
from segfw.reviewing.review_store import ReviewStore
from segfw.verbs.plan_and_preprocess import plan_and_preprocess
from segfw.verbs.predict import predict
from segfw.verbs.train import train


def label(case: str, *, held_out_of: tuple[str, ...] = (), began_as: BeganAs = "edited", patient: str = "") -> NewLabel:
    """A signed label of a case that lies nowhere."""
    return NewLabel(
        case=Case(id=case, images=(Path(f"{case}.nii.gz"),), label=Path(f"{case}_v0001.nii.gz")),
        folder=Path("masks").absolute(),
        version=1,
        sha256="0" * 64,
        state="SIGNED",
        began_as=began_as,
        reviewed_by="ann",
        signed_by="ann",
        patient=patient or case,
        held_out_of=held_out_of,
    )


def scored(dice: float, *, tp: int = 80) -> LabelScore:
    """A structure with this Dice, in both masks."""
    wrong = round(tp * (1 - dice) / dice) if dice else tp
    return LabelScore(dice=dice, jaccard=dice, tpr=dice, precision=dice, tp=tp, fp=wrong, fn=wrong)


# ---- a model of six patients, and masks of new images that a simulated expert corrects ----

OLD = ("patient00_frame01", "patient00_frame02", *(f"patient{number:02}_frame01" for number in range(1, 6)))
HELD_OUT = (OLD[:3], OLD[3:5], OLD[5:])  # of the folds 0, 1 and 2
RETURNING = "patient00_frame03"  # another scan of a patient in fold 0
NEW = (RETURNING, "patient06_frame01", "patient06_frame02", "patient07_frame01", "patient08_frame01")
STEPS = 10  # of each fold before it is retrained
SHAPE_XYZ = (20, 18, 10)


def place_of(case: str) -> int:
    """The seed of a case's image."""
    return zlib.crc32(case.encode()) % 10_000


def write_case(folder: Path, case: str, *, images: str = "images", labels: str | None = "labels") -> None:
    """Image and expert mask of a case by its name."""
    image, mask = blocks_case(place_of(case), SHAPE_XYZ)
    write_nifti(folder / images / f"{case}.nii.gz", image)
    if labels is not None:
        write_nifti(folder / labels / f"{case}.nii.gz", mask)


def write_names(folder: Path) -> None:
    (folder / "labels.csv").write_text("value,name\n3,bright\n7,dark\n")


def trained_work(folder: Path, *, steps: int = STEPS) -> Path:
    """A work folder of OLD in three folds, all trained for a few steps."""
    for case in OLD:
        write_case(folder / "raw", case)
    write_names(folder / "raw")
    folds = [{"train": [case for case in OLD if case not in part], "val": part} for part in HELD_OUT]
    splits = folder / "splits.json"
    splits.write_text(json.dumps(folds))
    work = folder / "work"
    plan = plan_and_preprocess(folder / "raw", work, splits=splits, plan_only=True, device="cpu")
    small = plan.configurations["3d_fullres"].model_copy(
        update={"network": spec(), "patch_size": (8, 16, 16), "batch_size": 2}
    )
    plan.model_copy(update={"configurations": {"3d_fullres": small}}).save(work / PLAN_FILE)
    plan_and_preprocess(folder / "raw", work, splits=splits, device="cpu")
    for fold in ("0", "1", "2"):
        train(work, "3d_fullres", fold, epochs=1, steps_per_epoch=steps, device="cpu", precision="fp32")
    return work


def predicted(work: Path, folder: Path, cases: Sequence[str] = NEW) -> Path:
    """Masks of new images, which expert masks lie beside in ``expert``."""
    for case in cases:
        write_case(folder, case, labels="expert")
    predict(work, folder / "images", folder / "masks", device="cpu", precision="fp32")
    return folder / "masks"


def signed(
    masks: Path,
    cases: Sequence[str],
    *,
    unedited: Sequence[str] = (),
    blank: Sequence[str] = (),
    only_reviewed: Sequence[str] = (),
) -> None:
    """A simulated expert draws the masks of ``expert`` beside the folder, but of those that are accepted unedited."""
    store = ReviewStore.open(masks)
    ann = Person(user="Ann")
    for case in cases:
        store.open_case(case, ann)
        if case not in unedited:
            values = read_mask(masks.parent / "expert" / f"{case}.nii.gz").array[0]
            origin = "blank" if case in blank else "edited"
            store.save(case, ann, values, base=0, origin=origin, tool="simulated expert")
        store.renew(case, ann, active_s=60.0)
        for name in store.structures:
            store.decide(case, ann, name, "accept" if case in unedited else "edit", asked_again=True)
        version = store.finish(case, ann)
        if case not in only_reviewed:
            store.sign(case, ann, name="Ann A.", meaning="review", version_sha256=version.sha256)
