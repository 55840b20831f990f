"""Published numbers (Isensee et al. 2021) that plans, estimates and defaults of several rooms go by."""

from __future__ import annotations

from typing import Literal

EPOCHS = 1000
STEPS_PER_EPOCH = 250
TILE_STEP = 0.5  # distance of neighbouring tiles in prediction, as a share of the tile

# Rows of presets.PRESETS, whose networks --help should not wait for
PresetName = Literal["plain", "resenc-m", "resenc-l", "resenc-xl", "segresnet", "swin-unetr", "mednext"]
