"""The command line: a parser that is built from the verbs' options records, and exit codes."""

from __future__ import annotations

import argparse
import os
import sys
from collections.abc import Sequence
from importlib import import_module
from threading import Event

import segfw
from segfw.base.command import Command, add_common_options
from segfw.base.errors import UserError, reason_of
from segfw.base.interrupts import kept_interrupts
from segfw.base.parser import Parser
from segfw.base.printing import printable_output
from segfw.base.shell_line import shell_line
from segfw.base.speech import Log, Speech, is_first_process, spoken_output

# A verb is the file of its name in the room of the verbs.
VERBS = (
    "check",
    "join",
    "run",
    "plan-and-preprocess",
    "pretrain",
    "compare-starts",
    "train",
    "predict",
    "ensemble",
    "select",
    "calibrate",
    "evaluate",
    "measure",
    "outcome",
    "stress",
    "refine",
    "queue",
    "review",
    "accept",
    "reject",
    "import-corrected",
    "deliver",
    "retrain",
    "serve-monailabel",
    "export",
    "import-nnunet",
    "info",
    "find",
    "status",
    "doctor",
    "demo",
    "completion",
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


class _SayVersion(argparse.Action):
    """Looks the version up when it is asked for, because that takes longer than all of --help."""

    def __call__(self, parser: argparse.ArgumentParser, *_: object) -> None:
        print(f"segfw {segfw.__version__}")
        parser.exit()


def build_parser(verbs: Sequence[str] = VERBS) -> Parser:
    """The parser of some verbs, by default of all."""
    parser = Parser(
        prog="segfw",
        description="Self-configuring segmentation of CT, MR and other medical images.",
        epilog="segfw help VERB says more of one. "
        "example: segfw run RAW WORK --configurations 3d_fullres --folds 0 --time-budget 30m",
    )
    parser.set_defaults(all_verbs=build_parser)  # for the one that speaks of all
    parser.add_argument("--version", action=_SayVersion, nargs=0, help="show the version and exit")
    add_common_options(parser)
    parsers = parser.add_subparsers(dest="verb", metavar="VERB")
    for verb in verbs:
        command_of(verb).add_to(parsers, verb)
    return parser


def _parser_for(arguments: Sequence[str]) -> Parser:
    """The parser of what is typed: of its verb alone, because those of all take a third of the time of --help."""
    verb = next((each for each in arguments if not each.startswith("-")), "")
    return build_parser((verb,) if verb in VERBS else VERBS)


def main(arguments: Sequence[str] | None = None) -> int:
    """Runs a verb and returns the exit code: 0 done, 1 some cases failed, 2 the input is wrong."""
    with printable_output() as output, spoken_output() as speech, kept_interrupts() as interrupt:
        code = _main_or_interrupted(list(sys.argv[1:] if arguments is None else arguments), speech, interrupt)
        output.flush()
        sys.stderr.flush()
        if output.lost is not None:
            return _say_error(f"not all that was said could be written: {output.lost.strerror}", code or WRONG_INPUT)
        return code


def _main_or_interrupted(arguments: list[str], speech: Speech, interrupt: Event) -> int:
    try:
        return _main(arguments, speech, interrupt)
    except KeyboardInterrupt:
        pass
    except Exception:
        if not interrupt.is_set():
            raise  # of Ctrl-C, libraries make errors of their own
    how = "the same command goes on from here (segfw train needs --resume)"
    return _say_error(f"interrupted; {how}", INTERRUPTED)


def _main(arguments: list[str], speech: Speech, interrupt: Event) -> int:
    words = [*arguments[1:], "--help"] if arguments[:1] == ["help"] else arguments
    parser = _parser_for(words)
    try:
        typed = parser.parse_args(words)
        if typed.verb is not None and typed.command.follow_settings(typed):
            typed = parser.parse_args(arguments)
    except (UserError, OSError) as error:
        return _say_error(reason_of(error) or str(error), WRONG_INPUT)
    if typed.verb is None:
        parser.print_help()
        return OK
    command: Command = typed.command
    typed.arguments = arguments
    speech.is_quiet = typed.quiet
    is_dry = getattr(typed, "dry_run", False)  # which writes nothing, no log either
    if command.log_place is not None and is_first_process() and not is_dry:
        speech.log = Log(command.log_place(typed))
        speech.note(f"$ {shell_line('segfw', *arguments)}")
    return _run(command, typed, speech, interrupt)


def _run(command: Command, typed: argparse.Namespace, speech: Speech, interrupt: Event) -> int:
    # Not before the arguments are known to be right: it loads what --help should not wait for.
    from traceback import format_exc, print_exc

    from segfw.base.parallel import CasesFailed

    try:
        result = command.call(typed)
        speech.is_at_end = True
        code = command.say(typed, result)
    except Exception as error:
        if interrupt.is_set():
            raise
        message = str(error) if isinstance(error, UserError | CasesFailed) else reason_of(error) or ""
        if not message:
            speech.note(format_exc())
            raise
        if typed.debug:
            print_exc()
        return _say_error(message, SOME_FAILED if isinstance(error, CasesFailed) else WRONG_INPUT)
    return OK if code is None else code


def _say_error(message: str, code: int) -> int:
    print(f"segfw: {message}", file=sys.stderr)
    return code


def command() -> None:
    """What the shell runs as ``segfw``: ``main``, without the second that Python takes to tear PyTorch down."""
    code = main()
    os._exit(code)
