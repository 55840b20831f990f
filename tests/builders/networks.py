"""Networks small enough to train within a test."""

from __future__ import annotations

from segfw.networks.spec import CLICK_CHANNELS, NetworkSpec


def spec(**changes) -> NetworkSpec:
    """Two stages, one channel, three classes."""
    values = {
        "architecture": "plain-unet",
        "in_channels": 1,
        "classes": 3,
        "features": (8, 16),
        "strides": ((1, 1, 1), (2, 2, 2)),
        "kernels": ((3, 3, 3), (3, 3, 3)),
        "encoder_blocks": (1, 1),
        "decoder_convs": (1,),
    }
    return NetworkSpec(**values | changes)


def small_refiner(architecture: str) -> NetworkSpec:
    """Three stages of a refiner, for images of one channel."""
    return spec(
        architecture=architecture,
        in_channels=1 + CLICK_CHANNELS,
        classes=2,
        features=(8, 16, 16),
        strides=((1, 1, 1), (2, 2, 2), (2, 2, 2)),
        kernels=((3, 3, 3),) * 3,
        encoder_blocks=(1, 1, 1),
        decoder_convs=(1, 1),
    )


def three_stages(**changes) -> NetworkSpec:
    """Three stages; z is neither mixed in the first nor halved on the way to the second."""
    values = {
        "architecture": "plain-unet",
        "in_channels": 2,
        "classes": 4,
        "features": (4, 6, 8),
        "strides": ((1, 1, 1), (1, 2, 2), (2, 2, 2)),
        "kernels": ((1, 3, 3), (3, 3, 3), (3, 3, 3)),
        "encoder_blocks": (2, 2, 2),
        "decoder_convs": (2, 2),
    }
    return NetworkSpec(**values | changes)


FLAT = three_stages(strides=((1, 1, 1), (1, 2, 2), (1, 2, 1)), kernels=((1, 3, 3), (1, 3, 1), (1, 3, 3)))
HIPPOCAMPUS = three_stages(
    in_channels=1,
    classes=3,
    features=(32, 64, 128, 256),
    strides=((1, 1, 1), (2, 2, 2), (2, 2, 2), (2, 2, 2)),
    kernels=((3, 3, 3),) * 4,
    encoder_blocks=(2,) * 4,
    decoder_convs=(2,) * 3,
)


def network_spec(features: tuple[int, ...], is_2d: bool = False, **changes) -> NetworkSpec:
    """Every stage is half as fine along all axes; the first does not mix z."""
    stages = len(features)
    z_kernel = 1 if is_2d else 3
    z_stride = 1 if is_2d else 2
    values = {
        "architecture": "plain-unet",
        "in_channels": 2,
        "classes": 3,
        "features": features,
        "strides": ((1, 1, 1), *((z_stride, 2, 2),) * (stages - 1)),
        "kernels": ((1, 3, 3), *((z_kernel, 3, 3),) * (stages - 1)),
        "encoder_blocks": (2,) * stages,
        "decoder_convs": (2,) * (stages - 1),
    }
    return NetworkSpec(**values | changes)
