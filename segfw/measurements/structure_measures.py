"""What is measured of a structure in one case: one record a row of the table."""

from __future__ import annotations

from typing import Literal

from segfw.base.case_files import TriedRecord
from segfw.base.records import Record
from segfw.measurements.first_order import FirstOrder

Status = Literal["whole", "cut", "absent", "small", "failed", "not annotated"]
STATUSES: tuple[Status, ...] = ("whole", "cut", "absent", "small", "failed")
NOT_ANNOTATED: Status = "not annotated"  # counted only where masks of an expert were drawn in part
Unit = Literal["ml", "mm2", "px"]
UNITS: tuple[Unit, ...] = ("ml", "mm2", "px")
Point = tuple[float, float, float]  # right, front, head, in mm


class ComponentMeasures(Record):
    """One connected part of a structure, such as a lesion; the parts of a structure are numbered by size."""

    number: int
    is_cut: bool
    voxels: int
    volume_ml: float | None = None
    area_mm2: float | None = None
    area_px: float | None = None
    centroid_ras_mm: Point | None = None
    diameter_mm: float | None = None
    long_axis_mm: float | None = None
    short_axis_mm: float | None = None
    mean: float | None = None  # of the first channel


class StructureMeasures(Record):
    """A structure in one case. What is not known is None, and ``reason`` says why.

    ``value`` is the number in the mask, of a region its numbers. ``cut_share`` is the share of the surface that lies at
    the border of what was scanned. Lengths in mm, surfaces in mm2; photographs have ``area_px`` alone. ``channels`` are
    the intensities by the channel's name.
    """

    case: str
    structure: str
    value: str
    status: Status
    reason: str = ""
    voxels: int | None = None
    volume_ml: float | None = None
    volume_low_ml: float | None = None  # of a calibrated model's masks: where the true volume mostly lies
    volume_high_ml: float | None = None
    area_mm2: float | None = None
    area_px: float | None = None
    cut_share: float | None = None
    components: int | None = None
    largest_share: float | None = None
    centroid_ras_mm: Point | None = None
    box_ras_mm: Point | None = None  # how far it extends to right and left, front and back, head and feet
    mesh_volume_ml: float | None = None
    surface_mm2: float | None = None
    surface_smooth_mm2: float | None = None
    sphericity: float | None = None
    diameter_mm: float | None = None
    major_axis_mm: float | None = None
    middle_axis_mm: float | None = None
    minor_axis_mm: float | None = None
    elongation: float | None = None
    flatness: float | None = None
    long_axis_mm: float | None = None
    short_axis_mm: float | None = None
    axes_plane: str = ""
    long_axis_ends_ras_mm: tuple[Point, Point] | None = None
    left_right_ratio: float | None = None
    channels: dict[str, FirstOrder] = {}
    parts: tuple[ComponentMeasures, ...] = ()

    @property
    def size(self) -> float | None:
        """Its volume, or where there is none its area."""
        return self.size_in(self.unit)

    @property
    def unit(self) -> Unit | None:
        """What its size is counted in; None if it has no size."""
        return next((unit for unit in UNITS if self.size_in(unit) is not None), None)

    def size_in(self, unit: str | None) -> float | None:
        """Its size, if it is counted in this unit; sizes in several units stand in no common column."""
        return {"ml": self.volume_ml, "mm2": self.area_mm2, "px": self.area_px}.get(unit or "")


class CaseMeasures(TriedRecord):
    """All structures of a case, and the SHA-256 of each of its files. ``unit`` is what sizes are counted in: ml, mm2 or
    px."""

    digests: tuple[str, ...] = ()
    unit: str = ""
    notes: tuple[str, ...] = ()
    structures: tuple[StructureMeasures, ...] = ()
