"""Runs the campaign: each damaged file is read by a process of its own, with a limit of time and memory."""

from __future__ import annotations

import contextlib
import ctypes
import os
import resource
import select
import signal
import sys
import tempfile
import time
import traceback
from collections import Counter
from collections.abc import Callable
from pathlib import Path
from random import Random
from typing import NamedTuple

from fuzz.targets import TARGETS, Target
from segfw.base.errors import UserError

LIMIT_CPU_S = 20
LIMIT_S = 120.0  # by the clock, for what waits for ever; a busy machine takes its time
LIMIT_BYTES = 2 * 1024**3  # beyond what the process has before it reads
MOST_MESSAGE = 2000  # characters
READ = "read"
REFUSED = "refused"
FAULTS = ("traceback", "no sentence", "other voxels", "hang", "died")


class Result(NamedTuple):
    """What became of one damaged file: READ, REFUSED or a fault, and what was said."""

    outcome: str
    text: str
    seconds: float
    memory_mb: float  # more than before the file was read
    cpu_s: float = 0.0


class Tried(NamedTuple):
    """A damaged file: which, how and what came of it."""

    target: str
    mutation: str
    number: int
    content: bytes
    result: Result


def in_worker(read: Callable[[], object]) -> Result:
    """Calls ``read`` in a forked process, which may take LIMIT_CPU_S, LIMIT_S and LIMIT_BYTES."""
    _give_back_free_memory()
    from_worker, to_parent = os.pipe()
    begun_s = time.monotonic()
    pid = os.fork()
    if not pid:
        _work(read, to_parent)
    os.close(to_parent)
    said = b""
    is_done = False
    try:
        while not is_done and select.select([from_worker], [], [], max(0.0, begun_s + LIMIT_S - time.monotonic()))[0]:
            part = os.read(from_worker, 1 << 16)
            said += part
            is_done = not part
        if not is_done:
            os.kill(pid, signal.SIGKILL)
    finally:
        _, status, usage = os.wait4(pid, 0)
        os.close(from_worker)
    seconds = time.monotonic() - begun_s
    before_kb, _, answer = said.decode(errors="replace").partition("\n")
    outcome, _, text = answer.partition("\n")
    memory_mb = (usage.ru_maxrss - int(before_kb or 0)) / 1024
    if not is_done or os.waitstatus_to_exitcode(status) == -signal.SIGXCPU:
        outcome, text = "hang", f"longer than {LIMIT_CPU_S} s of a processor, or {LIMIT_S:.0f} s by the clock"
    elif not outcome or status:
        outcome, text = "died", f"status {status} {answer}"
    return Result(outcome, text, seconds, memory_mb, usage.ru_utime + usage.ru_stime)


def _give_back_free_memory() -> None:
    """Else the forked process takes what this one freed and still holds, which would not count as memory taken."""
    with contextlib.suppress(OSError, AttributeError):  # not glibc
        ctypes.CDLL("libc.so.6").malloc_trim(0)


def _work(read: Callable[[], object], to_parent: int) -> None:
    """The forked process; never returns."""
    try:
        mapped = int(Path("/proc/self/statm").read_text().split()[0]) * resource.getpagesize()
        resource.setrlimit(resource.RLIMIT_AS, (mapped + LIMIT_BYTES,) * 2)
        resource.setrlimit(resource.RLIMIT_CPU, (LIMIT_CPU_S, LIMIT_CPU_S + 1))
        nowhere = os.open(os.devnull, os.O_WRONLY)
        os.dup2(nowhere, 1)
        os.dup2(nowhere, 2)
        os.write(to_parent, f"{resource.getrusage(resource.RUSAGE_SELF).ru_maxrss}\n".encode())
        outcome, text = _outcome(read)
        with os.fdopen(to_parent, "wb") as pipe:
            pipe.write(f"{outcome}\n{text}".encode(errors="backslashreplace"))
    finally:
        os._exit(0)


def _outcome(read: Callable[[], object]) -> tuple[str, str]:
    try:
        value = read()
    except UserError as error:
        text = str(error)
        is_sentence = text and "\n" not in text and len(text) < MOST_MESSAGE and "/" in text
        return (REFUSED if is_sentence else "no sentence"), text
    except BaseException:
        return "traceback", traceback.format_exc()
    return READ, repr(value)[:MOST_MESSAGE]


