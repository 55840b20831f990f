"""Runs the blocks of a page one after the other in a folder, with trainings of two steps.

What is changed of a command is its length alone: ``--time-budget`` and ``--epochs`` of a training become one epoch of
two steps, a demo takes seconds, and the toy data set has few cases.
"""

from __future__ import annotations

import os
import re
import shlex
import subprocess
import sys
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path

from documents.blocks import ROOT, Block, lines_of, segfw_arguments, words_of
from segfw.cli import main

TRAINS = ("run", "train")
LENGTHS = ("--time-budget", "--epochs", "--steps-per-epoch", "--extend")
SHORT_TRAINING = ("--epochs", "1", "--steps-per-epoch", "2")
SHORT_DEMO = ("--time-budget", "1s")
SHORT_TOY = ("--cases", "6", "--test-cases", "2")
LENGTH_IN_PYTHON = re.compile(r"\b(epochs|time_budget_s)=[\d_]+")
SHORT_IN_PYTHON = "epochs=1, steps_per_epoch=2"
COMMAND_S = 600  # for a command that is not segfw's


class CommandFailed(Exception):
    """A command of a document that did not do what the document says."""


@contextmanager
def inside(folder: Path) -> Iterator[None]:
    """The block of ``with`` runs in the folder."""
    before = Path.cwd()
    os.chdir(folder)
    try:
        yield
    finally:
        os.chdir(before)


def without(words: Sequence[str], options: Sequence[str]) -> list[str]:
    """The words without the options and the value behind each."""
    kept: list[str] = []
    skip = False
    for word in words:
        if skip:
            skip = False
        elif word in options:
            skip = True
        else:
            kept.append(word)
    return kept


def shortened(arguments: Sequence[str]) -> list[str]:
    """The arguments of segfw with the length that fits a test."""
    verb = next((word for word in arguments if not word.startswith("-")), "")
    if verb == "demo":
        return [*without(arguments, LENGTHS), *SHORT_DEMO]
    if verb not in TRAINS or "--help" in arguments or "--dry-run" in arguments:
        return list(arguments)
    if "--extend" in arguments:
        return [*without(arguments, LENGTHS), "--extend", "1"]
    if "--resume" in arguments:  # keeps the length that it began with
        return list(arguments)
    return [*without(arguments, LENGTHS), *SHORT_TRAINING]


def run_line(line: str, folder: Path) -> None:
    """Runs one line as it would be typed in the folder."""
    for words in words_of(line):
        arguments = segfw_arguments(words)
        if arguments is None:
            run_other(line if ">" in line else shlex.join(words), folder)
            continue
        try:
            with inside(folder):
                code = main(shortened(arguments))
        except SystemExit as end:  # the parser's, and that of --help
            code = int(end.code or 0)
        if code:
            raise CommandFailed(f"{line}: ended with {code}")


def run_other(command: str, folder: Path) -> None:
    """Runs what is not segfw in a shell; python is this one, scripts/ and docs/ are those of the clone."""
    if "make_toy_dataset.py" in command:
        command = shlex.join([*without(shlex.split(command), ("--cases", "--test-cases")), *SHORT_TOY])
    if "train_custom.py" in command and "--help" not in command:
        command = shlex.join([*without(shlex.split(command), LENGTHS), *SHORT_TRAINING])
    variables = os.environ | {
        "PATH": os.pathsep.join([str(Path(sys.executable).parent), os.environ["PATH"]]),
        "PYTHONPATH": str(ROOT),
    }
    done = subprocess.run(
        ["sh", "-e", "-c", command], cwd=folder, env=variables, capture_output=True, text=True, timeout=COMMAND_S
    )
    print(done.stdout, end="")
    if done.returncode:
        raise CommandFailed(f"{command}: ended with {done.returncode}: {done.stderr[-2000:]}")


def run_block(block: Block, folder: Path, names: dict[str, object]) -> bool:
    """Runs a block if it is one to be run; ``names`` are what Python blocks of a page have defined so far."""
    if block.file:
        (folder / block.file).write_text(block.text + "\n", encoding="utf-8")
        return True
    if block.not_run or block.language not in ("sh", "python"):
        return False
    try:
        if block.language == "sh":
            for line in lines_of(block):
                run_line(line, folder)
        else:
            with inside(folder):
                exec(compile(LENGTH_IN_PYTHON.sub(SHORT_IN_PYTHON, block.text), block.place, "exec"), names)
    except Exception as error:
        raise CommandFailed(f"{block.place}: {type(error).__name__}: {error}") from error
    return True
