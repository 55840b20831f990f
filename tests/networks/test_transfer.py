"""Weights of another network: what is taken, what is adapted, what begins anew, and where they are looked for."""

import pytest
import torch

from builders.networks import three_stages
from segfw.base.records import UserError
from segfw.model.source import fold_folder
from segfw.model.weights import load_tensors, save_tensors
from segfw.networks import build_network
from segfw.networks.transfer import Transfer, transfer
from segfw.planning.plan import Plan
from segfw.training.initial_weights import find_start, require_some_fit

HEADS = ("heads.0.weight", "heads.0.bias", "heads.1.weight", "heads.1.bias")
STEM = "encoder.0.0.0.weight"


def test_the_same_network_is_taken_whole():
    source = build_network(three_stages()).eval()
    network = build_network(three_stages()).eval()
    found = transfer(network, source.state_dict())
    assert found.matched == tuple(network.state_dict())
    assert found.adapted == found.left_fresh == found.unused == ()
    image = torch.randn(1, 2, 4, 8, 12)
    assert torch.equal(network(image), source(image))
    assert found.sentence() == f"{len(found.matched)} of {len(found.matched)} weights taken over, nothing begins anew"
    assert found.details() == ""


def test_other_labels_leave_the_heads_as_they_were():
    source = build_network(three_stages(classes=7))
    network = build_network(three_stages())
    before = {name: tensor.clone() for name, tensor in network.state_dict().items()}
    found = transfer(network, source.state_dict())
    assert found.left_fresh == HEADS
    for name, tensor in network.state_dict().items():
        assert torch.equal(tensor, before[name] if name in HEADS else source.state_dict()[name])
    taken = len(found.matched)
    assert found.sentence() == f"{taken} of {taken + 4} weights taken over, {', '.join(HEADS)} begin anew"


@pytest.mark.parametrize("architecture", ["plain-unet", "residual-encoder-unet"])
def test_a_further_channel_changes_nothing_at_first(architecture):
    specs = [three_stages(architecture=architecture, in_channels=channels) for channels in (2, 3)]
    source, network = (build_network(spec).eval() for spec in specs)
    found = transfer(network, source.state_dict())
    assert found.adapted == (STEM,)
    image = torch.randn(1, 3, 4, 8, 12)
    with torch.no_grad():
        torch.testing.assert_close(network(image), source(image[:, :2]))
    assert "2 channels there and 3 here, the first 2 channels taken for the same, further ones begin" in found.details()
    network.train()(image)[0].square().mean().backward()
    assert dict(network.named_parameters())[STEM].grad[:, 2].any()  # and is learnt from then on


def test_fewer_channels_keep_the_first():
    source = build_network(three_stages(in_channels=3))
    network = build_network(three_stages(in_channels=1))
    found = transfer(network, source.state_dict())
    assert found.adapted == (STEM,)
    assert torch.equal(network.state_dict()[STEM], source.state_dict()[STEM][:, :1])
    assert "3 channels there and 1 here, the first 1 channel taken for the same, the rest is dropped" in found.details()


def test_a_deeper_and_wider_network_takes_what_fits():
    stages = {"strides": ((1, 1, 1), (1, 2, 2)), "kernels": ((1, 3, 3), (3, 3, 3)), "encoder_blocks": (2, 2)}
    narrow = three_stages(features=(4, 6), decoder_convs=(2,), **stages)
    source = build_network(narrow)
    network = build_network(three_stages(features=(4, 8, 12)))
    before = {name: tensor.clone() for name, tensor in network.state_dict().items()}
    found = transfer(network, source.state_dict())
    assert STEM in found.matched
    assert "encoder.1.0.0.weight" in found.left_fresh  # (8, 4, ...) here and (6, 4, ...) there
    assert not found.adapted  # no channels of features are taken for those of an image
    for name in found.left_fresh:
        assert torch.equal(network.state_dict()[name], before[name])
    assert " more begin anew" in found.sentence()
    assert len(found.sentence()) < 400


