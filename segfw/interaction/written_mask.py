"""A corrected mask in a file: in the format, on the grid and in the number type of the mask that it was made from."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

from segfw.base.records import UserError
from segfw.base.words import listed
from segfw.dataset.finished_mask import FinishedMask, MaskMaker, MaskStatement
from segfw.dataset.labels import LabelSet
from segfw.images.dicom_header import require_header
from segfw.images.dicom_masks import named_dicom
from segfw.images.formats import MASK_ENDINGS, SEG_NRRD, split_ending, write_labels
from segfw.images.volume import Volume
from segfw.interop.write_dicom_seg import require_highdicom, written_segmentation
from segfw.interop.write_rtstruct import write_rtstruct
from segfw.interop.write_seg_nrrd import write_seg_nrrd

DICOM = ".dcm"
TITLE = "Corrected by clicks, not reviewed"


@dataclass(frozen=True, kw_only=True)
class WrittenMask:
    """Where a corrected mask goes, and the files that it was made from."""

    output: Path
    mask: Path
    image: Path

    def require(self) -> None:
        """UserError if the ending of the output names no format that such a mask can be written in."""
        if self.output.is_dir():
            raise UserError(f"{self.output}: is a folder; give the name of a file for the corrected mask")
        name = self.output.name.lower()
        if name.endswith(DICOM):
            if named_dicom(self.mask) is None:
                raise UserError(f"{self.output}: is DICOM, and {self.mask} is not; write it in the format of the mask")
            if not self._is_structure_set:
                require_highdicom()
        elif not name.endswith((SEG_NRRD, *MASK_ENDINGS)):
            endings = listed((*MASK_ENDINGS, SEG_NRRD, f"{DICOM} for DICOM masks"))
            raise UserError(f"{self.output}: has no ending of a mask; write {endings}, best that of {self.mask.name}")

    @property
    def _is_structure_set(self) -> bool:
        file = named_dicom(self.mask)
        return file is not None and require_header(file).kind == "structure set"

    def write(self, found: Volume, labels: LabelSet, maker: MaskMaker) -> None:
        """Writes the mask, whole; UserError if what was written does not hold it."""
        finished = FinishedMask(
            case_id=split_ending(self.output)[0].removesuffix(DICOM),
            values_zyx=found.array[0],
            geometry=found.geometry,
            labels=labels,
            maker=maker,
            image=self.image,
            statement=MaskStatement(title=TITLE),
        )
        name = self.output.name.lower()
        if name.endswith(SEG_NRRD):
            write_seg_nrrd(self.output, finished)
        elif not name.endswith(DICOM):
            write_labels(
                self.output,
                found.array[0],
                found.geometry,
                self.mask,
                said=finished.said,
                is_checked=found.array.dtype.kind != "f",
                stored_as=found.array.dtype,
            )
        elif self._is_structure_set:
            write_rtstruct(self.output, finished)
        else:
            with written_segmentation(self.output, finished, is_labelmap=False):
                pass
