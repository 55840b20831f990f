"""Features of made-up masks: those that tell how sure a network is follow from one number, the others are constant."""

from __future__ import annotations

import numpy as np

from segfw.quality.quality_features import Features


def drawn_sureness(dice: float, noise: float, rng: np.random.Generator) -> float:
    """How sure the network is of a mask with this Dice: the Dice, with ``noise`` as standard deviation in its logit."""
    seen = np.log(dice / (1 - dice)) + noise * rng.normal()
    return float(1 / (1 + np.exp(-seen)))


def made_up_features(
    sureness: float, *, volume_mm3: float = 1000.0, offset_mm: tuple[float, float, float] | None = None
) -> Features:
    """Of a mask of 1 mm3 a voxel."""
    doubt = 1 - sureness
    return Features(
        voxels=int(volume_mm3),
        volume_mm3=volume_mm3,
        offset_mm=offset_mm,
        soft=min(0.999, 0.5 + sureness / 2),
        confidence=min(0.999, 0.6 + 0.4 * sureness),
        entropy=max(0.01, 0.5 * doubt),
        rim_entropy=max(0.05, 0.8 - 0.5 * sureness),
        core_entropy=max(0.01, 0.3 * doubt),
        unsure=float(np.log(0.05 + doubt)),
        doubtful_voxels=int(volume_mm3 * doubt),
        image_entropy=0.05,
        largest_share=1.0,
        components=1,
        gaps=0,
        slice_dice=0.9,
        roundness=0.5,
        filling=0.4,
        at_border=0.0,
    )
