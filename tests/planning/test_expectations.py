"""What a plan is expected to take, and how it gives way when a real step needs more; a made-up GPU stands in."""

from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import replace
from pathlib import Path

import pytest
import torch

from builders.networks import network_spec
from builders.planning import fingerprint, manifest
from segfw.base.records import GIGABYTE
from segfw.model.model_info import ModelInfo
from segfw.planning import memory
from segfw.planning import plan_for_device as expectations
from segfw.planning.memory import CONTEXT_GB, Measured, measure_step
from segfw.planning.plan import Estimate, Plan
from segfw.planning.plan_for_device import TrainingDevice, hours_per_fold, plan_for_device
from segfw.planning.planner import make_plan, planned_memory_gb
from segfw.planning.presets import PRESETS
from segfw.planning.request import PlanRequest
from segfw.verbs.plan_and_preprocess import plan_and_preprocess

CPU = torch.device("cpu")
CUDA = torch.device("cuda")
LARGE = fingerprint([((1, 1, 1), (200, 200, 200))] * 20)
EIGHT = PlanRequest(gpu_memory_gb=8)


def device(measure=None, memory_gb: float | None = 80.0) -> TrainingDevice:
    """A made-up GPU that reaches a teraflop a second."""
    return TrainingDevice(name="a made-up GPU", memory_gb=memory_gb, probe_flops=lambda: 1e12, measure=measure)


@pytest.mark.parametrize(
    "wanted, preset, available_gb, planned_gb",
    [
        (None, "plain", None, 8),
        (None, "resenc-l", None, 24),
        (None, "resenc-l", 11, 11),
        (None, "plain", 80, 8),
        ("auto", "plain", 80, 80),
        ("auto", "resenc-xl", None, 40),
        (6.5, "plain", 80, 6.5),
    ],
)
def test_the_memory_to_plan_for(wanted, preset, available_gb, planned_gb):
    assert planned_memory_gb(PlanRequest(gpu_memory_gb=wanted, preset=preset), available_gb) == planned_gb
    if wanted is None:  # nnU-Net plans for the same memory on every device
        published = PlanRequest(preset=preset, as_published=True)
        assert planned_memory_gb(published, available_gb) == PRESETS[preset].memory_gb


def test_a_plan_gives_way_until_a_real_step_fits(capsys):
    tried = []

    def measure(configuration, memory_gb):
        tried.append((configuration.name, configuration.patch_size, configuration.batch_size))
        need_gb = 1.3 * configuration.estimate.training_memory_gb  # a device that needs more than was counted
        return Measured(tensors_gb=need_gb, held_gb=need_gb) if need_gb + CONTEXT_GB <= memory_gb else None

    first = make_plan(manifest(), LARGE, EIGHT).configurations["3d_fullres"]
    plan = plan_for_device(manifest(), LARGE, EIGHT, device(measure), use_shares=(1.0, 0.9, 0.8, 0.7, 0.6))
    found = plan.configurations["3d_fullres"]
    assert found.estimate.measured.held_gb + CONTEXT_GB <= 8
    assert found.estimate.measured.tensors_gb == pytest.approx(1.3 * found.estimate.training_memory_gb)
    assert (found.patch_size, found.batch_size) != (first.patch_size, first.batch_size)
    assert ("3d_fullres", first.patch_size, first.batch_size) in tried
    assert "planning again for 90% of it" in capsys.readouterr().out


def test_a_plan_that_never_fits_is_left_without_a_measurement():
    plan = plan_for_device(manifest(), LARGE, EIGHT, device(lambda *_: None), use_shares=(1.0,))
    assert plan.without_estimates() == make_plan(manifest(), LARGE, EIGHT).without_estimates()
    assert all(configuration.estimate.measured is None for configuration in plan.configurations.values())


def test_time_and_measurement_are_added_to_the_estimates(capsys):
    measured = Measured(tensors_gb=5, held_gb=6)

    def planned_on(memory_gb: float) -> list[Estimate]:
        plan = plan_for_device(manifest(), LARGE, EIGHT, device(lambda *_: measured, memory_gb))
        return [configuration.estimate for configuration in plan.configurations.values()]

    for estimate in planned_on(80.0):
        assert (estimate.measured, estimate.device) == (measured, "a made-up GPU")
        # 1000 epochs of 250 steps at one teraflop a second.
        assert estimate.hours_per_fold == pytest.approx(estimate.teraflop_per_step * 250_000 / 3600)
    # A card has a little less than its name says; one that is much smaller than the memory planned for cannot tell.
    assert all(estimate.measured == measured for estimate in planned_on(7.6))
    assert capsys.readouterr().out == ""
    assert all(estimate.measured is None for estimate in planned_on(4.0))
    assert capsys.readouterr().out == "planned for 8 GB, which cannot be checked here: the GPU has 4.0 GB\n"


