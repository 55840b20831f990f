"""A model directory becomes a folder that nnU-Net v2's ``nnUNetv2_predict_from_modelfolder`` loads and runs."""

from __future__ import annotations

import json
import os
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

import torch

from segfw.data.geometry import CANONICAL
from segfw.data.manifest import LabelSet
from segfw.model import WEIGHTS_FILE, fold_folder, load_plan, load_tensors, trained_folds
from segfw.networks.spec import NetworkSpec
from segfw.nnunet.folder import DATASET_FILE, FINAL, PLANS_FILE
from segfw.nnunet.weights import to_nnunet
from segfw.planning.nnunet_networks import ARCHITECTURES, BLOCKS_FIELD
from segfw.planning.nnunet_plans import NORMALIZATIONS, ORDERS, RESAMPLER
from segfw.planning.plan import Configuration, Plan
from segfw.records import UserError, write_text

TRAINER, PLANS = "nnUNetTrainer", "nnUNetPlans"
LARGEST_LABEL = 65_534  # nnU-Net writes masks of at most 16 bit


def export_nnunet(model: Path, folder: Path, *, ending: str = ".nii.gz") -> list[Path]:
    """Writes ``folder/nnUNetTrainer__nnUNetPlans__CONFIGURATION`` for every trained configuration, and returns these.

    ``ending`` is what nnU-Net shall expect images to be called. Networks that nnU-Net has not are refused. Mirroring
    at prediction is left to the axes that change no labels, and labels whose values are not 0, 1, 2 ... get such
    values, because nnU-Net cannot do either; both are said. Raises UserError, with nothing written, if the model
    cannot be exported.
    """
    model, folder = Path(model), Path(folder)
    if folder.exists() and (not folder.is_dir() or any(folder.iterdir())):
        raise UserError(f"{folder}: is there already; give a new or empty folder")
    plan = load_plan(model)
    chosen = [configuration for name, configuration in plan.configurations.items() if trained_folds(model, name)]
    if not chosen:
        raise UserError(f"{model}: no fold is trained to its end; run segfw train first")
    folder.parent.mkdir(parents=True, exist_ok=True)
    with TemporaryDirectory(prefix=".partial-", dir=folder.parent) as partial:
        home = Path(partial) / "export"
        for configuration in chosen:
            _export(model, plan, configuration, home, ending)
        if folder.exists():
            folder.rmdir()
        os.replace(home, folder)
    for configuration in chosen:
        _say_differences(plan, configuration)
    return [folder / folder_name(configuration) for configuration in chosen]


def folder_name(configuration: Configuration) -> str:
    """What nnU-Net calls the folder of a trained configuration."""
    return f"{TRAINER}__{PLANS}__{configuration.name}"


def _export(model: Path, plan: Plan, configuration: Configuration, home: Path, ending: str) -> None:
    target = home / folder_name(configuration)
    plans, dataset = plans_json(plan, ending), dataset_json(plan, ending)
    write_text(target / PLANS_FILE, json.dumps(plans, indent=1) + "\n")
    write_text(target / DATASET_FILE, json.dumps(dataset, indent=1) + "\n")
    for fold in trained_folds(model, configuration.name):
        weights, metadata = load_tensors(fold_folder(model, configuration.name, fold) / WEIGHTS_FILE)
        axes = [int(axis) for axis in metadata.get("mirror_axes", "").split(",") if axis]
        axes = [axis for axis in axes if axis not in configuration.swapped_pairs]
        offset = 1 if _is_2d(configuration) else 0
        (target / f"fold_{fold}").mkdir()
        checkpoint = {
            "network_weights": to_nnunet(weights, configuration.network),
            "optimizer_state": None,
            "grad_scaler_state": None,
            "logging": {},
            "_best_ema": None,
            "current_epoch": int(metadata.get("epoch", 0)),
            "init_args": {
                "plans": plans,
                "configuration": configuration.name,
                "fold": fold if fold == "all" else int(fold),
                "dataset_json": dataset,
            },
            "trainer_name": TRAINER,
            "inference_allowed_mirroring_axes": tuple(axis - offset for axis in axes) or None,
        }
        torch.save(checkpoint, target / f"fold_{fold}" / FINAL)


def dataset_json(plan: Plan, ending: str) -> dict[str, Any]:
    """nnU-Net's dataset.json: channels, labels and regions."""
    labels = plan.labels
    described: dict[str, Any] = {
        "channel_names": {str(index): channel.name for index, channel in enumerate(plan.channels)}
    }
    if labels.regions:
        _require_plain_background(labels)
        entries = {"background": 0} | {region.name: list(region.values) for region in labels.regions}
        described["regions_class_order"] = [region.painted for region in labels.regions]
    else:  # nnU-Net writes the class itself
        entries = {"background": 0} | labels.foreground
    if labels.ignore is not None:
        entries["ignore"] = max(labels.values) + 1 if labels.regions else len(labels.values)
    described |= {"labels": entries, "numTraining": plan.training_cases, "file_ending": ending}
    return described


def _require_plain_background(labels: LabelSet) -> None:
    if labels.values[0] != 0 or min(labels.values) < 0 or max(labels.values) > LARGEST_LABEL:
        raise UserError(
            f"labels have the values {min(labels.values)} to {max(labels.values)} with background {labels.values[0]}; "
            f"nnU-Net writes regions of 1 to {LARGEST_LABEL} on a background of 0"
        )


