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
from segfw.base.records import UserError
from segfw.base.words import count
from segfw.grid.store import load_stored
from segfw.model.training_record import (
    RUN_FILE,
    GitState,
    RunRecord,
    Session,
    StartFacts,
    TrainingEnd,
    read_run_record,
)
from segfw.planning.plan import Configuration
from segfw.planning.splits import Fold
from segfw.training.settings import TrainSettings

PACKAGE = Path(__file__).parents[1]
PACKAGES = ("segfw", "torch", "numpy", "scipy", "blosc2", "safetensors", "pydantic", "monai", "batchgenerators")
SAMPLED_BYTES = 1 << 16  # of each stored file: with its size enough to tell data apart, without reading it all
HOMES = re.compile(r"(/home|/Users|[A-Za-z]:[\\/]+Users)[\\/]+[^\\/\s'\":]+")


def describe_session(
    *,
    how: Literal["started", "resumed", "extended"],
    first_epoch: int,
    settings: TrainSettings,
    device: torch.device,
    precision: torch.dtype,
    preprocessed: Path,
    training_ids: Sequence[str],
    processes: int = 1,
    expected: str = "",
) -> Session:
    """What this process trains with. ``training_ids`` are the cases in ``preprocessed`` that are trained on."""
    return Session(
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
        expected=expected,
    )


def note_session(
    folder: Path, session: Session, label_names: Sequence[str], start: StartFacts | None = None
) -> RunRecord:
    """Writes ``folder/run.json``, or adds to that of the run that goes on, and returns it.

    ``start`` are the weights that a new run begins with.

    A run.json that cannot be read is begun anew, with a note, because a log must not keep a run from going on.
    """
    before: RunRecord | None = None
    if session.how != "started":
        try:
            before = read_run_record(folder)
        except UserError as error:
            print(f"note: {error}; it is begun anew")
    sessions = () if before is None else before.sessions
    begun_with = start if before is None else before.start
    record = RunRecord(label_names=tuple(label_names), sessions=(*sessions, session), start=begun_with)
    record.save(folder / RUN_FILE)
    return record


def facts_of(session: Session, configuration: Configuration, fold: Fold) -> dict[str, str]:
    """What a session trains with, for people: on which cases and patches, and by which machine."""
    settings = session.settings
    patch = " × ".join(str(size) for size in configuration.patch_size)
    packages = [f"{name} {number}" for name, number in session.versions.items() if name in ("segfw", "torch", "python")]
    momentum = float(str(settings["momentum"]))
    return {
        "Cases": f"{len(fold.train)} to train on, {len(fold.validation) or 'none'} to validate on",
        "Step": f"{count(int(str(settings['batch_size'])), 'patch')} of {patch} voxels (z, y, x)",
        "Learning rate": f"{float(str(settings['learning_rate'])):.3g} at the start, momentum {momentum:.3g}",
        "Device": f"{session.device}, {session.precision}",
        "Processes": f"{count(session.processes, 'process')} of {count(session.threads, 'thread')}",
        "Versions": ", ".join(packages),
        "Command": session.command,
    }


def note_end(folder: Path, end: TrainingEnd) -> None:
    """Adds to run.json how much was trained."""
    _add(folder, {"end": end}, "the length of the training")


def note_last_page(folder: Path) -> None:
    """Adds to run.json that the page of the run says that it is over."""
    _add(folder, {"has_last_page": True}, "that the last page is written")


def _add(folder: Path, update: dict[str, object], what: str) -> None:
    """Changes run.json; one that cannot be read or written is left as it is, with a note."""
    try:
        record = read_run_record(folder)
        if record is not None:
            record.model_copy(update=update).save(folder / RUN_FILE)
    except (OSError, UserError) as error:
        print(f"note: {error}; {what} is not added to it")


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
            if not stored.has_mask and not path.is_file():  # an image alone
                continue
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
