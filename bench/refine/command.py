"""What clicks are worth: Dice after 0 to 5 clicks on masks of patients that were kept out of everything.

    python -m bench refine base hippocampus --minutes 3 --work ../refine           one base model for all seeds
    python -m bench refine run hippocampus --seed 0 --minutes 3 --work ../refine   a refiner, then every arm
    python -m bench refine table

Clicks are SIMULATED from the expert's mask: in the middle of the largest error (deepest), somewhere in an error with
misses (people-like), or where the mask is right already. Points of real strokes are the fourth source, where a data
set has them; which of the points is clicked is simulated as well. Arms: the refiner with its rules; the same network
without its clicks, in windows around the clicks that its own mask would get (no click); a ball as large as the error
painted with what the click says (brush); and the largest ball that fits in the error (fitting brush). What is finished
is not done again. Each arm with each source adds a line to bench/results/refine.jsonl.
"""

from __future__ import annotations

import argparse
from collections.abc import Sequence
from pathlib import Path

from bench.subcommands import RESULTS, Subcommands, add_data, add_results, call

KEPT = RESULTS / "refine.jsonl"
SETS = ("hippocampus", "cardiac_cine")
ARMS = ("refiner", "no click", "brush", "fitting brush")
SOURCES = ("deepest", "people-like", "right already", "scribbles")


def main(arguments: Sequence[str] | None = None) -> None:
    call(build_parser(), arguments)


def base(args: argparse.Namespace) -> None:
    """The base model and its masks of the kept-out cases."""
    from bench.refine.kept_out import make_base

    make_base(args.data, args.work, args.set, args.minutes)


def run(args: argparse.Namespace) -> None:
    """A refiner, and every arm with every source."""
    from bench.refine.refine_runs import run_seed

    run_seed(args)


def table(args: argparse.Namespace) -> None:
    """The tables of all lines."""
    from bench.refine.refine_results import RefineResult
    from bench.refine.refine_tables import tables
    from bench.result_lines import require_lines

    print(tables(require_lines(RefineResult, args.results, "refine run")))


def build_parser() -> argparse.ArgumentParser:
    verbs = Subcommands("refine", __doc__)

    asked = verbs.add("base", base, "the base model, five folds, and its masks of the kept-out cases")
    _add_place(asked)
    asked.add_argument("--minutes", type=float, required=True, help="of each fold")

    asked = verbs.add("run", run, "a refiner of one seed, and every arm with every source of clicks")
    _add_place(asked)
    asked.add_argument("--minutes", type=float, required=True, help="of the refiner's training")
    asked.add_argument("--seed", type=int, default=0)
    asked.add_argument("--cases", type=int, help="the first so many kept-out cases (default: all)")
    asked.add_argument("--arms", nargs="+", choices=ARMS, default=ARMS)
    asked.add_argument("--clicks", nargs="+", choices=SOURCES, default=SOURCES)
    add_results(asked, KEPT)

    asked = verbs.add("table", table, "what the results say, as Markdown")
    add_results(asked, KEPT)
    return verbs.parser


def _add_place(asked: argparse.ArgumentParser) -> None:
    asked.add_argument("set", choices=SETS)
    asked.add_argument("--work", type=Path, required=True, help="folder for everything that is made")
    add_data(asked)


if __name__ == "__main__":
    main()
