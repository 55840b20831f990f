"""Plans equal nnU-Net's own for the same fingerprints, and keep their promises for any other."""

from pathlib import Path

import numpy as np
import pytest

from builders.planning import GOLDEN, STATS, fingerprint, manifest, no_cost, random_cases, rough_cost
from segfw.base.records import UserError
from segfw.dataset.cases import DatasetManifest
from segfw.dataset.labels import LabelSet, Region
from segfw.planning.fingerprint import Fingerprint
from segfw.planning.memory import needed_gb, step_cost
from segfw.planning.plan import Configuration, Plan
from segfw.planning.planner import choose_normalization, make_plan, request_digest, require_possible
from segfw.planning.presets import PRESETS as ALL_PRESETS
from segfw.planning.request import PlanRequest

PRESETS = [name for name, preset in ALL_PRESETS.items() if preset.published is not None]


@pytest.mark.parametrize("preset", PRESETS)
@pytest.mark.parametrize("name", GOLDEN)
def test_published_plans_equal_those_of_nnunet(name, preset):
    golden = GOLDEN[name]
    if preset not in golden["plans"]:
        pytest.skip("nnU-Net itself fails to plan this")
    cases = [tuple(case) for case, count in golden["groups"] for _ in range(count)]
    channels = tuple(f"MR{index}" for index in range(golden["channels"]))
    request = PlanRequest(preset=preset, gpu_memory_gb=golden["memory_gb"], as_published=True)
    plan = make_plan(
        manifest(channels, golden["labels"]), fingerprint(cases, channels=len(channels)), request, cost_of=no_cost
    )
    expected = golden["plans"][preset]
    assert set(plan.configurations) == set(expected["configurations"])
    for key, configuration in plan.configurations.items():
        network, how = configuration.network, configuration.preprocessing
        assert list(how.axis_order) == expected["axis_order"]
        wanted, skip = expected["configurations"][key], 1 if key == "2d" else 0  # theirs leave the slice axis out
        if "like" in wanted:  # the second stage of the cascade, which also sees the first one's labels
            assert configuration.previous_stage == "3d_lowres"
            assert network.in_channels == len(channels) + golden["labels"] - 1
            wanted = expected["configurations"][wanted["like"]]
        found = {
            "patch_size": list(configuration.patch_size[skip:]),
            "batch_size": configuration.batch_size,
            "spacing": list(how.spacing_mm[skip:]),
            "batch_dice": configuration.batch_dice,
            "features": list(network.features),
            "strides": [list(stride[skip:]) for stride in network.strides],
            "kernels": [list(kernel[skip:]) for kernel in network.kernels],
            "median_shape": list(configuration.median_shape[skip:]),
            "blocks": list(network.encoder_blocks),
        }
        assert {field: found[field] for field in wanted} == wanted
        assert how.spacing_mm[0] is None or key != "2d"


def test_the_hippocampus_plan_in_full():
    plan = make_plan(manifest(), fingerprint([((1, 1, 1), (36, 50, 35))] * 260))
    full, flat = plan.configurations["3d_fullres"], plan.configurations["2d"]
    assert (full.patch_size, full.batch_size, full.network.features) == ((40, 56, 40), 9, (32, 64, 128, 256))
    assert full.network.strides == ((1, 1, 1), (2, 2, 2), (2, 2, 2), (2, 2, 2))
    assert (full.network.in_channels, full.network.classes) == (1, 3)
    assert (flat.patch_size, flat.batch_size) == ((1, 56, 40), 64)
    assert (full.mirror_axes, flat.mirror_axes) == ((0, 1, 2), (1, 2))
    assert flat.network.is_2d
    assert not full.network.is_2d
    assert "but a batch should not see over 5% of all training voxels" in " ".join(full.reasons)
    assert "beyond 64 patches a step takes longer and learns hardly more" in " ".join(flat.reasons)
    assert "--as-published plans without these repairs" in " ".join(plan.reasons)
    assert (plan.gpu_memory_gb, plan.training_cases, plan.orientation) == (8, 260, "canonical")
    assert 0.5 < full.estimate.training_memory_gb < 1.5
    # A step is three forward passes; the first stage alone multiplies 27 x 32 x 32 weights with 40 x 56 x 40 voxels.
    assert full.estimate.teraflop_per_step > 9 * 3 * 2 * 27 * 32 * 32 * 40 * 56 * 40 / 1e12


def test_published_batches_of_58_to_183_small_volumes_are_repaired_unless_asked_for():
    cases = fingerprint([((1, 1, 1), (36, 50, 35))] * 260)
    for preset, published in (("resenc-m", 58), ("resenc-l", 178), ("resenc-xl", 183)):
        as_published = make_plan(manifest(), cases, PlanRequest(preset=preset, as_published=True))
        assert as_published.configurations["3d_fullres"].batch_size == published
        assert "Planned as published" in " ".join(as_published.reasons)
        assert make_plan(manifest(), cases, PlanRequest(preset=preset)).configurations["3d_fullres"].batch_size == 9


