"""The sections of a visit in the order of their value, each with the seconds that it may take."""

from __future__ import annotations

import math
import sys
from collections.abc import Sequence
from dataclasses import replace

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
from bench.gpu.section_time import GRACE_S, EndedAfter, OutOfTime, Section, allowed_s, ended_after, given_up_at_last
from bench.gpu.stepping import stepping
from bench.gpu.suite import suite
from bench.gpu.timing import free_cached_memory
from bench.gpu.training import training
from bench.gpu.visit import Visit, described
from segfw.base.device import keep_freed_pages

# The kept ones fit into ten minutes on any card, of which the slower ones get fewer figures; the others take what is
# left of them, and what is skipped is measured by the same command called once more.
SECTIONS = (
    Section(name="machine", least_s=5, most_s=12, is_kept=True, measure=hardware),
    Section(name="right", least_s=30, most_s=60, is_kept=True, measure=agreement),
    Section(name="compile", least_s=5, most_s=40, is_kept=True, measure=await_compilers),
    Section(name="step", least_s=50, most_s=100, is_kept=True, measure=stepping),
    Section(name="tests", least_s=30, most_s=75, is_kept=True, measure=suite),
    Section(name="train", least_s=240, most_s=310, is_kept=True, measure=training),
    Section(name="cine", least_s=160, most_s=190, is_kept=True, measure=cine),
    Section(name="kernels", least_s=10, most_s=25, measure=loss_and_warp),
    Section(name="predict", least_s=40, most_s=70, measure=prediction),
    Section(name="feed", least_s=30, most_s=50, measure=feeding),
    Section(name="memory", least_s=20, most_s=50, measure=memory),
    Section(name="norm", least_s=10, most_s=15, measure=norm),
    Section(name="profile", least_s=10, most_s=15, measure=profiling),
)


def run_sections(
    visit: Visit,
    only: Sequence[str] = (),
    *,
    sections: Sequence[Section] = SECTIONS,
    ended_after: EndedAfter = ended_after,
) -> None:
    """Runs all sections that are not measured yet, or anew those called in ``only``, as far as the time allows.

    Each leaves the record written. In miniature none is ended: how fast a CPU is says nothing of a card.
    """
    unknown = set(only) - {section.name for section in sections}
    if unknown:
        sys.exit(f"--only {','.join(sorted(unknown))}: choose from {','.join(section.name for section in sections)}")
    chosen = [section for section in sections if section.name in only or not (only or visit.has(section.name))]
    if not visit.on_cuda:
        chosen = [replace(section, most_s=math.inf) for section in chosen]
    visit.order = tuple(section.name for section in sections)
    torch.backends.cudnn.benchmark = visit.on_cuda  # as a training sets it
    keep_freed_pages()
    if any(section.name == "compile" for section in chosen):
        start_compilers(visit)
    try:
        with given_up_at_last(visit):
            for number, section in enumerate(chosen, 1):
                run_section(visit, section, chosen[number:], ended_after)
    finally:
        stop_compilers(visit)
    print(f"written: {visit.folder / 'result.json'} and result.md")


def run_section(visit: Visit, section: Section, behind: Sequence[Section], ended_after: EndedAfter) -> None:
    """One section: its figures, its seconds and its error if it has one; skipped when the time is too short."""
    left_s = visit.seconds_left()
    may_take_s = allowed_s(section, behind, left_s)
    if may_take_s < section.least_s:
        visit.note(section.name, {"skipped": _too_short(section, may_take_s)})
        return
    found: dict = {"unfinished": "it was begun, and the visit was ended before it"}
    visit.note(section.name, found)
    began_s = visit.now_s()
    try:
        with ended_after(may_take_s):
            section.measure(visit, found, left_s - may_take_s + GRACE_S)
        del found["unfinished"]
    except OutOfTime:
        found["unfinished"] = f"ended after {may_take_s:.0f} s, which is all that it may take"
    except Exception as error:
        del found["unfinished"]
        found |= described(error)
    found["seconds"] = round(visit.now_s() - began_s, 1)
    visit.save()
    print(f"[{visit.seconds_gone():5.0f} s] {section.name}: {found['seconds']} s of {may_take_s:.0f}", flush=True)
    for name, value in found.items():
        if name not in ("trace", "kernels", "seconds"):
            print(f"    {name}: {str(value)[:300]}", flush=True)
    free_cached_memory(visit.device)


def _too_short(section: Section, may_take_s: float) -> str:
    return f"{max(0.0, may_take_s):.0f} s are left for it, and it takes {section.least_s:g} s"
