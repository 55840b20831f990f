"""Batches for the trainer: drawn and cut on the host, finished (warped, augmented) on the training device.

Every sample is made from (seed, stream, step, sample) alone: any batch, or any part of it, can be made again by itself.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field, replace
from functools import cached_property
from math import prod
from typing import Literal

import numpy as np
import torch
import torch.nn.functional as F
from torch import Tensor

from segfw.base.sending import sent
from segfw.grid.store import CaseArrays
from segfw.images.geometry import Shape, as_shape
from segfw.networks.previous_stage import one_hot_previous
from segfw.training.augment import Warp, augment_intensity, warp
from segfw.training.augment_params import IntensityParams, SpatialParams, draw_intensity, draw_spatial, source_size
from segfw.training.augment_reference import augment_as_published, published_source_size
from segfw.training.sampling import Sample, draw_sample, generator, is_forced_foreground
from segfw.training.spoil_previous import PreviousParams, augment_previous, draw_previous, drop_components

# Image (B, C, Z, Y, X), classes (B, Z, Y, X), the sample's generator -> both, augmented. B is 1.
Augment = Callable[[Tensor, Tensor, np.random.Generator], tuple[Tensor, Tensor]]
# Image (B, C, Z, Y, X), which of its voxels lie inside (B, Z, Y, X), the samples' seeds -> what the network is shown,
# and what is right (B, T, Z, Y, X).
Pose = Callable[[Tensor, Tensor, Sequence[int]], tuple[Tensor, Tensor]]

OUTSIDE = -1  # class of what lies outside of the image; becomes background when all is done, as in the recipe
MOST_CLASSES = 1 << 15
FAINT = 0.01  # of a standard deviation: below this a voxel may be nothing but the ringing of resampling


@dataclass(frozen=True, kw_only=True)
class CutPatch:
    """The box read for one sample and what is still to be done to it. Boxes that need no warp are mirrored already."""

    case: int  # index of the case it was cut from
    image_czyx: Tensor
    classes_zyx: Tensor  # int16; OUTSIDE beyond the image
    previous_zyx: Tensor | None  # int16: the previous stage's classes in a cascade
    spatial: SpatialParams
    intensity: IntensityParams | None
    seed: int  # for all that is drawn later: noise, the previous stage's mistakes, a function of the user's
    mistakes: PreviousParams | None = None  # to be made in the previous stage's classes
    annotated: tuple[bool, ...] = ()  # which outputs are; empty where all are in every case

    def tensors(self) -> Iterator[Tensor]:
        """Everything that is on a device."""
        yield self.image_czyx
        yield self.classes_zyx
        if self.previous_zyx is not None:
            yield self.previous_zyx

    def masks_lzyx(self) -> Tensor:
        """The classes and, in a cascade, those of the previous stage."""
        if self.previous_zyx is None:
            return self.classes_zyx[None]
        return torch.stack((self.classes_zyx, self.previous_zyx))


@dataclass(frozen=True, kw_only=True)
class CutBatch:
    """Samples of one step."""

    step: int
    patches: tuple[CutPatch, ...]

    def to(self, device: torch.device) -> CutBatch:
        """The same on ``device``; to CUDA through pinned memory and without waiting for the copies."""
        patches = [
            replace(
                patch,
                image_czyx=_moved(patch.image_czyx, device),
                classes_zyx=_moved(patch.classes_zyx, device),
                previous_zyx=None if patch.previous_zyx is None else _moved(patch.previous_zyx, device),
            )
            for patch in self.patches
        ]
        return replace(self, patches=tuple(patches))


def _moved(tensor: Tensor, device: torch.device) -> Tensor:
    return tensor if tensor.is_cuda else sent(tensor, device)


@dataclass(frozen=True, kw_only=True)
class Batches:
    """Makes batches from preprocessed cases. The same (seed, stream, step, sample) always gives the same sample.

    ``swapped`` says which classes change places when an axis is mirrored. ``zero_outside`` lists the channels that
    were normalised inside a mask, and are 0 outside of it after augmentation too. ``augment`` takes the place of the
    augmentation on the device; in a cascade its image has the channels of the previous stage, whose labels have
    ``previous_classes`` with the background. ``pose`` makes what the network learns of the augmented image where that
    is not the mask. ``warp`` is how drawn transforms are applied. ``weights`` say how often
    each case is drawn in relation to the others; empty: all alike.

    ``annotated_outputs`` says of each case which outputs of the network are annotated; empty where all are in every
    case. ``output_orders`` says which outputs change places when an axis is mirrored.
    """

    cases: Sequence[CaseArrays]
    patch_size: Shape
    batch_size: int
    seed: int
    stream: int
    augmentation: Literal["device", "reference", "spatial", "none"]
    mirror_axes: tuple[int, ...]
    foreground_share: float
    elastic: bool = False
    swapped: Mapping[int, tuple[tuple[int, int], ...]] = field(default_factory=dict)
    zero_outside: tuple[int, ...] = ()
    augment: Augment | None = None
    previous_classes: int = 1
    warp: Warp = warp
    weights: Sequence[float] = ()
    annotated_outputs: Sequence[tuple[bool, ...]] = ()
    output_orders: Mapping[int, tuple[int, ...]] = field(default_factory=dict)
    pose: Pose | None = None

    @cached_property
    def _shapes(self) -> list[Shape]:
        return [tuple(case.classes.shape) for case in self.cases]

    @cached_property
    def _foregrounds(self) -> list[dict[int, np.ndarray]]:
        return [case.foreground for case in self.cases]

    @cached_property
    def _annotated(self) -> list[np.ndarray | None]:
        return [case.annotated for case in self.cases]

    @cached_property
    def _weights(self) -> Sequence[float]:
        """How often each case is drawn, so that batches mix cases of which different structures are annotated.

        A source, all cases with the same ones, is drawn as often as the root of its number of cases says; then a case
        of it.
        """
        cases_of = Counter(self.annotated_outputs)
        if len(cases_of) < 2:
            return self.weights
        given = self.weights or [1.0] * len(self.cases)
        return [weight / cases_of[annotated] ** 0.5 for weight, annotated in zip(given, self.annotated_outputs)]

    def cut(self, step: int, samples: range | None = None) -> CutBatch:
        """Draws and reads the samples of one step, or those of the given indices in the whole batch."""
        indices = range(self.batch_size) if samples is None else samples
        return CutBatch(step=step, patches=tuple(self._cut_patch(step, index) for index in indices))

    def _cut_patch(self, step: int, index: int) -> CutPatch:
        rng = generator(self.seed, self.stream, step, index)
        sample = self._draw_sample(rng, index)
        case = self.cases[sample.case]
        is_as_published = self.augment is None and self.augmentation == "reference"

        # What is done to it
        spatial = SpatialParams()
        intensity = None
        if self.augment is None and self.augmentation in ("device", "spatial"):
            spatial = draw_spatial(rng, self.patch_size, self.mirror_axes, self.elastic)
            if self.augmentation == "device":
                intensity = draw_intensity(rng, case.image.shape[0])
        elif is_as_published:
            flips = rng.random(3) < 0.5
            spatial = SpatialParams(mirrored=tuple(axis for axis in self.mirror_axes if flips[axis]))
        seed = int(rng.integers(2**62))

        # The box around the patch
        size = published_source_size(self.patch_size) if is_as_published else source_size(self.patch_size, spatial)
        margins = [(read - wanted) // 2 for read, wanted in zip(size, self.patch_size)]
        start = as_shape(first - margin for first, margin in zip(sample.start, margins))
        image, *masks = self._read(case, start, size, spatial)

        # What is done here already, by threads that the step does not wait for
        if is_as_published:
            image, masks = augment_as_published(image, masks, self.patch_size, seed)
        mistakes = self._spoil(masks, seed)
        return CutPatch(
            case=sample.case,
            image_czyx=image,
            classes_zyx=masks[0],
            previous_zyx=masks[1] if len(masks) > 1 else None,
            spatial=spatial,
            intensity=intensity,
            seed=seed,
            mistakes=mistakes,
            annotated=self._annotated_when_mirrored(sample.case, spatial),
        )

    def _draw_sample(self, rng: np.random.Generator, index: int) -> Sample:
        """Which case, and where its patch lies."""
        forced = is_forced_foreground(index, self.batch_size, self.foreground_share)
        return draw_sample(
            rng, self._shapes, self._foregrounds, self.patch_size, forced, self._annotated, self._weights
        )

    def _spoil(self, masks: list[Tensor], seed: int) -> PreviousParams | None:
        """What is still to be spoilt of the previous stage's classes, whose lost components are gone already."""
        if len(masks) < 2 or (self.augmentation == "none" and self.augment is None):
            return None
        mistakes = draw_previous(np.random.default_rng([seed, 1]), self.previous_classes)
        masks[1] = torch.from_numpy(drop_components(masks[1].numpy(), mistakes, prod(self.patch_size)))
        return mistakes

    def _annotated_when_mirrored(self, case: int, spatial: SpatialParams) -> tuple[bool, ...]:
        """Where left and right change places, what was drawn on the left is what is annotated on the right."""
        if not self.annotated_outputs:
            return ()
        annotated = self.annotated_outputs[case]
        for axis in spatial.mirrored:
            order = self.output_orders.get(axis, range(len(annotated)))
            annotated = tuple(annotated[output] for output in order)
        return annotated

    @staticmethod
    def annotated_in(batch: CutBatch) -> Tensor | None:
        """Bool (B, K) on the CPU: which outputs are annotated in each sample; None where all are in every case."""
        rows = [patch.annotated for patch in batch.patches]
        return torch.tensor(rows, dtype=torch.bool) if any(rows) else None

    def _read(self, case: CaseArrays, start: Shape, size: Shape, spatial: SpatialParams) -> list[Tensor]:
        """Image, classes and, in a cascade, the previous stage's classes in a box; mirrored if that is all to do."""
        image = cut_padded(case.image, start, size)
        masks = [cut_padded(case.classes, start, size, OUTSIDE)]
        if case.previous is not None:
            masks.append(cut_padded(case.previous, start, size, OUTSIDE))
        pairs: list[tuple[int, int]] = []
        for axis in spatial.mirrored:
            pairs.extend(self.swapped.get(axis, ()))
        if pairs:
            masks = [swap_classes(mask, pairs) for mask in masks]
        if self.zero_outside:
            is_outside = is_blank(image[list(self.zero_outside)]) & (masks[0] == 0)
            masks[0] = masks[0].masked_fill(is_outside, OUTSIDE)
        boxes = [image, *masks]
        if spatial.mirrored and not spatial.is_warped:
            boxes = [box.flip([axis - 3 for axis in spatial.mirrored]) for box in boxes]
        return boxes

    def _on_device(self, batch: CutBatch, device: torch.device) -> tuple[Tensor, Tensor]:
        """Image (B, C, Z, Y, X) float32 and masks (B, L, Z, Y, X) int16 on ``device``, augmented."""
        patches = batch.to(device).patches
        image, labels = self._assembled(patches)
        seeds = [patch.seed for patch in patches]
        intensities = [patch.intensity for patch in patches if patch.intensity is not None]  # of all, or of none
        if intensities:
            image = augment_intensity(image, intensities, self.patch_size, seeds)
        if self.augmentation != "none":
            for channel in self.zero_outside:
                image[:, channel].masked_fill_(labels[:, 0] < 0, 0)
        return image, labels

    def finish(
        self, batch: CutBatch, device: torch.device, answer: Callable[[Tensor], Tensor] | None = None
    ) -> tuple[Tensor, Tensor]:
        """Image (B, C, Z, Y, X) float32 and classes (B, Z, Y, X) int64 on ``device``, augmented; or what is posed.

        ``answer`` is asked by refiners alone.
        """
        image, labels = self._on_device(batch, device)
        if self.pose is not None:
            return self.pose(image, labels[:, 0] >= 0, [patch.seed for patch in batch.patches])
        classes = labels[:, 0].clamp_min(0).long()
        if labels.shape[1] > 1:
            previous = labels[:, 1].clamp_min(0)
            mistakes = [patch.mistakes for patch in batch.patches if patch.mistakes is not None]  # in all, or none
            if mistakes:
                previous = augment_previous(previous, mistakes)
            image = torch.cat((image, one_hot_previous(previous, self.previous_classes)), 1)
        if self.augment is None:
            return image, classes
        return self._augmented_by_user(self.augment, image, classes, [patch.seed for patch in batch.patches])

    def _augmented_by_user(
        self, augment: Augment, image: Tensor, classes: Tensor, seeds: Sequence[int]
    ) -> tuple[Tensor, Tensor]:
        images = []
        truths = []
        for sample, seed in enumerate(seeds):
            part = slice(sample, sample + 1)
            made, truth = augment(image[part], classes[part], np.random.default_rng(seed))
            images.append(made)
            truths.append(truth)
        return torch.cat(images), torch.cat(truths).long()

    def _assembled(self, patches: Sequence[CutPatch]) -> tuple[Tensor, Tensor]:
        """Image (B, C, Z, Y, X) float32 and masks (B, L, Z, Y, X) int16 of the patch size: classes, then previous."""
        boxes = [(patch.image_czyx, patch.masks_lzyx()) for patch in patches]
        warped = [index for index, patch in enumerate(patches) if patch.spatial.is_warped]
        if warped:
            params = [patches[index].spatial for index in warped]
            images, labels = self.warp([boxes[index] for index in warped], params, self.patch_size)
            for number, index in enumerate(warped):
                boxes[index] = (images[number], labels[number])
        return torch.stack([image.float() for image, _ in boxes]), torch.stack([labels for _, labels in boxes])


