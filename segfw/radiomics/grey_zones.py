"""Zones: voxels of one grey level that hang together; their sizes (IBSI: GLSZM) and distances to the border (GLDZM)."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal

import numpy as np

from segfw.base.components import EVERY_NEIGHBOUR
from segfw.radiomics.level_grid import LevelGrid
from segfw.radiomics.level_sizes import LevelSizes, features_of_sizes

IN_SLICE: Literal[8] = 8  # neighbours


def _names(small: str, large: str, low: str, high: str, of_size: str, size: str) -> tuple[str, ...]:
    """Of the 16 features of zones."""
    return (
        *(f"{small}_emphasis", f"{large}_emphasis", f"{low}_zone_emphasis", f"{high}_zone_emphasis"),
        *(f"{small}_{low}_emphasis", f"{small}_{high}_emphasis", f"{large}_{low}_emphasis", f"{large}_{high}_emphasis"),
        *("grey_level_non_uniformity", "normalised_grey_level_non_uniformity"),
        *(f"{of_size}_non_uniformity", f"normalised_{of_size}_non_uniformity", "zone_percentage"),
        *("grey_level_variance", f"{of_size}_variance", f"{size}_entropy"),
    )


ZONE_SIZE_FEATURES = _names("small_zone", "large_zone", "low_grey_level", "high_grey_level", "zone_size", "zone_size")
ZONE_DISTANCE_FEATURES = _names(
    "small_distance", "large_distance", "low_grey_level", "high_grey_level", "zone_distance", "zone_distance"
)


@dataclass(frozen=True, kw_only=True)
class Zones:
    """The tables of sizes and of distances of the same zones."""

    sizes: LevelSizes
    distances: LevelSizes

    @staticmethod
    def of(grid: LevelGrid) -> Zones:
        """The zones of a structure; in a slice voxels that touch by corners belong together, too."""
        zone_of = _zones(grid).ravel()[grid.places]
        sizes = np.bincount(zone_of)
        level = np.zeros(len(sizes), np.int64)
        level[zone_of] = grid.levels
        distance = np.full(len(sizes), np.iinfo(np.int64).max)
        np.minimum.at(distance, zone_of, _distances(grid).ravel()[grid.places])
        is_zone = sizes > 0  # there is none of number 0
        voxels = len(grid.places)
        return Zones(
            sizes=LevelSizes.counted(level[is_zone], sizes[is_zone], voxels),
            distances=LevelSizes.counted(level[is_zone], distance[is_zone], voxels),
        )


def _zones(grid: LevelGrid) -> np.ndarray:
    """The number of each voxel's zone, from 1 on; 0 outside."""
    import cc3d

    if not grid.is_by_slice:
        return np.asarray(cc3d.connected_components(grid.padded, connectivity=EVERY_NEIGHBOUR), np.int64)
    zones = np.zeros(grid.padded.shape, np.int64)
    before = 0
    for index, layer in enumerate(grid.padded):
        found, number = cc3d.connected_components(np.ascontiguousarray(layer), connectivity=IN_SLICE, return_N=True)
        zones[index] = np.where(found > 0, found.astype(np.int64) + before, 0)
        before += int(number)
    return zones


def _distances(grid: LevelGrid) -> np.ndarray:
    """Steps over faces from each voxel of the structure to the nearest outside; 1 at its border."""
    from scipy.ndimage import distance_transform_cdt

    if not grid.is_by_slice:
        return np.asarray(distance_transform_cdt(grid.shape_zyx, metric="taxicab"), np.int64)
    layers = [distance_transform_cdt(layer, metric="taxicab") for layer in grid.shape_zyx]
    return np.stack(layers).astype(np.int64)


def zone_size_features(zones: Zones) -> dict[str, float]:
    """The 16 features of zone sizes."""
    return dict(zip(ZONE_SIZE_FEATURES, features_of_sizes(zones.sizes)))


def zone_distance_features(zones: Zones) -> dict[str, float]:
    """The 16 features of zone distances."""
    return dict(zip(ZONE_DISTANCE_FEATURES, features_of_sizes(zones.distances)))
