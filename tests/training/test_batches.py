"""Batches: the same whoever makes them, labels that swap sides, masks of normalisation, the previous stage."""

from dataclasses import replace

import numpy as np
import pytest
import torch
from scipy import ndimage

from segfw.grid.normalize import Normalization
from segfw.grid.preprocess import Preprocessing, preprocess_classes, preprocess_image
from segfw.grid.store import CaseArrays
from segfw.images.geometry import Geometry
from segfw.images.volume import Volume
from segfw.training.batches import OUTSIDE, Batches, cut_padded, is_blank, swap_classes
from segfw.training.sampling import TRAINING_STREAM, VALIDATION_STREAM

# Array axes run to the head, the front and the patient's right: the canonical orientation, 1 mm.
SUPINE = ((0.0, 0.0, -1.0, 0.0), (0.0, 1.0, 0.0, 0.0), (1.0, 0.0, 0.0, 0.0), (0.0, 0.0, 0.0, 1.0))
SHAPE, PATCH, CPU = (20, 26, 22), (8, 12, 10), torch.device("cpu")


def case_of(image, classes) -> CaseArrays:
    """Arrays as the store gives them, with all foreground voxels listed."""
    flat = classes.ravel()
    foreground = {int(k): np.flatnonzero(flat == k).astype(np.uint32) for k in np.unique(flat) if k}
    return CaseArrays(image=image, classes=classes, foreground=foreground)


