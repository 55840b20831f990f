"""A trained model of nnU-Net v2 becomes an ordinary model directory."""

from __future__ import annotations

import os
import re
from collections.abc import Mapping, Sequence
from pathlib import Path
from tempfile import TemporaryDirectory

import torch
from torch import Tensor

from segfw.base.records import UserError, count
from segfw.dataset.cases import Channel, LabelSet
from segfw.dataset.dataset_json import channels_of, labels_of
from segfw.model.load import BEST_FILE, WEIGHTS_FILE, fold_folder, postprocessing_file, save_weights
from segfw.networks import BuildNetwork
from segfw.nnunet.architectures import absent_weights
from segfw.nnunet.plans import plan_of_nnunet, resolved
from segfw.nnunet.postprocessing_files import find_postprocessing
from segfw.nnunet.torch_checkpoint import Checkpoint, read_checkpoint
from segfw.nnunet.trained_folder import DATASET_FILE, PLANS_FILE, TrainedFolder, find_trained, opened
from segfw.nnunet.weight_names import LONGEST, from_nnunet, without_wrappers
from segfw.planning.plan import PLAN_FILE, Configuration, Plan

# Trainers of nnU-Net 2.8.1 that build the plan's network and predict like nnUNetTrainer: they differ in length,
# augmentation, loss, sampling or optimiser. nnUNetTrainerBN is not among them: it has other norms.
LENGTHS = re.compile(r"nnUNetTrainer(DA5|Benchmark)?(_\d+epochs?)?(_NoMirroring)?|nnUNet_Trainer_BS8")
KINDS = {
    *("NoDA", "NoMirroring", "DA5", "DA5ord0", "DA5Segord0", "_DASegOrd0", "_DASegOrd0_NoMirroring", "_noDummy2DDA"),
    *("_onlyMirror01", "_onlyMirror01_DA5", "_onlyMirror01_1500ep", "_onlyMirror01_DASegOrd0"),
    "Benchmark_5epochs_noDataLoading",
    *("CELoss", "CELoss_5epochs", "DiceLoss", "DiceCELoss_noSmooth", "DiceTopK10Loss", "Topk10Loss", "Topk10LossLS01"),
    *("Adam", "Adam1en3", "Adam3en4", "VanillaAdam", "VanillaAdam1en3", "VanillaAdam3en4", "Adan", "Adan1en1"),
    *("Adan1en3", "Adan3en4", "AdanCosAnneal", "CosAnneal", "_warmup", "NoDeepSupervision"),
    *("_probabilisticOversampling", "_probabilisticOversampling_010", "_probabilisticOversampling_033"),
}


def is_known_trainer(name: str) -> bool:
    """True for nnU-Net's own trainers whose networks are those of the plans."""
    return bool(LENGTHS.fullmatch(name)) or name.removeprefix("nnUNetTrainer") in KINDS


def import_nnunet(
    source: Path, out: Path, *, trust_trainer: bool = False, build_network: BuildNetwork | None = None
) -> Plan:
    """Makes the model directory ``out`` of a trained-model folder, a folder of several, or nnU-Net's exported zip.

    All configurations are taken, and of each the folds that nnU-Net takes: those with checkpoint_final, or if no fold
    has one, with checkpoint_best, which are the best weights, too. The model keeps the orientation and resampling that
    it was trained under. Unknown trainers are refused by name unless ``trust_trainer`` says that they build the plans'
    network, of which the names and shapes of all weights are compared. These and unknown architectures are also taken
    if ``build_network`` makes the network of a NetworkSpec with weights named as in the checkpoint; it has to be given
    to ``predict`` again.

    Raises UserError, with nothing written, if a file is missing or damaged, or if it would have to run code.
    """
    source, out = Path(source), Path(out)
    if out.exists() and (not out.is_dir() or any(out.iterdir())):
        raise UserError(f"{out}: is there already; give a new or empty folder for the model")
    beside = next(parent for parent in out.absolute().parents if parent.exists())
    if not beside.is_dir():
        raise UserError(f"{out}: cannot be made, because {beside} is a file; give another folder")
    with opened(source, beside) as folder, TemporaryDirectory(prefix=".partial-", dir=beside) as partial:
        found = find_trained(folder)
        plan = _common_plan(found, is_known=build_network is None)
        home, said = Path(partial) / "model", []
        for trained in found:
            _import_folds(trained, plan.configuration(trained.configuration), home, trust_trainer, build_network)
            said.append(_take_postprocessing(trained, plan, home))
        plan.save(home / PLAN_FILE)
        if out.exists():
            out.rmdir()
        out.parent.mkdir(parents=True, exist_ok=True)
        os.replace(home, out)
    for trained in found:
        print(f"{trained.configuration}: {count(len(trained.folds), 'fold')} ({', '.join(trained.folds)})")
    for sentence in filter(None, said):
        print(sentence)
    print(f"images are oriented {plan.orientation}, as in nnU-Net's training")
    return plan


