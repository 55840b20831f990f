"""The model: a plan, and the weights of its folds, in a folder or in one file. Nothing that is loaded can run code.

``MODEL/plan.json`` and ``MODEL/runs/CONFIGURATION/fold_K/weights.safetensors``: a work folder is a model, one with
only these files still is, and so is a file of ``segfw export``, whose members are named by such paths as well.
"""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

from torch import Tensor
from torch import float16 as half

from segfw.base.records import UserError, whole_file
from segfw.model.card import MEMBER, POSTPROCESSING_FILE, Packed
from segfw.planning.plan import PLAN_FILE, Configuration, Plan

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


def postprocessing_file(model: Path, configuration: str) -> Path:
    """Where the postprocessing that came with an imported configuration is kept; it is applied only if asked for."""
    return Path(model) / "runs" / configuration / POSTPROCESSING_FILE


def is_packed(model: Path) -> bool:
    """True for a model in one file, as ``segfw export`` writes it."""
    return Path(model).is_file()


def read_model_file(path: Path) -> bytes | None:
    """Content of a file of a model, such as MODEL/selection.json, also where MODEL is one file; None if it has none."""
    model, name = _place(path)
    if model is None:
        return path.read_bytes() if path.is_file() else None
    packed = Packed.open(model)
    return packed.read(name) if packed.has(name) else None


def load_plan(model: Path) -> Plan:
    """The plan of a model; raises UserError if there is none."""
    path = Path(model) / PLAN_FILE
    if is_packed(model):
        return Plan.parse(Packed.open(Path(model)).read(PLAN_FILE), path)
    if not path.is_file():
        raise UserError(f"{model}: holds no {PLAN_FILE}; give the work folder of segfw run or segfw train")
    return Plan.load(path)


def trained_folds(model: Path, configuration: str) -> list[str]:
    """Names of the folds whose training is finished, in order."""
    if is_packed(model):
        parts = [name.split("/") for name in Packed.open(model).card.members]
        folders = [part[2] for part in parts if part[:2] == ["runs", configuration] and len(part) == 4]
    else:
        found = (model / "runs" / configuration).glob("fold_*")
        folders = [folder.name for folder in found if (folder / WEIGHTS_FILE).is_file()]
    return sorted(folder.removeprefix("fold_") for folder in folders)


def predicting_folds(trained: Sequence[str]) -> tuple[str, ...]:
    """The folds that predict by default.

    One trained on all cases has seen every validation case: it is used alone, and only if asked for or alone.
    """
    return tuple(fold for fold in trained if fold != "all") or tuple(trained)


def default_configuration(model: Path, plan: Plan) -> str:
    """The only configuration that is trained, or that a model file is meant for; UserError if there are several."""
    model = Path(model)
    trained = [name for name in plan.configurations if trained_folds(model, name)]
    if is_packed(model):  # where a first stage comes along with the second one
        trained = list(Packed.open(model).card.configurations)
    if not trained:
        raise UserError(f"{model}: no fold is trained to its end; run segfw train first")
    if len(trained) > 1:
        raise UserError(f"{model}: {', '.join(trained)} are trained; choose one with --configuration")
    return trained[0]


def weight_files(
    model: Path, configuration: str, folds: tuple[str, ...] | None = None, *, best: bool = False
) -> dict[str, Path]:
    """Where the weights of each fold lie, by name; all trained folds if none are asked for. UserError if one lacks."""
    present = trained_folds(model, configuration)
    for fold in folds or ():
        if fold not in present:
            there = f"trained are {', '.join(present)}" if present else "none is trained"
            raise UserError(f"{model}: fold {fold} of {configuration} is not trained to its end; {there}")
    if not present:
        raise UserError(f"{model}: no fold of {configuration} is trained to its end; run segfw train first")
    names = folds or predicting_folds(present)
    if is_packed(model):
        if best and Packed.open(model).card.weights != "best":
            raise UserError(f"{model}: holds the weights of the training's end; predict with --weights last")
        return {name: fold_folder(model, configuration, name) / WEIGHTS_FILE for name in names}
    paths = {name: fold_folder(model, configuration, name) / (BEST_FILE if best else WEIGHTS_FILE) for name in names}
    for path in paths.values():
        if not path.is_file():
            raise UserError(f"{path}: no weights of a best epoch were kept; predict with --weights last")
    return paths


def load_model(
    model_dir: Path,
    configuration: str | None = None,
    folds: tuple[str, ...] | None = None,
    *,
    previous_folds: tuple[str, ...] | None = None,
    best: bool = False,
) -> Model:
    """Opens a model, a folder or a file; by default the only trained configuration, and all its trained folds.

    The second stage of a cascade brings its first one, with ``previous_folds`` or all its trained folds, whichever are
    taken of the second: their mean is better, and new images are no fold's.

    ``best`` takes the weights of the best validation in training instead of the last ones.
    Raises UserError if there is no plan, no trained fold, or several configurations to choose from.
    """
    model_dir = Path(model_dir)
    plan = load_plan(model_dir)
    chosen = plan.configuration(configuration or default_configuration(model_dir, plan))
    paths = weight_files(model_dir, chosen.name, folds, best=best)
    loaded = {name: load_tensors(path) for name, path in paths.items()}
    return Model(
        plan=plan,
        configuration=chosen,
        weights={name: tensors for name, (tensors, _) in loaded.items()},
        mirror_axes=shared_mirror_axes([metadata for _, metadata in loaded.values()]),
        previous=load_model(model_dir, chosen.previous_stage, previous_folds) if chosen.previous_stage else None,
    )


def shared_mirror_axes(metadata: Sequence[Mapping[str, str]]) -> tuple[int, ...]:
    """Axes along which all folds, whose weights' ``metadata`` are given, saw mirrored images."""
    axes = [{int(axis) for axis in said.get("mirror_axes", "").split(",") if axis} for said in metadata]
    return tuple(sorted(set.intersection(*axes)))


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
    """Tensors and text of a safetensors file, also of one inside a model file; UserError if it is damaged.

    Weights that a model file keeps as float16 come as float32.
    """
    from safetensors import SafetensorError, safe_open
    from safetensors.torch import load

    try:
        model, name = _place(path)
        if model is not None:
            content = Packed.open(model).read(name)
            tensors = {
                name: tensor.float() if tensor.dtype == half else tensor for name, tensor in load(content).items()
            }
            return tensors, header_of(content).get("__metadata__", {})
        with safe_open(str(path), framework="pt") as file:
            return {name: file.get_tensor(name) for name in file.keys()}, dict(file.metadata() or {})  # noqa: SIM118
    except (SafetensorError, OSError) as error:
        raise UserError(f"{path}: is not a whole safetensors file ({error}); train again or restore it") from None


def header_of(content: bytes) -> dict:
    """What a safetensors file says before its tensors: 8 bytes of length, then JSON."""
    return json.loads(content[8 : 8 + int.from_bytes(content[:8], "little")])


def _place(path: Path) -> tuple[Path | None, str]:
    """The model file that a path leads into and the member's name; None for a path that is a file's own."""
    path = Path(path)
    for parent in path.parents:
        if parent.is_file():
            name = path.relative_to(parent).as_posix()
            if MEMBER.fullmatch(name):
                return parent, name
    return None, ""
