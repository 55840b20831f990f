"""The DICOM series that a mask is of: its headers in the order of the mask's slices, and where each slice lies."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass, replace
from functools import cached_property
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np

from segfw.base.records import UserError
from segfw.images.dicom import files_of_series, is_dicom
from segfw.images.dicom_header import read_header
from segfw.images.even_slices import UNEVEN
from segfw.images.geometry import Geometry, corner_distance_mm
from segfw.images.volume import Volume, stored_like
from segfw.images.voxels import Refusal, affine_of_lps

if TYPE_CHECKING:
    from pydicom import Dataset

SAME_PLACE_MM = 1e-3  # headers hold decimals, which readers round
# What points to the patient, the study, the series and its space; nothing that is written is found again without them.
REQUIRED = ("PatientID", "StudyInstanceUID", "SeriesInstanceUID", "FrameOfReferenceUID", "SOPInstanceUID")


@dataclass(frozen=True, kw_only=True)
class ReferenceSeries:
    """Headers without pixels, along the slices' normal, and the grid that they make."""

    folder: Path
    slices: tuple[Dataset, ...]
    geometry: Geometry

    @property
    def first(self) -> Dataset:
        return self.slices[0]

    @cached_property
    def positions_mm(self) -> np.ndarray:
        """LPS place of the first voxel of each slice, (Z, 3): as its own header says."""
        return np.array([_numbers(part, "ImagePositionPatient", 3, self.folder) for part in self.slices])

    @cached_property
    def steps_mm(self) -> np.ndarray:
        """LPS steps (Z, 2, 3) from a voxel to the next one in its column (y), and to the next one in its row (x)."""
        return np.array([_steps(part, self.folder) for part in self.slices])

    @property
    def slice_area_mm2(self) -> float:
        """Area of a voxel within its slice."""
        along_y, along_x = self.steps_mm[0]
        return float(np.linalg.norm(np.cross(along_y, along_x)))

    @property
    def slice_distance_mm(self) -> float:
        """Distance of slices along their normal."""
        return abs(float(np.linalg.det(self.geometry.matrix[:3, :3]))) / self.slice_area_mm2

    def to_mm(self, slice_index: np.ndarray, corners_yx: np.ndarray) -> np.ndarray:
        """LPS places (N, 3) of points (N, 2) in slices (N,)."""
        steps = self.steps_mm[slice_index]
        offsets = corners_yx[:, :1] * steps[:, 0] + corners_yx[:, 1:] * steps[:, 1]
        return self.positions_mm[slice_index] + offsets

    def mask_in_order(self, values_zyx: np.ndarray, geometry: Geometry) -> np.ndarray:
        """A mask that is stored in any order of axes and directions, in that of the series.

        Raises UserError if its grid is another one.
        """
        own = Volume(array=np.empty((1, 0, 0, 0)), geometry=self.geometry)
        volume = stored_like(Volume(array=values_zyx[None], geometry=geometry), own)
        if not _is_same(volume.geometry, self.geometry):
            raise UserError(
                f"{self.folder}: has {_size(self.geometry)} voxels, the mask {_size(volume.geometry)} or another place"
                "; give the series that the mask was made of"
            )
        return np.ascontiguousarray(volume.array[0])


def read_reference(folder: Path | None, geometry: Geometry | None = None) -> ReferenceSeries:
    """The series in a folder that lies on the grid ``geometry`` (None: the only one), stored in whatever order.

    A file stands for its series, of several in a folder.

    Raises UserError if there is no such series, or if its headers lack what a file that refers to it needs.
    """
    if folder is None or not is_series(folder):
        raise UserError(f"{folder}: is no DICOM series, which DICOM SEG and RTSTRUCT refer to; give the series")
    found = [_in_order(headers, folder) for headers in _series_in(folder)]
    if geometry is not None:
        found = [series for series in found if _may_be(series.geometry, geometry)]
    if len(found) != 1:
        number = "no" if not found else str(len(found))
        raise UserError(f"{folder}: holds {number} series on the grid of the mask; give a folder of that series alone")
    series = found[0]
    for name in REQUIRED:
        lacking = [part for part in series.slices if not str(part.get(name) or "").strip()]
        if lacking:
            where = Path(str(lacking[0].filename)).name
            raise UserError(
                f"{folder}: {where} has no {name}, so that no system would find what belongs together; export the "
                "series again, or write nifti or seg.nrrd"
            )
    return series


def require_series(case_id: str, image: Path | None, format: str) -> None:
    """UserError if the image of a case is no series."""
    if image is None or not is_series(image):
        what = f"its image {image} is none" if image is not None else "no image of it is at hand"
        raise UserError(
            f"{case_id}: {format} refers to the slices of a DICOM series, and {what}; give the series, or write nifti, "
            "seg.nrrd or bids"
        )


def is_series(image: Path) -> bool:
    """Whether an image is a folder, in which a series may lie, or a file of a series."""
    if image.is_dir():
        return True
    header = read_header(image) if is_dicom(image) else None
    return header is not None and header.kind == "image"


