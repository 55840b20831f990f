"""A plan and its labels as nnU-Net v2's plans.json and dataset.json say them; what these cannot say is refused."""

from __future__ import annotations

from collections.abc import Sequence
from itertools import chain
from typing import Any

from segfw.base.records import UserError
from segfw.dataset.labels import LabelSet
from segfw.images.volume import AS_STORED, is_axis_order
from segfw.networks.spec import NetworkSpec
from segfw.nnunet.architectures import ARCHITECTURES, BLOCKS_FIELD
from segfw.nnunet.read_plans import NORMALIZATIONS, READERS, TRAINED_ON
from segfw.nnunet.resampling_functions import resampling_json
from segfw.planning.plan import Configuration, Plan

PLANS = "nnUNetPlans"
LARGEST_BYTE = 255
LARGEST_LABEL = 32_767  # nnU-Net paints regions in 16 bit with a sign
ITK_ENDINGS = (".nii.gz", ".nrrd", ".mha", ".gipl")
NIFTI_ENDINGS = (".nii.gz", ".nii")
# What nnU-Net's readers of read_plans.READERS take.
ENDINGS = {
    "NibabelIOWithReorient": NIFTI_ENDINGS,
    "SimpleITKIOWithReorient": ITK_ENDINGS,
    "SimpleITKIO": ITK_ENDINGS,
    "NibabelIO": NIFTI_ENDINGS,
    "NaturalImage2DIO": (".png", ".bmp", ".tif"),
    "Tiff3DIO": (".tif", ".tiff"),
}


def dataset_json(plan: Plan, ending: str) -> dict[str, Any]:
    """nnU-Net's dataset.json: channels, labels and regions."""
    labels = plan.labels
    described: dict[str, Any] = {
        "channel_names": {str(index): channel.name for index, channel in enumerate(plan.channels)}
    }
    entries: dict[str, int | list[int]] = {"background": 0}
    if labels.regions:
        _require_plain_background(labels)
        if all(len(region.values) == 1 for region in labels.regions):
            raise UserError("each region is a single label, which nnU-Net takes for labels that exclude each other")
        for region in labels.regions:
            entries[region.name] = list(region.values)
        described["regions_class_order"] = [region.painted for region in labels.regions]
    else:  # nnU-Net writes the class itself
        entries |= labels.foreground
    if labels.ignore is not None:
        entries["ignore"] = max(labels.values) + 1 if labels.regions else len(labels.values)
    described |= {"labels": entries, "numTraining": plan.training_cases, "file_ending": ending}
    return described


def _require_plain_background(labels: LabelSet) -> None:
    # By their number and not by their values nnU-Net decides whether it writes 8 bit or 16.
    written = set[int]().union(*(region.values for region in labels.regions))
    most = LARGEST_BYTE if len(written) < LARGEST_BYTE else LARGEST_LABEL
    if labels.values[0] != 0 or min(labels.values) < 0 or max(labels.values) > most:
        raise UserError(
            f"labels have the values {min(labels.values)} to {max(labels.values)} with background {labels.values[0]}; "
            f"nnU-Net writes {len(written)} of them as 1 to {most} on a background of 0"
        )


def plans_json(plan: Plan, ending: str, chosen: Sequence[Configuration]) -> dict[str, Any]:
    """nnU-Net's plans.json with the ``chosen`` configurations."""
    first = chosen[0]
    order = list(first.preprocessing.axis_order)
    for configuration in chosen:
        name = configuration.name
        architecture = configuration.network.architecture
        if architecture not in ARCHITECTURES.values():
            raise UserError(f"{name} is a {architecture}, which nnU-Net has not; only plain and residual U-Nets can go")
        if configuration.preprocessing.axis_order != first.preprocessing.axis_order:
            raise UserError(f"{name} has another order of axes than {first.name}; nnU-Net has one in a plan")
    in_3d = [configuration for configuration in chosen if not configuration.network.is_2d]
    if in_3d:
        spacing = list(in_3d[0].preprocessing.spacing_mm)
    else:
        spacing = [1.0, *first.preprocessing.spacing_mm[1:]]
    # nnU-Net reads no such field: it takes images as they are stored. segfw's import does.
    told = {TRAINED_ON: plan.orientation} if is_axis_order(plan.orientation) else {}
    return {
        "dataset_name": plan.dataset,
        "plans_name": PLANS,
        **told,
        "original_median_spacing_after_transp": spacing,
        "original_median_shape_after_transp": [round(size) for size in first.median_shape],
        "image_reader_writer": _reader(plan, ending),
        "transpose_forward": order,
        "transpose_backward": [order.index(axis) for axis in range(3)],
        "configurations": {configuration.name: _configuration_json(configuration) for configuration in chosen},
        "experiment_planner_used": "segfw",
        "label_manager": "LabelManager",
        "foreground_intensity_properties_per_channel": _intensities(first),
    }


