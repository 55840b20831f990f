"""Minutes: as assumed without a ledger, and nearer to the truth with every measured item."""

import numpy as np
import pytest

from segfw.worklist.minutes_model import Effort, MinutesModel, ball_surface_mm2, fitted_minutes, wrong_slices


def effort(slices, wrong, surface, new):
    return Effort(
        slices=np.array(slices, float),
        wrong_slices=np.array(wrong, float),
        wrong_mm2=np.array(surface, float),
        is_new=np.array(new, bool),
    )


def drawn(rng, number):
    slices = rng.integers(1, 200, number)
    return effort(slices, slices * rng.uniform(0, 1, number), rng.uniform(0, 5000, number), rng.random(number) < 0.2)


def test_without_a_ledger_the_assumptions_stand():
    items = effort([10, 40, 0], [2, 0, 0], [50, 0, 0], [True, False, False])
    # 0.5 + 10 * 0.05 + 2 * 0.25; 40 * 0.05; nothing to do, and yet about a second
    assert MinutesModel().minutes(items).tolist() == pytest.approx([1.5, 2.0, 0.02])
    assert fitted_minutes(items, [0, 0, 0], items) == MinutesModel()


def test_ten_items_count_as_much_as_the_assumptions():
    items = effort([20] * 10, [4] * 10, [100] * 10, [False] * 10)
    model = fitted_minutes(items, items.assumed_minutes * 4, items)
    assert model.measured == 10
    # log 4, half believed: a factor of 2
    assert model.minutes(items) / items.assumed_minutes == pytest.approx(2.0, rel=1e-3)


def test_what_is_measured_is_learned_in_the_end():
    rng = np.random.default_rng(3)
    seen = drawn(rng, 3000)
    true = np.array([0.4, 0.2, -0.1, 0.3])
    minutes = seen.assumed_minutes * np.exp(seen.terms @ true) * np.exp(rng.normal(0, 0.3, 3000))
    learned = fitted_minutes(seen, minutes, drawn(rng, 500))
    new = drawn(rng, 500)
    wanted = new.assumed_minutes * np.exp(new.terms @ true)
    error = np.abs(np.log(learned.minutes(new) / wanted))
    assert error.mean() < 0.05
    assert np.abs(np.log(new.assumed_minutes / wanted)).mean() > 0.3  # else this proves nothing


def test_a_lunch_break_is_no_measure():
    items = effort([20] * 3, [4] * 3, [100] * 3, [False] * 3)
    model = fitted_minutes(items, [2.0, 2.0, 1000.0], items)
    assert model.minutes(items).max() <= 2 * items.assumed_minutes.max()


def test_items_nobody_spent_time_on_teach_nothing():
    items = effort([20, 20], [4, 4], [100, 100], [False, False])
    assert fitted_minutes(items, [3.0, 0.0], items).measured == 1


def test_wrong_slices_and_surfaces_can_be_counted():
    assert wrong_slices(np.array([30.0, 30.0, 30.0]), np.array([1.0, 0.9, 0.2])).tolist() == pytest.approx([0, 9, 30])
    # a ball of radius 2 mm
    assert ball_surface_mm2(np.array([4 / 3 * np.pi * 8]))[0] == pytest.approx(4 * np.pi * 4)
