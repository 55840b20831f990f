"""Makes a small cascade with nnU-Net v2, predicts with it and keeps what each step gives. Runs in its environment.

    nnunet-venv/bin/python bench/in_nnunet/cascade.py RAW OUT --steps 150 --seconds 60

RAW is an nnU-Net raw folder whose images are few. Plans are made here, so that networks are small; preprocessing,
networks, tiles and export are nnU-Net's own. Each network learns a little, so that its logits are not ambiguous. Every
result is also computed in float64 by the same functions, which says how much of it is rounding: nnU-Net adds tiles up
and resizes logits in float16. ``python -m bench cascade`` calls it.
"""

from __future__ import annotations

import argparse
import json
import time
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
import torch
from nnunetv2.inference.export_prediction import convert_predicted_logits_to_segmentation_with_correct_shape as exported
from nnunetv2.inference.predict_from_raw_data import nnUNetPredictor
from nnunetv2.inference.sliding_window_prediction import compute_gaussian
from nnunetv2.preprocessing.preprocessors.default_preprocessor import DefaultPreprocessor
from nnunetv2.utilities.get_network_from_plans import get_network_from_plans
from nnunetv2.utilities.label_handling.label_handling import convert_labelmap_to_one_hot
from nnunetv2.utilities.plans_handling.plans_handler import PlansManager

LOW = "3d_lowres"
CASCADE = "3d_cascade_fullres"
PATCH = (16, 32, 32)
FEATURES = (8, 16, 32)
CHECKPOINT = "fold_0/checkpoint_final.pth"
EXACT = "_float64"  # ends the names of masks that float64 gave
RESAMPLER = "resample_data_or_seg_to_shape"


def plans_of(raw: Path, coarser: float) -> dict[str, Any]:
    """plans.json with the median spacing of the images, and ``coarser`` times as much in the plane for the first stage.

    The coarsest axis comes first, as in nnU-Net's plans.
    """
    reader = PlansManager({"image_reader_writer": "SimpleITKIO"}).image_reader_writer_class()
    images = [reader.read_images([str(path)]) for path in sorted((raw / "imagesTr").iterdir())]
    arrays = [array for array, _ in images]
    median_mm = np.median([properties["spacing"] for _, properties in images], 0)
    first = int(median_mm.argmax())
    forward = [first, *(axis for axis in range(3) if axis != first)]
    median_shape = [float(np.median([array.shape[axis + 1] for array in arrays])) for axis in forward]
    fine_mm = [float(median_mm[axis]) * 1.1 for axis in forward]
    coarse_mm = [fine_mm[0], *(mm * coarser for mm in fine_mm[1:])]
    is_ct = json.loads((raw / "dataset.json").read_text(encoding="utf-8"))["channel_names"]["0"] == "CT"
    normalization = "CTNormalization" if is_ct else "ZScoreNormalization"
    return {
        "dataset_name": "Dataset001_Compared",
        "plans_name": "nnUNetPlans",
        "original_median_spacing_after_transp": [float(median_mm[axis]) for axis in forward],
        "original_median_shape_after_transp": median_shape,
        "image_reader_writer": "SimpleITKIO",
        "transpose_forward": forward,
        "transpose_backward": np.argsort(forward).tolist(),
        "configurations": {
            "3d_fullres": _configuration(fine_mm, median_shape, normalization),
            LOW: _configuration(coarse_mm, median_shape, normalization) | {"next_stage": CASCADE},
            CASCADE: {"inherits_from": "3d_fullres", "previous_stage": LOW},
        },
        "experiment_planner_used": "ExperimentPlanner",
        "label_manager": "LabelManager",
        "foreground_intensity_properties_per_channel": {"0": _intensities(arrays)},
    }


def _intensities(arrays: Sequence[np.ndarray]) -> dict[str, float]:
    """Of all voxels that are not 0, under the names that plans have for them."""
    values = np.concatenate([array[array != 0] for array in arrays])
    low, high = np.percentile(values, (0.5, 99.5))
    return {
        "mean": float(values.mean()),
        "std": float(values.std()),
        "min": float(values.min()),
        "max": float(values.max()),
        "median": float(np.median(values)),
        "percentile_00_5": float(low),
        "percentile_99_5": float(high),
    }


