"""Connected components of a mask, by connected-components-3d."""

from __future__ import annotations

from typing import Literal

import numpy as np

EVERY_NEIGHBOUR: Literal[26] = 26  # voxels that touch by faces, edges or corners belong together


def connected_components(mask_zyx: np.ndarray) -> tuple[np.ndarray, int]:
    """Component of each voxel of a boolean mask, numbered from 1 on by their first voxels, 0 outside; and how many.

    Several times as fast as ``scipy.ndimage.label``, which takes longest where every corner counts as a neighbour.
    """
    import cc3d

    if not mask_zyx.size:
        return np.zeros(mask_zyx.shape, np.uint16), 0
    # Contiguous, because components are numbered in the order of memory. As bytes, because for booleans version 4.1
    # allots too little memory to a line of voxels of which every other one is set, and fails.
    mask_zyx = np.ascontiguousarray(mask_zyx, dtype=bool).view(np.uint8)
    components, count = cc3d.connected_components(mask_zyx, connectivity=EVERY_NEIGHBOUR, return_N=True)
    return components, int(count)
