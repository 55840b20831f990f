"""The U-Nets of nnU-Net: plain (Isensee et al. 2021) and with residual encoder (Isensee et al. 2024)."""

from __future__ import annotations

from collections.abc import Sequence
from contextlib import AbstractContextManager, nullcontext

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from segfw.networks.blocks import Layers, ResidualBlock, initialise
from segfw.networks.spec import CLICK_CHANNELS, NetworkSpec

LEAN = 4.0  # of a refiner towards the mask that it is given: alone it gives each voxel of it 0.98


def fold_z(image_bczyx: Tensor) -> Tensor:
    """Every slice as a sample of its own, (B * Z, C, Y, X), as 2-D networks want them."""
    return image_bczyx.transpose(1, 2).flatten(0, 1)


def unfold_z(logits: Tensor, batch: int) -> Tensor:
    """The inverse: (B, K, Z, Y, X) of (B * Z, K, Y, X)."""
    return logits.unflatten(0, (batch, -1)).transpose(1, 2)


def right_precision(spec: NetworkSpec, image_bczyx: Tensor) -> AbstractContextManager[object]:
    """Float32 where 16 bit would give wrong gradients on a CPU, else what the caller has chosen."""
    z, y, x = image_bczyx.shape[2:]
    is_wrong = torch.is_grad_enabled() and spec.breaks_bf16_on_the_cpu((z, y, x))
    if is_wrong and image_bczyx.device.type == "cpu":
        return torch.autocast("cpu", enabled=False)
    return nullcontext()


class UNet(nn.Module):
    """The decoder, heads and wiring of a U-Net; subclasses give the encoder.

    Takes (B, C, Z, Y, X). Returns the logits (B, K, Z, Y, X) in evaluation mode, and in training mode a list of
    logits, one per decoder stage, finest first, for deep supervision. A spec without z kernels runs as a 2-D network,
    folding z into the batch.
    """

    def __init__(self, spec: NetworkSpec) -> None:
        super().__init__()
        self.spec = spec
        layers = Layers(spec)
        self.encoder = nn.ModuleList(self.encoder_stages(layers, spec))
        self.up = nn.ModuleList()
        self.decoder = nn.ModuleList()
        self.heads = nn.ModuleList()
        for stage in range(len(spec.features) - 1):
            features = spec.features[stage]
            kernel = spec.kernels[stage]
            step = layers.sizes(spec.strides[stage + 1])
            self.up.append(layers.up(spec.features[stage + 1], features, step, step))
            first = layers.conv_norm_act(2 * features, features, kernel)
            rest = [layers.conv_norm_act(features, features, kernel) for _ in range(spec.decoder_convs[stage] - 1)]
            self.decoder.append(nn.Sequential(first, *rest))
        for features in spec.features[: max(1, len(spec.features) - 1)]:
            self.heads.append(layers.conv(features, spec.classes, 1))
        self.apply(initialise)

    def encoder_stages(self, layers: Layers, spec: NetworkSpec) -> Sequence[nn.Module]:
        """One module per stage, finest first."""
        raise NotImplementedError

    def forward(self, image_bczyx: Tensor) -> Tensor | list[Tensor]:
        with right_precision(self.spec, image_bczyx):
            if not self.training:
                # Through ``features``, so that who compiles that one has compiled both.
                features = self.features(image_bczyx)
                folded = fold_z(features) if self.spec.is_2d else features
                logits = self.heads[0](folded)
                return unfold_z(logits, image_bczyx.shape[0]) if self.spec.is_2d else logits
            decoded = self._decoded(image_bczyx)
            outputs = [head(x) for head, x in zip(self.heads, decoded)]
        return [unfold_z(logits, image_bczyx.shape[0]) for logits in outputs] if self.spec.is_2d else outputs

    def features(self, image_bczyx: Tensor) -> Tensor:
        """What the last layer makes logits of, (B, F, Z, Y, X): the finest activations of the decoder."""
        x = self._decoded(image_bczyx)[0]
        return unfold_z(x, image_bczyx.shape[0]) if self.spec.is_2d else x

    def head(self) -> tuple[Tensor, Tensor]:
        """The last layer as weights (K, F) and biases (K,): logits are ``weights @ features + biases`` per voxel."""
        weights = self.heads[0].get_parameter("weight").detach()
        biases = self.heads[0].get_parameter("bias").detach()
        return weights.flatten(1), biases

    def _decoded(self, image_bczyx: Tensor) -> list[Tensor]:
        """Activations of the decoder's stages, finest first; in evaluation mode of the finest alone."""
        x = fold_z(image_bczyx) if self.spec.is_2d else image_bczyx
        skips = []
        for stage in self.encoder:
            x = stage(x)
            skips.append(x)
        decoded = [skips.pop()]
        for level in reversed(range(len(self.decoder))):
            x = self.decoder[level](torch.cat((self.up[level](x), skips.pop()), 1))
            decoded = [x, *decoded] if self.training else [x]
        return decoded[: len(self.heads)]