def test_hours_are_those_of_the_measured_step_on_the_same_device():
    measured = Measured(tensors_gb=5, held_gb=6, step_s=0.0072)
    plan = plan_for_device(manifest(), LARGE, EIGHT, device(lambda *_: measured))
    for configuration in plan.configurations.values():
        assert configuration.estimate.hours_per_fold == pytest.approx(0.5)  # 250 000 steps
        assert configuration.estimate.step_s_on("a made-up GPU", lambda: 1 / 0) == 0.0072
        other_s = configuration.estimate.step_s_on("another GPU", lambda: 1e12)
        assert other_s == pytest.approx(configuration.estimate.teraflop_per_step)
    info = ModelInfo.of(Path("work"), plan, None, dict.fromkeys(plan.configurations, ()), "a made-up GPU", lambda: 1e12)
    assert set(info.step_s.values()) == {0.0072}


def test_a_plan_is_not_made_smaller_for_what_others_take_of_the_card(capsys):
    """They are gone when it trains; what draws the screen stays, and is measured beside."""

    def planned_beside(others_gb: float) -> Plan:
        made_up = replace(device(lambda *_: None, memory_gb=8.0), free_gb=lambda: 8.0 - others_gb)
        return plan_for_device(manifest(), LARGE, EIGHT, made_up)

    unchanged = make_plan(manifest(), LARGE, EIGHT).without_estimates()
    assert planned_beside(3.0).without_estimates() == unchanged
    assert "cannot be checked now: other programs leave 5.0 GB of the GPU" in capsys.readouterr().out
    assert planned_beside(1.0).without_estimates() != unchanged
    assert "planning again for 90% of it" in capsys.readouterr().out


def test_a_published_plan_is_measured_but_never_changed():
    asked = []

    def measure(configuration, memory_gb):
        asked.append((configuration.name, memory_gb))

    request = PlanRequest(gpu_memory_gb=8, as_published=True)
    plan = plan_for_device(manifest(), LARGE, request, device(measure))
    assert plan.without_estimates() == make_plan(manifest(), LARGE, request).without_estimates()
    assert asked == [(name, 8) for name in plan.configurations]


def test_hours():
    assert hours_per_fold(3.6) == 250


@pytest.fixture
def pretended_cuda(monkeypatch):
    """The calls that measure a CUDA device, noted; the steps themselves run on the CPU."""
    calls: list[tuple] = []
    cuda = torch.cuda
    monkeypatch.setattr(cuda, "mem_get_info", lambda device: (70 * GIGABYTE, 80 * GIGABYTE))
    monkeypatch.setattr(cuda, "set_per_process_memory_fraction", lambda share, device: calls.append(("cap", share)))
    monkeypatch.setattr(cuda, "reset_peak_memory_stats", lambda device: calls.append(("reset",)))
    monkeypatch.setattr(cuda, "synchronize", lambda device: None)
    monkeypatch.setattr(cuda, "empty_cache", lambda: None)
    monkeypatch.setattr(cuda, "max_memory_allocated", lambda device: 2 * GIGABYTE)
    monkeypatch.setattr(cuda, "max_memory_reserved", lambda device: 3 * GIGABYTE)
    return calls


@pytest.mark.parametrize("is_2d", [False, True])
def test_a_real_step_is_measured_within_a_cap_that_is_taken_off_again(is_2d, pretended_cuda):
    spec, patch = network_spec((4, 8), is_2d=is_2d), (1, 8, 12) if is_2d else (4, 8, 12)
    found = measure_step(spec, patch, 2, CPU, 8.0)
    assert (found.tensors_gb, found.held_gb) == (2, 3)
    assert found.step_s > 0
    assert pretended_cuda == [("cap", (8 - CONTEXT_GB) / 80), ("reset",), ("cap", 1.0)]


def test_a_real_step_is_measured_as_a_training_computes_it(pretended_cuda, monkeypatch):
    """With algorithms tried out; the workspace of that is given back before the steps that count, which are timed."""
    log = []
    monkeypatch.setattr(memory, "tuned_convolutions", lambda device: noted(log, "tuned", "as before"))
    monkeypatch.setattr(memory, "release_workspace", lambda device: log.append("released"))
    monkeypatch.setattr(memory, "DeviceTimer", lambda device: Timer(log))
    step = torch.optim.SGD.step
    monkeypatch.setattr(torch.optim.SGD, "step", lambda optimizer: log.append("step") or step(optimizer))
    assert measure_step(network_spec((4, 8)), (4, 8, 12), 2, CPU, 8.0, steps=4).step_s == 2.0
    assert log == ["tuned", "step", "released", "begins", "step", "step", "step", "ends", "as before"]


