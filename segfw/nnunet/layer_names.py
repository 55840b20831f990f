"""What nnU-Net's U-Nets call their weights, and what ours do.

nnU-Net's state holds most tensors two to four times: every layer again in ``all_modules``, and the whole encoder again
inside the decoder. Ours holds each once.
"""

from __future__ import annotations

import re
from collections.abc import Collection, Mapping
from itertools import product

import torch
from torch import Tensor

from segfw.base.records import UserError
from segfw.networks import build_network
from segfw.networks.spec import RESIDUAL_ENCODER, NetworkSpec

PARTS = ("weight", "bias")
TRANSPOSED = re.compile(r"\.transpconvs\.\d+\.")
SHIFTED = re.compile(r"\.all_modules\.2\.(weight|bias)$")
WRAPPERS = re.compile(r"^(_orig_mod\.|module\.)+")  # of torch.compile and of distributed training, in any order
LONGEST = 200  # letters of a foreign name in a message


def layer_names(spec: NetworkSpec) -> dict[str, tuple[str, ...]]:
    """For each of our layers ('encoder.0.1.0') the names nnU-Net has for it, the shortest first."""
    names: dict[str, tuple[str, ...]] = {}
    stages = len(spec.features)

    def block(ours: str, theirs: str, *, copies: tuple[str, ...] = ("",), start: int = 0) -> None:
        """A convolution and its norm, which are entries ``start`` and the next of our sequence."""
        for index, layer in enumerate(("conv", "norm")):
            aliases = (f"{theirs}.{layer}", f"{theirs}.all_modules.{index}")
            names[f"{ours}.{start + index}"] = tuple(copy + alias for copy, alias in product(copies, aliases))

    inside = ("", "decoder.")
    for stage in range(stages):
        if spec.architecture != RESIDUAL_ENCODER:
            for conv in range(spec.encoder_blocks[stage]):
                block(f"encoder.{stage}.{conv}", f"encoder.stages.{stage}.0.convs.{conv}", copies=inside)
            continue
        if stage == 0:
            block("encoder.0.0", "encoder.stem.convs.0", copies=inside)
        for number in range(spec.encoder_blocks[stage]):
            ours = f"encoder.{stage}.{number + (stage == 0)}"
            theirs = f"encoder.stages.{stage}.blocks.{number}"
            block(f"{ours}.first", f"{theirs}.conv1", copies=inside)
            block(f"{ours}.second", f"{theirs}.conv2", copies=inside)
            if number == 0 and spec.features[stage] != spec.features[max(0, stage - 1)]:
                place = int(any(step > 1 for step in spec.strides[stage]))  # after the average, where there is one
                block(f"{ours}.shortcut", f"{theirs}.skip.{place}", copies=inside, start=place)
    for stage in range(stages - 1):
        below = stages - 2 - stage  # nnU-Net counts its decoder from the bottom
        names[f"up.{stage}"] = (f"decoder.transpconvs.{below}",)
        names[f"heads.{stage}"] = (f"decoder.seg_layers.{below}",)
        for conv in range(spec.decoder_convs[stage]):
            block(f"decoder.{stage}.{conv}", f"decoder.stages.{below}.convs.{conv}")
    return names


def from_nnunet(
    state: Mapping[str, Tensor], spec: NetworkSpec, where: str, *, absent: Collection[str] = ()
) -> dict[str, Tensor]:
    """Our weights, float32, of nnU-Net's; raises UserError if they are of another network than ``spec``.

    ``absent`` names what the network has not by its plans and ours has: 'conv.bias', 'norm.weight', 'norm.bias'.
    """
    state = without_wrappers(state, where)
    with torch.device("meta"):
        wanted = build_network(spec).state_dict()
    found: dict[str, Tensor] = {}
    used: set[str] = set()
    for ours, theirs in layer_names(spec).items():
        for part in PARTS:
            name = f"{ours}.{part}"
            if name not in wanted:  # a shortcut's convolution has no bias
                continue
            used |= {f"{other}.{part}" for other in theirs}
            tensor = state.get(f"{theirs[0]}.{part}")
            if tensor is None:
                tensor = _left_out(wanted[name], f"{theirs[0]}.{part}", absent, where)
            if tensor.shape != wanted[name].shape:
                shapes = f"{tuple(tensor.shape)}, but by the plans {tuple(wanted[name].shape)}"
                raise UserError(
                    f"{where}: weights {theirs[0]}.{part} are {shapes}; do plans and checkpoint belong together?"
                )
            found[name] = tensor.float().contiguous()
            if not found[name].isfinite().all():
                raise UserError(
                    f"{where}: weights {theirs[0]}.{part} hold NaN or infinity, so that its training went wrong; "
                    "take another checkpoint"
                )
    # Behind a dropout the norm is the next but one of nnU-Net's list of modules, where it is said a second time.
    unknown = sorted(name for name in set(state) - used if SHIFTED.sub(r".norm.\1", name) not in used)
    if unknown:
        raise UserError(
            f"{where}: holds weights {unknown[0][:LONGEST]!r} that the plans' network has not; give build_network="
        )
    return found


def _left_out(wanted: Tensor, theirs: str, absent: Collection[str], where: str) -> Tensor:
    """A convolution without bias adds 0; a norm without weights multiplies by 1."""
    layer, part = TRANSPOSED.sub(".conv.", theirs).rsplit(".", 2)[1:]
    if f"{layer}.{part}" not in absent:
        raise UserError(f"{where}: holds no weights {theirs!r}; do plans and checkpoint belong together?")
    return torch.ones(wanted.shape) if part == "weight" else torch.zeros(wanted.shape)


def without_wrappers(state: Mapping[str, Tensor], where: str) -> dict[str, Tensor]:
    """The state under the network's own names, also where it was compiled or trained by several processes."""
    found: dict[str, Tensor] = {}
    for name, tensor in state.items():
        short = WRAPPERS.sub("", name)
        if short in found:
            raise UserError(f"{where}: holds weights {short[:LONGEST]!r} twice; take it from the original")
        found[short] = tensor
    return found


def to_nnunet(weights: Mapping[str, Tensor], spec: NetworkSpec) -> dict[str, Tensor]:
    """nnU-Net's state of our weights, every tensor under all its names without being copied."""
    state: dict[str, Tensor] = {}
    for ours, names in layer_names(spec).items():
        for part in PARTS:
            if f"{ours}.{part}" in weights:
                state |= {f"{theirs}.{part}": weights[f"{ours}.{part}"] for theirs in names}
    return state
