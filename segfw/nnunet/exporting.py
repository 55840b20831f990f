"""A model directory becomes a folder that nnU-Net v2's ``nnUNetv2_predict_from_modelfolder`` loads and runs."""

from __future__ import annotations

import json
import os
from collections.abc import Sequence
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

import torch

from segfw.data.geometry import CANONICAL
from segfw.data.manifest import LabelSet
from segfw.inference.postprocess import Postprocessing, postprocessing_file
from segfw.model import (
    BEST_FILE,
    WEIGHTS_FILE,
    fold_folder,
    load_plan,
    load_tensors,
    shared_mirror_axes,
    trained_folds,
)
from segfw.networks.spec import NetworkSpec
from segfw.nnunet.commands import predicting_folds, say_commands, say_differences
from segfw.nnunet.folder import BEST, DATASET_FILE, FINAL, PLANS_FILE
from segfw.nnunet.postprocessing import write_postprocessing
from segfw.nnunet.weights import to_nnunet
from segfw.planning.nnunet_networks import ARCHITECTURES, BLOCKS_FIELD
from segfw.planning.nnunet_plans import NORMALIZATIONS
from segfw.planning.nnunet_resampling import resampling_json
from segfw.planning.plan import Configuration, Plan
from segfw.records import UserError, write_text
from segfw.selection import Selection, load_selection

TRAINER, PLANS = "nnUNetTrainer", "nnUNetPlans"
LARGEST_BYTE = 255
LARGEST_LABEL = 65_534  # nnU-Net writes masks of at most 16 bit


def export_nnunet(model: Path, folder: Path, *, ending: str = ".nii.gz") -> list[Path]:
    """Writes ``folder/nnUNetTrainer__nnUNetPlans__CONFIGURATION`` for every trained configuration, and returns these.

    ``ending`` is what nnU-Net shall expect images to be called. Networks that nnU-Net has not are refused. Mirroring
    at prediction is left to the axes that change no labels, and labels whose values are not 0, 1, 2 ... get such
    values, because nnU-Net cannot do either; both are said, and so are nnU-Net's commands. Postprocessing that was
    selected or imported goes along. Raises UserError, with nothing written, if the model cannot be exported.
    """
    model, folder = Path(model), Path(folder)
    if folder.exists() and (not folder.is_dir() or any(folder.iterdir())):
        raise UserError(f"{folder}: is there already; give a new or empty folder")
    plan = load_plan(model)
    chosen = [configuration for name, configuration in plan.configurations.items() if trained_folds(model, name)]
    if not chosen:
        raise UserError(f"{model}: no fold is trained to its end; run segfw train first")
    names = [configuration.name for configuration in chosen]
    for configuration in chosen:
        if configuration.previous_stage and configuration.previous_stage not in names:
            raise UserError(
                f"{model}: {configuration.name} is the second stage of a cascade, and {configuration.previous_stage}, "
                "the first, is not trained; train it, too"
            )
    selection = load_selection(model)
    folder.parent.mkdir(parents=True, exist_ok=True)
    with TemporaryDirectory(prefix=".partial-", dir=folder.parent) as partial:
        home = Path(partial) / "export"
        for configuration in chosen:
            _export(model, plan, configuration, chosen, home, ending)
        steps = _write_postprocessing(model, plan, selection, names, home)
        if folder.exists():
            folder.rmdir()
        os.replace(home, folder)
    say_differences(plan, chosen)
    folds = {name: predicting_folds(trained_folds(model, name)) for name in names}
    say_commands(folder, {one: folder_name(one) for one in chosen}, folds, selection, steps, plan, ending)
    return [folder / folder_name(configuration) for configuration in chosen]


def folder_name(configuration: Configuration) -> str:
    """What nnU-Net calls the folder of a trained configuration."""
    return f"{TRAINER}__{PLANS}__{configuration.name}"


def _export(
    model: Path, plan: Plan, configuration: Configuration, chosen: Sequence[Configuration], home: Path, ending: str
) -> None:
    target = home / folder_name(configuration)
    plans, dataset = plans_json(plan, ending, chosen), dataset_json(plan, ending)
    write_text(target / PLANS_FILE, json.dumps(plans, indent=1) + "\n")
    write_text(target / DATASET_FILE, json.dumps(dataset, indent=1) + "\n")
    folds = trained_folds(model, configuration.name)
    # nnU-Net mirrors all folds as the first one allows, segfw only along axes that all of them do.
    shared = shared_mirror_axes(
        [load_tensors(fold_folder(model, configuration.name, fold) / WEIGHTS_FILE)[1] for fold in folds]
    )
    offset = 1 if _is_2d(configuration) else 0
    axes = tuple(axis - offset for axis in shared if axis not in configuration.swapped_pairs)
    for fold in folds:
        (target / f"fold_{fold}").mkdir()
        for own, theirs in ((WEIGHTS_FILE, FINAL), (BEST_FILE, BEST)):
            path = fold_folder(model, configuration.name, fold) / own
            if own == BEST_FILE and not path.is_file():
                continue
            weights, metadata = load_tensors(path)
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
                "inference_allowed_mirroring_axes": axes or None,
            }
            torch.save(checkpoint, target / f"fold_{fold}" / theirs)


