"""Places of a mask that are suspected to be wrong, with the volume that is expected to be wrong there.

Five kinds, found on the network's grid. 'doubt': voxels of which members or probabilities do not agree, but for the
layer at each side of the border, where that is usual. 'island': a part that does not touch the largest one. 'gap':
slices that lack between two parts which lie over each other. 'missing': a structure that training masks have, and this
one not. 'outlier-shape': a structure whose volume or place is far from those of training. Nothing is opened or closed
by voxels: ducts and vessels are as thin.
"""

# N voxels, Z Y X space of the network's grid

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from functools import cached_property, lru_cache
from itertools import product
from math import sqrt
from typing import Literal

import numpy as np
from scipy import ndimage

from segfw.base.components import connected_components
from segfw.grid.boxes import Block, block_of, shape_of
from segfw.images.geometry import Spacing
from segfw.quality.doubtful_voxels import StructureDoubt
from segfw.quality.member_maps import MemberMaps, boxes_of, codes_of, is_any_of
from segfw.quality.quality_features import Priors, StructurePriors

RegionKind = Literal["doubt", "island", "gap", "missing", "outlier-shape"]
MOST_REGIONS = 5  # of a structure
FAR_Z = 3.0  # standard deviations of the training masks from which a volume or a place is an outlier
USUALLY_PRESENT = 0.95  # share of training masks that have a structure whose lack is suspicious
LEAST_TRAINING_MASKS = 10  # that tell of it


@dataclass(frozen=True, kw_only=True)
class FoundRegion:
    """A suspected region of one structure: ``mask_zyx`` is bool in the ``block`` of the network's grid.

    A structure that was found nowhere has no block.
    """

    structure: str
    kind: RegionKind
    block: Block | None
    mask_zyx: np.ndarray | None
    voxels: int
    expected_wrong_mm3: float


@dataclass(frozen=True, kw_only=True)
class StructureInMaps:
    """One structure: its mask by the mean of all members, and the voxels in doubt."""

    name: str
    codes: tuple[int, ...]
    maps: MemberMaps
    doubt: StructureDoubt
    box: Block | None  # around the mask; None where it is empty

    @cached_property
    def components(self) -> tuple[np.ndarray, np.ndarray] | None:
        """Connected parts of the mask in its box, numbered from 1 on, and the voxels of each; None if it is empty."""
        if self.box is None:
            return None
        numbered, _ = connected_components(self.mask(self.box))
        sizes = np.bincount(numbered.ravel())
        sizes[0] = 0
        return numbered, sizes

    @cached_property
    def places_3n(self) -> np.ndarray:
        """Where the voxels in doubt are in the network's grid, (3, N)."""
        return np.stack(np.unravel_index(self.doubt.index_n, self.maps.record.shape))

    def mask(self, block: Block, member: int | None = None) -> np.ndarray:
        """Where the structure is in a block, bool: by the mean, or by one member."""
        codes = self.maps.mean_classes if member is None else self.maps.classes[member]
        return is_any_of(codes[block], self.codes)

    def probability(self, block: Block) -> np.ndarray:
        """Its probability in a block, float32: 0 where nothing speaks for it; of regions 1 where none is in doubt."""
        inside = self.mask(block)
        values = inside.astype(np.float32)
        if not self.maps.labels.regions:
            values *= self.maps.probability[block].astype(np.float32) / 255
        is_there_n = np.ones(len(self.doubt.index_n), bool)
        for along_n, part in zip(self.places_3n, block):
            is_there_n &= (along_n >= part.start) & (along_n < part.stop)
        places = tuple(along_n[is_there_n] - part.start for along_n, part in zip(self.places_3n, block))
        values[places] = self.doubt.probability_n[is_there_n]
        return values


def structures_in(maps: MemberMaps, doubts: Mapping[str, StructureDoubt]) -> list[StructureInMaps]:
    """Every structure of the maps, in order."""
    wanted = codes_of(maps.labels)
    boxes = boxes_of(maps.mean_classes, wanted)
    return [
        StructureInMaps(name=name, codes=codes, maps=maps, doubt=doubts[name], box=boxes[name])
        for name, codes in wanted.items()
    ]


def suspected_regions(
    structures: Sequence[StructureInMaps],
    deviations: Mapping[str, Sequence[float | None]] | None = None,
    priors: Priors | None = None,
    *,
    most: int = MOST_REGIONS,
) -> list[FoundRegion]:
    """Suspected regions of all structures, those with the largest volume that is expected to be wrong first.

    Parameters
    ----------
    structures
        Of ``structures_in``.
    deviations
        Of each structure's volume and place, in standard deviations of the training masks.
    priors
        Of the training masks; without them nothing is 'missing', and no shape an outlier.
    most
        Regions of one structure.

    Returns
    -------
    list
        Regions of 'doubt' are left out where less than a voxel is wrong by probabilities, and by members' votes too.
    """
    found: list[FoundRegion] = []
    for each in structures:
        its_priors = None if priors is None else priors.get(each.name)
        its_deviations = () if deviations is None else deviations.get(each.name, ())
        regions = [
            *regions_of_doubt(each),
            *islands(each),
            *gaps(each),
            *missing(each, its_priors),
            *outlier_shape(each, its_deviations),
        ]
        regions.sort(key=lambda region: -region.expected_wrong_mm3)
        found += regions[:most]
    return sorted(found, key=lambda region: -region.expected_wrong_mm3)


