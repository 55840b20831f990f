"""Simulated clicks: in which error they lie, how deep, and how many miss."""

import subprocess
import sys

import numpy as np
import pytest

from segfw.clicks.simulated_clicks import (
    MISSED_BY,
    MISSED_SHARE,
    deepest_click,
    draw_training_clicks,
    error_components,
    peoplelike_click,
)

SHAPE = (9, 14, 23)


def masks(*boxes, shape=SHAPE):
    mask = np.zeros(shape, bool)
    for box in boxes:
        mask[box] = True
    return mask


def far_and_near():
    """Given: 2 x 3 x 4 voxels too many at one end; wanted: 3 x 5 x 7 that are missing at the other."""
    given = masks(np.s_[1:3, 1:4, 1:5])
    wanted = masks(np.s_[5:8, 8:13, 14:21])
    return given, wanted


def test_errors_are_counted_by_kind_and_size():
    given, wanted = far_and_near()
    found = error_components(given, wanted)
    assert [(each.voxels, each.is_missing) for each in found] == [(105, True), (24, False)]
    assert found[0].box == np.s_[5:8, 8:13, 14:21]
    assert found[1].box == np.s_[1:3, 1:4, 1:5]
    assert all(each.mask_zyx.all() for each in found)


def test_what_is_missing_and_what_is_too_much_never_join():
    given = masks(np.s_[2:4, 2:4, 2:10])
    wanted = masks(np.s_[2:4, 2:4, 10:18])  # touches the other
    assert [each.voxels for each in error_components(given, wanted)] == [32, 32]
    assert [each.is_missing for each in error_components(given, wanted)] == [True, False]


def test_a_right_mask_gets_no_click():
    given, _ = far_and_near()
    rng = np.random.default_rng(0)
    for mask in (given, np.zeros(SHAPE, bool)):
        assert error_components(mask, mask.copy()) == []
        assert draw_training_clicks(rng, mask, mask.copy(), 5) == []
        assert deepest_click(mask, mask.copy(), (1, 1, 1)) is None
        assert peoplelike_click(rng, mask, mask.copy(), (1, 1, 1)) is None


def test_the_deepest_click_is_in_the_middle_of_the_largest_error():
    given, wanted = far_and_near()
    assert deepest_click(given, wanted, (1, 1, 1)) == ((6, 10, 17), True)
    # Voxels 9 mm long along x: two slices from either end are deep enough there, and z limits as before.
    assert deepest_click(given, wanted, (1, 1, 9)) == ((6, 10, 17), True)


def test_the_deepest_click_knows_millimetres():
    wanted = masks(np.s_[1:6, 2:7, 3:8])
    wanted[3, 4, 8:11] = True  # a tail, whose places are 1 mm deep along y
    # Slices 1 mm apart and voxels of 4 mm: the middle slice is 3 mm deep, wherever it is 2 voxels from the rim.
    component = error_components(np.zeros(SHAPE, bool), wanted, (1, 4, 4))[0]
    assert component.depth_zyx.max() == 3
    assert deepest_click(np.zeros(SHAPE, bool), wanted, (1, 4, 4)) == ((3, 4, 5), True)


def test_a_click_on_what_is_too_much_says_outside():
    given = masks(np.s_[1:4, 1:4, 1:4])
    assert deepest_click(given, np.zeros(SHAPE, bool), (3, 1, 2)) == ((2, 2, 2), False)


def test_depth_ends_at_the_image():
    given = np.zeros((1, 5, 5), bool)
    component = error_components(given, ~given, (1, 1, 1))[0]
    assert (component.depth_zyx == 1).all()  # one slice: everything touches what is outside
    in_voxels = error_components(given, ~given)[0]
    assert (in_voxels.depth_zyx == 1).all()


@pytest.mark.parametrize("spacing", [None, (1.0, 1.0, 1.0), (4.0, 0.5, 2.0)])
def test_depth_agrees_with_measuring_every_pair(spacing):
    rng = np.random.default_rng(3)
    wanted = rng.random((5, 6, 7)) > 0.2
    found = error_components(np.zeros(wanted.shape, bool), wanted, spacing)
    padded = np.pad(wanted, 1)
    outside = np.argwhere(~padded)
    checked = 0
    for component in found:
        for place in np.argwhere(component.mask_zyx):
            at = place + [side.start for side in component.box] + 1
            steps = np.abs(outside - at)
            if spacing is None:
                nearest = steps.max(1).min()
            else:
                nearest = np.sqrt(((steps * np.array(spacing)) ** 2).sum(1)).min()
            assert component.depth_zyx[tuple(place)] == pytest.approx(nearest)
            checked += 1
    assert checked == wanted.sum()


