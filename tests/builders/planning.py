"""Data sets as the planner sees them: a manifest and a fingerprint, without any file."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np

from segfw.dataset.cases import Case, Channel, DatasetManifest
from segfw.dataset.labels import LabelSet
from segfw.grid.normalize import IntensityStats
from segfw.networks.spec import NetworkSpec
from segfw.planning.case_measure import CaseMeasure
from segfw.planning.fingerprint import Fingerprint
from segfw.planning.memory import StepCost

# Written by nnU-Net 2.8.1's own planners. Hippocampus to Liver are shaped like well-known data sets; the others are
# drawn at random, with up to 60 labels and 4 channels and other budgets than the usual ones.
GOLDEN = json.loads((Path(__file__).parents[1] / "planning" / "golden_plans.json").read_text())
STATS = IntensityStats(mean=0, std=1, minimum=-4, maximum=4, median=0, percentile_00_5=-3, percentile_99_5=3)


def manifest(channels: tuple[str, ...] = ("MR",), classes: int = 3) -> DatasetManifest:
    """Of one case, with the labels l1, l2, ... of the values 1, 2, ..."""
    names = ("background", *(f"l{index}" for index in range(1, classes)))
    return DatasetManifest(
        name="made up",
        root=Path("/data"),
        layout="nnunet",
        channels=tuple(Channel(name=name) for name in channels),
        labels=LabelSet(names=names, values=tuple(range(classes))),
        cases=(Case(id="a", images=(Path("a"),), label=Path("b")),),
    )


def fingerprint(cases: list[tuple[tuple, tuple]], crop_ratio: float = 1, channels: int = 1) -> Fingerprint:
    """Of (spacing, shape after the crop) per case; the crop took the share 1 - crop_ratio off along z."""
    stats = [
        CaseMeasure(
            id=f"c{index}",
            shape=(round(shape[0] / crop_ratio), *map(int, shape[1:])),
            spacing_mm=tuple(map(float, spacing)),
            cropped_shape=tuple(map(int, shape)),
            label_voxels={"0": 1, "1": 1},
        )
        for index, (spacing, shape) in enumerate(cases)
    ]
    return Fingerprint(cases=tuple(stats), intensities=(STATS,) * channels)


def rough_cost(network: NetworkSpec) -> StepCost:
    """Five bytes for every output of a convolution, nearly what is counted, in no time."""
    patch = tuple(4 * factor for factor in network.downsampling)
    bytes_per_voxel = 5 * network.convolution_elements(patch) / np.prod(patch)
    return StepCost(fixed_bytes=2**28, bytes_per_voxel=bytes_per_voxel, flops_per_voxel=1)


def random_cases(rng: np.random.Generator) -> list[tuple[tuple, tuple]]:
    """One to six cases around a drawn spacing and size, from a thin slab of thick slices to a large isotropic one."""
    spacing = np.exp(rng.uniform(np.log(0.3), np.log(8), 3))
    size = np.exp(rng.uniform(np.log(2), np.log(500), 3))
    return [
        (spacing * rng.uniform(0.8, 1.25, 3), np.maximum(1, size * rng.uniform(0.7, 1.4, 3)).astype(int))
        for _ in range(rng.integers(1, 7))
    ]


def no_cost(network: NetworkSpec) -> StepCost:
    """Counting the memory of a step takes a hundred times longer than planning as published, which ignores it."""
    return StepCost(fixed_bytes=0, bytes_per_voxel=0, flops_per_voxel=0)