# ---- doubt ----


def regions_of_doubt(each: StructureInMaps) -> list[FoundRegion]:
    """Connected doubtful voxels that are no rim: they have no neighbour on the other side of the border, or all of
    their neighbours are in doubt too."""
    doubt = each.doubt
    if not len(doubt.index_n):
        return []
    voxel_mm3 = _voxel_mm3(each.maps)
    places = each.places_3n
    corner = places.min(1)
    block = _block(corner, places.max(1) + 1)
    inside = places - corner[:, None]
    is_doubtful = np.zeros(shape_of(block), bool)
    is_doubtful[tuple(inside)] = True
    is_kept = is_beyond_rim(each, places) | _is_interior(is_doubtful, inside, each.maps.record.spacing_mm)
    kept = np.zeros_like(is_doubtful)
    kept[tuple(inside[:, is_kept])] = True
    components, number = connected_components(kept)
    of_voxel = components[tuple(inside[:, is_kept])]
    wrong = np.bincount(of_voxel, doubt.wrong_n[is_kept], minlength=number + 1)
    # The mean of logits is sure where one member of many says something else; its vote counts for being looked at.
    differing = np.bincount(of_voxel, doubt.differing_n[is_kept], minlength=number + 1)
    is_enough = np.maximum(wrong, differing) >= 1 - 1e-6
    order = np.argsort(-wrong, kind="stable")
    chosen = [int(index) for index in order if index > 0 and is_enough[index]][:MOST_REGIONS]
    return _parts(each, "doubt", components, block, {index: float(wrong[index]) * voxel_mm3 for index in chosen})


def is_beyond_rim(each: StructureInMaps, places_3n: np.ndarray) -> np.ndarray:
    """Whether a voxel has no neighbour on the other side of the mask's border, bool (N,)."""
    shape = each.maps.record.shape
    code_n = each.maps.mean_classes.ravel()
    own = is_any_of(each.maps.mean_classes[tuple(places_3n)], each.codes)
    # Flat indices along each axis: there, behind and before; beyond the image its last voxel stands for what is not.
    strides = (shape[1] * shape[2], shape[2], 1)
    z, y, x = (
        [np.clip(along_n + step, 0, size - 1) * stride for step in (0, 1, -1)]
        for along_n, size, stride in zip(places_3n, shape, strides)
    )
    is_beyond = np.ones(places_3n.shape[1], bool)
    for dz, dy, dx in rim_offsets(each.maps.record.spacing_mm):
        is_beyond &= is_any_of(code_n[z[dz] + y[dy] + x[dx]], each.codes) == own
    return is_beyond


@lru_cache(maxsize=64)
def rim_offsets(spacing_mm: Spacing) -> tuple[tuple[int, int, int], ...]:
    """Steps to the voxels around one that are not further than the diagonal of its smallest face, in millimetres.

    Of cubes that are 18 of the 26 neighbours; of thick slices the 8 in the slice, so that a whole slice which is in
    doubt beyond the last one is no rim.
    """
    first, second, _ = sorted(spacing_mm)
    reach_mm = sqrt(first**2 + second**2) * (1 + 1e-6)
    offsets = []
    for z, y, x in product((-1, 0, 1), repeat=3):
        length_mm = sqrt(sum((step * edge) ** 2 for step, edge in zip((z, y, x), spacing_mm)))
        if 0 < length_mm <= reach_mm:
            offsets.append((z, y, x))
    return tuple(offsets)


def _is_interior(is_doubtful: np.ndarray, places_3n: np.ndarray, spacing_mm: Spacing) -> np.ndarray:
    """Whether all neighbours of a doubtful voxel are in doubt, so that this is thicker than a rim."""
    padded = np.pad(is_doubtful, 1)
    index_n = np.ravel_multi_index(tuple(places_3n + 1), padded.shape)
    padded_n = padded.ravel()
    _, height, width = padded.shape
    result = np.ones(places_3n.shape[1], bool)
    for dz, dy, dx in rim_offsets(spacing_mm):
        result &= padded_n[index_n + (dz * height + dy) * width + dx]
    return result


# ---- form ----


