"""What the review queue is worth, with a simulated expert, and what it costs.

    python -m bench queue scale [--cases 2000] [--structures 100]      seconds and memory of segfw queue
    python -m bench queue audits                                       10 000 made-up pools: how often the bound holds
    python -m bench queue pool WORK RAW/kept POOL --name hippocampus   kept-out cases, clean and spoilt, predicted
    python -m bench queue made-up TORSO POOL                           one torso with many sizes, drafts made up
    python -m bench queue draws POOL ... [--draws 20]                  a line each in bench/results/queue.jsonl
    python -m bench queue show                                         tables of these

RAW and WORK are those of ``python -m bench trust split``, ``train`` and ``segfw calibrate``: nothing was fitted or
chosen on the kept-out patients. The simulated expert replaces an item by the expert's mask and takes minutes by
an assumed rule; nobody's time was measured.
"""

from __future__ import annotations

import argparse
from collections.abc import Sequence
from pathlib import Path

from bench.result_lines import append_line, require_lines
from bench.subcommands import RESULTS, Subcommands, add_results, call


def main(arguments: Sequence[str] | None = None) -> None:
    call(build_parser(), arguments)


def scale(args: argparse.Namespace) -> None:
    """A folder of many cases and structures."""
    from bench.queue.scale import measured

    result = measured(args.work, args.cases, args.structures, regions=args.regions, runs=args.runs)
    append_line(args.results, result)
    print(result.text)


def audits(args: argparse.Namespace) -> None:
    """Made-up pools."""
    from bench.queue.made_up_pools import simulated_audits

    for result in simulated_audits(args.pools):
        append_line(args.results, result)
        print(result.text)


def pool(args: argparse.Namespace) -> None:
    """Kept-out cases, clean and spoilt."""
    from bench.queue.pools import predict_pool

    predict_pool(args.work, args.kept, args.pool, args.name, spoilt_copies=args.copies, mirroring=args.mirroring)


def made_up(args: argparse.Namespace) -> None:
    """Real anatomy of many sizes, with made-up drafts."""
    from bench.queue.made_up_drafts import write_made_up_pool

    write_made_up_pool(args.torso, args.pool, args.cases)


def draws(args: argparse.Namespace) -> None:
    """The simulated expert."""
    from bench.queue.draws import drawn_results

    for folder in args.pool:
        for result in drawn_results(folder, args.draws):
            append_line(args.results, result)
            print(result.markdown, end="\n\n")


def show(args: argparse.Namespace) -> None:
    """Tables of the results that are kept."""
    from bench.queue.draws import QueueResult

    results = require_lines(QueueResult, args.results, "queue draws POOL")
    print("\n\n".join(result.markdown for result in results))


def build_parser() -> argparse.ArgumentParser:
    verbs = Subcommands("queue", __doc__)

    asked = verbs.add("scale", scale, "seconds and memory of a made-up folder")
    asked.add_argument("--cases", type=int, default=2000)
    asked.add_argument("--structures", type=int, default=100)
    asked.add_argument("--regions", type=int, default=1, help="of three quarters of the structures (default: 1)")
    asked.add_argument("--runs", type=int, default=100, help="of each of two candidates of a region (default: 100)")
    asked.add_argument("--work", type=Path, default=Path("queue_scale_check"), help="is made and removed")
    add_results(asked, RESULTS / "queue_scale.jsonl")

    asked = verbs.add("audits", audits, "how often the bound of an audit holds")
    asked.add_argument("--pools", type=int, default=10_000)
    add_results(asked, RESULTS / "queue_audits.jsonl")

    asked = verbs.add("pool", pool, "kept-out cases, clean and spoilt, predicted by a calibrated model")
    asked.add_argument("work", type=Path)
    asked.add_argument("kept", type=Path, help="labelled cases that nothing was fitted on")
    asked.add_argument("pool", type=Path, help="folder for images, expert masks and masks")
    asked.add_argument("--name", required=True, help="of the data set, in tables")
    asked.add_argument("--copies", type=int, default=2, help="spoilt copies of each case, of six kinds (default: 2)")
    asked.add_argument("--no-mirroring", dest="mirroring", action="store_false", help="faster; no promise holds then")

    asked = verbs.add("made-up", made_up, "a pool of one real torso with drafts and quality that are made up")
    asked.add_argument("torso", type=Path, help="the shared torso data")
    asked.add_argument("pool", type=Path, help="new folder")
    asked.add_argument("--cases", type=int, default=12)

    asked = verbs.add("draws", draws, "the simulated expert works the pool in many orders")
    asked.add_argument("pool", type=Path, nargs="+")
    asked.add_argument("--draws", type=int, default=20)
    add_results(asked, RESULTS / "queue.jsonl")

    asked = verbs.add("show", show, "the tables of the results that are kept")
    add_results(asked, RESULTS / "queue.jsonl")
    return verbs.parser


if __name__ == "__main__":
    main()
