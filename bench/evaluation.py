"""Seconds per case of an evaluation of large masks with many labels, each part by itself, on one core.

python -m bench evaluation --pairs 50
"""

from __future__ import annotations

import argparse
import tempfile
import time
from collections.abc import Callable, Sequence
from pathlib import Path

import numpy as np
from scipy import ndimage

from segfw.base.device import keep_freed_pages
from segfw.dataset.labels import LabelSet
from segfw.evaluation.confusion import confusion, label_counts
from segfw.evaluation.masks import read_pair
from segfw.evaluation.metrics import Measures
from segfw.evaluation.score import score_masks
from segfw.evaluation.surface import surface_scores
from segfw.images.formats import write_labels
from segfw.images.geometry import Geometry, Shape, Spacing

SHAPE: Shape = (300, 512, 512)
SPACING_MM: Spacing = (1.5, 0.8, 0.8)
TOLERANCE_MM = 1.0


def main(arguments: Sequence[str] | None = None) -> None:
    parser = argparse.ArgumentParser(
        prog="python -m bench evaluation", description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--pairs", type=int, default=3, help="masks to evaluate (default: 3)")
    keep_freed_pages()
    evaluation(parser.parse_args(arguments).pairs)


def organ_masks(shape: Shape, labels: int, seed: int, largest: float = 0.1) -> tuple[np.ndarray, np.ndarray]:
    """Reference and prediction (uint8, Z Y X): ``labels`` - 1 ellipsoids, moved a little in the second.

    Half axes are up to ``largest`` of the volume.
    """
    rng = np.random.default_rng(seed)
    centres = rng.uniform(0.05, 0.95, (labels - 1, 3))
    half_axes = rng.uniform(0.02, largest, (labels - 1, 3))
    masks = []
    for wrong in (0.0, 1.0):
        mask = np.zeros(shape, np.uint8)
        for label, (centre, half) in enumerate(zip(centres, half_axes), start=1):
            middle = np.multiply(centre + wrong * rng.normal(0, 0.003, 3), shape)
            reach = np.multiply(half, shape) * (1 + wrong * rng.normal(0, 0.04, 3))
            _paint_ellipsoid(mask, label, middle, reach)
        masks.append(mask)
    return masks[0], masks[1]


def _paint_ellipsoid(mask: np.ndarray, label: int, middle: np.ndarray, reach: np.ndarray) -> None:
    """Voxels nearer to ``middle`` than ``reach`` (both in voxels along each axis) become ``label``."""
    box = tuple(slice(max(0, int(m - r)), min(n, int(m + r) + 1)) for m, r, n in zip(middle, reach, mask.shape))
    axes = np.ogrid[box]
    distance = sum(((axis - m) / r) ** 2 for axis, m, r in zip(axes, middle, reach))
    mask[box][distance < 1] = label


class SecondsByPart:
    """Seconds of each part, one value a call."""

    def __init__(self) -> None:
        self.seconds: dict[str, list[float]] = {}

    def timed(self, part: str, function: Callable, *arguments: object) -> object:
        """What the function returns."""
        start = time.perf_counter()
        result = function(*arguments)
        self.seconds.setdefault(part, []).append(time.perf_counter() - start)
        return result


def evaluation(pairs: int = 3, labels: int = 105, shape: Shape = SHAPE) -> None:
    """Reading, voxel scores and surface scores of pairs of masks, and of the first pair a plain way to do the same."""
    names = LabelSet(names=tuple(f"label_{index}" for index in range(labels)), values=tuple(range(labels)))
    structures = tuple(names.structures.values())
    watch = SecondsByPart()
    for pair in range(pairs):
        with tempfile.TemporaryDirectory() as folder:
            files = _written_pair(Path(folder), organ_masks(shape, labels, pair))
            reference, prediction, _ = watch.timed("read and decode both files", read_pair, *files, names, ())
        masks = (reference, prediction)
        geometry = _geometry(shape)
        watch.timed("voxel scores", score_masks, *masks, names, geometry, Measures(surface=False))
        watch.timed("HD95, ASSD, NSD", surface_scores, *masks, structures, SPACING_MM, TOLERANCE_MM)
        if pair == 0:
            counts = watch.timed("voxel counts label by label (plain)", _plain_counts, *masks, labels)
            joint = confusion(*masks, labels)
            assert counts == [tuple(label_counts(joint, label)) for label in range(1, labels)]
            watch.timed("HD95, ASSD, NSD by distance maps in the label's box (plain)", _plain_surfaces, *masks)
    print(f"evaluation of {pairs} pairs of {'x'.join(map(str, shape))} with {labels} labels, one core:")
    for part, seconds in watch.seconds.items():
        print(f"  {part}: median {np.median(seconds):.2f} s, slowest {max(seconds):.2f} s a case")


def _geometry(shape: Shape) -> Geometry:
    affine = np.zeros((4, 4))
    affine[[2, 1, 0, 3], [0, 1, 2, 3]] = (*SPACING_MM, 1)
    return Geometry.of(shape, affine)


def _written_pair(folder: Path, masks: tuple[np.ndarray, np.ndarray]) -> list[Path]:
    files = [folder / "reference.nii.gz", folder / "prediction.nii.gz"]
    for path, mask in zip(files, masks):
        write_labels(path, mask, _geometry(mask.shape))
    return files


def _plain_counts(reference: np.ndarray, prediction: np.ndarray, labels: int) -> list[tuple[int, int, int]]:
    counts = []
    for label in range(1, labels):
        in_reference = reference == label
        in_prediction = prediction == label
        both = int((in_reference & in_prediction).sum())
        counts.append((both, int(in_prediction.sum()) - both, int(in_reference.sum()) - both))
    return counts


def _plain_surfaces(reference: np.ndarray, prediction: np.ndarray) -> None:
    """What most packages do: erosion and a distance map of each surface, here at least cut to the label."""
    for label, boxes in enumerate(zip(ndimage.find_objects(reference), ndimage.find_objects(prediction)), start=1):
        if None in boxes:
            continue
        box = tuple(slice(max(0, min(a.start, b.start) - 1), max(a.stop, b.stop) + 1) for a, b in zip(*boxes))
        surfaces = []
        for mask in (reference[box] == label, prediction[box] == label):
            surfaces.append(mask & ~ndimage.binary_erosion(mask))
        for surface, other in (surfaces, surfaces[::-1]):
            distances = ndimage.distance_transform_edt(~other, sampling=SPACING_MM)[surface]
            np.percentile(distances, 95), distances.mean(), (distances <= TOLERANCE_MM).mean()
