"""What a refiner's training samples are: counted over many draws, and by hand on unequal spacings."""

from __future__ import annotations

from collections import Counter

import numpy as np
import pytest
import torch

from segfw.clicks.click_maps import CHANNELS
from segfw.grid.store import CaseArrays
from segfw.networks.refiner_loss import IGNORED, NEAR_CLICK
from segfw.networks.spec import CLICK_CHANNELS
from segfw.training.refiner_batches import RefinerBatches, error_voxels
from segfw.training.refiner_samples import (
    KINDS,
    MOST_CLICKS,
    RefinerRules,
    RefinerSample,
    after_a_look,
    channels_of,
    draw_refiner_sample,
    shifted,
    truth_with_weights,
)

SHAPE = (6, 14, 20)
SPACING_MM = (4.0, 2.0, 1.0)
RULES = RefinerRules(structures=((1,), (2,), (3,)), ignored=None, spacing_mm=SPACING_MM)


def two_boxes() -> tuple[np.ndarray, np.ndarray]:
    """Classes 1 and 2 as they are drawn, and as they are found: class 1 a voxel too short, class 2 a voxel too long."""
    classes = np.zeros(SHAPE, np.int16)
    classes[1:5, 2:12, 2:8] = 1
    classes[1:5, 2:12, 12:18] = 2
    found = np.zeros(SHAPE, np.int16)
    found[1:5, 2:12, 2:7] = 1
    found[1:5, 2:12, 12:19] = 2
    return classes, found


def draw(number: int, classes: np.ndarray, found: np.ndarray, rules: RefinerRules, annotated=()) -> list[RefinerSample]:
    return [
        draw_refiner_sample(np.random.default_rng([7, seed]), classes, found, annotated, rules)
        for seed in range(number)
    ]


@pytest.fixture(scope="module")
def many() -> list[RefinerSample]:
    return draw(1500, *two_boxes(), RULES)


def near(found: float, wanted: float, number: int) -> bool:
    """Within four standard deviations of a share that is counted in so many draws."""
    return abs(found - wanted) < 4 * (wanted * (1 - wanted) / number) ** 0.5


def test_given_masks_are_of_every_kind_as_often_as_is_said(many):
    counted = Counter(sample.kind for sample in many)
    assert near(counted["absent"] / len(many), 0.1, len(many))
    assert sum(KINDS.values()) == 1
    for kind, share in KINDS.items():
        assert near(counted[kind] / len(many), 0.9 * share, len(many)), kind


def test_kinds_are_what_they_are_called(many):
    _, found = two_boxes()
    for sample in many[:300]:
        same = (sample.given_zyx == (found == sample.structure + 1)).all()
        if sample.kind == "held-out":
            assert same
        elif sample.kind in ("empty", "absent"):
            assert not sample.given_zyx.any()
        elif sample.kind == "leaking":
            assert (sample.given_zyx >= (found == sample.structure + 1)).all()
            assert not same
            assert (sample.given_zyx <= (found > 0)).all()  # there is another structure to leak into
        else:
            assert sample.kind in ("morphology", "shifted")
    assert any(sample.kind == "morphology" for sample in many[:300])


def test_structures_that_are_present_are_drawn_evenly_and_others_never(many):
    counted = Counter(sample.structure for sample in many)
    assert set(counted) == {0, 1}
    assert near(counted[0] / len(many), 0.5, len(many))


def test_clicks_are_one_to_six_and_half_of_several_wait_for_an_answer(many):
    totals = Counter(len(sample.clicks) + sample.later for sample in many)
    assert set(totals) == set(range(1, MOST_CLICKS + 1))  # every given mask here is wrong somewhere
    for number in totals.values():
        assert near(number / len(many), 1 / MOST_CLICKS, len(many))
    several = [sample for sample in many if len(sample.clicks) + sample.later > 1]
    assert near(sum(sample.later > 0 for sample in several) / len(several), 0.5, len(several))
    assert all(sample.clicks for sample in many)


def test_what_nobody_drew_is_never_asked_for():
    classes, found = two_boxes()
    classes[classes == 1] = 0
    samples = draw(200, classes, found, RULES, annotated=(False, True, True))
    assert {sample.structure for sample in samples} == {1}
    classes[classes == 2] = 0
    found[found == 2] = 0  # nothing left of what is annotated: still nothing else is asked for
    samples = draw(200, classes, found, RULES, annotated=(False, True, True))
    assert {sample.structure for sample in samples} == {1, 2}
    assert not any(sample.wanted_zyx.any() for sample in samples)


def test_what_a_network_found_in_vain_is_drawn_too():
    classes, found = two_boxes()
    found[0, 0, :3] = 3
    structures = {sample.structure for sample in draw(100, classes, found, RULES)}
    assert structures == {0, 1, 2}


