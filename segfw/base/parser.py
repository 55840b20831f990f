"""The parser of the command line: what is typed wrong is one sentence with the word that was meant, and no usage."""

from __future__ import annotations

import argparse
import os
import re
import sys
from collections.abc import Sequence
from itertools import takewhile
from typing import Any, NoReturn

from segfw.base.errors import UserError
from segfw.base.words import did_you_mean, listed

# What argparse says, and what is said instead. \1 is the name of an option or an argument.
SENTENCES = (
    (r"argument (.+?): expected one argument", r"\1 needs a value"),
    (r"argument (.+?): expected (\d+) arguments", r"\1 needs \2 values"),
    (r"argument (.+?): expected at least one argument", r"\1 needs at least one value"),
    (r"argument (.+?): ignored explicit argument '(.*)'", r"\1 takes no value; leave out \2"),
    (r"argument (.+?): not allowed with argument (.+)", r"\1 and \2 exclude each other; leave out one of them"),
    (r"argument (.+?): (.*)", r"\1: \2"),
)
RENAMED = {"--ending": "--as"}  # of earlier versions
REQUIRED = "the following arguments are required: "
OPTION = re.compile(r"--?[A-Za-z][^\s=]*")


class Parser(argparse.ArgumentParser):
    """Parses the command line, or what follows one of its verbs. Raises UserError for what is typed wrong.

    Options are known by their full names alone: what is short for one today would be short for two tomorrow.
    """

    def __init__(self, **keywords: Any) -> None:
        super().__init__(**keywords | {"allow_abbrev": False})

    def parse_known_args(  # type: ignore[override]  # which has overloads for other namespaces
        self, args: Sequence[str] | None = None, namespace: argparse.Namespace | None = None
    ) -> tuple[argparse.Namespace, list[str]]:
        """As argparse does, but that what is not known is refused by the parser of the verb, and first of all."""
        typed = list(sys.argv[1:] if args is None else args)
        has_verbs = self._subparsers is not None
        before = takewhile(lambda each: each.startswith("-"), typed) if has_verbs else typed
        for each in takewhile(lambda each: each != "--", before):
            self._require_known(each)
        found, more = super().parse_known_args(typed, namespace)
        if more and not has_verbs:
            self.error(f"{self._verb} takes no {more[0]!r} after {self._wanted or 'its name'}; leave it out")
        return found, more

    def error(self, message: str) -> NoReturn:
        """Raises UserError with our words for what argparse found."""
        if message.startswith(REQUIRED):
            names = message.removeprefix(REQUIRED).split(", ")
            needed = listed((name if name.startswith("-") else name.upper() for name in names), "and")
            raise UserError(f"{self._verb} needs {needed}; for {self.epilog}")
        for theirs, ours in SENTENCES:
            match = re.fullmatch(theirs, message, re.DOTALL)
            if match:
                raise UserError(match.expand(ours))
        raise UserError(message)

    def _require_known(self, typed: str) -> None:
        match = OPTION.match(typed)
        if match is None or " " in typed or match[0] in self._option_string_actions:
            return
        renamed = RENAMED.get(match[0], "")
        is_renamed = renamed in self._option_string_actions
        remedy = f"; it is {renamed} now" if is_renamed else did_you_mean(match[0], self._option_string_actions)
        if os.path.exists(typed):
            remedy = f"; write ./{typed} for the file of that name"
        if not remedy:
            where = "of a verb stand after it" if self._subparsers is not None else f"are in {self.prog} --help"
            remedy = f"; the options {where}"
        raise UserError(f"{self._verb} has no option {match[0]}{remedy}")

    def _check_value(self, action: argparse.Action, value: Any) -> None:
        if action.choices is None or value in action.choices:
            return
        known = [str(each) for each in action.choices]
        if isinstance(action, argparse._SubParsersAction):
            raise UserError(
                f"there is no verb {value!r}" + (did_you_mean(value, [*known, "help"]) or "; segfw --help lists them")
            )
        near = did_you_mean(str(value), known)
        raise argparse.ArgumentError(action, f"{value!r} is none of {listed(known, 'and')}{near}")

    @property
    def _verb(self) -> str:
        return self.prog.split()[-1]

    @property
    def _wanted(self) -> str:
        return listed((str(each.metavar or each.dest).upper() for each in self._get_positional_actions()), "and")
