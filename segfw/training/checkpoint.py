"""The state of a training run, and its checkpoint: one file, whole or absent, from which a run resumes exactly."""

from __future__ import annotations

import json
from dataclasses import dataclass
from pathlib import Path

import torch
from torch import nn

from segfw.model import load_tensors, save_tensors
from segfw.records import UserError

CHECKPOINT_FILE = "last.safetensors"


@dataclass(kw_only=True)
class TrainState:
    """All that changes while training; saved and restored as a whole."""

    network: nn.Module
    optimizer: torch.optim.Optimizer
    scaler: torch.amp.GradScaler
    epoch: int = 0
    step: int = 0
    elapsed_s: float = 0.0
    smoothed_dice: float | None = None
    best_dice: float | None = None


def save_checkpoint(folder: Path, state: TrainState) -> None:
    """Writes weights, momentum and counters to one file, atomically."""
    names = {id(parameter): name for name, parameter in state.network.named_parameters()}
    tensors = {f"weights/{name}": tensor for name, tensor in state.network.state_dict().items()}
    for parameter, kept in state.optimizer.state.items():
        tensors[f"momentum/{names[id(parameter)]}"] = kept["momentum_buffer"]
    counters = {key: getattr(state, key) for key in ("epoch", "step", "elapsed_s", "smoothed_dice", "best_dice")} | {
        "scaler": state.scaler.state_dict()
    }
    save_tensors(folder / CHECKPOINT_FILE, tensors, {"state": json.dumps(counters)})


def require_checkpoint(folder: Path) -> Path:
    """The checkpoint's path; raises UserError if there is none."""
    path = folder / CHECKPOINT_FILE
    if not path.is_file():
        raise UserError(f"{path}: there is no checkpoint to resume from; train without --resume")
    return path


def load_checkpoint(folder: Path, state: TrainState) -> None:
    """Restores what ``save_checkpoint`` wrote; raises UserError if there is none or it is of another network."""
    path = require_checkpoint(folder)
    tensors, metadata = load_tensors(path)
    weights = {name.removeprefix("weights/"): t for name, t in tensors.items() if name.startswith("weights/")}
    try:
        state.network.load_state_dict(weights)
    except RuntimeError as error:
        raise UserError(
            f"{path}: is of another network ({str(error).splitlines()[0]}); train without --resume"
        ) from None
    for name, parameter in state.network.named_parameters():
        if f"momentum/{name}" in tensors:
            buffer = torch.empty_like(parameter).copy_(tensors[f"momentum/{name}"])
            state.optimizer.state[parameter]["momentum_buffer"] = buffer
    counters = json.loads(metadata["state"])
    scaler = counters.pop("scaler")
    if scaler:  # empty where the arithmetic needs no scaling
        state.scaler.load_state_dict(scaler)
    for key, value in counters.items():
        setattr(state, key, value)