def _configuration(spacing_mm: list[float], median_shape: list[float], normalization: str) -> dict[str, Any]:
    flat = max(spacing_mm) / min(spacing_mm) > 3
    return {
        "data_identifier": "made_up",
        "preprocessor_name": "DefaultPreprocessor",
        "batch_size": 2,
        "patch_size": [8 if flat else PATCH[0], *PATCH[1:]],
        "median_image_size_in_voxels": median_shape,
        "spacing": spacing_mm,
        "normalization_schemes": [normalization],
        "use_mask_for_norm": [False],
        "resampling_fn_data": RESAMPLER,
        "resampling_fn_seg": RESAMPLER,
        "resampling_fn_probabilities": RESAMPLER,
        "resampling_fn_data_kwargs": _resampling(order=3, is_seg=False),
        "resampling_fn_seg_kwargs": _resampling(order=1, is_seg=True),
        "resampling_fn_probabilities_kwargs": _resampling(order=1, is_seg=False),
        "architecture": {
            "network_class_name": "dynamic_network_architectures.architectures.unet.PlainConvUNet",
            "arch_kwargs": {
                "n_stages": 3,
                "features_per_stage": list(FEATURES),
                "conv_op": "torch.nn.modules.conv.Conv3d",
                "kernel_sizes": [[1 if flat else 3, 3, 3], [3, 3, 3], [3, 3, 3]],
                "strides": [[1, 1, 1], [1 if flat else 2, 2, 2], [2, 2, 2]],
                "n_conv_per_stage": [2, 2, 2],
                "n_conv_per_stage_decoder": [2, 2],
                "conv_bias": True,
                "norm_op": "torch.nn.modules.instancenorm.InstanceNorm3d",
                "norm_op_kwargs": {"eps": 1e-05, "affine": True},
                "dropout_op": None,
                "dropout_op_kwargs": None,
                "nonlin": "torch.nn.LeakyReLU",
                "nonlin_kwargs": {"inplace": True},
            },
            "_kw_requires_import": ["conv_op", "norm_op", "dropout_op", "nonlin"],
        },
        "batch_dice": False,
    }


def _resampling(*, order: int, is_seg: bool) -> dict[str, Any]:
    return {"is_seg": is_seg, "order": order, "order_z": 0, "force_separate_z": None}


