"""What one network's mask of a structure shows of its quality, without a reference; and how far the folds agree.

Features of one structure by one network: m is its mask, p its probability, H the entropy relative to the largest.
Surface, slices and components are of the network's grid, sizes in millimetres where the image has any.
"""

# Z Y X space of the network's grid

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from itertools import combinations

import numpy as np

from segfw.base.components import connected_components
from segfw.base.records import Record
from segfw.dataset.labels import LabelSet
from segfw.grid.boxes import Block
from segfw.images.geometry import Spacing
from segfw.measurements.measure_masks import joined_box
from segfw.quality.member_maps import (
    MemberMaps,
    boxes_of,
    codes_of,
    is_any_of,
    nothing_code,
    output_of,
)

UNKNOWN_SHARE = 0.05  # of a structure's own volume: so much of the ignore label changes nothing that matters
MOST_Z = 10.0  # deviations from the training masks beyond which all is the same


class Spread(Record):
    """Mean and standard deviation of something over the training masks, and of how many."""

    mean: float
    sd: float
    number: int

    def z(self, value: float) -> float:
        """How many standard deviations a value is away, at most MOST_Z."""
        return min(MOST_Z, abs(value - self.mean) / self.sd)


class StructurePriors(Record):
    """A structure in the training masks.

    ``log_mm3`` is the natural logarithm of its volume; ``offset_mm`` is where its centroid lies from that of all
    foreground, along the axes of the network's grid. ``cases`` were looked at, ``present`` of them have it.
    """

    log_mm3: Spread | None
    offset_mm: tuple[Spread, Spread, Spread] | None
    cases: int
    present: int

    @property
    def absent_share(self) -> float:
        """Share of the cases without it."""
        return 1 - self.present / self.cases if self.cases else 0.0


Priors = Mapping[str, StructurePriors]


class Shape(Record):
    """Size and place of a structure in one mask: what priors are made of, and measured against."""

    volume_mm3: float
    offset_mm: tuple[float, float, float] | None  # None where it is absent, or not all foreground is known


class Features(Record):
    """One structure in one network's mask. None is what does not exist there.

    ``soft`` is the Dice that the network expects of itself, ``confidence`` the mean p in m; ``entropy`` is the mean H
    in m, ``rim_entropy`` on its border, ``core_entropy`` in what is left without its border; ``unsure`` is the
    logarithm of (doubtful voxels + 1) / (voxels of m + 1). ``largest_share`` is that of the largest of ``components``,
    ``gaps`` are slices that lack inside, ``slice_dice`` the mean Dice of neighbouring slices. ``roundness`` compares
    the surface, counted in faces of voxels, with a ball's; ``filling`` is the share of its box; ``at_border`` the share
    of m in the outermost voxels of the image. ``volume_z`` and ``place_z`` say how far volume and place are from those
    of training.
    """

    voxels: int
    volume_mm3: float
    offset_mm: tuple[float, float, float] | None
    soft: float
    confidence: float | None
    entropy: float | None
    rim_entropy: float | None
    core_entropy: float | None
    unsure: float
    doubtful_voxels: int
    image_entropy: float  # of all voxels of the image
    largest_share: float | None
    components: int
    gaps: int
    slice_dice: float | None
    roundness: float | None
    filling: float | None
    at_border: float | None
    volume_z: float | None = None
    place_z: float | None = None

    def against(self, priors: StructurePriors | None) -> Features:
        """The same, measured against other training masks."""
        volume_z = None
        place_z = None
        if priors is not None and priors.log_mm3 is not None:
            volume_z = MOST_Z if not self.voxels else priors.log_mm3.z(float(np.log(self.volume_mm3)))
        if priors is not None and priors.offset_mm is not None:
            place_z = MOST_Z
            if self.offset_mm is not None:
                place_z = max(spread.z(mm) for spread, mm in zip(priors.offset_mm, self.offset_mm))
        return self.model_copy(update={"volume_z": volume_z, "place_z": place_z})


