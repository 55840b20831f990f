"""From file to network grid and back: nothing is lost, moved or mixed up, whatever the orientation and axis order."""

from itertools import permutations

import numpy as np
import pytest
import torch

from builders.grids import ORIENTATIONS
from segfw.grid.boxes import nonzero_box
from segfw.grid.normalize import Normalization
from segfw.grid.preprocess import (
    Preprocessing,
    canonical_shape_of,
    orientation_note,
    outside_of,
    place_back,
    preprocess_classes,
    preprocess_image,
    stack_channels,
)
from segfw.grid.restore import restore
from segfw.images.geometry import Geometry
from segfw.images.volume import Volume, to_canonical

SHAPE = (4, 7, 9)
SPACING = (5.0, 0.5, 2.0)  # along the stored axes
PLAIN = Normalization(kind="none")


def geometry(order: tuple[int, ...] = (2, 1, 0), signs: tuple[int, ...] = (1, 1, 1), shape=SHAPE) -> Geometry:
    """Stored axis i runs along RAS axis ``order[i]`` in direction ``signs[i]``."""
    affine = np.zeros((4, 4))
    affine[order, range(3)] = np.multiply(signs, SPACING)
    affine[:, 3] = (-7, 11, 13, 1)
    return Geometry.of(shape, affine)


def rules_for(
    axis_order=(0, 1, 2), spacing_mm=(None, 1.0, 1.0), rule: Normalization = PLAIN, channels=1
) -> Preprocessing:
    return Preprocessing(axis_order=axis_order, spacing_mm=spacing_mm, normalization=(rule,) * channels)


def own_spacing(grid: Geometry, axis_order: tuple[int, ...]) -> tuple[float, ...]:
    canonical = to_canonical(Volume(array=np.zeros((1, *grid.shape), np.uint8), geometry=grid)).geometry.spacing_mm
    return tuple(canonical[axis] for axis in axis_order)


@pytest.mark.parametrize("axis_order", list(permutations(range(3))))
def test_there_and_back_is_exact_for_every_orientation_at_unchanged_spacing(axis_order):
    rng = np.random.default_rng(0)
    for order, signs in ORIENTATIONS:
        grid = geometry(order, signs)
        classes = np.zeros(SHAPE, np.uint8)
        classes[1:3, 1:6, 2:7] = rng.integers(1, 4, (2, 5, 5))
        image = np.zeros((1, *SHAPE), np.float32)
        image[0, 1:4, 1:7, 2:8] = rng.normal(5, 1, (3, 6, 6))
        rules = rules_for(axis_order, own_spacing(grid, axis_order))
        network_image, record = preprocess_image(Volume(array=image, geometry=grid), rules)
        network_classes = preprocess_classes(Volume(array=classes[None], geometry=grid), record)
        assert network_image.shape == (1, *network_classes.shape)
        assert sorted(network_classes.shape) == [3, 6, 6]  # the crop
        one_hot = torch.nn.functional.one_hot(network_classes.long(), 4).permute(3, 0, 1, 2).float()
        np.testing.assert_array_equal(restore(one_hot, record), classes, err_msg=f"{order} {signs}")
        # The image through the same way back: every voxel returns to its place.
        np.testing.assert_array_equal(place_back(network_image[0].numpy(), record), image[0])


def test_the_network_sees_head_front_and_right_in_the_plans_order():
    # Stored axes run to the left (5 mm), to the front (0.5 mm) and to the feet (2 mm).
    grid = geometry((0, 1, 2), (-1, 1, -1))
    image = np.ones((1, *SHAPE), np.float32)
    image[0, 0, 1, 2] = 9  # 0 from the right end of x, 1 along y, 2 from the head end of z
    result, record = preprocess_image(Volume(array=image, geometry=grid), rules_for((2, 0, 1), (5.0, 2.0, 0.5)))
    assert result.shape == (1, 4, 9, 7)  # x, z, y
    assert record.cropped_spacing_mm == record.spacing_mm == (5, 2, 0.5)
    assert np.argwhere(result[0].numpy() == 9).tolist() == [[3, 6, 1]]
    assert canonical_shape_of(grid) == (9, 7, 4)


