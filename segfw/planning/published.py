"""The published length of a training (Isensee et al. 2021), which plans, estimates and defaults go by."""

from __future__ import annotations

EPOCHS = 1000
STEPS_PER_EPOCH = 250