def structure_features(
    maps: MemberMaps, member: int | None, labels: LabelSet, priors: Priors | None = None
) -> dict[str, Features]:
    """Features of every structure in the mask of one member, whole after its last slab.

    Parameters
    ----------
    maps
        What the members found.
    member
        Which of them.
    labels
        Those that ``maps`` was made with.
    priors
        Of the training masks; without them nothing is said of volume and place.

    Returns
    -------
    dict
        By structure; also of those that were not found.
    """
    index = 0 if member is None else member
    codes_zyx = maps.classes[index]
    sums = maps.sums[index]
    spacing_mm = maps.record.spacing_mm
    boxes = boxes_of(codes_zyx, codes_of(labels))
    centre = _centre_mm(codes_zyx != nothing_code(labels), boxes, spacing_mm)
    image_entropy = sums.image_entropy / max(1, sums.voxels)
    found: dict[str, Features] = {}
    outputs = output_of(labels)
    for name, codes in codes_of(labels).items():
        output = outputs[name]
        voxels = float(sums.mask[output])
        mask_zyx, corner = _cut_out(codes_zyx, codes, boxes[name])
        form = _Form()
        offset = None
        if mask_zyx is not None:
            along = _counts_along(mask_zyx)
            form = _form_of(mask_zyx, along[0], corner, codes_zyx.shape, spacing_mm)
            own = _centroid_mm(along, spacing_mm, corner)
            offset = None if own is None or centre is None else _difference(own, centre)
        features = Features(
            voxels=int(voxels),
            volume_mm3=voxels * float(np.prod(spacing_mm)),
            offset_mm=offset,
            soft=float(2 * sums.inside[output] / max(sums.everywhere[output] + voxels, 1e-9)),
            confidence=_ratio(sums.inside[output], voxels),
            entropy=_ratio(sums.entropy[output], voxels),
            rim_entropy=_ratio(sums.rim_entropy[output], sums.rim[output]),
            core_entropy=_ratio(sums.core_entropy[output], sums.core[output]),
            unsure=float(np.log((sums.doubtful[output] + 1) / (voxels + 1))),
            doubtful_voxels=int(sums.doubtful[output]),
            image_entropy=image_entropy,
            largest_share=form.largest_share,
            components=form.components,
            gaps=form.gaps,
            slice_dice=form.slice_dice,
            roundness=form.roundness,
            filling=form.filling,
            at_border=form.at_border,
        )
        found[name] = features.against(None if priors is None else priors.get(name))
    return found


def pairwise_dice(maps: MemberMaps, labels: LabelSet) -> dict[str, float]:
    """Mean Dice between the masks of every two members, by structure; empty of a single member.

    Two masks that both lack the structure agree, 1.
    """
    if maps.members < 2:
        return {}
    number = labels.outputs + 1
    # Only where any member finds anything; the rest is the same in all.
    is_found = maps.classes[0] != nothing_code(labels)
    for codes_zyx in maps.classes[1:]:
        is_found |= codes_zyx != nothing_code(labels)
    places = np.flatnonzero(is_found)
    found = [codes_zyx.ravel()[places].astype(np.int64) for codes_zyx in maps.classes]
    pairs = list(combinations(found, 2))
    total = dict.fromkeys(labels.structures, 0.0)
    for first, second in pairs:
        joint = np.bincount(first * number + second, minlength=number**2).reshape(number, number)
        for name, codes in codes_of(labels).items():
            members = list(codes)
            size = joint[members].sum() + joint[:, members].sum()
            both = joint[np.ix_(members, members)].sum()
            total[name] += 2 * float(both) / float(size) if size else 1.0
    return {name: value / len(pairs) for name, value in total.items()}