def test_the_crop_is_the_box_of_what_is_not_zero_in_any_channel():
    image = np.zeros((2, *SHAPE), np.int16)
    image[0, 1, 2, 3] = -5
    image[1, 2, 6, 4] = 1
    assert nonzero_box(image) == ((1, 3), (2, 7), (3, 5))
    assert nonzero_box(image * 0) == ((0, 4), (0, 7), (0, 9))
    result, record = preprocess_image(
        Volume(array=image, geometry=geometry()), rules_for((0, 1, 2), SPACING, channels=2)
    )
    assert record.box == ((1, 3), (2, 7), (3, 5))
    assert record.cropped_shape == tuple(result.shape[1:]) == (2, 5, 2)
    restored = restore(torch.ones(2, 2, 5, 2) * torch.tensor([0.0, 1]).reshape(2, 1, 1, 1), record)
    assert restored.sum() == 20  # class 1 in the whole box, 0 outside
    assert restored[1:3, 2:7, 3:5].all()


def test_the_target_spacing_decides_the_shape_and_none_keeps_a_cases_own():
    volume = Volume(array=np.random.default_rng(0).normal(9, 1, (1, *SHAPE)).astype(np.float32), geometry=geometry())
    result, record = preprocess_image(volume, rules_for((0, 1, 2), (2.5, 1.0, 1.0)))
    assert record.shape == tuple(result.shape[1:]) == (8, 4, 18)  # 20 mm, 3.5 mm (half to even), 18 mm
    result, record = preprocess_image(volume, rules_for((0, 1, 2), (None, 1.0, 1.0)))
    assert tuple(result.shape[1:]) == (4, 4, 18)
    assert record.spacing_mm == (5, 1, 1)


def test_every_channel_has_its_own_rule_and_normalisation_comes_before_resampling():
    rng = np.random.default_rng(0)
    image = rng.normal(50, 9, (2, *SHAPE)).astype(np.float32)
    rules = Preprocessing(
        axis_order=(0, 1, 2),
        spacing_mm=(5.0, 0.25, 2.0),
        normalization=(PLAIN, Normalization(kind="rescale")),
    )
    result, _ = preprocess_image(Volume(array=image, geometry=geometry()), rules)
    assert result.dtype == torch.float32
    assert result[0].mean() == pytest.approx(image[0].mean(), abs=0.5)
    assert result[1].min() >= 0
    assert result[1].max() <= 1


def test_zscore_inside_the_mask_ignores_what_is_zero_outside_but_not_in_holes():
    image = np.zeros((1, 5, 9, 9), np.float32)
    image[0, :, 2:7, 2:7] = np.where(np.indices((5, 5, 5)).sum(0) % 2, 10, 30)
    image[0, 2, 4, 4] = 0  # a hole: dark tissue, no outside
    image[0, 0, 8, 8] = 20  # makes the crop larger than the object
    grid = geometry(shape=(5, 9, 9))
    rule = Normalization(kind="zscore", inside_mask=True)
    result, record = preprocess_image(Volume(array=image, geometry=grid), rules_for((0, 1, 2), SPACING, rule))
    assert record.box == ((0, 5), (2, 9), (2, 9))
    cropped = image[0, :, 2:, 2:]
    inside = cropped != 0
    inside[2, 2, 2] = True
    expected = np.where(inside, (cropped - cropped[inside].mean()) / cropped[inside].std(), 0)
    np.testing.assert_allclose(result[0].numpy(), expected, atol=1e-5)
    assert result[0, 2, 2, 2] < -1  # the hole is a voxel like others


