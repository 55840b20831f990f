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
    """Writes the weights as they are now for every share of the schedule that is reached and has none yet.

    A run that went back to an earlier checkpoint, after a kill or a divergence, writes them anew: what lies there then
    is of steps that it did not go on from.
    """
    for share in run.keep_at:
        if progress < share or share in state.counters.kept:
            continue
        state.counters.kept.append(share)
        if run.ranks.is_first:
            save_weights(
                kept_file(run.folder, share),
                state.network.state_dict(),
                epoch=state.counters.epoch,
                mirror_axes=run.mirror_axes,
                patch_size=run.patch_size,
            )