def test_large_cases_get_a_low_resolution_and_a_cascade():
    plan = make_plan(manifest(), fingerprint([((1, 0.77, 0.77), (432, 512, 512))] * 131))
    assert list(plan.configurations) == ["2d", "3d_lowres", "3d_fullres", "3d_cascade_fullres"]
    low, full, second = (plan.configurations[name] for name in ("3d_lowres", "3d_fullres", "3d_cascade_fullres"))
    assert low.preprocessing.spacing_mm[0] / 1 == pytest.approx(low.preprocessing.spacing_mm[1] / 0.77)
    assert low.preprocessing.spacing_mm[0] > 1.2
    assert np.prod(low.patch_size) >= 0.25 * np.prod(low.median_shape)
    assert (low.batch_dice, full.batch_dice, second.batch_dice) == (False, True, True)
    assert (second.network.in_channels, full.network.in_channels) == (3, 1)
    assert (second.previous_classes, full.previous_classes) == (3, 1)
    assert second.preprocessing == full.preprocessing
    assert (second.data_name, full.data_name, low.data_name) == ("3d_fullres", "3d_fullres", "3d_lowres")
    assert "sees under 25% of the median case" in " ".join(plan.reasons)


def test_the_second_stage_sees_what_a_mask_can_hold_whatever_the_regions_and_without_the_ignore_label():
    data = fingerprint([((1, 0.77, 0.77), (432, 512, 512))] * 131, channels=2)
    regions = (Region(name="whole", values=(1, 2, 3), painted=1), Region(name="core", values=(3,), painted=3))
    labels = LabelSet(names=("background", "a", "b", "c"), values=(0, 1, 2, 3), ignore=9, regions=regions)
    plan = make_plan(
        manifest(("MR", "PET")).model_copy(update={"labels": labels}), data, PlanRequest(as_published=True)
    )
    second = plan.configurations["3d_cascade_fullres"]
    assert (second.network.in_channels, second.network.classes, second.previous_classes) == (2 + 3, 2, 4)


@pytest.mark.parametrize("cost, number", [(rough_cost, 300), (step_cost, 4)])
def test_what_every_plan_must_keep_to(cost, number):
    rng = np.random.default_rng(7)
    names = list(PRESETS)
    for index in range(number):
        data, labels = fingerprint(random_cases(rng)), manifest(classes=int(rng.integers(2, 9)))
        preset = names[index % len(names)]
        before: dict[str, Configuration] = {}
        for memory_gb in (4, 8, 24, 70):
            case = f"{preset} at {memory_gb} GB: {data}"
            request = PlanRequest(preset=preset, gpu_memory_gb=memory_gb)
            plan = make_plan(labels, data, request, cost_of=cost)
            for name, found in plan.configurations.items():
                is_2d, patch = name == "2d", found.patch_size
                steps = np.array(found.network.downsampling)
                assert not np.mod(patch, steps).any(), case
                # In memory: what a step is counted to take leaves room for the driver and for workspace.
                assert needed_gb(found.estimate.training_memory_gb) <= memory_gb + 1e-6, case
                # No degenerate batch: neither one patch, nor hundreds, nor much of the data set at once.
                assert 2 <= found.batch_size <= (64 if is_2d else 32), case
                share = found.batch_size * np.prod(patch) / (np.prod(found.median_shape) * len(data.cases))
                assert found.batch_size == 2 or share < 0.05 * 1.5, case  # the batch is rounded
                # Never larger than the median case, padded for the deepest network that fits into it.
                assert (np.array(patch) < 2 * np.ceil(found.median_shape) + 8)[1 if is_2d else 0 :].all(), case
                if name in before and name in ("2d", "3d_fullres"):  # the low resolution's spacing follows the budget
                    smaller = before[name]
                    assert np.prod(patch) >= np.prod(smaller.patch_size), case
                    if patch == smaller.patch_size:
                        assert found.batch_size >= smaller.batch_size, case
                before[name] = found


def test_plans_come_back_from_their_file(tmp_path):
    plan = make_plan(manifest(("CT", "PET")), fingerprint([((3, 1, 0.7), (40, 90, 130))] * 9, channels=2))
    plan.save(tmp_path / "plan.json")
    assert Plan.load(tmp_path / "plan.json") == plan
    with pytest.raises(UserError, match="configuration '3d' is not in the plan; it has 2d, 3d_fullres"):
        plan.configuration("3d")


