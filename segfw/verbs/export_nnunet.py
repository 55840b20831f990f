"""A model directory becomes a folder that nnU-Net v2's ``nnUNetv2_predict_from_modelfolder`` loads and runs."""

from __future__ import annotations

import json
import os
from collections.abc import Sequence
from pathlib import Path
from tempfile import TemporaryDirectory

import torch

from segfw.base.files import write_text
from segfw.base.records import UserError
from segfw.model.postprocess import Postprocessing
from segfw.model.selection import Selection, load_postprocessing, load_selection
from segfw.model.source import (
    BEST_FILE,
    WEIGHTS_FILE,
    fold_folder,
    load_plan,
    postprocessing_file,
    predicting_folds,
    read_model_file,
    trained_folds,
)
from segfw.model.weights import load_tensors, shared_mirror_axes
from segfw.nnunet.export_notes import say_commands, say_differences
from segfw.nnunet.layer_names import to_nnunet
from segfw.nnunet.postprocessing_files import write_postprocessing
from segfw.nnunet.trained_folder import BEST, DATASET_FILE, FINAL, PLANS_FILE
from segfw.nnunet.write_plans import PLANS, dataset_json, endings_of, plans_json
from segfw.planning.plan import Configuration, Plan

TRAINER = "nnUNetTrainer"


def export_nnunet(model: Path, folder: Path, *, ending: str | None = None) -> list[Path]:
    """Writes ``folder/nnUNetTrainer__nnUNetPlans__CONFIGURATION`` for every trained configuration, and returns these.

    ``ending`` is what nnU-Net shall expect images to be called, by default .nii.gz, or what the reader has that the
    model was trained with. Networks that nnU-Net has not are refused. Mirroring
    at prediction is left to the axes that change no labels, and labels whose values are not 0, 1, 2 ... get such
    values, because nnU-Net cannot do either; both are said, and so are nnU-Net's commands. Postprocessing that was
    selected or imported goes along. Raises UserError, with nothing written, if the model cannot be exported.
    """
    model, folder = Path(model), Path(folder)
    if folder.exists() and (not folder.is_dir() or any(folder.iterdir())):
        raise UserError(f"{folder}: is there already; give a new or empty folder")
    plan = load_plan(model)
    ending = ending or endings_of(plan)[0]
    chosen = [configuration for name, configuration in plan.configurations.items() if trained_folds(model, name)]
    if not chosen:
        raise UserError(f"{model}: no fold is trained to its end; run segfw train first")
    names = [configuration.name for configuration in chosen]
    for configuration in chosen:
        if configuration.previous_stage and configuration.previous_stage not in names:
            raise UserError(
                f"{model}: {configuration.name} is the second stage of a cascade, and {configuration.previous_stage}, "
                "the first, is not trained; train it, too"
            )
    selection = load_selection(model)
    folder.parent.mkdir(parents=True, exist_ok=True)
    with TemporaryDirectory(prefix=".partial-", dir=folder.parent) as partial:
        home = Path(partial) / "export"
        for configuration in chosen:
            _export(model, plan, configuration, chosen, home, ending)
        steps = _write_postprocessing(model, plan, selection, names, home)
        if folder.exists():
            folder.rmdir()
        os.replace(home, folder)
    say_differences(plan, chosen)
    folds = {name: predicting_folds(trained_folds(model, name)) for name in names}
    say_commands(folder, {one: folder_name(one) for one in chosen}, folds, selection, steps, plan, ending)
    return [folder / folder_name(configuration) for configuration in chosen]


def folder_name(configuration: Configuration) -> str:
    """What nnU-Net calls the folder of a trained configuration."""
    return f"{TRAINER}__{PLANS}__{configuration.name}"


def _export(
    model: Path, plan: Plan, configuration: Configuration, chosen: Sequence[Configuration], home: Path, ending: str
) -> None:
    target = home / folder_name(configuration)
    plans, dataset = plans_json(plan, ending, chosen), dataset_json(plan, ending)
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


def _write_postprocessing(
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