@pytest.mark.parametrize("target", [(2.5, 1.0, 1.0), (5.0, 0.8, 0.7), (7.0, 3.0, 3.0)])
def test_image_classes_and_restored_classes_stay_in_one_place_when_resampled(target):
    z, y, x = np.indices((9, 40, 30))
    inside = ((z - 4.3) / 3) ** 2 + ((y - 22) / 13) ** 2 + ((x - 11) / 6) ** 2 < 1
    affine = np.array([[0, 0, -1.5, 3], [0, 1.2, 0, 4], [-5.0, 0, 0, 5], [0, 0, 0, 1]])
    grid = Geometry.of(inside.shape, affine)
    rules = rules_for((0, 1, 2), target)
    network_image, record = preprocess_image(Volume(array=inside[None] * 8.0 + 1, geometry=grid), rules)
    classes = preprocess_classes(Volume(array=inside[None].astype(np.uint8), geometry=grid), record)
    as_image = network_image[0].numpy() > 5
    assert 2 * (as_image & classes.bool().numpy()).sum() / (as_image.sum() + int(classes.sum())) > 0.93
    one_hot = torch.stack([1.0 - classes, classes.float()])
    restored = restore(one_hot, record).astype(bool)
    assert restored.shape == inside.shape
    moved_mm = np.abs(np.argwhere(restored).mean(0) - np.argwhere(inside).mean(0)) * (5, 1.2, 1.5)
    coarser_mm = np.maximum(target, (5, 1.2, 1.5))
    assert (moved_mm < 0.3 * coarser_mm).all()  # a systematic shift would be half a voxel or more


def test_thick_slices_are_picked_and_not_blended_on_the_way_and_back():
    grid = Geometry.of((4, 5, 6), np.array([[0, 0, 1.0, 0], [0, 1, 0, 0], [5, 0, 0, 0], [0, 0, 0, 1]]))
    image = np.zeros((1, 4, 5, 6), np.float32) + np.array([1, 2, 3, 4]).reshape(4, 1, 1)
    classes = np.zeros((1, 4, 5, 6), np.uint8)
    classes[0, 1:3] = 1
    result, record = preprocess_image(Volume(array=image, geometry=grid), rules_for((0, 1, 2), (10.0, 1.0, 1.0)))
    assert result[0, :, 0, 0].tolist() == [2, 4]  # new centres lie between slices 0 and 1, 2 and 3: halves go up
    assert preprocess_classes(Volume(array=classes, geometry=grid), record)[:, 0, 0].tolist() == [1, 0]
    # Blended at a quarter of the distance, the second slice would overrule the first: 0.75 x 1 < 0.25 x 9.
    for_one = torch.tensor([1.0, -9.0]).reshape(1, 2, 1, 1).expand(1, 2, 5, 6)
    assert restore(torch.cat([0 * for_one, for_one]), record)[:, 0, 0].tolist() == [1, 1, 0, 0]


def touching_the_outside() -> tuple[Volume, Volume, Preprocessing]:
    """One slice of 2 x 2 voxels, of 3 x 1 x 1.5 mm, for a network that sees a single one; (0, 1, 1) is outside."""
    grid = Geometry.of((1, 2, 2), np.array([[0, 0, 1.5, 0], [0, 1, 0, 0], [3, 0, 0, 0], [0, 0, 0, 1]]))
    image = Volume(array=np.array([[[[5, 5], [5, 0]]]], np.float32), geometry=grid)
    classes = Volume(array=np.array([[[[1, 1], [0, 0]]]], np.uint8), geometry=grid)
    return image, classes, rules_for(spacing_mm=(3.0, 2.0, 3.0))


def test_background_outside_of_the_image_and_in_it_are_two_classes_where_that_is_asked_for():
    volume, classes, rules = touching_the_outside()
    _, record = preprocess_image(volume, rules)
    outside = outside_of(volume, record)
    assert outside.tolist() == [[[False, False], [False, True]]]
    # The structure weighs 1/2, background in the image 1/4 and outside of it 1/4.
    assert preprocess_classes(classes, record, outside).tolist() == [[[1]]]
    # Together they weigh 1/2 as well, and theirs is the nearest voxel.
    assert preprocess_classes(classes, record).tolist() == [[[0]]]


