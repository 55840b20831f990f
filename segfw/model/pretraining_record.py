"""What is known of weights that were pretrained on images alone: which images, which were kept out, for how long."""

from __future__ import annotations

from pathlib import Path

from pydantic import JsonValue

from segfw.base.records import Record, StoredPath
from segfw.networks.spec import NetworkSpec

PRETRAINED = "pretrained"  # folder in a work folder, with one folder a configuration
PRETRAINING_FILE = "pretraining.json"


class SeenImage(Record):
    """An image that weights were learnt of.

    ``sha256`` is of the bytes of its files, ``voxels_sha256`` of its voxels however they are stored (None in records of
    before it was kept); ``source`` is where it lies.
    """

    id: str
    sha256: str
    source: StoredPath
    voxels_sha256: str | None = None


class KeptOutImage(Record):
    """An image that was offered and not learnt of, and why not, as the rest of a sentence."""

    id: str
    sha256: str
    reason: str


class PretrainingEnd(Record):
    """How much was learnt. ``explained`` is the share of the squares of hidden voxels, on patches at the end."""

    steps: int
    seconds: float
    explained: float | None


class PretrainingRecord(Record):
    """``pretraining.json``, written before the first step and again at the end.

    ``heads`` are the weights that no training takes over. ``judged`` are the ids of the seen images on whose patches
    the progress is judged; none of their voxels is learnt. ``folds`` are those whose validation images were kept out.
    """

    configuration: str
    network: NetworkSpec
    heads: tuple[str, ...]
    asked: dict[str, JsonValue]
    folds: tuple[str, ...]
    seen: tuple[SeenImage, ...]
    judged: tuple[str, ...]
    kept_out: tuple[KeptOutImage, ...]
    end: PretrainingEnd | None = None

    @property
    def learnt(self) -> tuple[str, ...]:
        """Ids of the images that the weights are learnt of."""
        judged = set(self.judged)
        return tuple(image.id for image in self.seen if image.id not in judged)


def read_pretraining(folder: Path) -> PretrainingRecord | None:
    """The record in ``folder``; None where nothing was pretrained there. UserError if it cannot be read."""
    path = folder / PRETRAINING_FILE
    return PretrainingRecord.load(path) if path.is_file() else None


def pretrained_folder(work: Path, configuration: str) -> Path:
    """Where everything about the pretraining of a configuration is kept."""
    return work / PRETRAINED / configuration
