"""What the page is told of one case besides its volumes, as JSON holds it; all indexes are of the served grid."""

# z y x space, but for what JSON calls xyz

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np

from segfw.clicks.proposed_clicks import ProposedClick
from segfw.dataset.labels import LabelSet
from segfw.grid.boxes import Box
from segfw.images.units import Units
from segfw.quality.kept_quality import KeptQuality, KeptRegion, KeptStructure
from segfw.review_page.label_palette import LabelPalette, PaletteLabel
from segfw.review_page.served_grid import ServedGrid


@dataclass(frozen=True)
class PaletteStructure:
    """A structure that is decided on: the labels that it consists of, and the one that it is painted as."""

    name: str
    painted: PaletteLabel
    parts: tuple[PaletteLabel, ...]


def palette_structures(labels: LabelSet, palette: LabelPalette) -> tuple[PaletteStructure, ...]:
    """All structures of a label set; of nested regions each is a union of labels."""
    label_of = {label.value: label for label in palette.labels}
    painted = {region.name: region.painted for region in labels.regions}
    found = []
    for name, classes in labels.structures.items():
        parts = tuple(label_of[labels.stored_values[index]] for index in classes)
        found.append(PaletteStructure(name, label_of.get(painted.get(name, -1), parts[0]), parts))
    return tuple(found)


def counts_by_slice(bitmaps: Sequence[np.ndarray]) -> np.ndarray:
    """How many voxels each index has in each slice, (groups, Z, 256)."""
    result = np.zeros((len(bitmaps), len(bitmaps[0]), 256), np.int64)
    for group, bitmap in enumerate(bitmaps):
        for z, plane in enumerate(bitmap):
            result[group, z] = np.bincount(plane.ravel(), minlength=256)
    return result


def structure_rows(
    structures: Sequence[PaletteStructure],
    counts_gzk: np.ndarray,
    voxel_size: float,
    units: Units,
    decisions: Mapping[str, str],
    quality: KeptQuality | None,
) -> list[dict[str, Any]]:
    """A row for each structure: where it is, how large, what is told of it, and what was decided."""
    told = {} if quality is None else {each.label: each for each in quality.structures}
    rows = []
    for each in structures:
        in_slices = sum(counts_gzk[part.group, :, part.index] for part in each.parts)
        size = float(np.sum(in_slices)) * voxel_size
        rows.append(
            {
                "index": each.painted.index,
                "group": each.painted.group,
                "label": each.name,
                "value": each.painted.value,
                "parts": [[part.group, part.index] for part in each.parts],
                "decision": decisions.get(each.name),
                "volume_ml": size if units.size == "ml" else None,
                "size": size,
                "size_unit": units.size,
                "slices": np.flatnonzero(in_slices).tolist(),
                **quality_of(told.get(each.name)),
            }
        )
    return rows


def quality_of(told: KeptStructure | None) -> dict[str, Any]:
    """What is told of a structure, with the same keys where nothing is."""
    interval_ml = None if told is None else told.volume_interval_ml
    return {
        "predicted_dice": None if told is None else told.predicted_dice,
        "lower_bound": None if told is None else told.lower_bound,
        "verdict": None if told is None else told.verdict,
        "reasons": [] if told is None else list(told.reasons),
        "volume_interval_ml": None if interval_ml is None else list(interval_ml),
    }


def region_rows(regions: Sequence[KeptRegion], grid: ServedGrid) -> list[dict[str, Any]]:
    """A row for each suspected region; one that lies outside of what is served, or nowhere, has no box."""
    rows = []
    for region in regions:
        box = None if region.box_zyx is None else grid.of_file_box(region.box_zyx)
        rows.append(
            {
                "id": region.id,
                "label": region.label,
                "kind": region.kind,
                "box_xyz": None if box is None else box_xyz(box),
                "centre_xyz": None if box is None else [(start + stop - 1) / 2 for start, stop in box[::-1]],
                "slices": [] if box is None else list(range(*box[0])),
                "volume_mm3": region.volume_mm3,
                "expected_wrong_mm3": region.expected_wrong_mm3,
                "candidates": [
                    {"n": number, "names": list(candidate.names)} for number, candidate in enumerate(region.candidates)
                ]
                if box is not None
                else [],
            }
        )
    return rows


def place_rows(places: Sequence[ProposedClick], grid: ServedGrid) -> list[dict[str, Any]]:
    """A row for each proposed click; those that lie outside of what is served are left out."""
    rows = []
    for place in places:
        box = grid.of_file_box(place.box)
        z, y, x = (round(index) for index in grid.of_file_point(place.point))
        is_shown = all(0 <= index < size for index, size in zip((z, y, x), grid.shape))
        if box is not None and is_shown:
            at = {"at_xyz": [x, y, z], "box_xyz": box_xyz(box)}
            rows.append({**at, "inside": place.inside, "wrong_mm3": place.wrong_mm3})
    return rows


def box_xyz(box: Box) -> list[int]:
    """[x0, y0, z0, x1, y1, z1]: first voxel and the one behind the last."""
    return [start for start, _ in box[::-1]] + [stop for _, stop in box[::-1]]


def grid_facts(grid: ServedGrid) -> dict[str, Any]:
    """What is served, and of what."""
    spacing = grid.spacing_mm
    return {
        "shape_xyz": list(grid.shape[::-1]),
        "full_shape_xyz": list(grid.full_shape[::-1]),
        "spacing_mm_xyz": list(spacing[::-1]),
        "box": {
            "start_xyz": [start for start, _ in grid.box[::-1]],
            "stop_xyz": [stop for _, stop in grid.box[::-1]],
            "is_whole": grid.is_whole,
        },
    }


def gate_of(quality: KeptQuality | None) -> dict[str, Any] | None:
    """What the gate says of the image."""
    if quality is None or quality.gate is None:
        return None
    gate = quality.gate
    return {
        "verdict": gate.verdict,
        "score": gate.score,
        "percentile": gate.percentile,
        "reasons": list(gate.reasons),
        "guarantee": quality.guarantee,
    }
