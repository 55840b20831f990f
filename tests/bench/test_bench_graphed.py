"""The step that ``bench gpu`` times as a CUDA graph is the product's own; recorded here without a card."""

from __future__ import annotations

from types import SimpleNamespace

import pytest
import torch

from bench.gpu.steps import segfw_step
from bench.gpu.visit import Problem
from builders.networks import spec
from builders.recorded import StandIn
from segfw.networks import losses

SMALL = Problem(network=spec(), patch_size=(8, 16, 16), batch_size=2)
VISIT = SimpleNamespace(device=torch.device("cpu"), on_cuda=False)


def test_every_timed_call_of_the_graphed_step_is_a_replay(monkeypatch):
    graphs = StandIn()
    graphs(monkeypatch)
    step = segfw_step(VISIT, SMALL, precision="fp32", graphed=True)
    assert graphs.journal == ["recorded", "replayed"]
    first, second = step.call(), step.call()
    assert graphs.journal == ["recorded", "replayed", "replayed", "replayed"]
    assert first != second  # it trains


def test_a_step_that_cannot_be_recorded_is_not_timed_as_one(monkeypatch):
    StandIn()(monkeypatch)
    usual = losses.LOSSES["dice-ce"]

    def looking(*given):
        loss = usual(*given)
        return lambda *batch: loss(*batch) * (1 if loss(*batch) < 100 else 0)

    monkeypatch.setitem(losses.LOSSES, "dice-ce", looking)
    with pytest.raises(RuntimeError, match="could not be recorded as a CUDA graph"):
        segfw_step(VISIT, SMALL, precision="fp32", graphed=True)
