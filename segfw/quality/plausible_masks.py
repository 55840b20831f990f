"""``predict --plausible``: the smallest and the largest mask that held-out cases leave plausible, and each fold's own.

``plausible/CASE_outer`` holds all voxels that may belong to a structure, ``CASE_inner`` those that surely do, by the
thresholds of ``plausible_thresholds.py``; the mask lies between the two, whatever the thresholds. ``CASE_fold_k`` is
the mask that fold k alone would give. All lie on the file's own grid. Structures may overlap in their outer masks: a
model with several has a file for each, ``CASE_outer_STRUCTURE``, and where they are regions, inner ones as well.
"""

# S structures, L folds, Z Y X space of the network's grid or of the crop as stored

from __future__ import annotations

import zlib
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from torch import Tensor

from segfw.base.file_names import PLAUSIBLE_FOLDER
from segfw.base.output_paths import in_file_name
from segfw.base.records import Record
from segfw.dataset.cases import Case
from segfw.dataset.labels import LabelSet
from segfw.grid.block_resampler import BlockResampler
from segfw.grid.boxes import Block, blocks, relative
from segfw.grid.preprocess import PreprocessRecord, place_back
from segfw.grid.restore import Restoring
from segfw.grid.slabs import Slab
from segfw.images.formats import write_labels
from segfw.images.geometry import Shape
from segfw.inference.output_folder import Extra
from segfw.inference.predict_protocol import PreparedImage
from segfw.inference.prediction_job import PredictionJob
from segfw.model.load import Model
from segfw.model.postprocess import Postprocessing, apply
from segfw.quality.candidate_masks import names_in_masks
from segfw.quality.case_quality import EXCHANGEABLE, WITHDRAWN
from segfw.quality.image_fingerprint import image_fingerprint
from segfw.quality.input_gate import Gate, GateVerdict
from segfw.quality.plausible_thresholds import PlausibleThresholds, structure_log_odds

NO_POSTPROCESSING = Postprocessing()
FEWEST_FOLDS = 3  # of which each one's mask is written: two say little of what is plausible
PART = (1, 64, 64)  # voxels that are looked at together; slice after slice, so that bits are packed by slice
# Of masks, per byte of the image's file and mask: as many as there are files, each about as large as the mask.
MASK_SHARE = 0.05
PROMISE = (
    "on average over images like the training images the outer mask misses at most {level:.0%} of a structure, and the "
    "voxels of the inner mask that are not in it are at most {level:.0%} of it; not in every patient, and not after a "
    "change of scanner"
)


class PlausibleStructure(Record):
    """Volumes of the masks of one structure in one case; None where held-out cases gave no threshold, as ``note`` says.

    ``level`` is the most that outer masks miss, and inner ones are wrong by, on average.
    """

    label: str
    inner_ml: float | None
    mask_ml: float
    outer_ml: float | None
    level: float
    note: str


class PlausibleCase(Record):
    """``plausible/CASE.json``: which files belong to a case, what they promise, and whether that holds for this image.

    ``guarantee`` is 'exchangeable', or 'withdrawn: why'.
    """

    case: str
    files: tuple[str, ...]
    folds: tuple[str, ...]
    structures: tuple[PlausibleStructure, ...]
    guarantee: str
    promise: str


@dataclass(frozen=True, kw_only=True)
class PlausibleMasks:
    """Makes plausible masks in one call of ``predict``; it is sent along with the job to workers."""

    thresholds: Mapping[str, PlausibleThresholds]
    gate: Gate | None
    digest: str  # of the quality.json
    guarantee: str = EXCHANGEABLE  # or 'withdrawn: why'

    def extra(self, job: PredictionJob, model: Model) -> Extra:
        """What is made of every case."""
        labels = model.plan.labels
        wanted = tuple(name for name in self.thresholds if not job.only or name in job.only)
        folds = tuple(model.weights)

        def open_sink(path: Path, prepared: PreparedImage, case: Case) -> PlausibleSink:
            guarantee = self.guarantee
            if self.gate is not None and guarantee == EXCHANGEABLE:
                guarantee = guarantee_for(self.gate.look(image_fingerprint(prepared.image, prepared.record)))
            return PlausibleSink(
                path,
                prepared.record,
                labels,
                {name: self.thresholds[name] for name in wanted},
                folds=folds if len(folds) >= FEWEST_FOLDS else (),
                postprocessing=job.postprocessing,
                written=job.written,
                ending=job.image_ending,
                like=case.images[0],
                guarantee=guarantee,
            )

        files = 2 * len(wanted) + (len(folds) if len(folds) >= FEWEST_FOLDS else 0)
        return Extra(
            folder=PLAUSIBLE_FOLDER,
            ending=".json",
            open=open_sink,
            bytes_per_image_byte=files * MASK_SHARE,
            by_member=True,
        )


