"""How the labels of the previous stage are spoilt in training: on phantoms that can be counted by hand."""

import numpy as np
import pytest
import torch
from scipy import ndimage

from segfw.grid.store import CaseArrays
from segfw.networks.previous_stage import one_hot_previous
from segfw.training.batches import Batches
from segfw.training.spoil_previous import (
    MORPHOLOGY,
    Morphology,
    PreviousParams,
    augment_previous,
    draw_previous,
    drop_components,
)

SCIPY = {
    "dilation": (ndimage.binary_dilation,),
    "erosion": (ndimage.binary_erosion,),
    "opening": (ndimage.binary_erosion, ndimage.binary_dilation),
    "closing": (ndimage.binary_dilation, ndimage.binary_erosion),
}


def by_scipy(mask: np.ndarray, operation: str, radius: int) -> np.ndarray:
    offsets = np.indices((2 * radius + 1,) * 3) - radius
    ball = (offsets**2).sum(0) <= radius**2
    for apply in SCIPY[operation]:
        mask = apply(mask, ball, border_value=apply is ndimage.binary_erosion)
    return mask


@pytest.mark.parametrize("radius", [1, 2, 5, 8])
@pytest.mark.parametrize("operation", MORPHOLOGY)
def test_balls_are_those_of_scipy_on_uneven_patches(operation, radius):
    rng = np.random.default_rng(radius)
    for shape in ((6, 21, 30), (1, 19, 12), (18, 18, 17)):
        smooth = ndimage.gaussian_filter(rng.normal(size=shape), 2)
        mask = smooth > np.quantile(smooth, 0.4 if operation in ("erosion", "opening") else 0.9)
        found = MORPHOLOGY[operation](torch.from_numpy(mask), radius)
        np.testing.assert_array_equal(found.numpy(), by_scipy(mask, operation, radius))


def change(previous: torch.Tensor, *changes: tuple[int, str, int]) -> torch.Tensor:
    drawn = tuple(Morphology(label=label, operation=name, radius=radius) for label, name, radius in changes)
    return augment_previous(previous[None], [PreviousParams(changes=drawn)])[0]


def test_a_grown_label_takes_from_others_and_a_shrunk_one_leaves_background():
    previous = torch.zeros(5, 6, 7, dtype=torch.int16)
    previous[2, 3, 3] = 1
    previous[2, 3, 4:] = 2
    grown = change(previous, (1, "dilation", 1))
    assert (grown == 1).sum() == 7  # the voxel and its six neighbours
    assert (grown[2, 3] == torch.tensor([0, 0, 1, 1, 1, 2, 2])).all()
    gone = change(previous, (1, "erosion", 1))
    assert (gone == 1).sum() == 0
    assert ((gone == 2) == (previous == 2)).all()
    assert (previous == 1).sum() == 1  # the argument is left alone


def test_changes_are_made_in_their_order():
    previous = torch.zeros(1, 1, 9, dtype=torch.int16)
    previous[..., 3], previous[..., 5] = 1, 2
    assert change(previous, (1, "dilation", 2), (2, "dilation", 1))[0, 0].tolist() == [0, 1, 1, 1, 1, 1, 0, 0, 0]
    assert change(previous, (2, "dilation", 1), (1, "dilation", 2))[0, 0].tolist() == [0, 1, 1, 1, 1, 1, 2, 0, 0]


def test_opening_removes_what_is_thin_and_closing_fills_gaps():
    previous = torch.zeros(9, 9, 12, dtype=torch.uint8)
    previous[2:7, 2:7, 2:7] = 3
    previous[4, 4, 7:] = 3  # a thread
    opened = change(previous, (3, "opening", 1))
    assert (opened[4, 4, 8:] == 0).all()
    assert opened[4, 4, 4] == 3
    previous = torch.zeros(5, 5, 9, dtype=torch.uint8)
    previous[:, :, :4] = previous[:, :, 5:] = 3
    assert (change(previous, (3, "closing", 1)) == 3).all()