def is_blank(image_czyx: Tensor) -> Tensor:
    """(Z, Y, X) True where all channels are FAINT, next to the voxel too: where one is by chance, others are not.

    For channels that are 0 outside of their mask. The mask itself is not stored.
    """
    is_seen = (image_czyx.abs() > FAINT).any(0)
    return F.max_pool3d(is_seen[None, None].float(), 3, stride=1, padding=1)[0, 0] == 0


def swap_classes(classes: Tensor, pairs: Sequence[tuple[int, int]]) -> Tensor:
    """int16 classes with those of each pair in each other's place; a pair that is given twice stays where it is."""
    table = torch.arange(MOST_CLASSES, dtype=torch.int16)
    table[OUTSIDE] = OUTSIDE
    for one, other in pairs:
        table[[one, other]] = table[[other, one]]
    return table.to(classes.device)[classes.int()]


def cut_padded(array: np.ndarray | Tensor, start: Shape, size: Shape, outside: int | None = None) -> Tensor:
    """Copy of a box of the last three axes, which may hang over the array's border.

    What lies beyond is 0 or, in a mask, which becomes int16, ``outside``.
    """
    shape = array.shape[-3:]
    inside = []
    for first, length, edge in zip(start, size, shape):
        low = min(max(0, first), edge)
        high = max(low, min(edge, first + length))
        inside.append(slice(low, high))
    leading = [slice(None)] * (len(array.shape) - 3)
    part = array[(*leading, *inside)]
    if outside is not None:
        part = part.to(torch.int16) if isinstance(part, Tensor) else part.astype(np.int16)
    result = part if isinstance(part, Tensor) else torch.from_numpy(part)
    if result.shape[-3:] == tuple(size):
        return result.clone(memory_format=torch.contiguous_format)
    margins = []
    for axis in (2, 1, 0):
        before = min(max(0, -start[axis]), size[axis])
        margins += [before, size[axis] - before - result.shape[axis - 3]]
    return F.pad(result, margins, value=outside or 0)
