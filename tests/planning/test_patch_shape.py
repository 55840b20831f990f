"""How far patches are turned: the limits that augmentation draws by are those that mirroring reckons with."""

import numpy as np
import pytest

from segfw.planning.patch_shape import is_turned_round, largest_angle


@pytest.mark.parametrize(
    "patch, degrees",
    [((16, 16, 16), 30), ((4, 16, 16), 180), ((1, 16, 16), 180), ((1, 16, 30), 15), ((4, 16, 30), 180)],
)
def test_largest_angle(patch, degrees):
    assert np.degrees(largest_angle(patch)) == pytest.approx(degrees)


@pytest.mark.parametrize(
    "patch, is_round",
    [
        ((64, 64, 64), False),
        ((16, 64, 64), True),
        ((22, 64, 64), False),
        ((1, 64, 64), True),
        ((1, 96, 48), False),
        ((1, 90, 64), True),
    ],
)
def test_patches_that_are_turned_round(patch, is_round):
    assert is_turned_round(patch) == is_round
