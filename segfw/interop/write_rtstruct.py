"""RTSTRUCT: the outlines of a mask, for planning systems (DICOM PS3.3, A.19).

Outlines run along the edges of voxels, so that filling them at the centres of voxels gives the mask, and their area is
that of the voxels. A hole is part of the outline around it by a channel of no width ('keyhole', C.8.8.6.3): a polygon
of its own some planning systems fill. ``holes`` 'xor' writes such polygons, of the type that the standard has for them.

Places are in millimetres of the patient, of each slice by its own header: a gantry tilt stays as it is.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from datetime import datetime
from pathlib import Path
from typing import TYPE_CHECKING, Literal

import numpy as np

from segfw.base.files import whole_file
from segfw.base.own_version import own_version
from segfw.base.records import UserError
from segfw.dataset.finished_mask import FinishedMask, MaskMaker
from segfw.dataset.labels import LABELS_FILE, LabelSet
from segfw.interop.contours import Outlines, outlines
from segfw.interop.dicom_codes import AI, UNICODE, code_item, complete_header, taken_as_they_are
from segfw.interop.fill_outlines import filled
from segfw.interop.mask_centres import CENTROID_MM, sizes_and_centres
from segfw.interop.reference_series import ReferenceSeries, read_reference, require_series
from segfw.interop.signed_elements import add_evidence, state_approval
from segfw.interop.written_structures import (
    WrittenStructure,
    dicom_text,
    in_layers,
    numbered,
    written_structures,
)

if TYPE_CHECKING:
    from pydicom import Dataset

Holes = Literal["keyhole", "xor"]
STORAGE = "1.2.840.10008.5.1.4.1.1.481.3"
STUDY_COMPONENT = "1.2.840.10008.3.1.2.3.1"  # what a structure set calls the study that it refers to
SERIES_NUMBER = 301  # of what is made of a study's series, behind its own
CLOSED = b"CLOSED_PLANAR"
XOR = b"CLOSEDPLANAR_XOR"  # of a structure with holes that are outlines of their own
SHORT_TEXT = 16
AREA_SHARE = 1e-4  # of the area of a structure
# Kept of the headers of the series: who and what was scanned.
OF_PATIENT_AND_STUDY = (
    *("PatientName", "PatientID", "IssuerOfPatientID", "PatientBirthDate", "PatientSex", "PatientAge", "PatientSize"),
    *("PatientWeight", "StudyInstanceUID", "StudyDate", "StudyTime", "StudyID", "StudyDescription", "AccessionNumber"),
    *("ReferringPhysicianName", "FrameOfReferenceUID", "PositionReferenceIndicator"),
    *("PatientIdentityRemoved", "DeidentificationMethod"),
)


@dataclass(frozen=True, kw_only=True)
class StructureSetFormat:
    """``rtstruct/CASE.dcm``."""

    holes: Holes = "keyhole"
    folder: str = "rtstruct"

    @property
    def bytes_per_image_byte(self) -> float:
        return 0.5

    def files(self, case_id: str) -> tuple[str, ...]:
        return (f"{self.folder}/{case_id}.dcm",)

    def require_kind(self, case_id: str, image: Path | None) -> None:
        require_series(case_id, image, "rtstruct")

    def require(self, case_id: str, image: Path | None) -> None:
        read_reference(image)

    def write(self, folder: Path, mask: FinishedMask) -> None:
        write_rtstruct(folder / self.files(mask.case_id)[0], mask, holes=self.holes)

    def write_about(self, folder: Path, labels: LabelSet, maker: MaskMaker) -> None:
        labels.save(folder / self.folder / LABELS_FILE)


def write_rtstruct(path: Path, mask: FinishedMask, *, holes: Holes = "keyhole") -> None:
    """Writes a mask of a DICOM series as a structure set, reads it back, and leaves it only if it holds the mask.

    Raises UserError if the image is no series or its headers lack what is referred to, and if what was written, filled
    at the centres of voxels, is not the mask, or has its centre or its area elsewhere than the mask.
    """
    from pydicom import dcmwrite

    series = read_reference(mask.image, mask.geometry)
    values_zyx = series.mask_in_order(mask.values_zyx, mask.geometry)
    structures = written_structures(mask.labels, mask.structures)
    with taken_as_they_are(path):
        dataset = _structure_set(mask, series, structures)
    rois: dict[int, Dataset] = {}
    for layer in in_layers(structures):
        numbers_zyx = numbered(values_zyx, layer, mask.labels)
        found = outlines(numbers_zyx, keyholes=holes == "keyhole")
        with_holes = set(found.structures[found.areas() < 0].tolist())
        for structure in layer:
            kind = XOR if structure.number in with_holes else CLOSED
            rois[structure.number] = _contours(structure, found, series, kind)
    dataset.ROIContourSequence = [rois[structure.number] for structure in structures]
    with whole_file(path) as partial:
        with taken_as_they_are(path):
            dcmwrite(partial, dataset, enforce_file_format=True)
        check_rtstruct(partial, path, values_zyx, series, structures, mask.labels)


# ---- what is written ----


def _structure_set(mask: FinishedMask, series: ReferenceSeries, structures: Sequence[WrittenStructure]) -> Dataset:
    """The file without its outlines."""
    from pydicom.dataset import Dataset, FileMetaDataset
    from pydicom.uid import UID, ImplicitVRLittleEndian, generate_uid

    now = datetime.now()
    dataset = Dataset()
    dataset.SpecificCharacterSet = UNICODE
    header = complete_header(series.first)
    for name in OF_PATIENT_AND_STUDY:
        if name in header:
            dataset[name] = header[name]
    dataset.OperatorsName = None
    dataset.SeriesNumber = SERIES_NUMBER
    dataset.SOPClassUID = STORAGE
    dataset.SOPInstanceUID = generate_uid(prefix=None)
    dataset.InstanceCreationDate = now.strftime("%Y%m%d")
    dataset.InstanceCreationTime = now.strftime("%H%M%S")
    dataset.file_meta = FileMetaDataset()
    dataset.file_meta.TransferSyntaxUID = ImplicitVRLittleEndian
    dataset.file_meta.MediaStorageSOPClassUID = UID(STORAGE)
    dataset.file_meta.MediaStorageSOPInstanceUID = dataset.SOPInstanceUID

    # Series, equipment and approval
    dataset.Modality = "RTSTRUCT"
    dataset.SeriesInstanceUID = generate_uid(prefix=None)
    dataset.SeriesDescription = dicom_text(f"{mask.statement.title}: {mask.maker.name}")
    dataset.Manufacturer = "segfw"
    dataset.ManufacturerModelName = dicom_text(mask.maker.name)
    dataset.SoftwareVersions = dicom_text(own_version())
    state_approval(dataset, mask)

    # The structure set
    dataset.StructureSetLabel = dicom_text(mask.statement.word, SHORT_TEXT)
    dataset.StructureSetName = dicom_text(mask.statement.title)
    dataset.StructureSetDescription = f"{mask.statement.title}; {mask.maker.name}, model {mask.maker.digest}"
    dataset.StructureSetDate = now.strftime("%Y%m%d")
    dataset.StructureSetTime = now.strftime("%H%M%S")
    dataset.ReferencedFrameOfReferenceSequence = [_frame_of_reference(series)]
    dataset.StructureSetROISequence = [_roi(each, mask, series) for each in structures]
    dataset.RTROIObservationsSequence = [_observation(each) for each in structures]
    add_evidence(dataset, mask)
    return dataset


def _frame_of_reference(series: ReferenceSeries) -> Dataset:
    from pydicom.dataset import Dataset

    of_series = Dataset()
    of_series.SeriesInstanceUID = series.first.SeriesInstanceUID
    of_series.ContourImageSequence = [_reference(part) for part in series.slices]
    study = Dataset()
    study.ReferencedSOPClassUID = STUDY_COMPONENT
    study.ReferencedSOPInstanceUID = series.first.StudyInstanceUID
    study.RTReferencedSeriesSequence = [of_series]
    frame = Dataset()
    frame.FrameOfReferenceUID = series.first.FrameOfReferenceUID
    frame.RTReferencedStudySequence = [study]
    return frame


def _reference(part: Dataset) -> Dataset:
    from pydicom.dataset import Dataset

    reference = Dataset()
    reference.ReferencedSOPClassUID = part.SOPClassUID
    reference.ReferencedSOPInstanceUID = part.SOPInstanceUID
    return reference


def _roi(structure: WrittenStructure, mask: FinishedMask, series: ReferenceSeries) -> Dataset:
    from pydicom.dataset import Dataset

    algorithm = Dataset()
    algorithm.AlgorithmFamilyCodeSequence = [code_item(AI)]
    algorithm.AlgorithmName = dicom_text(mask.maker.name)
    algorithm.AlgorithmVersion = dicom_text(mask.maker.digest or own_version())
    roi = Dataset()
    roi.ROINumber = structure.number
    roi.ReferencedFrameOfReferenceUID = series.first.FrameOfReferenceUID
    roi.ROIName = dicom_text(structure.name)
    roi.ROIDescription = structure.description(mask.statement)
    roi.ROIGenerationAlgorithm = mask.statement.algorithm_type(structure.name)
    if roi.ROIGenerationAlgorithm != "MANUAL":
        roi.ROIGenerationDescription = dicom_text(mask.maker.text)
        roi.ROIDerivationAlgorithmIdentificationSequence = [algorithm]
    return roi


def _observation(structure: WrittenStructure) -> Dataset:
    from pydicom.dataset import Dataset

    kind = code_item(structure.kind)
    if structure.modifier is not None:
        kind.SegmentedPropertyTypeModifierCodeSequence = [code_item(structure.modifier)]
    observation = Dataset()
    observation.ObservationNumber = structure.number
    observation.ReferencedROINumber = structure.number
    observation.SegmentedPropertyCategoryCodeSequence = [code_item(structure.category)]
    observation.RTROIIdentificationCodeSequence = [kind]
    observation.RTROIInterpretedType = ""  # what it is in a plan is for the planner to say
    observation.ROIInterpreter = ""
    return observation


def _contours(structure: WrittenStructure, found: Outlines, series: ReferenceSeries, kind: bytes) -> Dataset:
    """All outlines of a structure; of one without voxels there are none."""
    from pydicom.dataelem import RawDataElement
    from pydicom.dataset import Dataset
    from pydicom.tag import Tag

    item = Dataset()
    item.ROIDisplayColor = list(structure.colour)
    item.ReferencedROINumber = structure.number
    polygons = np.flatnonzero(found.structures == structure.number)
    if not len(polygons):
        return item
    first = polygons[0]
    last = polygons[-1] + 1
    starts = found.starts[first : last + 1]
    corners_yx = found.corners_yx[starts[0] : starts[-1]]
    slices = found.slices[first:last]
    places_mm = series.to_mm(np.repeat(slices, np.diff(starts)), corners_yx)
    texts = list(map("%.10g".__mod__, (np.round(places_mm, 6) + 0.0).ravel().tolist()))
    references = [_element(0x3006, 0x0016, _items([_reference_bytes(part)])) for part in series.slices]
    contours = []
    for number, (start, stop, z) in enumerate(zip(starts - starts[0], starts[1:] - starts[0], slices.tolist()), 1):
        contours.append(
            references[z]
            + _element(0x3006, 0x0042, kind)
            + _element(0x3006, 0x0046, b"%d" % (stop - start))
            + _element(0x3006, 0x0048, b"%d" % number)
            + _element(0x3006, 0x0050, "\\".join(texts[3 * start : 3 * stop]).encode())
        )
    # As bytes: pydicom would make an object of every number, a hundred bytes and a microsecond each.
    content = _items(contours)
    tag = Tag(0x3006, 0x0040)
    item[tag] = RawDataElement(tag, "SQ", len(content), content, 0, True, True)
    item.set_original_encoding(True, True, item._character_set)
    return item


def _element(group: int, number: int, value: bytes) -> bytes:
    """An element of implicit type, little endian (PS3.5, 7.1.3)."""
    padded = value + b" " * (len(value) % 2)
    return group.to_bytes(2, "little") + number.to_bytes(2, "little") + len(padded).to_bytes(4, "little") + padded


def _items(contents: Sequence[bytes]) -> bytes:
    """A sequence of items of known length (PS3.5, 7.5.2)."""
    return b"".join(b"\xfe\xff\x00\xe0" + len(content).to_bytes(4, "little") + content for content in contents)


def _reference_bytes(part: Dataset) -> bytes:
    sop_class = _element(0x0008, 0x1150, _uid(str(part.SOPClassUID)))
    return sop_class + _element(0x0008, 0x1155, _uid(str(part.SOPInstanceUID)))


def _uid(text: str) -> bytes:
    """UIDs are padded by zeros, not by blanks."""
    return text.encode() + b"\0" * (len(text) % 2)


# ---- what is proven ----


def check_rtstruct(
    partial: Path,
    path: Path,
    values_zyx: np.ndarray,
    series: ReferenceSeries,
    structures: Sequence[WrittenStructure],
    labels: LabelSet,
) -> None:
    """UserError naming ``path`` unless the outlines in ``partial`` hold the mask: voxels, areas and centres."""
    from pydicom import dcmread

    dataset = dcmread(partial)
    slice_of = {str(part.SOPInstanceUID): index for index, part in enumerate(series.slices)}
    written = {int(item.ReferencedROINumber): item for item in dataset.ROIContourSequence}
    for layer in in_layers(structures):
        numbers_zyx = numbered(values_zyx, layer, labels)
        expected = sizes_and_centres(numbers_zyx, series)
        for structure in layer:
            polygons = _polygons(written[structure.number], slice_of)
            problem = _difference(polygons, structure.number, numbers_zyx, expected, series)
            if problem:
                raise UserError(
                    f"{path}: {structure.name} would not be what the mask holds ({problem}), so that the file was not "
                    "written; please report it with the series' geometry"
                )


@dataclass(frozen=True, kw_only=True)
class _Polygons:
    """Closed polygons as a file holds them: LPS places (N, 3), where each begins (P + 1,), and their slices (P,)."""

    places_mm: np.ndarray
    starts: np.ndarray
    slices: np.ndarray


def _polygons(item: Dataset, slice_of: dict[str, int]) -> _Polygons:
    from pydicom.tag import Tag

    parts = []
    slices = []
    for contour in item.get("ContourSequence", ()):
        raw = contour.get_item(Tag(0x3006, 0x0050)).value
        parts.append(np.array(raw.split(b"\\"), dtype=np.float64).reshape(-1, 3))
        slices.append(slice_of[str(contour.ContourImageSequence[0].ReferencedSOPInstanceUID)])
    starts = np.cumsum([0, *map(len, parts)])
    places = np.concatenate(parts) if parts else np.zeros((0, 3))
    return _Polygons(places_mm=places, starts=starts, slices=np.array(slices, np.int64))


def _difference(
    polygons: _Polygons,
    number: int,
    numbers_zyx: np.ndarray,
    expected: dict[int, tuple[int, np.ndarray]],
    series: ReferenceSeries,
) -> str:
    """What differs between outlines and the mask, in words; '' if nothing does."""
    voxels, centre_mm = expected.get(number, (0, np.zeros(3)))
    if not voxels or not len(polygons.slices):
        has = bool(len(polygons.slices))
        return "" if has == bool(voxels) else f"{voxels} voxels, and {len(polygons.slices)} outlines"

    # In voxels of their slice
    each = np.repeat(polygons.slices, np.diff(polygons.starts))
    offsets = polygons.places_mm - series.positions_mm[each]
    inverse = np.linalg.pinv(series.steps_mm.transpose(0, 2, 1))  # (Z, 2, 3)
    corners_yx = np.einsum("nij,nj->ni", inverse[each], offsets)
    off_plane_mm = np.linalg.norm(offsets - np.einsum("nij,ni->nj", series.steps_mm[each], corners_yx), axis=1).max()
    if off_plane_mm > CENTROID_MM:
        return f"outlines up to {off_plane_mm:.3g} mm off their slice"
    box = filled(corners_yx, polygons.starts, polygons.slices)
    inside = numbers_zyx[box.box] == number
    wrong = int((inside != box.inside).sum()) if inside.shape == box.inside.shape else voxels
    wrong += voxels - int(inside.sum())
    if wrong:
        return f"{wrong} wrong voxels"

    # Centre and area of the polygons themselves, without any voxel
    area_mm2, polygon_centre_mm = _area_and_centre(corners_yx, polygons, series)
    exact_mm2 = voxels * series.slice_area_mm2
    if abs(area_mm2 - exact_mm2) > AREA_SHARE * exact_mm2:
        return f"{area_mm2:.6g} mm2 instead of {exact_mm2:.6g} mm2"
    distance_mm = float(np.linalg.norm(polygon_centre_mm - centre_mm))
    return f"its centre is {distance_mm:.3g} mm off" if distance_mm > CENTROID_MM else ""


def _area_and_centre(corners_yx: np.ndarray, polygons: _Polygons, series: ReferenceSeries) -> tuple[float, np.ndarray]:
    """(Area in mm2, LPS centre) of polygons, holes taken away, by their corners alone."""
    following = np.arange(1, len(corners_yx) + 1)
    following[polygons.starts[1:] - 1] = polygons.starts[:-1]
    # From the middle of each polygon, lest large numbers cancel
    middles = np.add.reduceat(corners_yx, polygons.starts[:-1], axis=0) / np.diff(polygons.starts)[:, None]
    local = corners_yx - np.repeat(middles, np.diff(polygons.starts), axis=0)
    after = local[following]
    cross = local[:, 1] * after[:, 0] - after[:, 1] * local[:, 0]
    areas = np.add.reduceat(cross, polygons.starts[:-1]) / 2
    moments = np.add.reduceat((local + after) * cross[:, None], polygons.starts[:-1], axis=0) / 6
    steps = series.steps_mm[polygons.slices]
    points = moments + middles * areas[:, None]  # (P, 2), area times centre
    sums = areas[:, None] * series.positions_mm[polygons.slices]
    sums = sums + points[:, :1] * steps[:, 0] + points[:, 1:] * steps[:, 1]
    return abs(float(areas.sum())) * series.slice_area_mm2, sums.sum(0) / areas.sum()