def shapes_of(
    classes_zyx: np.ndarray, spacing_mm: Spacing, labels: LabelSet, drawn: Sequence[str] | None = None
) -> dict[str, Shape]:
    """Size and place of structures in a mask of classes, such as a reference on the network's grid.

    Of structures whose size the mask does not tell there is nothing: those that are not among the ``drawn`` ones (None:
    all were), and those beside which more voxels have the ignore label than UNKNOWN_SHARE of their own. Where the mask
    does not tell all foreground, the place of none is known, because it is counted from the centre of all.
    """
    structures = labels.structures
    foreground = tuple(sorted({index for classes in structures.values() for index in classes}))
    boxes = boxes_of(classes_zyx, structures)
    ignored = 0 if labels.ignored_class is None else int((classes_zyx == labels.ignored_class).sum())
    is_foreground_zyx = is_any_of(classes_zyx, foreground)
    found = np.count_nonzero(is_foreground_zyx)
    knows_places = drawn is None and ignored <= UNKNOWN_SHARE * found
    centre = _centre_mm(is_foreground_zyx, boxes, spacing_mm) if knows_places else None
    shapes = {}
    for name, classes in structures.items():
        mask_zyx, corner = _cut_out(classes_zyx, classes, boxes[name])
        voxels = 0 if mask_zyx is None else int(mask_zyx.sum())
        if (drawn is not None and name not in drawn) or ignored > UNKNOWN_SHARE * voxels:
            continue
        own = None if mask_zyx is None else _centroid_mm(_counts_along(mask_zyx), spacing_mm, corner)
        offset = None if own is None or centre is None else _difference(own, centre)
        shapes[name] = Shape(volume_mm3=voxels * float(np.prod(spacing_mm)), offset_mm=offset)
    return shapes


def priors_of(shapes: Sequence[Mapping[str, Shape]]) -> dict[str, StructurePriors]:
    """What many masks say of each structure."""
    names = dict.fromkeys(name for shape in shapes for name in shape)
    priors = {}
    for name in names:
        drawn = [shape[name] for shape in shapes if name in shape]  # not so where nobody drew the structure
        present = [shape for shape in drawn if shape.volume_mm3 > 0]
        offsets = np.array([shape.offset_mm for shape in present if shape.offset_mm is not None])
        places = None
        if len(offsets) > 1:
            z, y, x = (_spread(offsets[:, axis], least=0.5) for axis in range(3))
            places = (z, y, x)
        volumes = np.log([shape.volume_mm3 for shape in present])
        priors[name] = StructurePriors(
            log_mm3=_spread(volumes, least=0.02) if len(present) > 1 else None,
            offset_mm=places,
            cases=len(drawn),
            present=len(present),
        )
    return priors


# ---- one mask ----


def _cut_out(
    codes_zyx: np.ndarray, codes: tuple[int, ...], box: Block | None
) -> tuple[np.ndarray | None, tuple[int, int, int]]:
    """A structure in the box around it, bool, and the box's corner; None where it is absent."""
    if box is None:
        return None, (0, 0, 0)
    z, y, x = box
    return is_any_of(codes_zyx[box], codes), (z.start, y.start, x.start)


@dataclass(frozen=True, kw_only=True)
class _Form:
    """What the form of a mask tells, as Features has it; these are of no mask at all."""

    largest_share: float | None = None
    components: int = 0
    gaps: int = 0
    slice_dice: float | None = None
    roundness: float | None = None
    filling: float | None = None
    at_border: float | None = None


def _form_of(
    mask_zyx: np.ndarray,
    per_slice: np.ndarray,
    corner: tuple[int, int, int],
    shape: tuple[int, ...],
    spacing_mm: Spacing,
) -> _Form:
    """Of a mask in the box around it, with its voxels in each slice."""
    components, number = connected_components(mask_zyx)
    voxels = int(per_slice.sum())
    largest = voxels if number == 1 else int(np.bincount(components.ravel())[1:].max())
    overlaps = _of_slices(mask_zyx[1:] & mask_zyx[:-1])
    pairs = per_slice[1:] + per_slice[:-1]
    is_pair = pairs > 0
    slice_dice = float((2 * overlaps[is_pair] / pairs[is_pair]).mean()) if is_pair.any() else None
    surface = _surface_mm2(mask_zyx, spacing_mm)
    volume = voxels * float(np.prod(spacing_mm))
    return _Form(
        largest_share=largest / voxels,
        components=number,
        gaps=int((per_slice == 0).sum()),
        slice_dice=slice_dice,
        # 1 of a ball with a smooth surface; a ball of voxels has 0.67, because its faces have 1.5 times the area.
        roundness=float((36 * np.pi) ** (1 / 3) * volume ** (2 / 3) / surface),
        filling=voxels / mask_zyx.size,
        at_border=_border_voxels(mask_zyx, voxels, corner, shape) / voxels,
    )


