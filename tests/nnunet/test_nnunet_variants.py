"""Models of nnU-Net whose plans ask for other slopes, norms and resampling than its planners write."""

import json
from math import nan

import numpy as np
import pytest
import torch
import torch.nn.functional as F

from builders.nnunet import INTENSITIES, dataset, plans, state, trained_folder
from segfw.base.records import UserError
from segfw.grid.preprocess import preprocess_image
from segfw.grid.resample import Resampling, resample_image, thick_axis
from segfw.grid.restore import restore
from segfw.images.geometry import Geometry
from segfw.images.volume import Volume
from segfw.inference.predictor import Predictor
from segfw.model.load import load_model
from segfw.nnunet.read_plans import plan_of_nnunet
from segfw.planning.plan import Plan
from segfw.verbs.export_nnunet import export_nnunet
from segfw.verbs.import_nnunet import import_nnunet

NAME = "3d_fullres"


def imported(tmp_path, *, weights=None, arguments=None, **changes):
    """The configuration and the model folder of the small model with other plans."""
    written = plans()
    entry = written["configurations"][NAME] | changes
    entry["architecture"]["arch_kwargs"] |= arguments or {}
    written["configurations"][NAME] = entry
    import_nnunet(trained_folder(tmp_path / "nnunet", written=written, weights=weights), tmp_path / "out")
    return load_model(tmp_path / "out").configuration


@pytest.mark.parametrize(
    ("arguments", "slope", "eps"),
    [
        ({"nonlin_kwargs": {"negative_slope": 0.25}, "norm_op_kwargs": {"eps": 0.5, "affine": True}}, 0.25, 0.5),
        ({"nonlin": "torch.nn.ReLU", "nonlin_kwargs": {"inplace": True}}, 0.0, 1e-5),
        (
            {"nonlin": "torch.nn.modules.activation.LeakyReLU", "nonlin_kwargs": None, "norm_op_kwargs": None},
            0.01,
            1e-5,
        ),
    ],
)
def test_slope_and_epsilon_are_the_plans(tmp_path, arguments, slope, eps):
    """The first layer by its formulas."""
    weights = state()
    imported(tmp_path, weights=weights, arguments=arguments)
    network = Predictor.of(load_model(tmp_path / "out"), device="cpu", precision="fp32", compile=False).networks[0]
    image = torch.randn(1, 2, 4, 16, 8)
    layer = "encoder.stages.0.0.convs.0"
    x = F.conv3d(image, weights[f"{layer}.conv.weight"], weights[f"{layer}.conv.bias"], padding=(0, 1, 1))
    centred = x - x.mean((2, 3, 4), keepdim=True)
    x = centred / (centred.square().mean((2, 3, 4), keepdim=True) + eps).sqrt()
    gain, offset = (weights[f"{layer}.norm.{part}"].view(-1, 1, 1, 1) for part in ("weight", "bias"))
    x = gain * x + offset
    with torch.inference_mode():
        torch.testing.assert_close(network.encoder[0](image), torch.where(x > 0, x, slope * x), atol=1e-5, rtol=1e-5)


def test_an_exported_model_says_slope_epsilon_and_resampling_again(tmp_path):
    how = {"is_seg": False, "order": 2, "order_z": 1, "force_separate_z": True}
    before = imported(
        tmp_path,
        arguments={"nonlin_kwargs": {"negative_slope": 0.25}, "norm_op_kwargs": {"eps": 0.5, "affine": True}},
        resampling_fn_data_kwargs=how,
    )
    (folder,) = export_nnunet(tmp_path / "out", tmp_path / "export")
    import_nnunet(folder, tmp_path / "again")
    after = load_model(tmp_path / "again").configuration
    assert (after.network, after.preprocessing) == (before.network, before.preprocessing)
    assert (after.network.leak, after.network.norm_eps) == (0.25, 0.5)
    assert after.preprocessing.images == Resampling(order=2, across=1, apart=True)
    assert json.loads((folder / "plans.json").read_text())["configurations"][NAME]["resampling_fn_data_kwargs"] == how


