"""Segmentations of 3D Slicer (.seg.nrrd): NRRD with a name for each value, and layers where segments overlap."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

import numpy as np

from segfw.images.geometry import Geometry
from segfw.images.itk import read_itk
from segfw.images.named_mask import Part, Structure, placed
from segfw.images.voxels import Refusal, SeriesUids

MOST_SEGMENTS = 65_535


@dataclass(frozen=True, kw_only=True)
class _Segment:
    structure: Structure
    layer: int


@dataclass(frozen=True, kw_only=True)
class SlicerSegmentation:
    """A .seg.nrrd: ``layers`` (L, Z, Y, X) of values; it may be cut to where its segments are."""

    segments: tuple[_Segment, ...]
    layers: np.ndarray
    grid: Geometry
    notes: tuple[str, ...] = ()
    series: tuple[SeriesUids, ...] = ()
    image_uids: frozenset[str] = frozenset()

    @property
    def structures(self) -> tuple[Structure, ...]:
        """All segments."""
        return tuple(segment.structure for segment in self.segments)

    def parts(self, number: int, grid: Geometry) -> list[Part]:
        """The voxels of a grid that a segment has."""
        segment = self.segments[number]
        return placed(self.layers[segment.layer] == segment.structure.number, self.grid.matrix, grid)


def read_seg_nrrd(path: Path) -> SlicerSegmentation | None:
    """Reads a segmentation; None if the file names no segment, and so is a mask like others."""
    voxels = read_itk(path)
    segments = _segments(path)
    if not segments:
        return None
    if voxels.array.dtype.kind not in "iu":
        raise Refusal(f"has segments of {voxels.array.dtype} values, not whole numbers; save it as a binary labelmap")
    grid = Geometry.of(voxels.array.shape[1:], voxels.affine)
    return SlicerSegmentation(segments=tuple(segments), layers=voxels.array, grid=grid, notes=voxels.notes)


def segment_structures(path: Path) -> tuple[Structure, ...]:
    """The structures of a segmentation by its header alone; none where it names none."""
    return tuple(segment.structure for segment in _segments(path))


def _segments(path: Path) -> list[_Segment]:
    import SimpleITK

    header = SimpleITK.ImageFileReader()
    header.SetFileName(str(path))
    header.ReadImageInformation()
    fields = {key: header.GetMetaData(key) for key in header.GetMetaDataKeys() if key.startswith("Segment")}
    layers = header.GetNumberOfComponents()
    segments = []
    for number in range(MOST_SEGMENTS):
        if f"Segment{number}_ID" not in fields and f"Segment{number}_Name" not in fields:
            break
        segments.append(_segment(fields, number, layers))
    return segments


def _segment(fields: dict[str, str], number: int, layers: int) -> _Segment:
    """Where the file does not say it: of several layers each is of one segment, of the value 1, as Slicer before 4.11
    wrote them; in a single layer segments are numbered.
    """
    name = fields.get(f"Segment{number}_Name") or fields[f"Segment{number}_ID"]
    value = fields.get(f"Segment{number}_LabelValue", "1" if layers > 1 else str(number + 1)).strip()
    layer = fields.get(f"Segment{number}_Layer", str(number) if layers > 1 else "0").strip()
    if not value.isdigit() or not layer.isdigit() or int(layer) >= layers:
        what = f"says of the segment {name} that its value is {value[:20]} in layer {layer[:20]}, of {layers} from 0 on"
        raise Refusal(f"{what}; save it again")
    return _Segment(structure=Structure(name.strip(), int(value)), layer=int(layer))
