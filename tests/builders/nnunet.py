"""A small trained-model folder as nnU-Net v2 writes it, with two channels, swapped axes and unequal everything."""

from __future__ import annotations

import json
import os
from pathlib import Path

import torch
from torch import Tensor

from segfw.cli import main

MODEL = "nnUNetTrainer__nnUNetPlans__3d_fullres"
REGIONS = {"background": 0, "whole": [1, 2], "core": [2], "ignore": 3}
LABELS = {"background": 0, "large": 2, "small": 1}
INTENSITIES = {
    "mean": 100.0,
    "std": 50.0,
    "min": -10.0,
    "max": 300.0,
    "median": 99.0,
    "percentile_00_5": -5.0,
    "percentile_99_5": 250.0,
}


def dataset(labels: dict | None = None) -> dict:
    """dataset.json; with regions, they are painted as 1 and 2."""
    labels = labels or LABELS
    order = {"regions_class_order": [1, 2]} if "whole" in labels else {}
    return {
        "channel_names": {"0": "CT", "1": "PET"},
        "labels": labels,
        "numTraining": 5,
        "file_ending": ".nii.gz",
    } | order


def plans() -> dict:
    """plans.json with 3d_fullres: three stages, of which the first does not stride along z."""

    def resampling(order: int, is_seg: bool) -> dict:
        return {"is_seg": is_seg, "order": order, "order_z": 0, "force_separate_z": None}

    entry = {
        "data_identifier": "nnUNetPlans_3d_fullres",
        "preprocessor_name": "DefaultPreprocessor",
        "batch_size": 2,
        "patch_size": [4, 16, 8],
        "median_image_size_in_voxels": [7.0, 9.0, 12.0],
        "spacing": [5.0, 1.0, 0.5],
        "normalization_schemes": ["CTNormalization", "ZScoreNormalization"],
        "use_mask_for_norm": [False, True],
        "resampling_fn_data": "resample_data_or_seg_to_shape",
        "resampling_fn_seg": "resample_data_or_seg_to_shape",
        "resampling_fn_probabilities": "resample_data_or_seg_to_shape",
        "resampling_fn_data_kwargs": resampling(3, False),
        "resampling_fn_seg_kwargs": resampling(1, True),
        "resampling_fn_probabilities_kwargs": resampling(1, False),
        "architecture": {
            "network_class_name": "dynamic_network_architectures.architectures.unet.PlainConvUNet",
            "arch_kwargs": {
                "n_stages": 3,
                "features_per_stage": [4, 8, 8],
                "conv_op": "torch.nn.modules.conv.Conv3d",
                "kernel_sizes": [[1, 3, 3], [3, 3, 3], [3, 3, 3]],
                "strides": [[1, 1, 1], [1, 2, 2], [2, 2, 2]],
                "n_conv_per_stage": [1, 2, 1],
                "n_conv_per_stage_decoder": [2, 1],
                "conv_bias": True,
                "norm_op": "torch.nn.modules.instancenorm.InstanceNorm3d",
                "norm_op_kwargs": {"eps": 1e-05, "affine": True},
                "dropout_op": None,
                "dropout_op_kwargs": None,
                "nonlin": "torch.nn.LeakyReLU",
                "nonlin_kwargs": {"inplace": True},
            },
            "_kw_requires_import": ["conv_op", "norm_op", "dropout_op", "nonlin"],
        },
        "batch_dice": True,
    }
    return {
        "dataset_name": "Dataset007_made_up",
        "plans_name": "nnUNetPlans",
        "original_median_spacing_after_transp": [5.0, 1.0, 0.5],
        "original_median_shape_after_transp": [7, 9, 12],
        "image_reader_writer": "SimpleITKIO",
        "transpose_forward": [1, 0, 2],
        "transpose_backward": [1, 0, 2],
        "configurations": {"3d_fullres": entry},
        "experiment_planner_used": "ExperimentPlanner",
        "label_manager": "LabelManager",
        "foreground_intensity_properties_per_channel": {"0": INTENSITIES, "1": INTENSITIES},
    }