def _files_of(image: Path) -> Sequence[Path]:
    """The images in a folder, without doses, plans and structures beside them, or those of the series of a file."""
    if image.is_dir():
        return [path for path in sorted(image.iterdir()) if is_dicom(path) and _may_be_image(path)]
    try:
        return files_of_series(image)
    except Refusal as error:
        raise UserError(f"{image}: {error}") from None


def _may_be_image(file: Path) -> bool:
    """Whether a file is an image, as the reader of images takes it; one that cannot be read may be, and is told of."""
    header = read_header(file)
    return header is None or header.kind == "image"


def _series_in(folder: Path) -> Iterator[list[Dataset]]:
    """Headers of the images in a folder, by series; each instance once."""
    from pydicom import dcmread

    by_series: dict[str, dict[str, Dataset]] = {}
    for path in _files_of(folder):
        try:
            header = dcmread(path, stop_before_pixels=True, force=True)
        except Exception as error:  # pydicom raises whatever a damaged file makes of its parts, and says values of it
            raise UserError(f"{path}: cannot be read as DICOM ({type(error).__name__}); copy it again") from None
        if int(header.get("NumberOfFrames") or 1) > 1:
            raise UserError(
                f"{path}: is multi-frame DICOM, which is read, but to which no SEG or RTSTRUCT can refer; write "
                "nifti or seg.nrrd"
            )
        if "Rows" in header and "ImagePositionPatient" in header:
            instances = by_series.setdefault(str(header.get("SeriesInstanceUID", "")), {})
            instances.setdefault(str(header.get("SOPInstanceUID", path)), header)
    for instances in by_series.values():
        yield list(instances.values())


def _in_order(headers: Sequence[Dataset], folder: Path) -> ReferenceSeries:
    """Slices along their normal, as the reader of images puts them, and their grid."""
    along_y, along_x = _steps(headers[0], folder)
    normal = np.cross(along_x, along_y)
    normal /= np.linalg.norm(normal)
    places = [_numbers(header, "ImagePositionPatient", 3, folder) for header in headers]
    along_normal = np.array([float(place @ normal) for place in places])
    order = np.argsort(along_normal, kind="stable")
    distances = np.diff(along_normal[order])
    usual = float(np.median(distances)) if len(distances) else 0.0
    uneven = distances[np.abs(distances - usual) > UNEVEN * usual]
    if len(uneven):
        what = f"two slices are {uneven[0]:.2f} mm apart, others {usual:.2f} mm (slices missing?)"
        raise UserError(f"{folder}: {what}; complete the series")
    slices = tuple(headers[index] for index in order)
    origin = places[order[0]]
    thickness = float(slices[0].get("SliceThickness") or 1.0)
    step = normal * (thickness if thickness > 0 else 1.0)
    if len(slices) > 1:
        step = (places[order[-1]] - origin) / (len(slices) - 1)
    steps_xyz = np.column_stack([along_x, along_y, step])
    lengths = np.linalg.norm(steps_xyz, axis=0)
    if not lengths.all():
        raise UserError(f"{folder}: several slices lie at one place; keep one file per position")
    affine = affine_of_lps(steps_xyz / lengths, lengths, origin)
    shape = (len(slices), int(slices[0].Rows), int(slices[0].Columns))
    return ReferenceSeries(folder=folder, slices=slices, geometry=Geometry.of(shape, affine))


def _steps(header: Dataset, folder: Path) -> np.ndarray:
    """LPS steps (2, 3) along y and x."""
    axes = _numbers(header, "ImageOrientationPatient", 6, folder).reshape(2, 3)
    spacing_y, spacing_x = _numbers(header, "PixelSpacing", 2, folder)
    return np.stack([axes[1] * spacing_y, axes[0] * spacing_x])


def _numbers(header: Dataset, name: str, number: int, folder: Path) -> np.ndarray:
    try:
        values = np.array([float(value) for value in header[name].value])
    except (KeyError, TypeError, ValueError):
        values = np.empty(0)
    if len(values) != number or not np.isfinite(values).all():
        where = Path(str(getattr(header, "filename", folder))).name
        raise UserError(f"{folder}: {where} says no {name}, so that nothing can be placed in it; export it again")
    return values


def _may_be(series: Geometry, mask: Geometry) -> bool:
    """Whether two grids are one, in whatever order of axes and directions."""
    own = Volume(array=np.empty((1, *series.shape), np.bool_), geometry=series)
    other = replace(own, array=np.empty((1, *mask.shape), np.bool_), geometry=mask)
    return _is_same(stored_like(other, own).geometry, series)


def _is_same(first: Geometry, second: Geometry) -> bool:
    if first.shape != second.shape:
        return False
    return corner_distance_mm(first.shape, first.matrix, second.matrix) <= SAME_PLACE_MM


def _size(geometry: Geometry) -> str:
    return " x ".join(map(str, geometry.shape))
