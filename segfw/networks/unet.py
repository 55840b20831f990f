"""The plain U-Net of nnU-Net (Isensee et al., Nature Methods 2021, Methods): convolution, instance norm, leaky ReLU."""

from __future__ import annotations

import torch
from torch import Tensor, nn

from segfw.networks.spec import NetworkSpec, Triple

LEAK = 0.01


class Layers:
    """The 2-D or 3-D kinds of layer for one network, so that the network is written once."""

    def __init__(self, is_2d: bool) -> None:
        self.conv = nn.Conv2d if is_2d else nn.Conv3d
        self.up = nn.ConvTranspose2d if is_2d else nn.ConvTranspose3d
        self.norm = nn.InstanceNorm2d if is_2d else nn.InstanceNorm3d
        self.drop_z = slice(1, None) if is_2d else slice(None)

    def conv_norm_act(self, inputs: int, outputs: int, kernel: Triple, stride: Triple = (1, 1, 1)) -> nn.Sequential:
        """Convolution that keeps the size up to its stride, instance norm, leaky ReLU."""
        kernel, stride = kernel[self.drop_z], stride[self.drop_z]
        padding = tuple(size // 2 for size in kernel)
        return nn.Sequential(
            self.conv(inputs, outputs, kernel, stride, padding),
            self.norm(outputs, eps=1e-5, affine=True),
            nn.LeakyReLU(LEAK, inplace=True),
        )


class PlainUNet(nn.Module):
    """U-Net whose stages downsample by strided convolution and upsample by transposed convolution.

    Takes (B, C, Z, Y, X). Returns the logits (B, K, Z, Y, X) in evaluation mode, and in training mode a list of
    logits, one per decoder stage, finest first, for deep supervision. A spec without z kernels runs as a 2-D network,
    folding z into the batch.
    """

    def __init__(self, spec: NetworkSpec) -> None:
        super().__init__()
        self.is_2d = spec.is_2d
        layers = Layers(spec.is_2d)
        self.encoder, self.up, self.decoder, self.heads = (nn.ModuleList() for _ in range(4))
        previous = spec.in_channels
        for features, kernel, stride, convs in zip(spec.features, spec.kernels, spec.strides, spec.encoder_convs):
            first = layers.conv_norm_act(previous, features, kernel, stride)
            rest = [layers.conv_norm_act(features, features, kernel) for _ in range(convs - 1)]
            self.encoder.append(nn.Sequential(first, *rest))
            previous = features
        for stage in range(len(spec.features) - 1):
            features, kernel, stride = spec.features[stage], spec.kernels[stage], spec.strides[stage + 1]
            step = stride[layers.drop_z]
            self.up.append(layers.up(spec.features[stage + 1], features, step, step))
            first = layers.conv_norm_act(2 * features, features, kernel)
            rest = [layers.conv_norm_act(features, features, kernel) for _ in range(spec.decoder_convs[stage] - 1)]
            self.decoder.append(nn.Sequential(first, *rest))
        for features in spec.features[: max(1, len(spec.features) - 1)]:
            self.heads.append(layers.conv(features, spec.classes, 1))
        self.apply(_initialise)

    def forward(self, image_bczyx: Tensor) -> Tensor | list[Tensor]:
        batch = image_bczyx.shape[0]
        x = image_bczyx.transpose(1, 2).flatten(0, 1) if self.is_2d else image_bczyx
        skips = []
        for stage in self.encoder:
            x = stage(x)
            skips.append(x)
        outputs = [] if len(self.decoder) else [self.heads[0](x)]
        for stage in reversed(range(len(self.decoder))):
            x = self.up[stage](x)
            x = self.decoder[stage](torch.cat((x, skips[stage]), 1))
            if self.training or stage == 0:
                outputs.append(self.heads[stage](x))
        outputs = [self._unfold_z(logits, batch) for logits in reversed(outputs)]
        return outputs if self.training else outputs[0]

    def _unfold_z(self, logits: Tensor, batch: int) -> Tensor:
        return logits.unflatten(0, (batch, -1)).transpose(1, 2) if self.is_2d else logits


def _initialise(module: nn.Module) -> None:
    """He initialisation for leaky ReLU, as the reference does."""
    if isinstance(module, nn.Conv2d | nn.Conv3d | nn.ConvTranspose2d | nn.ConvTranspose3d):
        nn.init.kaiming_normal_(module.weight, a=LEAK)
        nn.init.zeros_(module.bias)
