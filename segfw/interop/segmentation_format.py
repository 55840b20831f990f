"""``--as dicom-seg``: the segmentation, and the report that points to its segments."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

from segfw.base.file_names import REPORT_FOLDER
from segfw.dataset.finished_mask import FinishedMask, MaskMaker
from segfw.dataset.labels import LABELS_FILE, LabelSet
from segfw.interop.reference_series import read_reference, require_series
from segfw.interop.write_dicom_seg import require_highdicom, written_segmentation
from segfw.interop.write_report import write_report


@dataclass(frozen=True, kw_only=True)
class SegmentationFormat:
    """``dicom-seg/CASE.dcm``, and with ``report`` also ``sr/CASE.dcm``."""

    is_labelmap: bool = False
    report: bool = False
    folder: str = "dicom-seg"
    report_folder: str = REPORT_FOLDER

    @property
    def bytes_per_image_byte(self) -> float:
        return 0.2 if self.is_labelmap else 1.5

    def files(self, case_id: str) -> tuple[str, ...]:
        report = (f"{self.report_folder}/{case_id}.dcm",) if self.report else ()
        return (*report, f"{self.folder}/{case_id}.dcm")

    def require_kind(self, case_id: str, image: Path | None) -> None:
        require_highdicom()
        require_series(case_id, image, "dicom-seg")

    def require(self, case_id: str, image: Path | None) -> None:
        require_highdicom()
        read_reference(image)

    def write(self, folder: Path, mask: FinishedMask) -> None:
        path = folder / self.files(mask.case_id)[-1]
        with written_segmentation(path, mask, is_labelmap=self.is_labelmap) as segmentation:
            if self.report:
                write_report(folder / self.files(mask.case_id)[0], mask, segmentation)

    def write_about(self, folder: Path, labels: LabelSet, maker: MaskMaker) -> None:
        labels.save(folder / self.folder / LABELS_FILE)
