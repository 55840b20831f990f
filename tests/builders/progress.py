"""Rows of metrics.jsonl and places of a run, made by hand."""

from __future__ import annotations

import json
from collections.abc import Sequence
from pathlib import Path

from segfw.training.position import Position


def row(epoch: int, **more) -> dict:
    return {
        "epoch": epoch,
        "steps": 10,
        "train_loss": 0.5 - 0.1 * epoch,
        "val_loss": 0.6 - 0.1 * epoch,
        "learning_rate": 0.01 / (epoch + 1),
        "val_dice": 0.1 * epoch,
        "val_dice_per_label": [0.1 * epoch, None],
        "epoch_s": 2.0,
        "elapsed_s": 2.0 * (epoch + 1),
        "stalled_share": 0.25,
    } | more


def write_rows(folder: Path, rows: Sequence[dict]) -> None:
    folder.mkdir(parents=True, exist_ok=True)
    (folder / "metrics.jsonl").write_text("".join(json.dumps(each) + "\n" for each in rows), encoding="utf-8")


def position(**changes) -> Position:
    """Step 12 of 250 of the first of 1000 epochs."""
    values = {
        "phase": "training",
        "epoch": 1,
        "epochs": 1000,
        "epoch_step": 12,
        "epoch_steps": 250,
        "share": 12 / 250_000,
        "elapsed_s": 25.0,
        "left_s": 523_400.0,
        "step_s": 2.1,
        "loss": None,
    }
    return Position(**(values | changes))