def test_samples_and_labels_that_were_not_drawn_stay():
    previous = torch.from_numpy(np.random.default_rng(0).integers(0, 4, (3, 6, 7, 8)).astype(np.int16))
    drawn = [PreviousParams(), PreviousParams(changes=(Morphology(label=2, operation="erosion", radius=1),))]
    found = augment_previous(previous, [*drawn, PreviousParams()])
    assert (found[[0, 2]] == previous[[0, 2]]).all()
    assert not (found[1] == previous[1]).all()
    assert ((found[1] == 1) == (previous[1] == 1)).all()
    assert ((found[1] == 3) == (previous[1] == 3)).all()
    assert augment_previous(previous, [PreviousParams()] * 3) is previous


@pytest.fixture
def islands() -> np.ndarray:
    """Label 1 with components of 1, 4 (joined by a corner) and 40 voxels, label 2 with one of 8; 400 voxels in all."""
    previous = np.zeros((5, 8, 10), np.uint8)
    previous[0, 0, 0] = 1
    previous[0, 4, 4:6] = previous[1, 5, 6:8] = 1
    previous[3:, 0:2] = 1
    previous[3:, 4:6, 4:6] = 2
    return previous


def test_the_place_picks_among_the_components_that_are_small_enough(islands):
    def left(place: float, label: int = 1, patch_voxels: int = 400) -> np.ndarray:
        result = drop_components(islands, PreviousParams(dropped=((label, place),)), patch_voxels)
        assert (result[result != islands] == 0).all()
        return np.bincount(result.ravel(), minlength=3)[1:]

    assert np.bincount(islands.ravel()).tolist() == [347, 45, 8]
    assert [left(place).tolist() for place in (0.0, 0.4, 0.99)] == [[44, 8], [41, 8], [5, 8]]
    # 40 voxels are more than 15 % of 260: then only two are left to choose from.
    assert [left(place, patch_voxels=260).tolist() for place in (0.4, 0.99)] == [[44, 8], [41, 8]]
    assert left(0.5, label=2).tolist() == [45, 0]
    assert left(0.5, label=2, patch_voxels=53).tolist() == [45, 8]  # 8 of 53 are 15.1 %


def test_labels_that_are_not_there_or_not_drawn_lose_nothing(islands):
    assert drop_components(islands, PreviousParams(), 400) is islands
    missing = PreviousParams(dropped=((3, 0.2), (70, 0.2)))
    np.testing.assert_array_equal(drop_components(islands, missing, 400), islands)
    before = islands.copy()
    drop_components(islands, PreviousParams(dropped=((1, 0.9), (2, 0.0))), 400)
    np.testing.assert_array_equal(islands, before)


def test_how_often_things_are_drawn():
    """20 000 samples with four labels: shares within four standard errors."""
    count, classes = 20_000, 5
    drawn = [draw_previous(np.random.default_rng(index), classes) for index in range(count)]
    changes = [change for sample in drawn for change in sample.changes]
    dropped = [label for sample in drawn for label, _ in sample.dropped]

    def close(found: int, share: float, of: int) -> bool:
        return abs(found - share * of) < 4 * (share * (1 - share) * of) ** 0.5

    # A sample that is chosen still has none of its four labels chosen once in sixteen times.
    assert close(sum(bool(sample.changes) for sample in drawn), 0.4 * 15 / 16, count)
    assert close(sum(bool(sample.dropped) for sample in drawn), 0.2 * 15 / 16, count)
    assert close(sum(bool(sample.dropped and sample.changes) for sample in drawn), 0.08 * (15 / 16) ** 2, count)
    for label in range(1, classes):
        assert close(sum(change.label == label for change in changes), 0.2, count)
        assert close(dropped.count(label), 0.1, count)
    assert {change.radius for change in changes} == set(range(1, 9))
    for radius in (1, 8):
        assert close(sum(change.radius == radius for change in changes), 1 / 8, len(changes))
    for name in MORPHOLOGY:
        assert close(sum(change.operation == name for change in changes), 1 / 4, len(changes))
    first = [sample.changes[0].label for sample in drawn if len(sample.changes) == 4]
    assert close(first.count(4), 1 / 4, len(first))  # the order is drawn too
    places = [place for sample in drawn for _, place in sample.dropped]
    assert close(sum(place < 0.5 for place in places), 1 / 2, len(places))


