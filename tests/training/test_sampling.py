"""Where patches are cut: from (seed, step, sample) alone, and always inside the image."""

import numpy as np
import pytest

from segfw.training.sampling import draw_sample, draw_weighted, generator, is_forced_foreground, start_limits

SHAPES = [(10, 30, 20), (4, 30, 50)]
FOREGROUNDS = [{1: np.array([0], np.uint32)}, {2: np.array([4 * 30 * 50 - 1], np.uint32)}]


@pytest.mark.parametrize(
    "batch, share, forced", [(2, 0.33, [1]), (7, 0.33, [5, 6]), (3, 0.33, [2]), (12, 0.33, [8, 9, 10, 11]), (4, 0, [])]
)
def test_forced_share_of_a_batch(batch, share, forced):
    assert [index for index in range(batch) if is_forced_foreground(index, batch, share)] == forced


def test_limits_keep_the_patch_inside_or_centred():
    assert start_limits(10, 4) == (0, 6)
    assert start_limits(4, 4) == (0, 0)
    assert start_limits(35, 40) == (-2, -2)  # 2 voxels of padding before, 3 behind


def test_forced_patch_holds_its_voxel_and_stays_inside():
    for step in range(50):
        sample = draw_sample(generator(0, 0, step, 1), SHAPES, FOREGROUNDS, (8, 8, 8), force_foreground=True)
        if sample.case == 0:  # the foreground voxel is the first of the volume
            assert sample.start == (0, 0, 0)
        else:  # the last of the volume; the published rule would let the patch hang over the far border
            assert sample.start == (-2, 22, 42)


def test_random_patches_cover_all_places_and_both_cases():
    drawn = [draw_sample(generator(3, 0, step, 0), SHAPES, FOREGROUNDS, (8, 8, 8), False) for step in range(400)]
    assert {sample.case for sample in drawn} == {0, 1}
    starts = np.array([sample.start for sample in drawn if sample.case == 0])
    assert starts.min(0).tolist() == [0, 0, 0]
    assert starts.max(0).tolist() == [2, 22, 12]


def test_a_case_without_foreground_gives_a_random_patch():
    sample = draw_sample(generator(0, 0, 0, 0), SHAPES[:1], [{}], (8, 8, 8), force_foreground=True)
    assert all(0 <= start <= size - 8 for start, size in zip(sample.start, SHAPES[0]))


def test_samples_depend_on_every_counter_and_on_nothing_else():
    def numbers(*key):
        return tuple(generator(*key).integers(2**40, size=3))

    assert numbers(1, 0, 5, 2) == numbers(1, 0, 5, 2)
    others = [(2, 0, 5, 2), (1, 1, 5, 2), (1, 0, 6, 2), (1, 0, 5, 3)]
    assert len({numbers(1, 0, 5, 2), *(numbers(*key) for key in others)}) == 5


def test_cases_are_drawn_by_their_weights():
    """Two old cases and six new ones, of which the old ones shall be half of 4000 samples, within 3 standard errors."""
    shapes = [SHAPES[0]] * 8
    weights = (1.0,) * 2 + (1 / 3,) * 6
    drawn = [
        draw_sample(generator(1, 0, step, 0), shapes, [{}] * 8, (8, 8, 8), False, weights=weights).case
        for step in range(4000)
    ]
    times = np.bincount(drawn, minlength=8) / 4000
    assert abs(times[:2].sum() - 0.5) < 3 * np.sqrt(0.25 / 4000)
    assert np.all(np.abs(times[:2] - 1 / 4) < 3 * np.sqrt(3 / 16 / 4000))
    assert np.all(np.abs(times[2:] - 1 / 12) < 3 * np.sqrt(11 / 144 / 4000))


def test_a_weight_near_nothing_is_never_drawn_and_the_last_case_can_be():
    rng = np.random.default_rng(0)
    assert {draw_weighted(rng, (1.0, 1e-300, 1.0)) for _ in range(200)} == {0, 2}
    assert draw_weighted(rng, (3.0,)) == 0
