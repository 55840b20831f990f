"""What a preset plans for bodies of 300^3 voxels of 1 mm: the problem of all measurements that need a published one."""

from __future__ import annotations

from segfw.planning.fitting import Choice, Grid, choose_published
from segfw.planning.presets import preset_called

CLASSES = 15


def published_plan(preset: str) -> Choice:
    """Network, patch and batch of the preset, within the memory that it is published for."""
    family = preset_called(preset)
    grid = Grid(
        spacing_mm=(1.0, 1.0, 1.0),
        median_shape=(300, 300, 300),
        dataset_voxels=300.0**3 * 300,
        channels=1,
        classes=CLASSES,
        published_classes=CLASSES,
    )
    return choose_published(grid, family, memory_gb=family.memory_gb)