def plans_json(plan: Plan, ending: str) -> dict[str, Any]:
    """nnU-Net's plans.json with the trained and the other configurations that nnU-Net knows the network of."""
    first = next(iter(plan.configurations.values()))
    order = list(first.preprocessing.axis_order)
    is_nifti = ending in (".nii", ".nii.gz")
    if plan.orientation == CANONICAL:  # RAS; nibabel decides about oblique axes as segfw does
        reader = "NibabelIOWithReorient" if is_nifti else "SimpleITKIOWithReorient"
    else:
        is_stack = ending in (".tif", ".tiff") and first.preprocessing.voxel_size != "unit"
        picture = "Tiff3DIO" if is_stack else "NaturalImage2DIO"
        reader = "SimpleITKIO" if is_nifti or ending in (".nrrd", ".mha", ".gipl") else picture
    known = {
        name: one for name, one in plan.configurations.items() if one.network.architecture in ARCHITECTURES.values()
    }
    missing = [name for name in plan.configurations if name not in known]
    if missing:
        architecture = plan.configurations[missing[0]].network.architecture
        raise UserError(
            f"{missing[0]} is a {architecture}, which nnU-Net has not; only plain and residual U-Nets can go"
        )
    spacing = next((one.preprocessing.spacing_mm for one in known.values() if not _is_2d(one)), None)
    return {
        "dataset_name": plan.dataset,
        "plans_name": PLANS,
        "original_median_spacing_after_transp": list(spacing or (1.0, *first.preprocessing.spacing_mm[1:])),
        "original_median_shape_after_transp": [round(size) for size in first.median_shape],
        "image_reader_writer": reader,
        "transpose_forward": order,
        "transpose_backward": [order.index(axis) for axis in range(3)],
        "configurations": {name: _configuration_json(one) for name, one in known.items()},
        "experiment_planner_used": "segfw",
        "label_manager": "LabelManager",
        "foreground_intensity_properties_per_channel": _intensities(first),
    }


def _intensities(configuration: Configuration) -> dict[str, dict[str, float]]:
    found = {}
    for index, rule in enumerate(configuration.preprocessing.normalization):
        if rule.stats is not None:
            values = rule.stats.model_dump()
            values |= {"min": values.pop("minimum"), "max": values.pop("maximum")}
            found[str(index)] = values
    return found


def _is_2d(configuration: Configuration) -> bool:
    return configuration.preprocessing.spacing_mm[0] is None


def _configuration_json(configuration: Configuration) -> dict[str, Any]:
    used = slice(1, None) if _is_2d(configuration) else slice(None)
    schemes = {ours: theirs for theirs, ours in NORMALIZATIONS.items()}
    rules = configuration.preprocessing.normalization
    found: dict[str, Any] = {
        "data_identifier": f"{PLANS}_{configuration.data_name}",
        "preprocessor_name": "DefaultPreprocessor",
        "batch_size": configuration.batch_size,
        "patch_size": list(configuration.patch_size[used]),
        "median_image_size_in_voxels": list(configuration.median_shape[used]),
        "spacing": list(configuration.preprocessing.spacing_mm[used]),
        "normalization_schemes": [schemes[rule.kind] for rule in rules],
        "use_mask_for_norm": [rule.inside_mask for rule in rules],
        "batch_dice": configuration.batch_dice,
        "architecture": _architecture_json(configuration.network, used),
    }
    for kind, order in ORDERS.items():
        found[f"resampling_fn_{kind}"] = RESAMPLER
        found[f"resampling_fn_{kind}_kwargs"] = {
            "is_seg": kind == "seg",
            "order": order,
            "order_z": 0,
            "force_separate_z": None,
        }
    if configuration.previous_stage:
        found["previous_stage"] = configuration.previous_stage
    return found


def _architecture_json(network: NetworkSpec, used: slice) -> dict[str, Any]:
    name = next(theirs for theirs, ours in ARCHITECTURES.items() if ours == network.architecture)
    dimensions = 2 if used.start else 3
    if len(network.features) < 2:
        raise UserError(
            "the network has a single stage, which nnU-Net cannot have; it needs images of 8 voxels or more"
        )
    return {
        "network_class_name": f"dynamic_network_architectures.architectures.unet.{name}",
        "arch_kwargs": {
            "n_stages": len(network.features),
            "features_per_stage": list(network.features),
            "conv_op": f"torch.nn.modules.conv.Conv{dimensions}d",
            "kernel_sizes": [list(kernel[used]) for kernel in network.kernels],
            "strides": [list(stride[used]) for stride in network.strides],
            BLOCKS_FIELD[network.architecture]: list(network.encoder_blocks),
            "n_conv_per_stage_decoder": list(network.decoder_convs[::-1]),  # from the bottom
            "conv_bias": True,
            "norm_op": f"torch.nn.modules.instancenorm.InstanceNorm{dimensions}d",
            "norm_op_kwargs": {"eps": 1e-5, "affine": True},
            "dropout_op": None,
            "dropout_op_kwargs": None,
            "nonlin": "torch.nn.LeakyReLU",
            "nonlin_kwargs": {"inplace": True},
        },
        "_kw_requires_import": ["conv_op", "norm_op", "dropout_op", "nonlin"],
    }


def _say_differences(plan: Plan, configuration: Configuration) -> None:
    """What nnU-Net will do otherwise than segfw does with the same model."""
    values = plan.labels.values
    if not plan.labels.regions and values != tuple(range(len(values))):
        print(
            f"note: nnU-Net writes classes, so masks will hold 0 to {len(values) - 1} where segfw writes {list(values)}"
        )
    if configuration.swapped_pairs:
        axes = " and ".join("zyx"[axis] for axis in configuration.swapped_pairs)
        print(f"note: {configuration.name} exchanges labels mirrored along {axes}; nnU-Net will not mirror there")
    if configuration.previous_stage and not configuration.previous_through_file:
        print(f"note: nnU-Net hands labels on to {configuration.name} over each image's own grid, segfw directly")
