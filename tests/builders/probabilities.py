"""Cases with logits made up on a network's grid, and their probabilities as files."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import torch
from scipy import ndimage
from torch import Tensor

from segfw.dataset.labels import LabelSet, Region
from segfw.grid.normalize import Normalization
from segfw.grid.preprocess import Preprocessing, PreprocessRecord, preprocess_image
from segfw.grid.slabs import Slab
from segfw.images.geometry import Geometry
from segfw.images.volume import CANONICAL, Orientation, Volume
from segfw.inference.probabilities import Probabilities, ProbabilityInfo, ProbabilityWriter, read_probabilities

LABELS = LabelSet(names=("background", "a", "b"), values=(0, 3, 7))
NESTED = LabelSet(
    names=("background", "edge", "core"),
    values=(0, 1, 2),
    regions=(Region(name="whole", values=(1, 2), painted=1), Region(name="core", values=(2,), painted=2)),
)
# The file's first axis runs along x, its second to the feet: neither the network's order nor its directions.
AFFINE = np.array([[0, 0, 1.0, 5], [0, 1.5, 0, -9], [-4.0, 0, 0, 2], [0, 0, 0, 1]])[:, [2, 0, 1, 3]]


def record_of(
    spacing_mm: tuple[float | None, float, float] = (3.0, 2.0, 1.5),
    order: tuple[int, int, int] = (0, 1, 2),
    orientation: Orientation = CANONICAL,
) -> PreprocessRecord:
    """Of an image with an empty margin, stored in an odd order, on a network's grid of this spacing."""
    array = np.zeros((1, 13, 8, 15), np.float32)
    array[:, 1:-1, :-1, 2:] = 1 + np.random.default_rng(0).random((11, 7, 13))
    volume = Volume(array=array, geometry=Geometry.of(array.shape[1:], AFFINE))
    rules = (Normalization(kind="none"),)
    how = Preprocessing(axis_order=order, spacing_mm=spacing_mm, normalization=rules, orientation=orientation)
    return preprocess_image(volume, how)[1]


# Three models of that image, each on a grid of its own.
GRIDS = {
    "3d_fullres": record_of((4.0, 2.0, 1.3)),
    "3d_lowres": record_of((8.0, 4.0, 3.0)),
    "2d": record_of((None, 1.5, 2.0), (1, 0, 2)),  # of another axis order
}


def smooth_logits(record: PreprocessRecord, outputs: int, seed: int = 0, scale: float = 25.0) -> Tensor:
    """Logits (K, Z, Y, X) that change from one class to another within a few voxels."""
    noise = np.random.default_rng(seed).normal(size=(outputs, *record.shape))
    return torch.from_numpy(ndimage.gaussian_filter(noise, (0, 1, 1.5, 1.5)) * scale).float()


def in_slabs(logits_kzyx: Tensor, thickness: int = 2) -> list[Slab]:
    """The stream that a network would give."""
    depth = logits_kzyx.shape[1]
    return [
        Slab(
            first=max(0, start - 1),
            start=start,
            stop=min(start + thickness, depth),
            channels_azyx=logits_kzyx[:, max(0, start - 1) : start + thickness],
        )
        for start in range(0, depth, thickness)
    ]


def store(path: Path, logits_kzyx: Tensor, record: PreprocessRecord, labels: LabelSet = LABELS, **info) -> Path:
    """Writes the probabilities of a case."""
    values = {"configuration": "3d_fullres", "folds": ("0",), "model": "a digest"} | info
    with ProbabilityWriter(path, ProbabilityInfo(labels=labels, record=record, **values)) as writer:
        for slab in in_slabs(logits_kzyx):
            writer.add(slab)
        writer.finish()
    return path


def stored(
    path: Path, logits_kzyx: Tensor, record: PreprocessRecord, labels: LabelSet = LABELS, **info
) -> Probabilities:
    return read_probabilities(store(path, logits_kzyx, record, labels, **info))
