"""Whole numbers in masks: rounded where a file scaled them, counted as NumPy does, and looked up."""

import numpy as np
import pytest

from segfw.images.values import as_integers, count_values, look_up


def test_masks_stored_as_scaled_numbers_are_integers():
    scaled = np.array([0, 0.99999997, 1.0000001, 2034.9998, -3.0002], np.float32)
    assert as_integers(scaled).tolist() == [0, 1, 1, 2035, -3]
    assert as_integers(scaled).dtype == np.int32
    assert as_integers(np.array([True, False])).tolist() == [1, 0]
    whole = np.array([5, 70_000])
    assert as_integers(whole) is whole


@pytest.mark.parametrize("value", [0.4, 1.01, -2.5, np.nan, np.inf])
def test_values_off_the_integers_are_refused(value):
    with pytest.raises(ValueError, match="holds 1 values that are not integers"):
        as_integers(np.array([0, 1, value], np.float32))


@pytest.mark.parametrize("kind", [np.uint8, np.int16, np.int32])
def test_values_are_counted_like_numpy_does(kind):
    rng = np.random.default_rng(3)
    mask = rng.choice([0, 3, 7, 120], size=(9, 11, 13), p=[0.9, 0.05, 0.04, 0.01]).astype(kind)
    if kind is not np.uint8:
        mask -= 5
    for stored in (mask, mask.transpose(2, 0, 1)[:, ::-1]):
        values, counts = np.unique(stored, return_counts=True)
        assert count_values(stored) == dict(zip(values.tolist(), counts.tolist()))


def test_values_far_apart_are_counted_too():
    mask = np.array([[[-3, 70_000, 70_000, 0]]])
    assert count_values(mask) == {-3: 1, 0: 1, 70_000: 2}


@pytest.mark.parametrize("chunk_voxels", [1, 3, 100])
def test_counts_do_not_depend_on_the_chunks(chunk_voxels):
    assert count_values(np.array([2, 2, 5, 5, 5, 2, 9]), chunk_voxels=chunk_voxels) == {2: 3, 5: 3, 9: 1}


@pytest.mark.parametrize("far", [9, 70_000])  # by a table, and by a search
@pytest.mark.parametrize("chunk_voxels", [2, 100])
def test_values_are_looked_up_and_unlisted_ones_refused(far, chunk_voxels):
    meaning_of = {-1: 4, 5: 0, far: 300}
    mask = np.array([[5, -1, far], [far, 5, 5]])
    found = look_up(mask.T, meaning_of, np.uint16, chunk_voxels=chunk_voxels)
    assert found.T.tolist() == [[0, 4, 300], [300, 0, 0]]
    assert found.dtype == np.uint16
    for unlisted in (-2, 0, far + 1):
        with pytest.raises(ValueError, match=rf"mask holds values outside \[-1, 5, {far}\]"):
            look_up(np.array([5, 5, 5, unlisted]), meaning_of, np.uint16, chunk_voxels=chunk_voxels)
