"""Plans equal nnU-Net's own for the same fingerprints, and keep their promises for any other."""

import json
from pathlib import Path

import numpy as np
import pytest

from segfw.data.manifest import Case, Channel, DatasetManifest, LabelSet
from segfw.data.normalize import IntensityStats
from segfw.planning import planner
from segfw.planning.fingerprint import CaseStats, Fingerprint
from segfw.planning.plan import Plan
from segfw.planning.planner import PRESETS, choose_normalization, make_plan
from segfw.records import UserError

# Written by nnU-Net 2.8.1's default planner; Hippocampus to Liver are shaped like well-known data sets.
GOLDEN = json.loads((Path(__file__).parent / "data" / "golden_plans.json").read_text())
STATS = IntensityStats(mean=0, std=1, minimum=-4, maximum=4, median=0, percentile_00_5=-3, percentile_99_5=3)


def manifest(channels: tuple[str, ...] = ("MR",), classes: int = 3) -> DatasetManifest:
    names = ("background", *(f"l{index}" for index in range(1, classes)))
    return DatasetManifest(
        name="made up",
        root=Path("/data"),
        layout="nnunet",
        channels=tuple(Channel(name=name) for name in channels),
        labels=LabelSet(names=names, values=tuple(range(classes))),
        cases=(Case(id="a", images=(Path("a"),), label=Path("b")),),
    )


def fingerprint(cases: list[tuple[tuple, tuple]], crop_ratio: float = 1, channels: int = 1) -> Fingerprint:
    """Of (spacing, shape after the crop) per case; the crop took the share 1 - crop_ratio off along z."""
    stats = [
        CaseStats(
            id=f"c{index}",
            shape=(round(shape[0] / crop_ratio), *map(int, shape[1:])),
            spacing_mm=tuple(map(float, spacing)),
            cropped_shape=tuple(map(int, shape)),
            label_voxels={"0": 1, "1": 1},
        )
        for index, (spacing, shape) in enumerate(cases)
    ]
    return Fingerprint(cases=tuple(stats), intensities=(STATS,) * channels)


@pytest.fixture
def without_memory_estimate(monkeypatch):
    """The estimate of bytes builds each network, which takes a hundred times longer than to plan it."""
    monkeypatch.setattr(planner, "training_memory_gb", lambda spec, patch_size, batch_size: 0.0)


@pytest.mark.usefixtures("without_memory_estimate")
@pytest.mark.parametrize("name", GOLDEN)
def test_plans_equal_those_of_nnunet(name):
    golden = GOLDEN[name]
    groups = golden["case_groups"]
    cases = [(group["spacing"], group["shape_after_crop"]) for group in groups for _ in range(group["count"])]
    assert len(cases) == golden["cases"]
    plan = make_plan(manifest(), fingerprint(cases))
    assert set(plan.configurations) == {"2d", "3d_fullres"} & set(golden["configurations"])
    for key, configuration in plan.configurations.items():
        expected, skip = golden["configurations"][key], 1 if key == "2d" else 0  # theirs leave the slice axis out
        network, how = configuration.network, configuration.preprocessing
        assert list(how.axis_order) == golden["transpose_forward"]
        assert how.spacing_mm[skip:] == pytest.approx(expected["spacing"])
        assert how.spacing_mm[0] is None or key == "3d_fullres"
        assert list(configuration.median_shape[skip:]) == expected["median_image_size"]
        assert list(configuration.patch_size[skip:]) == expected["patch_size"]
        assert configuration.batch_size == expected["batch_size"]
        assert configuration.batch_dice == expected["batch_dice"]
        assert list(network.features) == expected["features"]
        assert [list(stride[skip:]) for stride in network.strides] == expected["strides"]
        assert [list(kernel[skip:]) for kernel in network.kernels] == expected["kernels"]


