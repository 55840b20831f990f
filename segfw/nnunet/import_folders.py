"""Trained-model folders of nnU-Net as one model of ours: its plan, the weights of its folds, its postprocessing."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from segfw.base.records import UserError
from segfw.dataset.cases import Channel
from segfw.dataset.dataset_json import channels_of, labels_of
from segfw.dataset.labels import LabelSet
from segfw.model.source import BEST_FILE, WEIGHTS_FILE, fold_folder, postprocessing_file
from segfw.model.weights import require_usable, save_weights
from segfw.networks import BuildNetwork
from segfw.nnunet.architectures import absent_weights
from segfw.nnunet.layer_names import LONGEST, from_nnunet, without_wrappers
from segfw.nnunet.postprocessing_files import find_postprocessing
from segfw.nnunet.read_plans import TRAINED_ON, plan_of_nnunet, resolved
from segfw.nnunet.torch_checkpoint import Checkpoint, read_checkpoint
from segfw.nnunet.trained_folder import DATASET_FILE, PLANS_FILE, TrainedFolder
from segfw.nnunet.trainers import is_known_trainer
from segfw.planning.plan import Configuration, Plan


def channels_and_labels(dataset: Mapping[str, Any], path: Path) -> tuple[tuple[Channel, ...], LabelSet]:
    """Channels and labels of nnU-Net's dataset.json; the network's classes are in the order of the values."""
    labels = labels_of(dataset, path)
    if labels.values[0] != 0:
        raise UserError(f"{path}: the background has the value {labels.values[0]}, which nnU-Net does not know")
    if min(labels.values) < 0:
        raise UserError(f"{path}: a label has the value {min(labels.values)}; those of nnU-Net count from 0")
    by_value = sorted(zip(labels.values, labels.names))
    values = tuple(value for value, _ in by_value)
    names = tuple(name for _, name in by_value)
    return channels_of(dataset, path), labels.model_copy(update={"values": values, "names": names})


def common_plan(folders: Sequence[TrainedFolder], *, is_known: bool, trained_on: str | None = None) -> Plan:
    """One plan with the configurations of all folders, which must be of one data set.

    ``is_known`` is False where the network is made by a function of the user's. ``trained_on`` says where the axes of
    the training images pointed ('LPS'), if nnU-Net took them as stored. Raises UserError, with the reason, if they do
    not belong together, or if a configuration asks for something that segfw would compute otherwise.
    """
    told = {} if trained_on is None else {TRAINED_ON: trained_on}
    plans = []
    for trained in folders:
        channels, labels = channels_and_labels(trained.dataset, trained.path / DATASET_FILE)
        plan = plan_of_nnunet(
            {**trained.plans, **told},
            channels,
            labels,
            trained.path / PLANS_FILE,
            names=(trained.configuration,),
            training_cases=_training_cases(trained.dataset),
            is_known=is_known,
            to_train=False,
        )
        plans.append(plan)
    first = plans[0]
    for trained, plan in zip(folders, plans):
        if (plan.channels, plan.labels, plan.orientation) != (first.channels, first.labels, first.orientation):
            raise UserError(
                f"{trained.path}: has other channels or labels than {folders[0].path.name}; import them apart"
            )
    configurations: dict[str, Configuration] = {}
    for plan in plans:
        configurations |= plan.configurations
    for name, configuration in configurations.items():
        if configuration.previous_stage and configuration.previous_stage not in configurations:
            raise UserError(
                f"{folders[0].path.parent}: {name} is the second stage of a cascade and needs "
                f"{configuration.previous_stage}; give the folder that holds both, or a zip with both"
            )
    return first.model_copy(update={"configurations": configurations, "is_imported": True})


def _training_cases(dataset: Mapping[str, Any]) -> int:
    """How many images the network saw; it is only told, so that anything but a number is taken for unknown."""
    number = dataset.get("numTraining")
    return number if isinstance(number, int) else 0


@dataclass(frozen=True, kw_only=True)
class FoldImport:
    """What takes over the checkpoints of one configuration into the model directory ``home``.

    ``trust_trainer`` takes unknown trainers too; ``build_network`` makes networks that segfw has not.
    """

    trained: TrainedFolder
    configuration: Configuration
    home: Path
    trust_trainer: bool
    build_network: BuildNetwork | None

    def take_all(self) -> None:
        """All folds that nnU-Net takes; prints what is left out and why. UserError if a checkpoint cannot be taken."""
        name = self.configuration.name
        trained = self.trained
        for fold in trained.left_out:
            print(f"note: fold {fold} of {name} has no final checkpoint and is left out")
        for fold in trained.folds:
            if not trained.final:
                print(f"note: fold {fold} of {name} has no final checkpoint; its best one is taken")
                self._take(trained.best[fold], fold, WEIGHTS_FILE, BEST_FILE)
                continue
            self._take(trained.final[fold], fold, WEIGHTS_FILE)
            if fold in trained.best:
                try:
                    self._take(trained.best[fold], fold, BEST_FILE)
                except UserError as error:  # the final weights are there and are what nnU-Net predicts with
                    reason = str(error).removeprefix(f"{trained.best[fold].parent}/")
                    print(f"note: {reason}; fold {fold} of {name} has no best weights")

    def _take(self, path: Path, fold: str, *files: str) -> None:
        """Writes the weights of the checkpoint ``path`` as these files of a fold."""
        entry = resolved(self.trained.plans, self.configuration.name, self.trained.path)
        checkpoint = read_checkpoint(path)
        weights = self._weights(checkpoint, path, entry)
        require_usable(weights, path)
        # In two dimensions nnU-Net counts the axes of a slice, of which ours are the last two.
        offset = 1 if len(entry["patch_size"]) == 2 else 0
        axes = tuple(axis + offset for axis in checkpoint.mirror_axes)
        if any(axis > 2 for axis in axes):
            raise UserError(f"{path}: mirrors axes {checkpoint.mirror_axes} of slices, which have 0 and 1; is it 3-D?")
        for file in files:
            target = fold_folder(self.home, self.configuration.name, fold) / file
            save_weights(target, weights, epoch=checkpoint.epoch, mirror_axes=axes)

    def _weights(self, checkpoint: Checkpoint, path: Path, entry: Mapping[str, Any]) -> dict[str, Tensor]:
        """The checkpoint's weights under our names, or under those of ``build_network``."""
        if checkpoint.configuration != self.configuration.name:
            raise UserError(
                f"{path}: is of {checkpoint.configuration}, but lies in the folder of {self.configuration.name}"
            )
        if self.build_network is not None:
            return _weights_as_built(checkpoint, path, self.configuration, self.build_network)
        if not self.trust_trainer and not is_known_trainer(checkpoint.trainer):
            raise UserError(
                f"{path}: was trained by {checkpoint.trainer}, which segfw does not know and which may have another "
                "network; if it builds that of the plans, as one does that only changes the loss or the sampling, say "
                "so by --trust-trainer, otherwise give build_network= to segfw.import_nnunet"
            )
        return from_nnunet(checkpoint.weights, self.configuration.network, str(path), absent=absent_weights(entry))


