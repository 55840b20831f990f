"""What is said of a number of steps."""

import pytest

from builders.networks import spec
from builders.training import ZSCORE, configuration
from segfw.model.short_runs import Limits, features_that_tell, too_few_steps, usefulness
from segfw.networks.spec import SEGRESNET

ALL_SMALL = {"nerve": 0.0001, "gland": 0.004}
ALL_LARGE = {"liver": 0.03, "lung": 0.1}


@pytest.mark.parametrize(
    "steps, shares, said",
    [
        (6, {}, "too few for a usable model"),
        (299, ALL_LARGE, "too few for a usable model"),
        (300, {}, "enough for large structures, not for small ones"),
        (1299, ALL_LARGE, "enough for large structures, such as all here"),
        (340, {"liver": 0.03}, "enough for large structures, such as the one here"),
        (340, ALL_SMALL, "too few for structures under 0.5% of a case, which all here are"),
        (340, ALL_LARGE | ALL_SMALL, "enough for large structures, not for small ones (nerve, gland)"),
        (
            340,
            {"liver": 0.03} | dict.fromkeys("abcde", 0.001),
            "enough for large structures, not for small ones (a, b, c and 2 more)",
        ),
        (1300, ALL_SMALL, "enough for large and small structures"),
        (359, dict.fromkeys("abcdefghijkl", 0.02), "too few for 12 structures"),  # 30 steps each would be 360
        (360, dict.fromkeys("abcdefghijkl", 0.02), "enough for large structures, such as all here"),
        (3509, dict.fromkeys(map(str, range(117)), 0.001), "too few for 117 structures"),
        (3510, dict.fromkeys(map(str, range(117)), 0.001), "enough for large and small structures"),
    ],
)
def test_few_steps_are_enough_for_what_is_large(steps, shares, said):
    assert usefulness(steps, shares) == usefulness(steps, shares, 32) == said
    assert bool(too_few_steps(steps)) == (said == "too few for a usable model")


@pytest.mark.parametrize(
    "steps, shares, said",
    [
        (299, ALL_SMALL, "too few for a usable model"),
        (340, ALL_SMALL, "too few for structures under 0.5% of a case, which all here are"),
        (250_000, ALL_SMALL, "too few features for structures under 0.5% of a case, which all here are"),
        (250_000, ALL_LARGE, "enough for large structures, such as all here"),
        (250_000, ALL_LARGE | ALL_SMALL, "enough for large structures, not for small ones (nerve, gland)"),
        (250_000, {}, "enough for large structures, not for small ones"),
    ],
)
def test_a_narrow_network_is_enough_for_nothing_small(steps, shares, said):
    assert usefulness(steps, shares, 16) == said


def test_other_limits_say_otherwise():
    limits = Limits(usable_steps=100, steps_a_structure=0, small_share=0.05, steps_for_small=200, features_for_small=8)
    assert usefulness(99, ALL_LARGE, 8, limits) == "too few for a usable model"
    assert usefulness(199, ALL_LARGE, 8, limits) == "enough for large structures, not for small ones (liver)"
    assert usefulness(200, ALL_LARGE, 8, limits) == "enough for large and small structures"
    assert usefulness(200, ALL_SMALL, 4, limits) == (
        "too few features for structures under 5.0% of a case, which all here are"
    )
    assert usefulness(199, dict.fromkeys("abcd", 0.01) | ALL_LARGE, 8, limits, shown=5) == (
        "enough for large structures, not for small ones (a, b, c, d, liver)"
    )


def test_features_tell_of_the_networks_that_they_were_counted_with():
    made = configuration(ZSCORE, spec(features=(4, 8)))
    assert features_that_tell(made) == 4
    assert features_that_tell(made.model_copy(update={"is_refiner": True})) is None
    other = made.network.model_copy(update={"architecture": SEGRESNET})
    assert features_that_tell(made.model_copy(update={"network": other})) is None
