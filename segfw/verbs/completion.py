"""``segfw completion``: a script by which a shell completes what is typed after ``segfw``."""

from __future__ import annotations

import argparse
from pathlib import Path

from segfw.base.command import Argument, Command

SHELLS = ("bash", "zsh", "fish", "powershell")


def completion(shell: str, parser: argparse.ArgumentParser) -> str:
    """The script for a shell, of the verbs, options and choices that a parser has, and of files where paths are wanted.

    Parameters
    ----------
    shell
        One of SHELLS.
    parser
        The one of all verbs, as it is: the script does not know of later ones.

    Returns
    -------
    str
        What the shell is to read when it starts.
    """
    import shtab

    for verb in parsers_of_verbs(parser):
        for action in verb._actions:
            if action.type is Path:
                setattr(action, "complete", shtab.FILE)  # noqa: B010  # shtab reads it; argparse declares no such field
    script: str = shtab.complete(parser, shell=shell)
    return script


def parsers_of_verbs(parser: argparse.ArgumentParser) -> list[argparse.ArgumentParser]:
    """The parser of each verb, in their order."""
    (verbs,) = (action for action in parser._actions if isinstance(action, argparse._SubParsersAction))
    return list(verbs.choices.values())


def _the_shell(shell: str) -> str:
    return shell


def _say_result(typed: argparse.Namespace, shell: str) -> None:
    print(completion(shell, typed.all_verbs()))


COMMAND = Command(
    function=_the_shell,
    what="Print a script that completes verbs, options and files in a shell.",
    example="segfw completion bash",
    arguments=(Argument(name="shell", help="which one", parse=str, choices=SHELLS),),
    say_result=_say_result,
)
