"""The plan of a refiner: window, features and batch, and that nothing else is changed by it."""

from __future__ import annotations

import json
from math import prod

import pytest

from builders.planning import fingerprint, manifest, rough_cost
from segfw.base.records import UserError
from segfw.networks.spec import CLICK_REFINER, NetworkSpec
from segfw.planning.explain import explain_configuration
from segfw.planning.fitting import TOO_SMALL
from segfw.planning.for_time import OVERHEAD
from segfw.planning.memory import StepCost
from segfw.planning.plan import CASCADE, FULLRES, LOWRES, REFINE, TWO_D, Configuration, Plan
from segfw.planning.planner import make_plan
from segfw.planning.refiner_plan import LONGEST_WAIT_S, SECOND_LOOKS, first_of_refiner, forward_s, with_refiner
from segfw.planning.request import PlanRequest
from segfw.planning.work_folder import keep_decision

ISOTROPIC = [((1.0, 1.0, 1.0), (200, 180, 160))] * 10


def planned(cases=ISOTROPIC, **values) -> Plan:
    channels = len(values.get("channels", ("MR",)))
    return make_plan(manifest(**values), fingerprint(cases, channels=channels), cost_of=rough_cost)


def no_probe() -> float:
    raise AssertionError("nobody asked for a time")


def refined(plan: Plan, seconds=lambda network, patch: 0.1, **values) -> Plan:
    first = first_of_refiner(plan, (), ())
    return with_refiner(plan, first, values.pop("flops", no_probe), cost_of=rough_cost, time_forward=seconds, **values)


def refiner(*args, **values) -> Configuration:
    return refined(*args, **values).configurations[REFINE]


def test_all_else_stays_and_plans_without_a_refiner_say_nothing_of_one():
    plan = planned()
    before = plan.model_dump_json()
    assert "refine" not in before
    after = json.loads(refined(plan).model_dump_json())
    found = after["configurations"].pop(REFINE)
    assert after == json.loads(before)
    assert found["is_refiner"] is True
    assert plan.model_dump_json() == before
    assert refined(plan).predicting == tuple(plan.configurations)


def test_it_can_be_read_again(tmp_path):
    plan = refined(planned())
    plan.save(tmp_path / "plan.json")
    assert Plan.load(tmp_path / "plan.json") == plan


def test_channels_are_those_of_the_image_and_of_the_clicks():
    found = refiner(planned(channels=("T1", "T2")))
    assert found.network.in_channels == 2 + 4
    assert found.network.classes == 2
    assert found.network.architecture == CLICK_REFINER
    assert found.data_name == FULLRES
    assert found.preprocessing == planned(channels=("T1", "T2")).configurations[FULLRES].preprocessing


def test_the_window_is_a_cube_as_far_as_a_moment_allows():
    plan = planned()

    def by_voxels(network: NetworkSpec, patch: tuple) -> float:
        return prod(patch) * network.features[0] / 4e6

    fast = refiner(plan)
    assert (fast.patch_size, fast.network.features[0]) == ((96, 96, 96), 24)
    slower = refiner(plan, lambda network, patch: 2 * by_voxels(network, patch) / 6)
    assert (slower.patch_size, slower.network.features[0]) == ((96, 96, 96), 16)
    slow = refiner(plan, by_voxels)
    assert (slow.patch_size, slow.network.features[0]) == ((64, 64, 64), 16)
    assert by_voxels(slow.network, slow.patch_size) <= LONGEST_WAIT_S
    hopeless = refiner(plan, lambda network, patch: 9.0)
    assert (hopeless.patch_size, hopeless.network.features[0]) == ((64, 64, 64), 16)
    assert "even so a forward pass takes 9 s" in hopeless.reasons[1]


def test_a_small_case_is_its_own_window_and_thick_slices_make_it_flat_in_voxels():
    small = refiner(planned([((1.0, 1.0, 1.0), (36, 50, 35))] * 10))
    assert small.patch_size == (40, 56, 40)
    thick = refiner(planned([((4.0, 1.0, 1.0), (100, 400, 400))] * 10))
    z, y, x = thick.patch_size
    assert z * 4 == pytest.approx(y, rel=0.15)  # as long in millimetres
    assert y == x
    assert 0.6 < prod(thick.patch_size) / 96**3 < 1.4


def test_single_slices_have_a_window_of_one_slice():
    flat = planned([((1.0, 0.5, 0.5), (1, 300, 400))] * 10)
    found = refiner(flat)
    assert found.patch_size == (1, 256, 256)
    assert found.network.is_2d
    assert found.previous_stage == TWO_D
    assert found.data_name == TWO_D
    assert found.spacing_of_clicks_mm == (0.5, 0.5, 0.5)


