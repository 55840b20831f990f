"""The pace of steps, from two that a made-up clock times."""

from types import SimpleNamespace

import pytest

from segfw.base.ranks import ALONE
from segfw.planning.for_time import OVERHEAD
from segfw.training import pace
from segfw.training.pace import MEASURED_SHARE, Pace, measured_pace


def timed(monkeypatch, seconds_of):
    """Runs measured_pace on a device where a step on so many voxels takes ``seconds_of`` them; and what was run."""
    now = [0.0]
    run = []

    def step(compute, state, batch, patch):
        voxels = batch * patch[0] * patch[1] * patch[2]
        run.append(voxels)
        now[0] += seconds_of(voxels)

    monkeypatch.setattr(pace, "empty_step", step)
    monkeypatch.setattr(pace, "step_fits", lambda *given: step(*given) is None)
    state = SimpleNamespace(counters=SimpleNamespace(parts=1))
    patches = [(1, 100, 100), (1, 50, 50), (1, 10, 10)]
    return measured_pace(SimpleNamespace(ranks=ALONE), state, patches, 1000, now_s=lambda: now[0]), run


def test_a_fixed_part_and_a_part_by_voxels_are_told_apart(monkeypatch):
    found, run = timed(monkeypatch, lambda voxels: 0.1 + voxels * 1e-6)
    assert found.fixed_s == pytest.approx(0.1)
    assert found.voxel_s == pytest.approx(1e-6)
    assert max(run) == 20_000  # two of the largest
    assert found.step_s(1e6) == pytest.approx(1.1 * OVERHEAD)


def test_steps_that_would_take_long_are_not_run(monkeypatch):
    found, run = timed(monkeypatch, lambda voxels: voxels * 1e-3)
    assert max(run) == 5000  # half a percent of the time is 5 s; the largest would take 20 s
    assert found.step_s(20_000) == pytest.approx(20 * OVERHEAD)
    slow, run = timed(monkeypatch, lambda voxels: voxels * MEASURED_SHARE * 1000)
    assert max(run) == 200  # nor the middle one
    assert slow == Pace(fixed_s=0, voxel_s=pytest.approx(5))
