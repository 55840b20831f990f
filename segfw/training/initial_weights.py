"""The weights that a run may begin with: where they lie, and how a new network takes them."""

from __future__ import annotations

import zipfile
from collections.abc import Callable, Sequence
from contextlib import nullcontext
from pathlib import Path
from typing import Literal

import torch
from torch import Tensor, nn

from segfw.base.files import file_sha256
from segfw.base.records import UserError
from segfw.model.pretraining_record import read_pretraining
from segfw.model.source import WEIGHTS_FILE, ModelSource, fold_folder
from segfw.model.training_record import StartFacts
from segfw.model.weights import load_tensors, require_usable
from segfw.networks import BuildNetwork, NetworkSpec, build_network
from segfw.networks.transfer import transfer
from segfw.planning.plan import PLAN_FILE, REFINE, Configuration, Plan

FOREIGN = (".pth", ".pt", ".ckpt")  # endings of PyTorch's checkpoints


def find_start(path: Path, configuration: str | None = None, fold: str | None = None) -> Path:
    """The file of weights meant by a model, by the folder of one of its folds, or by the file itself.

    In a model, a folder or a file of segfw export, it is that of ``configuration`` and ``fold``, the ones to be
    trained, where both are trained there: of the same data the same fold has not seen the validation cases. Else it is
    the only configuration, and its first fold. Raises UserError if there is no trained fold, or several configurations
    none of which is the one.
    """
    path = Path(path)
    if path.is_file() and not zipfile.is_zipfile(path):
        return path
    if (path / WEIGHTS_FILE).is_file():
        return path / WEIGHTS_FILE
    trained = _trained_folds(path)
    names = [name for name in trained if name != REFINE or configuration == REFINE] or list(trained)
    if configuration not in names and len(names) > 1:
        raise UserError(
            f"--init-from {path}: {', '.join(names)} are trained, but not {configuration}; give the folder of one "
            f"fold, such as {fold_folder(path, names[0], trained[names[0]][0])}"
        )
    name = configuration if configuration in names else names[0]
    return fold_folder(path, name, fold if fold in trained[name] else trained[name][0]) / WEIGHTS_FILE


def is_foreign(path: Path) -> bool:
    """Whether a start is a checkpoint of PyTorch, as others publish them, and no file of segfw."""
    return path.suffix in FOREIGN


def require_start(path: Path, configurations: Sequence[str]) -> None:
    """Raises UserError if there are no weights to begin with, which is better known before hours of other work.

    Without ``configurations`` it is not known yet which are trained.
    """
    if not path.exists():
        raise UserError(f"--init-from {path}: no such file or folder")
    if is_foreign(path):
        return
    for name in configurations:
        find_start(path, name)
    if not configurations and not path.is_file() and not (path / WEIGHTS_FILE).is_file():
        _trained_folds(path)


def require_same_architecture(path: Path, file: Path, configuration: Configuration) -> None:
    """UserError where the weights in ``file``, which ``path`` means, are known to be of another architecture."""
    other = _architecture(path, file)
    here = configuration.network.architecture
    if other is not None and other != here:
        raise UserError(
            f"--init-from {path}: is of the architecture {other}, but {configuration.name} here is a {here}; plan with "
            "the same --preset, or give another start"
        )


def require_some_fit(file: Path, spec: NetworkSpec, build: BuildNetwork) -> None:
    """UserError where a file holds no weights, or none that a network takes: known before hours of other work."""
    # Without memory where that is known to work: a constructor of one's own may look at its numbers.
    with torch.device("meta") if build is build_network else nullcontext():
        network = build(spec)
    transfer(network, *_weights_of(file))


def _weights_of(file: Path) -> tuple[dict[str, Tensor], tuple[str, ...]]:
    """The weights in a file, and the names of those that begin anew in any case: the heads of a pretraining."""
    pretraining = read_pretraining(file.parent)
    weights, _ = load_tensors(file)
    require_usable(weights, file)
    return weights, () if pretraining is None else pretraining.heads


def _architecture(path: Path, file: Path) -> str | None:
    """That of weights, as far as what lies beside them tells."""
    pretraining = read_pretraining(file.parent)
    if pretraining is not None:
        return pretraining.network.architecture
    configuration = file.parent.parent.name
    if zipfile.is_zipfile(path):
        with ModelSource.open(path) as source:
            plan = source.plan()
    elif len(file.parents) > 3 and (file.parents[3] / PLAN_FILE).is_file():
        plan = Plan.load(file.parents[3] / PLAN_FILE)
    else:
        return None
    return plan.configurations[configuration].network.architecture if configuration in plan.configurations else None


def _trained_folds(path: Path) -> dict[str, list[str]]:
    """The trained folds of each configuration of a model that has any; UserError if there is none, or no model."""
    is_model_file = zipfile.is_zipfile(path)
    if not is_model_file and not (path / PLAN_FILE).is_file():
        raise UserError(
            f"--init-from {path}: is neither a model directory (with {PLAN_FILE}) nor a {WEIGHTS_FILE}; give a work "
            "folder of segfw train, or the folder of one fold"
        )
    with ModelSource.open(path) as source:
        found = {name: list(source.trained_folds(name)) for name in source.plan().configurations}
    trained = {name: folds for name, folds in found.items() if folds}
    if not trained:
        raise UserError(f"--init-from {path}: no fold is trained to its end; run segfw train first")
    return trained


def start_facts(file: Path, kind: Literal["trained", "pretrained"]) -> StartFacts | None:
    """What a run that begins with a file of weights writes down; None for one inside a model file."""
    if not file.is_file():
        return None
    return StartFacts(name=file.name, sha256=file_sha256(file), kind=kind)


def start_from(path: Path, configuration: str, fold: str) -> Callable[[nn.Module], None]:
    """Changes a new network's weights to those of another model, and says which it has taken."""

    def start(network: nn.Module) -> None:
        file = find_start(path, configuration, fold)
        taken = transfer(network, *_weights_of(file))
        print(f"starting from {file}: {taken.sentence()}")
        if taken.details():
            print(taken.details())
        if read_pretraining(file.parent) is None and file.parent.name != f"fold_{fold}":
            print(f"note: if it was trained on the cases that fold {fold} validates on, the scores will be too good")

    return start
