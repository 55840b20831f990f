"""The mean of what several models found, on the image's own grid, made block by block from stored probabilities.

Models may have worked on different grids and in different axis orders: each one's logits are restored for a block, made
probabilities, and averaged there. Never more than a block of one size exists, whatever the image and the classes.
"""

# K classes, Z Y X space; "canonical" is the file's orientation-free axis order, before any network's own

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass

import numpy as np
import torch
from torch import Tensor

from segfw.base.records import UserError
from segfw.grid.block_resampler import BlockResampler
from segfw.grid.boxes import Block, blocks, relative, whole_grid
from segfw.grid.preprocess import PreprocessRecord, place_back
from segfw.grid.winners import first_largest, last_above_zero
from segfw.images.geometry import Shape, as_shape, largest_displacement_mm
from segfw.inference.probabilities import Probabilities

BLOCK_VALUES = 1 << 25  # stored values of one model in a block, about
PART = (8, 32, 32)  # voxels that are restored together: small parts have fewer classes


@dataclass(frozen=True, kw_only=True)
class BlockSizes:
    """How much of the image is read, and restored, at a time."""

    block_values: int = BLOCK_VALUES
    part: Shape = PART


def merged(
    models: Sequence[Probabilities], weights: Sequence[float] | None = None, *, sizes: BlockSizes = BlockSizes()
) -> np.ndarray:
    """Classes (Z, Y, X) on the file's own grid by the weighted mean probability of several models of one image.

    Of one model they are what prediction writes. UserError if the models differ in labels or the files in their image.
    """
    return merged_each(models, [_mixture(models, weights)], sizes=sizes)[0]


def merged_each(
    models: Sequence[Probabilities], mixtures: Sequence[Mapping[int, float]], *, sizes: BlockSizes = BlockSizes()
) -> list[np.ndarray]:
    """As ``merged``, for several mixtures ({number of a model: weight}) of which each model is restored only once."""
    record = models[0].info.record
    labels = models[0].info.labels
    painted = labels.painted_classes
    # Class of each winner; what is number ``outputs`` has no probability that is a number, or no region.
    table = np.array([*(painted or range(labels.outputs)), 0], dtype=np.uint8 if labels.classes <= 256 else np.uint16)
    results = [np.zeros(_canonical_shape(record), table.dtype) for _ in mixtures]
    for part in _restored_parts(models, sizes):
        for mixture, result in zip(mixtures, results):
            if part.is_certain:
                result[part.place] = table[part.classes[0]]
                continue
            mean = _mean(part.probabilities, mixture)
            winner = last_above_zero(mean - 0.5) if painted else first_largest(mean)
            result[part.place] = table[np.append(part.classes, labels.outputs)[winner.numpy()]]
    return [place_back(result.transpose(record.axis_order), record) for result in results]


def probability_of(
    name: str,
    models: Sequence[Probabilities],
    weights: Sequence[float] | None = None,
    *,
    sizes: BlockSizes = BlockSizes(),
) -> np.ndarray:
    """Mean probability of one label or region, float32 (Z, Y, X) on the file's own grid; 0 outside the crop."""
    record = models[0].info.record
    index = class_index(name, models[0])
    mixture = _mixture(models, weights)
    result = np.zeros(_canonical_shape(record), np.float32)
    for part in _restored_parts(models, sizes):
        if index not in part.classes:
            continue
        if part.is_certain:
            result[part.place] = 1
            continue
        row = int(np.flatnonzero(part.classes == index)[0])
        result[part.place] = _mean([found[row] for found in part.probabilities], mixture).numpy()
    return place_back(result.transpose(record.axis_order), record)


def class_index(name: str, model: Probabilities) -> int:
    """Which of a model's probabilities are of this label or region; UserError if none is."""
    labels = model.info.labels
    names = [region.name for region in labels.regions] or list(labels.names)
    if name not in names:
        raise UserError(f"--map-of {name!r} is no label of {model.path}; choose from {', '.join(names)}")
    return names.index(name)


def _mixture(models: Sequence[Probabilities], weights: Sequence[float] | None) -> dict[int, float]:
    return dict(enumerate(weights or (1.0,) * len(models)))


def _mean(values: Sequence[Tensor], mixture: Mapping[int, float]) -> Tensor:
    total_weight = sum(mixture.values())
    terms = [values[index] * (weight / total_weight) for index, weight in mixture.items()]
    mean = terms[0]
    for term in terms[1:]:
        mean = mean + term
    return mean