def test_a_network_with_dropout_says_its_norms_in_another_place(tmp_path):
    weights = {name.replace(".all_modules.1.", ".all_modules.2."): tensor for name, tensor in state().items()}
    imported(tmp_path, weights=weights, arguments={"dropout_op": "torch.nn.Dropout3d", "dropout_op_kwargs": {"p": 0.5}})
    found = load_model(tmp_path / "out").weights["0"]
    assert torch.equal(found["encoder.0.0.1.weight"], weights["encoder.stages.0.0.convs.0.norm.weight"])
    weights["encoder.stages.0.0.convs.0.all_modules.3.weight"] = torch.ones(4)
    with pytest.raises(UserError, match=r"all_modules.3.weight' that the plans' network has not"):
        import_nnunet(trained_folder(tmp_path / "other", weights=weights), tmp_path / "refused")


SPACINGS = {  # current, target: thick by the ratio, always, never
    ((5.0, 1.0, 1.0), (2.0, 1.0, 1.0)): (0, 0, None),
    ((1.0, 2.0, 1.0), (1.0, 4.0, 1.0)): (1, 1, None),  # by the target
    ((1.0, 2.0, 1.5), (3.0, 1.0, 1.0)): (None, 1, None),
    ((2.0, 2.0, 1.0), (4.0, 1.0, 1.0)): (0, None, None),  # always: of the current ones two are the longest
}


@pytest.mark.parametrize(("spacings", "axes"), SPACINGS.items())
def test_which_axis_is_resampled_apart(spacings, axes):
    assert tuple(thick_axis(*spacings, apart) for apart in (None, True, False)) == axes


def test_across_slices_linearly_and_in_the_plane_by_the_nearest():
    image = torch.tensor([[[[0.0, 4.0]], [[10.0, 20.0]]]])  # two slices of one row of two
    how = Resampling(order=0, across=1, apart=True)
    found = resample_image(image, (4, 1, 4), 0, how)[0, :, 0]
    # New slices lie at -0.25, 0.25, 0.75 and 1.25 of the old ones.
    assert found.tolist() == [[0, 0, 4, 4], [2.5, 2.5, 8, 8], [7.5, 7.5, 16, 16], [10, 10, 20, 20]]


@pytest.mark.parametrize("across", [0, 1])
@pytest.mark.parametrize("apart", [None, False])
def test_images_and_logits_follow_the_plans(tmp_path, across, apart):
    """Six slices 5 mm apart on a grid of 2.5 mm; by default, slices of a thick axis are repeated."""
    kwargs = {"is_seg": False, "order": 1, "order_z": across, "force_separate_z": apart}
    chosen = imported(
        tmp_path,
        resampling_fn_data_kwargs=kwargs,
        resampling_fn_probabilities_kwargs=kwargs,
        normalization_schemes=["NoNormalization"] * 2,
        spacing=[2.5, 1.0, 0.5],
    )
    how = chosen.preprocessing.model_copy(update={"axis_order": (0, 1, 2)})
    image = np.ones((2, 2, 3, 4), np.float32)
    image[:, 1] = 5
    volume = Volume(array=image, geometry=Geometry.of((2, 3, 4), np.diag([5.0, 1.0, 0.5, 1])))
    found, record = preprocess_image(volume, how)
    is_stepped = apart is None and across == 0
    assert found[0, :, 0, 0].tolist() == ([1, 1, 5, 5] if is_stepped else [1, 2, 4, 5])
    # Logits of class 1 along z, class 0 has 0: old slices lie at 0.5 and 2.5 of the new ones.
    logits = torch.zeros(2, 4, 3, 4)
    logits[1] = torch.tensor([3.0, -1.0, 1.0, -3.0]).view(-1, 1, 1)
    by_slice = restore(logits, record)[:, 0, 0].tolist()
    assert by_slice == ([0, 0] if is_stepped else [1, 0])  # the nearest, -1 and -3; or the means, 1 and -1


def test_torchs_resampling_is_linear(tmp_path):
    kwargs = {"is_seg": False, "force_separate_z": False, "memefficient_seg_resampling": False}
    torchs = {f"resampling_fn_{kind}": "resample_torch_fornnunet" for kind in ("data", "seg", "probabilities")}
    torchs |= {f"resampling_fn_{kind}_kwargs": kwargs for kind in ("data", "seg", "probabilities")}
    how = imported(tmp_path, **torchs).preprocessing
    assert how.images == how.logits == Resampling(order=1, across=0, apart=False)
    image = torch.randn(1, 5, 6, 7)
    found = resample_image(image, (8, 4, 9), None, how.images)
    torch.testing.assert_close(found, F.interpolate(image[None], (8, 4, 9), mode="trilinear")[0], atol=1e-5, rtol=1e-5)


