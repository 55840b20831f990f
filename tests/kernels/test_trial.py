"""A kernel is used only where it runs and agrees; else a line says that it is left out, and why."""

from __future__ import annotations

import pytest
import torch

from segfw.kernels.trial import agrees, has_triton, why_not

CPU = torch.device("cpu")


def fails() -> list[torch.Tensor]:
    raise RuntimeError("no such instruction\nand so on")


def test_the_same_is_taken_without_a_word(capsys):
    assert agrees("sum", lambda: [torch.ones(3)], lambda: [torch.ones(3) * (1 + 1e-6)], tolerance=1e-4)
    assert capsys.readouterr().out == ""


@pytest.mark.parametrize(
    "found, reason",
    [
        (lambda: [torch.ones(3) * 1.5], "its result is off by 0.5"),
        (lambda: [torch.full((3,), float("nan"))], "its result is off by nan"),
        (fails, "no such instruction"),
    ],
)
def test_what_is_wrong_or_fails_is_left_out_and_said(found, reason, capsys):
    assert not agrees("sum", found, lambda: [torch.ones(3)], tolerance=1e-4)
    assert capsys.readouterr().out == f"--kernels on: the kernel of the sum is left out here: {reason}\n"


def test_too_few_results_are_no_agreement():
    assert not agrees("sum", list, lambda: [torch.ones(3)], tolerance=1e-4)


def test_full_memory_is_for_others_to_mend():
    def full() -> list[torch.Tensor]:
        raise torch.OutOfMemoryError("full")

    with pytest.raises(torch.OutOfMemoryError):
        agrees("sum", full, lambda: [torch.ones(3)], tolerance=1e-4)


def test_without_triton_nothing_is_imported(monkeypatch):
    monkeypatch.setattr("segfw.kernels.trial.find_spec", lambda name: None)
    assert not has_triton(torch.device("cuda"))
    assert why_not(torch.device("cuda")) == "Triton is not installed"


def test_a_cpu_has_kernels_only_where_triton_interprets(monkeypatch):
    pytest.importorskip("triton", reason="Triton is not installed")
    monkeypatch.delenv("TRITON_INTERPRET", raising=False)
    assert not has_triton(CPU)
    assert why_not(CPU) == "Triton has no kernels for cpu"
