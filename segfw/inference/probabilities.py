"""Probabilities of a case on the network's grid: one compact file, from which any later grid or average is made.

The file is a chunked array (K, Z, Y, X) with a JSON record inside that says all that is needed to come back. A chunk is
(a part of) one slice with all its classes, because that is what restoring a block reads.

It holds the log-odds of each probability, log p / (1 - p), and what is interpolated is logits, not probabilities: masks
made from the file are then those that prediction writes, and what is averaged over models is the softmax of restored
logits, as published. Measured on 40 hippocampi of about 1000 voxels, by a network of 1.5 mm restored to 1 mm: masks
from interpolated probabilities agree with those from logits by a Dice of 0.98, from log-odds of 8 bit by 0.998 (0.34
bytes per value; mean Dice against the experts 0.8554 instead of 0.8552), from float16 by 0.9999 (1.4 bytes; 0.8552).
Hence 8 bit is the default.
"""

from __future__ import annotations

import zlib
from dataclasses import dataclass
from math import exp, log1p
from pathlib import Path
from typing import Literal

import numpy as np
import torch
import torch.nn.functional as F
from torch import Tensor

from segfw.base.array_files import UNREADABLE, StoredArray, damage, open_array, seal
from segfw.base.files import partial_path, whole_file
from segfw.base.records import Record, UserError
from segfw.dataset.labels import LabelSet
from segfw.grid.boxes import Block
from segfw.grid.preprocess import PreprocessRecord
from segfw.grid.slabs import Slab
from segfw.images.geometry import Shape

ENDING = ".b2nd"
FOLDER = "probabilities"  # of a folder of masks
CHUNK_VALUES = 1 << 22  # that are decompressed at a time
Encoding = Literal["uint8", "float16"]
# The largest log-odds that are told apart. Beyond lies nothing that decides between classes, and much that does not
# compress: with 12 instead of 8 a byte takes twice the space.
LIMIT: dict[str, float] = {"uint8": 8.0, "float16": 12.0}
STEPS = 127  # from log-odds 0 to the limit in 8 bit


class ProbabilityInfo(Record):
    """What a file of probabilities is of. ``model`` is a digest of the weights and options that it was made with."""

    configuration: str
    folds: tuple[str, ...]
    model: str
    labels: LabelSet
    record: PreprocessRecord
    encoding: Encoding = "uint8"
    checksum: int = 0  # CRC-32 of all compressed chunks


@dataclass(frozen=True, kw_only=True)
class Probabilities:
    """Stored probabilities of one case, opened; values are read block by block."""

    path: Path
    info: ProbabilityInfo
    values_kzyx: StoredArray

    @property
    def shape(self) -> Shape:
        return tuple(self.values_kzyx.shape[1:])

    @property
    def lowest(self) -> float:
        """The logit of a class whose probability is too small to be told from 0."""
        limit = LIMIT[self.info.encoding]
        return -limit if self.info.labels.regions else -log1p(exp(limit))

    @property
    def lowest_stored(self) -> float:
        """What such a class is stored as."""
        return 0 if self.info.encoding == "uint8" else -LIMIT["float16"]

    def stored(self, block: Block) -> Tensor:
        """Values (K, z, y, x) as they are stored, of a block of the network's grid."""
        return torch.from_numpy(self.values_kzyx[(slice(None), *block)])

    def logits_of(self, stored: Tensor) -> Tensor:
        """Float32 logits of stored values: up to a constant per voxel (softmax), or of each region (sigmoid)."""
        values = stored.float()
        if self.info.encoding == "uint8":
            values.sub_(STEPS).mul_(LIMIT["uint8"] / STEPS)
        return values if self.info.labels.regions else F.logsigmoid(values)

    def logits(self, block: Block) -> Tensor:
        """Float32 logits (K, z, y, x) of a block of the network's grid."""
        return self.logits_of(self.stored(block))