@contextmanager
def noted(log: list[str], before: str, after: str) -> Iterator[None]:
    log.append(before)
    yield
    log.append(after)


class Timer:
    """Says that six seconds have passed."""

    def __init__(self, log: list[str]) -> None:
        self.log = log

    def __enter__(self) -> None:
        self.log.append("begins")

    def __exit__(self, *_: object) -> None:
        self.log.append("ends")

    def read_s(self) -> float:
        return 6.0


@pytest.mark.parametrize("words", ["CUDA out of memory", "unable to find an engine", "CUDNN_STATUS_ALLOC_FAILED"])
def test_libraries_say_out_of_memory_in_many_words(words, pretended_cuda, monkeypatch):
    def fail(*_):
        raise RuntimeError(words)

    monkeypatch.setattr(memory, "run_steps", fail)
    assert measure_step(network_spec((4, 8)), (4, 8, 12), 2, CPU, 8.0) is None


def test_other_errors_of_a_step_are_not_hidden(pretended_cuda, monkeypatch):
    def fail(*_):
        raise RuntimeError("expected scalar type Half")

    monkeypatch.setattr(memory, "run_steps", fail)
    with pytest.raises(RuntimeError, match="scalar type"):
        measure_step(network_spec((4, 8)), (4, 8, 12), 2, CPU, 8.0)


def test_a_cuda_device_without_a_number_gets_one(pretended_cuda, monkeypatch):
    devices = []
    monkeypatch.setattr(torch.cuda, "current_device", lambda: 1)
    monkeypatch.setattr(torch.cuda, "set_per_process_memory_fraction", lambda share, device: devices.append(device))
    monkeypatch.setattr(memory, "run_steps", lambda *_: 1.0)
    measure_step(network_spec((4, 8)), (4, 8, 12), 2, CUDA, 8.0)
    assert set(devices) == {torch.device("cuda", 1)}


def test_out_of_memory_is_an_answer_and_the_cap_is_taken_off(pretended_cuda, monkeypatch):
    def too_large(*_):
        raise torch.OutOfMemoryError("CUDA out of memory")

    monkeypatch.setattr(memory, "run_steps", too_large)
    assert measure_step(network_spec((4, 8)), (4, 8, 12), 2, CPU, 8.0) is None
    assert pretended_cuda[-1] == ("cap", 1.0)


def test_a_plan_is_kept_for_the_same_wishes_and_made_anew_for_others(make_raw, tmp_path, monkeypatch):
    raw, work = make_raw(cases=6), tmp_path / "work"

    def plan(**wishes) -> Plan:
        return plan_and_preprocess(raw, work, plan_only=True, device="cpu", **wishes)

    first = plan()
    assert first.configurations["3d_fullres"].estimate.hours_per_fold > 0
    # On another machine the same call must not plan anew, whatever that would give.
    monkeypatch.setattr(expectations, "training_flops", lambda device: 1.0)
    assert plan() == first
    assert Plan.load(work / "plan.json") == first
    assert plan(preset="resenc-m").preset == "resenc-m"
    assert plan(as_published=True).as_published
    assert plan(gpu_memory_gb=5.0).gpu_memory_gb == 5
    assert plan(gpu_memory_gb="auto").gpu_memory_gb == PRESETS["plain"].memory_gb  # the CPU's memory is no limit


def test_groups_and_given_folds_reach_the_folds(make_raw, tmp_path):
    raw = make_raw(cases=6)
    table = tmp_path / "patients.csv"
    table.write_text("case,patient\n" + "".join(f"case_{number:02},p{number // 2}\n" for number in range(6)))
    plan_and_preprocess(raw, tmp_path / "a", plan_only=True, device="cpu", groups=str(table))
    from segfw.planning.splits import Splits

    for fold in Splits.load(tmp_path / "a" / "splits.json").folds:
        patients = [{int(case[-2:]) // 2 for case in part} for part in (fold.train, fold.validation)]
        assert not patients[0] & patients[1]
    given = tmp_path / "folds.json"
    given.write_text('[{"train": ["case_00", "case_01"], "val": ["case_02"]}]')
    plan_and_preprocess(raw, tmp_path / "b", plan_only=True, device="cpu", splits=given)
    folds = Splits.load(tmp_path / "b" / "splits.json").folds
    assert [(fold.train, fold.validation) for fold in folds] == [(("case_00", "case_01"), ("case_02",))]
