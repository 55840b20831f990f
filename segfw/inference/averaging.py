"""The mean of what several models found, on the image's own grid, made block by block from stored probabilities.

Models may have worked on different grids and in different axis orders: each one's logits are restored for a block, made
probabilities, and averaged there. Never more than a block of one size exists, whatever the image and the classes.
"""

# K classes, Z Y X space; "canonical" is the file's orientation-free axis order, before any network's own

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence

import numpy as np
import torch
from torch import Tensor

from segfw.base.records import UserError
from segfw.grid.preprocess import PreprocessRecord, place_back
from segfw.grid.restore import BlockResampler, first_largest, last_above_zero
from segfw.grid.slabs import Block
from segfw.images.geometry import Shape, largest_displacement_mm
from segfw.inference.probabilities import Probabilities

BLOCK_VALUES = 1 << 25  # stored values of one model in a block, about
PART = (8, 32, 32)  # voxels that are restored together: small parts have fewer classes


def merged(several: Sequence[Probabilities], weights: Sequence[float] | None = None) -> np.ndarray:
    """Classes (Z, Y, X) on the file's own grid by the weighted mean probability of several models of one image.

    Of one model they are what prediction writes. UserError if the models differ in labels or the files in their image.
    """
    return merged_each(several, [dict(enumerate(weights or (1.0,) * len(several)))])[0]


def merged_each(several: Sequence[Probabilities], mixtures: Sequence[Mapping[int, float]]) -> list[np.ndarray]:
    """As ``merged``, for several mixtures ({number of a model: weight}) of which each model is restored only once."""
    record, labels = several[0].info.record, several[0].info.labels
    painted = labels.painted_classes
    # Class of each winner; what is number ``outputs`` has no probability that is a number, or no region.
    table = np.array([*(painted or range(labels.outputs)), 0], dtype=np.uint8 if labels.classes <= 256 else np.uint16)
    results = [np.zeros(_canonical_shape(record), table.dtype) for _ in mixtures]
    for part, found, values in _parts(several):
        for mixture, result in zip(mixtures, results):
            if not values:
                result[part] = table[found[0]]
                continue
            mean = _mean(values, mixture)
            winner = last_above_zero(mean - 0.5) if painted else first_largest(mean)
            result[part] = table[np.append(found, labels.outputs)[winner.numpy()]]
    return [place_back(result.transpose(record.axis_order), record) for result in results]


def probability_of(name: str, several: Sequence[Probabilities], weights: Sequence[float] | None = None) -> np.ndarray:
    """Mean probability of one label or region, float32 (Z, Y, X) on the file's own grid; 0 outside the crop."""
    record = several[0].info.record
    index, mixture = class_index(name, several[0]), dict(enumerate(weights or (1.0,) * len(several)))
    result = np.zeros(_canonical_shape(record), np.float32)
    for part, found, values in _parts(several):
        if index in found:
            place = int(np.flatnonzero(found == index)[0])
            result[part] = _mean([one[place] for one in values], mixture).numpy() if values else 1
    return place_back(result.transpose(record.axis_order), record)


def class_index(name: str, of: Probabilities) -> int:
    """Which of the probabilities are of this label or region."""
    labels = of.info.labels
    names = [region.name for region in labels.regions] or list(labels.names)
    if name not in names:
        raise UserError(f"--map-of {name!r} is no label of {of.path}; choose from {', '.join(names)}")
    return names.index(name)


def _mean(values: Sequence[Tensor], mixture: Mapping[int, float]) -> Tensor:
    total = sum(mixture.values())
    return sum(values[index] * (weight / total) for index, weight in mixture.items())


def _canonical_shape(record: PreprocessRecord) -> Shape:
    return tuple(record.cropped_shape[axis] for axis in np.argsort(record.axis_order))


