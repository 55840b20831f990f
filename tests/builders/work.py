"""Work folders that are planned, with networks and patches made small."""

from __future__ import annotations

import json
from pathlib import Path

from builders.data import CASES
from builders.networks import spec
from segfw.planning.plan import CASCADE, FULLRES, LOWRES, PLAN_FILE
from segfw.verbs.plan_and_preprocess import plan_and_preprocess

HELD_OUT = [CASES[0:2], CASES[2:4], CASES[4:6]]
SLICES_FIRST = spec(features=(4, 8), strides=((1, 1, 1), (1, 2, 2)))


def write_splits(path: Path, held_out: list[list[str]] = HELD_OUT) -> Path:
    """Folds of ``data.CASES`` in nnU-Net's form, each of which holds out a part of them."""
    folds = [{"train": [case for case in CASES if case not in part], "val": part} for part in held_out]
    path.write_text(json.dumps(folds))
    return path


def plan_a_cascade(raw: Path, work: Path, held_out: list[list[str]] = HELD_OUT) -> Path:
    """Plans and preprocesses with a cascade, which no data set this small would be given, and three folds."""
    splits = write_splits(raw.with_name("splits.json"), held_out)
    plan = plan_and_preprocess(raw, work, splits=splits, plan_only=True)
    full = plan.configurations[FULLRES].model_copy(
        update={"network": SLICES_FIRST, "patch_size": (8, 16, 16), "batch_size": 2}
    )
    coarse = full.preprocessing.model_copy(update={"spacing_mm": (4.0, 3.0, 2.0)})
    low = full.model_copy(update={"name": LOWRES, "preprocessing": coarse, "patch_size": (8, 8, 8)})
    seeing = SLICES_FIRST.model_copy(update={"in_channels": 3})
    second = full.model_copy(update={"name": CASCADE, "previous_stage": LOWRES, "network": seeing, "batch_dice": True})
    planned = {LOWRES: low, FULLRES: full, CASCADE: second}
    plan.model_copy(update={"configurations": planned}).save(work / PLAN_FILE)
    plan_and_preprocess(raw, work, splits=splits)  # keeps the plan, since nothing that it was made from has changed
    return work
