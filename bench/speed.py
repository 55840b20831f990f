"""Speed and memory of segfw's parts on this machine, each as a ratio against a plain baseline in the same run.

    python scripts/benchmark.py preprocessing | step | machine | epoch | augmentation | inference | gpu | all
    python scripts/benchmark.py evaluation --pairs 50

Medians over several repetitions; baseline and ours alternate, so that a drifting machine drifts for both.
"""

from __future__ import annotations

import argparse
from functools import partial

import numpy as np
import torch
from scipy import ndimage

from bench.evaluation import evaluation
from bench.small_network import BATCH, NETWORK, PATCH, alternate, epoch, machine, step_of
from segfw.base.device import device_memory_gb, device_name, keep_freed_pages, pick_device, pick_precision
from segfw.base.records import GIGABYTE
from segfw.grid.preprocess import PreprocessRecord
from segfw.grid.resample import axis_matrix, resample_image
from segfw.grid.restore import restore
from segfw.grid.slabs import dense
from segfw.images.geometry import Geometry, Shape
from segfw.inference.compiled import in_precision
from segfw.inference.sliding_window import sliding_window
from segfw.inference.summands import members_of
from segfw.networks import build_network, fastest_layout
from segfw.planning.fitting import Grid, choose_by_memory
from segfw.planning.memory import measure_step, step_cost
from segfw.planning.presets import PRESETS, preset_called
from segfw.training.augment import augment_intensity, warp
from segfw.training.augment_params import SpatialParams, draw_intensity, draw_spatial, source_size


def report(what: str, baseline_name: str, baseline_s: float, ours_s: float) -> None:
    """One line: what, medians, ratio."""
    print(f"{what}: {baseline_name} {baseline_s:.3f} s, segfw {ours_s:.3f} s, {baseline_s / ours_s:.1f} times faster")


def preprocessing() -> None:
    """Cubic resampling of a CT against scipy's 3-D spline, and the restore of 15 classes against full-size logits."""
    rng = np.random.default_rng(0)
    image = ndimage.gaussian_filter(rng.normal(size=(100, 256, 256)), 2).astype(np.float32)
    shape: Shape = (100, 137, 137)
    tensor = torch.from_numpy(image)[None]
    results = {}

    def by_scipy() -> None:
        factors = [new / old for new, old in zip(shape, image.shape)]
        zoomed = ndimage.zoom(image, factors, order=3, mode="nearest", grid_mode=True)
        results["scipy"] = np.clip(zoomed, image.min(), image.max())

    def by_matrix() -> None:
        axis_matrix.cache_clear()  # the matrices are part of the work
        results["segfw"] = resample_image(tensor, shape, None)[0].numpy()

    report("cubic resampling, 100x256x256 -> 100x137x137", "scipy", *alternate(by_scipy, by_matrix, 5))
    print(f"  largest difference {np.abs(results['scipy'] - results['segfw']).max():.1e} of range {np.ptp(image):.2f}")
    logits = torch.randn(15, 80, 96, 96)
    full: Shape = (120, 192, 192)
    record = PreprocessRecord(
        original=Geometry.of(full, np.eye(4)),
        box=tuple((0, size) for size in full),
        axis_order=(0, 1, 2),
        cropped_shape=full,
        cropped_spacing_mm=(1.0, 1.0, 1.0),
        shape=tuple(logits.shape[1:]),
        spacing_mm=(1.5, 2.0, 2.0),
    )

    def naive() -> None:
        resized = torch.nn.functional.interpolate(logits[None], full, mode="trilinear", align_corners=False)
        results["naive"] = resized[0].argmax(0).numpy()

    def by_blocks() -> None:
        results["blocks"] = restore(logits, record)

    report("restore of 15 classes of noise to 120x192x192", "full-size logits", *alternate(naive, by_blocks, 5))
    print(f"  voxels that differ: {(results['naive'] != results['blocks']).mean():.1e}")


def step() -> None:
    """A training step as segfw does it here against fp32 eager in the default memory layout."""
    device = pick_device("auto")
    precision = pick_precision("auto", device)
    baseline, ours = step_of(torch.float32, device), step_of(precision, device)
    report(f"training step, batch {BATCH}, {precision}", "fp32 eager", *alternate(baseline, ours, 5))