def test_clicks_are_drawn_by_size_and_say_what_is_wanted_there():
    given, wanted = far_and_near()
    drawn = draw_training_clicks(np.random.default_rng(0), given, wanted, 4000)
    on_error = [(point, inside) for point, inside in drawn if given[point] != wanted[point]]
    assert len(drawn) == 4000
    assert all(wanted[point] == inside for point, inside in on_error)
    missing = sum(inside for _, inside in drawn) / len(drawn)
    assert missing == pytest.approx(105 / 129, abs=0.03)
    assert 1 - len(on_error) / len(drawn) == pytest.approx(MISSED_SHARE, abs=0.015)


def test_missed_clicks_are_near_and_in_the_image():
    wanted = masks(np.s_[0:2, 0:3, 5:9])  # in the image's corner
    drawn = draw_training_clicks(np.random.default_rng(1), np.zeros(SHAPE, bool), wanted, 3000)
    voxels = np.argwhere(wanted)
    missed = [point for point, _ in drawn if not wanted[point]]
    assert len(missed) > 100
    off = {int(np.abs(voxels - point).max(1).min()) for point in missed}
    assert off == {1, MISSED_BY}
    assert all(0 <= at < size for point in missed for at, size in zip(point, SHAPE, strict=True))


def test_clicks_are_deeper_than_voxels_drawn_evenly():
    wanted = masks(np.s_[1:8, 2:13, 3:20])
    given = np.zeros(SHAPE, bool)
    depth = error_components(given, wanted)[0].depth_zyx
    rng = np.random.default_rng(0)
    drawn = [point for point, _ in draw_training_clicks(rng, given, wanted, 2000) if wanted[point]]
    of_clicks = np.mean([depth[z - 1, y - 2, x - 3] for z, y, x in drawn])
    assert of_clicks > depth.mean() + 0.3
    assert {int(depth[z - 1, y - 2, x - 3]) for z, y, x in drawn} == {1, 2, 3, 4}  # near the border as well


def test_one_generator_gives_one_draw():
    given, wanted = far_and_near()
    first = draw_training_clicks(np.random.default_rng(5), given, wanted, 6)
    assert first == draw_training_clicks(np.random.default_rng(5), given, wanted, 6)
    assert first != draw_training_clicks(np.random.default_rng(6), given, wanted, 6)


def test_nothing_where_the_whole_image_is_the_error_can_miss():
    given = np.zeros((2, 3, 2), bool)
    drawn = draw_training_clicks(np.random.default_rng(0), given, ~given, 200)
    assert all(inside for _, inside in drawn)
    assert len({point for point, _ in drawn}) == 12


def test_masks_of_numbers_are_masks():
    given, wanted = far_and_near()
    as_numbers = error_components(given.astype(np.uint8), wanted.astype(np.uint8))
    assert [each.voxels for each in as_numbers] == [105, 24]


def test_people_like_clicks_lie_as_training_clicks_do():
    given, wanted = far_and_near()
    rng = np.random.default_rng(2)
    drawn = [peoplelike_click(rng, given, wanted, (3, 1, 2)) for _ in range(2000)]
    missed = [point for point, _ in drawn if given[point] == wanted[point]]
    assert len(missed) / len(drawn) == pytest.approx(MISSED_SHARE, abs=0.02)
    assert sum(inside for _, inside in drawn) / len(drawn) == pytest.approx(105 / 129, abs=0.04)


def test_no_torch():
    code = (
        "import sys; sys.modules['torch'] = None\n"
        "import numpy as np\n"
        "from segfw.clicks.simulated_clicks import draw_training_clicks\n"
        "empty = np.zeros((3, 4, 5), bool)\n"
        "print(len(draw_training_clicks(np.random.default_rng(0), empty, ~empty, 3)))\n"
    )
    assert (
        subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True, timeout=300).stdout
        == "3\n"
    )
