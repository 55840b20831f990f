"""Models of nnU-Net v2 taken over: weights, plans, folders and zips; and nothing that they hold is run."""

import json
import re
import sys
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch

from builders.nnunet import REGIONS, Runs, dataset, plans, save_checkpoint, state, trained_folder
from segfw.base.device import pick_precision
from segfw.base.records import UserError
from segfw.cli import main
from segfw.images.geometry import Geometry
from segfw.images.volume import Volume
from segfw.inference.predictor import Predictor
from segfw.model.load import load_model
from segfw.nnunet.torch_checkpoint import WAY_OUT, read_checkpoint
from segfw.planning.plan import Plan
from segfw.verbs.import_nnunet import import_nnunet


def test_a_checkpoint_that_would_run_a_command_is_refused_and_nothing_runs(tmp_path):
    folder = trained_folder(tmp_path)
    ran = tmp_path / "ran"
    checkpoint = folder / "fold_0" / "checkpoint_final.pth"
    save_checkpoint(checkpoint, state(), extra=Runs(ran))
    with pytest.raises(UserError, match=r"names (posix|nt)\.system, which could run code; if you trust it"):
        import_nnunet(folder, tmp_path / "out")
    assert not ran.exists()
    assert not (tmp_path / "out").exists()
    torch.load(checkpoint, weights_only=False)  # what would have happened: otherwise this test proves nothing
    assert ran.exists()


def test_the_way_out_of_a_refusal_makes_a_copy_and_leaves_the_checkpoint_alone(tmp_path, monkeypatch):
    """As documented and as the refusal says, also where a key is missing."""
    original = tmp_path / "checkpoint_final.pth"
    save_checkpoint(original, state(), extra=Runs(tmp_path / "ran"))
    content = torch.load(original, weights_only=False)
    del content["inference_allowed_mirroring_axes"]
    torch.save(content | {"logging": Runs(tmp_path / "ran")}, original)
    before = original.read_bytes()
    text = (Path(__file__).parents[2] / "docs" / "from-nnunet.md").read_text()
    documented = re.search(r'python -c "(import sys, torch; .*?)"', text, re.DOTALL).group(1).replace("\\\n", "")
    printed = re.search(r"c = torch\.load.*", WAY_OUT).group(0)
    for number, code in enumerate((documented, printed)):
        copy = tmp_path / f"copy_{number}.pth"
        monkeypatch.setattr(sys, "argv", ["-c", str(original), str(copy)])
        exec(re.sub(" +", " ", code), {"torch": torch, "FILE": original, "COPY": copy})
        found = read_checkpoint(copy)
        assert (found.trainer, found.mirror_axes, found.epoch) == ("nnUNetTrainer", (), 7)
        assert found.weights.keys() == state().keys()
        assert original.read_bytes() == before


@pytest.mark.parametrize("kind", ["eval", "numpy", "build"])
def test_other_ways_to_run_code_are_refused(tmp_path, kind):
    class Trick:
        def __reduce__(self):
            if kind == "eval":
                return eval, (f"open({str(tmp_path / 'ran')!r}, 'w')",)
            if kind == "numpy":  # a function that is no number, though of NumPy
                return np.load, (str(tmp_path / "x.npy"), None, True)
            return Path, (str(tmp_path),)

    path = tmp_path / "checkpoint.pth"
    save_checkpoint(path, state(), extra=Trick())
    with pytest.raises(UserError, match="is refused, because it names"):
        read_checkpoint(path)
    assert not (tmp_path / "ran").exists()


def test_numbers_of_numpy_in_the_log_are_passed_over(tmp_path):
    path = tmp_path / "checkpoint.pth"
    log = {"val_losses": [np.float32(0.5), np.float64(1)], "dice": [np.arange(3.0)], "lrs": [0.01]}
    save_checkpoint(path, state(), extra=log)
    found = read_checkpoint(path)
    assert (found.trainer, found.configuration, found.mirror_axes, found.epoch) == (
        "nnUNetTrainer",
        "3d_fullres",
        (0, 2),
        7,
    )


