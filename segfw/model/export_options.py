"""What of a model is handed on, and in which form."""

from __future__ import annotations

from dataclasses import dataclass

from segfw.base.options import ONE_CONFIGURATION_HELP, Options, option

# What several records say of the same option
WEIGHTS = "of the end of the training, or of its best epoch"
LAST_OR_BEST = {"last": False, "best": True}
LICENCE = "under which others may use it, such as CC-BY-4.0"


@dataclass(frozen=True, kw_only=True)
class ExportFormat(Options):
    """What ``segfw export`` writes; neither is a model file. ``ending`` is of nnU-Net's images and masks."""

    onnx: bool = option(False, "networks as ONNX, pipeline.json and predict.py", exclusive="format")
    nnunet: bool = option(False, "a folder that nnU-Net v2 itself predicts with", exclusive="format")
    ending: str | None = option(None, "with --nnunet: of images and masks (default: .nii.gz or what the model reads)")


@dataclass(frozen=True, kw_only=True)
class OnnxOptions(Options):
    """What ``export_onnx`` writes of one configuration. ``best`` takes the weights of the best epoch."""

    configuration: str | None = option(None, ONE_CONFIGURATION_HELP)
    folds: tuple[str, ...] | None = option(None, "default: all that are trained", metavar="FOLD")
    best: bool = option(False, WEIGHTS, name="--weights", words=LAST_OR_BEST)
    licence: str | None = option(None, LICENCE, metavar="NAME|FILE")
    overwrite: bool = option(False, "replace what is there")


@dataclass(frozen=True, kw_only=True)
class ExportOptions(Options):
    """What ``export_model`` packs. ``best`` takes the weights of the best epoch."""

    configurations: tuple[str, ...] | None = option(
        None,
        "default: the selected ones, or the only one that is trained, or of several the calibrated one",
        name="--configuration",
        metavar="NAME",
    )
    folds: tuple[str, ...] | None = option(None, "default: all that are trained", metavar="FOLD")
    best: bool = option(False, WEIGHTS, name="--weights", words=LAST_OR_BEST)
    half: bool = option(False, "half the size: float16 weights; what changes is measured")
    licence: str | None = option(None, LICENCE, metavar="NAME|FILE")
    overwrite: bool = option(False, "replace what is there")
