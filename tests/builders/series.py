"""DICOM series as a scanner writes them, by pydicom, and masks on their grid."""

from __future__ import annotations

from pathlib import Path

import numpy as np

AXIAL = np.array([[1.0, 0, 0], [0, 1, 0]])  # LPS directions of x (along a row) and y (down a column)
OBLIQUE = np.array([[0.8, 0.6, 0], [-0.48, 0.64, 0.6]])
UID = "1.2.826.0.1.3680043.8.498"
PATIENT = "Mustermann^Erika"
CT = "1.2.840.10008.5.1.4.1.1.2"


def write_series(
    folder: Path,
    array_zyx: np.ndarray,
    *,
    spacing_mm: tuple[float, float, float] = (3.0, 0.75, 0.5),  # z y x
    axes: np.ndarray = AXIAL,
    step_mm: np.ndarray | None = None,
    origin_mm: tuple[float, float, float] = (-121.5, -80.25, 33.0),
    number: int = 1,
    shuffled: int | None = None,
    changes: dict[str, object] | None = None,
    patient: str = PATIENT,
) -> Path:
    """A CT series in ``folder``, a file a slice; ``step_mm`` (LPS) leads from slice to slice if not along the normal.

    ``shuffled`` is a seed for file names in no order. ``changes`` are attributes of every slice; None takes one away.
    """
    from pydicom import dcmwrite
    from pydicom.dataset import Dataset, FileMetaDataset
    from pydicom.uid import ExplicitVRLittleEndian

    folder.mkdir(parents=True, exist_ok=True)
    step = spacing_mm[0] * np.cross(axes[0], axes[1]) if step_mm is None else np.asarray(step_mm)
    names = np.arange(len(array_zyx))
    if shuffled is not None:
        names = np.random.default_rng(shuffled).permutation(names)
    for z, slice_yx in enumerate(np.asarray(array_zyx, np.int16)):
        one = Dataset()
        one.file_meta = FileMetaDataset()
        one.file_meta.TransferSyntaxUID = ExplicitVRLittleEndian
        one.SpecificCharacterSet = "ISO_IR 192"
        one.SOPClassUID = CT
        one.SOPInstanceUID = f"{UID}.{number}.3.{z + 1}"
        one.file_meta.MediaStorageSOPClassUID = CT
        one.file_meta.MediaStorageSOPInstanceUID = one.SOPInstanceUID
        one.StudyInstanceUID = f"{UID}.{number}.1"
        one.SeriesInstanceUID = f"{UID}.{number}.2"
        one.FrameOfReferenceUID = f"{UID}.{number}.4"
        one.PositionReferenceIndicator = ""
        one.Modality = "CT"
        one.Manufacturer = "maker"
        one.StudyDate = "20240102"
        one.StudyTime = "101112"
        one.StudyID = "7"
        one.AccessionNumber = "A7"
        one.ReferringPhysicianName = "Arzt^Anna"
        one.PatientName = patient
        one.PatientID = "P-0815"
        one.PatientBirthDate = "19700203"
        one.PatientSex = "F"
        one.SeriesNumber = number
        one.InstanceNumber = z + 1
        one.ImageType = ["ORIGINAL", "PRIMARY", "AXIAL"]
        one.ImagePositionPatient = [float(f"{value:.9g}") for value in np.asarray(origin_mm) + z * step]
        one.ImageOrientationPatient = [float(f"{value:.9g}") for value in axes.ravel()]
        one.PixelSpacing = [spacing_mm[1], spacing_mm[2]]
        one.SliceThickness = spacing_mm[0]
        one.Rows, one.Columns = slice_yx.shape
        one.SamplesPerPixel = 1
        one.PhotometricInterpretation = "MONOCHROME2"
        one.BitsAllocated = 16
        one.BitsStored = 16
        one.HighBit = 15
        one.PixelRepresentation = 1
        one.RescaleIntercept = 0
        one.RescaleSlope = 1
        one.PixelData = slice_yx.tobytes()
        for name, value in (changes or {}).items():
            if value is None:
                delattr(one, name)
            else:
                setattr(one, name, value)
        dcmwrite(folder / f"{names[z]:04}.dcm", one, enforce_file_format=True)
    return folder
