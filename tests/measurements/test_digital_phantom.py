"""The digital phantom of the Image Biomarker Standardisation Initiative, and its published values.

Zwanenburg et al., arXiv 1612.07003 (CC-BY 4.0): 5 x 4 x 4 voxels of 2 mm, 74 of them in the region; the reference
values of its tables, to the digits that these have.
"""

import numpy as np
import pytest

from builders.masks import geometry
from segfw.dataset.labels import LabelSet
from segfw.images.units import SCAN
from segfw.measurements.measure_masks import MaskToMeasure, measure_mask

# Slices, rows separated by blanks, x outside of the region
SLICES = (
    "14411 14611 41641 44641",
    "14411 11611 x1311 44611",
    "144xx 11111 11x11 11611",
    "144xx 11111 11111 11611",
)
LABELS = LabelSet(names=("background", "region"), values=(0, 1))
EDGE_MM = 2.0


def phantom():
    """What is measured of it, with nothing scanned cut off: it has a voxel of nothing on each side."""
    rows = np.array([[list(row) for row in each.split()] for each in SLICES])
    inside = np.pad(rows != "x", 1)
    image = np.pad(np.where(rows == "x", "0", rows).astype(np.int16), 1)
    mask = MaskToMeasure(
        classes_zyx=inside.astype(np.uint8),
        geometry=geometry(inside.shape, (EDGE_MM,) * 3),
        units=SCAN,
        labels=LABELS,
        channels={"image": image},
    )
    (found,) = measure_mask("phantom", mask)
    return found


def test_there_are_74_voxels():
    found = phantom()
    assert (found.voxels, found.status) == (74, "whole")
    assert found.volume_ml == pytest.approx(0.592)


@pytest.mark.parametrize(
    ("name", "published"),
    [
        ("mesh_volume_ml", 0.556),
        ("surface_mm2", 388),
        ("sphericity", 0.843),
        ("diameter_mm", 13.1),
        ("major_axis_mm", 11.4),
        ("middle_axis_mm", 9.31),
        ("minor_axis_mm", 8.54),
        ("elongation", 0.816),
        ("flatness", 0.749),
    ],
)
def test_morphology_is_as_published(name, published):
    assert f"{getattr(phantom(), name):.3g}" == f"{published:.3g}"


@pytest.mark.parametrize(
    ("name", "published"),
    [
        ("mean", 2.15),
        ("skewness", 1.08),
        ("kurtosis", -0.355),
        ("median", 1),
        ("minimum", 1),
        ("p10", 1),
        ("p90", 4),
        ("maximum", 6),
        ("mean_absolute_deviation", 1.55),
        ("robust_mean_absolute_deviation", 1.11),
        ("energy", 567),
        ("rms", 2.77),
    ],
)
def test_statistics_of_first_order_are_as_published(name, published):
    assert f"{getattr(phantom().channels['image'], name):.3g}" == f"{published:.3g}"


def test_the_variance_is_as_published():
    assert f"{phantom().channels['image'].sd ** 2:.3g}" == "3.05"
