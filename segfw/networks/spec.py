"""The description of a network: everything needed to build it again, and what it costs."""

from __future__ import annotations

from math import prod

from pydantic import model_validator

from segfw.base.records import Record

Triple = tuple[int, int, int]  # along (z, y, x)
CLICK_CHANNELS = 4  # of a refiner after the image's: the given mask, all others, clicks inside, clicks outside

PLAIN = "plain-unet"
RESIDUAL_ENCODER = "residual-encoder-unet"
REFINER = "refiner-unet"
CLICK_REFINER = "click-refiner-unet"
# MONAI's.
SEGRESNET = "segresnet"
SWIN_UNETR = "swin-unetr"
MEDNEXT = "mednext-b"


def _is_odd(kernel: Triple) -> bool:
    return all(size >= 1 and size % 2 == 1 for size in kernel)


class NetworkSpec(Record):
    """A U-Net: one entry per stage, finest first. 2-D networks have kernel and stride 1 along z in every stage.

    ``encoder_blocks`` counts convolutions, or the blocks of the architecture; ``decoder_convs``, convolutions or blocks
    too, has no entry for the bottom.
    """

    architecture: str
    in_channels: int
    classes: int
    features: tuple[int, ...]
    strides: tuple[Triple, ...]
    kernels: tuple[Triple, ...]
    encoder_blocks: tuple[int, ...]
    decoder_convs: tuple[int, ...]
    leak: float = 0.01  # slope of the leaky ReLU below 0; 0 is a ReLU
    norm_eps: float = 1e-5  # added to the variance in instance norms

    @model_validator(mode="after")
    def _consistent(self) -> NetworkSpec:
        stages = len(self.features)
        lengths = (len(self.strides), len(self.kernels), len(self.encoder_blocks), len(self.decoder_convs) + 1)
        if stages < 1 or set(lengths) != {stages}:
            raise ValueError(f"{stages} stages of features, but strides, kernels, convs have {lengths} (decoder + 1)")
        if min(self.in_channels, self.classes, *self.features, *self.encoder_blocks, *self.decoder_convs) < 1:
            raise ValueError(f"features {self.features}, convs and channels must be 1 or more")
        if min(min(stride) for stride in self.strides) < 1:
            raise ValueError(f"strides {self.strides} must be 1 or more")
        if not all(_is_odd(kernel) for kernel in self.kernels):
            raise ValueError(f"kernels {self.kernels} must be odd, so that padding keeps the size")
        return self

    @property
    def is_2d(self) -> bool:
        """True if no layer mixes slices, so that the network can drop the z axis."""
        return all(kernel[0] == 1 for kernel in self.kernels) and all(stride[0] == 1 for stride in self.strides)

    @property
    def downsampling(self) -> Triple:
        """Factor by which each axis is smaller at the bottom; patches must be multiples of it."""
        along_z, along_y, along_x = zip(*self.strides)
        return prod(along_z), prod(along_y), prod(along_x)

    def stage_shapes(self, patch_size: Triple) -> list[Triple]:
        """Voxels (z, y, x) of every stage for a patch."""
        shapes = []
        z, y, x = patch_size
        for step_z, step_y, step_x in self.strides:
            z //= step_z
            y //= step_y
            x //= step_x
            shapes.append((z, y, x))
        return shapes

    def breaks_bf16_on_the_cpu(self, patch_size: Triple) -> bool:
        """True if a stage has two slices and mixes them.

        PyTorch (2.13 with oneDNN) then takes the gradient of a 3-D convolution's weights in 16 bit from memory that it
        has not written, so that training on a CPU turns into numbers as large as 1e30; float32, other devices, and one
        slice or three are right.
        """
        return any(
            shape[0] == 2 and kernel[0] > 1 for shape, kernel in zip(self.stage_shapes(patch_size), self.kernels)
        )

    def convolution_elements(self, patch_size: Triple) -> int:
        """Output elements of all convolutions for one patch: nnU-Net's stand-in for memory.

        The rule is in docs/reference/rules.md, 2.3. For the two published architectures. Counts encoder, decoder and
        transposed convolutions and the last segmentation layer. As published, the shortcut of a residual block counts
        once where its size or its features change, and a network of one stage has no segmentation layer.
        """
        voxels = [prod(shape) for shape in self.stage_shapes(patch_size)]
        encoder = sum(self._encoder_outputs(stage) * voxels[stage] for stage in range(len(voxels)))
        decoder = 0
        for convs, features, size in zip(self.decoder_convs, self.features, voxels):
            decoder += (convs + 1) * features * size  # one more is the transposed convolution
        last_layer = self.classes * voxels[0] if len(voxels) > 1 else 0
        return encoder + decoder + last_layer

    def _encoder_outputs(self, stage: int) -> int:
        """Output channels of all convolutions of an encoder stage."""
        features = self.features[stage]
        blocks = self.encoder_blocks[stage]
        if self.architecture != RESIDUAL_ENCODER:
            return blocks * features
        previous = self.features[max(0, stage - 1)]
        has_shortcut = features != previous or any(step > 1 for step in self.strides[stage])
        return (2 * blocks + has_shortcut + (stage == 0)) * features