def _write_postprocessing(
    model: Path, plan: Plan, selection: Selection | None, names: Sequence[str], home: Path
) -> dict[str, Postprocessing]:
    """Beside the weights of each configuration that has some, and in ``home`` itself where two are averaged.

    Returns what was written by configuration, or by the name of both.
    """
    files = {name: postprocessing_file(model, name) for name in names}
    found = {name: Postprocessing.load(path) for name, path in files.items() if path.is_file()}
    if selection:
        found[selection.name] = selection.postprocessing
    found = {name: steps for name, steps in found.items() if steps.steps}
    values = plan.labels.values if plan.labels.regions else range(len(plan.labels.values))
    for name, steps in found.items():
        folder = home / folder_name(plan.configuration(name)) if name in names else home
        write_postprocessing(folder, steps, values)
    return found


def dataset_json(plan: Plan, ending: str) -> dict[str, Any]:
    """nnU-Net's dataset.json: channels, labels and regions."""
    labels = plan.labels
    described: dict[str, Any] = {
        "channel_names": {str(index): channel.name for index, channel in enumerate(plan.channels)}
    }
    if labels.regions:
        _require_plain_background(labels)
        if all(len(region.values) == 1 for region in labels.regions):
            raise UserError("each region is a single label, which nnU-Net takes for labels that exclude each other")
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


def plans_json(plan: Plan, ending: str, chosen: Sequence[Configuration]) -> dict[str, Any]:
    """nnU-Net's plans.json with the ``chosen`` configurations."""
    first = chosen[0]
    order = list(first.preprocessing.axis_order)
    for one in chosen:
        if one.network.architecture not in ARCHITECTURES.values():
            raise UserError(
                f"{one.name} is a {one.network.architecture}, which nnU-Net has not; only plain and residual U-Nets "
                "can go"
            )
        if one.preprocessing.axis_order != first.preprocessing.axis_order:
            raise UserError(f"{one.name} has another order of axes than {first.name}; nnU-Net has one in a plan")
    spacing = next((one.preprocessing.spacing_mm for one in chosen if not _is_2d(one)), None)
    return {
        "dataset_name": plan.dataset,
        "plans_name": PLANS,
        "original_median_spacing_after_transp": list(spacing or (1.0, *first.preprocessing.spacing_mm[1:])),
        "original_median_shape_after_transp": [round(size) for size in first.median_shape],
        "image_reader_writer": _reader(plan, ending),
        "transpose_forward": order,
        "transpose_backward": [order.index(axis) for axis in range(3)],
        "configurations": {one.name: _configuration_json(one) for one in chosen},
        "experiment_planner_used": "segfw",
        "label_manager": "LabelManager",
        "foreground_intensity_properties_per_channel": _intensities(first),
    }


def _reader(plan: Plan, ending: str) -> str:
    """Name of nnU-Net's class that reads images with this ending as the model was trained on them."""
    is_nifti = ending in (".nii", ".nii.gz")
    if ending not in (".nii", ".nii.gz", ".nrrd", ".mha", ".gipl", ".png", ".bmp", ".tif"):
        raise UserError(f"--ending is {ending}; nnU-Net reads .nii.gz, .nrrd, .mha, .gipl, .png, .bmp and .tif")
    is_picture = ending in (".png", ".bmp", ".tif")
    if plan.orientation != CANONICAL:
        first = next(iter(plan.configurations.values()))
        if ending == ".tif" and first.preprocessing.voxel_size != "unit":
            return "Tiff3DIO"  # of stacks, with voxel sizes beside them
        return "NaturalImage2DIO" if is_picture else "NibabelIO" if ending == ".nii" else "SimpleITKIO"
    if is_picture:
        raise UserError(
            f"--ending is {ending}: nnU-Net reads pictures as stored, but the model was trained on images turned to "
            "one orientation; leave it out and give nnU-Net NIfTI files of one slice"
        )
    if is_nifti:  # nibabel decides about oblique axes as segfw does
        return "NibabelIOWithReorient"
    if len(plan.labels.values) > LARGEST_BYTE + 1:
        raise UserError(
            f"--ending is {ending}: nnU-Net's reader that turns such images writes no more than {LARGEST_BYTE} labels, "
            f"and there are {len(plan.labels.values) - 1}; leave it out for NIfTI"
        )
    return "SimpleITKIOWithReorient"


def _intensities(configuration: Configuration) -> dict[str, dict[str, float]]:
    """By channel, and of every channel: nnU-Net looks each of them up, also where its normalisation needs none."""
    found = {}
    for index, rule in enumerate(configuration.preprocessing.normalization):
        values = rule.stats.model_dump() if rule.stats else {}
        if values:
            values |= {"min": values.pop("minimum"), "max": values.pop("maximum")}
        found[str(index)] = values
    return found


def _is_2d(configuration: Configuration) -> bool:
    return configuration.preprocessing.spacing_mm[0] is None


def _configuration_json(configuration: Configuration) -> dict[str, Any]:
    used, how = slice(1, None) if _is_2d(configuration) else slice(None), configuration.preprocessing
    for rule in how.normalization:
        if rule.inside_mask and rule.kind != "zscore":
            raise UserError(f"{configuration.name}: {rule.kind} inside a mask is no normalisation of nnU-Net")
    if None in how.spacing_mm[used]:
        raise UserError(f"{configuration.name} resamples nothing; only models that resample can go")
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
    found |= resampling_json(how.images, how.logits)
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
            "norm_op_kwargs": {"eps": network.norm_eps, "affine": True},
            "dropout_op": None,
            "dropout_op_kwargs": None,
            "nonlin": "torch.nn.LeakyReLU",
            "nonlin_kwargs": {"negative_slope": network.leak, "inplace": True},
        },
        "_kw_requires_import": ["conv_op", "norm_op", "dropout_op", "nonlin"],
    }
