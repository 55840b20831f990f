"""Ctrl-C reaches the command line wherever it comes: it ends as interrupted, with 130 and one sentence."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import threading
import time
import weakref

import pytest

from segfw import cli
from segfw.base.command import Command
from segfw.base.interrupts import kept_interrupts


class Thing:
    """An object that may be referred to weakly."""


class Finalised:
    def __del__(self) -> None:
        signal.raise_signal(signal.SIGINT)


def _in_a_finaliser() -> None:
    thing = Finalised()
    del thing


def _in_a_callback() -> None:
    thing = Thing()
    reference = weakref.ref(thing, lambda _: signal.raise_signal(signal.SIGINT))
    del thing
    assert reference() is None


def _as_an_error_of_a_library() -> None:
    try:
        signal.raise_signal(signal.SIGINT)
    except KeyboardInterrupt:
        raise ImportError("numpy._core.multiarray failed to import") from None


@pytest.mark.skipif(os.name != "posix", reason="signals as POSIX systems have them")
@pytest.mark.parametrize(
    "comes", [_in_a_finaliser, _in_a_callback, _as_an_error_of_a_library, lambda: signal.raise_signal(signal.SIGINT)]
)
def test_a_verb_ends_as_interrupted(comes, monkeypatch, capsys):
    def verb() -> str:
        comes()
        time.sleep(30)  # the work that would have gone on
        return "finished"

    before = signal.signal(signal.SIGINT, signal.default_int_handler)
    monkeypatch.setattr(cli, "VERBS", ("try",))
    monkeypatch.setattr(cli, "command_of", lambda _: Command(function=verb, what="Try.", example="segfw try"))
    try:
        assert cli.main(["try"]) == cli.INTERRUPTED
        assert signal.getsignal(signal.SIGINT) is signal.default_int_handler
    finally:
        signal.signal(signal.SIGINT, before)
    shown = capsys.readouterr()
    assert shown.out == ""
    assert shown.err == "segfw: interrupted; the same command goes on from here (segfw train needs --resume)\n"


def test_who_has_an_own_way_with_it_keeps_that():
    """Also in threads, where no handler can be set."""
    handlers = []

    def look() -> None:
        with kept_interrupts() as came:
            handlers.append(signal.getsignal(signal.SIGINT))
            assert not came.is_set()

    before = signal.signal(signal.SIGINT, signal.SIG_IGN)
    try:
        look()
        thread = threading.Thread(target=look)
        thread.start()
        thread.join(60)
    finally:
        signal.signal(signal.SIGINT, before)
    assert handlers == [signal.SIG_IGN, signal.SIG_IGN]


def test_other_errors_of_finalisers_are_told_as_before():
    script = (
        "from segfw.base.interrupts import kept_interrupts\n"
        "class Thing:\n    def __del__(self): raise ValueError('of a finaliser')\n"
        "with kept_interrupts(): Thing()\nprint('went on')"
    )
    done = subprocess.run([sys.executable, "-c", script], capture_output=True, text=True, check=True, timeout=300)
    assert "ValueError: of a finaliser" in done.stderr
    assert done.stdout == "went on\n"