def state(*, inputs: int = 2, classes: int = 3, seed: int = 0) -> dict[str, Tensor]:
    """The state of that network under nnU-Net's names, doubles included."""
    random = torch.Generator().manual_seed(seed)
    found: dict[str, Tensor] = {}

    def put(name: str, *shape: int) -> None:
        found[f"{name}.weight"] = torch.randn(*shape, generator=random) * 0.3
        found[f"{name}.bias"] = torch.randn(shape[0], generator=random) * 0.1

    def block(name: str, before: int, after: int, kernel: tuple[int, int, int]) -> None:
        put(f"{name}.conv", after, before, *kernel)
        found[f"{name}.norm.weight"] = 1 + torch.randn(after, generator=random) * 0.1
        found[f"{name}.norm.bias"] = torch.randn(after, generator=random) * 0.1
        for part in ("weight", "bias"):
            found[f"{name}.all_modules.0.{part}"] = found[f"{name}.conv.{part}"]
            found[f"{name}.all_modules.1.{part}"] = found[f"{name}.norm.{part}"]

    flat = (1, 3, 3)
    cube = (3, 3, 3)
    block("encoder.stages.0.0.convs.0", inputs, 4, flat)
    block("encoder.stages.1.0.convs.0", 4, 8, cube)
    block("encoder.stages.1.0.convs.1", 8, 8, cube)
    block("encoder.stages.2.0.convs.0", 8, 8, cube)
    found |= {f"decoder.{name}": tensor for name, tensor in found.items()}
    block("decoder.stages.0.convs.0", 16, 8, cube)
    block("decoder.stages.0.convs.1", 8, 8, cube)
    block("decoder.stages.1.convs.0", 8, 4, flat)
    for index, (before, after, kernel) in enumerate(((8, 8, (2, 2, 2)), (8, 4, (1, 2, 2)))):
        put(f"decoder.transpconvs.{index}", before, after, *kernel)
        found[f"decoder.transpconvs.{index}.bias"] = torch.randn(after, generator=random) * 0.1
        put(f"decoder.seg_layers.{index}", classes, after, 1, 1, 1)
    return found


def save_checkpoint(
    path: Path,
    weights: dict[str, Tensor],
    *,
    extra: object = None,
    trainer: str = "nnUNetTrainer",
    name: str = "3d_fullres",
) -> None:
    """A checkpoint with nnU-Net's fields; ``extra`` goes where its log of the training is."""
    path.parent.mkdir(parents=True, exist_ok=True)
    content = {
        "network_weights": weights,
        "optimizer_state": None,
        "grad_scaler_state": None,
        "logging": extra,
        "_best_ema": None,
        "current_epoch": 7,
        "init_args": {"configuration": name, "fold": 0, "device": torch.device("cpu")},
        "trainer_name": trainer,
        "inference_allowed_mirroring_axes": (0, 2),
    }
    torch.save(content, path)


def trained_folder(
    folder: Path,
    *,
    written: dict | None = None,
    described: dict | None = None,
    weights: dict[str, Tensor] | None = None,
    folds: tuple[str, ...] = ("0",),
    trainer: str = "nnUNetTrainer",
    name: str = "3d_fullres",
) -> Path:
    """folder/nnUNetTrainer__nnUNetPlans__NAME with plans.json, dataset.json and a checkpoint per fold."""
    path = folder / f"nnUNetTrainer__nnUNetPlans__{name}"
    path.mkdir(parents=True)
    (path / "plans.json").write_text(json.dumps(written or plans()))
    (path / "dataset.json").write_text(json.dumps(described or dataset()))
    for fold in folds:
        checkpoint = path / f"fold_{fold}" / "checkpoint_final.pth"
        save_checkpoint(checkpoint, weights or state(), trainer=trainer, name=name)
    return path


def refusal(source: Path, out: Path, capsys) -> str:
    """The one line that the command prints; it leaves no file behind and ends with 2, for wrong input."""
    before = sorted(out.parent.rglob("*"))
    assert main(["import-nnunet", str(source), str(out)]) == 2
    assert sorted(out.parent.rglob("*")) == before
    printed = capsys.readouterr().err
    assert (printed.count("\n"), printed[:7], ".unpacked-" in printed) == (1, "segfw: ", False)
    return printed


class Runs:
    """Unpickled, it would run a command."""

    def __init__(self, target: Path) -> None:
        self.target = target

    def __reduce__(self) -> tuple:
        return os.system, (f"touch {self.target}",)
