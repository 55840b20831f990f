"""Published numbers (Isensee et al. 2021) that plans, estimates and defaults of several rooms go by."""

from __future__ import annotations

EPOCHS = 1000
STEPS_PER_EPOCH = 250
TILE_STEP = 0.5  # distance of neighbouring tiles in prediction, as a share of the tile
