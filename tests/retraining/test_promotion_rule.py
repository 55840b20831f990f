"""When a new model takes the place of the old one: new against control, patient by patient."""

import numpy as np
import pytest

from builders.retraining import scored
from segfw.model.promotion import MEAN
from segfw.retraining.promotion_rule import ThreeModels, gains, verdict, widened

NAMES = ("kidney", "cyst")


def models(new, control, base=None, *, patient_of=None):
    """Of {structure: Dice of each case}."""

    def scores(values):
        cases = len(values[NAMES[0]])
        return {f"case_{index}": {name: scored(values[name][index]) for name in NAMES} for index in range(cases)}

    return ThreeModels(
        base=scores(base or control), control=scores(control), new=scores(new), patient_of=patient_of or {}
    )


def judged(new, control, **more):
    structures, mean = gains(models(new, control, **more), NAMES)
    return *verdict(structures, mean), structures, mean


def test_a_clear_gain_of_both_structures_is_promoted():
    control = {"kidney": [0.8] * 6, "cyst": [0.5] * 6}
    new = {"kidney": [0.82, 0.83, 0.84, 0.82, 0.83, 0.84], "cyst": [0.6] * 6}
    is_promoted, why, structures, mean = judged(new, control)
    assert is_promoted
    assert [gain.structure for gain in (*structures, mean)] == ["kidney", "cyst", MEAN]
    assert structures[0].over_control == pytest.approx(0.03)
    assert structures[0].control == pytest.approx(0.8)
    assert mean.over_control == pytest.approx((0.03 + 0.1) / 2)
    assert 0.02 <= structures[0].low <= 0.03 <= structures[0].high <= 0.04
    assert "gained +0.0650" in why


def test_a_gain_that_the_control_has_too_is_none():
    base = {"kidney": [0.7] * 8, "cyst": [0.4] * 8}
    better = {"kidney": [0.8] * 8, "cyst": [0.5] * 8}
    is_promoted, why, structures, mean = judged(better, better, base=base)
    assert not is_promoted
    assert mean.over_base == pytest.approx(0.1)
    assert mean.over_control == 0
    assert "not clearly above 0" in why


def test_a_structure_that_lost_keeps_the_old_model_whatever_the_mean_gained():
    control = {"kidney": [0.8] * 8, "cyst": [0.5] * 8}
    new = {"kidney": [0.789] * 8, "cyst": [0.7] * 8}
    is_promoted, why, _, mean = judged(new, control)
    assert not is_promoted
    assert mean.low > 0
    assert why.endswith("kidney (-0.0110)")
    just = {"kidney": [0.791] * 8, "cyst": [0.7] * 8}  # a loss of 0.009 is no loss
    assert judged(just, control)[0]


def test_one_patient_with_many_scans_counts_once():
    """Fourteen scans of which seven are of one patient, whom alone the new model serves better."""
    control = {"kidney": [0.8] * 14, "cyst": [0.5] * 14}
    new = {"kidney": [0.9] * 7 + [0.8] * 7, "cyst": [0.6] * 7 + [0.5] * 7}
    apart = judged(new, control)
    assert apart[0]
    patient_of = {f"case_{index}": "one" for index in range(7)}
    together = judged(new, control, patient_of=patient_of)
    assert together[3].patients == 8
    assert together[3].over_control == pytest.approx(apart[3].over_control)
    assert not together[0]
    assert together[3].low < 0  # by chance he is not among the patients


def test_four_patients_tell_nothing():
    control = {"kidney": [0.8] * 4, "cyst": [0.5] * 4}
    new = {"kidney": [0.9] * 4, "cyst": [0.6] * 4}
    is_promoted, why, _, mean = judged(new, control)
    assert not is_promoted
    assert mean.low is None
    assert "4 patients to judge by" in why


def test_a_structure_that_nobody_has_keeps_the_old_model():
    control = {"kidney": [0.8] * 6, "cyst": [0.5] * 6}
    found = models({"kidney": [0.9] * 6, "cyst": [0.6] * 6}, control)
    empty = scored(1.0).model_copy(update={"dice": None, "tp": 0, "fp": 0, "fn": 0})
    for scores in (found.base, found.control, found.new):
        for by_label in scores.values():
            by_label["cyst"] = empty
    structures, mean = gains(found, NAMES)
    assert structures[1].cases == 0
    is_promoted, why = verdict(structures, mean)
    assert not is_promoted
    assert why.startswith("cyst: in fewer than 5 patients")


def test_an_invention_of_the_control_counts_against_it():
    """A case without a cyst, where the control drew one and the new model none."""
    values = {"kidney": [0.8] * 6, "cyst": [0.5] * 6}
    found = models(values, values)
    found.new["case_0"]["cyst"] = scored(1.0).model_copy(update={"dice": None, "tp": 0, "fp": 0, "fn": 0})
    invented = scored(0.0).model_copy(update={"tp": 0, "fp": 9, "fn": 0})
    found.control["case_0"]["cyst"] = invented
    found.base["case_0"]["cyst"] = invented
    structures, _ = gains(found, NAMES)
    assert structures[1].over_control == pytest.approx(1 / 6)


def test_intervals_of_few_patients_are_wider_than_what_was_drawn():
    """Of five patients: the root of 5 / 4, times 2.776 (Student's t of 4 degrees of freedom) over 1.960."""
    low, high = widened(0.5, (0.4, 0.7), 5)
    factor = (5 / 4) ** 0.5 * 2.7764 / 1.95996
    assert low == pytest.approx(0.5 - 0.1 * factor, abs=1e-4)
    assert high == pytest.approx(0.5 + 0.2 * factor, abs=1e-4)
    assert widened(0.5, (0.4, 0.6), 100_000) == pytest.approx((0.4, 0.6), abs=1e-5)


@pytest.mark.parametrize("effect, most", [(0.0, 0.06), (-0.02, 0.01)])
def test_models_that_are_no_better_are_seldom_promoted(effect, most):
    """100 made-up retrainings without a gain, of 30 patients: the mean errs in 2.5 %, and more rules apply."""
    rng = np.random.default_rng(7)
    promoted = 0
    for _ in range(100):
        base = {name: rng.uniform(0.6, 0.8, 30) for name in NAMES}
        new = {name: np.clip(values + effect + rng.normal(0, 0.02, 30), 0, 1) for name, values in base.items()}
        promoted += judged(new, base)[0]
    assert promoted / 100 <= most
