"""Plans for MONAI's networks, from the patch to a prediction."""

import numpy as np
import pytest

from builders.planning import fingerprint, manifest, random_cases
from segfw.base.records import UserError
from segfw.images.formats import read_volume
from segfw.inference.predictor import Predictor
from segfw.model.load import load_model
from segfw.networks import ARCHITECTURES
from segfw.networks.spec import CLICK_REFINER, PLAIN, REFINER, RESIDUAL_ENCODER
from segfw.planning.memory import needed_gb
from segfw.planning.plan import Plan
from segfw.planning.planner import make_plan
from segfw.planning.presets import PRESETS
from segfw.planning.request import PlanRequest
from segfw.planning.topology import catching_up_topology, even_topology
from segfw.verbs.info import info
from segfw.verbs.plan_and_preprocess import plan_and_preprocess
from segfw.verbs.train import train

FOREIGN = [name for name, preset in PRESETS.items() if preset.published is None]
CUBES = fingerprint([((1, 1, 1), (200, 200, 200))] * 40)
THICK = fingerprint([((10, 1.4, 1.4), (10, 256, 216))] * 100)


def test_every_architecture_that_is_not_nnunets_has_a_preset():
    assert {PRESETS[name].architecture for name in FOREIGN} == set(ARCHITECTURES) - {
        PLAIN,
        RESIDUAL_ENCODER,
        REFINER,
        CLICK_REFINER,
    }


def test_finer_axes_catch_up_first():
    topology = catching_up_topology((5, 1, 1), (16, 64, 60), most_stages=5)
    assert topology.strides == ((1, 1, 1), (1, 2, 2), (1, 2, 2), (2, 2, 2), (2, 2, 2))
    assert topology.kernels == ((1, 3, 3), (1, 3, 3), (3, 3, 3), (3, 3, 3), (3, 3, 3))
    assert (topology.multiple_of, topology.patch_size) == ((4, 16, 16), (16, 64, 64))
    # However coarse an axis is, the last stage sees across it.
    assert catching_up_topology((90, 1, 1), (9, 64, 64), most_stages=5).kernels[-1] == (3, 3, 3)


def test_all_axes_are_halved_alike_as_often_as_the_unet_would():
    topology = even_topology((5, 1, 1), (9, 20, 18), most_stages=5)
    assert topology.strides == ((1, 1, 1), (2, 2, 2), (2, 2, 2))
    assert (topology.multiple_of, topology.patch_size) == ((4, 4, 4), (12, 20, 20))
    assert len(even_topology((1, 1, 1), (300, 300, 300), most_stages=5).strides) == 5
    assert len(even_topology((1, 1, 1), (3, 3, 3), most_stages=5).strides) == 2
    # A norm needs more than one voxel.
    assert even_topology((1, 1, 1), (20, 20, 20), most_stages=6, fixed=True).patch_size == (32, 32, 64)
    assert even_topology((1, 1), (20, 20), most_stages=6, fixed=True).patch_size == (32, 64)


