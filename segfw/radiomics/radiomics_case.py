"""The features of all structures of a case: the work of one case, on any thread or machine."""

from __future__ import annotations

import re
from dataclasses import dataclass, replace
from pathlib import Path

from segfw.base.case_files import work_once
from segfw.base.file_names import PLAUSIBLE_FOLDER
from segfw.base.records import UserError
from segfw.base.shared_work import CaseResult, Note, WorkWords
from segfw.dataset.labels import LabelSet
from segfw.evaluation.masks import classes_of, read_stored_mask
from segfw.images.formats import split_ending
from segfw.images.units import PICTURE
from segfw.images.volume import to_canonical
from segfw.measurements.masks_to_measure import MaskCase
from segfw.measurements.measure_case import case_in_memory
from segfw.measurements.measure_masks import MaskToMeasure
from segfw.measurements.measures_folder import MeasuresFolder
from segfw.measurements.structure_measures import NOT_ANNOTATED, StructureMeasures
from segfw.radiomics.features_folder import FeaturesFolder
from segfw.radiomics.features_records import CaseFeatures, Row, StructureFeatures
from segfw.radiomics.radiomics_settings import RadiomicsSettings
from segfw.radiomics.structure_scan import Scan, slices_first, told, told_of_versions

TELLING = WorkWords(doing="telling features", done="told", of="case")


@dataclass(frozen=True, kw_only=True)
class RadiomicsJob:
    """All that a process needs to tell the features of cases, so that it can be sent to another machine."""

    folder: FeaturesFolder
    measures: MeasuresFolder
    labels: LabelSet
    channels: tuple[str, ...]
    settings: RadiomicsSettings

    def __call__(self, case: MaskCase) -> CaseResult:
        """Tells the features of a case and keeps them, unless they are there or another process is at it."""
        return work_once(self.folder, case, self._work)

    def _work(self, case: MaskCase) -> tuple[Note, ...]:
        self.folder.find(case, self.told)
        return ()

    def told(self, case: MaskCase) -> CaseFeatures:
        """All structures that were measured; UserError if a file cannot be read, or a channel is lacking."""
        measured = self.measures.current(case)
        if measured is None or measured.problem:
            why = "its files changed while it was measured" if measured is None else measured.problem
            raise UserError(f"{case.mask}: has no features ({why}); mend it and measure it again")
        mask, _ = case_in_memory(case, self.labels, self.channels)
        lacking = [name for name in self.settings.channels if name not in mask.channels]
        if lacking:
            has = ", ".join(mask.channels)
            raise UserError(f"{case.mask}: its image has no channel {lacking[0]!r}, but {has}; give such an image")
        refusal = refusal_of(mask, self.settings)
        scan = Scan.of(mask, self.settings)
        folds = [] if refusal or not self.folder.versions else self._folds(case, mask, scan)
        structures = [self._structure(case, scan, folds, each, refusal) for each in measured.structures]
        return CaseFeatures(
            id=case.id, sources=case.sources, structures=tuple(structures), versions=self.folder.versions
        )

    def _folds(self, case: MaskCase, mask: MaskToMeasure, scan: Scan) -> list[Scan]:
        """The same scan with the masks of the model's folds, where they lie beside the mask."""
        scans = []
        for path in fold_masks(case):
            stored = to_canonical(read_stored_mask(path, self.labels, None))
            if stored.geometry.shape != mask.classes_zyx.shape:
                raise UserError(f"{path}: lies on another grid than {case.mask}; remove it, or predict both again")
            classes = classes_of(stored, self.labels, path, case.label_map)
            scans.append(replace(scan, classes_zyx=classes.transpose(slices_first(mask, self.settings))))
        return scans

    def _structure(
        self, case: MaskCase, scan: Scan, folds: list[Scan], measured: StructureMeasures, refusal: str
    ) -> StructureFeatures:
        """One structure, and its changed versions where they are asked for."""
        name = measured.structure
        facts = StructureFeatures(structure=name, status=measured.status, reason=measured.reason)
        # Of a region that nobody drew as a whole, the mask may hold parts that somebody did.
        found = None if measured.status == NOT_ANNOTATED else scan.structure(name)
        if found is None or measured.status == "small":
            return facts
        if refusal:
            return facts.model_copy(update={"reason": _joined(measured.reason, refusal)})
        values, reason = told(scan, found, self.settings)
        versions = told_of_versions(scan, found, self.settings, self.folder.versions, (case.id, name))
        of_folds = tuple(self._of_fold(fold, name) for fold in folds)
        reason = _joined(measured.reason, reason)
        return facts.model_copy(update={"reason": reason, "values": values, "versions": versions, "folds": of_folds})

    def _of_fold(self, scan: Scan, name: str) -> Row:
        """Of the mask of one fold; no values where that has no voxel of it."""
        found = scan.structure(name)
        return () if found is None else told(scan, found, self.settings)[0]


def _joined(*reasons: str) -> str:
    return "; ".join(filter(None, reasons))


def refusal_of(mask: MaskToMeasure, settings: RadiomicsSettings) -> str:
    """Why nothing can be told of any structure of a case; '' if nothing stands against it."""
    if mask.units == PICTURE:
        return "its image has no millimetres, in which features are told"
    if 1 in mask.classes_zyx.shape and not settings.is_by_slice:
        return "its image is one slice, and the settings are for texture in 3-D"
    return ""


def fold_masks(case: MaskCase) -> list[Path]:
    """The masks of the model's folds beside a mask: plausible/CASE_fold_0, CASE_fold_1, ..., in this order."""
    folder = case.mask.parent / PLAUSIBLE_FOLDER
    if not folder.is_dir():
        return []
    pattern = re.compile(re.escape(case.id) + r"_fold_([A-Za-z0-9]+)")
    named = [(pattern.fullmatch(split_ending(path)[0]), path) for path in sorted(folder.iterdir())]
    return [path for match, path in named if match and split_ending(path)[1]]
