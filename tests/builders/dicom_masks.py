"""Made-up DICOM series, structure sets and segmentations, written with pydicom; no writer of segfw's is used."""

from __future__ import annotations

import zlib
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from pydicom import Dataset, FileDataset
from pydicom.dataset import FileMetaDataset
from pydicom.sequence import Sequence as Items
from pydicom.uid import ExplicitVRLittleEndian, ImplicitVRLittleEndian

CT = "1.2.840.10008.5.1.4.1.1.2"
ENHANCED_MR = "1.2.840.10008.5.1.4.1.1.4.1"
STRUCTURES = "1.2.840.10008.5.1.4.1.1.481.3"
SEGMENTATION = "1.2.840.10008.5.1.4.1.1.66.4"
LABEL_MAP = "1.2.840.10008.5.1.4.1.1.66.7"


@dataclass(frozen=True, kw_only=True)
class Grid:
    """Where a series lies (LPS): the centre of its first pixel, axes of columns (x) and rows (y), and the way from a
    slice to the next one. Unequal edges, so that exchanged axes fail.
    """

    shape: tuple[int, int, int] = (5, 12, 10)
    origin: tuple[float, float, float] = (-31.0, 17.5, 40.0)
    x: tuple[float, float, float] = (1.0, 0.0, 0.0)
    y: tuple[float, float, float] = (0.0, 1.0, 0.0)
    step: tuple[float, float, float] = (0.0, 0.0, 3.0)
    spacing_yx: tuple[float, float] = (1.5, 0.75)
    series: str = "1.2.3.4"
    frame: str = "1.2.3.4.99"

    def place(self, z: float) -> np.ndarray:
        """Centre of the first pixel of a slice, mm."""
        return np.array(self.origin) + z * np.array(self.step)

    def points(self, z: float, corners_yx: Sequence[tuple[float, float]]) -> np.ndarray:
        """Places in mm (N, 3) of points given in pixels of a slice."""
        rows, columns = np.array(corners_yx, dtype=float).T
        height, width = self.spacing_yx
        return self.place(z) + np.outer(columns * width, self.x) + np.outer(rows * height, self.y)

    def instance(self, z: int) -> str:
        return f"{self.series}.{z + 1}"


OBLIQUE = Grid(x=(0.8, 0.6, 0.0), y=(-0.48, 0.64, 0.6), step=(1.44, -1.92, 3.2))  # 4 mm along the normal
TILTED = Grid(y=(0.0, 0.96, 0.28), step=(0.0, 0.0, 3.0))  # a gantry's


def _text(values: Sequence[float] | np.ndarray) -> list[str]:
    return [f"{value:.10g}" for value in np.ravel(values)]


def _file(sop_class: str, instance: str, *, is_implicit: bool = False) -> FileDataset:
    meta = FileMetaDataset()
    meta.MediaStorageSOPClassUID = sop_class
    meta.MediaStorageSOPInstanceUID = instance
    meta.TransferSyntaxUID = ImplicitVRLittleEndian if is_implicit else ExplicitVRLittleEndian
    data = FileDataset("", {}, file_meta=meta, preamble=bytes(128))
    data.SOPClassUID = sop_class
    data.SOPInstanceUID = instance
    data.StudyInstanceUID = "1.2.3"
    return data


def _save(data: FileDataset, path: Path) -> Path:
    path.parent.mkdir(parents=True, exist_ok=True)
    data.save_as(path, enforce_file_format=True)
    return path


def item(**values: object) -> Dataset:
    """A data set of these elements; lists of data sets become sequences."""
    made = Dataset()
    for keyword, value in values.items():
        is_items = isinstance(value, list) and value and isinstance(value[0], Dataset)
        setattr(made, keyword, Items(value) if is_items or value == [] else value)
    return made


