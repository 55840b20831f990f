"""A verb of the command line: the function that it calls, what it takes, and what it says at the end."""

from __future__ import annotations

import argparse
import sys
from collections.abc import Callable, Mapping
from contextlib import nullcontext, redirect_stdout
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

from segfw.base.errors import UserError
from segfw.base.options import Options, add_options, named_as_typed
from segfw.base.speech import LogPlace, aside

if TYPE_CHECKING:
    from segfw.base.answers import Answer

SETTINGS = "settings_file"
SETTINGS_HELP = "options from a file, such as run.toml of another WORK; what is typed goes before"

# What is printed of the arguments and the function's result; it may return an exit code.
SayResult = Callable[[argparse.Namespace, Any], int | None]


def say_text(_: argparse.Namespace, text: object) -> int | None:
    """Prints what the function returned, and gives the exit code that it asks for."""
    print(text)
    return getattr(text, "exit_code", None)


@dataclass(frozen=True, kw_only=True)
class Argument:
    """What a verb cannot do without, by the name of the function's parameter.

    ``shown`` is its name on the command line where that is another one; with two hyphens it is an option.
    """

    name: str
    help: str
    parse: Callable[[str], object] = Path
    shown: str = ""
    nargs: str | None = None
    choices: tuple[str, ...] | None = None
    default: object = None

    def add_to(self, parser: argparse.ArgumentParser) -> None:
        """Lets a parser take the argument."""
        keywords: dict[str, Any] = {"help": self.help, "type": self.parse}
        if self.nargs is not None:
            keywords["nargs"] = self.nargs
        if self.choices is not None:
            keywords["choices"] = self.choices
        if self.default is not None:
            keywords["default"] = self.default
        if self.shown.startswith("--"):
            parser.add_argument(self.shown, dest=self.name, required=True, **keywords)
        else:
            parser.add_argument(self.name, metavar=self.shown or None, **keywords)


@dataclass(frozen=True, kw_only=True)
class Command:
    """A verb: ``function`` is called with ``arguments`` and the options records that it was declared to take.

    Where it returns an ``Answer`` (base/answers.py), ``gives_json`` lets it be printed as JSON, too. ``foretell`` is
    called instead with --dry-run: it returns an ``Answer`` of what would be done.
    """

    function: Callable[..., Any]
    what: str
    example: str
    arguments: tuple[Argument, ...] = ()
    say_result: SayResult = say_text
    takes_settings: bool = False
    log_place: Callable[[argparse.Namespace], LogPlace] | None = None  # None: nothing is logged
    gives_json: bool = False
    foretell: Callable[..., Answer] | None = None

    @property
    def records(self) -> Mapping[str, type[Options]]:
        """The options record of each parameter that takes one."""
        found: Mapping[str, type[Options]] = getattr(self.function, "records", {})
        return found

    def add_to(self, verbs: Any, name: str) -> None:
        """Adds the verb's parser to those of all verbs."""
        parser = verbs.add_parser(name, help=self.what, description=self.what, epilog=f"example: {self.example}")
        parser.set_defaults(command=self, parser=parser)
        # After the verb, too; the default must not undo what stood before it.
        add_common_options(parser, default=argparse.SUPPRESS, is_shown=False)
        for argument in self.arguments:
            argument.add_to(parser)
        for record in self.records.values():
            add_options(parser, record)
        if self.gives_json or self.foretell is not None:
            of_what = "" if self.gives_json else "of --dry-run, "
            parser.add_argument("--json", action="store_true", help=f"{of_what}print one JSON document instead of text")
        if self.takes_settings:
            parser.add_argument("--settings", dest=SETTINGS, type=Path, metavar="FILE", help=SETTINGS_HELP)

    def follow_settings(self, typed: argparse.Namespace) -> bool:
        """Lets the verb's parser take what a file of settings says for what is not typed; False if none is given."""
        path = getattr(typed, SETTINGS, None)
        if path is not None:
            from segfw.base.settings_file import read_settings

            typed.parser.set_defaults(**read_settings(path, self.records.values()))
        return path is not None

    def call(self, typed: argparse.Namespace) -> Any:
        """Does what was typed; UserError for --json of a verb that answers in JSON with --dry-run alone."""
        if self._asks_for_json(typed) and not self.gives_json and not self._is_dry(typed):
            raise UserError("--json is of --dry-run; give both, or leave it out")
        function = self.foretell if self.foretell is not None and self._is_dry(typed) else self.function
        values = {argument.name: getattr(typed, argument.name) for argument in self.arguments}
        quiet = redirect_stdout(sys.stderr) if self._asks_for_json(typed) else nullcontext()
        with named_as_typed(), quiet:
            options = {name: record.from_arguments(typed) for name, record in self.records.items()}
            return function(**values, **options)

    def say(self, typed: argparse.Namespace, result: Any) -> int | None:
        """Says what came out, and returns the exit code if that is not 0."""
        if self._asks_for_json(typed):
            print(result.json_text())
            code: int = result.exit_code
            return code
        if self.foretell is not None and self._is_dry(typed):
            print(result)
            aside("nothing was written; the same command without --dry-run does it")
            return None
        return self.say_result(typed, result)

    def _asks_for_json(self, typed: argparse.Namespace) -> bool:
        return bool(getattr(typed, "json", False))

    def _is_dry(self, typed: argparse.Namespace) -> bool:
        return bool(getattr(typed, "dry_run", False))


def add_common_options(parser: argparse.ArgumentParser, *, default: object = False, is_shown: bool = True) -> None:
    """Lets a parser take the options that every verb has."""
    for name, what in (
        ("--quiet", "say warnings, errors and results alone"),
        ("--debug", "show the full traceback of an error"),
    ):
        shown = what if is_shown else argparse.SUPPRESS
        parser.add_argument(name, action="store_true", default=default, help=shown)
