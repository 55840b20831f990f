"""Plans for a time: features, and the configuration that is trained."""

import pytest

from builders.planning import fingerprint, manifest, rough_cost
from segfw.networks.spec import NetworkSpec
from segfw.planning.for_time import OVERHEAD, choice_for_time, fitted_to_time, steps_in_time
from segfw.planning.memory import StepCost
from segfw.planning.plan import Plan
from segfw.planning.planner import make_plan
from segfw.planning.request import PlanRequest

CASES = [((1.0, 1.0, 1.0), (64, 64, 64))] * 10
LARGE = {"liver": 0.03, "kidney": 0.005}  # shares of a case


def cost(network: NetworkSpec) -> StepCost:
    """Work that grows with the square of the features, as in convolutions: 1 operation a voxel with 32."""
    return rough_cost(network).model_copy(update={"flops_per_voxel": (network.features[0] / 32) ** 2})


@pytest.fixture(scope="module")
def plan() -> Plan:
    return make_plan(manifest(), fingerprint(CASES), cost_of=cost)


def features(plan: Plan) -> dict[str, int]:
    return {name: each.network.features[0] for name, each in plan.configurations.items()}


def voxels_per_second(seconds_of_a_3d_step: float) -> float:
    """The pace at which a step on two planned patches of 64 voxels an edge takes so long in all with 32 features."""
    return OVERHEAD * 2 * 64**3 / seconds_of_a_3d_step


def test_a_long_training_keeps_the_planned_network(plan):
    long = fitted_to_time(plan, 2001.0, voxels_per_second(1), LARGE, cost_of=cost)
    assert features(long) == {"2d": 32, "3d_fullres": 32}
    assert (long.planned_time_s, long.chosen) == (2001.0, "3d_fullres")
    assert long.configurations == plan.configurations


def test_features_are_halved_until_enough_steps_fit(plan):
    # A fourth of the time per step with half of the features: 376 steps become 1504.
    half = fitted_to_time(plan, 376.0, voxels_per_second(1), LARGE, cost_of=cost)
    assert features(half) == {"2d": 32, "3d_fullres": 16}  # slices are 64 times smaller
    network = half.configurations["3d_fullres"].network
    assert network.features == tuple(each // 2 for each in plan.configurations["3d_fullres"].network.features)
    assert steps_in_time(half.configurations["3d_fullres"], 376.0, voxels_per_second(1)) == pytest.approx(1504)
    assert half.configurations["3d_fullres"].reasons[-1] == (
        "The first stage has 16 features in place of 32, so that more steps fit into 6.26667 minutes."
    )
    fewest = fitted_to_time(plan, 10.0, voxels_per_second(1), LARGE, cost_of=cost)
    assert features(fewest) == {"2d": 16, "3d_fullres": 8}


@pytest.mark.parametrize("shares", [{"liver": 0.03, "nerve": 0.0049}, {}])
def test_small_or_unknown_structures_keep_all_features(plan, shares):
    fewest = fitted_to_time(plan, 10.0, voxels_per_second(1), shares, cost_of=cost)
    assert features(fewest) == {"2d": 32, "3d_fullres": 32}


def test_volumes_are_not_narrowed_to_be_trained_where_structures_are_small(plan):
    """2000 steps fit with 8 features, and 125 with 32."""
    seconds = 125.0
    assert fitted_to_time(plan, seconds, voxels_per_second(1), LARGE, cost_of=cost).chosen == "3d_fullres"
    small = fitted_to_time(plan, seconds, voxels_per_second(1), {"nerve": 0.001}, cost_of=cost)
    assert small.chosen == "2d"
    assert features(small)["2d"] == 32


def test_slices_are_trained_where_too_few_volumes_fit(plan):
    short = fitted_to_time(plan, 20.0, voxels_per_second(1), LARGE, cost_of=cost)  # 20 steps, 320 with 8 features
    assert short.chosen == "2d"
    assert short.reasons[-1].startswith("In 0.333 minutes 2d is trained: about ")
    assert short.reasons[-1].endswith(" steps on slices fit, and only 320 on the patches of 3d_fullres.")
    only = short.model_copy(update={"configurations": {"mine": short.configurations["3d_fullres"]}})
    assert choice_for_time(only, 20.0, 1.0).name == "mine"


def test_families_whose_features_are_part_of_them_stay(plan):
    foreign = make_plan(manifest(), fingerprint(CASES), PlanRequest(preset="segresnet"), cost_of=cost)
    short = fitted_to_time(foreign, 20.0, voxels_per_second(1), LARGE, cost_of=cost)
    assert features(short) == features(foreign)


def test_plans_of_before_are_read_and_others_say_no_time(plan, tmp_path):
    plan.save(tmp_path / "plan.json")
    text = (tmp_path / "plan.json").read_text()
    assert "planned_time_s" not in text
    assert "chosen" not in text
    short = fitted_to_time(plan, 20.0, voxels_per_second(1), LARGE, cost_of=cost)
    short.save(tmp_path / "plan.json")
    assert Plan.load(tmp_path / "plan.json") == short
