"""A configuration as the folder that nnU-Net v2's ``nnUNetv2_predict_from_modelfolder`` loads and runs."""

from __future__ import annotations

import json
from collections.abc import Sequence
from pathlib import Path

import torch

from segfw.base.files import write_text
from segfw.model.postprocess import Postprocessing
from segfw.model.selection import Selection, load_postprocessing
from segfw.model.source import (
    BEST_FILE,
    WEIGHTS_FILE,
    fold_folder,
    postprocessing_file,
    read_model_file,
    trained_folds,
)
from segfw.model.weights import load_tensors, shared_mirror_axes
from segfw.nnunet.layer_names import to_nnunet
from segfw.nnunet.postprocessing_files import write_postprocessing
from segfw.nnunet.trained_folder import BEST, DATASET_FILE, FINAL, PLANS_FILE
from segfw.nnunet.write_plans import PLANS, dataset_json, plans_json
from segfw.planning.plan import Configuration, Plan

TRAINER = "nnUNetTrainer"


def folder_name(configuration: Configuration) -> str:
    """What nnU-Net calls the folder of a trained configuration."""
    return f"{TRAINER}__{PLANS}__{configuration.name}"


def write_trained_folder(
    model: Path, plan: Plan, configuration: Configuration, chosen: Sequence[Configuration], home: Path, ending: str
) -> None:
    """Writes plans, dataset.json and a checkpoint per fold of one configuration into its folder in ``home``."""
    target = home / folder_name(configuration)
    plans = plans_json(plan, ending, chosen)
    dataset = dataset_json(plan, ending)
    write_text(target / PLANS_FILE, json.dumps(plans, indent=1) + "\n")
    write_text(target / DATASET_FILE, json.dumps(dataset, indent=1) + "\n")
    folds = trained_folds(model, configuration.name)
    # nnU-Net mirrors all folds as the first one allows, segfw only along axes that all of them do.
    shared = shared_mirror_axes(
        [load_tensors(fold_folder(model, configuration.name, fold) / WEIGHTS_FILE)[1] for fold in folds]
    )
    offset = 1 if configuration.network.is_2d else 0
    axes = tuple(axis - offset for axis in shared if axis not in configuration.swapped_pairs)
    for fold in folds:
        (target / f"fold_{fold}").mkdir()
        for own, theirs in ((WEIGHTS_FILE, FINAL), (BEST_FILE, BEST)):
            path = fold_folder(model, configuration.name, fold) / own
            if own == BEST_FILE and not path.is_file():
                continue
            weights, metadata = load_tensors(path)
            checkpoint = {
                "network_weights": to_nnunet(weights, configuration.network),
                "optimizer_state": None,
                "grad_scaler_state": None,
                "logging": {},
                "_best_ema": None,
                "current_epoch": int(metadata.get("epoch", 0)),
                "init_args": {
                    "plans": plans,
                    "configuration": configuration.name,
                    "fold": fold if fold == "all" else int(fold),
                    "dataset_json": dataset,
                },
                "trainer_name": TRAINER,
                "inference_allowed_mirroring_axes": axes or None,
            }
            torch.save(checkpoint, target / f"fold_{fold}" / theirs)


def write_all_postprocessing(
    model: Path, plan: Plan, selection: Selection | None, names: Sequence[str], home: Path
) -> dict[str, Postprocessing]:
    """Beside the weights of each configuration that has some, and in ``home`` itself where two are averaged.

    Returns what was written by configuration, or by the name of both.
    """
    files = {name: postprocessing_file(model, name) for name in names}
    found = {name: load_postprocessing(path) for name, path in files.items() if read_model_file(path)}
    if selection:
        found[selection.name] = selection.postprocessing
    found = {name: steps for name, steps in found.items() if steps.steps}
    values = plan.labels.values if plan.labels.regions else range(len(plan.labels.values))
    for name, steps in found.items():
        folder = home / folder_name(plan.configuration(name)) if name in names else home
        write_postprocessing(folder, steps, values)
    return found
