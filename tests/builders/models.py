"""Model folders with a plan and random weights, made in no time: enough to pack, move and compare."""

from __future__ import annotations

import zipfile
from pathlib import Path

import torch

from builders.networks import spec
from builders.training import LABELS, ZSCORE, configuration
from segfw.dataset.cases import Channel
from segfw.dataset.labels import LabelSet
from segfw.model.postprocess import Postprocessing
from segfw.model.selection import Selection
from segfw.model.source import fold_folder
from segfw.model.weights import save_weights
from segfw.networks import build_network
from segfw.networks.spec import NetworkSpec
from segfw.planning.plan import PLAN_FILE, Configuration, Plan

WEIGHTS = "runs/3d_fullres/fold_0/weights.safetensors"  # of a small model
ONE = (Channel(name="MR"),)


def plan_of(*configurations: Configuration, labels: LabelSet = LABELS, channels: tuple[Channel, ...] = ONE) -> Plan:
    return Plan(
        dataset="blocks",
        preset="plain",
        gpu_memory_gb=8,
        as_published=False,
        channels=channels,
        labels=labels,
        training_cases=4,
        configurations={chosen.name: chosen for chosen in configurations},
        reasons=("Made for a test.",),
        request="a digest of the author's wishes",
    )


def selection_of(
    *configurations: str, folds: dict[str, tuple[str, ...]] | None = None, notes: tuple[str, ...] = ()
) -> Selection:
    """What ``select`` would have written of these configurations, each with fold 0 if no folds are given."""
    return Selection(
        configurations=configurations,
        folds=folds or dict.fromkeys(configurations, ("0",)),
        postprocessing=Postprocessing(),
        compared_folds=("0",),
        cases=3,
        is_whole_cross_validation=True,
        tolerance=0.001,
        candidates=(),
        trials=(),
        labels={},
        foreground_mean=0.5,
        notes=notes,
    )


def write_fold(
    folder: Path, chosen: Configuration, fold: str, mirror_axes: tuple[int, ...] = (), seed: int = 3
) -> None:
    torch.manual_seed(seed)
    weights = build_network(chosen.network).state_dict()
    path = fold_folder(folder, chosen.name, fold) / "weights.safetensors"
    path.parent.mkdir(parents=True, exist_ok=True)
    save_weights(path, weights, epoch=7, mirror_axes=mirror_axes)


def small_model(
    folder: Path, *, folds: tuple[str, ...] = ("0",), network: NetworkSpec | None = None, first_seed: int = 0
) -> Path:
    """One configuration for the images of ``data.blocks_case``."""
    chosen = configuration(ZSCORE, network or spec())
    folder.mkdir(parents=True, exist_ok=True)
    plan_of(chosen).save(folder / PLAN_FILE)
    for seed, fold in enumerate(folds, first_seed):
        write_fold(folder, chosen, fold, (2,), seed)
    return folder


def make_model(folder: Path) -> Path:
    """A model with a drawn network: masks of ``data.make_images`` have all labels, and depend on every voxel."""
    return small_model(folder, network=spec(features=(4, 8)), first_seed=3)


def cascade_model(folder: Path) -> Path:
    """Both stages of a cascade, the first with two folds, and a full resolution that is not trained."""
    full = configuration(ZSCORE, spec())
    coarse = ZSCORE.model_copy(update={"spacing_mm": (4.0, 3.0, 2.0)})
    low = full.model_copy(update={"name": "3d_lowres", "preprocessing": coarse, "patch_size": (8, 8, 8)})
    second = full.model_copy(
        update={"name": "3d_cascade_fullres", "previous_stage": "3d_lowres", "network": spec(in_channels=3)}
    )
    folder.mkdir(parents=True, exist_ok=True)
    plan_of(low, full, second).save(folder / PLAN_FILE)
    for seed, (chosen, fold) in enumerate(((low, "0"), (low, "1"), (second, "0"))):
        write_fold(folder, chosen, fold, (), seed)
    return folder


def members_of(file: Path) -> dict[str, bytes]:
    """What a model file holds, by name."""
    with zipfile.ZipFile(file) as archive:
        return {name: archive.read(name) for name in archive.namelist()}
