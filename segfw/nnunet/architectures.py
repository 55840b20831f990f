"""The networks of nnU-Net v2's plans as ours; what they have and ours have not is refused by name."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Any

from segfw.base.records import UserError
from segfw.dataset.labels import LabelSet
from segfw.networks.spec import PLAIN, RESIDUAL_ENCODER, NetworkSpec
from segfw.planning.presets import with_z

ARCHITECTURES = {"PlainConvUNet": PLAIN, "ResidualEncoderUNet": RESIDUAL_ENCODER}
BLOCKS_FIELD = {PLAIN: "n_conv_per_stage", RESIDUAL_ENCODER: "n_blocks_per_stage"}
# What a network may have besides its sizes; everything else would compute something else.
KNOWN_ARGUMENTS: dict[str, Callable[[Any], bool]] = {
    "conv_bias": lambda value: isinstance(value, bool),
    "dropout_op": lambda value: True,  # does nothing at prediction; a plan to train by must have none
    "dropout_op_kwargs": lambda value: True,
    "nonlin": lambda value: _last(value) in ("LeakyReLU", "ReLU"),
    "nonlin_kwargs": lambda value: {*(value or {})} <= {"negative_slope", "inplace"},
    "norm_op": lambda value: _last(value) in ("InstanceNorm", "InstanceNorm2d", "InstanceNorm3d"),
    "norm_op_kwargs": lambda value: not (value or {}).get("track_running_stats", False),
    "conv_op": lambda value: _last(value) in ("Conv2d", "Conv3d"),
    "deep_supervision": lambda value: True,
    "nonlin_first": lambda value: not value,
    "stem_channels": lambda value: value is None,
    "bottleneck_channels": lambda value: value is None,
    "block": lambda value: _last(value) == "BasicBlockD",
}
MOST = {"n_stages": 20, "features_per_stage": 10_000}  # of all else 1000; far more than any network has
SIZES = ("n_stages", "features_per_stage", "kernel_sizes", "strides", "n_conv_per_stage_decoder")


def _last(name: object) -> str:
    return str(name).rsplit(".", 1)[-1]


def network_of(entry: Mapping[str, Any], inputs: int, outputs: int, where: str) -> NetworkSpec:
    """The network of a configuration; plans from before nnU-Net 2.3 say it in other words."""
    name, arguments = architecture_of(entry)
    if name not in ARCHITECTURES:
        raise UserError(
            f"{where}: architecture {name!r} is unknown; segfw knows {', '.join(ARCHITECTURES)}, others by "
            "build_network= of segfw.import_nnunet"
        )
    architecture = ARCHITECTURES[name]
    arguments = {"nonlin": None, "norm_op": None} | arguments  # what is left out is not there
    _require_known(arguments, architecture, where)
    stages = arguments["n_stages"]
    dimensions = len(entry["patch_size"])
    strides = tuple(with_z(sizes, 1) for sizes in _per_stage(arguments["strides"], stages, dimensions))
    if strides[0] != (1, 1, 1):
        raise UserError(f"{where}: its network strides in the first stage; give build_network=")
    return NetworkSpec(
        architecture=architecture,
        in_channels=inputs,
        classes=outputs,
        features=_each(arguments["features_per_stage"], stages),
        strides=strides,
        kernels=tuple(with_z(sizes, 1) for sizes in _per_stage(arguments["kernel_sizes"], stages, dimensions)),
        encoder_blocks=_each(arguments[BLOCKS_FIELD[architecture]], stages),
        decoder_convs=_each(arguments["n_conv_per_stage_decoder"], stages - 1)[::-1],  # nnU-Net counts from the bottom
        leak=_leak(arguments),
        norm_eps=float((arguments.get("norm_op_kwargs") or {}).get("eps", 1e-5)),
    )


def _require_known(arguments: Mapping[str, Any], architecture: str, where: str) -> None:
    """UserError if the network has something that ours has not, or sizes beyond those of any network."""
    sizes = (*SIZES, BLOCKS_FIELD[architecture])
    for key, value in arguments.items():
        if key not in sizes and not (key in KNOWN_ARGUMENTS and KNOWN_ARGUMENTS[key](value)):
            raise UserError(f"{where}: its network has {key} {value!r}, which segfw has not; give build_network=")
    for key in sizes:
        largest = _largest(arguments[key])
        most = MOST.get(key, 1000)
        if largest > most:
            raise UserError(f"{where}: its network has {key} of {largest}, and no network more than {most}; correct it")


def _leak(arguments: Mapping[str, Any]) -> float:
    """What the activation multiplies values below 0 by."""
    is_relu = _last(arguments["nonlin"]) == "ReLU"
    return 0.0 if is_relu else float((arguments.get("nonlin_kwargs") or {}).get("negative_slope", 0.01))


def unknown_network(entry: Mapping[str, Any], inputs: int, labels: LabelSet) -> NetworkSpec:
    """What is known of a network that ``build_network`` makes: its name, input and output."""
    once = ((1, 1, 1),)
    name, _ = architecture_of(entry)
    kernel = with_z((3,) * len(entry["patch_size"]), 1)
    return NetworkSpec(
        architecture=name,
        in_channels=inputs,
        classes=labels.outputs,
        features=(1,),
        strides=once,
        kernels=(kernel,),
        encoder_blocks=(1,),
        decoder_convs=(),
    )


def architecture_of(entry: Mapping[str, Any]) -> tuple[str, dict[str, Any]]:
    """Class name and arguments of the network."""
    if "architecture" in entry:
        found = entry["architecture"]
        return _last(found["network_class_name"]), found["arch_kwargs"]
    name = entry["UNet_class_name"]
    stages = len(entry["n_conv_per_stage_encoder"])
    first = entry["UNet_base_num_features"]
    most = entry["unet_max_num_features"]
    return name, {
        "n_stages": stages,
        "features_per_stage": [min(first * 2**stage, most) for stage in range(stages)],
        "kernel_sizes": entry["conv_kernel_sizes"],
        "strides": entry["pool_op_kernel_sizes"],
        BLOCKS_FIELD[ARCHITECTURES.get(name, PLAIN)]: entry["n_conv_per_stage_encoder"],
        "n_conv_per_stage_decoder": entry["n_conv_per_stage_decoder"],
        "nonlin": "LeakyReLU",
        "norm_op": "InstanceNorm",
        "norm_op_kwargs": {"affine": True},
        "conv_bias": True,
    }


def absent_weights(entry: Mapping[str, Any]) -> tuple[str, ...]:
    """The weights that convolutions and norms have not: by default nnU-Net's have neither biases nor norm weights."""
    _, arguments = architecture_of(entry)
    biases = () if arguments.get("conv_bias") else ("conv.bias",)
    has_affine_norms = (arguments.get("norm_op_kwargs") or {}).get("affine")
    return biases if has_affine_norms else (*biases, "norm.weight", "norm.bias")


def _each(values: int | list[int], count: int) -> tuple[int, ...]:
    return (values,) * count if isinstance(values, int) else tuple(values)


def _largest(values: int | list) -> int:
    return max((_largest(value) for value in values), default=0) if isinstance(values, list) else values


def _per_stage(values: int | list, stages: int, dimensions: int) -> tuple[tuple[int, ...], ...]:
    return tuple(_each(value, dimensions) for value in _each(values, stages))
