"""How much memory a case takes while it is preprocessed."""

from __future__ import annotations

from math import prod

from segfw.planning.case_measure import CaseMeasure
from segfw.planning.plan import Plan


def float32_bytes(case: CaseMeasure, plan: Plan) -> int:
    """Bytes of a case's image as float32, on its own grid or on the finest that it is resampled to."""
    voxels = [prod(case.shape)]
    for configuration in plan.configurations.values():
        recipe = configuration.preprocessing
        edges_mm = [1.0 if recipe.voxel_size == "unit" else case.spacing_mm[axis] for axis in recipe.axis_order]
        target_mm = [edge if target is None else target for edge, target in zip(edges_mm, recipe.spacing_mm)]
        voxels.append(int(prod(case.cropped_shape) * prod(edges_mm) / prod(target_mm)))
    return 4 * len(plan.channels) * max(voxels)
