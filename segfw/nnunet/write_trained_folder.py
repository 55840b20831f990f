"""A model of ours as trained-model folders of nnU-Net: plans.json, dataset.json, checkpoints and postprocessing."""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch

from segfw.base.files import write_text
from segfw.base.records import UserError
from segfw.model.postprocess import Postprocessing
from segfw.model.selection import Selection, postprocessing_in
from segfw.model.source import ModelSource, postprocessing_name
from segfw.model.weights import read_tensors, require_usable, shared_mirror_axes, shared_patch_size
from segfw.nnunet.layer_names import to_nnunet
from segfw.nnunet.postprocessing_files import write_postprocessing
from segfw.nnunet.trained_folder import BEST, DATASET_FILE, FINAL, PLANS_FILE
from segfw.nnunet.write_plans import PLANS, dataset_json, plans_json
from segfw.planning.plan import Configuration, Plan

TRAINER = "nnUNetTrainer"


def folder_name(configuration: Configuration) -> str:
    """What nnU-Net calls the folder of a trained configuration."""
    return f"{TRAINER}__{PLANS}__{configuration.name}"


def trained_configurations(source: ModelSource, plan: Plan) -> list[Configuration]:
    """Those with a trained fold; UserError if there is none, or if the first stage of a cascade has none."""
    trained = [plan.configurations[name] for name in plan.predicting if source.trained_folds(name)]
    if not trained:
        raise UserError(f"{source.path}: no fold is trained to its end; run segfw train first")
    names = [configuration.name for configuration in trained]
    for configuration in trained:
        first_stage = configuration.previous_stage
        if first_stage and first_stage not in names:
            raise UserError(
                f"{source.path}: {configuration.name} is the second stage of a cascade, and {first_stage}, the first, "
                "is not trained; train it, too"
            )
    return trained


@dataclass(frozen=True, kw_only=True)
class FolderExport:
    """What writes the folders of all trained ``configurations`` of a model into ``home``.

    ``ending`` is what nnU-Net shall expect images to be called.
    """

    source: ModelSource
    plan: Plan
    configurations: Sequence[Configuration]
    home: Path
    ending: str

    def write(self, configuration: Configuration) -> None:
        """The folder of one configuration with a checkpoint for each trained fold, and the best ones where kept."""
        folder = self.home / folder_name(configuration)
        name = configuration.name
        folds = tuple(self.source.trained_folds(name))
        final = self.source.weight_names(name, folds)
        metadata = [read_tensors(self.source, weights)[1] for weights in final.values()]
        trained = configuration.with_patch(shared_patch_size(metadata, configuration.patch_size), self.source.path)
        order = configuration.preprocessing.axis_order  # nnU-Net has one in a plan, and a plan in each folder
        fitting = [each for each in self.configurations if each.preprocessing.axis_order == order]
        configurations = [trained if each == configuration else each for each in fitting]
        plans = plans_json(self.plan, self.ending, configurations)
        dataset = dataset_json(self.plan, self.ending)
        write_text(folder / PLANS_FILE, json.dumps(plans, indent=1) + "\n")
        write_text(folder / DATASET_FILE, json.dumps(dataset, indent=1) + "\n")
        best = self.source.best_weight_names(name)
        mirror_axes = _mirror_axes(configuration, metadata)
        for fold in folds:
            (folder / f"fold_{fold}").mkdir()
            init_args = {
                "plans": plans,
                "configuration": name,
                "fold": fold if fold == "all" else int(fold),
                "dataset_json": dataset,
            }
            self._write_checkpoint(folder / f"fold_{fold}" / FINAL, configuration, final[fold], init_args, mirror_axes)
            if fold in best:
                path = folder / f"fold_{fold}" / BEST
                self._write_checkpoint(path, configuration, best[fold], init_args, mirror_axes)

    def _write_checkpoint(
        self,
        path: Path,
        configuration: Configuration,
        weights_name: str,
        init_args: Mapping[str, Any],
        mirror_axes: tuple[int, ...],
    ) -> None:
        weights, metadata = read_tensors(self.source, weights_name)
        require_usable(weights, self.source.path / weights_name)
        checkpoint = {
            "network_weights": to_nnunet(weights, configuration.network),
            "optimizer_state": None,
            "grad_scaler_state": None,
            "logging": {},
            "_best_ema": None,
            "current_epoch": int(metadata.get("epoch", 0)),
            "init_args": init_args,
            "trainer_name": TRAINER,
            "inference_allowed_mirroring_axes": mirror_axes or None,
        }
        torch.save(checkpoint, path)

    def write_postprocessing(self, selection: Selection | None) -> dict[str, Postprocessing]:
        """Beside the weights of each configuration that has some, and in ``home`` itself where two are averaged.

        Returns what was written by configuration, or by the name of both.
        """
        folders = {configuration.name: self.home / folder_name(configuration) for configuration in self.configurations}
        found: dict[str, Postprocessing] = {}
        for name in folders:
            content = self.source.read_if_there(postprocessing_name(name))
            if content:
                found[name] = postprocessing_in(content, self.source.path / postprocessing_name(name))
        if selection:
            found[selection.name] = selection.postprocessing
        found = {name: steps for name, steps in found.items() if steps.steps}
        labels = self.plan.labels
        values = labels.values if labels.regions else range(len(labels.values))
        for name, steps in found.items():
            write_postprocessing(folders.get(name, self.home), steps, values)
        return found


def _mirror_axes(configuration: Configuration, metadata: Sequence[Mapping[str, str]]) -> tuple[int, ...]:
    """Axes along which nnU-Net may mirror, from the ``metadata`` of all folds' weights.

    It mirrors all folds as the first one allows, segfw only along axes that all of them do; and it cannot exchange
    labels of left and right.
    """
    offset = 1 if configuration.network.is_2d else 0
    shared = shared_mirror_axes(metadata)
    return tuple(axis - offset for axis in shared if axis not in configuration.swapped_pairs)
