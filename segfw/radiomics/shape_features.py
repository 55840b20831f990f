"""The shape of a structure on the voxels whose features are told (IBSI: morphology)."""

from __future__ import annotations

import numpy as np

from segfw.measurements.diameters import diameter_mm
from segfw.measurements.mesh import cube_counts, mesh_surface_mm2, mesh_volume_mm3, sphericity
from segfw.measurements.projections import Projections, principal_axes_mm

SHAPE_FEATURES = (
    *("volume", "approximate_volume", "surface_area", "surface_to_volume_ratio", "compactness_1", "compactness_2"),
    *("spherical_disproportion", "sphericity", "asphericity", "maximum_diameter"),
    *("major_axis_length", "minor_axis_length", "least_axis_length", "elongation", "flatness"),
)


def shape_features(inside_zyx: np.ndarray, axes_mm: np.ndarray) -> dict[str, float]:
    """The 15 features, in mm; ``axes_mm`` are the steps along z, y and x as columns."""
    counts = cube_counts(inside_zyx)
    volume = mesh_volume_mm3(counts, axes_mm)
    surface = mesh_surface_mm2(counts, axes_mm)
    roundness = sphericity(volume, surface)
    projections = Projections.of(inside_zyx)
    major, minor, least = (float(each) for each in principal_axes_mm(projections.covariance(), axes_mm))
    return {
        "volume": volume,
        "approximate_volume": projections.voxels * float(abs(np.linalg.det(axes_mm))),
        "surface_area": surface,
        "surface_to_volume_ratio": surface / volume,
        "compactness_1": volume / (np.sqrt(np.pi) * surface**1.5),
        "compactness_2": roundness**3,
        "spherical_disproportion": 1 / roundness,
        "sphericity": roundness,
        "asphericity": 1 / roundness - 1,
        "maximum_diameter": diameter_mm(inside_zyx, axes_mm),
        "major_axis_length": major,
        "minor_axis_length": minor,
        "least_axis_length": least,
        "elongation": minor / major,
        "flatness": least / major,
    }
