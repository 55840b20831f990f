"""What a run compiles, counted: a program for each size of patches and of parts, and none for validation."""

import pytest
import torch
from torch._dynamo.testing import CompileCounter

from builders.networks import three_stages
from builders.training import run
from segfw.base.records import UserError
from segfw.model.training_record import read_metrics
from segfw.networks.losses import deep_supervision_loss
from segfw.training import prepare, step
from segfw.training.step import equal_parts


@pytest.fixture
def compiled(monkeypatch):
    """Counts graphs instead of generating code for them; a break of a graph is an error."""
    torch._dynamo.reset()
    counter = CompileCounter()
    real = torch.compile
    monkeypatch.setattr(
        torch, "compile", lambda function, **how: real(function, backend=counter, fullgraph=True, **how)
    )
    yield counter
    torch._dynamo.reset()


def test_a_run_compiles_once_with_all_its_validation(prepared, tmp_path, compiled):
    run(prepared, tmp_path, epochs=2, compile=True)
    assert len(read_metrics(tmp_path)) == 2
    assert compiled.frame_count == 1


def test_a_run_on_growing_patches_compiles_once_for_each_size(prepared, tmp_path, compiled, capsys):
    network = three_stages(in_channels=1, classes=3)
    run(prepared, tmp_path, network=network, epochs=2, steps_per_epoch=10, patches="grow", compile=True)
    assert compiled.frame_count == capsys.readouterr().out.count("patches of ") + 1 > 1


def test_parts_are_compiled_once_for_each_size_that_was_tried(prepared, tmp_path, compiled):
    """Six patches, two of which fit: of six, three and two patches at a time, and never for any number."""

    def build(configuration, target):
        def loss(outputs, classes):
            if len(classes) > 2:
                raise torch.OutOfMemoryError
            return deep_supervision_loss(outputs, classes, configuration.batch_dice, target)

        return loss

    run(prepared, tmp_path, epochs=1, batch_size=6, compile=True, build_loss=build)
    assert compiled.frame_count == 3


@pytest.mark.parametrize(
    "batch, fewest, parts", [(9, 2, 3), (9, 4, 3), (8, 3, 4), (6, 2, 2), (6, 4, 3), (7, 2, 2), (5, 9, 5), (2, 1, 1)]
)  # fmt: skip
def test_parts_have_one_size_where_that_is_at_least_half_of_what_was_asked_for(batch, fewest, parts):
    assert equal_parts(batch, fewest) == parts


def test_what_trying_out_took_is_given_back_once_for_each_size_of_patches(prepared, tmp_path, monkeypatch, capsys):
    released = []
    monkeypatch.setattr(step, "release_workspace", released.append)
    network = three_stages(in_channels=1, classes=3)
    run(prepared, tmp_path, network=network, epochs=2, steps_per_epoch=10, patches="grow")
    assert len(released) == capsys.readouterr().out.count("patches of ") + 1 > 1


def test_a_training_sees_to_its_card_before_it_takes_memory_of_it(prepared, tmp_path, monkeypatch):
    """Its number, Windows' paging and its algorithms; then, once the precision is known, its libraries."""
    calls = []
    cuda = torch.device("cuda", 1)
    monkeypatch.setattr(prepare, "local_device", lambda name: cuda)
    monkeypatch.setattr(torch.cuda, "set_device", lambda device: calls.append(("set", device)))
    monkeypatch.setattr(prepare, "keep_to_device_memory", lambda device: calls.append(("kept", device)))
    monkeypatch.setattr(prepare, "tune_convolutions", lambda device: calls.append(("tuned", device)))
    assert prepare.training_device("cuda") == cuda
    assert calls == [("set", cuda), ("kept", cuda), ("tuned", cuda)]
    monkeypatch.undo()

    def refused(device: torch.device, precision: torch.dtype) -> None:
        raise UserError(f"{device} computes wrong in {precision}")

    monkeypatch.setattr(prepare, "require_right_gpu", refused)
    with pytest.raises(UserError, match="cpu computes wrong in torch.bfloat16"):
        run(prepared, tmp_path, precision="bf16")
    assert not (tmp_path / "last.safetensors").exists()