def test_the_hippocampus_plan_in_full():
    plan = make_plan(manifest(), fingerprint([((1, 1, 1), (36, 50, 35))] * 260))
    full, flat = plan.configurations["3d_fullres"], plan.configurations["2d"]
    assert (full.patch_size, full.batch_size, full.network.features) == ((40, 56, 40), 9, (32, 64, 128, 256))
    assert full.network.strides == ((1, 1, 1), (2, 2, 2), (2, 2, 2), (2, 2, 2))
    assert (full.network.in_channels, full.network.classes) == (1, 3)
    assert (flat.patch_size, flat.batch_size) == ((1, 56, 40), 366)
    assert (full.mirror_axes, flat.mirror_axes) == ((0, 1, 2), (1, 2))
    assert flat.network.is_2d
    assert not full.network.is_2d
    assert "Batch of 9: the memory would hold 58, but a batch should not see over 5 %" in " ".join(full.reasons)
    assert (plan.gpu_memory_gb, plan.training_cases, plan.orientation) == (8, 260, "canonical")
    assert full.cost.training_memory_gb > 0
    assert full.cost.teraflop_per_step > flat.cost.teraflop_per_step / 10


def random_cases(rng: np.random.Generator) -> list[tuple[tuple, tuple]]:
    """One to six cases around a drawn spacing and size, from a thin slab of thick slices to a large isotropic one."""
    spacing = np.exp(rng.uniform(np.log(0.3), np.log(8), 3))
    size = np.exp(rng.uniform(np.log(2), np.log(500), 3))
    return [
        (spacing * rng.uniform(0.8, 1.25, 3), np.maximum(1, size * rng.uniform(0.7, 1.4, 3)).astype(int))
        for _ in range(rng.integers(1, 7))
    ]


@pytest.mark.usefixtures("without_memory_estimate")
def test_what_every_plan_must_keep_to():
    rng = np.random.default_rng(7)
    preset = PRESETS["plain"]
    for _ in range(400):
        memory_gb = float(rng.choice([1, 4, 8, 24]))
        cases = random_cases(rng)
        plan = make_plan(manifest(classes=int(rng.integers(2, 9))), fingerprint(cases), gpu_memory_gb=memory_gb)
        case = f"{memory_gb} GB, {cases}"
        for name, configuration in plan.configurations.items():
            is_2d, network, patch = name == "2d", configuration.network, configuration.patch_size
            assert not any(size % step for size, step in zip(patch, network.downsampling)), case
            assert network.stage_shapes(patch)[-1] == tuple(np.floor_divide(patch, network.downsampling)), case
            assert configuration.batch_size >= 2, case
            reference = (preset.elements_2d if is_2d else preset.elements_3d) * memory_gb / 8
            one = network.convolution_elements(patch) / (preset.batch_2d if is_2d else preset.batch_3d)
            assert 2 * one <= reference, case
            assert (configuration.batch_size - 0.5) * one <= reference, case  # the batch is rounded
            # A patch is at most padded beyond the median case, never a whole step too large.
            steps = np.array(network.downsampling)
            assert (np.array(patch) < np.ceil(configuration.median_shape) + steps)[1 if is_2d else 0 :].all(), case
            assert network.is_2d == is_2d or configuration.patch_size[0] == 1, case


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
        make_plan(manifest(), fingerprint([((1, 1, 1), (1, 99, 99))]), configurations=("3d_fullres",))


def test_a_given_spacing_is_used_and_said():
    cases = fingerprint([((1, 1, 1), (60, 80, 100))] * 5)
    plan = make_plan(manifest(), cases, spacing_mm=(2, 4, 1))
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
        ({"preset": "huge"}, "unknown preset 'huge'; choose from plain"),
        ({"gpu_memory_gb": 0}, "--gpu-memory-gb is 0; give the memory of the GPU in GB"),
        ({"gpu_memory_gb": 1e-6}, "not even the smallest patch fits into --gpu-memory-gb; give more memory"),
        ({"configurations": ("3d",)}, "unknown configuration '3d'; choose from 2d, 3d_fullres"),
        ({"spacing_mm": (1, 0, 1)}, r"--spacing-mm is \(1, 0, 1\); give three lengths in mm above 0"),
    ],
)
def test_wishes_that_cannot_be_met_are_refused(wrong, message):
    with pytest.raises(UserError, match=message):
        make_plan(manifest(), fingerprint([((1, 1, 1), (60, 80, 100))] * 5), **wrong)