def write_series(
    folder: Path,
    image_zyx: np.ndarray,
    grid: Grid = Grid(),
    *,
    patient: str = "P-1",
    name: str = "Doe^Jane",
    start: str = "s",
    skip: Sequence[int] = (),
    **elements: object,
) -> Path:
    """A CT series, a file a slice, named against the order of the slices; slices in ``skip`` are left out."""
    for z, pixels in enumerate(image_zyx.astype(np.int16)):
        if z in skip:
            continue
        data = _file(CT, grid.instance(z))
        data.Modality = "CT"
        data.PatientID = patient
        data.PatientName = name
        data.SeriesInstanceUID = grid.series
        data.FrameOfReferenceUID = grid.frame
        data.ImagePositionPatient = _text(grid.place(z))
        data.ImageOrientationPatient = _text([grid.x, grid.y])
        data.PixelSpacing = _text(grid.spacing_yx)
        data.SliceThickness = "3"
        data.Rows, data.Columns = pixels.shape
        data.SamplesPerPixel = 1
        data.PhotometricInterpretation = "MONOCHROME2"
        data.BitsAllocated = data.BitsStored = 16
        data.HighBit = 15
        data.PixelRepresentation = 1
        data.PixelData = pixels.astype("<i2").tobytes()
        for keyword, value in elements.items():
            setattr(data, keyword, value)
        _save(data, folder / f"{start}{len(image_zyx) - z:03}.dcm")
    return folder


# ---- contours ----


def contour(points_mm: np.ndarray, kind: str = "CLOSED_PLANAR") -> Dataset:
    made = item(ContourGeometricType=kind, NumberOfContourPoints=len(points_mm))
    made.ContourData = _text(points_mm)
    return made


def edges_of(mask_yx: np.ndarray) -> list[np.ndarray]:
    """Outlines of a slice along the edges of pixels, a rectangle for each run of pixels in a row: slow and plain.

    Corners are (row, column); rectangles touch and do not overlap.
    """
    outlines = []
    for row, pixels in enumerate(mask_yx):
        ends = np.flatnonzero(np.diff(np.concatenate([[0], pixels.astype(int), [0]])))
        for first, beyond in zip(ends[::2], ends[1::2]):
            top, bottom = row - 0.5, row + 0.5
            left, right = first - 0.5, beyond - 0.5
            outlines.append(np.array([[top, left], [top, right], [bottom, right], [bottom, left]]))
    return outlines


def contours_of(mask_zyx: np.ndarray, grid: Grid = Grid()) -> list[Dataset]:
    """Contours along the edges of all voxels of a mask."""
    found = []
    for z, mask_yx in enumerate(mask_zyx):
        found += [contour(grid.points(z, outline)) for outline in edges_of(mask_yx)]
    return found


def write_structures(
    path: Path,
    rois: Mapping[str, Sequence[Dataset]],
    grid: Grid = Grid(),
    *,
    patient: str = "P-1",
    name: str = "Doe^Jane",
    slices: int | None = None,
    numbers: Sequence[int] | None = None,
    **elements: object,
) -> Path:
    """An RTSTRUCT of ROIs with their contours, drawn on the first ``slices`` of the series."""
    data = _file(STRUCTURES, f"{grid.series}.77", is_implicit=True)
    data.Modality = "RTSTRUCT"
    data.PatientID = patient
    data.PatientName = name
    data.SeriesInstanceUID = f"{grid.series}.7"
    data.StructureSetLabel = "drawn"
    number = grid.shape[0] if slices is None else slices
    images = [item(ReferencedSOPClassUID=CT, ReferencedSOPInstanceUID=grid.instance(z)) for z in range(number)]
    series = item(SeriesInstanceUID=grid.series, ContourImageSequence=images)
    study = item(ReferencedSOPClassUID="1.2.840.10008.3.1.2.3.1", RTReferencedSeriesSequence=[series])
    data.ReferencedFrameOfReferenceSequence = Items(
        [item(FrameOfReferenceUID=grid.frame, RTReferencedStudySequence=[study])]
    )
    counted = list(numbers or range(1, len(rois) + 1))
    data.StructureSetROISequence = Items(
        [
            item(ROINumber=each, ReferencedFrameOfReferenceUID=grid.frame, ROIName=called)
            for each, called in zip(counted, rois)
        ]
    )
    data.ROIContourSequence = Items(
        [
            item(ReferencedROINumber=each, ContourSequence=list(contours))
            if contours
            else item(ReferencedROINumber=each)
            for each, contours in zip(counted, rois.values())
        ]
    )
    for keyword, value in elements.items():
        setattr(data, keyword, value)
    return _save(data, path)