def test_single_slices_are_planned_in_two_dimensions_whatever_axis_they_cross():
    for axis in range(3):
        shape = [120, 160, 200]
        shape[axis] = 1
        plan = make_plan(manifest(), fingerprint([((1, 2, 0.5), shape)] * 20))
        assert list(plan.configurations) == ["2d"]
        flat = plan.configurations["2d"]
        assert flat.preprocessing.axis_order[0] == axis
        assert flat.median_shape[0] == 1
        assert min(flat.patch_size[1:]) > 100
    with pytest.raises(UserError, match="'3d_fullres' needs volumes, but most images have a single slice; use 2d"):
        require_possible(["2d", "3d_fullres"], make_plan(manifest(), fingerprint([((1, 1, 1), (1, 99, 99))])))


def test_two_very_large_slices_are_planned():
    plan = make_plan(manifest(), fingerprint([((1, 1, 1), (2, 3000, 3000))] * 6))
    assert all(min(found.patch_size) >= 1 for found in plan.configurations.values())


def test_a_configuration_that_is_not_planned_is_refused_with_the_reason():
    plan = make_plan(manifest(), fingerprint([((1, 1, 1), (60, 80, 100))] * 5))
    with pytest.raises(UserError, match="unknown configuration '3d'; choose from 2d, 3d_lowres, 3d_fullres, 3d_casc"):
        require_possible(["3d"], plan)
    with pytest.raises(UserError, match="'3d_lowres' is not planned: a patch of 3d_fullres sees enough"):
        require_possible(["3d_fullres", "3d_lowres"], plan)
    require_possible(["3d_fullres"], plan)


def test_a_given_spacing_is_used_and_said():
    cases = fingerprint([((1, 1, 1), (60, 80, 100))] * 5)
    plan = make_plan(manifest(), cases, PlanRequest(spacing_mm=(2, 4, 1)))
    full = plan.configurations["3d_fullres"]
    assert full.preprocessing.axis_order == (1, 0, 2)  # y is the coarsest now
    assert full.preprocessing.spacing_mm == (4, 2, 1)
    assert full.median_shape == (20, 30, 100)
    assert "given by --spacing-mm" in plan.reasons[0]
    assert plan.configurations["2d"].preprocessing.spacing_mm == (None, 2, 1)


def test_normalisation_follows_channel_and_crop():
    rules = choose_normalization(manifest(("CT", "PET")), fingerprint([((1, 1, 1), (74, 9, 9))], 0.74, channels=2))
    assert [(rule.kind, rule.inside_mask) for rule in rules] == [("ct", False), ("zscore", True)]
    assert rules[0].stats == STATS
    rules = choose_normalization(manifest(("CT", "PET")), fingerprint([((1, 1, 1), (75, 9, 9))], 0.75, channels=2))
    assert [(rule.kind, rule.inside_mask) for rule in rules] == [("ct", False), ("zscore", False)]


@pytest.mark.parametrize(
    "wrong, message",
    [
        ({"preset": "huge"}, "preset is 'huge'; give 'plain', 'resenc-m', 'resenc-l', 'resenc-xl', 'segresnet'"),
        ({"gpu_memory_gb": 0}, "--gpu-memory-gb is 0; give the memory of the GPU in GB"),
        ({"gpu_memory_gb": 1e-6}, "not even the smallest patch fits into --gpu-memory-gb; give more memory"),
        ({"spacing_mm": (1, 0, 1)}, r"--spacing-mm is \(1, 0, 1\); give three lengths in mm above 0"),
    ],
)
def test_wishes_that_cannot_be_met_are_refused(wrong, message):
    with pytest.raises(UserError, match=message):
        make_plan(manifest(), fingerprint([((1, 1, 1), (60, 80, 100))] * 5), PlanRequest(**wrong))


@pytest.mark.parametrize(
    "request_of_then, digest",
    [
        (PlanRequest(gpu_memory_gb=2), "bd518c15c687ef7f69b7323983c494e770a999b9815e7a22b6ec7218e7e6245b"),
        (
            PlanRequest(preset="resenc-m", gpu_memory_gb="auto", as_published=True, spacing_mm=(4.0, 2.0, 1.5)),
            "b28771a04575b952c94da38431e8c4c2be5098893537f44dc4f3421f24d7cd4a",
        ),
    ],
)
def test_a_request_has_the_digest_by_which_older_work_folders_know_it(request_of_then, digest):
    """Computed by commit af6f1b4; another would plan those folders anew."""
    work = Path(__file__).parents[1] / "written_before" / "work"
    manifest_of_then = DatasetManifest.load(work / "manifest.json")
    fingerprint_of_then = Fingerprint.load(work / "fingerprint.json")
    assert request_digest(request_of_then.decisive, manifest_of_then, fingerprint_of_then) == digest
