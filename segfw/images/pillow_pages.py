"""What Pillow decodes: palettes, single bits and every format that SimpleITK gets wrong or does not know."""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np

if TYPE_CHECKING:
    from PIL.Image import Image


def page_values(picture: Image, *, is_mask: bool) -> np.ndarray:
    """Values (Y, X, C) of the page that ``picture`` is at: its colours, but of a mask the indices of its palette."""
    if picture.mode == "1":
        return np.asarray(picture).astype(np.uint8)[..., None] * (1 if is_mask else 255)
    if picture.mode not in ("P", "PA"):
        array = np.asarray(picture)
        return array.reshape(*array.shape[:2], -1)
    # By the whole palette, not by the colours used: all masks of a data set must be read in one way.
    palette = np.array(picture.getpalette("RGB"), dtype=np.uint8).reshape(-1, 3)
    is_grey = bool((palette == palette[:, :1]).all())
    if is_mask and not is_grey:
        indices = picture if picture.mode == "P" else picture.getchannel(0)
        return np.asarray(indices)[..., None]
    colours = np.asarray(picture.convert("RGBA"))
    if not is_grey:
        return colours
    return colours[..., :1] if is_mask else colours[..., [0, 3]]
