"""The command line: a parser that is built from the verbs' options records, and exit codes."""

from __future__ import annotations

import argparse
import os
import sys
import traceback
from collections.abc import Sequence
from importlib import import_module

from segfw.base.command import Command
from segfw.base.printing import printable_output

# A verb is the file of its name in the room of the verbs.
VERBS = (
    "check",
    "run",
    "plan-and-preprocess",
    "train",
    "predict",
    "ensemble",
    "select",
    "evaluate",
    "export",
    "import-nnunet",
    "info",
    "doctor",
    "demo",
)

# Exit codes
OK = 0
SOME_FAILED = 1
WRONG_INPUT = 2
INTERRUPTED = 130


def command_of(verb: str) -> Command:
    """What the command line knows of a verb."""
    found: Command = import_module(f"segfw.verbs.{verb.replace('-', '_')}").COMMAND
    return found


def build_parser() -> argparse.ArgumentParser:
    """The parser of all verbs."""
    parser = argparse.ArgumentParser(
        prog="segfw",
        description="Self-configuring segmentation of CT, MR and other medical images.",
        epilog="example: segfw run RAW WORK --configurations 3d_fullres --folds 0 --time-budget 30m",
    )
    parser.add_argument("--debug", action="store_true", help="show the full traceback of an error")
    parsers = parser.add_subparsers(dest="verb", required=True, metavar="VERB")
    for verb in VERBS:
        command_of(verb).add_to(parsers, verb)
    return parser


def main(arguments: Sequence[str] | None = None) -> int:
    """Runs a verb and returns the exit code: 0 done, 1 some cases failed, 2 the input is wrong."""
    with printable_output():
        return _main(arguments)


def _main(arguments: Sequence[str] | None) -> int:
    typed = build_parser().parse_args(arguments)
    command: Command = typed.command
    # Not before the arguments are known to be right: it loads what --help should not wait for.
    from segfw.base.errors import UserError, reason_of

    try:
        code = command.call(typed)
    except KeyboardInterrupt:
        message = "interrupted; the same command goes on from here (segfw train needs --resume)"
        code = INTERRUPTED
    except Exception as error:
        from segfw.base.parallel import CasesFailed

        message = str(error) if isinstance(error, UserError | CasesFailed) else reason_of(error) or ""
        if not message:
            raise
        if typed.debug:
            traceback.print_exc()
        code = SOME_FAILED if isinstance(error, CasesFailed) else WRONG_INPUT
    else:
        return OK if code is None else code
    print(f"segfw: {message}", file=sys.stderr)
    return code


def command() -> None:
    """What the shell runs as ``segfw``: ``main``, without the second that Python takes to tear PyTorch down."""
    code = main()
    sys.stdout.flush()
    sys.stderr.flush()
    os._exit(code)
