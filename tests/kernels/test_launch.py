"""Kernels are launched on the device of their tensors, whichever one is current."""

from __future__ import annotations

import ast
from contextlib import contextmanager, nullcontext
from pathlib import Path
from types import SimpleNamespace

import pytest
import torch

from segfw.kernels import launch
from segfw.kernels.launch import device_of, on_its_device


def test_a_tensor_of_the_second_card_makes_that_one_current():
    found = device_of(SimpleNamespace(device=torch.device("cuda", 1)))
    assert isinstance(found, torch.cuda.device)
    assert found.idx == 1


def test_nothing_is_made_current_for_the_cpu():
    assert isinstance(device_of(torch.zeros(1)), nullcontext)


def test_the_passes_of_an_autograd_function_run_there(monkeypatch):
    happened = []

    @contextmanager
    def noted(tensor: torch.Tensor):
        happened.append(("begin", tensor))
        yield
        happened.append(("end", tensor))

    monkeypatch.setattr(launch, "device_of", noted)
    result = on_its_device(lambda ctx, tensor, more: happened.append((ctx, more)) or "result")("ctx", "tensor", "more")
    assert result == "result"
    assert happened == [("begin", "tensor"), ("ctx", "more"), ("end", "tensor")]


@pytest.mark.parametrize("name", ["norm_activation", "softmax_dice", "warping"])
def test_every_launch_of_the_room_is_under_one_of_the_two(name):
    """In the source: a launch is ``_kernel[grid](...)``, and stands in a decorated pass or under device_of."""
    tree = ast.parse((Path(launch.__file__).parent / f"{name}.py").read_text(encoding="utf-8"))
    launches = {node.lineno for node in ast.walk(tree) if _is_launch(node)}
    guarded = set()
    for node in ast.walk(tree):
        is_pass = isinstance(node, ast.FunctionDef) and any(
            isinstance(each, ast.Name) and each.id == "on_its_device" for each in node.decorator_list
        )
        if is_pass or (isinstance(node, ast.With) and "device_of" in ast.dump(node.items[0])):
            guarded |= {inner.lineno for inner in ast.walk(node) if _is_launch(inner)}
    assert launches
    assert launches == guarded


def _is_launch(node: ast.AST) -> bool:
    return isinstance(node, ast.Call) and isinstance(node.func, ast.Subscript)
