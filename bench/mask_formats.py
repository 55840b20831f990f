"""Seconds, memory and bytes of each format that masks are written in, for a CT with as many structures as it may have.

    python -m bench mask-formats [--structures 117] [--size 450 512 512] [--formats nifti ...] [--work formats_check]

The series and the mask are made up. Each format is written in a process of its own, which reads the file back, as
``segfw predict`` does; a process that writes nothing tells what the mask and the libraries take.
"""

from __future__ import annotations

import argparse
import os
import resource
import shutil
import sys
from collections.abc import Sequence
from pathlib import Path

import numpy as np

from bench.evaluation import organ_masks
from bench.measure import measure
from bench.measuring import LARGEST, SPACING_MM, require_new
from segfw.dataset.finished_mask import FinishedMask, MaskFormat, MaskMaker
from segfw.dataset.labels import LabelSet
from segfw.interop.mask_formats import FormatWishes, mask_formats
from segfw.interop.reference_series import read_reference

NOTHING = "nothing"
# What is measured: name, format, how it is written.
FORMATS: dict[str, tuple[str, FormatWishes]] = {
    "nifti": ("nifti", FormatWishes()),
    "seg.nrrd": ("seg.nrrd", FormatWishes()),
    "bids": ("bids", FormatWishes()),
    "rtstruct": ("rtstruct", FormatWishes()),
    "rtstruct --holes xor": ("rtstruct", FormatWishes(holes="xor")),
    "dicom-seg": ("dicom-seg", FormatWishes()),
    "dicom-seg --sr": ("dicom-seg", FormatWishes(report=True)),
    "dicom-seg --seg-type labelmap": ("dicom-seg", FormatWishes(is_labelmap=True)),
}
MASK = "mask.npy"
SERIES = "series"
OUTPUT = "out"


def main(arguments: Sequence[str] | None = None) -> None:
    parser = argparse.ArgumentParser(
        prog="python -m bench mask-formats", description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--structures", type=int, default=117)
    parser.add_argument("--size", type=int, nargs=3, default=(450, 512, 512), help="voxels along z, y and x")
    parser.add_argument("--formats", nargs="+", choices=FORMATS, default=list(FORMATS))
    parser.add_argument("--work", type=Path, default=Path("formats_check"), help="is made and removed")
    parser.add_argument("--write", choices=[NOTHING, *FORMATS], help=argparse.SUPPRESS)  # in the process of one format
    args = parser.parse_args(arguments)
    if args.write is not None:
        write_one(args.work, args.write)
        return
    require_new(args.work)
    size_z, size_y, size_x = args.size
    share = write_case(args.work, (size_z, size_y, size_x), args.structures)
    size = "x".join(map(str, args.size))
    print(f"{size} voxels, {args.structures} structures ({share:.0%} of it), one process a format")
    for name in [NOTHING, *args.formats]:
        print(measured(args.work, name), flush=True)
    shutil.rmtree(args.work)


def measured(work: Path, name: str) -> str:
    """Writes a format in a process of its own and says what that took."""
    before = resource.getrusage(resource.RUSAGE_CHILDREN)
    command = [sys.executable, "-m", "bench", "mask-formats", "--work", str(work), "--write", name]
    taken = measure(command, env=os.environ | {"OMP_NUM_THREADS": "1"}, log=work / "log")
    after = resource.getrusage(resource.RUSAGE_CHILDREN)
    core_s = after.ru_utime + after.ru_stime - before.ru_utime - before.ru_stime
    files = [path for path in (work / OUTPUT).rglob("*") if path.is_file()]
    megabytes = sum(path.stat().st_size for path in files) / 1e6
    shutil.rmtree(work / OUTPUT, ignore_errors=True)
    return (
        f"{name:30} {core_s:6.1f} s of a core, {taken.wall_s:6.1f} s, {taken.peak_pss_gb:5.2f} GB at most, "
        f"{megabytes:7.1f} MB"
    )


def write_one(work: Path, name: str) -> None:
    """Writes the mask in one format, and reads it back."""
    mask = finished(work)
    if name != NOTHING:
        format, wishes = FORMATS[name]
        each: MaskFormat
        for each in mask_formats([format], wishes):
            each.write(work / OUTPUT, mask)


def finished(work: Path) -> FinishedMask:
    """The mask as ``predict`` would have it, with the series that it is of."""
    values = np.load(work / MASK)
    names = tuple(f"structure {value}" for value in range(1, int(values.max()) + 1))
    return FinishedMask(
        case_id="case",
        values_zyx=values,
        geometry=read_reference(work / SERIES).geometry,
        labels=LabelSet(names=("background", *names), values=tuple(range(len(names) + 1))),
        maker=MaskMaker(name="segfw bench", digest="0" * 64),
        image=work / SERIES,
    )


def write_case(work: Path, shape: tuple[int, int, int], structures: int) -> float:
    """A mask of ellipsoids and a CT series of noise; the share that the ellipsoids fill."""
    work.mkdir(parents=True)
    mask, _ = organ_masks(shape, structures + 1, 0, LARGEST)
    np.save(work / MASK, mask.astype(np.uint8 if structures < 256 else np.uint16))
    write_series(work / SERIES, np.random.default_rng(0).integers(-20, 21, shape, dtype=np.int16))
    return float((mask > 0).mean())


def write_series(
    folder: Path,
    array_zyx: np.ndarray,
    spacing_mm: tuple[float, float, float] = SPACING_MM,  # z y x
) -> None:
    """A CT series with no more in its headers than what is referred to."""
    from pydicom import dcmwrite
    from pydicom.dataset import Dataset, FileMetaDataset
    from pydicom.uid import CTImageStorage, ExplicitVRLittleEndian, generate_uid

    folder.mkdir()
    study, series, frame = (generate_uid() for _ in range(3))
    for z, slice_yx in enumerate(array_zyx):
        one = Dataset()
        one.file_meta = FileMetaDataset()
        one.file_meta.TransferSyntaxUID = ExplicitVRLittleEndian
        one.SOPClassUID = one.file_meta.MediaStorageSOPClassUID = CTImageStorage
        one.SOPInstanceUID = one.file_meta.MediaStorageSOPInstanceUID = generate_uid()
        one.StudyInstanceUID = study
        one.SeriesInstanceUID = series
        one.FrameOfReferenceUID = frame
        one.Modality = "CT"
        one.PatientID = "made up"
        one.InstanceNumber = z + 1
        one.ImagePositionPatient = [-204.8, -204.8, spacing_mm[0] * z]
        one.ImageOrientationPatient = [1, 0, 0, 0, 1, 0]
        one.PixelSpacing = [spacing_mm[1], spacing_mm[2]]
        one.SliceThickness = spacing_mm[0]
        one.Rows, one.Columns = slice_yx.shape
        one.SamplesPerPixel = 1
        one.PhotometricInterpretation = "MONOCHROME2"
        one.BitsAllocated = one.BitsStored = 16
        one.HighBit = 15
        one.PixelRepresentation = 1
        one.PixelData = slice_yx.tobytes()
        dcmwrite(folder / f"{z:04}.dcm", one, enforce_file_format=True)
