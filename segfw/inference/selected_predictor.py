"""What segfw select chose: one configuration or several that are averaged, and postprocessing, as one predictor."""

from __future__ import annotations

import tempfile
from collections.abc import Iterator, Sequence
from contextlib import ExitStack
from dataclasses import dataclass, replace
from pathlib import Path

import numpy as np
import torch
from torch import Tensor

from segfw.base.files import partial_path
from segfw.base.stopwatch import Stopwatch
from segfw.dataset.labels import LabelSet
from segfw.grid.preprocess import PreprocessRecord
from segfw.grid.slabs import Slab
from segfw.images.volume import Volume
from segfw.inference.averaging import merged
from segfw.inference.predict_protocol import SlabSink
from segfw.inference.predictor import Predictor, Prepared
from segfw.inference.probabilities import ENDING, ProbabilityInfo, ProbabilityWriter, read_probabilities
from segfw.model.postprocess import Postprocessing, apply
from segfw.planning.plan import Plan


@dataclass(frozen=True, kw_only=True)
class PreparedForEach:
    """An image on the grid of every member's network."""

    members: tuple[Prepared, ...]

    @property
    def record(self) -> PreprocessRecord:
        return self.members[0].record

    @property
    def image(self) -> Tensor:
        return self.members[0].image

    def with_image(self, image_czyx: Tensor) -> PreparedForEach:
        """The same with other intensities for the first member's network."""
        return replace(self, members=(self.members[0].with_image(image_czyx), *self.members[1:]))


@dataclass(frozen=True, kw_only=True)
class SelectedPredictor:
    """Predicts as ``Predictor`` does, with all ``members``, whose mean probability counts, and postprocessing."""

    members: tuple[Predictor, ...]
    postprocessing: Postprocessing = Postprocessing()
    scratch: Path | None = None  # folder for what is averaged, on the disk that is watched; None: the system's own
    only: tuple[str, ...] = ()  # structures whose voxels alone are kept; empty: all
    written: LabelSet | None = None  # what the masks' values mean, class by class; None: as in the training files

    def with_room(self, room_bytes: float) -> SelectedPredictor:
        """The same with other room in the host's memory."""
        return replace(self, members=tuple(member.with_room(room_bytes) for member in self.members))

    @property
    def plan(self) -> Plan:
        return self.members[0].plan

    @property
    def device(self) -> torch.device:
        return self.members[0].device

    @property
    def _temperatures(self) -> dict[int, float]:
        return self.postprocessing.temperatures(self.plan.labels)

    def prepare(self, volume: Volume) -> PreparedForEach:
        """The image on the network's grid of each member; raises UserError if its channels are not the model's."""
        return PreparedForEach(members=tuple(member.prepare(volume) for member in self.members))

    def classes(
        self,
        prepared: PreparedForEach,
        sinks: Sequence[SlabSink] = (),
        *,
        by_member: bool = False,
        watch: Stopwatch | None = None,
    ) -> np.ndarray:
        """Class indices (Z, Y, X) on the original file's grid; ``sinks`` see the slabs of one member after another."""
        watch = watch or Stopwatch()
        # A mean is made of all classes, and the others are taken out of the finished mask.
        alone = self._restored_alone if len(self.members) == 1 else ()
        if len(self.members) == 1:
            found = self.members[0].classes(
                prepared.members[0],
                sinks,
                by_member=by_member,
                watch=watch,
                only=alone,
                temperatures=self._temperatures,
            )
        else:
            found = self._averaged(prepared, sinks, watch)
        with watch.timing("restore_s"):
            found = apply(found, self.postprocessing)
            return found if alone or not self.only else self._without_others(found)

    def slabs(self, prepared: PreparedForEach, by_member: bool = False) -> Iterator[Slab]:
        """Logits of the first member, slab by slab."""
        return self.members[0].slabs(prepared.members[0], by_member)

    @property
    def _kept_classes(self) -> tuple[int, ...]:
        """The classes that the wanted structures consist of."""
        kept: set[int] = set()
        for name in self.only:
            kept.update(self.plan.labels.structures[name])
        return tuple(sorted(kept))

    @property
    def _restored_alone(self) -> tuple[int, ...]:
        """The wanted classes, if one member need not know the others: no step or decision is about both; else empty."""
        kept = set(self._kept_classes)
        is_about_both = any(kept & set(step.classes) and set(step.classes) - kept for step in self.postprocessing.steps)
        if self.plan.labels.regions or self._temperatures or is_about_both:
            return ()
        return self._kept_classes

    def _without_others(self, classes_zyx: np.ndarray) -> np.ndarray:
        kept = np.zeros(self.plan.labels.classes, classes_zyx.dtype)
        kept[list(self._kept_classes)] = self._kept_classes
        return kept[classes_zyx]

    def finish(self, classes_zyx: np.ndarray) -> np.ndarray:
        """Label values as in the training files, or as ``written`` says, of class indices."""
        return (self.written or self.plan.labels).to_values(classes_zyx)

    def _averaged(self, prepared: PreparedForEach, sinks: Sequence[SlabSink], watch: Stopwatch) -> np.ndarray:
        # By way of the disk, where only a block of each is read at a time: in memory they would be as large as all
        # classes on the network's grid.
        with ExitStack() as left:
            folder = self.scratch or Path(left.enter_context(tempfile.TemporaryDirectory(prefix="segfw-")))
            # As unfinished files, so that those of a killed process are found and removed.
            paths = [partial_path(folder / f"member_{index}{ENDING}") for index in range(len(self.members))]
            for path in paths:
                left.callback(path.unlink, missing_ok=True)
            for member, member_prepared, path in zip(self.members, prepared.members, paths):
                self._store(member, member_prepared, path, sinks, watch)
            with watch.timing("restore_s"):
                opened = [read_probabilities(path) for path in paths]
                return merged(opened, temperatures=self._temperatures, scratch=self.scratch)

    def _store(
        self, member: Predictor, prepared: Prepared, path: Path, sinks: Sequence[SlabSink], watch: Stopwatch
    ) -> None:
        """Writes the probabilities of one member, of 16 bit."""
        info = ProbabilityInfo(
            configuration=member.configuration.name,
            folds=(),
            model="",
            labels=self.plan.labels,
            record=prepared.record,
            encoding="float16",
        )
        with ProbabilityWriter(path, info) as writer:
            stream = member.slabs(prepared)
            while True:
                with watch.timing("network_s"):
                    slab = next(stream, None)
                if slab is None:
                    break
                with watch.timing("restore_s"):
                    for sink in (writer, *sinks):
                        sink.add(slab)
            writer.finish()