def made_up(count=3, shape=SHAPE, channels=2):
    rng = np.random.default_rng(0)
    cases = []
    for _ in range(count):
        classes = np.zeros(shape, np.uint8)
        classes[shape[0] // 4 :, 5:15, 4:9], classes[: shape[0] // 2 + 1, 12:20, 9:18] = 1, 2
        image = rng.normal(size=(channels, *shape)).astype(np.float16)
        cases.append(case_of(image, classes))
    return cases


def batches_of(cases=None, **changes) -> Batches:
    settings = {
        "patch_size": PATCH,
        "batch_size": 4,
        "seed": 5,
        "stream": TRAINING_STREAM,
        "augmentation": "device",
        "mirror_axes": (0, 1, 2),
        "foreground_share": 0.33,
    }
    return Batches(cases=made_up() if cases is None else cases, **settings | changes)


def finished(batches, step, samples=None):
    return batches.finish(batches.cut(step, samples), CPU)


def assert_same(first, second):
    for one, other in zip(first, second, strict=True):
        assert torch.equal(one, other)


# The same whoever makes them


def jitter(image, classes, rng):
    return image * rng.uniform(0.5, 2), classes.flip(1) if rng.random() < 0.5 else classes


@pytest.mark.parametrize("patch", [PATCH, (1, 20, 16), (4, 16, 16)])
@pytest.mark.parametrize(
    "how", [{}, {"elastic": True, "previous_classes": 3}, {"augmentation": "reference"}, {"augment": jitter}]
)
def test_two_halves_equal_the_whole_noise_included(patch, how):
    cases, further = made_up(), how.get("previous_classes", 1) - 1
    if further:
        cases = [replace(case, previous=case.classes) for case in cases]
    batches = batches_of(cases, patch_size=patch, **how)
    for step in range(8):  # noise is drawn for one sample in ten, a warp for one in three
        whole = finished(batches, step)
        halves = [finished(batches_of(cases, patch_size=patch, **how), step, part) for part in (range(1), range(1, 4))]
        assert whole[0].shape == (4, 2 + further, *patch)
        assert (whole[0].dtype, whole[1].dtype) == (torch.float32, torch.int64)
        assert_same(whole, (torch.cat(parts) for parts in zip(*halves)))


def test_every_key_of_a_batch_matters():
    def image(step=3, **changes):
        return finished(batches_of(**changes), step)[0]

    others = [image(step=4), image(seed=6), image(stream=VALIDATION_STREAM), image().roll(1, 0)]
    assert not any(torch.equal(image(), other) for other in others)


def test_noise_differs_between_samples_and_steps():
    batches = batches_of([case_of(np.zeros((1, *SHAPE), np.float16), np.ones(SHAPE, np.uint8))])
    noisy = [sample for step in range(20) for sample in finished(batches, step)[0] if sample.std() > 0]
    assert len(noisy) > 3
    assert len({round(float(sample.flatten()[0]), 6) for sample in noisy}) == len(noisy)


def test_without_augmentation_a_patch_is_cut_as_it_is():
    batches = batches_of(augmentation="none")
    cut = batches.cut(0)
    image, classes = batches.finish(cut, CPU)
    for patch, made, mask in zip(cut.patches, image, classes):
        assert torch.equal(made, patch.image_czyx.float())
        windows = np.lib.stride_tricks.sliding_window_view(batches.cases[patch.case].classes, PATCH)
        assert (windows == mask.numpy()).all((3, 4, 5)).any()


# Geometry of whole batches


def coordinates(shape=SHAPE):
    """Cases whose channels are their own coordinates, so that a patch tells where it was cut."""
    grid = np.stack(np.meshgrid(*(np.arange(n) for n in shape), indexing="ij")).astype(np.float16)
    classes = np.zeros(shape, np.uint8)
    classes[:, :, : shape[2] // 2] = 1
    return case_of(grid, classes)


def test_mirroring_flips_image_and_mask_together():
    batches = batches_of([coordinates()])
    mirrored = 0
    for step in range(6):
        for patch in batches.cut(step).patches:
            if patch.spatial.is_warped:
                continue
            mirrored += bool(patch.spatial.mirrored)
            for axis in range(3):
                rises = patch.image_czyx[axis].diff(dim=axis).unique().tolist()
                assert rises == [-1 if axis in patch.spatial.mirrored else 1]
            left = patch.image_czyx[2] < SHAPE[2] // 2
            assert torch.equal(left, patch.classes_zyx == 1)
    assert mirrored > 6


@pytest.mark.parametrize("augmentation", ["device", "reference"])
def test_labels_of_two_sides_change_places_where_their_axis_is_mirrored(augmentation):
    """Left of the middle class 1, right of it class 2: in every patch 1 stays left of 2."""
    case = coordinates()
    classes = np.where(np.arange(SHAPE[2]) < 11, 1, 2)[None, None].repeat(20, 0).repeat(26, 1).astype(np.uint8)
    case = replace(case, classes=classes, foreground={1: np.array([11 * 26 * 22 + 13 * 22 + 11], np.uint32)})
    plain, swapping = (
        batches_of([case], swapped=swapped, foreground_share=1.0, augmentation=augmentation, mirror_axes=(2,))
        for swapped in ({}, {2: ((1, 2),), 0: ((1, 3),)})
    )
    orders = {False: set(), True: set()}
    for batches, seen in ((plain, orders[False]), (swapping, orders[True])):
        for step in range(8):
            for mask in finished(batches, step)[1]:
                if not {1, 2} <= set(mask.unique().tolist()):
                    continue
                where = [(mask == k).nonzero()[:, 2].float().mean() for k in (1, 2)]
                seen.add(bool(where[0] < where[1]))
    assert orders == {False: {True, False}, True: {True}}


def test_swapping_keeps_what_is_outside_and_undoes_itself():
    classes = torch.tensor([[[OUTSIDE, 0, 1, 2, 3, 4]]], dtype=torch.int16)
    assert swap_classes(classes, [(1, 2), (3, 4)]).flatten().tolist() == [OUTSIDE, 0, 2, 1, 4, 3]
    assert torch.equal(swap_classes(classes, [(1, 2), (1, 2)]), classes)


@pytest.mark.parametrize("start", [(2, 3, 1), (-3, 20, -2), (0, -9, 30), (25, 0, 0), (-9, -9, -9)])
def test_a_box_beyond_the_border_is_filled(start):
    array = np.arange(2 * 10 * 12 * 8).reshape(2, 10, 12, 8).astype(np.float32)
    wide = np.pad(array, ((0, 0), (40, 40), (40, 40), (40, 40)))
    expected = wide[(slice(None), *(slice(s + 40, s + 40 + n) for s, n in zip(start, (6, 9, 7))))]
    np.testing.assert_array_equal(cut_padded(array, start, (6, 9, 7)).numpy(), expected)
    mask = cut_padded(torch.ones(10, 12, 8, dtype=torch.uint8), start, (6, 9, 7), OUTSIDE)
    inside = np.pad(np.ones((10, 12, 8)), 40)[tuple(slice(s + 40, s + 40 + n) for s, n in zip(start, (6, 9, 7)))]
    assert mask.dtype == torch.int16
    np.testing.assert_array_equal(mask.numpy(), np.where(inside, 1, OUTSIDE))


@pytest.mark.parametrize("augmentation", ["device", "reference", "none"])
def test_outside_of_the_image_is_background_and_the_ignored_class_is_warped_like_others(augmentation):
    small = case_of(np.ones((1, 6, 9, 8), np.float16), np.full((6, 9, 8), 3, np.uint8))
    batches = batches_of([small], augmentation=augmentation)
    for step in range(6):
        cut = batches.cut(step)
        _, classes = batches.finish(cut, CPU)
        assert set(classes.unique().tolist()) == {0, 3}
        for patch, mask in zip(cut.patches, classes):
            if not patch.spatial.is_warped and augmentation != "reference":
                assert (mask == 3).sum() == 6 * 9 * 8


# Masks of normalisation


def test_outside_of_a_normalisation_mask_the_image_stays_zero():
    rng = np.random.default_rng(0)
    image = np.zeros((2, *SHAPE), np.float16)
    image[:, 4:16, 4:20, 4:18] = rng.normal(2, 1, (2, 12, 16, 14))
    image[:, 3, 3, 3] = 1e-3  # ringing of the resampling
    classes = np.zeros(SHAPE, np.uint8)
    classes[8:12, 8:12, 8:12] = 1
    case = case_of(image, classes)
    changed = {(): 0, (1,): 0}
    for zero_outside in changed:
        batches = batches_of([case], zero_outside=zero_outside, patch_size=SHAPE)
        for step in range(10):
            cut = batches.cut(step)
            made, mask = batches.finish(cut, CPU)
            still = [index for index, patch in enumerate(cut.patches) if not patch.spatial.is_warped]
            changed[zero_outside] += int((made[still, 1, :2, :2, :2] != 0).sum())
            assert set(mask.unique().tolist()) == {0, 1}
            assert (made[still, 1, 8:12, 8:12, 8:12] != 0).float().mean() > 0.9
    assert changed[()] > 0  # noise, contrast, gamma: background does not stay 0 by itself
    assert changed[(1,)] == 0


def test_blank_is_where_no_channel_shows_anything_nearby():
    image = torch.zeros(2, 5, 5, 7)
    image[0, 2, 2, 3], image[1, 2, 2, 0] = 1.0, 0.005
    blank = is_blank(image)
    assert (~blank).sum() == 27
    assert not blank[1:4, 1:4, 2:5].any()


def test_the_mask_of_a_resampled_image_is_found_again_to_a_few_voxels():
    """Preprocessing with a mask and a finer grid: the spline rings outside of it, which must not count as image."""
    rng = np.random.default_rng(0)
    grid = np.stack(np.meshgrid(*(np.arange(n) - n // 2 for n in (44, 48, 40)), indexing="ij"))
    head = (grid**2).sum(0) < 14**2
    image = np.where(head, rng.normal(100, 20, head.shape), 0).astype(np.float32)
    image[20:24, 20:24, 20:24] = 0  # a hole, which is filled
    image[0, 0, 0] = image[-1, -1, -1] = 1  # keeps the background from being cropped
    how = Preprocessing(
        axis_order=(0, 1, 2),
        spacing_mm=(0.7, 0.8, 1.0),
        normalization=(Normalization(kind="zscore", inside_mask=True),),
    )
    volume = Volume(array=image[None], geometry=Geometry(affine=SUPINE, shape=image.shape))
    made, _ = preprocess_image(volume, how, in_half=True)
    blank = is_blank(made).numpy()
    mask = Volume(array=head[None].astype(np.uint8), geometry=volume.geometry)
    inside = preprocess_classes(mask, preprocess_image(volume, how)[1]).numpy() == 1
    assert not blank[ndimage.binary_erosion(inside)].any()
    assert blank[~ndimage.binary_dilation(inside, iterations=8)].mean() > 0.98
    assert (made[0].numpy()[~inside] != 0).mean() > 0.05  # the values alone do not tell


# The previous stage, and the user's own augmentation


@pytest.mark.parametrize("augmentation", ["device", "reference", "none"])
def test_previous_labels_are_cut_warped_and_mirrored_like_the_classes(augmentation):
    cases = [replace(case, previous=case.classes.astype(np.int16)) for case in made_up()]
    swapped = {1: ((1, 2),)}
    batches = batches_of(cases, augmentation=augmentation, swapped=swapped)
    plain = batches_of(augmentation=augmentation, swapped=swapped)
    for step in range(4):
        cut = batches.cut(step)
        for patch in cut.patches:
            assert torch.equal(patch.previous_zyx, patch.classes_zyx)
        assembled = batches._assembled(cut.patches)[1]
        assert torch.equal(assembled[:, 0], assembled[:, 1])
        assert torch.equal(assembled[:, 0].clamp_min(0).long(), finished(plain, step)[1])


def test_an_augmentation_of_ones_own_takes_the_place_of_the_built_in_one():
    calls = []

    def shift(image_BCZYX, classes_BZYX, rng):
        calls.append((image_BCZYX.shape, classes_BZYX.dtype, rng.random()))
        return image_BCZYX + 10, classes_BZYX

    own, plain = batches_of(augment=shift), batches_of(augment=lambda image, classes, rng: (image, classes))
    image, classes = finished(own, 0)
    cut_only = finished(plain, 0)
    torch.testing.assert_close(image, cut_only[0] + 10)
    assert torch.equal(classes, cut_only[1])
    assert [call[:2] for call in calls] == [((1, 2, *PATCH), torch.int64)] * 4
    assert len({call[2] for call in calls}) == 4


def test_a_patch_says_which_case_it_is_from():
    cases = [case_of(np.full((1, *SHAPE), value, np.float16), np.ones(SHAPE, np.uint8)) for value in (1, 2, 3)]
    batches = batches_of(cases, augmentation="none")
    patches = [patch for step in range(5) for patch in batches.cut(step).patches]
    assert {patch.case for patch in patches} == {0, 1, 2}
    assert all((patch.image_czyx == patch.case + 1).all() for patch in patches)