class Stage:
    """One configuration of the plans, on data of one raw folder."""

    def __init__(self, raw: Path, plans: dict[str, Any], name: str) -> None:
        self.dataset = json.loads((raw / "dataset.json").read_text(encoding="utf-8"))
        self.manager = PlansManager(plans)
        self.name = name
        self.raw = raw
        self.configuration = self.manager.get_configuration(name)
        self.labels = self.manager.get_label_manager(self.dataset)

    def network(self) -> torch.nn.Module:
        inputs = 1 + (len(self.labels.foreground_labels) if self.name == CASCADE else 0)
        return get_network_from_plans(
            self.configuration.network_arch_class_name,
            self.configuration.network_arch_init_kwargs,
            self.configuration.network_arch_init_kwargs_req_import,
            inputs,
            self.labels.num_segmentation_heads,
            deep_supervision=False,
        )

    def prepared(self, image: Path, seg: Path | None) -> tuple[np.ndarray, np.ndarray, dict[str, Any]]:
        """Image, labels (1, Z, Y, X) on the network's grid, and nnU-Net's properties."""
        run = DefaultPreprocessor(verbose=False).run_case
        return run([str(image)], seg and str(seg), self.manager, self.configuration, self.dataset)

    def stacked(self, image: np.ndarray, seg: np.ndarray) -> torch.Tensor:
        """What the network sees: in the cascade with the previous stage's labels one-hot."""
        if self.name == CASCADE:
            image = np.vstack((image, convert_labelmap_to_one_hot(seg[0], self.labels.foreground_labels, image.dtype)))
        return torch.from_numpy(image).float()

    def train(self, folder: Path, steps: int, seconds: float) -> None:
        """Some steps on the expert's labels, which are also what the cascade is shown, and a checkpoint of them."""
        torch.manual_seed(0)
        rng = np.random.default_rng(0)
        network = self.network()
        optimizer = torch.optim.Adam(network.parameters(), 2e-3)
        cases = self.padded_cases()
        start = time.monotonic()
        for _ in range(steps):
            data, labels = cases[rng.integers(len(cases))]
            place = self.patch_with_foreground(labels, rng)
            shown = torch.from_numpy(data[(slice(None), *place)])[None]
            if shown.shape[1] > 1:  # noise, so that the image is needed too
                shown[:, 1:] *= torch.rand_like(shown[:, 1:]) > 0.5
            loss = self.loss(network(shown), torch.from_numpy(labels[place].astype(np.int64))[None])
            optimizer.zero_grad()
            loss.backward()
            optimizer.step()
            if time.monotonic() - start > seconds:
                break
        print(f"{self.name}: last loss {loss.item():.3f} after {time.monotonic() - start:.0f} s", flush=True)
        content = {
            "network_weights": network.state_dict(),
            "current_epoch": 1,
            "init_args": {"configuration": self.name, "fold": 0, "device": torch.device("cpu")},
            "trainer_name": "nnUNetTrainer",
            "inference_allowed_mirroring_axes": (0, 1, 2),
        }
        (folder / CHECKPOINT).parent.mkdir(parents=True, exist_ok=True)
        torch.save(content, folder / CHECKPOINT)

    def padded_cases(self) -> list[tuple[np.ndarray, np.ndarray]]:
        """What the network sees (C, Z, Y, X) and labels (Z, Y, X) of every case, at least as large as the patch."""
        patch = self.configuration.patch_size
        cases = []
        for image in sorted((self.raw / "imagesTr").iterdir()):
            seg = self.raw / "labelsTr" / image.name.replace("_0000", "")
            data, labels, _ = self.prepared(image, seg)
            pads = [(0, max(0, wanted - size)) for wanted, size in zip(patch, labels.shape[1:])]
            shown = np.pad(self.stacked(data, labels).numpy(), [(0, 0), *pads])
            cases.append((shown, np.pad(labels[0], pads).clip(0)))
        return cases

    def patch_with_foreground(self, labels: np.ndarray, rng: np.random.Generator) -> tuple[slice, ...]:
        """A patch around a voxel of a label, moved so that it lies inside."""
        patch = self.configuration.patch_size
        inside = np.argwhere(labels > 0)
        corner = inside[rng.integers(len(inside))] - np.array(patch) // 2
        place = []
        for start, available, wanted in zip(corner, labels.shape, patch):
            begin = int(np.clip(start, 0, available - wanted))
            place.append(slice(begin, begin + wanted))
        return tuple(place)

    def loss(self, logits: torch.Tensor, classes: torch.Tensor) -> torch.Tensor:
        """Entropy of logits (1, K, Z, Y, X) for labels (1, Z, Y, X), or of regions each by itself."""
        if not self.labels.has_regions:
            return torch.nn.functional.cross_entropy(logits, classes)
        regions = [np.isin(classes, region) for region in self.labels.foreground_regions]
        truth = torch.from_numpy(np.stack(regions, 1).astype(np.float32))
        return torch.nn.functional.binary_cross_entropy_with_logits(logits, truth)

    def predict(
        self, folder: Path, image: Path, kept: Path, previous: Path | None, exact_previous: Path | None
    ) -> None:
        """Keeps what nnU-Net computes of one image on its way, and what comes of it in float64.

        ``exact_mask`` is of the same previous stage's mask, ``exact_whole`` of that stage's own float64 mask.
        """
        predictor = nnUNetPredictor(use_mirroring=False, device=torch.device("cpu"), allow_tqdm=False)
        predictor.initialize_from_trained_model_folder(str(folder), (0,))
        data, seg, properties = self.prepared(image, previous)
        stacked = self.stacked(data, seg)
        logits = predictor.predict_logits_from_preprocessed_data(stacked)
        exact = _in_float64(predictor, stacked)
        exact_whole = exact
        if exact_previous is not None:
            exact_whole = _in_float64(predictor, self.stacked(data, self.prepared(image, exact_previous)[1]))
        rest = self.manager, self.configuration, self.labels, properties
        masks = [exported(found, *rest, num_threads_torch=1) for found in (logits, exact, exact_whole)]
        full_size = _resampled(self, logits, properties)
        exact_full_size = _resampled(self, exact, properties)
        np.savez(
            kept,
            image=data,
            previous=seg if previous else np.zeros(0),
            logits=logits.numpy(),
            exact_logits=exact.numpy(),
            mask=masks[0],
            exact_mask=masks[1],
            exact_whole=masks[2],
            exact_margin=_margin(exact_full_size, self.labels.has_regions),
            rounding=np.abs(full_size.astype(np.float64) - exact_full_size).max(0),
        )
        writer = self.manager.image_reader_writer_class()
        for mask, ending in ((masks[0], ""), (masks[1], EXACT)):
            writer.write_seg(mask, str(kept.with_name(f"{kept.stem}{ending}.nii.gz")), properties)