def test_a_truncated_or_foreign_checkpoint_is_refused(tmp_path):
    path = tmp_path / "checkpoint.pth"
    save_checkpoint(path, state())
    path.write_bytes(path.read_bytes()[:-200])
    with pytest.raises(UserError, match="is no whole checkpoint"):
        read_checkpoint(path)
    torch.save({"state_dict": {}}, path)
    with pytest.raises(UserError, match="holds no 'network_weights'"):
        read_checkpoint(path)
    torch.save([1, 2], path)
    with pytest.raises(UserError, match="holds other things"):
        read_checkpoint(path)


def test_the_model_directory_holds_what_nnunet_trained(tmp_path):
    import_nnunet(trained_folder(tmp_path, folds=("0", "3")), tmp_path / "out")
    model = load_model(tmp_path / "out")
    how = model.configuration.preprocessing
    plan = model.plan
    assert sorted(model.weights) == ["0", "3"]
    assert model.mirror_axes == (0, 2)
    assert (plan.orientation, how.orientation, how.axis_order) == ("as stored", "as stored", (1, 0, 2))
    assert how.spacing_mm == (5.0, 1.0, 0.5)
    assert model.configuration.patch_size == (4, 16, 8)
    assert model.configuration.network.decoder_convs == (1, 2)  # nnU-Net counts from the bottom
    assert plan.labels.names == ("background", "small", "large")  # by value, not in the order of the file
    assert [(rule.kind, rule.inside_mask) for rule in how.normalization] == [("ct", False), ("zscore", True)]


