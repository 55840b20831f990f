"""Where a prediction is in doubt: maps on the image's own grid, and a line per case to sort cases by.

Entropy is that of the mean probability, 0 where the network is certain and 1 where all classes are equally likely
(divided by log K); with regions the largest binary entropy of any region, 1 where one is as likely as not. Disagreement
is the share of folds whose class differs from that of their mean. Both are computed on the network's grid and then
interpolated. Maps are two 3-D files, which every viewer lays over the image; a 4-D one most take for a time series.
"""

# K classes, Z Y X space, M maps

from __future__ import annotations

from pathlib import Path

import numpy as np
import torch
import torch.nn.functional as F
from torch import Tensor

from segfw.base.file_names import UNCERTAINTY_FOLDER as FOLDER
from segfw.base.files import write_text
from segfw.base.printing import csv_text
from segfw.base.records import Record
from segfw.dataset.labels import LabelSet
from segfw.grid.block_resampler import BlockResampler
from segfw.grid.boxes import Block
from segfw.grid.preprocess import PreprocessRecord, place_back
from segfw.grid.slabs import Slab
from segfw.grid.winners import first_largest, last_above_zero
from segfw.images.formats import write_map

TABLE_FILE = "uncertainty.csv"
MAPS = ("entropy", "disagreement")
BLOCK_VALUES = 1 << 22  # logits that are looked at together


class CaseDoubt(Record):
    """How doubtful one case is; means are over the voxels predicted as foreground, None where there are none.

    ``disagreement`` is None of a single network.
    """

    case: str
    foreground_voxels: int  # of the network's grid
    entropy: float | None
    disagreement: float | None


class UncertaintySink:
    """Takes slab after slab of a case and writes ``CASE_entropy.nii.gz``, ``CASE_disagreement.nii.gz`` and, last, the
    case's line, ``CASE.json``, which is ``path``: where it is, the maps are whole. Maps lie where the image's file
    ``like`` says, as masks do.

    There is no disagreement unless the slabs tell two or more folds apart (``by_member``). Memory is a byte per map and
    voxel of the network's grid, and a float32 map on the image's own grid in ``finish``.
    """

    def __init__(
        self,
        path: Path,
        record: PreprocessRecord,
        labels: LabelSet,
        like: Path | None = None,
        *,
        block_values: int = BLOCK_VALUES,
    ) -> None:
        self._path = Path(path)
        self._record = record
        self._labels = labels
        self._like = like
        self._block_values = block_values
        self._maps: Tensor | None = None  # (M, Z, Y, X) uint8, 255 is 1; made with the first slab
        self._foreground = 0
        self._sums = np.zeros(2)

    def add(self, slab: Slab) -> None:
        """Looks at the finished slices of a slab."""
        depth, height, width = self._record.shape
        if self._maps is None:
            self._maps = torch.zeros((min(slab.member_count, 2), depth, height, width), dtype=torch.uint8)
        rows = max(1, self._block_values // (self._labels.outputs * width))
        for z in range(slab.start, slab.stop):
            for y in range(0, height, rows):
                block = (slice(z, z + 1), slice(y, min(y + rows, height)), slice(0, width))
                self._add_block(slab, block, self._maps)

    def _add_block(self, slab: Slab, block: Block, maps_mzyx: Tensor) -> None:
        logits = slab.logits(block)
        classes = self._classes(logits)
        values = [entropy(logits, is_regions=bool(self._labels.regions))]
        if slab.member_count > 1:
            differing = []
            for member in range(slab.member_count):
                classes_of_member = self._classes(slab.logits(block, member))
                differing.append((classes_of_member != classes).float())
            values.append(torch.stack(differing).mean(0))
        is_foreground = classes != self._nothing
        self._foreground += int(is_foreground.sum())
        for index, values_zyx in enumerate(values):
            self._sums[index] += float(values_zyx[is_foreground].sum(dtype=torch.float64))
            maps_mzyx[(index, *block)] = (values_zyx * 255).round_().byte().cpu()

    @property
    def _nothing(self) -> int:
        """What ``_classes`` gives to background."""
        return self._labels.outputs if self._labels.regions else 0

    def _classes(self, logits_kzyx: Tensor) -> Tensor:
        return last_above_zero(logits_kzyx) if self._labels.regions else first_largest(logits_kzyx)

    def __enter__(self) -> UncertaintySink:
        return self

    def __exit__(self, *_: object) -> None:
        """Nothing is on the disk before ``finish``."""

    def finish(self, _: np.ndarray | None = None) -> None:
        """Writes the maps and the case's line; ValueError before any slab has come. A mask is not needed."""
        if self._maps is None:
            raise ValueError(f"{self._path}: no slab was added")
        case = self._path.stem
        for name, values_zyx in zip(MAPS, self._maps):
            values = on_file_grid(values_zyx, self._record)
            write_map(self._path.with_name(map_name(case, name)), values, self._record.original, self._like)
        means = [float(total) / self._foreground if self._foreground else None for total in self._sums]
        doubt = CaseDoubt(
            case=case,
            foreground_voxels=self._foreground,
            entropy=means[0],
            disagreement=means[1] if len(self._maps) > 1 else None,
        )
        doubt.save(self._path)


def map_name(case_id: str, name: str) -> str:
    """File name of one of a case's MAPS."""
    return f"{case_id}_{name}.nii.gz"


def entropy(logits_kzyx: Tensor, *, is_regions: bool) -> Tensor:
    """Entropy (Z, Y, X), 0..1, of a softmax, relative to that of K equally likely classes; or of the most doubtful of
    K regions, relative to that of an even chance."""
    if is_regions:
        p = logits_kzyx.sigmoid()
        return -(torch.xlogy(p, p) + torch.xlogy(1 - p, 1 - p)).amin(0) / np.log(2)
    log_p = F.log_softmax(logits_kzyx, 0)
    return (-(log_p.exp() * log_p).sum(0) / np.log(len(log_p))).clamp_(0, 1)


def on_file_grid(values_zyx: Tensor, record: PreprocessRecord) -> np.ndarray:
    """Values 0..255 on the network's grid as 0..1, float32, on the file's own grid (Z, Y, X), linearly; 0 outside the
    crop."""
    resampler = BlockResampler.back(record)
    cropped = np.empty(record.cropped_shape, dtype=np.float32)
    _, height, width = record.cropped_shape
    for z in range(len(cropped)):
        block = (slice(z, z + 1), slice(0, height), slice(0, width))
        cropped[z] = resampler.resize(values_zyx[resampler.source(block)][None], block)[0, 0].numpy()
    cropped /= 255
    return place_back(cropped, record)


def write_table(folder: Path) -> Path:
    """Writes ``folder/uncertainty.csv`` from the lines of all cases in ``folder/uncertainty``, most doubtful first.

    Cases without any predicted foreground come before all others.
    """
    doubts = [CaseDoubt.load(path) for path in sorted((folder / FOLDER).glob("[!.]*.json"))]
    doubts.sort(key=lambda doubt: (doubt.entropy is not None, -(doubt.entropy or 0)))
    rows = [tuple(doubt.model_dump().values()) for doubt in doubts]
    write_text(folder / TABLE_FILE, csv_text(tuple(CaseDoubt.model_fields), rows))
    return folder / TABLE_FILE