class PlausibleSink:
    """Takes slab after slab of a case and writes its plausible masks and, last, ``CASE.json``, which is ``path``.

    ``folds`` are the members whose own masks are written, () for none; ``postprocessing`` is what is done to every
    mask. Memory is a byte a voxel for each of these, and compressed bits for each structure.
    """

    def __init__(
        self,
        path: Path,
        record: PreprocessRecord,
        labels: LabelSet,
        thresholds: Mapping[str, PlausibleThresholds],
        *,
        folds: Sequence[str] = (),
        postprocessing: Postprocessing = NO_POSTPROCESSING,
        written: LabelSet | None = None,
        ending: str = ".nii.gz",
        like: Path | None = None,
        guarantee: str = EXCHANGEABLE,
        part: Shape = PART,
    ) -> None:
        self._path = Path(path)
        self._record = record
        self._labels = labels
        self._thresholds = dict(thresholds)
        self._folds = tuple(folds)
        self._postprocessing = postprocessing
        self._written = written or labels
        self._ending = ending
        self._like = like
        self._guarantee = guarantee
        self._called = names_in_masks(labels, written)
        self._part = part
        self._resampler = BlockResampler.back(record)
        self._done = 0  # slices of the crop
        names = list(labels.structures)
        self._index = {name: names.index(name) for name in self._thresholds}
        self._outer = {name: _PackedMask() for name, found in self._thresholds.items() if found.outer is not None}
        self._inner = {name: _PackedMask() for name, found in self._thresholds.items() if found.inner is not None}
        temperatures = postprocessing.temperatures(labels)
        self._of_folds = [Restoring(record, labels.painted_classes, temperatures=temperatures) for _ in self._folds]

    def __enter__(self) -> PlausibleSink:
        return self

    def __exit__(self, *_: object) -> None:
        """Nothing is on the disk before ``finish``."""

    def add(self, slab: Slab) -> None:
        """Looks at all slices that a slab completes."""
        slab = slab.on_host()
        stop = self._resampler.complete(slab.stop)
        for z in range(self._done, stop):
            self._add_slice(slab, z)
        self._done = stop
        for member, restoring in enumerate(self._of_folds):
            restoring.add(slab.of_member(member))

    def _add_slice(self, slab: Slab, z: int) -> None:
        _, height, width = self._resampler.new_shape
        whole: Block = (slice(z, z + 1), slice(0, height), slice(0, width))
        found_outer = {name: np.zeros((height, width), bool) for name in self._outer}
        found_inner = {name: np.zeros((height, width), bool) for name in self._inner}
        for part in blocks(whole, self._part):
            logits = slab.logits(self._resampler.source(part))
            if self._is_far(logits):
                continue
            resized = logits if self._resampler.keeps_grid else self._resampler.resize(logits, part)
            _, y, x = relative(part, whole)
            for name, found in self._thresholds.items():
                log_odds = structure_log_odds(resized, self._labels, self._index[name])[0]
                if found.outer is not None:
                    found_outer[name][y, x] = (log_odds >= found.outer).numpy()
                if found.inner is not None:
                    found_inner[name][y, x] = (log_odds >= found.inner).numpy()
        for name, mask in self._outer.items():
            mask.append(found_outer[name])
        for name, mask in self._inner.items():
            mask.append(found_inner[name])

    def _is_far(self, logits_kzyx: Tensor) -> bool:
        """Whether no voxel between these is in any outer or inner mask.

        The log-odds of background are a concave function of logits: between voxels they are not below all of theirs,
        and no structure's are above their negative. A region's log-odds are its logit, which is interpolated.
        """
        lowest = min(
            (odds for found in self._thresholds.values() for odds in (found.outer, found.inner) if odds is not None),
            default=np.inf,
        )
        if self._labels.regions:
            return bool((logits_kzyx < lowest).all())
        background = logits_kzyx[0] - logits_kzyx[1:].logsumexp(0)
        return bool((background > -lowest).all())

    def finish(self, classes_zyx: np.ndarray) -> None:
        """Writes all masks of the case, nested in and around the mask of ``classes_zyx`` on the file's own grid."""
        if self._done != self._resampler.new_shape[0]:
            raise ValueError(f"{self._path}: slabs complete {self._done} of {self._resampler.new_shape[0]} slices")
        files: list[str] = []
        structures = []
        is_one_map = not self._labels.regions
        inner_classes = np.zeros(classes_zyx.shape, classes_zyx.dtype)
        for name, found in self._thresholds.items():
            own_classes = self._labels.structures[name]
            is_mask = np.isin(classes_zyx, own_classes)
            volumes: dict[str, float | None] = {"inner": None, "outer": None}
            if name in self._outer:
                is_outer = is_mask | self._on_file_grid(self._outer.pop(name))
                volumes["outer"] = self._millilitres(is_outer)
                files.append(self._write_structure("outer", name, is_outer))
            if name in self._inner:
                is_inner = is_mask & self._on_file_grid(self._inner.pop(name))
                volumes["inner"] = self._millilitres(is_inner)
                if is_one_map:
                    inner_classes[is_inner] = own_classes[0]
                else:
                    files.append(self._write_structure("inner", name, is_inner))
            structures.append(
                PlausibleStructure(
                    label=self._called[name],
                    inner_ml=volumes["inner"],
                    mask_ml=self._millilitres(is_mask),
                    outer_ml=volumes["outer"],
                    level=found.level,
                    note=found.note,
                )
            )
        if is_one_map and any(found.inner is not None for found in self._thresholds.values()):
            files.append(self._write("inner", inner_classes))
        for fold, restoring in zip(self._folds, self._of_folds):
            files.append(self._write(f"fold_{fold}", self._wanted(apply(restoring.result(), self._postprocessing))))
        PlausibleCase(
            case=self._path.stem,
            files=tuple(files),
            folds=self._folds,
            structures=tuple(structures),
            guarantee=self._guarantee,
            promise=PROMISE.format(level=max(found.level for found in self._thresholds.values())),
        ).save(self._path)

    def _wanted(self, classes_zyx: np.ndarray) -> np.ndarray:
        """Without the classes of no structure that is wanted."""
        kept = np.zeros(self._labels.classes, classes_zyx.dtype)
        for name in self._thresholds:
            for index in self._labels.structures[name]:
                kept[index] = index
        return kept[classes_zyx]

    def _on_file_grid(self, mask: _PackedMask) -> np.ndarray:
        return place_back(mask.unpacked(self._resampler.new_shape), self._record)

    def _millilitres(self, is_inside: np.ndarray) -> float:
        voxel_mm3 = abs(float(np.linalg.det(self._record.original.matrix[:3, :3])))
        return float(is_inside.sum()) * voxel_mm3 / 1000

    def _write_structure(self, kind: str, name: str, is_inside: np.ndarray) -> str:
        """A mask of one structure, in the value that it has in masks."""
        index = self._index[name]
        painted = self._labels.painted_classes[index] if self._labels.regions else self._labels.structures[name][0]
        classes = np.where(is_inside, painted, 0).astype(np.uint8 if painted < 256 else np.uint16)
        called = kind if len(self._labels.structures) == 1 else f"{kind}_{in_file_name(self._called[name])}"
        return self._write(called, classes)

    def _write(self, called: str, classes_zyx: np.ndarray) -> str:
        path = self._path.with_name(f"{self._path.stem}_{called}{self._ending}")
        write_labels(path, self._written.to_values(classes_zyx), self._record.original, self._like)
        return path.name


class _PackedMask:
    """A mask (Z, Y, X) as compressed bits, slice after slice."""

    def __init__(self) -> None:
        self._slices: list[bytes] = []

    def append(self, is_inside_yx: np.ndarray) -> None:
        self._slices.append(zlib.compress(np.packbits(is_inside_yx).tobytes(), 1))

    def unpacked(self, shape: Shape) -> np.ndarray:
        _, height, width = shape
        result = np.empty(shape, bool)
        for z, packed in enumerate(self._slices):
            bits = np.unpackbits(np.frombuffer(zlib.decompress(packed), np.uint8), count=height * width)
            result[z] = bits.reshape(height, width)
        return result


def guarantee_for(verdict: GateVerdict) -> str:
    """What the gate leaves of what is promised of an image."""
    if verdict.verdict == "usual":
        return EXCHANGEABLE
    return f"{WITHDRAWN}the image is {verdict.verdict}, unlike the training images ({'; '.join(verdict.reasons)})"
