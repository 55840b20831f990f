"""Files of tensors and arrays tell what was changed in them; weights that nothing can compute with are refused."""

import random
from pathlib import Path

import numpy as np
import pytest
import torch
from safetensors.torch import load_file, save_file

from builders.models import small_model
from builders.nnunet import save_checkpoint, state
from segfw.base.array_files import open_array, open_checked_array, save_array
from segfw.base.records import UserError
from segfw.grid.slabs import NoNumbers
from segfw.inference.predictor import Predictor
from segfw.inference.sliding_window import sliding_window
from segfw.model.load import load_model
from segfw.model.source import BEST_FILE, WEIGHTS_FILE, fold_folder
from segfw.model.weights import load_tensors, save_tensors, save_weights
from segfw.nnunet.torch_checkpoint import read_checkpoint

FLIPS = 150


def accepted(path: Path, read, *, flips: int = FLIPS) -> list[int]:
    """Places of single bits that were changed, in a file that ``read`` took all the same for other than it was."""
    whole = path.read_bytes()
    before = read()
    draw = random.Random(0)
    places = [draw.randrange(8 * len(whole)) for _ in range(flips)]
    taken = []
    for place in places:
        content = bytearray(whole)
        content[place // 8] ^= 1 << place % 8
        path.write_bytes(content)
        try:
            now = read()
        except UserError:
            continue
        if not same(now, before):
            taken.append(place)
    path.write_bytes(whole)
    assert same(read(), before)
    return taken


def same(first, second) -> bool:
    if isinstance(first, dict):
        return first.keys() == second.keys() and all(same(first[name], second[name]) for name in first)
    if isinstance(first, tuple):
        return len(first) == len(second) and all(map(same, first, second))
    if isinstance(first, torch.Tensor):
        return first.dtype == second.dtype and torch.equal(first, second)
    return np.array_equal(first, second)


def test_every_changed_bit_of_a_file_of_weights_is_seen(tmp_path):
    tensors = {"b": torch.arange(40.0).reshape(5, 8), "a": torch.zeros(3, dtype=torch.int64), "c": torch.tensor(2.5)}
    path = tmp_path / "weights.safetensors"
    save_weights(path, tensors, epoch=12, mirror_axes=(0, 2))
    assert load_tensors(path)[1] == {"epoch": "12", "mirror_axes": "0,2"}
    assert accepted(path, lambda: load_tensors(path), flips=600) == []


def test_the_same_weights_are_the_same_bytes(tmp_path):
    tensors = {"gewicht/ü\n": torch.ones(2), "a": torch.zeros(3)}
    texts = {name: f'"{name}" \\ é\t\x01' for name in "abcdef"}
    for number in range(8):
        save_tensors(tmp_path / f"{number}.safetensors", tensors, texts)
    assert len({path.read_bytes() for path in tmp_path.iterdir()}) == 1
    assert same(load_tensors(tmp_path / "0.safetensors")[0], tensors)
    assert load_tensors(tmp_path / "0.safetensors")[1] == texts


def test_a_header_that_no_network_needs_is_neither_read_nor_quoted(tmp_path):
    path = tmp_path / "w.safetensors"
    for length, content in ((90 << 20, b'{"a": "' + b" " * 100), (2000, b'{"a": "' + b" " * 1991 + b'"}')):
        path.write_bytes(length.to_bytes(8, "little") + content)
        with pytest.raises(UserError, match="w.safetensors: is not a whole safetensors file") as caught:
            load_tensors(path)
        assert len(str(caught.value)) < 400


def test_weights_without_a_checksum_are_read(tmp_path):
    """Those of older versions, and of other programs."""
    path = tmp_path / "old.safetensors"
    save_file({"a": torch.ones(3)}, path, metadata={"epoch": "1"})
    assert load_tensors(path)[1] == {"epoch": "1"}
    save_tensors(path, {"a": torch.ones(3)}, {"state": "{}"})
    tensors = load_file(path)
    tensors["a"][1] = 2
    save_file(tensors, path, metadata={"state": "{}", "crc32": "00000000"})
    with pytest.raises(UserError, match=r"old.safetensors: .* \(its checksum does not fit"):
        load_tensors(path)


@pytest.mark.parametrize("shape", [(50,), (2, 6, 7, 9), (1, 20, 130, 140)])
def test_every_changed_bit_of_a_preprocessed_array_is_seen(tmp_path, shape):
    path = tmp_path / "case.image.b2nd"
    save_array(path, np.random.default_rng(0).normal(size=shape).astype(np.float16))
    assert accepted(path, lambda: open_checked_array(path, remedy="preprocess it again")[:]) == []
    whole = path.read_bytes()
    for length in (0, 10, 40, len(whole) // 2, len(whole) - 1):
        path.write_bytes(whole[:length])
        with pytest.raises(UserError, match=r"case.image.b2nd: is damaged \(.*\); preprocess it again"):
            open_checked_array(path, remedy="preprocess it again")


def test_an_array_of_an_older_version_has_no_seal_and_is_read(tmp_path):
    path = tmp_path / "old.b2nd"
    save_array(path, np.arange(6.0))
    path.write_bytes(path.read_bytes()[:-12])
    assert open_checked_array(path, remedy="")[:].tolist() == [0, 1, 2, 3, 4, 5]
    assert open_array(path).shape == (6,)


def test_every_changed_bit_of_an_nnunet_checkpoint_is_seen(tmp_path):
    path = tmp_path / "checkpoint_final.pth"
    save_checkpoint(path, state())

    def read() -> dict:
        found = read_checkpoint(path)
        return {**found.weights, "rest": (found.trainer, found.configuration, str(found.mirror_axes), str(found.epoch))}

    def compared() -> dict:
        found = read()
        found["rest"] = "|".join(found["rest"])
        return found

    assert accepted(path, compared) == []


def spoilt(folder: Path, value: float, *, tensor: int = 0, file: str = WEIGHTS_FILE) -> str:
    """Puts a value into a tensor of the fold's weights; the tensor's name."""
    path = fold_folder(folder, "3d_fullres", "0") / file
    tensors, _ = load_tensors(path)
    name = sorted(tensors)[tensor]
    tensors[name].view(-1)[0] = value
    save_weights(path, tensors, epoch=7, mirror_axes=())
    return name


@pytest.mark.parametrize("value", [float("nan"), float("inf"), -float("inf"), 1e30, -1e30])
@pytest.mark.parametrize("tensor", [0, -1])
def test_weights_that_cannot_be_computed_with_are_refused(tmp_path, value, tensor):
    model = small_model(tmp_path / "model", folds=("0", "1"))
    name = spoilt(model, value, tensor=tensor)
    with pytest.raises(UserError, match=rf"fold_0/weights.safetensors: the weights {name} hold .*; restore the file"):
        load_model(model)
    assert load_model(model, folds=("1",)).weights.keys() == {"1"}
    weights = fold_folder(model, "3d_fullres", "1")
    (weights / BEST_FILE).write_bytes((fold_folder(model, "3d_fullres", "0") / WEIGHTS_FILE).read_bytes())
    with pytest.raises(UserError, match=rf"fold_1/best.safetensors: the weights {name} hold"):
        load_model(model, folds=("1",), best=True)


def test_weights_that_are_all_zero_are_refused(tmp_path):
    model = small_model(tmp_path / "model")
    path = fold_folder(model, "3d_fullres", "0") / WEIGHTS_FILE
    tensors, _ = load_tensors(path)
    zeros = {name: torch.zeros_like(tensor) for name, tensor in tensors.items()}
    kernel = next(name for name, tensor in tensors.items() if tensor.dim() > 1)
    save_weights(path, zeros | {kernel: tensors[kernel]}, epoch=7, mirror_axes=())
    assert load_model(model).weights.keys() == {"0"}  # some are used
    save_weights(path, zeros, epoch=7, mirror_axes=())
    with pytest.raises(UserError, match=r"fold_0/weights.safetensors: all weights are 0, .*; restore the file"):
        load_model(model)


@pytest.mark.parametrize("value", [float("nan"), float("inf")])
@pytest.mark.parametrize("at", [(0, 0, 0), (11, 5, 3)])
def test_logits_that_are_no_numbers_are_an_error(value, at):
    image = torch.zeros(1, 12, 6, 4)
    image[(0, *at)] = 7

    def network(tiles: torch.Tensor) -> torch.Tensor:
        return torch.where(tiles == 7, value, tiles).repeat(1, 2, 1, 1, 1)

    with pytest.raises(NoNumbers, match="what the networks give is no number"):
        list(sliding_window(image, [network], (4, 6, 4)))
    assert len(list(sliding_window(torch.zeros(1, 12, 6, 4), [network], (4, 6, 4)))) > 0


def test_a_predictor_refuses_what_overflows(tmp_path):
    """Once a mask of background, without a word."""
    predictor = Predictor.of(load_model(small_model(tmp_path / "model")), device="cpu", precision="fp32")
    image = np.random.default_rng(0).normal(size=(10, 12, 14)).astype(np.float32)
    assert predictor(image, np.eye(4)).shape == (10, 12, 14)
    for weights in predictor.networks[0].parameters():
        weights.data[:] = torch.finfo(torch.float32).max
    with pytest.raises(UserError, match="what the networks give is no number"):
        predictor(image, np.eye(4))
