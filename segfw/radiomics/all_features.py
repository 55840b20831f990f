"""All features of one structure in one image, by the names of their columns.

A name says family, feature (as IBSI has it), how matrices are brought together, and how levels were made:
``glcm_joint_entropy_3d_merged_fbn32``. Behind a filter it begins with it: ``log2mm_intensity_mean``.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import dataclass

import numpy as np

from segfw.measurements.measure_masks import FEWEST_VOXELS
from segfw.radiomics.cooccurrence import COOCCURRENCE_FEATURES, cooccurrence_features, merged_matrix
from segfw.radiomics.grey_runs import RUN_FEATURES, run_features, run_tables
from segfw.radiomics.grey_zones import (
    ZONE_DISTANCE_FEATURES,
    ZONE_SIZE_FEATURES,
    Zones,
    zone_distance_features,
    zone_size_features,
)
from segfw.radiomics.intensity_features import (
    HISTOGRAM_FEATURES,
    STATISTICS,
    histogram_features,
    intensity_statistics,
)
from segfw.radiomics.level_grid import LevelGrid
from segfw.radiomics.level_sizes import LevelSizes
from segfw.radiomics.neighbourhoods import (
    DEPENDENCE_FEATURES,
    TONE_FEATURES,
    dependence_features,
    dependence_table,
    tone_features,
)
from segfw.radiomics.radiomics_settings import (
    MOST_LEVELS,
    ChannelProcessing,
    RadiomicsSettings,
    Texture,
    image_word,
)
from segfw.radiomics.shape_features import SHAPE_FEATURES, shape_features
from segfw.radiomics.to_levels import (
    NewGrid,
    image_on,
    laplacian_of_gaussian,
    levels_of,
    tight,
    whole_numbers,
    within_range,
)

FEWEST_OF_TEXTURE = 64  # of fewer texture says how many they are and little else
MERGED = "merged"
# Family, the features in it, and whether there is a matrix for each direction, which are merged into one
TEXTURES = (
    ("glcm", COOCCURRENCE_FEATURES, True),
    ("glrlm", RUN_FEATURES, True),
    ("glszm", ZONE_SIZE_FEATURES, False),
    ("gldzm", ZONE_DISTANCE_FEATURES, False),
    ("ngtdm", TONE_FEATURES, False),
    ("ngldm", DEPENDENCE_FEATURES, False),
)
Features = dict[str, float | None]


@dataclass(frozen=True, kw_only=True)
class Told:
    """The features of a structure, all of their names, and why some are None, in words; '' if none is."""

    values: Features
    reason: str = ""


def feature_names(settings: RadiomicsSettings) -> tuple[str, ...]:
    """All columns, in the order in which they are written."""
    names = [f"morphology_{name}" for name in SHAPE_FEATURES]
    for channel, processing in settings.channels.items():
        names += _of_image(channel, processing.discretisation, settings.texture)
        for width in settings.log_mm:
            names += _of_image(image_word(channel, width), f"fbn{settings.filter_levels}", settings.texture)
    return tuple(names)


def _of_image(image: str, discretisation: str, texture: Texture) -> list[str]:
    names = [f"intensity_{name}" for name in STATISTICS]
    names += [f"histogram_{name}_{discretisation}" for name in HISTOGRAM_FEATURES]
    for family, features, _ in TEXTURES:
        names += [_texture_name(family, feature, texture, discretisation) for feature in features]
    return [f"{image_word(image)}_{name}" for name in names]


def _texture_name(family: str, feature: str, texture: Texture, discretisation: str) -> str:
    is_merged = next(is_merged for name, _, is_merged in TEXTURES if name == family)
    return f"{family}_{feature}_{texture}{f'_{MERGED}' if is_merged else ''}_{discretisation}"


def features_on(
    inside_zyx: np.ndarray, grid: NewGrid, channels: Mapping[str, np.ndarray], settings: RadiomicsSettings
) -> Told:
    """Of a mask on new voxels, and images on their old ones."""
    values: Features = dict.fromkeys(feature_names(settings))
    box = tight(inside_zyx)
    voxels = int(np.count_nonzero(inside_zyx))
    if box is None or voxels < FEWEST_VOXELS:
        size = f"{settings.voxel_mm:g} mm"
        return Told(values=values, reason=f"it has {voxels} voxels of {size}, fewer than {FEWEST_VOXELS}")
    inside = np.ascontiguousarray(inside_zyx[box])
    part = grid.part(box)
    shape = shape_features(inside, grid.axes_mm)
    values |= {f"morphology_{name}": value for name, value in shape.items()}
    reasons: list[str] = []
    for channel, processing in settings.channels.items():
        image = channels[channel]
        found = image_on(image, part)
        if not np.isfinite(found[inside]).all():
            reasons.append(f"{channel} has no number in some of its voxels")
            continue
        if processing.whole_numbers:
            found = whole_numbers(found)
        within = within_range(found, inside, processing.range)
        reasons += _add(values, channel, found, (inside, within), processing, settings)
        for width in settings.log_mm:
            response = laplacian_of_gaussian(image, part, width, is_by_slice=settings.is_by_slice)
            of_filter = ChannelProcessing(modality=processing.modality, levels=settings.filter_levels)
            name = image_word(channel, width)
            if not np.isfinite(response[within]).all():
                reasons.append(f"{channel} has no number near some of its voxels, which the filter reaches")
                continue
            reasons += _add(values, name, response, (inside, within), of_filter, settings)
    return Told(values=values, reason="; ".join(dict.fromkeys(reasons)))


def _add(
    values: Features,
    image: str,
    found_zyx: np.ndarray,
    masks: tuple[np.ndarray, np.ndarray],
    processing: ChannelProcessing,
    settings: RadiomicsSettings,
) -> Iterable[str]:
    """Adds the features of one image; what is to be said of those that cannot be told."""
    inside, within = masks
    chosen = found_zyx[within]
    name = image_word(image)
    if not len(chosen):
        return [f"{image} has no value in the range"]
    values |= {f"{name}_intensity_{key}": value for key, value in intensity_statistics(chosen).items()}
    levels = levels_of(chosen, processing)
    if levels is None:
        return [f"{image} has more than {MOST_LEVELS} grey levels; give a range in the settings"]
    discretisation = processing.discretisation
    histogram = histogram_features(levels)
    values |= {f"{name}_histogram_{key}_{discretisation}": value for key, value in histogram.items()}
    if len(chosen) < FEWEST_OF_TEXTURE:
        size = f"{settings.voxel_mm:g} mm"
        return [f"{image} has {len(chosen)} voxels of {size}, fewer than {FEWEST_OF_TEXTURE}, too few for texture"]
    levels_zyx = np.zeros(found_zyx.shape, np.int32)
    levels_zyx[within] = levels
    grid = LevelGrid.of(levels_zyx, inside, is_by_slice=settings.is_by_slice)
    number = processing.levels or grid.highest
    for family, features in texture_features(grid, number).items():
        for feature, value in features.items():
            values[f"{name}_{_texture_name(family, feature, settings.texture, discretisation)}"] = value
    return []


def texture_features(grid: LevelGrid, levels: int) -> dict[str, Mapping[str, float | None]]:
    """The features of each family, matrices merged; ``levels`` is how many there are."""
    zones = Zones.of(grid)
    matrix = merged_matrix(grid)
    return {
        "glcm": cooccurrence_features(matrix, levels),
        "glrlm": run_features(LevelSizes.merged(run_tables(grid))),
        "glszm": zone_size_features(zones),
        "gldzm": zone_distance_features(zones),
        "ngtdm": tone_features(grid),
        "ngldm": dependence_features(dependence_table(grid)),
    }
