"""What ``pretrain`` takes: which images, which must stay unseen, and for how long."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

from segfw.base.durations import duration_s
from segfw.base.options import DEVICES, PRECISIONS, Options, Precision, option
from segfw.planning.published import EPOCHS, STEPS_PER_EPOCH

# What decides the weights: a pretraining that goes on does so with what it was begun with.
DECISIVE = (
    *("images", "keep_out", "folds", "epochs", "steps_per_epoch", "time_budget_s", "batch_size", "seed", "precision"),
)


@dataclass(frozen=True, kw_only=True)
class PretrainOptions(Options):
    """Of which images ``pretrain`` learns, and for how long."""

    images: tuple[str, ...] = option((), "folders of further images, without masks", metavar="FOLDER")
    keep_out: tuple[str, ...] = option(
        (), "folders of images that must stay unseen, such as those of a test set", metavar="FOLDER"
    )
    folds: tuple[str, ...] = option(
        ("0",), "folds that begin with it: their validation images stay unseen (default: {default})", metavar="FOLD"
    )
    epochs: int = option(EPOCHS, "length (default: {default})", ge=1)
    steps_per_epoch: int | None = option(None, f"batches per epoch (default: {STEPS_PER_EPOCH})", ge=1)
    time_budget_s: float | None = option(
        None, "pretrain this long instead: 90s, 12m, 4h", parse=duration_s, metavar="TIME", gt=0
    )
    batch_size: int | None = option(None, "patches per step (default: the plan's)", ge=1)
    seed: int = option(0, "of everything random (default: {default})", ge=0)
    precision: Precision = option("auto", PRECISIONS)
    workers: int | None = option(None, "threads that read and preprocess (default: one per processor)", ge=1)
    device: str = option("auto", DEVICES)
    overwrite: bool = option(False, "delete what was pretrained and begin anew")

    def decisive(self) -> dict[str, Any]:
        """All that decides the weights, as JSON holds it."""
        values = self.as_json()
        return {name: values[name] for name in DECISIVE}
