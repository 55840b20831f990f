"""DICOM SR (TID 1500): the volume of each structure, beside the segments of a DICOM SEG, written by highdicom."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING

from segfw.base.files import whole_file
from segfw.base.own_version import own_version
from segfw.base.records import UserError
from segfw.dataset.finished_mask import FinishedMask
from segfw.images.units import SCAN
from segfw.interop.dicom_codes import AI, UNICODE, complete_header, concept, taken_as_they_are
from segfw.interop.signed_elements import add_evidence, state_verification
from segfw.interop.write_dicom_seg import Segmentation
from segfw.interop.written_structures import ALTERED, GENERIC, WrittenStructure, dicom_text

if TYPE_CHECKING:
    from highdicom.sr import VolumetricROIMeasurementsAndQualitativeEvaluations
    from pydicom import Dataset

SERIES_NUMBER = 302
VOLUME = ("SCT", "118565006", "Volume")
MILLILITRE = ("UCUM", "ml", "milliliter")
PROCEDURE = ("SCT", "363679005", "Imaging procedure")
RELATIVE = 1e-6  # by which a volume may be off after it was a decimal of 16 digits


def write_report(path: Path, mask: FinishedMask, segmentation: Segmentation) -> None:
    """Writes the volumes in ml, as many as there are structures with voxels, and reads them back.

    A structure without voxels has no segment to point to, and a volume of nothing is no finding: it is left out. Raises
    UserError if what was written are not these volumes.
    """
    from highdicom.sr import (
        Comprehensive3DSR,
        DeviceObserverIdentifyingAttributes,
        MeasurementReport,
        ObservationContext,
        ObserverContext,
    )
    from pydicom.sr.codedict import codes
    from pydicom.uid import generate_uid

    series = segmentation.series
    voxel_ml = SCAN.voxel_size(series.geometry)
    volumes_ml = {number: voxels * voxel_ml for number, voxels in segmentation.voxels.items()}
    of_device = DeviceObserverIdentifyingAttributes(
        uid=generate_uid(prefix=None),
        name=dicom_text(mask.maker.name),
        manufacturer_name="segfw",
        model_name=dicom_text(mask.maker.name),
    )
    observer = ObserverContext(observer_type=codes.DCM.Device, observer_identifying_attributes=of_device)
    groups = [
        _measured(structure, volumes_ml[structure.number], mask, segmentation)
        for structure in segmentation.structures
        if structure.number in volumes_ml
    ]
    report = MeasurementReport(
        observation_context=ObservationContext(observer_device_context=observer),
        procedure_reported=concept(PROCEDURE),
        imaging_measurements=groups,
    )
    with taken_as_they_are(path):
        dataset = Comprehensive3DSR(
            evidence=[segmentation.dataset, *(complete_header(part) for part in series.slices)],
            content=report[0],
            series_instance_uid=generate_uid(prefix=None),
            series_number=SERIES_NUMBER,
            sop_instance_uid=generate_uid(prefix=None),
            instance_number=1,
            manufacturer="segfw",
            is_complete=mask.statement.signature is not None,
            is_final=False,
            is_verified=False,
            series_description=dicom_text(f"{mask.statement.title}: {mask.maker.name}"),
            manufacturer_model_name=dicom_text(mask.maker.name),
            software_versions=dicom_text(own_version()),
            specific_character_set=UNICODE,
        )
    dataset.CompletionFlagDescription = dicom_text(mask.statement.title)
    state_verification(dataset, mask, series)
    add_evidence(dataset, mask)
    with whole_file(path) as partial:
        with taken_as_they_are(path):
            dataset.save_as(partial, enforce_file_format=True)
        _check(partial, path, segmentation, volumes_ml)


def _measured(
    structure: WrittenStructure, volume_ml: float, mask: FinishedMask, segmentation: Segmentation
) -> VolumetricROIMeasurementsAndQualitativeEvaluations:
    """What is said of one structure."""
    from highdicom.sr import (
        AlgorithmIdentification,
        FindingSite,
        Measurement,
        ReferencedSegment,
        SourceSeriesForSegmentation,
        TrackingIdentifier,
        VolumetricROIMeasurementsAndQualitativeEvaluations,
    )

    series_uid = str(segmentation.series.first.SeriesInstanceUID)
    segment = ReferencedSegment(
        sop_class_uid=str(segmentation.dataset.SOPClassUID),
        sop_instance_uid=str(segmentation.dataset.SOPInstanceUID),
        segment_number=structure.number,
        source_series=SourceSeriesForSegmentation(referenced_series_instance_uid=series_uid),
    )
    algorithm = AlgorithmIdentification(
        name=dicom_text(mask.maker.name), version=dicom_text(mask.maker.digest or own_version()), family=concept(AI)
    )
    is_manual = mask.statement.algorithm_type(structure.name) == "MANUAL"
    laterality = concept(structure.modifier) if structure.modifier is not None else None
    sites = None
    if structure.kind != GENERIC and structure.category != ALTERED:  # a tumour is no place in the body
        sites = [FindingSite(anatomic_location=concept(structure.kind), laterality=laterality)]
    return VolumetricROIMeasurementsAndQualitativeEvaluations(
        tracking_identifier=TrackingIdentifier(
            uid=structure.tracking_uid(series_uid), identifier=dicom_text(structure.name)
        ),
        referenced_segment=segment,
        finding_category=concept(structure.category),
        finding_type=concept(structure.kind),
        finding_sites=sites,
        algorithm_id=None if is_manual else algorithm,
        measurements=[Measurement(name=concept(VOLUME), value=volume_ml, unit=concept(MILLILITRE))],
    )


def _check(partial: Path, path: Path, segmentation: Segmentation, volumes_ml: dict[int, float]) -> None:
    """UserError naming ``path`` unless each segment's volume is in the file."""
    from pydicom import dcmread

    written: dict[str, float] = {}
    for container in _containers(dcmread(partial)):
        uids = [item.UID for item in container if item.ValueType == "UIDREF"]
        values = [
            float(item.MeasuredValueSequence[0].NumericValue)
            for item in container
            if item.ValueType == "NUM" and item.ConceptNameCodeSequence[0].CodeValue == VOLUME[1]
        ]
        written |= dict(zip(uids, values))
    series_uid = str(segmentation.series.first.SeriesInstanceUID)
    for structure in segmentation.structures:
        expected = volumes_ml.get(structure.number)
        found = written.get(structure.tracking_uid(series_uid))
        is_same = expected == found if None in (expected, found) else abs(found - expected) <= RELATIVE * expected  # type: ignore[operator]
        if not is_same:
            raise UserError(f"{path}: says {found} ml of {structure.name}, which has {expected}; please report it")


def _containers(item: Dataset) -> list[list[Dataset]]:
    """The contents of all groups of measurements, however deep they lie."""
    content = list(item.get("ContentSequence", ()))
    inner = [group for part in content for group in _containers(part)]
    return [content, *inner] if any(part.ValueType == "NUM" for part in content) else inner