@pytest.mark.parametrize(("dtype", "most"), [(np.uint8, 255), (np.uint8, 7), (np.uint16, 65535), (np.uint16, 7)])
def test_the_outside_takes_no_class_away(dtype, most):
    volume, classes, rules = touching_the_outside()
    _, record = preprocess_image(volume, rules.model_copy(update={"spacing_mm": (3.0, 0.5, 0.75)}))
    many = Volume(array=np.array([[[[most, most - 1], [0, 0]]]], dtype), geometry=classes.geometry)
    result = preprocess_classes(many, record, outside_of(volume, record))
    assert result.tolist() == [[[most] * 2 + [most - 1] * 2] * 2 + [[0] * 4] * 2]
    assert many.array.max() == most


def test_a_hole_is_not_outside_and_an_image_without_zeros_has_no_outside():
    rules = rules_for(axis_order=(1, 0, 2), spacing_mm=(1.0, 5.0, 0.5))
    grid = Geometry.of((3, 4, 5), np.diag([5.0, 1.0, 0.5, 1]))
    image = np.ones((2, 3, 4, 5), np.float32)
    image[:, 1, 2, 2] = 0  # inside of both channels
    image[0, 0, 0, 0] = 0  # the other channel holds something there
    volume = Volume(array=image, geometry=grid)
    assert outside_of(volume, preprocess_image(volume, rules)[1]) is None
    image[:, 2, 3, 4] = 0
    record = preprocess_image(volume, rules)[1]
    outside = outside_of(volume, record)
    assert outside.shape == record.cropped_shape
    assert outside.sum() == 1


def test_channels_of_several_files_are_stacked_in_order():
    volumes = [Volume(array=np.full((1, *SHAPE), value, np.int16), geometry=geometry()) for value in (3, 1, 2)]
    assert stack_channels(volumes).array[:, 0, 0, 0].tolist() == [3, 1, 2]
    assert stack_channels(volumes[:1]) is volumes[0]


@pytest.mark.real_data
def test_every_real_orientation_gives_the_same_network_image_and_returns_to_its_own(real_data):
    from segfw.images.formats import read_volume

    rules = rules_for((0, 1, 2), (9.0, 9.0, 9.0))
    first = None
    paths = sorted((real_data / "awkward" / "48_orientations").glob("*.nii.gz"))[::5]
    assert len(paths) == 10
    for path in paths:
        volume = read_volume(path)
        image, record = preprocess_image(volume, rules)
        first = image if first is None else first
        torch.testing.assert_close(image, first, rtol=0, atol=1e-3)
        assert restore(torch.stack([-image[0], image[0]]), record).shape == volume.geometry.shape
        unchanged = rules_for((0, 1, 2), own_spacing(volume.geometry, (0, 1, 2)))
        same, record = preprocess_image(volume, unchanged)
        bright = (same[0] > same.mean()).float()
        restored = restore(torch.stack([1 - bright, bright]), record)
        np.testing.assert_array_equal(restored, volume.array[0] > float(same.mean()), err_msg=path.name)


@pytest.mark.parametrize(
    "columns, is_odd",
    [
        ([(0, 0, 3), (0, 1, 0), (1, 0, 0)], False),
        ([(0, 0, -3), (0, -1, 0), (-1, 0, 0)], False),  # flipped, as LPS
        ([(0, 0.2, 3), (0, 1, -0.1), (1, 0, 0)], False),  # a tilted gantry
        ([(1, 0, 0), (0, 0, 1), (0, 1, 0)], True),  # sagittal
        ([(0, 3, 0), (0, 0, 1), (1, 0, 0)], True),  # coronal
    ],
)
def test_an_image_of_other_slices_is_told_where_axes_are_taken_as_they_are_stored(columns, is_odd):
    matrix = np.eye(4)
    matrix[:3, :3] = np.array(columns).T
    volume = Volume(array=np.zeros((1, 2, 3, 4), np.float32), geometry=Geometry.of((2, 3, 4), matrix))
    assert bool(orientation_note(volume, "as stored")) == is_odd
    assert orientation_note(volume, "canonical") == ""