# ---- segmentations ----


def write_segmentation(
    path: Path,
    segments: Mapping[str, np.ndarray],
    grid: Grid = Grid(),
    *,
    kind: str = "BINARY",
    patient: str = "P-1",
    name: str = "Doe^Jane",
    skips_empty: bool = True,
    most: int = 255,
    frames_turned: bool = False,
    **elements: object,
) -> Path:
    """A DICOM SEG of masks (Z, Y, X) by name; of FRACTIONAL ones the values, of LABELMAP the numbers."""
    data = _file(LABEL_MAP if kind == "LABELMAP" else SEGMENTATION, f"{grid.series}.66")
    data.Modality = "SEG"
    data.PatientID = patient
    data.PatientName = name
    data.SeriesInstanceUID = f"{grid.series}.6"
    data.FrameOfReferenceUID = grid.frame
    data.SegmentationType = kind
    if kind == "FRACTIONAL":
        data.SegmentationFractionalType = "PROBABILITY"
        data.MaximumFractionalValue = most
    data.SegmentSequence = Items(
        [item(SegmentNumber=number, SegmentLabel=called) for number, called in enumerate(segments, 1)]
    )
    data.ReferencedSeriesSequence = Items(
        [
            item(
                SeriesInstanceUID=grid.series,
                ReferencedInstanceSequence=[
                    item(ReferencedSOPClassUID=CT, ReferencedSOPInstanceUID=grid.instance(z))
                    for z in range(grid.shape[0])
                ],
            )
        ]
    )
    frames: list[tuple[int, int, np.ndarray]] = []  # segment, slice, pixels
    if kind == "LABELMAP":
        labels = np.zeros(grid.shape, np.uint8)
        for number, mask in enumerate(segments.values(), 1):
            labels[mask.astype(bool)] = number
        frames = [(0, z, pixels) for z, pixels in enumerate(labels)]
    else:
        for number, mask in enumerate(segments.values(), 1):
            frames += [(number, z, pixels) for z, pixels in enumerate(mask) if pixels.any() or not skips_empty]
    if frames_turned:
        frames = frames[::-1]
    normal = np.cross(grid.x, grid.y)
    measures = item(
        PixelSpacing=_text(grid.spacing_yx),
        SliceThickness="3",
        SpacingBetweenSlices=f"{abs(float(normal @ np.array(grid.step))):.10g}",
    )
    shared = item(
        PixelMeasuresSequence=[measures],
        PlaneOrientationSequence=[item(ImageOrientationPatient=_text([grid.x, grid.y]))],
    )
    data.SharedFunctionalGroupsSequence = Items([shared])
    items = []
    for segment, z, _ in frames:
        frame = item(PlanePositionSequence=[item(ImagePositionPatient=_text(grid.place(z)))])
        if segment:
            frame.SegmentIdentificationSequence = Items([item(ReferencedSegmentNumber=segment)])
        items.append(frame)
    data.PerFrameFunctionalGroupsSequence = Items(items)
    data.NumberOfFrames = len(frames)
    data.Rows, data.Columns = grid.shape[1:]
    data.SamplesPerPixel = 1
    data.PhotometricInterpretation = "MONOCHROME2"
    bits = 1 if kind == "BINARY" else 8
    data.BitsAllocated = data.BitsStored = bits
    data.HighBit = bits - 1
    data.PixelRepresentation = 0
    pixels = np.array([each for _, _, each in frames]).astype(np.uint8)
    stored = np.packbits(pixels.ravel(), bitorder="little") if bits == 1 else pixels
    content = stored.tobytes()
    data.PixelData = content + bytes(len(content) % 2)
    data["PixelData"].VR = "OB"
    for keyword, value in elements.items():
        setattr(data, keyword, value)
    return _save(data, path)


