"""Ten minutes on a bare machine with a CUDA device: what is right there, how much time and memory it takes.

    python -m bench gpu --output FOLDER [--nnunet FOLDER] [--data FOLDER] [--cine FOLDER]
        [--limit 600] [--only right,step] [--cpu]
    python -m bench gpu table FOLDER/result.json        the same as tables, for docs/benchmarks.md

Sections run in the order of their value, and end within the time. One is skipped when less time is left than it takes,
and named; result.json, which names the card and all versions, is written anew after each, and so is result.md, the same
as tables. The same command called once more, as after it was killed, measures what is not measured yet. ``--cpu`` runs
all of it in miniature on the CPU, which tests the measurement and measures nothing.
"""

from __future__ import annotations

import argparse
import json
import os
import sys
import tempfile
from collections.abc import Sequence
from pathlib import Path

WARM = ("segfw", "nnunet")


def main(arguments: Sequence[str] | None = None) -> None:
    """Parses the arguments and runs the sections that were asked for."""
    given = list(sys.argv[1:] if arguments is None else arguments)
    if given[:1] == ["table"]:
        print(table_of(given[1:]), end="")
        return
    args = parser().parse_args(given)
    if args.computed:
        from bench.gpu.computed import table

        print(table(), end="")
        return
    if args.output is None:
        parser().error("--output is needed: the folder of result.json and result.md")
    args.output.mkdir(parents=True, exist_ok=True)
    if args.cores:
        usable = sorted(os.sched_getaffinity(0))
        os.sched_setaffinity(0, usable[: args.cores])
    if not args.cpu:
        # One cache for this process and those that compile ahead for it.
        os.environ.setdefault("TORCHINDUCTOR_CACHE_DIR", str(Path(tempfile.gettempdir()) / "inductor"))
    # Only now: PyTorch counts the cores and reads the environment when it is imported.
    from bench.gpu.compiling import warm
    from bench.gpu.sections import run_sections
    from bench.gpu.visit import Visit

    visit = Visit.start(
        folder=args.output.resolve(),
        whole_s=args.limit,
        on_cpu=args.cpu,
        nnunet_folder=args.nnunet.resolve(),
        data_folder=args.data.resolve(),
        cine_folder=args.cine.resolve(),
    )
    if args.warm:
        warm(visit, args.warm)
    else:
        run_sections(visit, args.only)


def table_of(arguments: Sequence[str]) -> str:
    """The tables of a result.json, with headings that go below those of docs/benchmarks.md."""
    from bench.gpu.report import markdown

    made = argparse.ArgumentParser(prog="python -m bench gpu table", description=table_of.__doc__)
    made.add_argument("file", type=Path, help="result.json of a visit")
    file = made.parse_args(arguments).file
    if not file.is_file():
        sys.exit(f"{file}: is no file; give the result.json of a visit")
    return markdown(json.loads(file.read_text(encoding="utf-8")), level=3)


def parser() -> argparse.ArgumentParser:
    """The options of ``python -m bench gpu``."""
    made = argparse.ArgumentParser(
        prog="python -m bench gpu", description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    made.add_argument("--output", type=Path, help="folder of result.json and result.md")
    made.add_argument(
        "--computed", action="store_true", help="measure nothing: print the table of computed times of docs/gpu.md"
    )
    made.add_argument(
        "--nnunet",
        type=Path,
        default=Path(".nn"),
        help="folder that holds the packages nnunetv2 and dynamic_network_architectures (default: .nn); "
        "without it nnU-Net's own step is left out",
    )
    made.add_argument(
        "--data",
        type=Path,
        default=Path("../shared/data/hippocampus"),
        help="data set of the section train, which is left out without it (default: ../shared/data/hippocampus)",
    )
    made.add_argument(
        "--cine",
        type=Path,
        default=Path("../shared/data/cardiac_cine"),
        help="data set of the section cine, which is left out without it (default: ../shared/data/cardiac_cine)",
    )
    made.add_argument("--limit", type=float, default=600.0, metavar="SECONDS", help="time for all (default: 600)")
    made.add_argument("--only", type=comma_separated, default=(), metavar="A,B", help="only these sections")
    made.add_argument("--cpu", action="store_true", help="all of it in miniature on the CPU")
    made.add_argument("--cores", type=int, default=0, help="use only the first so many processor cores")
    made.add_argument("--warm", choices=WARM, help="only fill the compiler's cache; the visit itself calls this")
    return made


def comma_separated(text: str) -> tuple[str, ...]:
    return tuple(part for part in text.split(",") if part)
