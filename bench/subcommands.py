"""Measurements that are asked for by a verb of their own: ``python -m bench retrain run``, ``... retrain table``."""

from __future__ import annotations

import argparse
import sys
from collections.abc import Callable, Sequence
from pathlib import Path

from bench import CLONE
from segfw.base.records import UserError

DATA = CLONE.parent / "shared" / "data"
RESULTS = CLONE / "bench" / "results"

Do = Callable[[argparse.Namespace], None]


class Subcommands:
    """The parser of a measurement; each of its verbs is a function that takes what was typed."""

    def __init__(self, measurement: str, description: str | None) -> None:
        self.parser = argparse.ArgumentParser(
            prog=f"python -m bench {measurement}",
            description=description,
            formatter_class=argparse.RawDescriptionHelpFormatter,
        )
        self._verbs = self.parser.add_subparsers(dest="verb", required=True, metavar="VERB")

    def add(self, verb: str, do: Do, what: str) -> argparse.ArgumentParser:
        """The parser of one more verb."""
        asked = self._verbs.add_parser(verb, help=what)
        asked.set_defaults(do=do)
        return asked


def call(parser: argparse.ArgumentParser, arguments: Sequence[str] | None) -> None:
    """Does what was typed; a UserError ends the program with its sentence."""
    args = parser.parse_args(arguments)
    try:
        args.do(args)
    except UserError as error:
        sys.exit(f"{parser.prog} {args.verb}: {error}")


def add_results(asked: argparse.ArgumentParser, path: Path) -> None:
    """``--results``, by default a file of bench/results."""
    asked.add_argument("--results", type=Path, default=path, help=f"(default: bench/results/{path.name})")


def add_data(asked: argparse.ArgumentParser) -> None:
    """``--data``."""
    asked.add_argument("--data", type=Path, default=DATA, help="folder of all data sets (default: ../shared/data)")