class PlainUNet(UNet):
    """Stages of convolutions; the first one of a stage strides."""

    def encoder_stages(self, layers: Layers, spec: NetworkSpec) -> Sequence[nn.Module]:
        """Convolution, norm and activation, ``spec.encoder_blocks`` times per stage."""
        stages: list[nn.Module] = []
        previous = spec.in_channels
        for features, kernel, stride, convs in zip(spec.features, spec.kernels, spec.strides, spec.encoder_blocks):
            first = layers.conv_norm_act(previous, features, kernel, stride)
            rest = [layers.conv_norm_act(features, features, kernel) for _ in range(convs - 1)]
            stages.append(nn.Sequential(first, *rest))
            previous = features
        return stages


class RefinerUNet(PlainUNet):
    """A plain U-Net whose answer leans to the mask that it is given, so that it learns what to change of that.

    Its last channels are the given mask, all others, and clicks inside and outside; its classes are 'is not' and 'is
    the structure'.
    """

    click_lean = 0.0  # towards what a click says, at its place

    def forward(self, image_bczyx: Tensor) -> Tensor | list[Tensor]:
        """Logits as of the plain U-Net, moved towards what is given and what clicks say."""
        outputs = super().forward(image_bczyx)
        given, _, inside, outside = image_bczyx[:, -CLICK_CHANNELS:].split(1, 1)
        half = LEAN * (given - 0.5) + self.click_lean * (inside - outside)
        lean = torch.cat((-half, half), 1)
        if isinstance(outputs, Tensor):
            return outputs + lean
        return [logits + F.interpolate(lean, logits.shape[2:], mode="nearest-exact") for logits in outputs]


class ClickRefinerUNet(RefinerUNet):
    """A refiner that also leans to what a click says: it begins with that and learns how far it goes."""

    click_lean = LEAN / 2  # as much as makes up for a given mask that says otherwise: there the image decides


class ResidualEncoderUNet(UNet):
    """Stages of residual blocks after a stem of one convolution."""

    def encoder_stages(self, layers: Layers, spec: NetworkSpec) -> Sequence[nn.Module]:
        """``spec.encoder_blocks`` residual blocks per stage; the stem belongs to the first."""
        stages: list[nn.Sequential] = []
        previous = spec.features[0]
        for features, kernel, stride, blocks in zip(spec.features, spec.kernels, spec.strides, spec.encoder_blocks):
            first = ResidualBlock(layers, previous, features, kernel, stride)
            rest = [ResidualBlock(layers, features, features, kernel, (1, 1, 1)) for _ in range(blocks - 1)]
            stages.append(nn.Sequential(first, *rest))
            previous = features
        stem = layers.conv_norm_act(spec.in_channels, spec.features[0], spec.kernels[0])
        stages[0] = nn.Sequential(stem, *stages[0])
        return stages