def test_weights_without_a_place_are_named():
    weights = dict(build_network(three_stages()).state_dict()) | {"extra.weight": torch.ones(2)}
    found = transfer(build_network(three_stages()), weights)
    assert found.unused == ("extra.weight",)
    assert "  1 have no place here: extra.weight" in found.details()
    assert isinstance(found, Transfer)


def test_nothing_that_fits_is_an_error():
    with pytest.raises(UserError, match="none of its 1 weights fits this network .*take a model of the same --preset"):
        transfer(build_network(three_stages()), {"conv.weight": torch.ones(1, 2, 3, 3, 3)})


def test_of_a_narrower_network_of_as_many_labels_offsets_alone_are_no_start():
    source = build_network(three_stages(features=(3, 5, 7)))
    network = build_network(three_stages(features=(4, 8, 12)))
    assert source.state_dict()["heads.0.bias"].shape == network.state_dict()["heads.0.bias"].shape
    with pytest.raises(UserError, match=r"encoder.0.0.0.weight is 3 x 2 x .* there and 4 x 2 x .* here.*and as wide"):
        transfer(network, source.state_dict())


class NamesOnly:
    """Of a plan, the names of its configurations."""

    configurations = dict.fromkeys(("2d", "3d_fullres"))


@pytest.fixture
def model(tmp_path, monkeypatch):
    """model('2d/0', ...) -> a model directory where these folds are trained."""
    monkeypatch.setattr(Plan, "load", lambda path: NamesOnly())

    def make(*trained: str):
        (tmp_path / "plan.json").touch()
        for value, name in enumerate(trained):
            configuration, fold = name.split("/")
            folder = fold_folder(tmp_path, configuration, fold)
            folder.mkdir(parents=True)
            save_tensors(folder / "weights.safetensors", {"w": torch.full((1,), float(value))}, {})
        return tmp_path

    return make


def test_the_same_fold_of_the_same_configuration_comes_first(model):
    folder = model("2d/0", "3d_fullres/0", "3d_fullres/1")
    assert load_tensors(find_start(folder, "3d_fullres", "1"))[0] == {"w": torch.tensor([2.0])}
    assert load_tensors(find_start(folder, "3d_fullres", "4"))[0] == {"w": torch.tensor([1.0])}
    assert load_tensors(find_start(folder, "2d", None))[0] == {"w": torch.tensor([0.0])}
    with pytest.raises(UserError, match="2d, 3d_fullres are trained, but not 3d_lowres; give the folder of one fold"):
        find_start(folder, "3d_lowres", "0")


def test_the_only_configuration_and_files_and_folders_of_folds_will_do(model):
    folder = model("2d/3")
    fold = fold_folder(folder, "2d", "3")
    for path in (folder, fold, fold / "weights.safetensors"):
        assert find_start(path, "3d_fullres", "0") == fold / "weights.safetensors"


def test_a_place_without_weights_is_refused(model, tmp_path):
    with pytest.raises(UserError, match="is neither a model directory"):
        find_start(tmp_path)
    with pytest.raises(UserError, match="no fold is trained to its end"):
        find_start(model())
    (tmp_path / "weights.safetensors").write_bytes(b"no tensors")
    with pytest.raises(UserError, match="is not a whole safetensors file"):
        load_tensors(find_start(tmp_path))


def test_a_network_of_ones_own_may_look_at_numbers_while_it_is_made(tmp_path):
    def of_ones_own(spec):
        rates = [rate.item() for rate in torch.linspace(0, 0.1, 3)]
        return torch.nn.Sequential(torch.nn.Dropout(rates[-1]), torch.nn.Conv3d(1, spec.classes, 3)).to("cpu")

    file = tmp_path / "weights.safetensors"
    save_tensors(file, of_ones_own(three_stages()).state_dict(), {})
    require_some_fit(file, three_stages(), of_ones_own)
    with pytest.raises(UserError, match="none of its 2 weights fits this network"):
        require_some_fit(file, three_stages(), build_network)
