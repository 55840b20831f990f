"""The round field of view of a CT: what lies outside was never scanned, and is filled with one value.

A structure that touches the padding is cut there as it is at the border of the image. What was set to one value for
another reason, such as everything outside of the body, is no field of view: that is the same circle in every slice,
whose inside is not padding in any of them, and it reaches the border of the image, unless the padding is lower than
anything a scanner measures. A round phantom in air, or a limb that gets wider from slice to slice, is none.
"""

from __future__ import annotations

import numpy as np

FEWEST_PIXELS = 12  # on the arc, of which a circle is told
LEAST_PADDING = 0.01  # of a slice
MOST_PADDING = 0.6
SLICES_LOOKED_AT = 9
LEAST_BORDERS = 2  # of the image, that the circle reaches
BORDER_PX = 3  # so near to a border it is reached
LOWEST_OF_CT = -1024  # HU; what is below was never measured
MOST_PADDED_RIM = 0.5  # of the pixels just inside of the circle, in any slice
MOST_MISFIT_PX = 1.0  # of the arc's pixels to the circle, root mean square


def outside_field_of_view(image_zyx: np.ndarray, spacing_mm: tuple[float, float, float]) -> np.ndarray | None:
    """The pixels (Y, X) that are padding in every slice; None where there is no round field of view.

    The image is in canonical orientation, so that slices are axial.
    """
    depth, height, width = image_zyx.shape
    if min(height, width) < FEWEST_PIXELS:
        return None
    padding = _constant_corners(image_zyx)
    if padding is None or not LEAST_PADDING <= padding.mean() <= MOST_PADDING:
        return None
    arc = _arc(padding)
    if len(arc) < FEWEST_PIXELS:
        return None
    _, spacing_y_mm, spacing_x_mm = spacing_mm
    misfit_mm = _misfit_to_circle(arc * (spacing_y_mm, spacing_x_mm))
    if misfit_mm > MOST_MISFIT_PX * max(spacing_y_mm, spacing_x_mm):
        return None
    if _borders_reached(padding) < LEAST_BORDERS and image_zyx[0, 0, 0] >= LOWEST_OF_CT:
        return None
    return padding if _is_same_in_all_slices(image_zyx, padding) else None


def _borders_reached(padding_yx: np.ndarray) -> int:
    """How many of the four borders what is inside of the circle reaches."""
    inside_yx = ~padding_yx
    edge = slice(BORDER_PX)
    other_edge = slice(-BORDER_PX, None)
    return sum(
        bool(part.any())
        for part in (inside_yx[edge], inside_yx[other_edge], inside_yx[:, edge], inside_yx[:, other_edge])
    )


def _is_same_in_all_slices(image_zyx: np.ndarray, padding_yx: np.ndarray) -> bool:
    """Whether the padding ends at this circle in every slice, and not at a smaller one in some."""
    near_yx = padding_yx.copy()
    for axis in (0, 1):
        for step in (-1, 1):
            near_yx |= np.roll(padding_yx, step, axis)
    rim_yx = near_yx & ~padding_yx
    value = image_zyx[0, 0, 0]
    return all((slice_yx[rim_yx] == value).mean() <= MOST_PADDED_RIM for slice_yx in image_zyx[_places(image_zyx)])


def _constant_corners(image_zyx: np.ndarray) -> np.ndarray | None:
    """Pixels that have the lowest value of their corners in all slices that are looked at, and nothing below it.

    None if two of the corners at least are not so.
    """
    places = _places(image_zyx)
    value = image_zyx[0, 0, 0]
    padding = np.ones(image_zyx.shape[1:], bool)
    for place in places:
        padding &= image_zyx[place] == value
    if image_zyx[places].min() < value or padding[[0, 0, -1, -1], [0, -1, 0, -1]].sum() < 2:
        return None
    return padding


def _places(image_zyx: np.ndarray) -> np.ndarray:
    """The slices that are looked at."""
    return np.unique(np.linspace(0, len(image_zyx) - 1, SLICES_LOOKED_AT).round().astype(int))


def _arc(padding_yx: np.ndarray) -> np.ndarray:
    """Places (N, 2) between a pixel of padding and one beside it that is none, in pixels."""
    places = []
    for axis in (0, 1):
        changes = np.argwhere(np.diff(padding_yx, axis=axis)).astype(np.float64)
        changes[:, axis] += 0.5
        places.append(changes)
    return np.concatenate(places)


def _misfit_to_circle(points: np.ndarray) -> float:
    """Distance of points (N, 2) to the circle that fits them best, root mean square (Kasa 1976)."""
    centre = points.mean(0)
    shifted = points - centre
    matrix = np.column_stack([2 * shifted, np.ones(len(points))])
    solution = np.linalg.lstsq(matrix, (shifted**2).sum(1), rcond=None)[0]
    radius = np.sqrt(max(0.0, solution[2] + (solution[:2] ** 2).sum()))
    distances = np.linalg.norm(shifted - solution[:2], axis=1) - radius
    return float(np.sqrt((distances**2).mean()))