def test_voxels_that_are_not_annotated_hold_no_clicks_and_do_not_count():
    classes, found = two_boxes()
    classes[:, :, :10] = 4
    rules = RefinerRules(structures=((1,), (2,)), ignored=4, spacing_mm=SPACING_MM)
    for sample in draw(200, classes, found, rules):
        for (_, _, x), _ in sample.clicks:
            assert x >= 10 - 2  # a click that misses may lie two voxels off
        truth = truth_with_weights(sample, SPACING_MM)
        assert (truth[:, :, :10] % NEAR_CLICK == IGNORED).all()
        assert (truth[:, :, 10:] % NEAR_CLICK != IGNORED).all()


def test_beyond_the_image_nothing_is_given_and_nothing_clicked():
    classes, found = two_boxes()
    classes[:, :, 13:] = -1
    found[:, :, 13:] = -1
    for sample in draw(200, classes, found, RULES):
        assert not sample.given_zyx[:, :, 13:].any()
        looked = after_a_look(np.random.default_rng(0), sample, np.ones(SHAPE, bool))
        assert not looked.given_zyx[:, :, 13:].any()


def test_a_region_holds_those_inside_it_and_others_do_not():
    classes, found = two_boxes()
    rules = RefinerRules(structures=((1, 2), (2,)), ignored=None, spacing_mm=SPACING_MM, is_spoilt=False)
    for sample in draw(50, classes, found, rules):
        members = [(1, 2), (2,)][sample.structure]
        np.testing.assert_array_equal(sample.wanted_zyx, np.isin(classes, members))
        np.testing.assert_array_equal(sample.given_zyx, np.isin(found, members))
        np.testing.assert_array_equal(sample.others_zyx, (found > 0) & ~np.isin(found, members))


def test_validation_takes_the_masks_as_they_were_found_without_a_second_look():
    rules = RefinerRules(structures=((1,), (2,)), ignored=None, spacing_mm=SPACING_MM, is_spoilt=False)
    samples = draw(100, *two_boxes(), rules)
    assert {sample.kind for sample in samples} == {"held-out"}
    assert not any(sample.later for sample in samples)


def test_a_mask_is_moved_and_what_leaves_is_lost():
    mask = np.zeros((1, 3, 4), bool)
    mask[0, 1, 0] = mask[0, 2, 3] = True
    moved = shifted(mask, (0, -1, 1))
    assert np.argwhere(moved).tolist() == [[0, 0, 1]]


def sample_with(*clicks, given=None, wanted=None) -> RefinerSample:
    empty = np.zeros((7, 9, 25), bool)
    return RefinerSample(
        structure=0,
        kind="held-out",
        given_zyx=empty if given is None else given,
        others_zyx=empty,
        wanted_zyx=empty if wanted is None else wanted,
        ignored_zyx=empty,
        inside_zyx=~empty,
        clicks=clicks,
    )


def test_clicks_are_as_wide_in_millimetres_along_every_axis():
    channels = channels_of(sample_with(((3, 4, 12), True), ((0, 0, 0), False)), SPACING_MM)
    inside = channels[CHANNELS.index("inside")]
    assert inside[3, 4, 12] == 1
    assert inside[4, 4, 12] == inside[3, 6, 12] == inside[3, 4, 16]  # 4 mm away
    assert inside[3, 5, 12] == inside[3, 4, 10]  # 2 mm
    assert inside[4, 4, 12] == pytest.approx(np.exp(-(4**2) / (2 * 2**2)))  # sigma is twice the finest spacing
    outside = channels[CHANNELS.index("outside")]
    assert outside[0, 0, 0] == 1
    assert outside[3, 4, 12] < 0.01


def test_voxels_within_a_centimetre_of_a_click_weigh_more():
    wanted = np.zeros((7, 9, 25), bool)
    wanted[3, 4, 12:] = True
    truth = truth_with_weights(sample_with(((3, 4, 12), True), wanted=wanted), SPACING_MM)
    assert truth[3, 4, 12] == NEAR_CLICK + 1
    assert truth[3, 4, 22] == NEAR_CLICK + 1  # 10 mm
    assert truth[3, 4, 23] == 1
    assert truth[5, 4, 12] == NEAR_CLICK  # 8 mm
    assert truth[6, 4, 12] == 0  # 12 mm
    assert truth[3, 0, 12] == NEAR_CLICK  # 8 mm
    assert truth[4, 0, 12] == NEAR_CLICK  # the root of 80
    assert truth[5, 0, 12] == 0  # the root of 128


def test_after_a_look_the_answer_is_given_and_later_clicks_lie_where_it_is_wrong():
    wanted = np.zeros((7, 9, 25), bool)
    wanted[2:5, 2:7, 5:15] = True
    first = ((3, 4, 6), True)
    sample = RefinerSample(**{**vars(sample_with(first, wanted=wanted)), "later": 40})
    answer = np.zeros_like(wanted)
    answer[2:5, 2:7, 10:15] = True
    answer[2:5, 2:7, 18:20] = True
    looked = after_a_look(np.random.default_rng(3), sample, answer)
    np.testing.assert_array_equal(looked.given_zyx, answer)
    assert looked.later == 0
    assert looked.clicks[0] == first
    assert len(looked.clicks) == 41
    for (_, _, x), is_inside in looked.clicks[1:]:
        assert 3 <= x < 12 if is_inside else 16 <= x < 22
    assert {is_inside for _, is_inside in looked.clicks[1:]} == {True, False}


