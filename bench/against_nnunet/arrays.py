"""Compares what nnU-Net and segfw made of the same raw data: plans, and preprocessed arrays voxel by voxel."""

from __future__ import annotations

import json
import pickle
from pathlib import Path

import blosc2
import numpy as np

from segfw.grid.boxes import nonzero_box
from segfw.grid.preprocess import PreprocessRecord, canonical_shape_of
from segfw.grid.store import load_stored, open_case
from segfw.images.geometry import Geometry
from segfw.images.volume import Volume, to_canonical
from segfw.planning.plan import PLAN_FILE, Plan

TOLERANCE = 1e-3  # of the intensity range


def compare_plans(work: Path, plans: dict, names: list[str]) -> dict[str, dict]:
    """Patch, batch and spacing of both, per configuration, and whether they are the same."""
    plan = Plan.load(work / PLAN_FILE)
    result = {}
    for name in names:
        ours = plan.configuration(name)
        theirs = plans["configurations"][name]
        axes = len(theirs["patch_size"])  # two for 2d, where segfw has one slice
        in_segfw = {
            "patch": list(ours.patch_size)[-axes:],
            "batch": ours.batch_size,
            "spacing_mm": list(ours.preprocessing.spacing_mm)[-axes:],
        }
        in_nnunet = {
            "patch": list(theirs["patch_size"]),
            "batch": theirs["batch_size"],
            "spacing_mm": theirs["spacing"],
        }
        has_equal_sizes = all(in_segfw[field] == in_nnunet[field] for field in ("patch", "batch"))
        has_equal_spacing = np.allclose(in_segfw["spacing_mm"], in_nnunet["spacing_mm"], rtol=1e-6)
        is_equal = bool(has_equal_sizes and has_equal_spacing)
        result[name] = {"segfw": in_segfw, "nnunet": in_nnunet, "equal": is_equal}
    return result


def compare_cases(work: Path, preprocessed: Path, plans: dict, name: str) -> list[dict]:
    """Largest differences of each case's preprocessed image and mask, after bringing both to one orientation."""
    folder = preprocessed / plans["configurations"][name]["data_identifier"]
    ids = sorted(path.name.removesuffix("_seg.b2nd") for path in folder.glob("*_seg.b2nd"))
    return [_compare_case(work / "preprocessed" / name, folder, case, plans["transpose_forward"]) for case in ids]


def _compare_case(ours: Path, theirs: Path, case: str, transpose: list[int]) -> dict:
    stored = load_stored(ours, case)
    arrays = open_case(ours, case, in_memory=True)
    with (theirs / f"{case}.pkl").open("rb") as file:  # written by the run just before, on this machine
        properties = pickle.load(file)
    image, mask = (blosc2.open(str(theirs / f"{case}{part}.b2nd"), mode="r")[:] for part in ("", "_seg"))
    image = reoriented(image, stored.record, transpose)
    mask = reoriented(mask, stored.record, transpose)[0]
    result = {"case": case, "shape": list(arrays.image.shape[1:]), "stored_as": str(arrays.image.dtype)}
    result["same_box"] = _same_box(stored.record, properties["bbox_used_for_cropping"], transpose)
    if image.shape != arrays.image.shape:
        return result | {"shape_nnunet": list(image.shape[1:]), "agrees": False}
    result |= image_difference(image, arrays.image)
    result |= mask_difference(mask, np.asarray(stored.label_values)[arrays.classes])
    return result | {"agrees": bool(result["same_box"] and result["image_max"] <= TOLERANCE)}


def image_difference(reference: np.ndarray, other: np.ndarray) -> dict[str, float]:
    """Largest and 99.9 percentile of the absolute difference, as shares of the channel's intensity range."""
    largest = percentile = 0.0
    for first, second in zip(reference, other):
        span = max(float(np.ptp(first)), 1e-12)
        difference = np.abs(first - second.astype(np.float32)) / span
        largest = max(largest, float(difference.max()))
        percentile = max(percentile, float(np.percentile(difference, 99.9)))
    return {"image_max": largest, "image_p99_9": percentile}


def mask_difference(reference: np.ndarray, other: np.ndarray) -> dict[str, float]:
    """Voxels of another label, and their share of the foreground. nnU-Net's -1 (outside the body) is background."""
    reference = np.where(reference < 0, 0, reference)
    different = int((reference != other).sum())
    foreground = int((reference > 0).sum())
    return {"mask_voxels": different, "mask_share": different / max(foreground, 1)}


def reoriented(array: np.ndarray, record: PreprocessRecord, transpose: list[int]) -> np.ndarray:
    """Array (C, ...) in nnU-Net's axis order, orientation as stored, to segfw's: canonical, its own axis order."""
    as_stored = array.transpose(0, *(axis + 1 for axis in np.argsort(transpose)))
    grid = Geometry.of(as_stored.shape[1:], record.original.matrix)  # the directions count, not the spacing
    canonical = to_canonical(Volume(array=as_stored, geometry=grid)).array
    return canonical.transpose(0, *(axis + 1 for axis in record.axis_order))


def _same_box(record: PreprocessRecord, box: list, transpose: list[int]) -> bool:
    """Whether nnU-Net cropped to the same voxels, found by marking them in an empty volume."""
    marked = np.zeros(record.original.shape, np.uint8)
    slices = [slice(*(int(bound) for bound in box[place])) for place in np.argsort(transpose)]
    marked[tuple(slices)] = 1
    canonical = to_canonical(Volume(array=marked[None], geometry=record.original)).array
    return canonical.shape[1:] == tuple(canonical_shape_of(record.original)) and nonzero_box(canonical) == record.box


def load_plans(preprocessed: Path) -> dict:
    """nnU-Net's plans file."""
    return json.loads((preprocessed / "nnUNetPlans.json").read_text(encoding="utf-8"))