def _in_float64(predictor: nnUNetPredictor, stacked: torch.Tensor) -> torch.Tensor:
    """The logits by nnU-Net's own tiles, padding and weights, all in float64."""
    from acvl_utils.cropping_and_padding.padding import pad_nd_image

    patch = predictor.configuration_manager.patch_size
    data, undo = pad_nd_image(stacked.double(), patch, "constant", {"value": 0}, True, None)
    network = predictor.network.double().eval()
    weights = compute_gaussian(tuple(patch), 1.0 / 8, 10, dtype=torch.float64, device=torch.device("cpu"))
    total = 0
    counted = torch.zeros(data.shape[1:], dtype=torch.float64)
    with torch.inference_mode():
        for place in predictor._internal_get_sliding_window_slicers(data.shape[1:]):
            part = network(data[place][None])[0]
            if not isinstance(total, torch.Tensor):
                total = torch.zeros((len(part), *data.shape[1:]), dtype=torch.float64)
            total[place] += part * weights
            counted[place[1:]] += weights
    return (total / counted)[(slice(None), *undo[1:])].clone()


def _resampled(stage: Stage, logits: torch.Tensor, properties: dict[str, Any]) -> np.ndarray:
    """Logits on the image's grid after the crop, in their own precision."""
    spacing = [properties["spacing"][axis] for axis in stage.manager.transpose_forward]
    shape = properties["shape_after_cropping_and_before_resampling"]
    resample = stage.configuration.resampling_fn_probabilities
    return np.asarray(resample(logits, shape, stage.configuration.spacing, spacing))


def _margin(logits: np.ndarray, of_regions: bool) -> np.ndarray:
    """How far the class is from being another one: the largest logit over the second, or the region nearest to 0."""
    if of_regions:
        return np.abs(logits).min(0)
    ordered = np.partition(logits, -2, axis=0)
    return ordered[-1] - ordered[-2]


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("raw", type=Path)
    parser.add_argument("out", type=Path)
    parser.add_argument("--coarser", type=float, default=1.7, help="spacing of the first stage in the plane")
    parser.add_argument("--steps", type=int, default=200)
    parser.add_argument("--seconds", type=float, default=60, help="at most, of each training")
    args = parser.parse_args()
    torch.set_num_threads(1)
    plans = plans_of(args.raw, args.coarser)
    for name in (LOW, CASCADE):
        stage = Stage(args.raw, plans, name)
        folder = args.out / f"nnUNetTrainer__nnUNetPlans__{name}"
        folder.mkdir(parents=True, exist_ok=True)
        for file, content in (("plans.json", plans), ("dataset.json", stage.dataset)):
            (folder / file).write_text(json.dumps(content), encoding="utf-8")
        if not (folder / CHECKPOINT).exists():
            stage.train(folder, args.steps, args.seconds)
        (args.out / name).mkdir(exist_ok=True)
        for image in sorted((args.raw / "imagesTr").iterdir()):
            case = image.name.removesuffix("_0000.nii.gz")
            previous = [name == CASCADE and args.out / LOW / f"{case}{ending}.nii.gz" or None for ending in ("", EXACT)]
            stage.predict(folder, image, args.out / name / f"{case}.npz", *previous)


if __name__ == "__main__":
    main()
