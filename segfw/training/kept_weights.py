"""Weights of a run after parts of its schedule, kept beside those of its end: so that both can be compared."""

from __future__ import annotations

from pathlib import Path

from segfw.model.weights import save_weights
from segfw.training.checkpoint import TrainState
from segfw.training.train_run import TrainRun


def kept_file(folder: Path, share: float) -> Path:
    """Where the weights of the run in ``folder`` are kept after so much of its schedule, 0 to 1."""
    return folder / f"weights_at_{round(100 * share)}.safetensors"


def keep_weights(run: TrainRun, state: TrainState, progress: float) -> None:
    """Writes the weights as they are now for every share of the schedule that is reached and has none yet."""
    for share in run.keep_at:
        path = kept_file(run.folder, share)
        if progress >= share and run.ranks.is_first and not path.is_file():
            save_weights(
                path,
                state.network.state_dict(),
                epoch=state.counters.epoch,
                mirror_axes=run.mirror_axes,
                patch_size=run.patch_size,
            )
