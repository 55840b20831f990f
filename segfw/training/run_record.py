"""run.json: what a run was made with, so that it can be told apart from another and made again."""

from __future__ import annotations

import hashlib
import os
import platform
import re
import shlex
import subprocess
import sys
from collections.abc import Sequence
from datetime import UTC, datetime
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path
from typing import Literal

import torch
from pydantic import JsonValue

from segfw.base.device import device_name
from segfw.base.records import Record, UserError
from segfw.grid.store import load_stored
from segfw.training.settings import TrainSettings

RUN_FILE = "run.json"
PACKAGE = Path(__file__).parents[1]
PACKAGES = ("segfw", "torch", "numpy", "scipy", "blosc2", "safetensors", "pydantic", "monai", "batchgenerators")
SAMPLED_BYTES = 1 << 16  # of each stored file: with its size enough to tell data apart, without reading it all
HOMES = re.compile(r"(/home|/Users|[A-Za-z]:[\\/]+Users)[\\/]+[^\\/\s'\":]+")


class GitState(Record):
    """Commit that the code was checked out at; ``is_changed`` if files of the package differ from it."""

    commit: str
    is_changed: bool


class Session(Record):
    """One process, or group of processes, that trained; a run that was resumed or extended has several.

    Names of people, hosts and home folders are left out, since runs are handed on with their models.
    """

    how: Literal["started", "resumed", "extended"]
    started: str  # ISO 8601, UTC
    first_epoch: int  # counted from 1
    command: str
    settings: dict[str, JsonValue]
    device: str
    precision: str
    processes: int
    threads: int  # of each process
    versions: dict[str, str]
    system: str
    git: GitState | None  # None where the code is no checkout
    data_digest: str  # of the training cases as stored


class RunRecord(Record):
    """All sessions of one run, the oldest first."""

    label_names: tuple[str, ...]
    sessions: tuple[Session, ...]


def note_session(
    folder: Path,
    *,
    how: Literal["started", "resumed", "extended"],
    first_epoch: int,
    settings: TrainSettings,
    device: torch.device,
    precision: torch.dtype,
    label_names: Sequence[str],
    preprocessed: Path,
    training_ids: Sequence[str],
    processes: int = 1,
) -> RunRecord:
    """Writes ``folder/run.json``, or adds to that of the run that goes on, and returns it.

    ``training_ids`` are the cases in ``preprocessed`` that are trained on. A run.json that cannot be read is begun
    anew, with a note, because a log must not keep a run from going on.
    """
    session = Session(
        how=how,
        started=datetime.now(UTC).isoformat(timespec="seconds"),
        first_epoch=first_epoch,
        command=_nameless(_command_line()),
        settings={key: _nameless_json(value) for key, value in settings.as_json().items()},
        device=_device(device),
        precision=str(precision).removeprefix("torch."),
        processes=processes,
        threads=torch.get_num_threads(),
        versions=_versions(device),
        system=platform.platform(),
        git=git_state(PACKAGE),
        data_digest=data_digest(preprocessed, training_ids),
    )
    path, before = folder / RUN_FILE, ()
    if how != "started" and path.is_file():
        try:
            before = RunRecord.load(path).sessions
        except UserError as error:
            print(f"note: {error}; it is begun anew")
    record = RunRecord(label_names=tuple(label_names), sessions=(*before, session))
    record.save(path)
    return record


def data_digest(folder: Path, case_ids: Sequence[str]) -> str:
    """Digest of preprocessed cases: what was done to each, and the size and beginning of its stored arrays.

    The same on every machine and in every folder that hold the same cases, in whatever order; not a proof that every
    byte is the same.
    """
    digest = hashlib.sha256()
    for case_id in sorted(case_ids):
        stored = load_stored(folder, case_id)
        # Paths and times of the source files say where the data lie, not what they are.
        digest.update(stored.model_dump_json(exclude={"sources"}).encode())
        for part in ("image", "classes", "foreground"):
            path = folder / f"{case_id}.{part}.b2nd"
            digest.update(f"{path.stat().st_size}".encode())
            with open(path, "rb") as file:
                digest.update(file.read(SAMPLED_BYTES))
    return digest.hexdigest()


def git_state(package: Path) -> GitState | None:
    """State of the checkout that holds ``package``; None if there is none, or no git."""

    def git(*words: str) -> str:
        return subprocess.run(
            ["git", "-C", str(package), *words],
            capture_output=True,
            text=True,
            check=True,
            timeout=10,
            env=os.environ | {"GIT_OPTIONAL_LOCKS": "0"},  # asking must not write into the checkout
        ).stdout.strip()

    try:
        # An installed package may lie inside of the repository of something else.
        git("ls-files", "--error-unmatch", "__init__.py")
        return GitState(commit=git("rev-parse", "HEAD"), is_changed=bool(git("status", "--porcelain", "--", ".")))
    except (OSError, subprocess.SubprocessError, UnicodeDecodeError):
        return None


def _command_line() -> str:
    program = Path(sys.argv[0])
    name = f"python -m {program.parent.name}" if program.name == "__main__.py" else program.name
    return f"{name} {shlex.join(sys.argv[1:])}".strip()


def _nameless(text: str) -> str:
    """The text without the names of home folders, which are those of people."""
    return HOMES.sub("~", text.replace(str(Path.home()), "~"))


def _nameless_json(value: JsonValue) -> JsonValue:
    if isinstance(value, str):
        return _nameless(value)
    return [_nameless_json(item) for item in value] if isinstance(value, list) else value


def _device(device: torch.device) -> str:
    if device.type != "cpu":
        return device_name(device)
    return f"CPU ({platform.processor() or platform.machine()}, {torch.backends.cpu.get_cpu_capability()})"


def _versions(device: torch.device) -> dict[str, str]:
    versions = {"python": platform.python_version()}
    for name in PACKAGES:
        try:
            versions[name] = version(name)
        except PackageNotFoundError:  # an optional one, or segfw itself run from its sources
            continue
    if device.type == "cuda":
        versions |= {"cuda": torch.version.cuda or "none", "cudnn": str(torch.backends.cudnn.version())}
    return versions