class ProbabilityWriter:
    """Takes slab after slab of a case and writes ``path``, which is there, whole, after ``finish``.

    Memory is that of a chunk, whatever the number of classes. In a ``with`` block nothing is left behind by an error.
    """

    def __init__(self, path: Path, info: ProbabilityInfo, *, chunk_values: int = CHUNK_VALUES) -> None:
        import blosc2

        self._path = Path(path)
        self._info = info
        self._path.parent.mkdir(parents=True, exist_ok=True)
        self._unfinished = partial_path(self._path)
        _, height, width = info.record.shape
        self._rows = max(1, min(height, chunk_values // (info.labels.outputs * width)))
        self._array = blosc2.empty(
            (info.labels.outputs, *info.record.shape),
            dtype=np.dtype(info.encoding),
            chunks=(info.labels.outputs, 1, self._rows, width),
            blocks=(1, 1, self._rows, width),
            urlpath=str(self._unfinished),
            mode="w",
            contiguous=True,
            cparams={"codec": blosc2.Codec.ZSTD, "clevel": 3},
        )
        self._next = 0

    def add(self, slab: Slab) -> None:
        """Writes the finished slices of a slab; slabs come in order, without gaps."""
        if slab.start != self._next:
            raise ValueError(f"the slab begins at slice {slab.start}, expected {self._next}")
        _, height, width = self._info.record.shape
        for z in range(slab.start, slab.stop):
            for y in range(0, height, self._rows):
                block = (slice(z, z + 1), slice(y, min(y + self._rows, height)), slice(0, width))
                encoded = self._encoded(slab.logits(block))
                self._array[(slice(0, self._info.labels.outputs), *block)] = encoded
        self._next = slab.stop

    def finish(self, _: np.ndarray | None = None) -> None:
        """Puts the file in its place; ValueError if slices are missing. A mask is not needed."""
        if self._next != self._info.record.shape[0]:
            raise ValueError(f"{self._next} of {self._info.record.shape[0]} slices were added")
        info = self._info.model_copy(update={"checksum": _checksum(self._array)})
        self._array.schunk.vlmeta["info"] = info.model_dump_json()
        with whole_file(self._path) as partial:
            self._unfinished.rename(partial)
            seal(partial)

    def close(self) -> None:
        """Gives up a file that was not finished; does nothing to one that was."""
        self._unfinished.unlink(missing_ok=True)

    def __enter__(self) -> ProbabilityWriter:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()

    def _encoded(self, logits_kzyx: Tensor) -> np.ndarray:
        encoding = self._info.encoding
        log_odds = logits_kzyx
        if not self._info.labels.regions:
            log_p = F.log_softmax(logits_kzyx, 0)
            log_odds = log_p - torch.log1p(-log_p.exp())
        log_odds = log_odds.clamp(-LIMIT[encoding], LIMIT[encoding])
        if encoding == "float16":
            return log_odds.half().cpu().numpy()
        return (log_odds * (STEPS / LIMIT[encoding]) + STEPS).round_().to(torch.uint8).cpu().numpy()


def read_probabilities(path: Path) -> Probabilities:
    """Opens what ``ProbabilityWriter`` wrote; raises UserError if it is damaged, or something else."""
    path = Path(path)
    if not path.is_file():
        raise UserError(f"{path}: no such file; predict with --save-probabilities")
    remedy = "predict the case again with --save-probabilities, or copy the file again"
    problem = damage(path)
    if problem:
        raise UserError(f"{path}: is no whole file of probabilities ({problem}); {remedy}")
    try:
        array = open_array(path)
        info = ProbabilityInfo.model_validate_json(array.schunk.vlmeta["info"])
        is_whole = array.shape == (info.labels.outputs, *info.record.shape) and _checksum(array) == info.checksum
    except (*UNREADABLE, KeyError, AttributeError, OSError) as error:
        reason = str(error).strip().splitlines() or [type(error).__name__]
        raise UserError(f"{path}: is no whole file of probabilities ({reason[0]}); {remedy}") from None
    if not is_whole:
        raise UserError(f"{path}: is damaged, its checksum does not fit; {remedy}")
    return Probabilities(path=path, info=info, values_kzyx=array)


def probability_files(folder: Path) -> dict[str, Path]:
    """{case id: file} of a folder of probabilities, or of masks that has one inside; UserError without any."""
    folder = Path(folder)
    for place in (folder, folder / FOLDER):
        found = {path.name.removesuffix(ENDING): path for path in sorted(place.glob(f"[!.]*{ENDING}"))}
        if found:
            return found
    raise UserError(f"{folder}: holds no probabilities; predict into it with --save-probabilities")


def _checksum(array: StoredArray) -> int:
    result = 0
    for index in range(array.schunk.nchunks):
        result = zlib.crc32(array.schunk.get_chunk(index), result)
    return result
