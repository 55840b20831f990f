"""``.seg.nrrd``: a segmentation of 3D Slicer, with names, colours, terminology and state of each segment.

The file is NRRD (https://teem.sourceforge.net/nrrd/format.html) with fields of Slicer's. Structures that overlap lie in
layers, along an axis of their own before those of space, as Slicer stores them.
"""

from __future__ import annotations

import zlib
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from segfw.base.files import whole_file
from segfw.base.records import UserError
from segfw.dataset.finished_mask import FinishedMask, MaskMaker
from segfw.dataset.labels import LABELS_FILE, LabelSet
from segfw.images.geometry import corner_distance_mm
from segfw.images.values import look_up
from segfw.images.voxels import LPS_TO_RAS, affine_of_lps
from segfw.interop.written_structures import CodeTriple, WrittenStructure, in_layers, numbered, written_structures

TERMINOLOGY = "Segmentation category and type - DICOM master list"
REGIONS = "Anatomic codes - DICOM master list"
CHUNK_BYTES = 1 << 24
MOST_OFF_MM = 1e-3


@dataclass(frozen=True, kw_only=True)
class SegNrrdFormat:
    """``seg-nrrd/CASE.seg.nrrd``: a folder called like a file would pass for one."""

    folder: str = "seg-nrrd"

    @property
    def bytes_per_image_byte(self) -> float:
        return 0.05

    def files(self, case_id: str) -> tuple[str, ...]:
        return (f"{self.folder}/{case_id}.seg.nrrd",)

    def require_kind(self, case_id: str, image: Path | None) -> None:
        """Any image has a grid that it can hold."""

    def require(self, case_id: str, image: Path | None) -> None:
        """The same."""

    def write(self, folder: Path, mask: FinishedMask) -> None:
        write_seg_nrrd(folder / self.files(mask.case_id)[0], mask)

    def write_about(self, folder: Path, labels: LabelSet, maker: MaskMaker) -> None:
        labels.save(folder / self.folder / LABELS_FILE)


def write_seg_nrrd(path: Path, mask: FinishedMask) -> None:
    """Writes a mask, reads it back by SimpleITK, and leaves it only if it holds the mask.

    Raises UserError if it does not.
    """
    structures = written_structures(mask.labels, mask.structures)
    layers = in_layers(structures)
    voxels_lzyx = np.stack([_painted(mask, layer) for layer in layers])
    header = _header(mask, layers, voxels_lzyx)
    with whole_file(path) as partial:
        with partial.open("wb") as file:
            file.write(header.encode())
            for part in _compressed(voxels_lzyx):
                file.write(part)
        _check(partial, path, mask, voxels_lzyx)


def _painted(mask: FinishedMask, layer: Sequence[WrittenStructure]) -> np.ndarray:
    """The voxels of a layer, (Z, Y, X): the value of each structure, which no other one in the layer has."""
    values = {0: 0} | {each.number: each.painted for each in layer}
    most = max(values.values())
    if min(values.values()) < 0:
        raise UserError(f"{mask.case_id}: has labels below 0, which 3D Slicer does not know; write nifti")
    dtype = np.uint8 if most < 256 else np.uint16 if most < 65_536 else np.int32
    return look_up(numbered(mask.values_zyx, layer, mask.labels), values, dtype)


