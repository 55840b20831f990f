"""Pretrainings in a work folder: how far they are, and whether they are still of its plan and its folds."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any, Literal

from pydantic import JsonValue

from segfw.base.locks import holder_now
from segfw.base.options import WrongOption
from segfw.base.records import Record, UserError
from segfw.base.settings_file import typed_words
from segfw.base.shell_line import shell_line
from segfw.base.words import count
from segfw.pretraining.pretrain_options import DECISIVE, PretrainOptions
from segfw.standing.facts import Facts, PlanFacts

FOLDER = "pretrained"  # in a work folder, with one folder a configuration
RECORD_FILE = "pretraining.json"


class EndFacts(Facts):
    """What a finished pretraining came to."""

    explained: float | None = None


class ImageFacts(Facts):
    """An image of a pretraining."""

    id: str


class PretrainingFacts(Facts):
    """Of pretraining.json."""

    configuration: str
    network: dict[str, JsonValue]
    asked: dict[str, JsonValue]
    folds: tuple[str, ...]
    seen: tuple[ImageFacts, ...]
    kept_out: tuple[ImageFacts, ...]
    end: EndFacts | None = None


class PretrainingStanding(Record):
    """How far a pretraining is. ``outdated`` says why no training should begin with it, '' where one may.

    ``again`` is the command that goes on with it, or makes anew what is outdated; '' where there is nothing to do.
    """

    configuration: str
    folder: Path
    state: Literal["running", "interrupted", "finished"]
    images: int
    kept_out: int
    folds: tuple[str, ...]
    explained: float | None
    outdated: str
    again: str

    def text(self) -> str:
        """A line; a second one where it is outdated."""
        explained = "" if self.explained is None else f", {self.explained:.1%} of hidden voxels' squares explained"
        unseen = f", {self.kept_out} kept out" if self.kept_out else ""
        scored = f", none that fold {', '.join(self.folds)} scores" if self.folds else ""
        line = (
            f"pretraining of {self.configuration}: {self.state}, {count(self.images, 'image')}{unseen}{scored}"
            f"{explained}"
        )
        return f"{line}\n  outdated: {self.outdated}; anew by: {self.again}" if self.outdated else line


def pretrainings_in(
    work: Path, plan: PlanFacts, validation: Mapping[str, tuple[str, ...]]
) -> list[PretrainingStanding]:
    """All pretrainings of a work folder; ``validation`` are the cases that each fold validates on now."""
    records = sorted((work / FOLDER).glob(f"*/{RECORD_FILE}"))
    return [_standing(path.parent, work, plan, validation, PretrainingFacts.load(path)) for path in records]


def _standing(
    folder: Path,
    work: Path,
    plan: PlanFacts,
    validation: Mapping[str, tuple[str, ...]],
    record: PretrainingFacts,
) -> PretrainingStanding:
    is_running = holder_now(folder.with_name(f".{folder.name}.lock")) is not None
    state: Literal["running", "interrupted", "finished"] = "interrupted" if record.end is None else "finished"
    outdated = _outdated(plan, validation, record)
    anew = ["--overwrite"] if outdated else []
    has_more = not is_running and (outdated or state == "interrupted")
    return PretrainingStanding(
        configuration=record.configuration,
        folder=folder,
        state="running" if is_running else state,
        images=len(record.seen),
        kept_out=len(record.kept_out),
        folds=record.folds,
        explained=None if record.end is None else record.end.explained,
        outdated=outdated,
        again=shell_line(*_words(folder, work, record), *anew) if has_more else "",
    )


def _outdated(plan: PlanFacts, validation: Mapping[str, tuple[str, ...]], record: PretrainingFacts) -> str:
    """Why it is no longer of the work folder's plan and folds; '' where it is."""
    planned = plan.configurations.get(record.configuration)
    if planned is None:
        return "the plan has no such configuration any more"
    # One output for each channel stands there in place of the classes.
    known = (record.network.keys() & planned.network.keys()) - {"classes"}
    if any(record.network[name] != planned.network[name] for name in known):
        return "the plan has another network now"
    seen = {image.id for image in record.seen}
    for fold in record.folds:
        leaked = [case for case in validation.get(fold, ()) if case in seen]
        if leaked:
            return f"it has seen {leaked[0]}, which fold {fold} validates on now"
    return ""


def _words(folder: Path, work: Path, record: PretrainingFacts) -> list[str]:
    """The command that it was begun with."""
    asked: dict[str, Any] = {name: record.asked[name] for name in DECISIVE if name in record.asked}
    try:
        options = PretrainOptions(**asked)
    except WrongOption as error:
        raise UserError(f"{folder / RECORD_FILE}: asked.{error.name} {error.problem}") from None
    return ["segfw", "pretrain", str(work), record.configuration, *typed_words(options)]
