"""Tensors on disk: safetensors files, of a model's weights and of checkpoints, in a folder or inside a model file."""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from pathlib import Path

import torch
from torch import Tensor

from segfw.base.errors import UserError, unreadable
from segfw.base.files import whole_file
from segfw.model.source import ModelSource, split_model_path

LONGEST_NUMBER = 9  # digits of an epoch


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
    inside = split_model_path(path)
    if inside is None:
        return _load_file(Path(path))
    model, name = inside
    with ModelSource.open(model) as source:
        return read_tensors(source, name)


def read_tensors(source: ModelSource, name: str) -> tuple[dict[str, Tensor], dict[str, str]]:
    """Tensors and text of one safetensors file of an opened model, as ``load_tensors`` gives them."""
    from safetensors import SafetensorError
    from safetensors.torch import load

    path = source.path / name
    if source.card is None:
        return _load_file(path)
    content = source.read(name)
    try:
        tensors = load(content)
    except SafetensorError as error:
        raise _damaged(path, error) from None
    whole = {key: tensor.float() if tensor.dtype == torch.float16 else tensor for key, tensor in tensors.items()}
    return whole, _checked(safetensors_header(content).get("__metadata__", {}), path)


def _load_file(path: Path) -> tuple[dict[str, Tensor], dict[str, str]]:
    from safetensors import SafetensorError, safe_open

    try:
        with safe_open(str(path), framework="pt") as file:
            tensors = {name: file.get_tensor(name) for name in file.keys()}  # noqa: SIM118
            metadata = dict(file.metadata() or {})
    except (SafetensorError, OSError) as error:
        raise _damaged(path, error) from None
    return tensors, _checked(metadata, path)


def _damaged(path: Path, error: Exception) -> UserError:
    return unreadable(path, error, f"{path}: is not a whole safetensors file ({error}); train again or restore it")


def safetensors_header(content: bytes) -> dict:
    """What a safetensors file says before its tensors: 8 bytes of length, then JSON."""
    return json.loads(content[8 : 8 + int.from_bytes(content[:8], "little")])


def shared_mirror_axes(metadata: Sequence[Mapping[str, str]]) -> tuple[int, ...]:
    """Axes along which all folds, whose weights' ``metadata`` are given, saw mirrored images."""
    axes_of_folds = [{int(axis) for axis in fold.get("mirror_axes", "").split(",") if axis} for fold in metadata]
    return tuple(sorted(set.intersection(*axes_of_folds)))


def _checked(metadata: Mapping[str, str], path: Path) -> dict[str, str]:
    """The text of a file of weights, once it says of mirroring and epoch what it can; UserError naming ``path``."""
    axes = metadata.get("mirror_axes", "")
    if not {axis for axis in axes.split(",") if axis} <= {"0", "1", "2"}:
        raise UserError(f"{path}: field 'mirror_axes' is {axes[:80]!r}; it must be some of 0,1,2: restore the file")
    epoch = metadata.get("epoch", "0")
    if not (epoch.isascii() and epoch.isdecimal()) or len(epoch) > LONGEST_NUMBER:
        raise UserError(f"{path}: field 'epoch' is {epoch[:80]!r}; it must be a number: restore the file")
    return dict(metadata)
