"""Features of masks that a human can count, on unequal spacings."""

import numpy as np
import pytest
import torch

from builders.probabilities import LABELS, NESTED, record_of
from segfw.dataset.labels import LabelSet
from segfw.grid.slabs import Slab
from segfw.quality.member_maps import MemberMaps
from segfw.quality.quality_features import (
    MOST_Z,
    Shape,
    StructurePriors,
    pairwise_dice,
    priors_of,
    shapes_of,
    structure_features,
)

RECORD = record_of((4.0, 1.5, 1.0))
CELL_MM3 = 4.0 * 1.5 * 1.0


def maps_of(*masks: np.ndarray, labels: LabelSet = LABELS, sure: float = 3.0) -> MemberMaps:
    """Of networks that give every class of theirs the same logit above the others."""
    members = []
    for mask in masks:
        logits = torch.zeros((labels.outputs, *RECORD.shape))
        for output in range(labels.outputs):
            logits[output][torch.from_numpy(mask == output)] = sure
        members.append(logits)
    maps = MemberMaps(RECORD, labels)
    stacked = torch.cat(members)
    maps.add(Slab(first=0, start=0, stop=RECORD.shape[0], channels_azyx=stacked, members=len(masks)))
    return maps


def empty() -> np.ndarray:
    return np.zeros(RECORD.shape, np.uint8)


def test_the_grid_is_what_the_tests_below_count_on():
    assert RECORD.spacing_mm == (4.0, 1.5, 1.0)
    assert min(RECORD.shape) >= 7


def test_a_box_and_a_voxel_apart_from_it():
    mask = empty()
    mask[1:4, 1:4, 1:5] = 1  # 36 voxels
    mask[5, 5, 5] = 1
    found = structure_features(maps_of(mask), 0, LABELS)["a"]
    assert found.voxels == 37
    assert found.volume_mm3 == pytest.approx(37 * CELL_MM3)
    assert found.components == 2
    assert found.largest_share == pytest.approx(36 / 37)
    assert found.gaps == 1
    # Slices of 12, 12, 12, 0, 1 voxels: pairs of 1, 1, 0, 0.
    assert found.slice_dice == pytest.approx(0.5)
    assert found.filling == pytest.approx(37 / (5 * 5 * 5))
    assert found.at_border == 0
    p = np.exp(3) / (np.exp(3) + 2)
    rest = 1 / (np.exp(3) + 2)
    everywhere = 37 * p + (np.prod(RECORD.shape) - 37) * rest
    assert found.confidence == pytest.approx(p, rel=1e-5)
    assert found.soft == pytest.approx(2 * 37 * p / (everywhere + 37), rel=1e-5)
    assert found.unsure == pytest.approx(np.log(1 / 38))  # p is beyond 0.8 inside and below 0.2 outside


def test_faces_are_counted_by_their_area():
    mask = empty()
    mask[2:4, 2:5, 2:6] = 1  # 8 x 4.5 x 4 mm
    found = structure_features(maps_of(mask), 0, LABELS)["a"]
    surface = 2 * (8 * 4.5 + 8 * 4 + 4.5 * 4)
    assert found.roundness == pytest.approx((36 * np.pi) ** (1 / 3) * (8 * 4.5 * 4) ** (2 / 3) / surface)


def test_voxels_in_the_outermost_ones_are_at_the_border():
    mask = empty()
    mask[2:4, 0:2, 3:5] = 1
    assert structure_features(maps_of(mask), 0, LABELS)["a"].at_border == pytest.approx(0.5)
    mask = empty()
    mask[2:4, -2:, -2:] = 1
    assert structure_features(maps_of(mask), 0, LABELS)["a"].at_border == pytest.approx(0.75)


def test_a_structure_that_is_not_there():
    mask = empty()
    mask[2, 2, 2] = 1
    found = structure_features(maps_of(mask), 0, LABELS)["b"]
    assert (found.voxels, found.volume_mm3, found.offset_mm, found.confidence, found.components) == (
        0,
        0,
        None,
        None,
        0,
    )


def test_place_and_volume_are_measured_against_the_training_masks():
    mask = empty()
    mask[2:4, 2:4, 2:4] = 1
    mask[2:4, 2:4, 4:6] = 2
    found = structure_features(maps_of(mask), 0, LABELS)["a"]
    assert found.offset_mm == pytest.approx((0, 0, -1.0))  # half of two voxels of 1 mm
    assert found.volume_z is None
    half = Shape(volume_mm3=8 * CELL_MM3 * np.e, offset_mm=(0.0, 0.0, 1.0))
    whole = Shape(volume_mm3=8 * CELL_MM3 * np.e**3, offset_mm=(0.0, 0.0, 3.0))
    prior = priors_of([{"a": half}, {"a": whole}, {"a": Shape(volume_mm3=0.0, offset_mm=None)}])["a"]
    assert (prior.cases, prior.present) == (3, 2)
    assert prior.absent_share == pytest.approx(1 / 3)
    measured = found.against(prior)
    assert measured.volume_z == pytest.approx(2 / 2**0.5)  # of mean 2 and SD sqrt 2, in logarithms above its own
    assert measured.place_z == pytest.approx(3 / 2**0.5)  # from 2 with SD sqrt 2 to -1
    nothing = structure_features(maps_of(mask * 0), 0, LABELS)["a"].against(prior)
    assert nothing.volume_z == nothing.place_z == MOST_Z


