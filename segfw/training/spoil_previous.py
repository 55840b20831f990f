"""What the second stage of a cascade sees of the first one's labels in training: spoilt now and then.

Predictions for training cases are better, or wrong in fewer ways, than those for new images will be, and a network that
could rely on them would only copy them. Drawn per sample and applied apart from it, like all augmentation
(docs/reference/rules.md, 8).
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass

import numpy as np
import torch
from scipy import ndimage
from torch import Tensor

from segfw.base.components import connected_components

# B batch, K class, Z Y X space
MORPHOLOGY_SHARE = 0.4  # of samples
DROP_SHARE = 0.2  # of samples
LABEL_SHARE = 0.5  # of the labels in these
LARGEST_RADIUS = 8  # voxels
LARGEST_DROPPED = 0.15  # of the patch


@dataclass(frozen=True, kw_only=True)
class Morphology:
    """One label grown, shrunk, opened or closed by a ball."""

    label: int
    operation: str  # a row of MORPHOLOGY
    radius: int  # voxels


@dataclass(frozen=True, kw_only=True)
class PreviousParams:
    """What happens to one sample: changes in their order, and labels that lose a component, with a place in [0, 1)
    that says which of those small enough it is.
    """

    changes: tuple[Morphology, ...] = ()
    dropped: tuple[tuple[int, float], ...] = ()


def draw_previous(rng: np.random.Generator, classes: int) -> PreviousParams:
    """Morphology with a ball of radius 1-8 (p 0.4), a dropped component (p 0.2); each label of a sample with p 0.5.

    ``classes`` counts the background. Labels are gone through in a drawn order, since one grows over another.
    """
    labels = rng.permutation(np.arange(1, classes))
    is_changed = rng.random() < MORPHOLOGY_SHARE
    is_dropped = rng.random() < DROP_SHARE
    changed, dropped = rng.random((2, len(labels))) < LABEL_SHARE
    operations = rng.integers(len(MORPHOLOGY), size=len(labels))
    radii = rng.integers(1, LARGEST_RADIUS + 1, size=len(labels))
    places = rng.random(len(labels))
    names = list(MORPHOLOGY)
    changes = [
        Morphology(label=int(label), operation=names[operation], radius=int(radius))
        for label, operation, radius in zip(labels[changed], operations[changed], radii[changed])
    ]
    lost = [(int(label), float(place)) for label, place in zip(labels[dropped], places[dropped])]
    return PreviousParams(
        changes=tuple(changes) if is_changed else (),
        dropped=tuple(lost) if is_dropped else (),
    )


def drop_components(previous_ZYX: np.ndarray, params: PreviousParams, patch_voxels: int) -> np.ndarray:
    """The classes without one component of each label drawn, among its components of at most 15 % of the patch.

    Done on the host where the box is cut, by threads that the step does not wait for: flooding on the device would ask
    it after every round whether it has ended, and would pick components by their size. So it comes before the warp and
    the morphology, neither of which brings a lost component back. Voxels touch by faces, edges and corners. Returns
    the array itself where nothing is lost.
    """
    if not params.dropped:
        return previous_ZYX
    result = previous_ZYX.copy()
    boxes = ndimage.find_objects(previous_ZYX.astype(np.int32, copy=False))
    for label, place in params.dropped:
        box = boxes[label - 1] if label <= len(boxes) else None
        if box is None:
            continue
        components, _ = connected_components(previous_ZYX[box] == label)
        sizes = np.bincount(components.ravel())[1:]
        small = np.flatnonzero(sizes <= LARGEST_DROPPED * patch_voxels) + 1
        if len(small):
            result[box][components == small[int(place * len(small))]] = 0
    return result


def augment_previous(previous_BZYX: Tensor, params: Sequence[PreviousParams]) -> Tensor:
    """Classes (B, Z, Y, X) with each sample's morphology applied, on their device and without waiting for it.

    What a label gains it takes from others, what it loses becomes background.
    """
    if not any(drawn.changes for drawn in params):
        return previous_BZYX
    result = previous_BZYX.clone()
    for sample, drawn in zip(result, params):
        for change in drawn.changes:
            before = sample == change.label
            after = MORPHOLOGY[change.operation](before, change.radius)
            sample.masked_fill_(before & ~after, 0).masked_fill_(after & ~before, change.label)
    return result


def dilate(mask_ZYX: Tensor, radius: int) -> Tensor:
    """Every voxel within ``radius`` voxels (up to 8) of the mask, which is taken to be empty beyond its borders.

    Squared Euclidean distances are built up axis by axis, since the nearest voxel of a column at distance d is the
    nearest of all columns but for d squared (Felzenszwalb and Huttenlocher 2012). Cut off beyond the ball they fit a
    byte: exactly the ball of (2r + 1)^3 voxels, in 6r passes over the patch.
    """
    far = radius**2 + 1
    distance = mask_ZYX.logical_not().to(torch.uint8) * far
    for axis, size in enumerate(mask_ZYX.shape):
        nearest = distance.clone()
        for step in range(1, min(radius + 1, size)):
            reached = distance + step**2  # at most 2 * 8^2 + 1
            for to, source in ((step, 0), (0, step)):
                target = nearest.narrow(axis, to, size - step)
                torch.minimum(target, reached.narrow(axis, source, size - step), out=target)
        distance = nearest
    return distance < far


def erode(mask_ZYX: Tensor, radius: int) -> Tensor:
    """Every voxel of the mask that is further than ``radius`` voxels from all others; the patch's border is no edge."""
    return ~dilate(~mask_ZYX, radius)


MORPHOLOGY: dict[str, Callable[[Tensor, int], Tensor]] = {
    "dilation": dilate,
    "erosion": erode,
    "opening": lambda mask, radius: dilate(erode(mask, radius), radius),
    "closing": lambda mask, radius: erode(dilate(mask, radius), radius),
}
