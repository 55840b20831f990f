"""The mean of what several models found, on the image's own grid, made block by block from stored probabilities.

Models may have worked on different grids and in different axis orders: each one's logits are restored for a block, made
probabilities, and averaged there. Never more than a block of one size exists, whatever the image and the classes.
"""

# K classes, Z Y X space; "canonical" is the file's orientation-free axis order, before any network's own

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import torch
from torch import Tensor

from segfw.base.records import UserError
from segfw.dataset.labels import LabelSet
from segfw.grid.block_resampler import BlockResampler
from segfw.grid.boxes import Block, blocks, cut, relative, shape_of, whole_grid
from segfw.grid.expected_dice import ExpectedDice
from segfw.grid.preprocess import PreprocessRecord, place_back
from segfw.grid.winners import first_largest, last_above_zero
from segfw.images.geometry import Shape, as_shape, largest_displacement_mm
from segfw.images.volume import Volume, to_orientation
from segfw.inference.probabilities import Probabilities

BLOCK_VALUES = 1 << 25  # stored values of one model in a block, about
SMALLEST = 1e-7  # probability, and distance to 1, beyond which log-odds are alike
PART = (8, 32, 32)  # voxels that are restored together: small parts have fewer classes


@dataclass(frozen=True, kw_only=True)
class BlockSizes:
    """How much of the image is read, and restored, at a time."""

    block_values: int = BLOCK_VALUES
    part: Shape = PART


def merged(
    models: Sequence[Probabilities],
    weights: Sequence[float] | None = None,
    *,
    temperatures: Mapping[int, float] | None = None,
    scratch: Path | None = None,
    sizes: BlockSizes = BlockSizes(),
) -> np.ndarray:
    """Classes (Z, Y, X) on the file's own grid by the weighted mean probability of several models of one image.

    Of one model they are what prediction writes. Outputs that have ``temperatures`` get their mask of largest expected
    Dice, as by ``grid.restore.Restoring``. UserError if the models differ in labels or the files in their image.
    """
    mixture = _mixture(models, weights)
    if not temperatures:
        return merged_each(models, [mixture], sizes=sizes)[0]
    labels = models[0].info.labels
    expected_dice = ExpectedDice(temperatures, of_regions=bool(labels.regions), scratch=scratch)
    winners = _background(models[0])
    for part in mixed_parts(models, mixture, sizes=sizes):
        winners[part.place] = part.winners
        rows = [row for row, output in enumerate(part.outputs) if output in temperatures]
        if rows:
            expected_dice.add(part.place, part.outputs[rows].tolist(), part.log_odds(rows))
    expected_dice.correct(winners, nothing=labels.outputs)
    return _classes(winners, models[0])


def merged_each(
    models: Sequence[Probabilities], mixtures: Sequence[Mapping[int, float]], *, sizes: BlockSizes = BlockSizes()
) -> list[np.ndarray]:
    """As ``merged``, for several mixtures ({number of a model: weight}) of which each model is restored only once."""
    results = [_background(models[0]) for _ in mixtures]
    for part in _restored_parts(models, sizes):
        for mixture, winners in zip(mixtures, results):
            winners[part.place] = part.mixed(mixture).winners
    return [_classes(winners, models[0]) for winners in results]


def _background(model: Probabilities) -> np.ndarray:
    """Winners of the canonical crop where nothing is found."""
    labels = model.info.labels
    nothing = labels.outputs if labels.regions else 0
    dtype = np.uint8 if max(labels.classes, labels.outputs + 1) <= 256 else np.uint16
    return np.full(_canonical_shape(model.info.record), nothing, dtype)


def _classes(winners_zyx: np.ndarray, model: Probabilities) -> np.ndarray:
    """Classes on the file's own grid of the outputs that win in the canonical crop."""
    labels = model.info.labels
    record = model.info.record
    # What is number ``outputs`` has no probability that is a number, or no region.
    class_of = np.array([*(labels.painted_classes or range(labels.outputs)), 0])
    class_of = class_of.astype(np.uint8 if labels.classes <= 256 else np.uint16)
    return place_back(class_of[winners_zyx].transpose(record.axis_order), record)


@dataclass(frozen=True, kw_only=True)
class MixedPart:
    """A place of the canonical crop and what a mixture of models finds there.

    ``winners`` (z, y, x) are numbers of outputs, the count of all outputs where there is none. ``outputs`` (K,) are
    those that are possible there, ``probabilities`` theirs (K, z, y, x); there are none where the only one is certain.
    """

    place: Block
    winners: np.ndarray
    outputs: np.ndarray
    probabilities: Tensor | None

    def log_odds(self, rows: Sequence[int]) -> Tensor:
        """Log-odds (S, z, y, x) of some of ``outputs``."""
        if self.probabilities is None:
            return torch.full((len(rows), *shape_of(self.place)), torch.inf)
        return torch.logit(self.probabilities[list(rows)], eps=SMALLEST)


def mixed_parts(
    models: Sequence[Probabilities], mixture: Mapping[int, float], *, sizes: BlockSizes = BlockSizes()
) -> Iterator[MixedPart]:
    """All parts of the canonical crop, but those in which there is no region, by the mean of a mixture."""
    for part in _restored_parts(models, sizes):
        yield part.mixed(mixture)


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
    names = labels.output_names
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


def canonical_crop(values_zyx: np.ndarray, model: Probabilities) -> np.ndarray:
    """Values (Z, Y, X) on the file's own grid as they lie in the canonical crop, of which ``mixed_parts`` are parts."""
    record = model.info.record
    volume = Volume(array=values_zyx[None], geometry=record.original)
    return cut(to_orientation(volume, record.orientation).array[0], record.box)


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
    labels: LabelSet

    @property
    def is_certain(self) -> bool:
        return not self.probabilities

    def mixed(self, mixture: Mapping[int, float]) -> MixedPart:
        """What the weighted mean of some models finds."""
        if self.is_certain:
            winners = np.full(shape_of(self.place), self.classes[0])
            return MixedPart(place=self.place, winners=winners, outputs=self.classes, probabilities=None)
        mean = _mean(self.probabilities, mixture)
        winner = last_above_zero(mean - 0.5) if self.labels.regions else first_largest(mean)
        winners = np.append(self.classes, self.labels.outputs)[winner.numpy()]
        return MixedPart(place=self.place, winners=winners, outputs=self.classes, probabilities=mean)


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
            yield _RestoredPart(place=place, classes=found.numpy(), probabilities=probabilities, labels=labels)


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
