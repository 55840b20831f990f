"""What everything that predicts has in common, whether it is one model or several that are averaged.

``prepare`` reads nothing and runs no network; ``classes`` does the work; ``finish`` gives masks the values of the
training files. So one image can be prepared while another is in the network.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from pathlib import Path
from typing import Protocol, Self, TypeVar

import numpy as np
import torch
from torch import Tensor

from segfw.base.stopwatch import Stopwatch
from segfw.dataset.cases import Case
from segfw.grid.preprocess import PreprocessRecord
from segfw.grid.slabs import Slab
from segfw.images.volume import Volume
from segfw.planning.plan import Plan


class SlabSink(Protocol):
    """Something that is made of a prediction's logits as they come."""

    def add(self, slab: Slab) -> None:
        """Takes the next slab, which is valid only during the call."""


class FileSink(SlabSink, Protocol):
    """A sink that writes a file at its end; nothing is left of it by an error."""

    def finish(self, classes_zyx: np.ndarray) -> None:
        """Puts the file in its place, after the last slab.

        ``classes_zyx`` are the class indices of the finished mask on the file's own grid, which is written next.
        """

    def __enter__(self) -> Self: ...
    def __exit__(self, *error: object) -> None: ...


class PreparedImage(Protocol):
    """An image on the grid of a network, or of several, of which the first counts here."""

    @property
    def record(self) -> PreprocessRecord:
        """How the image came there, and how to come back."""

    @property
    def image(self) -> Tensor:
        """Preprocessed intensities (C, Z, Y, X) on that grid."""

    def with_image(self, image_czyx: Tensor) -> Self:
        """The same with other intensities on that grid."""


# Makes the sink of a case of the path that it writes, the prepared image and the case. A sink must not keep the image:
# other cases need its memory.
OpenFileSink = Callable[[Path, PreparedImage, Case], FileSink]
PreparedT = TypeVar("PreparedT", bound=PreparedImage)


class Predict(Protocol[PreparedT]):
    """Predicts one image after the other on one device."""

    @property
    def plan(self) -> Plan: ...

    @property
    def device(self) -> torch.device: ...

    def prepare(self, volume: Volume) -> PreparedT:
        """The image on the network's grid; raises UserError if its channels are not the model's."""

    def classes(
        self,
        prepared: PreparedT,
        sinks: Sequence[SlabSink] = (),
        *,
        by_member: bool = False,
        watch: Stopwatch | None = None,
    ) -> np.ndarray:
        """Class indices (Z, Y, X) on the original file's grid; ``sinks`` are shown every slab."""

    def slabs(self, prepared: PreparedT, by_member: bool = False) -> Iterator[Slab]:
        """Logits slab by slab, of the first one's networks where several are averaged."""

    def finish(self, classes_zyx: np.ndarray) -> np.ndarray:
        """Label values as in the training files, of class indices."""


class LooksAgain(Protocol):
    """Predicts a case once more, in other ways, for a sink of it; it has the device to itself meanwhile."""

    def __call__(
        self, sink: FileSink, predictor: Predict[PreparedT], prepared: PreparedT, go_on: Callable[[], None]
    ) -> None:
        """``go_on`` is to be called at every slab; it raises where the call shall end."""
