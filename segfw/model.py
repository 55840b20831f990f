"""The model directory: a plan, and the weights of its folds. Nothing that is loaded can run code.

``MODEL/plan.json`` and ``MODEL/runs/CONFIGURATION/fold_K/weights.safetensors``: a work folder is a model directory,
and one with only these files still is.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

from torch import Tensor

from segfw.planning.plan import PLAN_FILE, Configuration, Plan
from segfw.records import UserError, whole_file

WEIGHTS_FILE, BEST_FILE = "weights.safetensors", "best.safetensors"


@dataclass(frozen=True, kw_only=True)
class Model:
    """A trained configuration: its plan and the weights of one network per fold, by fold name."""

    plan: Plan
    configuration: Configuration
    weights: Mapping[str, Mapping[str, Tensor]]
    mirror_axes: tuple[int, ...]  # along which all of the networks saw mirrored images in training
    previous: Model | None = None  # the first stage, where this is the second one of a cascade


def fold_folder(model_dir: Path, configuration: str, fold: str) -> Path:
    """Where everything about one fold is kept."""
    return model_dir / "runs" / configuration / f"fold_{fold}"


def trained_folds(model_dir: Path, configuration: str) -> list[str]:
    """Names of the folds whose training is finished, in order."""
    folders = (model_dir / "runs" / configuration).glob("fold_*")
    return sorted(folder.name.removeprefix("fold_") for folder in folders if (folder / WEIGHTS_FILE).is_file())


def load_model(
    model_dir: Path,
    configuration: str | None = None,
    folds: tuple[str, ...] | None = None,
    *,
    previous_folds: tuple[str, ...] | None = None,
    best: bool = False,
) -> Model:
    """Opens a model directory; by default the only trained configuration, and all its trained folds.

    The second stage of a cascade brings its first one, with ``previous_folds`` or all its trained folds, whichever are
    taken of the second: their mean is better, and new images are no fold's.

    ``best`` takes the weights of the best validation in training instead of the last ones.
    Raises UserError if there is no plan, no trained fold, or several configurations to choose from.
    """
    model_dir = Path(model_dir)
    if not (model_dir / PLAN_FILE).is_file():
        raise UserError(f"{model_dir}: holds no {PLAN_FILE}; give the work folder of segfw run or segfw train")
    plan = Plan.load(model_dir / PLAN_FILE)
    if configuration is None:
        trained = [name for name in plan.configurations if trained_folds(model_dir, name)]
        if not trained:
            raise UserError(f"{model_dir}: no fold is trained to its end; run segfw train first")
        if len(trained) > 1:
            raise UserError(f"{model_dir}: {', '.join(trained)} are trained; choose one with --configuration")
        configuration = trained[0]
    chosen = plan.configuration(configuration)
    present = trained_folds(model_dir, configuration)
    for fold in folds or ():
        if fold not in present:
            there = f"trained are {', '.join(present)}" if present else "none is trained"
            raise UserError(f"{model_dir}: fold {fold} of {configuration} is not trained to its end; {there}")
    if not present:
        raise UserError(f"{model_dir}: no fold of {configuration} is trained to its end; run segfw train first")
    # A model trained on all cases has seen every validation case: it is used alone, and only if asked for or alone.
    names = folds or tuple(name for name in present if name != "all") or ("all",)
    file = BEST_FILE if best else WEIGHTS_FILE
    paths = {name: fold_folder(model_dir, configuration, name) / file for name in names}
    for path in paths.values():
        if not path.is_file():
            raise UserError(f"{path}: no whole cases were validated while it was trained; predict with --weights last")
    loaded = {name: load_tensors(path) for name, path in paths.items()}
    axes = [
        {int(axis) for axis in metadata.get("mirror_axes", "").split(",") if axis} for _, metadata in loaded.values()
    ]
    return Model(
        plan=plan,
        configuration=chosen,
        weights={name: tensors for name, (tensors, _) in loaded.items()},
        mirror_axes=tuple(sorted(set.intersection(*axes))),
        previous=load_model(model_dir, chosen.previous_stage, previous_folds) if chosen.previous_stage else None,
    )


def save_weights(path: Path, weights: Mapping[str, Tensor], *, epoch: int, mirror_axes: Sequence[int]) -> None:
    """Writes a fold's weights as ``load_model`` reads them."""
    axes = ",".join(str(axis) for axis in mirror_axes)
    save_tensors(path, weights, {"epoch": str(epoch), "mirror_axes": axes})


def save_tensors(path: Path, tensors: Mapping[str, Tensor], metadata: Mapping[str, str]) -> None:
    """Writes tensors and text to one safetensors file, atomically."""
    from safetensors.torch import save_file

    plain = {name: tensor.detach().cpu().contiguous() for name, tensor in tensors.items()}
    with whole_file(path) as partial:
        save_file(plain, str(partial), metadata=dict(metadata))


def load_tensors(path: Path) -> tuple[dict[str, Tensor], dict[str, str]]:
    """Tensors and text of a safetensors file; raises UserError if it is damaged."""
    from safetensors import SafetensorError, safe_open

    try:
        with safe_open(str(path), framework="pt") as file:
            return {name: file.get_tensor(name) for name in file.keys()}, dict(file.metadata() or {})  # noqa: SIM118
    except (SafetensorError, OSError) as error:
        raise UserError(f"{path}: is not a whole safetensors file ({error}); train again or restore it") from None