def _weights_as_built(
    checkpoint: Checkpoint, path: Path, configuration: Configuration, build_network: BuildNetwork
) -> dict[str, Tensor]:
    """The checkpoint's weights under its own names; UserError unless they are those of ``build_network``."""
    with torch.device("meta"):
        wanted = build_network(configuration.network).state_dict()
    state = without_wrappers(checkpoint.weights, str(path))
    different = sorted(
        name
        for name in {*wanted, *state}
        if name not in state or name not in wanted or state[name].shape != wanted[name].shape
    )
    if different:
        raise UserError(f"{path}: the weights {different[0][:LONGEST]!r} are not those of build_network; correct it")
    # Copies, because safetensors refuses tensors that share their memory.
    return {name: tensor.clone() for name, tensor in state.items()}


def take_postprocessing(trained: TrainedFolder, plan: Plan, home: Path) -> str:
    """Keeps what nnU-Net found to be worth removing beside the weights; returns a sentence about it, or ''."""
    found = find_postprocessing(trained.path, plan.labels)
    if found.problem:
        return (
            f"note: the postprocessing of {trained.configuration} is not taken over ({found.problem}); {found.remedy}"
        )
    if found.steps is None or not found.steps.steps:  # nnU-Net did not look, or nothing was
        return ""
    kept = postprocessing_file(home, trained.configuration)
    found.steps.save(kept)
    return (
        f"{trained.configuration}: nnU-Net keeps only the largest component of: {found.steps.text} ({found.file}), but "
        "by a command of its own; segfw predict does it with --postprocessing "
        f"MODEL/{kept.relative_to(home).as_posix()}"
    )
