"""Suspected regions that a human can count, on a grid of 5 x 1 x 2 mm, so that a swapped axis fails."""

import numpy as np
import pytest
import torch

from builders.probabilities import NESTED
from segfw.dataset.labels import LabelSet
from segfw.grid.preprocess import PreprocessRecord
from segfw.grid.slabs import Slab
from segfw.images.geometry import Geometry
from segfw.quality.doubtful_voxels import DoubtfulVoxels
from segfw.quality.member_maps import MemberMaps
from segfw.quality.quality_features import Spread, StructurePriors
from segfw.quality.suspected_regions import (
    StructureInMaps,
    gaps,
    islands,
    missing,
    regions_of_doubt,
    rim_offsets,
    structures_in,
    suspected_regions,
)

LABELS = LabelSet(names=("background", "a", "b"), values=(0, 3, 7))
SPACING_MM = (5.0, 1.0, 2.0)
VOXEL_MM3 = 10.0
SHAPE = (6, 10, 9)


def record(shape=SHAPE, spacing_mm=SPACING_MM) -> PreprocessRecord:
    """Of an image that is on the network's grid already."""
    return PreprocessRecord(
        original=Geometry.of(shape, np.diag([*spacing_mm, 1.0])[[2, 1, 0, 3]]),
        box=tuple((0, size) for size in shape),
        axis_order=(0, 1, 2),
        cropped_shape=shape,
        cropped_spacing_mm=spacing_mm,
        shape=shape,
        spacing_mm=spacing_mm,
    )


def logits_of(probabilities_kzyx: np.ndarray) -> torch.Tensor:
    return torch.from_numpy(np.log(np.clip(probabilities_kzyx, 1e-7, 1))).float()


def background(classes: int = 3, shape=SHAPE) -> np.ndarray:
    values = np.zeros((classes, *shape))
    values[0] = 1
    return values


def put(probabilities: np.ndarray, place: tuple, of_class: int, p: float, other: int = 0) -> None:
    """Gives a class the probability p at a place, and the rest to another one."""
    probabilities[(slice(None), *place)] = 0
    probabilities[(other, *place)] = 1 - p
    probabilities[(of_class, *place)] += p


def found_in(members: list[np.ndarray], labels=LABELS, thickness: int = 2) -> dict[str, StructureInMaps]:
    """Structures of probabilities (K, Z, Y, X) of each member, shown slab by slab."""
    maps = MemberMaps(record(members[0].shape[1:]), labels)
    doubtful = DoubtfulVoxels(maps)
    logits = torch.cat([logits_of(each) for each in members])
    depth = logits.shape[1]
    for start in range(0, depth, thickness):
        first = max(0, start - 1)
        stop = min(depth, start + thickness)
        slab = Slab(first=first, start=start, stop=stop, channels_azyx=logits[:, first:stop], members=len(members))
        maps.add(slab)
        doubtful.add(slab)
    return {each.name: each for each in structures_in(maps, doubtful.by_structure())}


def test_a_rim_is_what_is_no_further_than_the_diagonal_of_the_smallest_face():
    assert len(rim_offsets((1.0, 1.0, 1.0))) == 18
    assert sorted(rim_offsets(SPACING_MM)) == [(0, y, x) for y in (-1, 0, 1) for x in (-1, 0, 1) if (y, x) != (0, 0)]


def test_a_doubtful_block_inside_is_one_region_with_its_expected_error():
    """2 x 3 voxels of one slice in the middle of a structure, at p = 0.6: 6 x 0.4 x 10 mm3."""
    case = background()
    put(case, (slice(1, 5), slice(1, 9), slice(1, 8)), 1, 0.99)
    put(case, (slice(3, 4), slice(4, 6), slice(3, 6)), 1, 0.6)
    each = found_in([case])["a"]
    (region,) = regions_of_doubt(each)
    assert region.kind == "doubt"
    assert region.block == (slice(3, 4), slice(4, 6), slice(3, 6))
    assert region.voxels == 6
    assert region.expected_wrong_mm3 == pytest.approx(6 * 0.4 * VOXEL_MM3, rel=0.01)  # p is kept in steps of 1 / 255


def test_a_doubtful_rim_of_one_voxel_is_no_region_and_a_thick_one_is():
    case = background()
    put(case, (slice(1, 5), slice(3, 7), slice(2, 7)), 1, 0.7)
    put(case, (slice(1, 5), slice(4, 6), slice(3, 6)), 1, 0.99)
    assert regions_of_doubt(found_in([case])["a"]) == []
    # Four rows of doubt about the border in y. The outer two are beyond the rim, 54 voxels each; of the inner two, 42
    # each have doubtful neighbours alone, for outside of the image there are none.
    case = background(shape=(6, 20, 9))
    put(case, (slice(0, 6), slice(0, 10), slice(0, 9)), 1, 0.99)
    put(case, (slice(0, 6), slice(8, 10), slice(0, 9)), 1, 0.6)
    put(case, (slice(0, 6), slice(10, 12), slice(0, 9)), 1, 0.4)
    (region,) = regions_of_doubt(found_in([case])["a"])
    assert region.voxels == 2 * 54 + 2 * 42
    assert region.expected_wrong_mm3 == pytest.approx(192 * 0.4 * VOXEL_MM3, rel=0.01)


