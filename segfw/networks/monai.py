"""Networks of MONAI in the plan's terms. MONAI is imported when one of them is built."""

from __future__ import annotations

from collections.abc import Sequence
from functools import partial

import torch
from torch import Tensor, nn

from segfw.networks.spec import NetworkSpec, Triple
from segfw.networks.unet import fold_z, right_precision, unfold_z

SWIN_HEADS = (3, 6, 12, 24)  # attention heads of each transformer stage (Hatamizadeh et al. 2022)
MEDNEXT_EXPANSION = (2, 3, 4, 4, 4)  # by stage, the bottom's last: MedNeXt-B (Roy et al. 2023)


class Foreign(nn.Module):
    """A network of MONAI that behaves as ours do.

    Takes (B, C, Z, Y, X). Returns the logits (B, K, Z, Y, X) in evaluation mode, and in training mode a list of
    logits, finest first. For slices the inner network is two-dimensional, and z is folded into the batch.
    """

    def __init__(self, network: nn.Module, spec: NetworkSpec) -> None:
        super().__init__()
        self.network = network
        self.spec = spec

    def forward(self, image_bczyx: Tensor) -> Tensor | list[Tensor]:
        with right_precision(self.spec, image_bczyx):
            logits = self.network(fold_z(image_bczyx) if self.spec.is_2d else image_bczyx)
        outputs = [logits] if isinstance(logits, Tensor) else list(logits)
        if self.spec.is_2d:
            outputs = [unfold_z(output, image_bczyx.shape[0]) for output in outputs]
        return outputs if self.training else outputs[0]


def segresnet(spec: NetworkSpec) -> nn.Module:
    """SegResNet (Myronenko 2018) with deep supervision, as MONAI's Auto3DSeg trains it.

    A stage has kernel 1 along an axis that it does not halve; that axis must be coarser than the others, which catch
    up with it first. Raises ValueError for strides, kernels or features that MONAI cannot build.
    """
    from monai.networks.nets import SegResNetDS

    stages = len(spec.features)
    steps = [tuple(2 if size == 3 else 1 for size in kernel) for kernel in spec.kernels]  # after each stage
    strides = ((1, 1, 1), *steps[:-1])
    _require(spec, features=doubled(spec.features[0], stages), strides=strides)
    # MONAI works strides and kernels out from a spacing: an axis halved n times before all are is 2^n times finer.
    catching_up = [kernel for kernel in spec.kernels if 1 in _inner(spec, kernel)]
    finer = tuple(sum(kernel[axis] == 3 for kernel in catching_up) for axis in range(3))
    network = SegResNetDS(
        spatial_dims=2 if spec.is_2d else 3,
        init_filters=spec.features[0],
        in_channels=spec.in_channels,
        out_channels=spec.classes,
        norm="instance",
        blocks_down=spec.encoder_blocks,
        blocks_up=spec.decoder_convs[::-1],
        dsdepth=stages - 1,
        resolution=tuple(0.5**count for count in _inner(spec, finer)),
    )
    scales = [tuple(int(step) for step in scale) for scale in network.anisotropic_scales or ()]
    if scales != [_inner(spec, step) for step in steps]:
        raise ValueError(f"{spec.architecture} cannot have kernels {spec.kernels}: axes catch up first, then all halve")
    # MONAI's own check computes with NumPy, where a compiler's graph would end.
    vars(network)["is_valid_shape"] = partial(_is_divisible, _inner(spec, spec.downsampling))
    return Foreign(network, spec)


def swin_unetr(spec: NetworkSpec) -> nn.Module:
    """Swin UNETR (Hatamizadeh et al. 2022): six stages, of which four are transformers; a single output.

    All axes are halved five times. The first features must be a multiple of 12. Raises ValueError for another spec.
    """
    from monai.networks.nets import SwinUNETR

    first = spec.features[0]
    _require(spec, features=(first, *doubled(first, 5)), strides=_all_halved(spec, 6), kernels=_all_three(spec))
    with torch.device("cpu"):  # it reads values while it is made, and on the meta device there are none
        network = SwinUNETR(
            spatial_dims=2 if spec.is_2d else 3,
            in_channels=spec.in_channels,
            out_channels=spec.classes,
            feature_size=first,
            depths=spec.encoder_blocks[1:5],
            num_heads=SWIN_HEADS,
            downsample="mergingv2",  # the other leaves some of the voxels out and takes others twice
        )
        # MONAI's own check computes with NumPy, where a compiler's graph would end.
        vars(network)["_check_input_size"] = partial(_require_divisible, _inner(spec, spec.downsampling))
    return Foreign(network.to(torch.get_default_device()), spec)


def mednext(spec: NetworkSpec) -> nn.Module:
    """MedNeXt-B with kernels of 3 (Roy et al. 2023) and deep supervision down to the bottom.

    All axes are halved in every stage. Raises ValueError for another spec.
    """
    from monai.networks.nets import MedNeXt

    stages = len(spec.features)
    features = doubled(spec.features[0], stages)
    _require(spec, features=features, strides=_all_halved(spec, stages), kernels=_all_three(spec))
    expansion = MEDNEXT_EXPANSION[: stages - 1]
    network = MedNeXt(
        spatial_dims=2 if spec.is_2d else 3,
        init_filters=spec.features[0],
        in_channels=spec.in_channels,
        out_channels=spec.classes,
        encoder_expansion_ratio=expansion,
        decoder_expansion_ratio=expansion[::-1],
        bottleneck_expansion_ratio=MEDNEXT_EXPANSION[-1],
        kernel_size=3,
        deep_supervision=True,
        use_residual_connection=True,
        blocks_down=spec.encoder_blocks[:-1],
        blocks_bottleneck=spec.encoder_blocks[-1],
        blocks_up=spec.decoder_convs[::-1],
    )
    return Foreign(network, spec)


def _is_divisible(factors: tuple[int, ...], image: Tensor) -> bool:
    """Whether the sizes in space (the last axes) of an image are multiples of ``factors``."""
    return all(size % factor == 0 for size, factor in zip(image.shape[2:], factors))


def _require_divisible(factors: tuple[int, ...], sizes: Sequence[int]) -> None:
    if any(size % factor for size, factor in zip(sizes, factors)):
        raise ValueError(f"sizes {tuple(sizes)} must be multiples of {factors}")


def doubled(first: int, stages: int) -> tuple[int, ...]:
    """Features that double with every stage."""
    return tuple(first * 2**stage for stage in range(stages))


def _inner(spec: NetworkSpec, triple: tuple[int, ...]) -> tuple[int, ...]:
    """Of (z, y, x): what the inner network, which may have two dimensions, gets."""
    return triple[1:] if spec.is_2d else triple


def _all_halved(spec: NetworkSpec, stages: int) -> tuple[Triple, ...]:
    return ((1, 1, 1), *((1 if spec.is_2d else 2, 2, 2),) * (stages - 1))


def _all_three(spec: NetworkSpec) -> tuple[Triple, ...]:
    return ((1 if spec.is_2d else 3, 3, 3),) * len(spec.features)


def _require(spec: NetworkSpec, **wanted: tuple) -> None:
    """Raises ValueError where the spec asks for what the architecture does not have."""
    for field, value in wanted.items():
        if getattr(spec, field) != value:
            raise ValueError(f"{spec.architecture} cannot have {field} {getattr(spec, field)}; they must be {value}")
    if len(spec.features) < 2:
        raise ValueError(f"{spec.architecture} needs at least two stages, not {len(spec.features)}")
