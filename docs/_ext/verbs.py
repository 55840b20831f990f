"""Fills the page of the verbs from the command line's own parser, so that it cannot say anything else.

The line ``<!-- verbs -->`` of ``reference/verbs.md`` becomes Markdown: an overview, then a section for each verb with
its usage, its arguments and its example.
"""

from __future__ import annotations

import argparse
import re

from sphinx.application import Sphinx

PAGE = "reference/verbs"
MARKER = "<!-- verbs -->"


def setup(app: Sphinx) -> dict:
    """Called by Sphinx."""
    app.connect("source-read", fill_page)
    return {"parallel_read_safe": True}


def fill_page(app: Sphinx, page: str, source: list[str]) -> None:
    """Puts the verbs in the place of the marker."""
    if page != PAGE:
        return
    if MARKER not in source[0]:
        raise ValueError(f"{PAGE}.md: has no line {MARKER!r}, where the verbs go")
    from segfw.cli import build_parser

    source[0] = source[0].replace(MARKER, verbs_as_markdown(build_parser()))


def verbs_as_markdown(parser: argparse.ArgumentParser) -> str:
    """An overview of the verbs and a section for each."""
    verbs = subparsers_of(parser)
    if not verbs:
        raise ValueError(f"{parser.prog}: has no verbs")
    rows = [f"| [`{verb.prog}`](#{anchor(verb)}) | {plain(verb.description or '')} |" for verb in verbs]
    overview = "\n".join(["| verb | what it does |", "|---|---|", *rows])
    return "\n\n".join([overview, *(section(verb) for verb in verbs)])


def subparsers_of(parser: argparse.ArgumentParser) -> list[argparse.ArgumentParser]:
    """The parsers of the verbs, in their order."""
    for action in parser._actions:
        if isinstance(action, argparse._SubParsersAction):
            return list(dict.fromkeys(action.choices.values()))
    return []


def anchor(verb: argparse.ArgumentParser) -> str:
    """As the heading's anchor is made."""
    return verb.prog.replace(" ", "-")


def section(verb: argparse.ArgumentParser) -> str:
    """Heading, description, usage, arguments and example of one verb."""
    parts = [f"## {verb.prog}", plain(verb.description or ""), code(verb.format_usage().removeprefix("usage: "))]
    for action in verb._actions:
        if action.help != argparse.SUPPRESS and not isinstance(action, argparse._HelpAction):
            parts.append(f"{names_of(action)}\n: {help_of(action, verb)}")
    if verb.epilog:
        label, _, example = verb.epilog.partition(": ")
        parts.append(f"{label.capitalize()}:")
        parts.append(code(example))
    return "\n\n".join(parts)


def names_of(action: argparse.Action) -> str:
    """The argument as it is typed: ``--folds FOLD ...``."""
    if not action.option_strings:
        return f"`{action.metavar or action.dest}`"
    names = ", ".join(action.option_strings)
    return f"`{names} {values_of(action)}`" if values_of(action) else f"`{names}`"


def values_of(action: argparse.Action) -> str:
    """What an option wants to be followed by; empty for a switch."""
    if action.nargs == 0:
        return ""
    one = action.metavar or action.dest.upper()
    if action.metavar is None and action.choices is not None:
        one = "{" + ",".join(map(str, action.choices)) + "}"
    if isinstance(one, tuple):
        return " ".join(one)
    if isinstance(action.nargs, int):
        return " ".join([one] * action.nargs)
    return {"?": f"[{one}]", "*": f"[{one} ...]", "+": f"{one} ..."}.get(action.nargs or "", one)


def help_of(action: argparse.Action, verb: argparse.ArgumentParser) -> str:
    """The help with its placeholders filled in, and what is needed."""
    text = (action.help or "") % (vars(action) | {"prog": verb.prog})
    return plain(text) + (" (required)" if action.option_strings and action.required else "")


def plain(text: str) -> str:
    """Text whose signs Markdown would take for its own."""
    return re.sub(r"([\\`*_\[\]<>|#{}$])", r"\\\1", " ".join(text.split()))


def code(text: str) -> str:
    """A block of code."""
    return f"```text\n{text.strip()}\n```"
