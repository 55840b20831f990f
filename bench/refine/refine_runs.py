"""All arms of one seed with all sources of clicks; what is finished is not done again."""

from __future__ import annotations

import argparse
from collections.abc import Mapping, Sequence
from pathlib import Path
from zlib import crc32

import numpy as np

from bench.refine.brushes import BRUSHES, Brush
from bench.refine.click_sources import SOURCES
from bench.refine.clicked_item import Arm, Item, click_through
from bench.refine.kept_out import FOLD, REFINER, KeptCase, kept_cases, make_refiner, set_folder
from bench.refine.network_arms import Opened, network_arms
from bench.refine.refine_results import ClickedItem, RefineResult, append_line, read_lines
from bench.runs import processor_name, usable_cpus
from segfw.base.own_version import own_version
from segfw.base.progress import progress
from segfw.base.records import UserError
from segfw.model.source import fold_folder
from segfw.model.training_record import read_run_record
from segfw.planning.plan import PLAN_FILE, Plan
from segfw.training.prepare import SETTINGS_FILE
from segfw.training.settings import TrainSettings


def run_seed(args: argparse.Namespace) -> None:
    """Trains the refiner of a seed, then clicks."""
    results = args.results.resolve()
    refiner = make_refiner(args.work, args.set, args.minutes, args.seed)
    cases, patient_of = kept_cases(args.data, args.work, args.set, args.cases)
    arms = {**network_arms(refiner), **{name: _brush(name) for name in BRUSHES}}
    for clicks in args.clicks:
        asked = with_strokes(cases) if clicks == "scribbles" else cases
        for arm in args.arms:
            key = (args.set, args.seed, arm, clicks, args.minutes)
            # Where the mask is right, there is no error that a brush could have the size of, and nothing to control.
            if not asked or (clicks == "right already" and arm != "refiner"):
                continue
            if any(line.key == key for line in read_lines(results)):
                print(f"{args.set} seed {args.seed}, {arm}, {clicks}: finished before")
                continue
            title = f"{args.set} seed {args.seed}, {arm}, {clicks}"
            items, untouched = clicked_items(arms[arm], asked, clicks, args.seed, args.number, title)
            append_line(results, _result(args, arm, clicks, items, untouched=untouched, patient_of=patient_of))


def _brush(name: str) -> Opened:
    return lambda case, item: Brush(case.automatic_zyx, item, BRUSHES[name])


def with_strokes(cases: Sequence[KeptCase]) -> list[KeptCase]:
    """The cases that somebody drew strokes in."""
    return [case for case in cases if any(item.stroke_points for item in case.items)]


def clicked_items(
    opened: Opened, cases: Sequence[KeptCase], clicks: str, seed: int, number: int, title: str
) -> tuple[tuple[ClickedItem, ...], bool]:
    """Every structure of every case clicked on by itself, from the automatic mask on; and whether all masks were still
    the automatic ones before their first click."""
    found = []
    untouched = True
    for case in progress(title, list(cases)):
        for item in case.items:
            arm = opened(case, item)
            untouched &= is_same(arm, case)
            found.append(click_through(arm, item, SOURCES[clicks], generator(seed, item, clicks), number))
    return tuple(found), untouched


def generator(seed: int, item: Item, clicks: str) -> np.random.Generator:
    """The same for all arms, so that they differ in what they do and not in luck."""
    return np.random.default_rng([seed, *(crc32(text.encode()) for text in (item.case, item.structure, clicks))])


def is_same(arm: Arm, case: KeptCase) -> bool:
    """Whether a mask is the automatic one, voxel by voxel."""
    return bool(np.array_equal(arm.values_zyx, case.automatic_zyx))


def _result(
    args: argparse.Namespace,
    arm: str,
    clicks: str,
    items: tuple[ClickedItem, ...],
    *,
    untouched: bool,
    patient_of: Mapping[str, str],
) -> RefineResult:
    folder = set_folder(args.work, args.set)
    refiner = folder / f"refiner_{args.minutes:g}min_seed_{args.seed}"
    record = read_run_record(fold_folder(refiner, REFINER, FOLD))
    if record is None or record.end is None:
        raise UserError(f"{refiner}: its refiner was not trained to the end")
    used = {item.case for item in items}
    return RefineResult(
        data_set=args.set,
        seed=args.seed,
        arm=arm,
        clicks=clicks,
        minutes=args.minutes,
        steps=record.end.steps,
        base_minutes_per_fold=_base_minutes(folder / "base"),
        processor=processor_name(),
        cores=usable_cpus(),
        version=own_version(),
        patient_of={case: patient for case, patient in patient_of.items() if case in used},
        untouched=untouched,
        items=items,
    )


def _base_minutes(base: Path) -> float | None:
    """Minutes of each fold of the base model."""
    first_stage = Plan.load(base / PLAN_FILE).chosen or next(iter(Plan.load(base / PLAN_FILE).configurations))
    path = base / "runs" / first_stage / "fold_0" / SETTINGS_FILE
    seconds = TrainSettings.load(path).time_budget_s if path.is_file() else None
    return None if seconds is None else seconds / 60
