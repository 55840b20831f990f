"""The sections of a visit in the order of their value, each with the seconds that it costs."""

from __future__ import annotations

import sys
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass

import torch

from bench.gpu.agreement import agreement
from bench.gpu.cine import cine
from bench.gpu.compiling import await_compilers, start_compilers, stop_compilers
from bench.gpu.feeding import feeding
from bench.gpu.hardware import hardware
from bench.gpu.loss_and_warp import loss_and_warp
from bench.gpu.memory import memory
from bench.gpu.norm import norm
from bench.gpu.prediction import prediction
from bench.gpu.profiling import profiling
from bench.gpu.stepping import stepping
from bench.gpu.suite import suite
from bench.gpu.timing import free_cached_memory
from bench.gpu.training import training
from bench.gpu.visit import Visit, described
from segfw.base.device import keep_freed_pages


@dataclass(frozen=True, kw_only=True)
class Section:
    """``measure(visit, found, until_left_s)`` fills ``found``; it starts nothing more once less time is left."""

    name: str
    cost_s: float
    until_left_s: float
    measure: Callable[[Visit, dict, float], None]


# until_left_s is what the sections below cost; the machine and the agreement are measured whole.
SECTIONS = (
    Section(name="machine", cost_s=12, until_left_s=0, measure=hardware),
    Section(name="right", cost_s=60, until_left_s=0, measure=agreement),
    Section(name="memory", cost_s=50, until_left_s=330, measure=memory),
    Section(name="compile", cost_s=5, until_left_s=330, measure=await_compilers),
    Section(name="step", cost_s=100, until_left_s=220, measure=stepping),
    Section(name="norm", cost_s=15, until_left_s=0, measure=norm),
    Section(name="kernels", cost_s=15, until_left_s=0, measure=loss_and_warp),
    Section(name="tests", cost_s=40, until_left_s=150, measure=suite),
    Section(name="profile", cost_s=15, until_left_s=0, measure=profiling),
    Section(name="feed", cost_s=50, until_left_s=0, measure=feeding),
    Section(name="predict", cost_s=70, until_left_s=120, measure=prediction),
    Section(name="train", cost_s=100, until_left_s=8, measure=training),
    Section(name="cine", cost_s=190, until_left_s=8, measure=cine),
)


def run_sections(visit: Visit, only: Sequence[str] = ()) -> None:
    """Runs all sections, or those called in ``only``, as far as the time allows; each leaves the record written."""
    unknown = set(only) - {section.name for section in SECTIONS}
    if unknown:
        sys.exit(f"--only {','.join(sorted(unknown))}: choose from {','.join(section.name for section in SECTIONS)}")
    chosen = [section for section in SECTIONS if not only or section.name in only]
    torch.backends.cudnn.benchmark = visit.on_cuda  # as a training sets it
    keep_freed_pages()
    if any(section.name == "compile" for section in chosen):
        start_compilers(visit)
    try:
        for section in chosen:
            run_section(visit, section)
    finally:
        stop_compilers(visit)
    print(f"written: {visit.folder / 'result.json'} and result.md")


def run_section(visit: Visit, section: Section) -> None:
    """One section: its figures, its seconds and its error if it has one; skipped when the time is too short."""
    if visit.seconds_left() < section.cost_s:
        skipped = f"{visit.seconds_left():.0f} s are left, and it takes {section.cost_s:g} s"
        visit.record["sections"][section.name] = {"skipped": skipped}
        visit.save()
        return
    found: dict = {}
    began = time.monotonic()
    try:
        section.measure(visit, found, section.until_left_s)
    except Exception as error:
        found |= described(error)
    found["seconds"] = round(time.monotonic() - began, 1)
    visit.record["sections"][section.name] = found
    visit.save()
    print(f"[{visit.seconds_gone():5.0f} s] {section.name}: {found['seconds']} s of {section.cost_s:g}", flush=True)
    for name, value in found.items():
        if name not in ("trace", "kernels", "seconds"):
            print(f"    {name}: {str(value)[:300]}", flush=True)
    free_cached_memory(visit.device)
