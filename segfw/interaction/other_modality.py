"""Whether an image is plainly of another modality than those that a refiner learned from, told by its values."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np

from segfw.dataset.cases import Channel
from segfw.grid.normalize import Normalization

CT = "ct"  # how channels in Hounsfield units are normalised
AIR_HU = -900  # what only CT has values below


def other_modality(image_czyx: np.ndarray, channels: Sequence[Channel], rules: Sequence[Normalization]) -> str:
    """In words why an image cannot be of these channels; '' if nothing speaks against it.

    CT has air and fat below 0, where the training images had. Values like those of air in CT speak against a channel
    that never had negative ones: phase images have them, and so has CT that a data set calls otherwise.
    """
    for voxels, channel, rule in zip(image_czyx, channels, rules):
        low = float(voxels.min())
        is_ct = rule.kind == CT and rule.stats is not None and rule.stats.percentile_00_5 < 0
        if is_ct and low >= 0:
            return (
                f"has no value below 0, but the refiner was trained on {channel.name} in Hounsfield units, where fat "
                "and air have; give a refiner of this modality, or store the image in Hounsfield units"
            )
        had_negative = rule.stats is not None and rule.stats.minimum < 0
        if rule.kind != CT and not channel.name.lower().startswith(CT) and not had_negative and low <= AIR_HU:
            return (
                f"has values down to {low:.6g}, as CT has, but the refiner was trained on {channel.name}; give a "
                "refiner of this modality"
            )
    return ""