@pytest.mark.parametrize("preset", FOREIGN)
def test_what_every_plan_must_keep_to(preset):
    rng = np.random.default_rng(11)
    for data in (CUBES, THICK, fingerprint(random_cases(rng)), fingerprint(random_cases(rng))):
        for memory_gb in (8, 24):
            plan = make_plan(manifest(), data, PlanRequest(preset=preset, gpu_memory_gb=memory_gb))
            for found in plan.configurations.values():
                network, patch = found.network, np.array(found.patch_size)
                assert not np.mod(patch, network.downsampling).any()
                assert np.prod(patch // network.downsampling) > 1
                assert needed_gb(found.estimate.training_memory_gb) <= memory_gb + 1e-6
                assert 2 <= found.batch_size <= (64 if found.name == "2d" else 32)
                assert network.is_2d == (found.name == "2d")
                assert network.architecture == PRESETS[preset].architecture


def test_more_memory_gives_larger_patches():
    for preset in FOREIGN:
        sizes = [
            np.prod(
                make_plan(manifest(), CUBES, PlanRequest(preset=preset, gpu_memory_gb=gb))
                .configurations["3d_fullres"]
                .patch_size
            )
            for gb in (8, 16, 40)
        ]
        assert sizes == sorted(sizes)
        assert sizes[0] < sizes[-1]


def test_the_sizes_are_those_that_were_published():
    networks = {
        name: make_plan(manifest(), CUBES, PlanRequest(preset=name)).configurations["3d_fullres"].network
        for name in FOREIGN
    }
    weights = {
        name: sum(p.numel() for p in ARCHITECTURES[n.architecture](n).parameters()) for name, n in networks.items()
    }
    assert weights["swin-unetr"] == pytest.approx(62.2e6, rel=0.01)  # Hatamizadeh et al. 2022: 61.98 M
    assert weights["mednext"] == pytest.approx(10.5e6, rel=0.01)  # Roy et al. 2023: 10.5 M
    assert weights["segresnet"] == pytest.approx(87.2e6, rel=0.01)  # Auto3DSeg's defaults


def test_the_plan_says_what_a_network_makes_of_thick_slices():
    words = {
        name: " ".join(make_plan(manifest(), THICK, PlanRequest(preset=name)).configurations["3d_fullres"].reasons)
        for name in FOREIGN
    }
    assert "finer axes are halved alone until the others are as fine" in words["segresnet"]
    assert "so patches are multiples of 4 x 16 x 16" in words["segresnet"]
    for name in ("mednext", "swin-unetr"):
        assert "it cannot spare the coarser ones" in words[name]
    assert "Along the first axis most of a patch of 32 is padding: cases have 10 voxels there." in words["swin-unetr"]
    assert "padding" not in words["segresnet"]
    even = make_plan(manifest(), CUBES, PlanRequest(preset="swin-unetr"))
    assert "all axes are halved alike, so" in " ".join(even.configurations["3d_fullres"].reasons)
    assert "The network is none of nnU-Net's" in " ".join(even.reasons)


def test_as_published_is_nnunets_alone():
    with pytest.raises(UserError, match="nnU-Net does, which has no 'mednext'; leave it out or take plain, resenc-m"):
        make_plan(manifest(), CUBES, PlanRequest(preset="mednext", as_published=True))


@pytest.mark.parametrize("preset, configuration", [("segresnet", "3d_fullres"), ("mednext", "2d")])
def test_from_plan_to_prediction(make_raw, tmp_path, capsys, preset, configuration):
    raw, work = make_raw(cases=5), tmp_path / "work"
    plan_and_preprocess(raw, work, preset="plain", device="cpu")
    stored = {path: path.stat().st_mtime_ns for path in (work / "preprocessed").rglob("*.b2nd")}
    # Another preset for the same data: planned anew, and nothing is preprocessed a second time.
    plan = plan_and_preprocess(raw, work, preset=preset, device="cpu")
    assert plan == Plan.load(work / "plan.json")
    assert plan.configurations[configuration].network.architecture == PRESETS[preset].architecture
    assert {path: path.stat().st_mtime_ns for path in (work / "preprocessed").rglob("*.b2nd")} == stored
    assert "MONAI's" in info(work, device="cpu").text()
    how = {"device": "cpu", "precision": "fp32", "batch_size": 2}
    scores = train(work, configuration, "0", epochs=1, steps_per_epoch=2, **how)
    assert len(scores.cases) == 1
    predictor = Predictor.of(load_model(work), device="cpu", precision="fp32")
    assert predictor(read_volume(raw / "imagesTr" / "case_00_0000.nii.gz")).geometry.shape == (10, 18, 20)
    # What is trained here is not replaced by another preset's plan.
    with pytest.raises(
        UserError, match=r"plan.json: would change, but runs.* is trained by it; use another work folder"
    ):
        plan_and_preprocess(raw, work, preset="plain", device="cpu")
