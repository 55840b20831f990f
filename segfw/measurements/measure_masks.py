"""Measures all structures of one mask that is in memory, each in its own box."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

import numpy as np

from segfw.base.components import connected_components
from segfw.dataset.labels import LabelSet
from segfw.dataset.sides import pairs_by_name
from segfw.images.geometry import Geometry
from segfw.images.units import PICTURE, SCAN, Units
from segfw.measurements.diameters import axes_in_slice, diameter_mm, slice_axis
from segfw.measurements.field_of_view import outside_field_of_view
from segfw.measurements.first_order import FirstOrder, first_order
from segfw.measurements.mesh import (
    cube_counts,
    face_areas_mm2,
    face_counts,
    mesh_surface_mm2,
    mesh_volume_mm3,
    smooth_surface_mm2,
    sphericity,
)
from segfw.measurements.projections import Projections, principal_axes_mm
from segfw.measurements.structure_measures import NOT_ANNOTATED, ComponentMeasures, Point, Status, StructureMeasures

FEWEST_VOXELS = 8  # of fewer no shape is told
PLANES = ("axial", "coronal", "sagittal")
MM3_PER_ML = 1000.0
SIZE_FIELDS = {"ml": "volume_ml", "mm2": "area_mm2", "px": "area_px"}
Box = tuple[slice, slice, slice]


@dataclass(frozen=True, kw_only=True)
class MaskToMeasure:
    """A mask as class indices (Z, Y, X), canonical, with its grid; ``channels`` are images on it, by name.

    ``outside`` are the pixels (Y, X) that no slice has anything scanned in, if the field of view is round.
    """

    classes_zyx: np.ndarray
    geometry: Geometry
    units: Units
    labels: LabelSet
    channels: Mapping[str, np.ndarray] = field(default_factory=dict)
    outside: np.ndarray | None = None

    @property
    def axes_mm(self) -> np.ndarray:
        """Steps along z, y and x as columns (3, 3)."""
        return self.geometry.matrix[:3, :3]

    @property
    def flat_axis(self) -> int | None:
        """The axis across the only slice, which has no thickness."""
        return self.geometry.shape.index(1) if 1 in self.geometry.shape else None

    def sized(self, voxels: int) -> dict[str, float]:
        """The field of the size that so many voxels have, and that size."""
        return {SIZE_FIELDS[self.units.size]: voxels * self.units.voxel_size(self.geometry)}


def field_of_view_of(channels: Mapping[str, np.ndarray], geometry: Geometry, units: Units) -> np.ndarray | None:
    """What no slice of the first channel has anything scanned in; None if all is, or nobody knows."""
    first = next(iter(channels.values()), None)
    if first is None or units != SCAN:
        return None
    return outside_field_of_view(first, geometry.spacing_mm)


def measure_mask(
    case: str,
    mask: MaskToMeasure,
    *,
    only: Sequence[str] | None = None,
    per_component: bool = False,
    annotated: Sequence[str] | None = None,
) -> tuple[StructureMeasures, ...]:
    """Every structure, or ``only`` those, in the order of the labels. Nothing that is absent has a size.

    Nor has what is not among the ``annotated`` structures (None: all are): nobody knows how large it is.
    """
    labels = mask.labels
    boxes = class_boxes(mask.classes_zyx)
    measured = {}
    for name, classes in labels.structures.items():
        if only is not None and name not in only:
            continue
        facts: dict[str, Any] = {"case": case, "structure": name, "value": _value_of(labels, classes)}
        if annotated is not None and name not in annotated:
            reason = "by dataset.json nobody drew it in this case"
            measured[name] = StructureMeasures(**facts, status=NOT_ANNOTATED, reason=reason)
            continue
        box = joined_box([boxes[index] for index in classes if index in boxes])
        if box is None:
            reason = "no voxel of it is in the mask"
            measured[name] = StructureMeasures(**facts, status="absent", reason=reason, voxels=0)
            continue
        inside = inside_of(mask.classes_zyx[box], classes, labels.classes)
        measured[name] = _measured(mask, inside, box, facts, per_component=per_component)
    return _with_ratios(measured)


def _value_of(labels: LabelSet, classes: Sequence[int]) -> str:
    return "+".join(str(labels.values[index]) for index in classes)


def class_boxes(classes_zyx: np.ndarray) -> dict[int, Box]:
    """The smallest box around each class but the background."""
    from scipy.ndimage import find_objects

    return {index: box for index, box in enumerate(find_objects(classes_zyx), start=1) if box is not None}


def joined_box(boxes: Sequence[Box]) -> Box | None:
    """The smallest box around all of them; None around none."""
    if not boxes:
        return None
    z, y, x = (slice(min(part.start for part in along), max(part.stop for part in along)) for along in zip(*boxes))
    return z, y, x


def inside_of(classes_zyx: np.ndarray, classes: Sequence[int], number: int) -> np.ndarray:
    """Where any of these classes is, of so many."""
    if len(classes) == 1:
        return np.ascontiguousarray(classes_zyx == classes[0])
    table = np.zeros(number, bool)
    table[list(classes)] = True
    return table[classes_zyx]


def _measured(
    mask: MaskToMeasure, inside: np.ndarray, box: Box, facts: Mapping[str, Any], *, per_component: bool
) -> StructureMeasures:
    """One structure that is there, from the mask in its box."""
    has_mm = mask.units != PICTURE
    projections = Projections.of(inside)
    voxels = projections.voxels
    found: dict[str, Any] = {**facts, **mask.sized(voxels), "voxels": voxels}

    # Where it is, in how many parts, and whether all of it is in the image
    components, number = connected_components(inside)
    sizes = np.bincount(components.ravel(), minlength=number + 1)[1:]
    found |= {"components": number, "largest_share": float(sizes.max() / voxels)}
    counts = cube_counts(inside)
    found["cut_share"] = _cut_share(mask, projections, counts, box)
    if has_mm:
        found["centroid_ras_mm"] = _point(mask.geometry, _start(box) + projections.centre())
        found["box_ras_mm"] = _extent(mask.geometry, inside.shape)

    # Its intensities
    complaints = []
    statistics = {}
    for name, channel in mask.channels.items():
        values = channel[box][inside]
        if np.isfinite(values).all():
            statistics[name] = first_order(values)
        else:
            complaints.append(f"{name} has no number in {int((~np.isfinite(values)).sum())} of its voxels")
    found["channels"] = statistics

    # Its shape
    if voxels >= FEWEST_VOXELS and has_mm:
        found |= _shape(mask, inside, projections, counts)
        largest = components == int(sizes.argmax()) + 1 if number > 1 else inside
        found |= _axes(mask, largest, box)
    if per_component:
        found["parts"] = _parts(mask, components, sizes, box, statistics)
    status, reason = _status(mask, found)
    reasons = "; ".join([*filter(None, [reason]), *complaints])
    return StructureMeasures(**found, status=status, reason=reasons)


def _status(mask: MaskToMeasure, found: Mapping[str, Any]) -> tuple[Status, str]:
    is_cut = found["cut_share"] > 0
    where = "the border of the image" + ("" if mask.outside is None else " or of its round field of view")
    if found["voxels"] < FEWEST_VOXELS:
        also = f", and reaches {where}" if is_cut else ""
        return "small", f"it has fewer than {FEWEST_VOXELS} voxels, too few for a shape{also}"
    return ("cut", f"it reaches {where}") if is_cut else ("whole", "")


def _start(box: Box) -> np.ndarray:
    return np.array([part.start for part in box])


def _point(geometry: Geometry, index_zyx: np.ndarray) -> Point:
    x, y, z = geometry.matrix[:3, :3] @ index_zyx + geometry.matrix[:3, 3]
    return float(x), float(y), float(z)


def _extent(geometry: Geometry, shape: Sequence[int]) -> Point:
    """Edges of the box along the axes nearest to right, front and head."""
    z, y, x = np.multiply(shape, geometry.spacing_mm)
    return float(x), float(y), float(z)


def _cut_share(mask: MaskToMeasure, projections: Projections, counts: np.ndarray, box: Box) -> float:
    """Area of the faces at the border of what was scanned, over that of all faces between inside and outside."""
    areas = face_areas_mm2(mask.axes_mm)
    faces = face_counts(counts)
    at_border = np.zeros(3)
    for axis, (part, size, line) in enumerate(zip(box, mask.classes_zyx.shape, projections.profiles)):
        if size == 1:  # the only slice of an image is all that there is
            faces[axis] = 0
            continue
        at_border[axis] += line[0] if part.start == 0 else 0
        at_border[axis] += line[-1] if part.stop == size else 0
    if mask.outside is not None:
        padded = np.pad(mask.outside, 1)
        _, rows, columns = box
        for axis, steps in ((1, ((0, 1), (2, 1))), (2, ((1, 0), (1, 2)))):
            for down, across in steps:
                beside = padded[down + rows.start : down + rows.stop, across + columns.start : across + columns.stop]
                at_border[axis] += int(projections.along_z[beside].sum())
    total = float(faces @ areas)
    return float(at_border @ areas) / total if total else 0.0  # an image of one voxel has no sides to be cut at


def _shape(mask: MaskToMeasure, inside: np.ndarray, projections: Projections, counts: np.ndarray) -> dict[str, Any]:
    """Surface, diameter and principal axes; of one slice what an area has."""
    axes_mm = mask.axes_mm
    lengths = principal_axes_mm(projections.covariance(), axes_mm)
    found: dict[str, Any] = {
        "diameter_mm": diameter_mm(inside, axes_mm, mask.flat_axis),
        "major_axis_mm": float(lengths[0]),
        "elongation": float(lengths[1] / lengths[0]),
    }
    if mask.units != SCAN:
        return found | {"minor_axis_mm": float(lengths[1])}
    volume_mm3 = mesh_volume_mm3(counts, axes_mm)
    surface_mm2 = mesh_surface_mm2(counts, axes_mm)
    return found | {
        "middle_axis_mm": float(lengths[1]),
        "minor_axis_mm": float(lengths[2]),
        "flatness": float(lengths[2] / lengths[0]),
        "mesh_volume_ml": volume_mm3 / MM3_PER_ML,
        "surface_mm2": surface_mm2,
        "surface_smooth_mm2": smooth_surface_mm2(counts, axes_mm),
        "sphericity": sphericity(volume_mm3, surface_mm2),
    }


def _axes(mask: MaskToMeasure, component: np.ndarray, box: Box) -> dict[str, Any]:
    axis = slice_axis(mask.axes_mm, mask.classes_zyx.shape)
    origin = np.array(_point(mask.geometry, _start(box)))
    axes = axes_in_slice(component, mask.axes_mm, origin, axis)
    return {
        "long_axis_mm": axes.long_mm,
        "short_axis_mm": axes.short_mm,
        "axes_plane": PLANES[axis],
        "long_axis_ends_ras_mm": axes.ends_ras_mm,
    }


def _parts(
    mask: MaskToMeasure, components: np.ndarray, sizes: np.ndarray, box: Box, statistics: Mapping[str, FirstOrder]
) -> tuple[ComponentMeasures, ...]:
    """Every component, the largest first; its intensity is of the first channel that all of the structure has."""
    name = next(iter(statistics), None)
    boxes = class_boxes(components)
    has_mm = mask.units != PICTURE
    parts = []
    for number, index in enumerate(np.argsort(-sizes, kind="stable").tolist(), start=1):
        local = boxes[index + 1]
        inside = np.ascontiguousarray(components[local] == index + 1)
        whole = _moved(local, box)
        projections = Projections.of(inside)
        found: dict[str, Any] = {**mask.sized(projections.voxels), "voxels": projections.voxels}
        found["is_cut"] = _cut_share(mask, projections, cube_counts(inside), whole) > 0
        if has_mm:
            found["centroid_ras_mm"] = _point(mask.geometry, _start(whole) + projections.centre())
        if has_mm and projections.voxels >= FEWEST_VOXELS:
            axes = _axes(mask, inside, whole)
            found |= {field: axes[field] for field in ("long_axis_mm", "short_axis_mm")}
            found["diameter_mm"] = diameter_mm(inside, mask.axes_mm, mask.flat_axis)
        if name is not None:
            found["mean"] = float(mask.channels[name][whole][inside].mean(dtype=np.float64))
        parts.append(ComponentMeasures(number=number, **found))
    return tuple(parts)


def _moved(box: Box, within: Box) -> Box:
    """A box inside of another one, as it lies in the whole image."""
    z, y, x = (slice(outer.start + part.start, outer.start + part.stop) for part, outer in zip(box, within))
    return z, y, x


def _with_ratios(measured: Mapping[str, StructureMeasures]) -> tuple[StructureMeasures, ...]:
    """Left over right of each pair of which both are whole."""
    pairs, _ = pairs_by_name(list(measured))
    ratios: dict[str, float] = {}
    for left, right in pairs:
        sizes = [measured[name].size if measured[name].status == "whole" else None for name in (left, right)]
        if sizes[0] is not None and sizes[1] is not None:
            ratios |= dict.fromkeys((left, right), sizes[0] / sizes[1])
    return tuple(
        each.model_copy(update={"left_right_ratio": ratios.get(name)}) if name in ratios else each
        for name, each in measured.items()
    )