def left_and_right() -> CaseArrays:
    """Class 1 on the left and class 2 on the right, both found half as wide; the image is 1 and 2 in them."""
    classes = np.zeros((4, 8, 16), np.uint8)
    classes[1:3, 2:6, 1:5] = 1
    classes[1:3, 2:6, 11:15] = 2
    found = classes.copy()
    found[:, :, 3:13] = 0
    voxels = {index: np.flatnonzero(classes == index) for index in (1, 2)}
    image = classes[None].astype(np.float16)
    return CaseArrays(image=image, classes=classes, foreground=voxels, previous=found)


def batches(case: CaseArrays, **values) -> RefinerBatches:
    wanted = {
        "cases": [case],
        "patch_size": (4, 8, 16),
        "batch_size": 2,
        "seed": 3,
        "stream": 0,
        "augmentation": "device",
        "mirror_axes": (2,),
        "foreground_share": 0.33,
        "swapped": {2: ((1, 2),)},
        "rules": RefinerRules(structures=((1,), (2,)), ignored=None, spacing_mm=(1.0, 1.0, 1.0)),
    }
    return RefinerBatches(**wanted | values)


def unwarped(made: RefinerBatches, steps: int) -> list[tuple[bool, torch.Tensor, torch.Tensor]]:
    """Whether it is mirrored, image and truth of every sample that is not warped."""
    found = []
    for step in range(steps):
        cut = made.cut(step)
        image, truth = made.finish(cut, torch.device("cpu"))
        for index, patch in enumerate(cut.patches):
            if not patch.spatial.is_warped:
                found.append((bool(patch.spatial.mirrored), image[index], truth[index] % NEAR_CLICK))
    return found


def test_mirrored_left_and_right_change_places_in_the_given_mask_and_in_what_is_wanted():
    rules = RefinerRules(structures=((1,), (2,)), ignored=None, spacing_mm=(1.0, 1.0, 1.0), is_spoilt=False)
    samples = unwarped(batches(left_and_right(), rules=rules), 30)
    assert {is_mirrored for is_mirrored, _, _ in samples} == {True, False}
    for _, image, truth in samples:
        given, others, inside, _ = image[-CLICK_CHANNELS:]
        is_left = bool(truth[:, :, :8].any())
        assert bool(truth[:, :, 8:].any()) != is_left
        assert int(truth.sum()) == 2 * 4 * 4
        assert int(given.sum()) == 2 * 4 * 2
        assert (given <= truth).all()
        assert (given * others).sum() == 0
        assert int(others.sum()) == 2 * 4 * 2
        side = slice(0, 9) if is_left else slice(7, 16)
        assert inside[:, :, side].max() == 1  # what is missing lies inwards, on the same side


def test_what_is_annotated_on_the_left_is_the_right_when_mirrored():
    made = batches(
        left_and_right(),
        annotated_outputs=((True, True, False),),  # the background and class 1
        output_orders={2: (0, 2, 1)},
    )
    samples = unwarped(made, 30)
    assert {is_mirrored for is_mirrored, _, _ in samples} == {True, False}
    for is_mirrored, _, truth in samples:
        assert truth[:, :, 8:].any() == is_mirrored
        assert truth[:, :, :8].any() != is_mirrored


def test_a_sample_is_made_again_by_itself_and_the_answer_counts():
    made = batches(left_and_right())
    whole, truth = made.finish(made.cut(5), torch.device("cpu"))
    second, second_truth = made.finish(made.cut(5, range(1, 2)), torch.device("cpu"))
    assert torch.equal(whole[1:], second)
    assert torch.equal(truth[1:], second_truth)
    asked = 0

    def everything(image: torch.Tensor) -> torch.Tensor:
        nonlocal asked
        asked += len(image)
        return torch.ones(len(image), *image.shape[2:], dtype=torch.bool)

    made = batches(left_and_right(), augmentation="none")  # so that no part of a patch lies outside the image
    given = [made.finish(made.cut(step), torch.device("cpu"), everything)[0] for step in range(20)]
    full = sum(bool((image[-CLICK_CHANNELS] == 1).all()) for batch in given for image in batch)
    assert full == asked
    assert 0.25 < asked / 40 < 0.6  # 5 of 6 have several clicks, and half of these are looked at twice


def test_patches_lie_around_errors_that_count():
    case = left_and_right()
    assert set(error_voxels(case, np.array([0, 1, 2]))) == set(np.flatnonzero(case.classes != case.previous))
    of_two = error_voxels(case, np.array([0, 0, 2]))  # class 1 is not annotated: as good as the background
    assert set(of_two) == set(np.flatnonzero((case.classes == 2) & (case.previous == 0)))
    assert not len(error_voxels(case, np.array([0, -1, -1])))  # classes that count nowhere
    small = batches(case, patch_size=(4, 8, 4), augmentation="none")
    starts = [small._draw_sample(np.random.default_rng(seed), 0).start[2] for seed in range(400)]
    assert np.mean([1 <= start <= 2 or 9 <= start <= 10 for start in starts]) > 0.4
