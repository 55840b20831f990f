"""Building blocks of U-Nets, written once for two and three dimensions."""

from __future__ import annotations

from collections.abc import Callable

from torch import Tensor, nn

from segfw.networks.norm import InstanceNorm2d, InstanceNorm3d
from segfw.networks.spec import NetworkSpec, Triple

MakeLayer = Callable[..., nn.Module]  # a class of layers, with sizes of two or of three axes


class Layers:
    """The 2-D or 3-D kinds of layer for one network, so that the network is written once."""

    def __init__(self, spec: NetworkSpec) -> None:
        is_2d = spec.is_2d
        self.is_2d = is_2d
        self.leak = spec.leak
        self.norm_eps = spec.norm_eps
        self.conv: MakeLayer = nn.Conv2d if is_2d else nn.Conv3d
        self.up: MakeLayer = nn.ConvTranspose2d if is_2d else nn.ConvTranspose3d
        self.norm: MakeLayer = InstanceNorm2d if is_2d else InstanceNorm3d
        self.average: MakeLayer = nn.AvgPool2d if is_2d else nn.AvgPool3d

    def sizes(self, triple: Triple) -> tuple[int, ...]:
        """Kernel, stride or the like of a layer: (z, y, x) in three dimensions, (y, x) in two."""
        return triple[1:] if self.is_2d else triple

    def conv_norm(
        self, inputs: int, outputs: int, kernel: Triple, stride: Triple, *, bias: bool = True
    ) -> list[nn.Module]:
        """Convolution that keeps the size up to its stride, and instance norm."""
        kernel_size = self.sizes(kernel)
        padding = tuple(size // 2 for size in kernel_size)
        return [
            self.conv(inputs, outputs, kernel_size, self.sizes(stride), padding, bias=bias),
            self.norm(outputs, eps=self.norm_eps, affine=True),
        ]

    def conv_norm_act(self, inputs: int, outputs: int, kernel: Triple, stride: Triple = (1, 1, 1)) -> nn.Sequential:
        """Convolution that keeps the size up to its stride, instance norm, leaky ReLU."""
        return nn.Sequential(*self.conv_norm(inputs, outputs, kernel, stride), self.act())

    def act(self) -> nn.Module:
        """Leaky ReLU."""
        return nn.LeakyReLU(self.leak, inplace=True)


class ResidualBlock(nn.Module):
    """Two convolutions beside a shortcut that averages where they stride (He et al. 2019, ResNet-D).

    The shortcut is the identity where neither the size nor the number of features changes.
    """

    def __init__(self, layers: Layers, inputs: int, outputs: int, kernel: Triple, stride: Triple) -> None:
        super().__init__()
        once = (1, 1, 1)
        self.first = layers.conv_norm_act(inputs, outputs, kernel, stride)
        self.second = nn.Sequential(*layers.conv_norm(outputs, outputs, kernel, once))
        shortcut: list[nn.Module] = []
        if stride != once:
            shortcut.append(layers.average(layers.sizes(stride), layers.sizes(stride)))
        if inputs != outputs:
            shortcut += layers.conv_norm(inputs, outputs, once, once, bias=False)
        self.shortcut = nn.Sequential(*shortcut)
        self.act = layers.act()

    def forward(self, x: Tensor) -> Tensor:
        if isinstance(self.act, nn.Identity):  # the norm before it adds and activates
            convolution, norm = self.second
            return norm(convolution(self.first(x)), self.shortcut(x))
        residual = self.second(self.first(x))
        # Mixed precision on the CPU averages in float32, and the sum would carry that on through the network.
        return self.act(residual + self.shortcut(x).to(residual.dtype))


def initialise(module: nn.Module) -> None:
    """He initialisation for a slope of 0.01; residual blocks begin as their shortcut alone. As nnU-Net does."""
    if isinstance(module, nn.Conv2d | nn.Conv3d | nn.ConvTranspose2d | nn.ConvTranspose3d):
        nn.init.kaiming_normal_(module.weight, a=0.01)
        if module.bias is not None:
            nn.init.zeros_(module.bias)
    if isinstance(module, ResidualBlock):
        norm = module.second[1]
        for parameter in norm.parameters():  # weight and bias
            nn.init.zeros_(parameter)
