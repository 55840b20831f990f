"""Batches of a refiner: as for all networks, then of each patch one structure with simulated clicks."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from functools import cached_property

import numpy as np
import torch
from torch import Tensor

from segfw.grid.store import CaseArrays
from segfw.training.batches import Batches, CutBatch, CutPatch
from segfw.training.refiner_samples import (
    RefinerRules,
    RefinerSample,
    after_a_look,
    channels_of,
    draw_refiner_sample,
    truth_with_weights,
)
from segfw.training.sampling import Sample, draw_sample, patch_around
from segfw.training.spoil_previous import PreviousParams

ERROR_SHARE = 0.5  # of patches lie around an error of the held-out mask, the others around a structure
MOST_ERRORS = 10_000  # voxels of a case that are kept to lie around
SEED = 1234  # of which of them are

# (B, C + 4, Z, Y, X) -> bool (B, Z, Y, X) where the network, as it is now, finds the structure
Answer = Callable[[Tensor], Tensor]


@dataclass(frozen=True, kw_only=True)
class RefinerBatches(Batches):
    """Batches whose image has, after its own channels, the given mask, all others, and clicks inside and outside."""

    rules: RefinerRules

    @cached_property
    def _errors(self) -> dict[int, np.ndarray]:
        """By case, as far as they were asked for: voxels where the held-out mask is wrong."""
        return {}

    def _draw_sample(self, rng: np.random.Generator, index: int) -> Sample:
        """A patch around a structure or, half of them, around an error of the mask that was found in its case."""
        sample = draw_sample(
            rng, self._shapes, self._foregrounds, self.patch_size, True, self._annotated, self._weights
        )
        is_around_error = rng.random() < ERROR_SHARE
        place = rng.random()
        if not is_around_error:
            return sample
        if sample.case not in self._errors:
            self._errors[sample.case] = error_voxels(self.cases[sample.case], self._classes_by_answer(sample.case))
        errors = self._errors[sample.case]
        if not len(errors):
            return sample
        voxel = int(errors[int(place * len(errors))])
        return Sample(case=sample.case, start=patch_around(voxel, self._shapes[sample.case], self.patch_size))

    def _classes_by_answer(self, case: int) -> np.ndarray:
        """For each class a number that is the same for classes in the same annotated structures; -1 of the ignored."""
        outputs = self.annotated_outputs[case] if self.annotated_outputs else ()
        annotated = self._structures_of(outputs)
        most = max(index for members in self.rules.structures for index in members)
        numbers = np.zeros(1 + max(most, self.rules.ignored or 0), np.int64)
        table = np.zeros((len(numbers), len(self.rules.structures)), bool)
        for structure, members in enumerate(self.rules.structures):
            table[list(members), structure] = not annotated or annotated[structure]
        numbers[:] = np.unique(table, axis=0, return_inverse=True)[1].reshape(-1)
        if self.rules.ignored is not None:
            numbers[self.rules.ignored] = -1
        return numbers

    def _structures_of(self, outputs: tuple[bool, ...]) -> tuple[bool, ...]:
        """Which structures are annotated; of labels the first output is the background."""
        return outputs[len(outputs) - len(self.rules.structures) :] if outputs else ()

    def _spoil(self, masks: list[Tensor], seed: int) -> PreviousParams | None:
        """Nothing yet: masks are spoilt structure by structure, when they are on their place."""
        return None

    def finish(self, batch: CutBatch, device: torch.device, answer: Answer | None = None) -> tuple[Tensor, Tensor]:
        """Image (B, C + 4, Z, Y, X) and truth (B, Z, Y, X) as ``refiner_loss`` reads it, on ``device``.

        ``answer`` gives the network's own answer to samples that are looked at twice; without it none is.
        """
        image, labels = self._on_device(batch, device)
        masks = _on_host(labels)
        rngs = [np.random.default_rng([patch.seed, 2]) for patch in batch.patches]
        samples = [self._sample(rng, patch, of_patch) for rng, patch, of_patch in zip(rngs, batch.patches, masks)]
        looking = [index for index, sample in enumerate(samples) if sample.later]
        if looking and answer is not None:
            seen = torch.cat((image[looking], self._channels([samples[index] for index in looking], device)), 1)
            answers = _on_host(answer(seen))
            for index, found in zip(looking, answers):
                samples[index] = after_a_look(rngs[index], samples[index], found)
        truths = [truth_with_weights(sample, self.rules.spacing_mm) for sample in samples]
        truth = torch.from_numpy(np.stack(truths)).to(device).long()
        return torch.cat((image, self._channels(samples, device)), 1), truth

    def _sample(self, rng: np.random.Generator, patch: CutPatch, masks_lzyx: np.ndarray) -> RefinerSample:
        classes, found = masks_lzyx
        return draw_refiner_sample(rng, classes, found, self._structures_of(patch.annotated), self.rules)

    def _channels(self, samples: list[RefinerSample], device: torch.device) -> Tensor:
        made = np.stack([channels_of(sample, self.rules.spacing_mm) for sample in samples])
        return torch.from_numpy(made).to(device)

    @staticmethod
    def annotated_in(batch: CutBatch) -> Tensor | None:
        """None: a structure that nobody drew is never asked for."""
        return None


def _on_host(values: Tensor) -> np.ndarray:
    """Masks that clicks are drawn on, for which a GPU is waited for."""
    return values.cpu().numpy()


def error_voxels(case: CaseArrays, number_of_class: np.ndarray) -> np.ndarray:
    """Flat indices of up to MOST_ERRORS voxels where drawn and found classes have other numbers, none of them -1."""
    drawn = _whole(case.classes)
    found = _whole(case.previous)
    wanted = number_of_class[drawn]
    errors = np.flatnonzero((wanted >= 0) & (wanted != number_of_class[found]))
    if len(errors) > MOST_ERRORS:
        errors = np.sort(np.random.default_rng(SEED).choice(errors, MOST_ERRORS, replace=False))
    return errors.astype(np.uint32)


def _whole(array: object) -> np.ndarray:
    """All of an array that is in memory, on disk or on a device."""
    values = array[:]  # type: ignore[index]
    return values.cpu().numpy() if isinstance(values, Tensor) else np.asarray(values)