def test_shapes_of_a_reference_are_those_of_the_same_mask():
    mask = empty()
    mask[2:4, 2:4, 2:4] = 1
    mask[1:5, 2:4, 4:6] = 2
    features = structure_features(maps_of(mask), 0, LABELS)
    shapes = shapes_of(mask, RECORD.spacing_mm, LABELS)
    for name in ("a", "b"):
        assert shapes[name].volume_mm3 == pytest.approx(features[name].volume_mm3)
        assert shapes[name].offset_mm == pytest.approx(features[name].offset_mm)


def test_where_some_structures_alone_were_drawn_no_place_is_known():
    """Without the other structure, the centre of all foreground would be that of the one that was drawn."""
    mask = empty()
    mask[2:4, 2:4, 2:4] = 1
    assert shapes_of(mask, RECORD.spacing_mm, LABELS)["a"].offset_mm == (0.0, 0.0, 0.0)
    assert shapes_of(mask, RECORD.spacing_mm, LABELS, ["a"]) == {"a": Shape(volume_mm3=8 * CELL_MM3, offset_mm=None)}
    whole = {"a": Shape(volume_mm3=50.0, offset_mm=(0.0, 0.0, 3.0)), "b": Shape(volume_mm3=50.0, offset_mm=None)}
    drawn = shapes_of(mask, RECORD.spacing_mm, LABELS, ["a"])
    priors = priors_of([whole, whole, drawn])
    assert (priors["a"].cases, priors["b"].cases) == (3, 2)
    assert priors["a"].log_mm3.number == 3
    assert [spread.number for spread in priors["a"].offset_mm] == [2, 2, 2]


def test_what_the_ignore_label_hides_is_no_size_of_a_structure():
    """20 voxels of one structure, 40 of the other: one ignored voxel is 5 % of the first, two are 5 % of the second."""
    labels = LABELS.model_copy(update={"ignore": 9})
    mask = empty()
    mask[1:3, 1:3, 0:5] = 1
    mask[3:5, 1:5, 0:5] = 2
    assert ((mask == 1).sum(), (mask == 2).sum()) == (20, 40)
    clean = shapes_of(mask, RECORD.spacing_mm, labels)
    mask[0, 0, 0] = labels.ignored_class
    assert shapes_of(mask, RECORD.spacing_mm, labels) == clean
    mask[0, 0, 1] = labels.ignored_class
    assert shapes_of(mask, RECORD.spacing_mm, labels) == {"b": clean["b"]}
    mask[0, 0:2, 2] = labels.ignored_class  # four of 60: the centre of all foreground is no longer known either
    assert shapes_of(mask, RECORD.spacing_mm, labels) == {}
    # A structure that is not there may lie in what is ignored
    mask = empty()
    mask[0:2] = 2
    mask[-1, -1, -1] = labels.ignored_class
    assert list(shapes_of(mask, RECORD.spacing_mm, labels)) == ["b"]


def test_folds_agree_by_pairs():
    first, second, third = empty(), empty(), empty()
    first[2, 2, 2:6] = 1
    second[2, 2, 4:8] = 1
    third[2, 2, 2:6] = 1
    found = pairwise_dice(maps_of(first, second, third), LABELS)
    assert found["a"] == pytest.approx((0.5 + 1 + 0.5) / 3)
    assert found["b"] == 1  # none has it
    assert pairwise_dice(maps_of(first), LABELS) == {}


def test_regions_are_what_masks_paint():
    # Outputs: 0 whole, 1 core, which lies inside and is painted over it; code 2 is background.
    mask = np.full(RECORD.shape, 2, np.uint8)
    mask[2:5, 2:5, 2:5] = 0
    mask[3, 3, 3] = 1
    logits = torch.full((2, *RECORD.shape), -3.0)
    logits[0][torch.from_numpy(mask < 2)] = 3.0
    logits[1][torch.from_numpy(mask == 1)] = 3.0
    maps = MemberMaps(RECORD, NESTED)
    maps.add(Slab(first=0, start=0, stop=RECORD.shape[0], channels_azyx=logits))
    found = structure_features(maps, 0, NESTED)
    assert found["whole"].voxels == 27
    assert found["core"].voxels == 1
    assert found["whole"].components == 1
    assert shapes_of((mask == 0) + 2 * (mask == 1), RECORD.spacing_mm, NESTED)["whole"].volume_mm3 == 27 * CELL_MM3


def test_priors_need_two_masks():
    prior = priors_of([{"a": Shape(volume_mm3=5.0, offset_mm=(0.0, 0.0, 0.0))}])["a"]
    assert prior == StructurePriors(log_mm3=None, offset_mm=None, cases=1, present=1)
