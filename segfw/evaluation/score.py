"""Scores of one case: overlap, surfaces and lesions of every structure, from two masks or two files."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from pathlib import Path

import numpy as np
from pydantic import ValidationError

from segfw.base.records import UserError
from segfw.base.wrong_value import wrong_value
from segfw.dataset.labels import LabelMap, LabelSet
from segfw.evaluation.confusion import confusion
from segfw.evaluation.lesions import LesionCounts, lesion_counts
from segfw.evaluation.masks import read_pair
from segfw.evaluation.metrics import LabelScore, Measures, label_score, score_not_annotated
from segfw.evaluation.surface import NO_SURFACE, surface_scores
from segfw.images.geometry import Geometry
from segfw.images.units import SCAN, Units
from segfw.images.volume import Volume, to_canonical

ALL = "all"
DEFAULT = Measures()


def measures_of(
    *,
    surface: bool = True,
    tolerance_mm: float = 1.0,
    lesions: Sequence[str] | None = None,
    strata_ml: Sequence[float] = DEFAULT.strata_ml,
    lesion_iou: float = 0.0,
) -> Measures:
    """``Measures`` as a user asks for them: ``lesions`` None is none, empty all. Raises UserError on a bad value."""
    names = () if lesions is None else tuple(lesions) or (ALL,)
    try:
        return Measures(
            surface=surface,
            tolerance_mm=float(tolerance_mm),
            lesions=names,
            strata_ml=tuple(strata_ml),
            lesion_iou=float(lesion_iou),
        )
    except ValidationError as error:
        raise UserError(wrong_value("", error.errors()[0])) from None


def score_case(
    reference_file: Path,
    prediction_file: Path,
    labels: LabelSet,
    label_map: LabelMap = (),
    measures: Measures = DEFAULT,
    *,
    image: Path | None = None,
    prediction_map: LabelMap = (),
    only: Sequence[str] = (),
    annotated: Sequence[str] | None = None,
    look: Callable[[np.ndarray, Volume], None] | None = None,
) -> dict[str, LabelScore]:
    """Scores of every label except the background, or of every region, in one case, by name; or of ``only`` some.

    ``label_map`` is applied to the reference, whose voxels of the ignore label count nowhere, ``prediction_map`` to the
    prediction. ``image`` is what the masks are of, if it is known: those of a photograph are measured in pixels, also
    where they are NIfTI files. What is not among the ``annotated`` structures has no scores. ``look`` is shown the
    reference, as classes (Z, Y, X) in canonical orientation and as the volume that is stored.

    Raises UserError if a file cannot be read, the grids differ by half a voxel or more, or a value is no label.
    """
    reference_zyx, prediction_zyx, stored = read_pair(
        Path(reference_file), Path(prediction_file), labels, label_map, image, prediction_map=prediction_map
    )
    if look is not None:
        look(reference_zyx, stored)
    geometry = to_canonical(stored).geometry
    return score_masks(
        reference_zyx,
        prediction_zyx,
        labels,
        geometry,
        measures,
        units=stored.units,
        only=only,
        annotated=annotated,
    )


def score_masks(
    reference_zyx: np.ndarray,
    prediction_zyx: np.ndarray,
    labels: LabelSet,
    geometry: Geometry,
    measures: Measures = DEFAULT,
    *,
    units: Units = SCAN,
    only: Sequence[str] = (),
    annotated: Sequence[str] | None = None,
) -> dict[str, LabelScore]:
    """Scores of every structure by name, or of ``only`` some, from class indices (Z, Y, X) on one grid.

    Those that are not among the ``annotated`` ones (None: all are) have none, but are there. In ``units``: in pixels
    where these are no millimetres; the voxels of ``geometry`` then have edges of 1, and the tolerance counts pixels.
    """
    voxel_size = units.voxel_size(geometry)
    asked = {name: classes for name, classes in labels.structures.items() if not only or name in only}
    structures = {name: classes for name, classes in asked.items() if annotated is None or name in annotated}
    ignored = labels.ignored_class
    confusion_kk = confusion(reference_zyx, prediction_zyx, labels.classes)
    if ignored is not None:
        confusion_kk[ignored] = 0
        if measures.surface or measures.lesions:
            prediction_zyx = np.where(reference_zyx == ignored, prediction_zyx.dtype.type(ignored), prediction_zyx)
    surfaces = [NO_SURFACE] * len(structures)
    if measures.surface and structures:
        surfaces = surface_scores(
            np.ascontiguousarray(reference_zyx),
            np.ascontiguousarray(prediction_zyx),
            tuple(structures.values()),
            geometry.spacing_mm,
            measures.tolerance_mm,
            ignored,
        )
    names = [name for name in lesion_names(labels, measures) if name in structures]
    lesions = _lesions(reference_zyx, prediction_zyx, labels, names, measures, voxel_size=voxel_size, units=units)
    surface_of = dict(zip(structures, surfaces))
    scores = {}
    for name, classes in asked.items():
        if name not in structures:
            scores[name] = score_not_annotated(confusion_kk, classes, voxel_size=voxel_size, units=units)
            continue
        scores[name] = label_score(
            confusion_kk,
            classes,
            voxel_size=voxel_size,
            units=units,
            surface=surface_of[name],
            lesions=lesions.get(name, ()),
        )
    return scores


def lesion_names(labels: LabelSet, measures: Measures) -> tuple[str, ...]:
    """Structures to be scored component by component; raises UserError on a name that is none."""
    known = tuple(labels.structures)
    unknown = [name for name in measures.lesions if name not in known and name != ALL]
    if unknown:
        raise UserError(f"--lesions {unknown[0]}: is no label; choose from {', '.join(known)}, or {ALL}")
    return known if ALL in measures.lesions else measures.lesions


def _lesions(
    reference_zyx: np.ndarray,
    prediction_zyx: np.ndarray,
    labels: LabelSet,
    names: Sequence[str],
    measures: Measures,
    *,
    voxel_size: float,
    units: Units,
) -> dict[str, tuple[LesionCounts, ...]]:
    from scipy.ndimage import find_objects

    if not names:
        return {}
    boxes_of_class: dict[int, list[tuple[slice, ...]]] = {}
    for mask in (reference_zyx, prediction_zyx):
        for index, box in enumerate(find_objects(mask, max_label=labels.classes), start=1):
            if box is not None:
                boxes_of_class.setdefault(index, []).append(box)
    strata = [bound_ml * units.per_ml for bound_ml in measures.strata_ml]
    counts = {}
    for name in names:
        classes = labels.structures[name]
        found: list[tuple[slice, ...]] = []
        for index in classes:
            found += boxes_of_class.get(index, [])
        box = _box_around(found)
        reference = np.isin(reference_zyx[box], classes)
        prediction = np.isin(prediction_zyx[box], classes)
        counts[name] = lesion_counts(reference, prediction, voxel_size, strata, measures.lesion_iou, units.size)
    return counts


def _box_around(boxes: Sequence[tuple[slice, ...]]) -> tuple[slice, ...]:
    """The smallest box that holds all of them; a single voxel without any."""
    if not boxes:
        return (slice(0, 1),) * 3
    return tuple(slice(min(part.start for part in along), max(part.stop for part in along)) for along in zip(*boxes))