def islands(each: StructureInMaps) -> list[FoundRegion]:
    """All parts of the mask but the largest; of many those of largest expected error."""
    if each.box is None or each.components is None:
        return []
    components, sizes = each.components
    if len(sizes) < 3:
        return []
    wrong = np.bincount(components.ravel(), (1 - each.probability(each.box)).ravel()) * _voxel_mm3(each.maps)
    wrong[0] = -1
    wrong[sizes.argmax()] = -1
    chosen = [int(index) for index in np.argsort(-wrong, kind="stable")[:MOST_REGIONS] if wrong[index] >= 0]
    return _parts(each, "island", components, each.box, {index: float(wrong[index]) for index in chosen})


def gaps(each: StructureInMaps) -> list[FoundRegion]:
    """Runs of slices without the structure, between two that have it at the same place."""
    if each.box is None:
        return []
    mask = each.mask(each.box)
    has_some = np.asarray(mask.any((1, 2)))
    probability = each.probability(each.box)
    regions = []
    z = 0
    while z < len(mask):
        if has_some[z]:
            z += 1
            continue
        stop = z + int(np.argmax(has_some[z:]))  # the last slice of the box has some
        overlap = mask[z - 1] & mask[stop]
        if overlap.any():
            region = np.zeros_like(mask)
            region[z:stop] = overlap
            wrong_mm3 = float(probability[region].sum(dtype=np.float64)) * _voxel_mm3(each.maps)
            regions.append(_region(each, "gap", region, each.box, wrong_mm3))
        z = stop
    return regions


def missing(each: StructureInMaps, priors: StructurePriors | None) -> list[FoundRegion]:
    """The structure as a whole, where it was not found though training masks have it.

    What is expected to be wrong is what speaks for it, or, if nothing does, its usual volume.
    """
    if each.box is not None or priors is None or priors.log_mm3 is None or priors.cases < LEAST_TRAINING_MASKS:
        return []
    if 1 - priors.absent_share < USUALLY_PRESENT:
        return []
    doubt = each.doubt
    if not len(doubt.index_n):
        usual_mm3 = float(np.exp(priors.log_mm3.mean))
        return [
            FoundRegion(
                structure=each.name, kind="missing", block=None, mask_zyx=None, voxels=0, expected_wrong_mm3=usual_mm3
            )
        ]
    places = each.places_3n
    corner = places.min(1)
    block = _block(corner, places.max(1) + 1)
    mask = np.zeros(shape_of(block), bool)
    mask[tuple(places - corner[:, None])] = True
    wrong_mm3 = float(doubt.wrong_n.sum(dtype=np.float64)) * _voxel_mm3(each.maps)
    return [_region(each, "missing", mask, block, wrong_mm3)]


def outlier_shape(each: StructureInMaps, deviations: Sequence[float | None]) -> list[FoundRegion]:
    """The structure as a whole, where its volume or place is far from those of the training masks."""
    if each.box is None or not any(z is not None and z >= FAR_Z for z in deviations):
        return []
    mask = each.mask(each.box)
    inside = float((1 - each.probability(each.box))[mask].sum(dtype=np.float64))
    outside = float(each.doubt.probability_n[~each.doubt.is_inside_n].sum(dtype=np.float64))
    return [_region(each, "outlier-shape", mask, each.box, (inside + outside) * _voxel_mm3(each.maps))]


# ---- blocks ----


def _parts(
    each: StructureInMaps, kind: RegionKind, components: np.ndarray, block: Block, wrong_mm3: Mapping[int, float]
) -> list[FoundRegion]:
    """Regions of some of the components in a block, each cut to the box around it, which one pass finds for all."""
    if not wrong_mm3:
        return []
    boxes = ndimage.find_objects(components)
    regions = []
    for index, wrong in wrong_mm3.items():
        box = boxes[index - 1]
        regions.append(_cut_region(each, kind, components[box] == index, box, block, wrong))
    return regions


def _region(
    each: StructureInMaps, kind: RegionKind, mask_zyx: np.ndarray, block: Block, wrong_mm3: float
) -> FoundRegion:
    """A region cut to the box around it."""
    within = block_of(mask_zyx)
    assert within is not None  # a region has voxels
    return _cut_region(each, kind, np.ascontiguousarray(mask_zyx[within]), within, block, wrong_mm3)


def _cut_region(
    each: StructureInMaps, kind: RegionKind, cut: np.ndarray, within: Block, block: Block, wrong_mm3: float
) -> FoundRegion:
    """A region that was cut to a box within a block."""
    z, y, x = (slice(part.start + outer.start, part.stop + outer.start) for part, outer in zip(within, block))
    return FoundRegion(
        structure=each.name,
        kind=kind,
        block=(z, y, x),
        mask_zyx=cut,
        voxels=int(cut.sum()),
        expected_wrong_mm3=wrong_mm3,
    )


def _block(start: Sequence[int] | np.ndarray, stop: Sequence[int] | np.ndarray) -> Block:
    z, y, x = (slice(int(first), int(last)) for first, last in zip(start, stop))
    return z, y, x


def _voxel_mm3(maps: MemberMaps) -> float:
    return float(np.prod(maps.record.spacing_mm))
