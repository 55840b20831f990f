"""A study of an outcome that ``segfw outcome`` wrote: its figures, whether they are outdated, and what comes next."""

from __future__ import annotations

import os
from collections.abc import Mapping
from pathlib import Path
from typing import Any, Literal

from segfw.base.answers import Answer
from segfw.base.errors import UserError
from segfw.base.records import Record
from segfw.base.settings_file import typed_words
from segfw.base.shell_line import shell_line
from segfw.base.words import count, listed
from segfw.base.written_by_people import read_json
from segfw.outcomes.outcome_options import OutcomeOptions

REPORT_FILE = "outcome.json"
MODEL_FILE = "outcome_model.json"


class AucFacts(Record):
    """The AUC of a model on patients that it was not fitted to, with its 95 % interval."""

    auc: float
    low: float
    high: float


class OutcomeStanding(Answer):
    """What a study found. ``models`` are judged on held-out patients, ``tested`` on a second cohort, by model.

    ``changed`` are files that it was made of and that were written since.
    """

    kind: Literal["outcome"] = "outcome"
    path: Path
    target: str
    event: str
    patients: int
    events: int
    explore: bool
    models: dict[str, AucFacts]
    tested: dict[str, AucFacts]
    has_frozen_models: bool
    changed: tuple[str, ...]
    next: str

    def text(self) -> str:
        """A few lines, and the next command where there is one."""
        lines = [
            f"{self.path}: study of {self.target} ({self.event}), {count(self.patients, 'patient')}, "
            f"{count(self.events, 'event')}{', exploring only' if self.explore else ''}"
        ]
        for where, models in (("held out", self.models), ("second cohort", self.tested)):
            lines += [
                f"AUC, {where}, {name}: {of.auc:.2f} ({of.low:.2f} to {of.high:.2f})" for name, of in models.items()
            ]
        if self.models and not self.tested:
            lines.append("not tried on a second cohort yet")
        if self.changed:
            lines.append(
                f"outdated: {listed(self.changed, 'and')} {'was' if len(self.changed) == 1 else 'were'} written since"
            )
        return "\n".join([*lines, f"next: {self.next}"] if self.next else lines)


def outcome_standing(path: Path) -> OutcomeStanding | None:
    """What a study's folder or its outcome.json says; None if it is none."""
    report = path / REPORT_FILE if path.is_dir() else path
    if report.suffix.lower() != ".json" or not report.is_file():
        return None
    try:
        found = read_json(report)
        if found["kind"] != "outcome":
            return None
        asked = _asked(found)
        changed = tuple(each for each in _made_of(found, asked) if _is_newer(Path(each), report))
        test = found["test"]
        has_frozen_models = (report.parent / MODEL_FILE).is_file()
        return OutcomeStanding(
            path=path,
            target=found["target"],
            event=found["event"],
            patients=found["patients"],
            events=found["events"],
            explore=found["explore"],
            models=_aucs(found["models"]),
            tested={} if test is None else _aucs(test["models"]),
            has_frozen_models=has_frozen_models,
            changed=changed,
            next=_next(found, asked, report.parent, is_changed=bool(changed), has_frozen_models=has_frozen_models),
        )
    except (UserError, ValueError, KeyError, TypeError, AttributeError):
        return None


def _is_newer(file: Path, report: Path) -> bool:
    """Whether a file that is where it was when the study was made was written since."""
    # An expression that tells patients may be longer than any file's name, for which Path.is_file raises.
    return os.path.isfile(file) and file.stat().st_mtime_ns > report.stat().st_mtime_ns


def _aucs(models: Mapping[str, Mapping[str, Any]]) -> dict[str, AucFacts]:
    return {name: AucFacts(auc=of["auc"], low=of["auc_low"], high=of["auc_high"]) for name, of in models.items()}


def _asked(found: Mapping[str, Any]) -> OutcomeOptions:
    """The options of a study; of reports of before they were kept, what else tells of them."""
    if found.get("asked"):
        return OutcomeOptions(**found["asked"])
    columns = tuple(dict.fromkeys(str(name).split(" = ")[0] for name in found["covariates"]))
    second = found["test"] if found["models"] else None
    return OutcomeOptions(
        covariates=(",".join(columns),) if columns else None,
        event=str(found["event"]),
        explore=found["explore"],
        test=None if second is None else (Path(second["measures"]), Path(second["table"])),
    )


def _made_of(found: Mapping[str, Any], asked: OutcomeOptions) -> list[str]:
    """The files that a study was made of; none where it only tried a model that its report does not name."""
    if not found["models"] and asked.model is None:
        return []
    further = (asked.features, asked.by_patient, asked.model, *(asked.test or ()))
    return [str(each) for each in (found["measures"], found["table"], *further) if each is not None]


def _next(
    found: Mapping[str, Any], asked: OutcomeOptions, folder: Path, *, is_changed: bool, has_frozen_models: bool
) -> str:
    """The command that makes an outdated study again, or tries its frozen models on others; '' where they were."""
    target = ["--target", str(found["target"])]
    if is_changed:
        options = [*target, *typed_words(asked), "--output", str(folder)]
        return shell_line("segfw", "outcome", str(found["measures"]), str(found["table"]), *options)
    if has_frozen_models and found["test"] is None:
        model = ["--model", str(folder / MODEL_FILE), "--output", "TRIED"]
        return shell_line("segfw", "outcome", "OTHER_MEASURES", "OTHER_TABLE", *target, *model)
    return ""