def augmentation() -> None:
    """segfw's augmentation of one patch against batchgenerators' transforms of the same kinds, one thread each."""
    from batchgenerators.transforms.color_transforms import (
        BrightnessMultiplicativeTransform,
        ContrastAugmentationTransform,
        GammaTransform,
    )
    from batchgenerators.transforms.noise_transforms import GaussianBlurTransform, GaussianNoiseTransform
    from batchgenerators.transforms.resample_transforms import SimulateLowResolutionTransform
    from batchgenerators.transforms.spatial_transforms import MirrorTransform, SpatialTransform

    angle = (-np.pi / 6, np.pi / 6)
    transforms = [
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
    rng, count = np.random.default_rng(0), 40
    box = source_size(PATCH, SpatialParams(matrix=np.ones((3, 3)) * 0.85))
    image, mask = rng.normal(size=(1, *box)).astype(np.float32), (rng.random(box) > 0.9).astype(np.int16)
    threads = torch.get_num_threads()
    torch.set_num_threads(1)

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

    report(f"augmentation of {count} patches", "batchgenerators", *alternate(reference, ours, 3))
    torch.set_num_threads(threads)


def inference() -> None:
    """A case of several tiles with mirroring, against fp32 one tile and one mirror at a time."""
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

        members = members_of([one_by_one], (0, 1, 2))
        results["fp32"] = dense(sliding_window(image, members, PATCH, device=device))

    @torch.inference_mode()
    def ours() -> None:
        members = members_of([fast], (0, 1, 2))
        results["ours"] = dense(sliding_window(image, members, PATCH, device=device, precision=precision))

    report(f"inference of 4 tiles with 8 mirrors, {precision}", "fp32, one by one", *alternate(baseline, ours, 3))
    same = (results["fp32"].argmax(0) == results["ours"].argmax(0)).float().mean()
    print(f"  equal voxels with random weights: {same:.4f}")


def planned_against_measured(preset: str, memory_gb: float, device: torch.device) -> None:
    """One line per configuration: what was predicted, what a real step took in that much memory, and 20 steps more."""
    if device_memory_gb(device) < memory_gb:
        print(f"    {preset} at {memory_gb} GB: the card has less")
        return
    family = preset_called(preset)
    for shape, spacing_mm in (
        ((160, 256, 256), (1.5, 0.8, 0.8)),
        ((300, 300, 300), (1.0, 1.0, 1.0)),
        ((512, 512), (1, 1)),
    ):
        grid = Grid(
            spacing_mm=spacing_mm,
            median_shape=shape,
            dataset_voxels=float(np.prod(shape)) * 500,
            channels=1,
            classes=15,
            published_classes=15,
        )
        choice = choose_by_memory(grid, family, memory_gb=memory_gb)
        predicted_gb = step_cost(choice.network).peak_bytes(choice.patch_size, choice.batch_size) / GIGABYTE
        found = measure_step(choice.network, choice.patch_size, choice.batch_size, device, memory_gb, steps=20)
        size = "x".join(map(str, choice.patch_size))
        result = "OUT OF MEMORY" if found is None else f"{found.tensors_gb:.2f}, held {found.held_gb:.2f}"
        ratio = "" if found is None else f" ({predicted_gb / found.tensors_gb - 1:+.0%})"
        print(
            f"    {preset} at {memory_gb} GB: {size} x {choice.batch_size}: {predicted_gb:.2f} against {result}{ratio}"
        )


def gpu() -> None:
    """On CUDA: planned against measured peak memory, and the parts of training; says so where there is no device."""
    if not torch.cuda.is_available():
        print("gpu: no CUDA device here, nothing measured")
        return
    device = torch.device("cuda")
    print(f"gpu: {device_name(device)}")
    print("  planned against measured memory of a training step, in GB of all tensors:")
    for preset in PRESETS:
        for memory_gb in (4, 8, 16, 24, 40, 70):
            planned_against_measured(preset, memory_gb, device)
    for part in (step, machine, epoch, inference):
        part()


PARTS = {
    "preprocessing": preprocessing,
    "step": step,
    "machine": machine,
    "epoch": epoch,
    "augmentation": augmentation,
    "inference": inference,
    "evaluation": evaluation,
    "gpu": gpu,
}


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("part", choices=(*PARTS, "all"))
    parser.add_argument("--pairs", type=int, default=3, help="masks to evaluate (default: 3)")
    args = parser.parse_args()
    parts = PARTS | {"evaluation": partial(evaluation, args.pairs)}
    keep_freed_pages()
    print(f"torch {torch.__version__}, {torch.get_num_threads()} threads, {device_name(pick_device('auto'))}")
    for name, function in parts.items():
        if args.part in (name, "all"):
            function()


if __name__ == "__main__":
    main()