def test_without_resampling_images_keep_their_own_grid(tmp_path):
    nothing = {f"resampling_fn_{kind}": "no_resampling_hack" for kind in ("data", "seg", "probabilities")}
    nothing |= {f"resampling_fn_{kind}_kwargs": {} for kind in ("data", "seg", "probabilities")}
    chosen = imported(tmp_path, **nothing)
    assert chosen.preprocessing.spacing_mm == (None, None, None)
    array = np.random.default_rng(0).normal(100, 50, (2, 9, 7, 12)).astype(np.float32)
    volume = Volume(array=array, geometry=Geometry.of((9, 7, 12), np.diag([3.0, 2.0, 7.0, 1])))
    found, record = preprocess_image(volume, chosen.preprocessing)
    assert tuple(found.shape[1:]) == record.shape == (7, 9, 12)
    assert record.spacing_mm == (2.0, 3.0, 7.0)
    with pytest.raises(UserError, match="3d_fullres resamples nothing"):
        export_nnunet(tmp_path / "out", tmp_path / "export")


def test_how_masks_are_resampled_matters_to_training_alone(tmp_path):
    kwargs = {"is_seg": True, "order": 0, "order_z": 0, "force_separate_z": None}
    assert imported(tmp_path, resampling_fn_seg_kwargs=kwargs).preprocessing.images == Resampling(order=3)
    written = plans()
    written["configurations"][NAME]["resampling_fn_seg_kwargs"] = kwargs
    known = Plan.load(tmp_path / "out" / "plan.json")
    with pytest.raises(UserError, match=r"masks \(seg\) are resampled with .*'order': 0"):
        plan_of_nnunet(written, known.channels, known.labels, tmp_path / "plans.json")


def test_intensities_in_the_words_of_the_first_versions(tmp_path):
    written = plans()
    field = "foreground_intensity_properties_"
    written[f"{field}by_modality"] = written.pop(f"{field}per_channel")
    del written["label_manager"]
    import_nnunet(trained_folder(tmp_path / "a", written=written), tmp_path / "old")
    import_nnunet(trained_folder(tmp_path / "b"), tmp_path / "new")
    assert Plan.load(tmp_path / "old" / "plan.json") == Plan.load(tmp_path / "new" / "plan.json")


def test_another_manager_of_labels_is_refused(tmp_path):
    folder = trained_folder(tmp_path, written=plans() | {"label_manager": "Mine"}, described=dataset())
    with pytest.raises(UserError, match="label_manager 'Mine' is unknown"):
        import_nnunet(folder, tmp_path / "out")


def test_a_function_without_arguments_is_taken_by_its_defaults(tmp_path):
    """Nothing said of images means cubic, as segfw has it; of logits it means a spline, which segfw has not."""
    assert imported(tmp_path, resampling_fn_data_kwargs={}).preprocessing.images == Resampling(order=3, apart=False)
    with pytest.raises(UserError, match="probabilities is resampled with {'order': 3}, which segfw has not"):
        imported(tmp_path / "logits", resampling_fn_probabilities_kwargs={})


@pytest.mark.parametrize("field", ["use_mask_for_norm", "normalization_schemes"])
def test_as_many_normalisations_as_channels(tmp_path, field):
    short = plans()["configurations"][NAME][field][:1]
    with pytest.raises(UserError, match=f"{field} is of 1 channels, but there are 2"):
        imported(tmp_path, **{field: short})


@pytest.mark.parametrize("given", [{}, {"mean": 1.0}, INTENSITIES | {"std": nan}])
def test_only_ct_needs_intensities(tmp_path, given):
    """The second channel of the small model is standardised by its own values."""
    per_channel = {"0": INTENSITIES, "1": given}
    written = plans() | {"foreground_intensity_properties_per_channel": per_channel}
    import_nnunet(trained_folder(tmp_path / "a", written=written), tmp_path / "out")
    rules = Plan.load(tmp_path / "out" / "plan.json").configuration(NAME).preprocessing.normalization
    assert (rules[0].stats.mean, rules[1].stats) == (100.0, None)
    per_channel |= {"0": given, "1": INTENSITIES}
    with pytest.raises(UserError, match=r"plans\.json"):
        import_nnunet(trained_folder(tmp_path / "b", written=written), tmp_path / "other")
