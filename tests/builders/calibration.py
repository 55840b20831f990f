"""Work folders whose networks are drawn and find something in most cases, to be calibrated in seconds."""

from __future__ import annotations

import json
from pathlib import Path

import torch

from builders.data import CASES, write_raw
from builders.networks import spec
from builders.work import write_splits
from segfw.model.source import WEIGHTS_FILE, fold_folder
from segfw.model.weights import save_tensors
from segfw.networks import build_network
from segfw.networks.spec import NetworkSpec
from segfw.planning.plan import PLAN_FILE, Plan
from segfw.verbs.plan_and_preprocess import plan_and_preprocess

REGIONS = {"background": 0, "both": [3, 7], "dark": 7}
FOLDS = ("0", "1", "2")


def save_drawn(work: Path, configuration: str, fold: str, seed: int) -> None:
    """A network that answers to brightness, each in its own way; it was never trained."""
    torch.manual_seed(seed)
    network = build_network(Plan.load(work / PLAN_FILE).configuration(configuration).network)
    outputs = Plan.load(work / PLAN_FILE).labels.outputs
    weights = {
        key: value * (30 if value.ndim > 3 and value.shape[0] == outputs else 1)  # the last layer: certain
        for key, value in network.state_dict().items()
    }
    save_tensors(fold_folder(work, configuration, fold) / WEIGHTS_FILE, weights, {"mirror_axes": ""})


def drawn_work(folder: Path, *, folds: tuple[str, ...] = FOLDS, labels: dict | None = None) -> Path:
    """A planned work folder of six cases in three folds, of which ``folds`` have drawn networks."""
    raw = write_raw(folder / "raw")
    if labels is not None:
        description = json.loads((raw / "dataset.json").read_text())
        description |= {"labels": labels, "regions_class_order": [3, 7]}
        (raw / "dataset.json").write_text(json.dumps(description))
    work = folder / "work"
    splits = write_splits(folder / "splits.json")
    plan = plan_and_preprocess(raw, work, splits=splits, plan_only=True)
    small = plan.configurations["3d_fullres"].model_copy(
        update={"network": small_spec(plan), "patch_size": (8, 16, 16)}
    )
    plan.model_copy(update={"configurations": {"3d_fullres": small}}).save(work / PLAN_FILE)
    for seed, fold in enumerate(folds):
        save_drawn(work, "3d_fullres", fold, seed)
    return work


def small_spec(plan: Plan) -> NetworkSpec:
    """Of as many outputs as the plan's labels have."""
    return spec().model_copy(update={"classes": plan.labels.outputs})


def unseen_cases(folder: Path, number: int = 6) -> Path:
    """Cases of the same kind under other names."""
    raw = write_raw(folder, len(CASES) + number)
    for kind in ("imagesTr", "labelsTr"):
        for path in sorted((raw / kind).iterdir()):
            index = int(path.name.split("_")[1].split(".")[0])
            if index < len(CASES):
                path.unlink()
            else:
                path.rename(path.with_name(path.name.replace("case_", "other_")))
    description = json.loads((raw / "dataset.json").read_text())
    (raw / "dataset.json").write_text(json.dumps(description | {"numTraining": number}))
    return raw
