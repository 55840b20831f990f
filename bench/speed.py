"""Speed of segfw's parts on this machine, each as a ratio against a plain baseline in the same run.

    python -m bench speed
    python -m bench speed resampling restoring step augmentation inference

Medians over several repetitions; baseline and ours alternate, so that a drifting machine drifts for both.
"""

from __future__ import annotations

import argparse
from collections.abc import Callable, Sequence

import numpy as np
import torch
from scipy import ndimage

from bench.made_up import uncropped_record
from bench.small_network import BATCH, NETWORK, PATCH, step_of
from bench.timing import alternate, report
from segfw.base.device import device_name, keep_freed_pages, pick_device, pick_precision
from segfw.grid.resample import axis_matrix, resample_image
from segfw.grid.restore import restore
from segfw.grid.slabs import dense
from segfw.images.geometry import Shape
from segfw.inference.ready_networks import in_precision
from segfw.inference.sliding_window import sliding_window
from segfw.inference.summands import summands_of
from segfw.networks import build_network, fastest_layout
from segfw.training.augment import augment_intensity, warp
from segfw.training.augment_params import SpatialParams, draw_intensity, draw_spatial, source_size


def main(arguments: Sequence[str] | None = None) -> None:
    parser = argparse.ArgumentParser(
        prog="python -m bench speed", description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("parts", nargs="*", metavar="PART", help=f"of {', '.join(PARTS)} (default: all)")
    args = parser.parse_args(arguments)
    for part in args.parts:
        if part not in PARTS:
            parser.error(f"unknown part {part!r}; choose from {', '.join(PARTS)}")
    keep_freed_pages()
    print(f"torch {torch.__version__}, {torch.get_num_threads()} threads, {device_name(pick_device('auto'))}")
    for part in args.parts or PARTS:
        PARTS[part]()


def resampling(old: Shape = (100, 256, 256), new: Shape = (100, 137, 137), repetitions: int = 5) -> float:
    """Cubic resampling of a CT against scipy's 3-D spline; returns the largest difference, as a share of the range."""
    rng = np.random.default_rng(0)
    image = ndimage.gaussian_filter(rng.normal(size=old), 2).astype(np.float32)
    tensor = torch.from_numpy(image)[None]
    results = {}

    def by_scipy() -> None:
        factors = [after / before for after, before in zip(new, old)]
        zoomed = ndimage.zoom(image, factors, order=3, mode="nearest", grid_mode=True)
        results["scipy"] = np.clip(zoomed, image.min(), image.max())

    def by_matrices() -> None:
        axis_matrix.cache_clear()  # the matrices are part of the work
        results["segfw"] = resample_image(tensor, new, None)[0].numpy()

    seconds = alternate(by_scipy, by_matrices, repetitions)
    report(f"cubic resampling, {_size(old)} -> {_size(new)}", "scipy", *seconds)
    largest = float(np.abs(results["scipy"] - results["segfw"]).max())
    span = float(np.ptp(image))
    print(f"  largest difference {largest:.1e} of range {span:.2f}")
    return largest / span


def restoring(
    classes: int = 15, old: Shape = (80, 96, 96), new: Shape = (120, 192, 192), repetitions: int = 5
) -> float:
    """The way from logits to a mask against full-size logits; returns the share of voxels that differ."""
    logits = torch.randn(classes, *old)
    record = uncropped_record(new, (1.0, 1.0, 1.0), old)
    results = {}

    def naive() -> None:
        resized = torch.nn.functional.interpolate(logits[None], new, mode="trilinear", align_corners=False)
        results["naive"] = resized[0].argmax(0).numpy()

    def by_blocks() -> None:
        results["blocks"] = restore(logits, record)

    seconds = alternate(naive, by_blocks, repetitions)
    report(f"restore of {classes} classes of noise to {_size(new)}", "full-size logits", *seconds)
    different = float((results["naive"] != results["blocks"]).mean())
    print(f"  voxels that differ: {different:.1e}")
    return different


def _size(shape: Shape) -> str:
    return "x".join(map(str, shape))


def step(repetitions: int = 5) -> None:
    """A training step as segfw does it here against fp32 eager in the default memory layout."""
    device = pick_device("auto")
    precision = pick_precision("auto", device)
    baseline = step_of(torch.float32, device)
    ours = step_of(precision, device)
    report(f"training step, batch {BATCH}, {precision}", "fp32 eager", *alternate(baseline, ours, repetitions))


def precision(repetitions: int = 5) -> dict[str, float]:
    """float32 against bf16 in training and in prediction, and what 'auto' takes; returns float32's time in bf16's."""
    device = pick_device("auto")
    training_s = alternate(
        step_of(torch.float32, device, fastest=True), step_of(torch.bfloat16, device, fastest=True), repetitions
    )
    prediction_s = alternate(_prediction_of(torch.float32), _prediction_of(torch.bfloat16), repetitions)
    gains = {}
    for what, (fp32_s, bf16_s), for_training in (
        ("training step", training_s, True),
        ("prediction of 4 tiles", prediction_s, False),
    ):
        picked = str(pick_precision("auto", device, for_training=for_training)).removeprefix("torch.")
        gain = fp32_s / bf16_s
        print(f"{what}: float32 {fp32_s:.3f} s, bf16 {bf16_s:.3f} s, {gain:.2f} times as fast; 'auto' took {picked}")
        gains[what] = gain
    return gains


def _prediction_of(precision: torch.dtype) -> Callable[[], object]:
    """A closure that predicts a case of four tiles without mirroring."""
    device = pick_device("auto")
    torch.manual_seed(0)
    network = fastest_layout(in_precision(build_network(NETWORK).eval(), precision).to(device))
    image = torch.randn(1, 40, 84, 60)
    summands = summands_of([network], ())

    @torch.inference_mode()
    def predict() -> object:
        return dense(sliding_window(image, summands, PATCH, device=device, precision=precision))

    return predict


def _reference_transforms() -> list[Callable[..., dict]]:
    """batchgenerators' transforms of the kinds that segfw draws."""
    from batchgenerators.transforms.color_transforms import (
        BrightnessMultiplicativeTransform,
        ContrastAugmentationTransform,
        GammaTransform,
    )
    from batchgenerators.transforms.noise_transforms import GaussianBlurTransform, GaussianNoiseTransform
    from batchgenerators.transforms.resample_transforms import SimulateLowResolutionTransform
    from batchgenerators.transforms.spatial_transforms import MirrorTransform, SpatialTransform

    angle = (-np.pi / 6, np.pi / 6)
    return [
        SpatialTransform(
            PATCH, None, do_elastic_deform=False, angle_x=angle, angle_y=angle, angle_z=angle, scale=(0.7, 1.4),
            border_mode_data="constant", random_crop=False, p_rot_per_sample=0.2, p_scale_per_sample=0.2,
        ),
        GaussianNoiseTransform(p_per_sample=0.1),
        GaussianBlurTransform((0.5, 1.0), p_per_sample=0.2, p_per_channel=0.5),
        BrightnessMultiplicativeTransform((0.75, 1.25), p_per_sample=0.15),
        ContrastAugmentationTransform(p_per_sample=0.15),
        SimulateLowResolutionTransform(
            (0.5, 1), p_per_sample=0.25, p_per_channel=0.5, order_downsample=0, order_upsample=1
        ),
        GammaTransform((0.7, 1.5), True, True, retain_stats=True, p_per_sample=0.1),
        GammaTransform((0.7, 1.5), False, True, retain_stats=True, p_per_sample=0.3),
        MirrorTransform((0, 1, 2)),
    ]  # fmt: skip


def augmentation(count: int = 40, repetitions: int = 3) -> None:
    """segfw's augmentation of one patch against batchgenerators' transforms of the same kinds, one thread each."""
    transforms = _reference_transforms()
    rng = np.random.default_rng(0)
    box = source_size(PATCH, SpatialParams(matrix=np.ones((3, 3)) * 0.85))
    image = rng.normal(size=(1, *box)).astype(np.float32)
    mask = (rng.random(box) > 0.9).astype(np.int16)

    def reference() -> None:
        for _ in range(count):
            batch = {"data": image[None].copy(), "seg": mask[None, None].astype(np.float32)}
            for transform in transforms:
                batch = transform(**batch)

    def ours() -> None:
        for _ in range(count):
            spatial = draw_spatial(rng, PATCH, (0, 1, 2))
            size = source_size(PATCH, spatial)
            cut = tuple(slice((n - s) // 2, (n - s) // 2 + s) for n, s in zip(box, size))
            patch = torch.from_numpy(image[(slice(None), *cut)])[None]
            if spatial.is_warped:
                patch, _ = warp([(patch[0], torch.from_numpy(mask[cut])[None])], [spatial], PATCH)
            augment_intensity(patch, [draw_intensity(rng, 1)], PATCH, [0])

    threads = torch.get_num_threads()
    torch.set_num_threads(1)
    try:
        seconds = alternate(reference, ours, repetitions)
    finally:
        torch.set_num_threads(threads)
    report(f"augmentation of {count} patches", "batchgenerators", *seconds)


def inference(repetitions: int = 3) -> float:
    """A case of several tiles with mirroring, against fp32 one tile and one mirror at a time; returns equal voxels."""
    device = pick_device("auto")
    precision = pick_precision("auto", device)
    image = torch.randn(1, 40, 84, 60)
    torch.manual_seed(0)
    plain = build_network(NETWORK).to(device).eval()
    fast = build_network(NETWORK).eval()
    fast.load_state_dict(plain.state_dict())
    fast = fastest_layout(in_precision(fast, precision).to(device))
    results = {}

    @torch.inference_mode()
    def baseline() -> None:
        def one_by_one(tiles: torch.Tensor) -> torch.Tensor:
            return torch.cat([plain(tile[None]) for tile in tiles])

        summands = summands_of([one_by_one], (0, 1, 2))
        results["fp32"] = dense(sliding_window(image, summands, PATCH, device=device))

    @torch.inference_mode()
    def ours() -> None:
        summands = summands_of([fast], (0, 1, 2))
        results["ours"] = dense(sliding_window(image, summands, PATCH, device=device, precision=precision))

    report(
        f"inference of 4 tiles with 8 mirrors, {precision}", "fp32, one by one", *alternate(baseline, ours, repetitions)
    )
    equal = float((results["fp32"].argmax(0) == results["ours"].argmax(0)).float().mean())
    print(f"  equal voxels with random weights: {equal:.4f}")
    return equal


PARTS = {
    "resampling": resampling,
    "restoring": restoring,
    "step": step,
    "precision": precision,
    "augmentation": augmentation,
    "inference": inference,
}