def test_a_slice_beyond_the_last_one_is_a_region_though_it_touches_the_mask():
    """5 mm away, where a rim is 2.2 mm: 4 x 5 voxels at p = 0.4 outside of the mask."""
    case = background()
    put(case, (slice(1, 3), slice(3, 7), slice(2, 7)), 2, 0.99)
    put(case, (slice(3, 4), slice(3, 7), slice(2, 7)), 2, 0.4)
    each = found_in([case])["b"]
    (region,) = regions_of_doubt(each)
    assert region.block == (slice(3, 4), slice(3, 7), slice(2, 7))
    assert region.expected_wrong_mm3 == pytest.approx(20 * 0.4 * VOXEL_MM3, rel=0.01)


def test_where_folds_differ_there_is_doubt_though_their_mean_is_sure():
    """Two of three folds are certain of class a, the third of b, in 4 x 5 voxels far from the border of a."""
    sure = background()
    put(sure, (slice(1, 5), slice(1, 9), slice(1, 8)), 1, 1.0)
    other = sure.copy()
    put(other, (slice(2, 3), slice(3, 7), slice(2, 7)), 2, 1.0)
    found = found_in([sure, sure, other])
    assert found["a"].maps.probability[2, 4, 4] > 250  # logits are averaged: the mean is sure
    for name, is_inside in (("a", True), ("b", False)):
        (region,) = regions_of_doubt(found[name])
        assert region.block == (slice(2, 3), slice(3, 7), slice(2, 7))
        doubt = found[name].doubt
        assert doubt.differing_n.tolist() == pytest.approx([1 / 3] * 20)
        assert set(doubt.is_inside_n.tolist()) == {is_inside}
        assert region.expected_wrong_mm3 < VOXEL_MM3  # though by the votes it is 6.7 voxels


def test_what_comes_second_is_known_where_the_winner_is_no_background():
    case = background()
    put(case, (slice(1, 5), slice(1, 9), slice(1, 8)), 1, 0.99)
    put(case, (slice(3, 4), slice(4, 6), slice(3, 6)), 1, 0.55, other=2)
    found = found_in([case])
    block = (slice(3, 4), slice(4, 6), slice(3, 6))
    assert found["b"].probability(block) == pytest.approx(np.full((1, 2, 3), 0.45), abs=0.003)
    assert found["a"].probability(block) == pytest.approx(np.full((1, 2, 3), 0.55), abs=0.003)
    (region,) = regions_of_doubt(found["b"])
    assert region.expected_wrong_mm3 == pytest.approx(6 * 0.45 * VOXEL_MM3, rel=0.01)


def test_islands_are_all_parts_but_the_largest_by_26_neighbours():
    case = background()
    put(case, (slice(0, 3), slice(0, 4), slice(0, 4)), 1, 1.0)
    put(case, (slice(3, 4), slice(4, 5), slice(4, 5)), 1, 1.0)  # touches by a corner
    put(case, (slice(5, 6), slice(7, 9), slice(7, 9)), 1, 0.9)  # 4 voxels at 0.9
    (region,) = islands(found_in([case])["a"])
    assert region.block == (slice(5, 6), slice(7, 9), slice(7, 9))
    assert region.expected_wrong_mm3 == pytest.approx(4 * 0.1 * VOXEL_MM3, rel=0.05)


def test_a_gap_is_a_slice_without_what_lies_over_and_under_it():
    case = background()
    put(case, (slice(1, 2), slice(2, 6), slice(2, 6)), 1, 1.0)
    put(case, (slice(4, 5), slice(3, 8), slice(2, 6)), 1, 1.0)
    put(case, (slice(2, 4), slice(2, 8), slice(2, 6)), 1, 0.3)
    (region,) = gaps(found_in([case])["a"])
    assert region.block == (slice(2, 4), slice(3, 6), slice(2, 6))  # what both sides have
    assert region.expected_wrong_mm3 == pytest.approx(2 * 3 * 4 * 0.3 * VOXEL_MM3, rel=0.01)
    # Two parts beside each other are no gap, and neither is what is whole.
    apart = background()
    put(apart, (slice(1, 2), slice(0, 3), slice(2, 6)), 1, 1.0)
    put(apart, (slice(4, 5), slice(5, 8), slice(2, 6)), 1, 1.0)
    assert gaps(found_in([apart])["a"]) == []