def test_a_plan_for_little_time_has_a_refiner_that_can_be_taught():
    def cost(network: NetworkSpec) -> StepCost:
        return rough_cost(network).model_copy(update={"flops_per_voxel": float(network.features[0] ** 2)})

    plan = planned().model_copy(update={"planned_time_s": 1000.0, "chosen": FULLRES})
    # 1500 steps on two patches of the largest window and network, with all that comes with a step
    enough = 1500 * 2 * OVERHEAD * SECOND_LOOKS * 96**3 * 24**2 / 1000

    def chosen(share: float) -> tuple[int, int]:
        wanted = with_refiner(plan, FULLRES, lambda: share * enough, cost_of=cost, time_forward=lambda *_: 0.1)
        found = wanted.configurations[REFINE]
        return found.patch_size[0], found.network.features[0]

    assert chosen(1.01) == (96, 24)
    assert chosen(0.99) == (96, 16)
    assert chosen(0.43) == (80, 16)  # 16^2 / 24^2 is 0.44, and 80^3 / 96^3 of that 0.26
    assert chosen(0.2) == (64, 16)
    assert chosen(0.12) == (64, 8)  # with 16 features it would take 0.13; without a given time it is never so narrow
    assert chosen(0.01) == (64, 8)


def test_what_finds_the_masks_is_what_is_asked_for_or_trained_or_chosen():
    plan = planned([((1.0, 1.0, 1.0), (400, 500, 500))] * 10)
    assert set(plan.configurations) == {TWO_D, LOWRES, FULLRES, CASCADE}
    assert first_of_refiner(plan, (REFINE,), ()) == FULLRES
    assert first_of_refiner(plan, (REFINE,), (TWO_D, FULLRES)) == TWO_D
    assert first_of_refiner(plan, (LOWRES, REFINE), (TWO_D,)) == LOWRES
    assert first_of_refiner(plan, (LOWRES, CASCADE, REFINE), ()) == LOWRES  # a second stage needs its own first one
    assert first_of_refiner(plan.model_copy(update={"chosen": TWO_D}), (REFINE,), ()) == TWO_D


def test_a_batch_fits_the_memory_and_too_little_of_it_is_refused():
    plan = planned()
    found = refiner(plan)
    assert 2 <= found.batch_size <= 8
    assert found.estimate.training_memory_gb < plan.gpu_memory_gb
    with pytest.raises(UserError, match=TOO_SMALL.split(";", maxsplit=1)[0]):
        refined(plan.model_copy(update={"gpu_memory_gb": 0.6}))


def test_a_plan_without_a_usual_grid_is_refused_in_a_sentence():
    plan = planned()
    strange = plan.configurations[FULLRES].model_copy(update={"name": "ours"})
    other = plan.model_copy(update={"configurations": {"ours": strange}})
    with pytest.raises(UserError, match="3d_refine works on the grid of 3d_fullres or 2d, and the plan has only ours"):
        refined(other)


def test_a_refiner_may_be_added_to_what_is_trained_and_not_changed_then(tmp_path):
    plan = planned()
    keep_decision(tmp_path, "plan.json", plan, overwrite=False)
    trained = tmp_path / "runs" / FULLRES / "fold_0" / "weights.safetensors"
    trained.parent.mkdir(parents=True)
    trained.touch()
    keep_decision(tmp_path, "plan.json", refined(plan), overwrite=False)
    assert REFINE in Plan.load(tmp_path / "plan.json").configurations
    with pytest.raises(UserError, match="would change, but runs/3d_fullres/fold_0 is trained by it"):
        keep_decision(tmp_path, "plan.json", refined(plan, lambda *_: 9.0), overwrite=False)
    another = refined(
        make_plan(manifest(), fingerprint(ISOTROPIC), PlanRequest(spacing_mm=(2, 2, 2)), cost_of=rough_cost)
    )
    with pytest.raises(UserError, match="would change"):
        keep_decision(tmp_path, "plan.json", another, overwrite=False)


def test_a_forward_pass_is_timed_and_leaves_the_threads_alone():
    import torch

    before = torch.get_num_threads()
    small = refiner(planned([((1.0, 1.0, 1.0), (12, 12, 12))] * 4))
    assert 0 < forward_s(small.network, small.patch_size) < 60
    assert torch.get_num_threads() == before


def test_info_says_what_it_is_for():
    said = "\n".join(explain_configuration(refiner(planned()), "mm"))
    assert "Corrects one structure of a mask around clicks" in said
    assert "Learns from the masks that 3d_fullres finds in cases that it did not see" in said
    assert "segfw predict runs both" not in said