def _of_slices(mask_zyx: np.ndarray) -> np.ndarray:
    """Voxels of a mask in each slice."""
    return np.array([np.count_nonzero(slice_yx) for slice_yx in mask_zyx], int)


def _surface_mm2(mask_zyx: np.ndarray, spacing_mm: Spacing) -> float:
    """Area of all faces between a mask and what is around it."""
    total = 0.0
    for axis, edge in enumerate(spacing_mm):
        along = np.moveaxis(mask_zyx, axis, 0)
        faces = np.count_nonzero(along[1:] != along[:-1])
        faces += np.count_nonzero(along[0]) + np.count_nonzero(along[-1])
        total += faces * float(np.prod(spacing_mm)) / edge
    return total


def _border_voxels(mask_zyx: np.ndarray, voxels: int, corner: tuple[int, int, int], shape: tuple[int, ...]) -> int:
    """Voxels in the outermost ones of the image, along axes that are long enough to have an inside."""
    inside = []
    if all(start > 0 and start + size < whole for start, size, whole in zip(corner, mask_zyx.shape, shape)):
        return 0
    for start, size, whole in zip(corner, mask_zyx.shape, shape):
        first = 1 if whole >= 3 and start == 0 else 0
        last = 1 if whole >= 3 and start + size == whole else 0
        inside.append(slice(first, max(size - last, first)))
    return voxels - int(np.count_nonzero(mask_zyx[tuple(inside)]))


def _centre_mm(
    is_foreground_zyx: np.ndarray, boxes: Mapping[str, Block | None], spacing_mm: Spacing
) -> tuple[float, float, float] | None:
    """Mean place of all foreground, which lies in the boxes of structures."""
    box = joined_box([box for box in boxes.values() if box is not None])
    if box is None:
        return None
    z, y, x = box
    return _centroid_mm(_counts_along(is_foreground_zyx[box]), spacing_mm, (z.start, y.start, x.start))


def _counts_along(mask_zyx: np.ndarray) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Voxels of a mask at each place along the three axes."""
    voxels_zy = mask_zyx.sum(2)
    return voxels_zy.sum(1), voxels_zy.sum(0), mask_zyx.sum(0).sum(0)


def _centroid_mm(
    counts_along: tuple[np.ndarray, np.ndarray, np.ndarray],
    spacing_mm: Spacing,
    corner: tuple[int, int, int] = (0, 0, 0),
) -> tuple[float, float, float] | None:
    """Mean place of a mask's voxels (``_counts_along``), in millimetres from the grid's first voxel."""
    total = counts_along[0].sum()
    if not total:
        return None
    place = []
    for axis, weights in enumerate(counts_along):
        mean = float((weights * np.arange(len(weights))).sum() / total)
        place.append((mean + corner[axis]) * spacing_mm[axis])
    z, y, x = place
    return z, y, x


def _difference(first: tuple[float, float, float], second: tuple[float, float, float]) -> tuple[float, float, float]:
    return first[0] - second[0], first[1] - second[1], first[2] - second[2]


def _spread(values: np.ndarray, *, least: float) -> Spread:
    """Mean and deviation; of masks that are all alike not less than ``least``, or nothing would be like them."""
    return Spread(mean=float(values.mean()), sd=max(least, float(values.std(ddof=1))), number=len(values))


def _ratio(part: float, whole: float) -> float | None:
    return float(part / whole) if whole else None
