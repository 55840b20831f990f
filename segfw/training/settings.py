"""How one fold is trained: every choice that is not the plan's."""

from __future__ import annotations

from dataclasses import dataclass, fields
from pathlib import Path
from typing import Literal, Self

from segfw.base.durations import duration_s
from segfw.base.options import DEVICES, KERNELS, OFF_ON, PRECISIONS, Options, Precision, option, setting
from segfw.planning.published import EPOCHS, STEPS_PER_EPOCH


@dataclass(frozen=True, kw_only=True)
class TrainSettings(Options):
    """Settings of one training run, which stay with it in settings.json.

    With a time budget ``epochs`` does not count: the schedule follows the clock.
    """

    epochs: int = option(EPOCHS, "length of the training (default: {default})", ge=1)
    steps_per_epoch: int | None = option(None, f"batches per epoch (default: {STEPS_PER_EPOCH})", ge=1)
    time_budget_s: float | None = option(
        None, "train each fold this long instead: 90s, 12m, 1h30m", parse=duration_s, metavar="TIME", gt=0
    )
    # None is the plan's, less where a time budget is short.
    batch_size: int | None = option(None, "patches per step (default: the plan's)", ge=1)
    patches: Literal["grow", "constant"] | None = option(
        None, "let patches grow while training, or not (default: where a time budget is given)"
    )
    seed: int = option(0, "of everything random (default: {default})", ge=0)
    precision: Precision = option("auto", PRECISIONS)
    augmentation: Literal["device", "reference", "none"] = option(
        "device", "on the device (default), by the published pipeline on the CPU, or none"
    )
    # The published recipe leaves elastic deformation out.
    elastic: bool = option(False, "elastic deformations as well")
    mirroring: bool | None = option(None, "mirrored images too (default: in long runs)")
    loss: Literal["dice-ce", "dice-topk"] = option(
        "dice-ce", "Dice and cross-entropy (default), or Dice and that of the hardest tenth of the voxels"
    )
    patience: int | None = option(
        None, "end the run early after so many epochs without progress", metavar="EPOCHS", ge=1
    )
    accumulate: int = option(1, "compute each batch in N parts (default: as few as fit)", metavar="N", ge=1)
    # None compiles where it pays (device.compiling_pays).
    compile: bool | None = option(None, "torch.compile (default: where it pays)")
    # Off until a card has run them.
    kernels: bool = option(False, KERNELS, words=OFF_ON)
    cuda_graphs: Literal["off", "auto", "on"] = option(
        "off",
        "steps in one launch on CUDA, auto: where launches are most of their time; no card has run it yet "
        "(default: off)",
    )
    # More than what CUDA takes for a process, which is counted.
    gpu_limit_gb: float | None = option(
        None, "GB of the GPU that training keeps to, where others use it too (default: all)", metavar="GB", gt=0.5
    )
    training_precision: Precision | None = setting(None, "what 'auto' was found to be in training when the run began")
    patch_size: tuple[int, int, int] | None = setting(
        None, "voxels (z, y, x) of the last patches (default: the plan's, or what a time budget has room for)"
    )
    learning_rate: float | None = setting(None, "learning rate at the start (default: by the momentum)", gt=0)
    momentum: float | None = setting(None, "of SGD (default: by the length of the run)", ge=0, lt=1)
    weight_decay: float = setting(3e-5, "of SGD (default: {default})", ge=0)
    gradient_clip: float = setting(12.0, "largest norm of the gradient (default: {default})", gt=0)
    warm_up_share: float = setting(0.0, "share of the run in which the rate rises (default: {default})", ge=0, lt=1)
    encoder_rate: float = setting(1.0, "factor on the rate of the encoder (default: {default})", gt=0, le=1)
    foreground_share: float = setting(
        0.33, "share of the patches that lie on a structure (default: {default})", ge=0, le=1
    )


LENGTH_FIELDS = ("epochs", "steps_per_epoch", "time_budget_s")  # of TrainSettings: how long a run is


@dataclass(frozen=True, kw_only=True)
class StartOptions(Options):
    """Of a training, what is not kept with it: what it begins with, who hears of it, where it is computed."""

    init_from: Path | None = option(None, "begin with another model's weights, as far as they fit", metavar="MODEL")
    may_have_seen: bool = option(False, "take a start that has seen validation images: scores will be too good")
    log: tuple[str, ...] = option((), "write the figures there as well", choices=("tensorboard", "mlflow", "wandb"))
    device: str = option("auto", DEVICES)


def more(text: str) -> dict[str, float]:
    """The fields of TrainOptions that '100' (epochs) or '30m' (time) of ``--extend`` stands for."""
    if text.isdecimal() and int(text) > 0:
        return {"extend_epochs": int(text)}
    return {"extend_s": duration_s(text)}


@dataclass(frozen=True, kw_only=True)
class TrainOptions(StartOptions):
    """How ``train`` begins: anew, where it stopped, or a finished fold for longer."""

    resume: bool = option(False, "go on from the last checkpoint")
    extend_epochs: int | None = option(
        None, "train a finished fold for longer: 100 epochs or 30m", name="--extend", metavar="MORE", parse=more, ge=1
    )
    extend_s: float | None = setting(None, "train a finished fold for so many seconds more", gt=0)
    overwrite: bool = option(False, "delete this fold's run and train anew")
    tells_length: bool = setting(True, "say before the first step how long it will take, and warn where that is days")

    @property
    def is_extended(self) -> bool:
        """Whether a finished fold is to be trained for longer."""
        return bool(self.extend_epochs or self.extend_s)

    @classmethod
    def of(cls, start: StartOptions, *, resume: bool) -> Self:
        """The same start, or the run that was begun with it gone on with; how long it takes was told for all."""
        shared = {each.name: getattr(start, each.name) for each in fields(StartOptions)}
        return cls(**shared, resume=resume, tells_length=False)


@dataclass(frozen=True, kw_only=True)
class RunOptions(StartOptions):
    """How ``run`` trains: which folds, and what they begin with."""

    folds: tuple[str, ...] | None = option(
        None, "0 to 4; all is one network of all cases, validated on none (default: 0 1 2 3 4)", metavar="FOLD"
    )
    calibrate: bool = option(False, "learn afterwards how far masks may be trusted, as segfw calibrate does")
    dry_run: bool = option(False, "read and plan, say what would be trained and what it takes; write nothing")