def test_one_channel_per_class_but_the_background():
    previous = torch.tensor([[[[0, 1, 3, 2]]], [[[2, 2, 0, 3]]]], dtype=torch.int16)
    found = one_hot_previous(previous, 4)
    assert found.shape == (2, 3, 1, 1, 4)
    assert found.dtype == torch.float32
    assert found[:, :, 0, 0].tolist() == [
        [[0, 1, 0, 0], [0, 0, 0, 1], [0, 0, 1, 0]],
        [[0, 0, 0, 0], [1, 1, 0, 0], [0, 0, 0, 1]],
    ]


def batches(augmentation: str, **changes) -> Batches:
    """Batches of two cases whose previous stage found the very mask."""
    rng = np.random.default_rng(5)
    cases = []
    for shape in ((14, 20, 24), (12, 18, 22)):
        smooth = [ndimage.gaussian_filter(rng.normal(size=shape), 3) for _ in range(3)]
        classes = np.argmax(smooth, 0).astype(np.uint8)
        image = rng.normal(size=(2, *shape)).astype(np.float32)
        cases.append(CaseArrays(image=image, classes=classes, foreground={}, previous=classes))
    settings = {"patch_size": (8, 12, 12), "batch_size": 2, "seed": 3, "stream": 0, "mirror_axes": (0, 1, 2)}
    settings |= {"foreground_share": 0.0, "previous_classes": 3, "augmentation": augmentation}
    return Batches(cases=cases, **settings | changes)


@pytest.mark.parametrize("augmentation", ["device", "reference", "none"])
def test_the_labels_are_warped_and_mirrored_like_the_mask_and_spoilt_only_where_drawn(augmentation):
    made, spoilt, whole = batches(augmentation), 0, 0
    for step in range(20):
        cut = made.cut(step)
        image, classes = made.finish(cut, torch.device("cpu"))
        assert image.shape == (2, 4, 8, 12, 12)
        expected = one_hot_previous(classes, 3)
        for index, patch in enumerate(cut.patches):
            is_drawn = patch.mistakes is not None and (patch.mistakes.changes or patch.mistakes.dropped)
            is_equal = torch.equal(image[index, 2:], expected[index])
            assert is_equal or is_drawn
            assert (image[index, 2:].sum(0) <= 1).all()
            spoilt, whole = spoilt + (not is_equal), whole + is_equal
    assert whole > 10
    assert (spoilt > 5) == (augmentation != "none")


def test_a_sample_sees_the_same_labels_whoever_makes_it():
    made, cpu = batches("device"), torch.device("cpu")
    together = torch.cat([made.finish(made.cut(step), cpu)[0][1:, 2:] for step in range(12)])
    alone = torch.cat([made.finish(made.cut(step, range(1, 2)), cpu)[0][:, 2:] for step in range(12)])
    assert torch.equal(together, alone)


def test_an_augmentation_of_ones_own_gets_the_labels_with_the_image():
    seen = []

    def mirrored(image, classes, rng):
        seen.append(tuple(image.shape))
        return image.flip(2), classes.flip(1)

    made = batches("device", augment=mirrored)
    image, classes = made.finish(made.cut(0), torch.device("cpu"))
    assert seen == [(1, 4, 8, 12, 12)] * 2
    assert image.shape[1] == 4
    assert classes.shape == image[:, 0].shape