def test_the_network_computes_what_nnunets_formulas_say(tmp_path):
    """A slow oracle of a one-convolution stage: the weights land where they belong."""
    weights = state()
    import_nnunet(trained_folder(tmp_path, weights=weights), tmp_path / "out")
    network = Predictor.of(load_model(tmp_path / "out"), device="cpu", precision="fp32").networks[0]
    image = torch.randn(1, 2, 4, 16, 8)

    def layer(x, name, stride=(1, 1, 1)):
        weight = weights[f"{name}.conv.weight"]
        padding = [size // 2 for size in weight.shape[2:]]
        x = torch.nn.functional.conv3d(x, weight, weights[f"{name}.conv.bias"], stride, padding)
        x = torch.nn.functional.instance_norm(
            x, weight=weights[f"{name}.norm.weight"], bias=weights[f"{name}.norm.bias"]
        )
        return torch.nn.functional.leaky_relu(x, 0.01)

    def up(x, index, stride):
        names = f"decoder.transpconvs.{index}"
        return torch.nn.functional.conv_transpose3d(x, weights[f"{names}.weight"], weights[f"{names}.bias"], stride)

    first = layer(image, "encoder.stages.0.0.convs.0")
    second = layer(layer(first, "encoder.stages.1.0.convs.0", (1, 2, 2)), "encoder.stages.1.0.convs.1")
    x = layer(second, "encoder.stages.2.0.convs.0", (2, 2, 2))
    x = torch.cat((up(x, 0, (2, 2, 2)), second), 1)
    x = layer(layer(x, "decoder.stages.0.convs.0"), "decoder.stages.0.convs.1")
    x = layer(torch.cat((up(x, 1, (1, 2, 2)), first), 1), "decoder.stages.1.convs.0")
    head = "decoder.seg_layers.1"
    wanted = torch.nn.functional.conv3d(x, weights[f"{head}.weight"], weights[f"{head}.bias"])
    with torch.inference_mode():
        torch.testing.assert_close(network(image), wanted, atol=1e-4, rtol=1e-4)


def test_images_are_taken_as_stored_and_given_back_so(tmp_path):
    """The same voxels give the same mask, however the header says that they lie."""
    import_nnunet(trained_folder(tmp_path), tmp_path / "out")
    predictor = Predictor.of(load_model(tmp_path / "out"), device="cpu", precision="fp32")
    array = np.random.default_rng(0).normal(100, 50, (2, 9, 7, 12)).astype(np.float32)
    affine = np.diag([1.0, 5.0, 0.5, 1])
    flipped = affine @ np.diag([-1.0, 1, -1, 1])
    grids = [Geometry.of((9, 7, 12), one) for one in (affine, flipped)]
    masks = [predictor(Volume(array=array, geometry=grid)).array[0] for grid in grids]
    assert masks[0].shape == (9, 7, 12)
    assert masks[0].any()
    np.testing.assert_array_equal(*masks)


def test_regions_and_ignore_label(tmp_path):
    weights = state(classes=2)
    import_nnunet(trained_folder(tmp_path, weights=weights, described=dataset(REGIONS)), tmp_path / "out")
    labels = load_model(tmp_path / "out").plan.labels
    assert [(region.name, region.values, region.painted) for region in labels.regions] == [
        ("whole", (1, 2), 1),
        ("core", (2,), 2),
    ]
    assert labels.ignore == 3
    assert labels.outputs == 2


CHANGES = {
    "architecture 'MyNet' is unknown": {"architecture": {"network_class_name": "my.MyNet", "arch_kwargs": {}}},
    "data is resampled by 'resample_mine'": {"resampling_fn_data": "resample_mine"},
    "probabilities is resampled with {'order': 3}": {"resampling_fn_probabilities_kwargs": {"order": 3}},
    "data is resampled with {'mode': 'bicubic'}": {
        "resampling_fn_data": "resample_torch_fornnunet",
        "resampling_fn_data_kwargs": {"mode": "bicubic", "num_threads": 8},
    },
    "normalisation 'Mine' is unknown": {"normalization_schemes": ["Mine", "CTNormalization"]},
    "normalization_schemes is of 1 channels, but there are 2": {"normalization_schemes": ["CTNormalization"]},
    "preprocessor 'Mine' is unknown": {"preprocessor_name": "Mine"},
    "has nonlin 'torch.nn.GELU', which segfw has not": {"arch_kwargs": {"nonlin": "torch.nn.GELU"}},
    "has norm_op None": {"arch_kwargs": {"norm_op": None}},
    "has norm_op_kwargs": {"arch_kwargs": {"norm_op_kwargs": {"track_running_stats": True}}},
    "has nonlin_first True": {"arch_kwargs": {"nonlin_first": True}},
}


@pytest.mark.parametrize(("reason", "change"), CHANGES.items())
def test_what_would_be_computed_otherwise_is_refused_by_name(tmp_path, reason, change):
    written = plans()
    entry = written["configurations"]["3d_fullres"]
    entry["architecture"]["arch_kwargs"] |= change.pop("arch_kwargs", {}) if "arch_kwargs" in change else {}
    entry |= change
    with pytest.raises(UserError) as caught:
        import_nnunet(trained_folder(tmp_path, written=written), tmp_path / "out")
    assert reason in str(caught.value)
    assert not (tmp_path / "out").exists()


def test_plans_from_before_version_2_3(tmp_path):
    written = plans()
    entry = written["configurations"]["3d_fullres"]
    network = entry.pop("architecture")["arch_kwargs"]
    entry |= {
        "UNet_class_name": "PlainConvUNet",
        "UNet_base_num_features": 4,
        "unet_max_num_features": 8,
        "n_conv_per_stage_encoder": network["n_conv_per_stage"],
        "n_conv_per_stage_decoder": network["n_conv_per_stage_decoder"],
        "pool_op_kernel_sizes": network["strides"],
        "conv_kernel_sizes": network["kernel_sizes"],
    }
    new = tmp_path / "new"
    old = tmp_path / "old"
    import_nnunet(trained_folder(tmp_path / "a"), new)
    import_nnunet(trained_folder(tmp_path / "b", written=written), old)
    assert Plan.load(new / "plan.json") == Plan.load(old / "plan.json")


def test_a_cascade_brings_its_first_stage_and_needs_it(tmp_path):
    written = plans()
    low = written["configurations"]["3d_fullres"] | {"spacing": [5.0, 2.0, 1.0]}
    written["configurations"] |= {
        "3d_lowres": low,
        "3d_cascade_fullres": {"inherits_from": "3d_fullres", "previous_stage": "3d_lowres"},
    }
    second = trained_folder(tmp_path, written=written, name="3d_cascade_fullres", weights=state(inputs=4))
    with pytest.raises(UserError, match="the first, nnUNetTrainer__nnUNetPlans__3d_lowres, is not beside it"):
        import_nnunet(second, tmp_path / "out")
    trained_folder(tmp_path, written=written, name="3d_lowres")
    import_nnunet(second, tmp_path / "out")
    model = load_model(tmp_path / "out", "3d_cascade_fullres")
    assert model.previous.configuration.name == "3d_lowres"
    assert model.configuration.previous_through_file
    array = np.random.default_rng(0).normal(100, 50, (2, 9, 7, 12)).astype(np.float32)
    volume = Volume(array=array, geometry=Geometry.of((9, 7, 12), np.diag([1.0, 5.0, 0.5, 1])))
    assert Predictor.of(model, device="cpu", precision="fp32")(volume).array.shape == (1, 9, 7, 12)


def test_what_is_no_model_is_said(tmp_path):
    with pytest.raises(UserError, match="no such file or folder"):
        import_nnunet(tmp_path / "nothing", tmp_path / "out")
    (tmp_path / "empty").mkdir()
    with pytest.raises(UserError, match="holds no trained model"):
        import_nnunet(tmp_path / "empty", tmp_path / "out")
    folder = trained_folder(tmp_path)
    with pytest.raises(UserError, match="is there already"):
        import_nnunet(folder, folder)
    (folder / "plans.json").write_text("{")
    with pytest.raises(UserError, match="cannot be read"):
        import_nnunet(folder, tmp_path / "out")
    (folder / "plans.json").write_text(json.dumps({"configurations": {}}))
    with pytest.raises(UserError, match="configuration '3d_fullres' is missing"):
        import_nnunet(folder, tmp_path / "out")


REAL = ("hippocampus_2d", "hippocampus_3d_fullres", "hippocampus_regions_resenc")


@pytest.mark.parametrize("name", REAL)
def test_real_models_compute_the_outputs_that_nnunet_wrote(real_data, tmp_path, name):
    folder = real_data / "nnunet_models" / name
    import_nnunet(folder / "model", tmp_path / "out")
    predictor = Predictor.of(load_model(tmp_path / "out"), device="cpu", precision="fp32")
    with np.load(folder / "patch.npz") as stored:
        patch = torch.from_numpy(stored["input"])
        wanted = torch.from_numpy(stored["logits"])
    with torch.inference_mode():
        found = predictor.networks[0](patch[:, :, None] if patch.ndim == 4 else patch).reshape(wanted.shape)
    # On outputs of up to 168 float32 itself is off by 2e-4 from float64, in nnU-Net as in segfw; and processors and
    # numbers of threads add in another order: 1.1e-4 on outputs of 63 was seen on one without AVX-512.
    largest = float(wanted.abs().max())
    assert float((found - wanted).abs().max()) <= max(1e-4, 3e-6 * largest)


@pytest.mark.parametrize(
    ("device", "wanted"), [("cpu", torch.float32), ("cuda", torch.float16), ("mps", torch.float32)]
)
def test_imported_models_compute_as_nnunet_does_and_others_as_is_fastest(device, wanted, monkeypatch):
    monkeypatch.setattr(torch.cuda, "get_device_capability", lambda device: (9, 0))
    monkeypatch.setattr("segfw.base.device.cpu_has_bf16", lambda: True)
    assert pick_precision("auto", torch.device(device), as_nnunet=True) == wanted
    assert pick_precision("bf16", torch.device(device), as_nnunet=True) == torch.bfloat16
    own = torch.float32 if device == "mps" else torch.bfloat16
    assert pick_precision("auto", torch.device(device)) == own


def test_an_imported_model_knows_that_it_is_one(tmp_path, monkeypatch, capsys):
    monkeypatch.setattr("segfw.base.device.cpu_has_bf16", lambda: True)
    import_nnunet(trained_folder(tmp_path), tmp_path / "out")
    model = load_model(tmp_path / "out")
    assert Predictor.of(model, device="cpu").precision == torch.float32
    own = replace(model, plan=model.plan.model_copy(update={"is_imported": False}))
    assert Predictor.of(own, device="cpu").precision == torch.bfloat16
    assert main(["info", str(tmp_path / "out")]) == 0
    assert "Needs in training" not in capsys.readouterr().out
