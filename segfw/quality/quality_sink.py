"""What ``predict`` adds to masks of a calibrated model: ``quality/CASE.json`` and ``quality/CASE_regions.json``."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path

import numpy as np

from segfw.base.file_names import QUALITY_FOLDER
from segfw.dataset.cases import Case
from segfw.dataset.labels import LabelSet
from segfw.grid.slabs import Slab
from segfw.images.geometry import Geometry
from segfw.inference.output_folder import Extra
from segfw.inference.predict_protocol import PreparedImage
from segfw.inference.prediction_job import PredictionJob
from segfw.model.load import Model
from segfw.quality.candidate_masks import case_regions, names_in_masks, values_in_masks
from segfw.quality.case_quality import EXCHANGEABLE, WITHDRAWN, CaseQuality, CaseRegions, regions_file
from segfw.quality.doubtful_voxels import DoubtfulVoxels
from segfw.quality.image_fingerprint import image_fingerprint
from segfw.quality.input_gate import GateVerdict, OpenGate
from segfw.quality.member_maps import MemberMaps
from segfw.quality.quality_features import pairwise_dice, structure_features
from segfw.quality.quality_model import QualityModel, StructureQuality
from segfw.quality.quality_table import write_quality_table
from segfw.quality.suspected_regions import structures_in, suspected_regions

# Bytes per byte of the image's file: candidates alone may take 2 MB, of images of ten times that.
QUALITY_SHARE = 0.1


@dataclass(frozen=True, kw_only=True)
class MaskJudge:
    """Judges the masks of one call of ``predict``; it is sent along with the job to workers.

    ``guarantee`` is what the options leave of it: 'exchangeable', or 'withdrawn: why'.
    """

    quality: QualityModel
    digest: str  # of the quality.json
    guarantee: str = EXCHANGEABLE

    def extra(self, job: PredictionJob, model: Model) -> Extra:
        """What is made of every case."""
        labels = model.plan.labels
        folds = tuple(model.weights)
        model_digest = job.digest
        only = job.only
        written = job.written

        def open_sink(path: Path, prepared: PreparedImage, case: Case) -> QualitySink:
            return QualitySink(
                path,
                prepared,
                case.id,
                self,
                labels=labels,
                folds=folds,
                model_digest=model_digest,
                only=only,
                written=written,
            )

        return Extra(
            folder=QUALITY_FOLDER,
            ending=".json",
            open=open_sink,
            bytes_per_image_byte=QUALITY_SHARE,
            by_member=True,
            write_table=write_quality_table,
        )

    def gate_verdict(self, prepared: PreparedImage) -> GateVerdict | None:
        """What the gate says of an image; None of a model without one."""
        if self._gate is None:
            return None
        return self._gate.look(image_fingerprint(prepared.image, prepared.record))

    @cached_property
    def _gate(self) -> OpenGate | None:
        return None if self.quality.gate is None else self.quality.gate.opened()

    def guarantee_of(self, gate: GateVerdict | None) -> str:
        """What is promised of one image."""
        if gate is None or gate.verdict == "usual":
            return self.guarantee
        reasons = f" ({'; '.join(gate.reasons)})" if gate.reasons else ""
        return f"{WITHDRAWN}the image is {gate.verdict}, unlike the training images{reasons}"


class QualitySink:
    """Takes slab after slab of a case, told apart by member, and writes what is to be thought of its mask.

    ``path`` is written last. Memory is some bytes a voxel of the network's grid, whatever the number of classes.
    """

    def __init__(
        self,
        path: Path,
        prepared: PreparedImage,
        case: str,
        judge: MaskJudge,
        *,
        labels: LabelSet,
        folds: tuple[str, ...],
        model_digest: str,
        only: tuple[str, ...] = (),
        written: LabelSet | None = None,
    ) -> None:
        self._path = Path(path)
        self._case = case
        self._judge = judge
        self._labels = labels
        self._folds = folds
        self._model_digest = model_digest
        self._only = only
        self._written = written
        self._gate = judge.gate_verdict(prepared)  # here, where the image is
        self._original = prepared.record.original
        self.maps = MemberMaps(prepared.record, labels)
        self.doubtful = DoubtfulVoxels(self.maps)

    def add(self, slab: Slab) -> None:
        """Looks at the finished slices of a slab."""
        self.maps.add(slab)
        self.doubtful.add(slab)

    def __enter__(self) -> QualitySink:
        return self

    def __exit__(self, *_: object) -> None:
        """Nothing is on the disk before ``finish``."""

    def finish(self, classes_zyx: np.ndarray) -> None:
        """Writes the suspected regions and, last, the verdicts; ValueError before any slab has come."""
        if not self.maps.members:
            raise ValueError(f"{self._path}: no slab was added")
        voxels_zk = voxels_of_slices(classes_zyx, self._labels)
        judged = self._judged(volumes_ml(voxels_zk, self._labels, self._original))
        regions = self._regions(judged, classes_zyx)
        called = names_in_masks(self._labels, self._written)
        values = values_in_masks(self._labels, self._written)
        slices = slices_of(voxels_zk, self._labels)
        quality = CaseQuality(
            case=self._case,
            model_digest=self._model_digest,
            quality_digest=self._judge.digest,
            folds=self._folds,
            gate=self._gate,
            structures=tuple(
                each.model_copy(
                    update={"label": called[each.label], "value": values[each.label], "slices": slices[each.label]}
                )
                for each in judged
            ),
            guarantee=self._judge.guarantee_of(self._gate),
        )
        regions.save(regions_file(self._path))
        quality.save(self._path)

    def _judged(self, volumes: Mapping[str, float]) -> list[StructureQuality]:
        """The wanted structures, in the order of the labels, by their names in training."""
        labels = self._labels
        model = self._judge.quality
        features = [structure_features(self.maps, member, labels) for member in range(self.maps.members)]
        pair = pairwise_dice(self.maps, labels)
        judged = model.judge(features, pair, self._gate, volumes_ml=volumes)
        wanted = [each for each in judged if not self._only or each.label in self._only]
        return [self._promised(each) for each in wanted]

    def _promised(self, each: StructureQuality) -> StructureQuality:
        """Never 'use' where nothing is promised of this call's masks."""
        if each.verdict != "use" or self._judge.guarantee == EXCHANGEABLE:
            return each
        reasons = (*each.reasons, f"guarantee {self._judge.guarantee}")
        return each.model_copy(update={"verdict": "look", "reasons": reasons})

    def _regions(self, judged: list[StructureQuality], classes_zyx: np.ndarray) -> CaseRegions:
        wanted = {each.label for each in judged}
        structures = structures_in(self.maps, self.doubtful.by_structure())
        structures = [each for each in structures if each.name in wanted]
        deviations = {each.label: (each.features.get("volume_z"), each.features.get("place_z")) for each in judged}
        found = suspected_regions(structures, deviations, self._judge.quality.priors)
        called = names_in_masks(self._labels, self._written)
        return case_regions(self._case, found, structures, classes_zyx, self._folds, called=called)


def voxels_of_slices(classes_zyx: np.ndarray, labels: LabelSet) -> np.ndarray:
    """Voxels of each class in each slice (Z, K) of a mask of classes on the file's own grid, in one pass."""
    return np.array([np.bincount(slice_yx.ravel(), minlength=labels.classes) for slice_yx in classes_zyx])


def volumes_ml(voxels_zk: np.ndarray, labels: LabelSet, geometry: Geometry) -> dict[str, float]:
    """Millilitres of every structure, by the voxels in slices of a grid."""
    counts = voxels_zk.sum(0).tolist()
    voxel_ml = abs(float(np.linalg.det(geometry.matrix[:3, :3]))) / 1000
    return {name: sum(counts[index] for index in classes) * voxel_ml for name, classes in labels.structures.items()}


def slices_of(voxels_zk: np.ndarray, labels: LabelSet) -> dict[str, int]:
    """How many slices along the first axis hold each structure."""
    return {name: int(voxels_zk[:, list(classes)].any(1).sum()) for name, classes in labels.structures.items()}