def _judged(target: Target, mutation: str, content: bytes, damaged: bytes, result: Result, whole: str) -> Result:
    """The result, or that voxels were read which were not stored."""
    if result.outcome != READ or result.text == whole or not target.holds_voxels:
        return result
    if mutation == "a cut" or (mutation == "a bit" and _is_under_checksum(target, content, damaged)):
        return result._replace(outcome="other voxels")
    return result


def _is_under_checksum(target: Target, content: bytes, damaged: bytes) -> bool:
    if target.has_checksum_from is None:
        return False
    first_changed = next(place for place, (old, new) in enumerate(zip(content, damaged)) if old != new)
    return first_changed >= target.has_checksum_from(content)


def campaign(
    seed: int,
    is_over: Callable[[int], bool],
    heard: Callable[[Tried], None],
    names: tuple[str, ...] = tuple(TARGETS),
) -> None:
    """Damages file after file until ``is_over`` (of how many were tried) says so, and hands on what came of each.

    Each target has its turn. The same seed and number give the same damage, whatever was damaged before.
    """
    with tempfile.TemporaryDirectory() as place:
        files = {}
        for index, name in enumerate(names):
            folder = Path(place) / f"{index:02}"
            folder.mkdir()
            made = in_worker(lambda name=name, folder=folder: TARGETS[name].make(folder))
            if made.outcome != READ:
                raise RuntimeError(f"{name}: the whole file could not be made: {made.text}")
            files[name] = Path(made.text.split("'")[1])
        wholes = {}
        for name in names:
            whole = in_worker(lambda name=name: TARGETS[name].read(files[name]))
            if whole.outcome != READ and name != ".hdr and .img":
                raise RuntimeError(f"{name}: the whole file is not read: {whole.text}")
            wholes[name] = whole.text
        number = 0
        while not is_over(number):
            name = names[number % len(names)]
            target = TARGETS[name]
            draw = Random(f"{seed} {name} {number // len(names)}")
            mutation = draw.choice(sorted(target.mutations))
            content = files[name].read_bytes()
            damaged = target.mutations[mutation](content, draw)
            files[name].write_bytes(damaged)
            try:
                result = in_worker(lambda name=name, target=target: target.read(files[name]))
            finally:
                files[name].write_bytes(content)
            result = _judged(target, mutation, content, damaged, result, wholes[name])
            heard(Tried(name, mutation, number // len(names), damaged, result))
            number += 1


def report(tried: list[Tried], stream: object = sys.stdout) -> str:
    """The table of counts by kind of file and outcome, and the largest time and memory of each."""
    outcomes = (READ, REFUSED, *FAULTS)
    lines = [f"{'':32}" + "".join(f"{name:>14}" for name in (*outcomes, "longest s", "most MB"))]
    for name in sorted({each.target for each in tried}):
        of_name = [each.result for each in tried if each.target == name]
        counts = Counter(result.outcome for result in of_name)
        longest_s = max(result.seconds for result in of_name)
        most_mb = max(result.memory_mb for result in of_name)
        cells = "".join(f"{counts[outcome]:>14}" for outcome in outcomes)
        lines.append(f"{name:32}{cells}{longest_s:>14.1f}{most_mb:>14.0f}")
    counts = Counter(each.result.outcome for each in tried)
    lines.append(f"{'all':32}" + "".join(f"{counts[outcome]:>14}" for outcome in outcomes))
    return "\n".join(lines)


def kept(tried: Tried, folder: Path) -> None:
    """Writes a damaged file that found a fault, and what came of it."""
    folder.mkdir(parents=True, exist_ok=True)
    stem = f"{tried.target}-{tried.number}".replace(" ", "_").replace("/", "_")
    with contextlib.suppress(OSError):
        (folder / f"{stem}.damaged").write_bytes(tried.content)
        (folder / f"{stem}.txt").write_text(f"{tried.mutation}: {tried.result.outcome}\n{tried.result.text}\n")