def _header(mask: FinishedMask, layers: Sequence[Sequence[WrittenStructure]], voxels_lzyx: np.ndarray) -> str:
    lps = LPS_TO_RAS @ mask.geometry.matrix[:, [2, 1, 0, 3]]
    sizes = voxels_lzyx.shape[:0:-1]
    directions = [_vector(lps[:3, axis]) for axis in range(3)]
    kinds = ["domain"] * 3
    shown_sizes = [str(size) for size in sizes]
    if len(layers) > 1:
        directions.insert(0, "none")
        kinds.insert(0, "list")
        shown_sizes.insert(0, str(len(layers)))
    lines = [
        "NRRD0004",
        f"# {mask.said}",
        f"type: {voxels_lzyx.dtype.name}",
        f"dimension: {len(kinds)}",
        "space: left-posterior-superior",
        f"sizes: {' '.join(shown_sizes)}",
        f"space directions: {' '.join(directions)}",
        f"kinds: {' '.join(kinds)}",
        "endian: little",
        "encoding: gzip",
        f"space origin: {_vector(lps[:3, 3])}",
    ]
    extent = " ".join(f"0 {size - 1}" for size in sizes)
    index = 0
    for number, layer in enumerate(layers):
        for structure in layer:
            lines += [f"Segment{index}_{key}:={_one_line(value)}" for key, value in _fields(structure, mask).items()]
            lines += [f"Segment{index}_Extent:={extent}", f"Segment{index}_Layer:={number}"]
            index += 1
    lines += [
        "Segmentation_ContainedRepresentationNames:=Binary labelmap|",
        "Segmentation_ConversionParameters:=",
        "Segmentation_MasterRepresentation:=Binary labelmap",  # of Slicer before 5.2
        "Segmentation_SourceRepresentation:=Binary labelmap",
        "Segmentation_ReferenceImageExtentOffset:=0 0 0",
        f"Status:={_one_line(mask.statement.title)}",
    ]
    if mask.statement.evidence:
        lines.append(f"Review:={_one_line(mask.statement.evidence)}")
    return "\n".join(lines) + "\n\n"


def _fields(structure: WrittenStructure, mask: FinishedMask) -> dict[str, str]:
    red, green, blue = structure.colour
    tags = {
        "Segmentation.Status": mask.statement.progress,
        "TerminologyEntry": _terminology(structure),
        "DICOM.SegmentAlgorithmType": mask.statement.algorithm_type(structure.name),
        "DICOM.SegmentAlgorithmName": mask.maker.text,
        "Description": structure.description(mask.statement),
    }
    return {
        "ID": f"Segment_{structure.number}",
        "Name": structure.name,
        "NameAutoGenerated": "0",
        "Color": f"{red / 255:.6g} {green / 255:.6g} {blue / 255:.6g}",
        "ColorAutoGenerated": "0",
        "LabelValue": str(structure.painted),
        "Tags": "".join(f"{key}:{value.replace('|', '/')}|" for key, value in tags.items()),
    }


def _terminology(structure: WrittenStructure) -> str:
    """What Slicer keeps of a segment's codes: category, type, side, and no region."""
    codes = [_code(structure.category), _code(structure.kind), _code(structure.modifier)]
    return "~".join([TERMINOLOGY, *codes, REGIONS, "^^", "^^"])


def _code(triple: CodeTriple | None) -> str:
    return "^^" if triple is None else "^".join(part.replace("^", " ").replace("~", " ") for part in triple)


def _vector(values: np.ndarray) -> str:
    return f"({','.join(repr(float(value)) for value in values)})"


def _one_line(text: str) -> str:
    """Fields are lines, in which a backslash begins a code."""
    return text.replace("\\", "\\\\").replace("\n", "\\n")


def _compressed(voxels_lzyx: np.ndarray) -> Iterator[bytes]:
    """The voxels with layers first, then x, y and z, as gzip."""
    encoder = zlib.compressobj(4, zlib.DEFLATED, 31)
    slices = max(1, CHUNK_BYTES // max(1, voxels_lzyx[:, :1].nbytes))
    for first in range(0, voxels_lzyx.shape[1], slices):
        part = np.moveaxis(voxels_lzyx[:, first : first + slices], 0, -1)
        yield encoder.compress(part.astype(part.dtype.newbyteorder("<"), copy=False).tobytes())
    yield encoder.flush()


def _check(partial: Path, path: Path, mask: FinishedMask, voxels_lzyx: np.ndarray) -> None:
    """UserError naming ``path`` unless another reader finds the same voxels at the same place."""
    import SimpleITK

    image = SimpleITK.ReadImage(str(partial))
    array = SimpleITK.GetArrayFromImage(image)
    layers = array[None] if len(voxels_lzyx) == 1 else np.moveaxis(array, -1, 0)
    wrong = layers.shape != voxels_lzyx.shape or bool((layers != voxels_lzyx).any())
    direction = np.reshape(image.GetDirection(), (3, 3))
    affine = affine_of_lps(direction, np.array(image.GetSpacing()), np.array(image.GetOrigin()))
    is_off = corner_distance_mm(mask.geometry.shape, affine, mask.geometry.matrix) > MOST_OFF_MM
    if wrong or is_off:
        what = "other voxels" if wrong else "another place"
        raise UserError(f"{path}: would hold {what} than the mask, and was not written; write nifti, and report it")
