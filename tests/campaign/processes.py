"""Commands in processes of their own, forked from one that has everything loaded, and struck by signals.

A fork begins where a new process would be after seconds of loading, so that a signal meets the work of the verb. A
strike is at a moment, or at the n-th time that the command touches one of the trial's files: nearly the same place in
every run.
"""

from __future__ import annotations

import contextlib
import os
import signal
import sys
import time
from collections.abc import Sequence
from importlib import import_module
from pathlib import Path
from typing import NamedTuple

from segfw.cli import VERBS, command_of

LIMIT_S = 300.0
FILE_EVENTS = {"open", "os.mkdir", "os.rename", "os.remove", "os.rmdir", "os.link", "os.chmod", "shutil.rmtree"}
LOADED = (
    *("torch", "nibabel", "SimpleITK", "tifffile", "PIL.Image", "jinja2", "scipy.ndimage", "matplotlib.pyplot"),
    *("blosc2", "safetensors.torch", "cc3d"),
)
LOADED_FOR = {"export --onnx": ("torch.onnx", "onnxscript")}


class Strike(NamedTuple):
    """A signal, after ``seconds`` or at the ``event``-th file that is touched (counted from 1)."""

    number: signal.Signals
    seconds: float | None = None
    event: int | None = None

    def __str__(self) -> str:
        when = f"after {self.seconds:.3f} s" if self.seconds is not None else f"at file event {self.event}"
        return f"{self.number.name} {when}"


class Ended(NamedTuple):
    """How a command ended: its exit code, negative for a signal, what it printed, and the file events it came to."""

    code: int
    shown: str
    errors: str
    events: int
    seconds: float

    @property
    def is_sentence(self) -> bool:
        """Whether its errors end in one line of segfw's, without a traceback."""
        return "Traceback" not in self.errors and self.errors.rstrip().rpartition("\n")[2].startswith("segfw: ")


def load_all(verbs: Sequence[str]) -> None:
    """Loads what the verbs load, so that forks need not."""
    for name in (*LOADED, *(name for verb in verbs for name in LOADED_FOR.get(verb, ()))):
        with contextlib.suppress(ImportError):
            import_module(name)
    for verb in VERBS:
        command_of(verb)


class Running:
    """A command in a fork of this process; ``folder`` takes what it prints."""

    def __init__(self, command: Sequence[str], folder: Path, strike: Strike | None = None) -> None:
        self._folder = folder
        self._strike = strike
        self._begun_s = time.monotonic()
        self._files = {name: folder / f"{name}.{time.monotonic_ns()}" for name in ("shown", "errors", "events")}
        sys.stdout.flush()
        self._pid = os.fork()
        if not self._pid:
            self._work(command)

    def _work(self, command: Sequence[str]) -> None:
        """The forked process; never returns."""
        code = 99
        try:
            os.setsid()
            signal.signal(signal.SIGINT, signal.default_int_handler)  # else ignored where the campaign is in background
            for number, name in ((1, "shown"), (2, "errors")):
                os.dup2(os.open(self._files[name], os.O_CREAT | os.O_WRONLY), number)
            sys.stdout = os.fdopen(1, "w", encoding="utf-8", closefd=False)
            sys.stderr = os.fdopen(2, "w", encoding="utf-8", closefd=False)
            events = self._counted_events()
            import segfw.cli

            code = segfw.cli.main(command)
            self._files["events"].write_text(str(events[0]))
        except BaseException:
            import traceback

            with contextlib.suppress(BaseException):
                traceback.print_exc()
        finally:
            with contextlib.suppress(BaseException):
                sys.stdout.flush()
                sys.stderr.flush()
            os._exit(code)

    def _counted_events(self) -> list[int]:
        events = [0]
        strike_at = None if self._strike is None else self._strike.event
        strike = self._strike
        place = str(self._folder.parent)

        def heard(name: str, arguments: tuple[object, ...]) -> None:
            if name in FILE_EVENTS and str(arguments[0]).startswith(place):
                events[0] += 1
                if events[0] == strike_at and strike is not None:
                    os.kill(os.getpid(), strike.number)

        sys.addaudithook(heard)
        return events

    def ended(self) -> Ended:
        """Waits for the end, and strikes in between where a moment was given."""
        strike = self._strike
        if strike is not None and strike.seconds is not None:
            time.sleep(max(0.0, self._begun_s + strike.seconds - time.monotonic()))
            os.kill(self._pid, strike.number)
        while True:
            found, status = os.waitpid(self._pid, os.WNOHANG)
            if found:
                break
            if time.monotonic() > self._begun_s + LIMIT_S:
                os.killpg(self._pid, signal.SIGKILL)
            time.sleep(0.005)
        seconds = time.monotonic() - self._begun_s
        said = {name: path.read_text(errors="replace") if path.exists() else "" for name, path in self._files.items()}
        for path in self._files.values():
            path.unlink(missing_ok=True)
        code = os.waitstatus_to_exitcode(status)
        return Ended(code, said["shown"], said["errors"], int(said["events"] or 0), seconds)


def run(command: Sequence[str], folder: Path, strike: Strike | None = None) -> Ended:
    """A command from its beginning to its end."""
    return Running(command, folder, strike).ended()
