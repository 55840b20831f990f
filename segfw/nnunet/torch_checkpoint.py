"""Reads nnU-Net's checkpoints without running any code that they hold.

A checkpoint is a pickle, which can name any function and have it called. ``torch.load(weights_only=True)`` calls only
what makes tensors and plain values, and refuses every other name. nnU-Net's log of the training holds NumPy numbers, so
that its checkpoints name NumPy's functions too. We need none of these numbers: their names are given to ``Ignored``,
which keeps nothing, and NumPy is never called.
"""

from __future__ import annotations

import pickle
import re
import warnings
import zipfile
import zlib
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from segfw.base.errors import UserError, unreadable
from segfw.base.words import first_line


class Ignored:
    """Stands in for a NumPy number or array, or its type; whatever it is made from is dropped."""

    def __init__(self, *parts: object) -> None:
        pass

    def __setstate__(self, state: object) -> None:
        pass


# The whole allow-list, each name for what nnU-Net 2.0 to 2.8 puts into 'logging' and '_best_ema': a NumPy number is
# scalar(dtype, bytes), an array _reconstruct(ndarray, ...). NumPy 2 moved both from numpy.core to numpy._core.
STAND_INS = tuple(
    (Ignored, name)
    for name in (
        "numpy.dtype",
        "numpy.ndarray",
        "numpy._core.multiarray.scalar",
        "numpy.core.multiarray.scalar",
        "numpy._core.multiarray._reconstruct",
        "numpy.core.multiarray._reconstruct",
    )
)
# A name that torch does not know, or an instruction that its reader has not.
NAMED = re.compile(r"GLOBAL ([\w.]+)")
WAY_OUT = (
    "if you trust it, open it where nnU-Net is installed and save what is needed alone into a copy of its folder: "
    "c = torch.load(FILE, weights_only=False, map_location='cpu'); torch.save({k: c[k] for k in ('network_weights', "
    "'trainer_name', 'init_args', 'inference_allowed_mirroring_axes', 'current_epoch') if k in c}, COPY)"
)


@dataclass(frozen=True, kw_only=True)
class Checkpoint:
    """What is taken from a checkpoint. ``mirror_axes`` are of the patch, so two-dimensional in a 2-D network."""

    weights: Mapping[str, Tensor]
    trainer: str
    configuration: str
    mirror_axes: tuple[int, ...]
    epoch: int


def read_checkpoint(path: Path) -> Checkpoint:
    """Opens a checkpoint of nnU-Net v2; raises UserError, and runs nothing, if it holds more than data."""
    return _checked(read_data(path), path)


def read_data(path: Path) -> Any:
    """What a checkpoint of PyTorch holds, tensors and plain values; UserError, and nothing is run, if it holds more."""
    _require_archive(path)
    try:
        with torch.serialization.safe_globals([*STAND_INS]), warnings.catch_warnings():
            warnings.simplefilter("ignore")  # what is odd is refused below, in one sentence
            return torch.load(path, map_location="cpu", weights_only=True)
    except pickle.UnpicklingError as error:
        named = NAMED.search(str(error))
        reason = f"it names {named[1]}" if named else "it does more than describe tensors and plain values"
        raise UserError(f"{path}: is refused, because {reason}, which could run code; {WAY_OUT}") from None
    except Exception as error:  # a torn zip, a truncated pickle: torch raises many kinds
        reason = first_line(error)
        raise unreadable(path, error, f"{path}: is no whole checkpoint ({reason}); copy it again") from None


def _require_archive(path: Path) -> None:
    """UserError unless the file is a zip of which nothing is compressed, as PyTorch writes it; a web page is none.

    Every member is read and its CRC compared, which torch.load does not do.
    """
    damaged = None
    try:
        with zipfile.ZipFile(path) as archive:
            unpacked = sum(member.file_size for member in archive.infolist())
            if unpacked <= path.stat().st_size:
                damaged = archive.testzip()
    except (OSError, ValueError, EOFError, RuntimeError, zlib.error, zipfile.BadZipFile) as error:
        reason = f"{path}: is no whole checkpoint of nnU-Net v2 ({error}); copy or download it again"
        raise unreadable(path, error, reason) from None
    if unpacked > path.stat().st_size:
        raise UserError(f"{path}: unpacks to {unpacked:,} bytes, more than it has; do not trust this file")
    if damaged is not None:
        raise UserError(f"{path}: is damaged, the checksum of {damaged} does not fit; copy or download it again")


def _checked(found: Any, path: Path) -> Checkpoint:
    """The fields that are needed, each of the type that it must have; ``found`` is whatever the file holds."""
    try:
        axes = found.get("inference_allowed_mirroring_axes")
        epoch = found.get("current_epoch", 0)
        result = Checkpoint(
            weights=dict(found["network_weights"]),
            trainer=found["trainer_name"],
            configuration=found["init_args"]["configuration"],
            mirror_axes=() if axes is None else tuple(axes),
            epoch=epoch if isinstance(epoch, int) else 0,
        )
    except KeyError as error:
        raise UserError(f"{path}: holds no {error}; is it a checkpoint of nnU-Net v2?") from None
    except (TypeError, AttributeError, ValueError):
        raise UserError(
            f"{path}: holds other things than a checkpoint of nnU-Net v2; take it from the original"
        ) from None
    is_right = (
        all(isinstance(name, str) and is_dense(tensor) for name, tensor in result.weights.items())
        and isinstance(result.trainer, str)
        and result.trainer.isidentifier()  # the name of a class
        and isinstance(result.configuration, str)
        and all(isinstance(axis, int) and 0 <= axis < 3 for axis in result.mirror_axes)
    )
    if not is_right:
        raise UserError(f"{path}: holds other things than a checkpoint of nnU-Net v2; take it from the original")
    return result


def is_dense(tensor: object) -> bool:
    """True for real numbers that are all there: not sparse, quantised, nested, expanded or on no device."""
    return (
        isinstance(tensor, Tensor)
        and tensor.layout == torch.strided
        and tensor.device.type == "cpu"
        and not (tensor.is_nested or tensor.is_quantized or tensor.is_complex())
        and tensor.numel() * tensor.element_size() <= tensor.untyped_storage().nbytes()  # each has a place of its own
    )
