"""Checkpoints of residual encoders as others publish them: by names and shapes, with their licence, and nothing run."""

import pickle

import pytest
import torch

from builders.networks import three_stages
from builders.published import publish
from segfw.base.records import UserError
from segfw.model.training_record import RunRecord, StartFacts
from segfw.networks import build_network
from segfw.nnunet.published_encoder import licence_beside, published_start

RESIDUAL = {"architecture": "residual-encoder-unet"}
README = "---\nlicense: cc-by-4.0\ntags:\n  - medical\n---\n# A model\nlicense: of the text\n"


def published(path, *, wrapped="", only_encoder=False, **changes):
    """A checkpoint of a network of one channel and one output; its weights by our names."""
    spec = three_stages(**RESIDUAL, in_channels=1, classes=1, **changes)
    return publish(path, spec, wrapped=wrapped, only_encoder=only_encoder)


@pytest.mark.parametrize("changes", [{}, {"wrapped": "module."}, {"only_encoder": True}])
def test_what_fits_is_taken_and_heads_are_not(tmp_path, changes, capsys):
    theirs = published(tmp_path / "checkpoint_final.pth", **changes)
    (tmp_path / "README.md").write_text(README)
    spec = three_stages(**RESIDUAL, in_channels=2, classes=1)  # as many outputs as there: heads begin anew all the same
    network = build_network(spec)
    before = {name: tensor.clone() for name, tensor in network.state_dict().items()}
    start, facts = published_start(tmp_path / "checkpoint_final.pth", spec)
    start(network)
    for name, tensor in network.state_dict().items():
        is_left = name.startswith("heads.") or ("only_encoder" in changes and not name.startswith("encoder."))
        if name == "encoder.0.0.0.weight":
            assert torch.equal(tensor[:, :1], theirs[name])  # the stem: one channel there, two here
            assert not tensor[:, 1:].any()
        else:
            assert torch.equal(tensor, before[name] if is_left else theirs[name]), name
    assert (facts.kind, facts.licence, len(facts.sha256)) == ("published", "cc-by-4.0", 64)
    assert "its licence is cc-by-4.0" in capsys.readouterr().out


def test_the_licence_is_what_the_head_of_the_readme_says(tmp_path):
    file = tmp_path / "a.pth"
    assert licence_beside(file) is None
    (tmp_path / "README.md").write_text("# A model\nlicense: of the text\n")
    assert licence_beside(file) is None
    (tmp_path / "README.md").write_text(README)
    assert licence_beside(file) == "cc-by-4.0"


def test_it_is_kept_in_the_record_of_the_run(tmp_path):
    facts = StartFacts(name="a.pth", sha256="0" * 64, kind="published", licence="cc-by-4.0")
    RunRecord(label_names=("a",), sessions=(), start=facts).save(tmp_path / "run.json")
    assert RunRecord.load(tmp_path / "run.json").start == facts
    assert facts.text == "begun with a.pth (published, licence cc-by-4.0)"
    RunRecord(label_names=("a",), sessions=()).save(tmp_path / "run.json")
    assert "start" not in (tmp_path / "run.json").read_text()


def test_wrong_checkpoints_are_one_sentence(tmp_path):
    residual = three_stages(**RESIDUAL)
    with pytest.raises(UserError, match="nothing.pth: no such file"):
        published_start(tmp_path / "nothing.pth", residual)
    published(tmp_path / "a.pth")
    with pytest.raises(
        UserError, match="read into a residual-encoder-unet, but here is a plain-unet; plan with --preset"
    ):
        published_start(tmp_path / "a.pth", three_stages())
    torch.save({"state_dict": {"vit.blocks.0.weight": torch.ones(2)}}, tmp_path / "vit.pth")
    with pytest.raises(UserError, match=r"holds no weights of a residual encoder .*\(there is vit.blocks.0.weight\)"):
        published_start(tmp_path / "vit.pth", residual)


class Harm:
    def __reduce__(self):
        return (print, ("run",))


def test_nothing_that_a_checkpoint_names_is_run(tmp_path, capsys):
    torch.save({"network_weights": {}, "harm": Harm()}, tmp_path / "harm.pth")
    with pytest.raises(UserError, match="is refused, because it names"):
        published_start(tmp_path / "harm.pth", three_stages(**RESIDUAL))
    (tmp_path / "plain.pth").write_bytes(pickle.dumps(Harm()))
    with pytest.raises(UserError, match="is no whole checkpoint"):
        published_start(tmp_path / "plain.pth", three_stages(**RESIDUAL))
    assert capsys.readouterr().out == ""