def priors(present: int, cases: int = 20) -> StructurePriors:
    spread = Spread(mean=float(np.log(800.0)), sd=0.1, number=present)
    return StructurePriors(log_mm3=spread, offset_mm=None, cases=cases, present=present)


def test_what_training_masks_always_have_is_missing():
    case = background()
    put(case, (slice(2, 3), slice(2, 4), slice(2, 4)), 1, 0.4)
    found = found_in([case])
    (of_a,) = missing(found["a"], priors(20))
    assert of_a.expected_wrong_mm3 == pytest.approx(4 * 0.4 * VOXEL_MM3, rel=0.01)
    (of_b,) = missing(found["b"], priors(20))
    assert of_b.block is None
    assert of_b.expected_wrong_mm3 == pytest.approx(800)
    assert missing(found["b"], priors(15)) == []  # which is absent in a quarter of them
    assert missing(found["b"], None) == []


def test_at_most_five_regions_a_structure_those_of_largest_expected_error_first():
    case = background(shape=(20, 10, 9))
    put(case, (slice(0, 2), slice(0, 9), slice(0, 9)), 1, 1.0)
    for number in range(8):
        z = 4 + 2 * number
        put(case, (slice(z, z + 1), slice(0, 2), slice(0, number + 1)), 1, 0.9)
    found = suspected_regions(list(found_in([case]).values()))
    assert [region.kind for region in found] == ["island"] * 5
    assert [region.voxels for region in found] == [16, 14, 12, 10, 8]


def test_a_shape_far_from_training_is_a_region_of_the_whole_structure():
    case = background()
    put(case, (slice(1, 3), slice(2, 6), slice(2, 6)), 1, 0.9)
    structures = list(found_in([case]).values())
    (region,) = suspected_regions(structures, {"a": (3.4, None), "b": (9.0, 1.0)})
    assert (region.kind, region.structure, region.voxels) == ("outlier-shape", "a", 32)
    assert region.expected_wrong_mm3 == pytest.approx(32 * 0.1 * VOXEL_MM3, rel=0.05)
    assert suspected_regions(structures, {"a": (2.9, None)}) == []


def test_regions_that_overlap_have_their_own_doubt():
    """The core is in doubt in 6 voxels deep inside of the whole, which is not."""
    p = np.full((2, *SHAPE), 0.001)
    p[0, 1:5, 1:9, 1:8] = 0.999
    p[1, 1:5, 1:9, 1:8] = 0.999
    p[1, 3:4, 4:6, 3:6] = 0.6
    maps = MemberMaps(record(), NESTED)
    doubtful = DoubtfulVoxels(maps)
    logits = torch.from_numpy(np.log(p / (1 - p))).float()
    slab = Slab(first=0, start=0, stop=SHAPE[0], channels_azyx=logits)
    maps.add(slab)
    doubtful.add(slab)
    found = {each.name: each for each in structures_in(maps, doubtful.by_structure())}
    assert regions_of_doubt(found["whole"]) == []
    (region,) = regions_of_doubt(found["core"])
    assert region.voxels == 6
    assert region.expected_wrong_mm3 == pytest.approx(6 * 0.4 * VOXEL_MM3, rel=0.01)


def test_slabs_give_what_the_whole_gives():
    rng = np.random.default_rng(3)
    members = [rng.dirichlet((1.0, 1.0, 1.0), SHAPE).transpose(3, 0, 1, 2) for _ in range(2)]
    whole = found_in(members, thickness=SHAPE[0])
    parts = found_in(members, thickness=1)
    for name in ("a", "b"):
        assert len(whole[name].doubt.index_n) > 100
        np.testing.assert_array_equal(whole[name].doubt.index_n, parts[name].doubt.index_n)
        np.testing.assert_array_equal(whole[name].doubt.probability_n, parts[name].doubt.probability_n)


def test_the_doubt_of_single_voxels_is_that_of_all_probabilities():
    """Against a slow look at every probability: where p is above 0.35 nothing is missed."""
    rng = np.random.default_rng(4)
    case = rng.dirichlet((0.6,) * 4, SHAPE).transpose(3, 0, 1, 2)
    labels = LabelSet(names=("background", "a", "b", "c"), values=(0, 1, 2, 3))
    found = found_in([case], labels)
    everything = tuple(slice(0, size) for size in SHAPE)
    for index, name in enumerate(("a", "b", "c"), start=1):
        p = found[name].probability(everything)
        assert ((case[index] > 0.36) <= (p > 0.35)).all()
        assert ((case[index] < 0.34) <= (p < 0.35)).all()
        high = case[index] > 0.36
        np.testing.assert_allclose(p[high], case[index][high], atol=0.003)
