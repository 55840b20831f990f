"""All arms of one seed with all sources of clicks; what is finished is not done again."""

from __future__ import annotations

import argparse
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from zlib import crc32

import numpy as np

from bench.refine.brushes import BRUSHES, Brush
from bench.refine.click_sources import SOURCES
from bench.refine.clicked_item import Arm, Item, click_through
from bench.refine.kept_out import FOLD, FOLDS, REFINER, KeptCase, kept_cases, make_refiner
from bench.refine.network_arms import Opened, network_arms
from bench.refine.refine_results import ClickedItem, RefineResult
from bench.result_lines import append_line, read_lines
from bench.runs import processor_name, usable_cpus
from segfw.base.own_version import own_version
from segfw.base.progress import progress
from segfw.base.records import UserError
from segfw.model.source import fold_folder
from segfw.model.training_record import read_run_record
from segfw.planning.plan import PLAN_FILE, Plan
from segfw.training.prepare import SETTINGS_FILE
from segfw.training.settings import TrainSettings

NUMBER = 5  # clicks on each structure


@dataclass(frozen=True, kw_only=True)
class Trained:
    """How far a refiner was trained, and for how long each fold of its base."""

    steps: int | None
    base_minutes: float | None


def run_seed(args: argparse.Namespace) -> None:
    """Trains the refiner of a seed, then clicks."""
    results = args.results.resolve()
    refiner = make_refiner(args.work, args.set, args.minutes, args.seed)
    trained = trained_of(refiner)
    cases, patient_of = kept_cases(args.data, args.work, args.set, args.cases)
    arms = {**network_arms(refiner), **{name: _brush(name) for name in BRUSHES}}
    for clicks in args.clicks:
        asked = with_strokes(cases) if clicks == "scribbles" else cases
        for arm in args.arms:
            key = (args.set, args.seed, arm, clicks, args.minutes)
            # Where the mask is right, there is no error that a brush could have the size of, and nothing to control.
            if not asked or (clicks == "right already" and arm != "refiner"):
                continue
            if any(line.key == key for line in read_lines(RefineResult, results)):
                print(f"{args.set} seed {args.seed}, {arm}, {clicks}: finished before")
                continue
            title = f"{args.set} seed {args.seed}, {arm}, {clicks}"
            items, untouched = clicked_items(arms[arm], asked, clicks, args.seed, title)
            result = _result(args, trained, arm, clicks, items, untouched=untouched, patient_of=patient_of)
            append_line(results, result)


def _brush(name: str) -> Opened:
    return lambda case, item: Brush(case.automatic_zyx, item, BRUSHES[name])


def with_strokes(cases: Sequence[KeptCase]) -> list[KeptCase]:
    """The cases that somebody drew strokes in."""
    return [case for case in cases if any(item.stroke_points for item in case.items)]


def clicked_items(
    opened: Opened, cases: Sequence[KeptCase], clicks: str, seed: int, title: str
) -> tuple[tuple[ClickedItem, ...], bool]:
    """Every structure of every case clicked on by itself, from the automatic mask on; and whether all masks were still
    the automatic ones before their first click."""
    found = []
    untouched = True
    for case in progress(title, list(cases)):
        for item in case.items:
            arm = opened(case, item)
            untouched &= is_same(arm, case)
            found.append(click_through(arm, item, SOURCES[clicks], generator(seed, item, clicks), NUMBER))
    return tuple(found), untouched


def generator(seed: int, item: Item, clicks: str) -> np.random.Generator:
    """The same for all arms, so that they differ in what they do and not in luck."""
    return np.random.default_rng([seed, *(crc32(text.encode()) for text in (item.case, item.structure, clicks))])


def is_same(arm: Arm, case: KeptCase) -> bool:
    """Whether a mask is the automatic one, voxel by voxel."""
    return bool(np.array_equal(arm.values_zyx, case.automatic_zyx))


def _result(
    args: argparse.Namespace,
    trained: Trained,
    arm: str,
    clicks: str,
    items: tuple[ClickedItem, ...],
    *,
    untouched: bool,
    patient_of: Mapping[str, str],
) -> RefineResult:
    used = {item.case for item in items}
    return RefineResult(
        data_set=args.set,
        seed=args.seed,
        arm=arm,
        clicks=clicks,
        minutes=args.minutes,
        steps=trained.steps,
        base_minutes_per_fold=trained.base_minutes,
        processor=processor_name(),
        cores=usable_cpus(),
        version=own_version(),
        patient_of={case: patient for case, patient in patient_of.items() if case in used},
        untouched=untouched,
        items=items,
    )


def trained_of(refiner: Path) -> Trained:
    """Of a work folder with a refiner and the base that it learned from."""
    record = read_run_record(fold_folder(refiner, REFINER, FOLD))
    if record is None or record.end is None:
        raise UserError(f"{refiner}: its refiner was not trained to the end")
    first_stage = Plan.load(refiner / PLAN_FILE).configuration(REFINER).previous_stage
    settings = TrainSettings.load(fold_folder(refiner, first_stage, FOLDS[0]) / SETTINGS_FILE)
    seconds = settings.time_budget_s
    return Trained(steps=record.end.steps, base_minutes=None if seconds is None else seconds / 60)