def _parts(several: Sequence[Probabilities]) -> Iterator[tuple[Block, np.ndarray, list[Tensor]]]:
    """Parts of the canonical crop, the classes that some model finds possible there, and each model's probabilities.

    No probabilities come where the one class found is certain; parts without any region are left out.
    """
    _check_same_image(several)
    labels, shape = several[0].info.labels, _canonical_shape(several[0].info.record)
    sources = [_Source(one) for one in several]
    rows = max(PART[1], BLOCK_VALUES // (labels.outputs * PART[0] * shape[2]))  # whole rows, as files hold them
    for block in _blocks(tuple(slice(0, size) for size in shape), (PART[0], rows, shape[2])):
        for source in sources:
            source.read(block)
        for part in _blocks(block, PART):
            found = torch.stack([source.is_near(part) for source in sources]).any(0).nonzero()[:, 0]
            is_certain = len(found) == 1 and not labels.regions
            if len(found):
                yield part, found.numpy(), [] if is_certain else [one.probabilities(part, found) for one in sources]


class _Source:
    """One model's stored values of a block of the canonical crop, restored part by part.

    Of many classes few are anywhere near: the others have the lowest logit throughout, so that their share of the
    softmax is known without restoring them.
    """

    def __init__(self, opened: Probabilities) -> None:
        record = opened.info.record
        self._opened, self._order = opened, record.axis_order
        self._resampler = BlockResampler.back(record)

    def read(self, block: Block) -> None:
        """Reads all that is needed for a block."""
        self._origin = self._resampler.source(self._own(block))
        self._stored = self._opened.stored(self._origin)

    def is_near(self, part: Block) -> Tensor:
        """Which classes or regions have more than the lowest probability somewhere in a part of the block, (K,)."""
        return (self._inside(self._own(part)) > self._opened.lowest_stored).flatten(1).any(1)

    def probabilities(self, part: Block, found: Tensor) -> Tensor:
        """Those of the classes or regions ``found``, on the image's grid in canonical order."""
        own, lowest = self._own(part), self._opened.lowest
        restored = self._resampler.resize(self._opened.logits_of(self._inside(own)[found]), own)
        restored = restored.permute(0, *(np.argsort(self._order) + 1).tolist())
        if self._opened.info.labels.regions:
            return restored.sigmoid()
        exponents = restored.exp()
        return exponents / (exponents.sum(0) + (len(self._stored) - len(found)) * np.exp(lowest))

    def _own(self, block: Block) -> Block:
        return tuple(block[axis] for axis in self._order)

    def _inside(self, own: Block) -> Tensor:
        places = zip(self._resampler.source(own), self._origin)
        return self._stored[(slice(None), *(slice(part.start - o.start, part.stop - o.start) for part, o in places))]


def check_same_kind(several: Sequence[Probabilities]) -> None:
    first = several[0]
    for other in several[1:]:
        if other.info.labels != first.info.labels:
            raise UserError(f"{other.path}: has other labels, or in another order, than {first.path}; leave it out")
        wanted, theirs = (one.info.record.orientation for one in (first, other))
        if theirs != wanted:  # blocks of both could be mirror images of each other
            raise UserError(
                f"{other.path}: is of a model that takes images {theirs}, but {first.path} of one that takes them "
                f"{wanted}; average models of one orientation only"
            )


def _check_same_image(several: Sequence[Probabilities]) -> None:
    check_same_kind(several)
    first, record = several[0], several[0].info.record
    for other in several[1:]:
        theirs = other.info.record
        same_grid = theirs.original.shape == record.original.shape and (
            largest_displacement_mm(theirs.original, record.original) < min(record.original.spacing_mm) / 100
        )
        if not same_grid or theirs.box != record.box:
            raise UserError(f"{other.path}: is of another image, or of another grid, than {first.path}; leave it out")


def _blocks(within: Block, size: Shape) -> Iterator[Block]:
    z, y, x = (
        [slice(start, min(start + step, part.stop)) for start in range(part.start, part.stop, step)]
        for part, step in zip(within, size)
    )
    yield from ((in_z, in_y, in_x) for in_z in z for in_y in y for in_x in x)
