"""The published pipeline by batchgenerators: repeatable in threads, and what ours does has the same moments."""

import random
import sys
from concurrent.futures import ThreadPoolExecutor

import numpy as np
import pytest
import torch

from segfw.base.records import UserError
from segfw.training import augment_reference
from segfw.training.augment import augment_intensity, warp
from segfw.training.augment_params import draw_intensity, draw_spatial, source_size
from segfw.training.augment_reference import augment_as_published, published_source_size

PATCH = (12, 16, 14)


def phantom(size):
    """A bright smooth blob off the centre, with its mask."""
    grid = torch.meshgrid(*(torch.arange(n) - (n - 1) / 2 for n in size), indexing="ij")
    distance = sum((axis - shift) ** 2 for axis, shift in zip(grid, (1, -2, 1.5))).sqrt()
    return torch.exp(-(distance**2) / 30)[None], (distance < 4).to(torch.int16)


def published(seed, patch=PATCH):
    image, mask = phantom(published_source_size(patch))
    image, masks = augment_as_published(image, [mask], patch, seed)
    return image, masks[0]


def test_box_that_is_read():
    # 128 voxels turned by 30 degrees reach 128 (cos 30 + sin 30) = 174.9, and scaled by 0.85, 205.7.
    assert published_source_size((128, 128, 128)) == (206, 206, 206)
    assert published_source_size((1, 64, 64))[0] == 1
    assert published_source_size((4, 64, 32)) == (4, 76, 76)  # a quarter turn: 64 / 0.85 = 75.3 along both


def test_the_same_seed_gives_the_same_patch_in_any_thread_and_others_are_not_disturbed():
    random.seed(3)
    np.random.seed(3)  # noqa: NPY002
    expected_draws = random.random(), np.random.rand()  # noqa: NPY002
    one_by_one = [published(seed) for seed in range(12)]
    random.seed(3)
    np.random.seed(3)  # noqa: NPY002
    with ThreadPoolExecutor(4) as pool:
        together = list(pool.map(published, range(12)))
    for first, second in zip(one_by_one, together):
        assert torch.equal(first[0], second[0])
        assert torch.equal(first[1], second[1])
    assert (random.random(), np.random.rand()) == expected_draws  # noqa: NPY002
    assert not torch.equal(one_by_one[0][0], one_by_one[1][0])


@pytest.mark.parametrize("patch", [PATCH, (1, 20, 16), (4, 20, 16)])
def test_shapes_types_and_several_channels_and_masks(patch):
    size = published_source_size(patch)
    image, mask = torch.randn(2, *size).half(), torch.randint(-1, 4, size, dtype=torch.int16)
    changed, masks = augment_as_published(image, [mask, mask], patch, 1)
    assert changed.shape == (2, *patch)
    assert (changed.dtype, masks[0].dtype) == (torch.float32, torch.int16)
    assert torch.equal(*masks)


def test_without_batchgenerators_one_sentence_says_what_to_install(monkeypatch):
    augment_reference._published.cache_clear()
    monkeypatch.setitem(sys.modules, "batchgenerators.transforms.abstract_transforms", None)
    with pytest.raises(UserError, match="pip install batchgenerators"):
        published(0)


def test_slices_of_a_flat_patch_stay_apart():
    size = published_source_size((4, 20, 16))
    image = torch.arange(4.0).view(1, 4, 1, 1).expand(1, *size)
    for seed in range(10):
        _, (mask,) = augment_as_published(image, [image[0].to(torch.int16)], (4, 20, 16), seed)
        for index in range(4):
            assert set(mask[index].unique().tolist()) <= {index, -1}


def test_moments_of_many_patches_agree_with_ours():
    """Mean, deviation, extremes and labelled voxels over patches of both pipelines; errors of the mean allowed for."""
    count, ours, theirs = 250, [], []
    for seed in range(count):
        rng = np.random.default_rng(seed)
        params = draw_spatial(rng, PATCH, ())
        image, mask = phantom(source_size(PATCH, params))
        image, labels = warp([(image, mask[None])], [params], PATCH)
        image = augment_intensity(image, [draw_intensity(rng, 1)], PATCH, [seed])
        ours.append(moments(image[0, 0], labels[0, 0]))
        image, labels = published(seed)
        theirs.append(moments(image[0], labels))
    ours, theirs = np.array(ours), np.array(theirs)
    error = np.sqrt((ours.var(0) + theirs.var(0)) / count)
    assert (np.abs(ours.mean(0) - theirs.mean(0)) < 4 * error).all()
    assert (np.abs(np.log(ours.std(0) / theirs.std(0))) < 0.35).all()
    # Each moment must be known well enough for that to mean something.
    assert (error < 0.03 * np.abs(theirs.mean(0)) + 0.02).all()


def moments(image, labels):
    inside = labels == 1
    return [*(float(f()) for f in (image.mean, image.std, image.max, image.min)), float(inside.float().mean()) * 10,
            float(image[inside].mean())]  # fmt: skip
