"""Dice after equal core-minutes, of one way to train or another ("arm"), on the shared data sets.

    python -m bench accuracy run --arm topk --options "--loss dice-topk" --minutes 24 --work ../bank
    python -m bench accuracy table --against plain      what the results say, as Markdown
    python -m bench accuracy usefulness                 what was said before each training, and whether it was right
    python -m bench accuracy false-alarms --work ../bank
    python -m bench accuracy bank --work ../bank        the models that later work starts from: 9 core-hours

A finished training is not done again and an interrupted one goes on: give the same command again. Each finished one
adds a line to bench/results/accuracy.jsonl, which is to be committed. Trainings run on cores of their own, the first
ones that this command may use itself: taskset chooses others.
"""

from __future__ import annotations

import argparse
import shlex
import signal
from collections.abc import Callable, Sequence
from itertools import product
from pathlib import Path
from types import FrameType
from typing import NoReturn

from bench.accuracy.false_alarms import false_alarms
from bench.accuracy.false_alarms import table as alarms_table
from bench.accuracy.results import KEPT_METRICS, Arm, Result, Training, every_result
from bench.accuracy.sets import SETS
from bench.accuracy.statements import told_in_work, told_of
from bench.accuracy.tables import tables
from bench.accuracy.trainings import Place, train_all
from bench.accuracy.usefulness import table as usefulness_table
from bench.result_lines import read_lines
from bench.subcommands import RESULTS, Subcommands, add_data, add_results, call
from segfw.base.records import UserError

KEPT = RESULTS / "accuracy.jsonl"
BANK_FOLDS = ("0", "1", "2", "3", "4")


def main(arguments: Sequence[str] | None = None) -> None:
    signal.signal(signal.SIGTERM, _end)  # so that trainings end with this process
    call(build_parser(), arguments)


def run(args: argparse.Namespace) -> None:
    """Trains one arm and prints the tables of its data sets."""
    trainings = asked(args)
    train_all(trainings, place(args, is_for_models=args.verb == "bank"))
    keys = {training.group for training in trainings}
    print(tables([result for result in read_lines(Result, args.results) if result.group in keys]))


def show(args: argparse.Namespace) -> None:
    """Prints the tables of the results that are chosen."""
    results = _chosen(args, args.against)
    names = {result.arm.name for result in results}
    if args.against is not None and args.against not in names:
        raise UserError(f"--against {args.against}: there is no such arm among {', '.join(sorted(names))}")
    print(tables(results, against=args.against, metric=args.metric, draws_seeds=args.draw_seeds))


def said(args: argparse.Namespace) -> None:
    """Prints what the chosen trainings were said to be enough for, and what they reached."""
    if args.works:
        print(usefulness_table([each for work in args.works for each in told_in_work(work)]))
    else:
        # What was said of a training that was done again was said all the same.
        print(usefulness_table([told_of(result) for result in _chosen(args, read=every_result)]))


def _newest(path: Path) -> list[Result]:
    """The newest result of each training."""
    return read_lines(Result, path)


def _chosen(
    args: argparse.Namespace, against: str | None = None, *, read: Callable[[Path], list[Result]] = _newest
) -> list[Result]:
    """The results that are asked for, with those of the arm that others are held against; UserError without any."""
    results = [
        result
        for result in read(args.results)
        if (not args.sets or result.data_set in args.sets)
        and (not args.arms or result.arm.name in (*args.arms, against))
        and (args.minutes is None or result.minutes == args.minutes)
        and (not args.folds or result.fold in args.folds)
    ]
    if not results:
        raise UserError(f"{args.results}: holds no such result; python -m bench accuracy run makes some")
    return results


def alarms(args: argparse.Namespace) -> None:
    """Trains one arm with many seeds and prints how often two groups of them seem to differ."""
    trainings = asked(args)
    train_all(trainings, place(args))
    wanted = {training.key for training in trainings}
    results = [result for result in read_lines(Result, args.results) if result.key in wanted]
    for name, fold in product(args.sets, args.folds):
        found = [result for result in results if (result.data_set, result.fold) == (name, fold)]
        print(f"{name}, fold {fold}, {args.minutes:g} core-minutes, {len(found)} runs of {args.arm}\n")
        kinds = product((False, True), args.per_arm)
        print(alarms_table([false_alarms(found, size, draws_runs=draws_runs) for draws_runs, size in kinds]))


