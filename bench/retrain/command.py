"""Whether retraining with signed labels pays: a SIMULATED expert, two rounds, against training on without the labels.

    python -m bench retrain run WORK --seed 0      one seed, about 20 minutes of one core; call it again to go on
    python -m bench retrain table                  what is kept, as Markdown

The expert is simulated: he replaces every mask of a batch by the data set's own, and makes no mistake. Test cases are
kept out of everything. Everything is of hippocampus, whose cases are of one patient each.
"""

from __future__ import annotations

import argparse
from collections.abc import Sequence
from pathlib import Path

from bench.subcommands import RESULTS, Subcommands, add_data, add_results, call

KEPT = RESULTS / "retrain.jsonl"


def main(arguments: Sequence[str] | None = None) -> None:
    call(build_parser(), arguments)


def run(args: argparse.Namespace) -> None:
    """Both rounds and all arms of one seed."""
    from bench.result_lines import append_line
    from bench.retrain.rounds import Sizes, rounds_of_seed

    sizes = Sizes(old=args.old, validation=args.validation, batch=args.batch, test=args.test, minutes=args.minutes)
    result = rounds_of_seed(args.data, args.work, args.seed, sizes)
    append_line(args.results, result)


def table(args: argparse.Namespace) -> None:
    """The table of what is kept."""
    from bench.result_lines import require_lines
    from bench.retrain.retrain_results import RetrainResult, as_markdown

    print(as_markdown(require_lines(RetrainResult, args.results, "retrain run WORK")))


def build_parser() -> argparse.ArgumentParser:
    verbs = Subcommands("retrain", __doc__)

    asked = verbs.add("run", run, "both rounds and all arms of one seed")
    asked.add_argument("work", type=Path, help="folder for everything; seeds share it")
    add_data(asked)
    asked.add_argument("--seed", type=int, default=0)
    asked.add_argument("--old", type=int, default=32, help="cases that there are before any review")
    asked.add_argument("--validation", type=int, default=8, help="of them, that never train")
    asked.add_argument("--batch", type=int, default=24, help="cases that the simulated expert corrects in a round")
    asked.add_argument("--test", type=int, default=68, help="cases that are kept out of everything")
    asked.add_argument("--minutes", type=float, default=2.5, help="of the first training")
    add_results(asked, KEPT)

    asked = verbs.add("table", table, "the results that are kept")
    add_results(asked, KEPT)
    return verbs.parser


if __name__ == "__main__":
    main()