def endings_of(plan: Plan) -> list[str]:
    """The endings of images that nnU-Net reads as the model was trained on them."""
    return list(dict.fromkeys(chain.from_iterable(ENDINGS[reader] for reader in _readers(plan))))


def _readers(plan: Plan) -> list[str]:
    """nnU-Net's readers with the model's orientation and voxel sizes; segfw's own rule of sizes, the axes, is any's."""
    preprocessing = next(iter(plan.configurations.values())).preprocessing
    wanted = AS_STORED if is_axis_order(preprocessing.orientation) else preprocessing.orientation
    sizes = {name: size for name, (orientation, size) in READERS.items() if orientation == wanted}
    return [name for name, size in sizes.items() if preprocessing.voxel_size in (size, "axes")]


def _reader(plan: Plan, ending: str) -> str:
    """Name of nnU-Net's class that reads images with this ending as the model was trained on them."""
    found = [name for name in _readers(plan) if ending in ENDINGS[name]]
    if not found:
        raise UserError(
            f"--ending is {ending}: nnU-Net reads images as those that this model was trained on only from "
            f"{', '.join(endings_of(plan))}; give one of these"
        )
    most = max(plan.labels.values) if plan.labels.regions else len(plan.labels.values) - 1
    if found[0] == "SimpleITKIOWithReorient" and most > LARGEST_BYTE:
        raise UserError(
            f"--ending is {ending}: nnU-Net's reader that turns such images writes no more than {LARGEST_BYTE} labels, "
            f"and there are {most}; leave it out for NIfTI"
        )
    return found[0]


def _intensities(configuration: Configuration) -> dict[str, dict[str, float]]:
    """By channel, and of every channel: nnU-Net looks each of them up, also where its normalisation needs none."""
    found: dict[str, dict[str, float]] = {}
    for index, rule in enumerate(configuration.preprocessing.normalization):
        values = rule.stats.model_dump() if rule.stats else {}
        if values:
            values |= {"min": values.pop("minimum"), "max": values.pop("maximum")}
        found[str(index)] = values
    return found


def _configuration_json(configuration: Configuration) -> dict[str, Any]:
    used = slice(1, None) if configuration.network.is_2d else slice(None)  # axes that nnU-Net's network has
    preprocessing = configuration.preprocessing
    rules = preprocessing.normalization
    for rule in rules:
        if rule.inside_mask and rule.kind != "zscore":
            raise UserError(f"{configuration.name}: {rule.kind} inside a mask is no normalisation of nnU-Net")
    spacing_mm = list(preprocessing.spacing_mm)[used]
    if None in spacing_mm:
        raise UserError(f"{configuration.name} resamples nothing; only models that resample can go")
    schemes = {ours: theirs for theirs, ours in NORMALIZATIONS.items()}
    found: dict[str, Any] = {
        "data_identifier": f"{PLANS}_{configuration.data_name}",
        "preprocessor_name": "DefaultPreprocessor",
        "batch_size": configuration.batch_size,
        "patch_size": list(configuration.patch_size)[used],
        "median_image_size_in_voxels": list(configuration.median_shape)[used],
        "spacing": spacing_mm,
        "normalization_schemes": [schemes[rule.kind] for rule in rules],
        "use_mask_for_norm": [rule.inside_mask for rule in rules],
        "batch_dice": configuration.batch_dice,
        "architecture": _architecture_json(configuration.network, used),
    }
    found |= resampling_json(preprocessing.images, preprocessing.logits)
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
            "kernel_sizes": [list(kernel)[used] for kernel in network.kernels],
            "strides": [list(stride)[used] for stride in network.strides],
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