def write_enhanced(
    path: Path, image_zyx: np.ndarray, grid: Grid = Grid(), *, order: Sequence[int] | None = None, **elements: object
) -> Path:
    """An enhanced MR image: all slices as frames of one file, in any ``order``."""
    data = _file(ENHANCED_MR, f"{grid.series}.1")
    data.Modality = "MR"
    data.PatientID = "P-1"
    data.PatientName = "Doe^Jane"
    data.SeriesInstanceUID = grid.series
    data.FrameOfReferenceUID = grid.frame
    slices = list(range(len(image_zyx)) if order is None else order)
    data.SharedFunctionalGroupsSequence = Items(
        [
            item(
                PixelMeasuresSequence=[item(PixelSpacing=_text(grid.spacing_yx), SliceThickness="3")],
                PlaneOrientationSequence=[item(ImageOrientationPatient=_text([grid.x, grid.y]))],
            )
        ]
    )
    data.PerFrameFunctionalGroupsSequence = Items(
        [
            item(
                PlanePositionSequence=[item(ImagePositionPatient=_text(grid.place(z)))],
                PixelValueTransformationSequence=[item(RescaleSlope="2", RescaleIntercept=str(-100 - z))],
            )
            for z in slices
        ]
    )
    data.NumberOfFrames = len(slices)
    data.Rows, data.Columns = image_zyx.shape[1:]
    data.SamplesPerPixel = 1
    data.PhotometricInterpretation = "MONOCHROME2"
    data.BitsAllocated = data.BitsStored = 16
    data.HighBit = 15
    data.PixelRepresentation = 0
    data.PixelData = image_zyx[slices].astype("<u2").tobytes()
    for keyword, value in elements.items():
        setattr(data, keyword, value)
    return _save(data, path)


def write_seg_nrrd(
    path: Path, layers: np.ndarray, names: dict[str, tuple[int, int]], origin=(-31.0, 17.5, 40.0)
) -> Path:
    """Layers (L, Z, Y, X), and by name (value, layer); written as text and zlib, as the format says, by no library."""
    array = layers.astype(np.uint8)
    several = len(array) > 1
    head = ["NRRD0004", "type: uint8", f"dimension: {4 if several else 3}", "space: left-posterior-superior"]
    sizes = " ".join(map(str, array.shape[:0:-1]))
    head += [f"sizes: {len(array)} {sizes}" if several else f"sizes: {sizes}"]
    directions = "(0.75,0,0) (0,1.5,0) (0,0,3)"
    head += [f"space directions: none {directions}" if several else f"space directions: {directions}"]
    head += [f"kinds: {'list ' if several else ''}domain domain domain", "encoding: gzip"]
    head += [f"space origin: ({','.join(map(str, origin))})"]
    for number, (name, (value, layer)) in enumerate(names.items()):
        head += [f"Segment{number}_ID:=Segment_{number}", f"Segment{number}_Name:={name}"]
        head += [f"Segment{number}_LabelValue:={value}", f"Segment{number}_Layer:={layer}"]
    voxels = np.moveaxis(array, 0, -1) if several else array[0]
    encoder = zlib.compressobj(9, zlib.DEFLATED, 31)
    path.write_bytes("\n".join(head).encode() + b"\n\n" + encoder.compress(voxels.tobytes()) + encoder.flush())
    return path