def _canonical_shape(record: PreprocessRecord) -> Shape:
    return as_shape(record.cropped_shape[axis] for axis in np.argsort(record.axis_order))


@dataclass(frozen=True, kw_only=True)
class _RestoredPart:
    """A place of the canonical crop, the classes that some model finds possible there, and their probabilities.

    ``probabilities`` are of each model (K of ``classes``, z, y, x); there are none where one class is certain.
    """

    place: Block
    classes: np.ndarray
    probabilities: Sequence[Tensor]

    @property
    def is_certain(self) -> bool:
        return not self.probabilities


def _restored_parts(models: Sequence[Probabilities], sizes: BlockSizes) -> Iterator[_RestoredPart]:
    """All parts of the canonical crop, without those in which there is no region."""
    _check_same_image(models)
    labels = models[0].info.labels
    shape = _canonical_shape(models[0].info.record)
    stored = [_StoredModel(model) for model in models]
    rows = max(
        sizes.part[1], sizes.block_values // (labels.outputs * sizes.part[0] * shape[2])
    )  # whole, as in the files
    for block in blocks(whole_grid(shape), (sizes.part[0], rows, shape[2])):
        for model in stored:
            model.read(block)
        for place in blocks(block, sizes.part):
            found = torch.stack([model.is_near(place) for model in stored]).any(0).nonzero()[:, 0]
            if not len(found):
                continue
            is_certain = len(found) == 1 and not labels.regions
            probabilities = [] if is_certain else [model.probabilities(place, found) for model in stored]
            yield _RestoredPart(place=place, classes=found.numpy(), probabilities=probabilities)


class _StoredModel:
    """One model's stored values of a block of the canonical crop, restored part by part.

    Of many classes few are anywhere near: the others have the lowest logit throughout, so that their share of the
    softmax is known without restoring them.
    """

    def __init__(self, opened: Probabilities) -> None:
        record = opened.info.record
        self._opened = opened
        self._order = record.axis_order
        self._resampler = BlockResampler.back(record)

    def read(self, block: Block) -> None:
        """Reads all that is needed for a block."""
        self._origin = self._resampler.source(self._in_network_order(block))
        self._stored = self._opened.stored(self._origin)

    def is_near(self, part: Block) -> Tensor:
        """Which classes or regions have more than the lowest probability somewhere in a part of the block, (K,)."""
        values = self._values(self._in_network_order(part))
        return (values > self._opened.lowest_stored).flatten(1).any(1)

    def probabilities(self, part: Block, found: Tensor) -> Tensor:
        """Those of the classes or regions ``found``, on the image's grid in canonical order."""
        place = self._in_network_order(part)
        logits = self._opened.logits_of(self._values(place)[found])
        restored = self._resampler.resize(logits, place)
        restored = restored.permute(0, *(np.argsort(self._order) + 1).tolist())
        if self._opened.info.labels.regions:
            return restored.sigmoid()
        exponents = restored.exp()
        others = len(self._stored) - len(found)
        return exponents / (exponents.sum(0) + others * np.exp(self._opened.lowest))

    def _in_network_order(self, block: Block) -> Block:
        first, second, third = self._order
        return block[first], block[second], block[third]

    def _values(self, place: Block) -> Tensor:
        """Stored values (K, z, y, x) that a place of the file's grid is made from."""
        inside = relative(self._resampler.source(place), self._origin)
        return self._stored[(slice(None), *inside)]


def check_same_kind(models: Sequence[Probabilities]) -> None:
    """UserError if the models differ in labels or in how they take images."""
    first = models[0]
    wanted = first.info.record.orientation
    for other in models[1:]:
        if other.info.labels != first.info.labels:
            raise UserError(f"{other.path}: has other labels, or in another order, than {first.path}; leave it out")
        orientation = other.info.record.orientation
        if orientation != wanted:  # blocks of both could be mirror images of each other
            raise UserError(
                f"{other.path}: is of a model that takes images {orientation}, but {first.path} of one that takes them "
                f"{wanted}; average models of one orientation only"
            )


def _check_same_image(models: Sequence[Probabilities]) -> None:
    check_same_kind(models)
    first = models[0]
    record = first.info.record
    for other in models[1:]:
        other_record = other.info.record
        is_same_grid = other_record.original.shape == record.original.shape and (
            largest_displacement_mm(other_record.original, record.original) < min(record.original.spacing_mm) / 100
        )
        if not is_same_grid or other_record.box != record.box:
            raise UserError(f"{other.path}: is of another image, or of another grid, than {first.path}; leave it out")