def asked(args: argparse.Namespace) -> list[Training]:
    """The trainings that a command asks for: of each seed and fold all data sets, so that early ones tell most."""
    arm = Arm(name=args.arm, options=tuple(shlex.split(args.options)), configuration=args.configuration)
    return [
        Training(arm=arm, data_set=name, minutes=args.minutes, cores=args.cores, fold=fold, seed=seed)
        for seed, fold, name in product(args.seeds, args.folds, args.sets)
    ]


def place(args: argparse.Namespace, *, is_for_models: bool = False) -> Place:
    """Where a command works."""
    return Place(
        data=args.data.resolve(),
        work=args.work.resolve(),
        results=args.results.resolve(),
        device=args.device,
        at_once=args.at_once,
        is_for_models=is_for_models,
    )


def build_parser() -> argparse.ArgumentParser:
    verbs = Subcommands("accuracy", __doc__)

    training = verbs.add("run", run, "train an arm, as far as it is not trained")
    training.add_argument("--arm", required=True, help="the name of what is tried")
    _add_training(training, sets=tuple(SETS), folds=("0",), minutes=24, seeds=(0, 1, 2))

    bank = verbs.add("bank", run, "train the models that later work starts from, in 9 core-hours")
    bank.add_argument("--arm", default="bank")
    in_bank = [name for name, data_set in SETS.items() if data_set.is_in_bank]
    _add_training(bank, sets=in_bank, folds=BANK_FOLDS, minutes=12, seeds=(0, 1, 2))

    checked = verbs.add("false-alarms", alarms, "how often one arm seems to differ from itself")
    checked.add_argument("--arm", default="plain")
    many = [name for name, data_set in SETS.items() if data_set.is_for_false_alarms]
    checked.add_argument(
        "--per-arm", type=int, nargs="+", default=[1, 3, 5], help="runs in each of two groups (default: 1 3 5)"
    )
    _add_training(checked, sets=many, folds=("0",), minutes=4, seeds=range(10))

    shown = verbs.add("table", show, "means, deviations, intervals and differences of what was trained")
    shown.add_argument("--against", metavar="ARM", help="paired differences from this arm")
    _add_choice(shown)
    shown.add_argument("--metric", choices=KEPT_METRICS, default="dice")
    shown.add_argument("--draw-seeds", action="store_true", help="intervals by patient and seed, not by patient alone")

    compared = verbs.add("usefulness", said, "what was said before each training, and whether it was right")
    _add_choice(compared)
    compared.add_argument("--works", type=Path, nargs="+", help="work folders of segfw, in place of the results")
    return verbs.parser


def _add_choice(parser: argparse.ArgumentParser) -> None:
    """Of the results that there are."""
    parser.add_argument("--sets", nargs="+", choices=SETS)
    parser.add_argument("--arms", nargs="+")
    parser.add_argument("--folds", nargs="+")
    parser.add_argument("--minutes", type=float, help="of one core")
    add_results(parser, KEPT)


def _add_training(
    parser: argparse.ArgumentParser,
    *,
    sets: Sequence[str],
    folds: Sequence[str],
    minutes: float,
    seeds: Sequence[int],
) -> None:
    """The options of every verb that trains, with what it trains unless asked otherwise."""
    parser.add_argument("--sets", nargs="+", choices=SETS, default=list(sets), help=f"(default: {' '.join(sets)})")
    parser.add_argument("--folds", nargs="+", default=list(folds), help=f"(default: {' '.join(folds)})")
    parser.add_argument("--options", default="", help="of segfw run, in one text: --options='--elastic'")
    parser.add_argument("--configuration", help="(default: what the time budget chooses)")
    parser.add_argument(
        "--minutes", type=_positive, default=minutes, help="of one core, for each training (default: %(default)s)"
    )
    parser.add_argument("--cores", type=_cores, default=1, help="for each training (default: 1)")
    parser.add_argument("--at-once", type=_cores, default=1, help="trainings, each on cores of its own (default: 1)")
    default_seeds = " ".join(map(str, seeds))
    parser.add_argument("--seeds", type=int, nargs="+", default=list(seeds), help=f"(default: {default_seeds})")
    parser.add_argument("--work", type=Path, required=True, help="folder for everything that is made; it goes on there")
    add_data(parser)
    add_results(parser, KEPT)
    parser.add_argument("--device", default="cpu", help="(default: cpu)")


def _positive(text: str) -> float:
    value = float(text)
    if not value > 0:
        raise argparse.ArgumentTypeError(f"{text} is not more than 0")
    return value


def _cores(text: str) -> int:
    value = int(text)
    if value < 1:
        raise argparse.ArgumentTypeError(f"{text} is less than 1")
    return value


def _end(number: int, frame: FrameType | None) -> NoReturn:
    raise SystemExit(128 + number)