def _common_plan(found: Sequence[TrainedFolder], *, is_known: bool) -> Plan:
    """One plan with the configurations of all folders, which must be of one data set."""
    plans = []
    for trained in found:
        path = trained.path / PLANS_FILE
        channels, labels = described(trained.dataset, trained.path / DATASET_FILE)
        plans.append(
            plan_of_nnunet(
                trained.plans,
                channels,
                labels,
                path,
                names=(trained.configuration,),
                training_cases=_training_cases(trained.dataset),
                is_known=is_known,
                to_train=False,
            )
        )
    first = plans[0]
    for trained, plan in zip(found, plans):
        alike = [(one.channels, one.labels, one.orientation) for one in (first, plan)]
        if alike[0] != alike[1]:
            raise UserError(
                f"{trained.path}: has other channels or labels than {found[0].path.name}; import them apart"
            )
    merged = {name: chosen for plan in plans for name, chosen in plan.configurations.items()}
    for name, chosen in merged.items():
        if chosen.previous_stage and chosen.previous_stage not in merged:
            raise UserError(
                f"{found[0].path.parent}: {name} is the second stage of a cascade and needs {chosen.previous_stage}; "
                "give the folder that holds both, or a zip with both"
            )
    return first.model_copy(update={"configurations": merged, "is_imported": True})


def _training_cases(dataset: Mapping) -> int:
    """How many images the network saw; it is only told, so that anything but a number is taken for unknown."""
    number = dataset.get("numTraining")
    return number if isinstance(number, int) else 0


def described(dataset: Mapping, path: Path) -> tuple[tuple[Channel, ...], LabelSet]:
    """Channels and labels of nnU-Net's dataset.json; the network's classes are in the order of the values."""
    labels = labels_of(dataset, path)
    if labels.values[0] != 0:
        raise UserError(f"{path}: the background has the value {labels.values[0]}, which nnU-Net does not know")
    if min(labels.values) < 0:
        raise UserError(f"{path}: a label has the value {min(labels.values)}; those of nnU-Net count from 0")
    by_value = sorted(zip(labels.values, labels.names))
    values, names = (tuple(column) for column in zip(*by_value))
    return channels_of(dataset, path), labels.model_copy(update={"values": values, "names": names})


def _import_folds(
    trained: TrainedFolder,
    configuration: Configuration,
    home: Path,
    trust_trainer: bool,
    build_network: BuildNetwork | None,
) -> None:
    entry = resolved(trained.plans, configuration.name, trained.path)

    def take(path: Path, fold: str, *names: str) -> None:
        checkpoint = read_checkpoint(path)
        weights = _weights(checkpoint, configuration, path, entry, trust_trainer, build_network)
        # In two dimensions nnU-Net counts the axes of a slice, of which ours are the last two.
        offset = 1 if len(entry["patch_size"]) == 2 else 0
        axes = tuple(axis + offset for axis in checkpoint.mirror_axes)
        if any(axis > 2 for axis in axes):
            raise UserError(f"{path}: mirrors axes {checkpoint.mirror_axes} of slices, which have 0 and 1; is it 3-D?")
        for name in names:
            target = fold_folder(home, configuration.name, fold) / name
            save_weights(target, weights, epoch=checkpoint.epoch, mirror_axes=axes)

    for fold in trained.left_out:
        print(f"note: fold {fold} of {configuration.name} has no final checkpoint and is left out")
    for fold in trained.folds:
        if not trained.final:
            print(f"note: fold {fold} of {configuration.name} has no final checkpoint; its best one is taken")
            take(trained.best[fold], fold, WEIGHTS_FILE, BEST_FILE)
            continue
        take(trained.final[fold], fold, WEIGHTS_FILE)
        if fold in trained.best:
            try:
                take(trained.best[fold], fold, BEST_FILE)
            except UserError as error:  # the final weights are there and are what nnU-Net predicts with
                said = str(error).removeprefix(f"{trained.best[fold].parent}/")
                print(f"note: {said}; fold {fold} of {configuration.name} has no best weights")


def _weights(
    checkpoint: Checkpoint,
    configuration: Configuration,
    path: Path,
    entry: Mapping,
    trust_trainer: bool,
    build_network: BuildNetwork | None,
) -> dict[str, Tensor]:
    if checkpoint.configuration != configuration.name:
        raise UserError(f"{path}: is of {checkpoint.configuration}, but lies in the folder of {configuration.name}")
    if build_network is None:
        if not trust_trainer and not is_known_trainer(checkpoint.trainer):
            raise UserError(
                f"{path}: was trained by {checkpoint.trainer}, which segfw does not know and which may have another "
                "network; if it builds that of the plans, as one does that only changes the loss or the sampling, say "
                "so by --trust-trainer, otherwise give build_network= to segfw.import_nnunet"
            )
        return from_nnunet(checkpoint.weights, configuration.network, str(path), absent=absent_weights(entry))
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


def _take_postprocessing(trained: TrainedFolder, plan: Plan, home: Path) -> str:
    """Keeps what nnU-Net found to be worth removing beside the weights; returns a sentence about it, or ''."""
    steps, where = find_postprocessing(trained.path, plan.labels)
    if steps is None:
        unknown = f"the postprocessing of {trained.configuration} is not taken over ({where})"
        return f"note: {unknown}; apply it by nnUNetv2_apply_postprocessing" if where else ""
    if not steps.steps:  # nnU-Net looked, and nothing was
        return ""
    kept = postprocessing_file(home, trained.configuration)
    steps.save(kept)
    return (
        f"{trained.configuration}: nnU-Net keeps only the largest component of: {steps.text} ({where}), but by a "
        f"command of its own; segfw predict does it with --postprocessing MODEL/{kept.relative_to(home).as_posix()}"
    )
