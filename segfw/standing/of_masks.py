"""How far a folder of masks is: cases done, failed and left, and what they are made with."""

from __future__ import annotations

from pathlib import Path
from typing import Literal

from segfw.base.answers import Answer
from segfw.base.errors import UserError
from segfw.base.file_names import (
    ENSEMBLE_SETTINGS_FILE,
    FORMAT_FOLDERS,
    HIDDEN,
    MASK_SETTINGS_FILE,
    QUALITY_FOLDER,
    QUALITY_TABLE_FILE,
)
from segfw.base.locks import is_held
from segfw.base.parallel import Failures
from segfw.base.shell_line import shell_line
from segfw.base.words import count, listed
from segfw.evaluation.mask_facts import read_mask_facts
from segfw.images.formats import split_ending
from segfw.inference.prediction_calls import PredictionCall, read_calls
from segfw.standing.facts import Facts
from segfw.standing.of_review import ReviewFacts

NAMED = 5  # cases that a line lists
VERDICTS = ("use", "look", "do-not-use")  # from the best on, as quality/CASE.json has them


class MaskSettings(Facts):
    """Of prediction.json."""

    configuration: str
    folds: tuple[str, ...]


class CaseTimesKept(Facts):
    """Of what is known of a mask."""

    id: str
    seconds: dict[str, float]


class FilesKept(Facts):
    """Of the same: the files of the mask."""

    id: str
    files: tuple[str, ...] = ()


class VerdictKept(Facts):
    """Of a structure in quality/CASE.json."""

    verdict: str


class QualityKept(Facts):
    """Of quality/CASE.json."""

    structures: tuple[VerdictKept, ...]


class MasksStanding(Answer):
    """How far a folder of masks is.

    ``left`` are cases that were asked for and are neither done nor failed; empty, too, where an older version did not
    keep what was asked for (``is_left_known``). ``in_work`` are those that a process is at now. Seconds are the sum of
    reading, network and writing, of which some overlap; what is left of them is an estimate. ``only`` are the
    structures that alone the masks were made for; empty: all. ``verdicts`` are how many masks have which verdict on
    the structure that is trusted least ('use', 'look', 'do-not-use'); None where the model was not calibrated.
    ``review`` is how far people are that review the masks; None if nobody has begun.
    """

    kind: Literal["masks"] = "masks"
    path: Path
    made_by: Literal["predict", "ensemble"]
    model: Path | None
    images: Path | None
    configuration: str
    folds: tuple[str, ...]
    only: tuple[str, ...]
    done: tuple[str, ...]
    failed: tuple[str, ...]
    left: tuple[str, ...]
    in_work: tuple[str, ...]
    is_left_known: bool
    started: str | None
    seconds_spent: float
    seconds_left: float | None
    verdicts: dict[str, int] | None = None
    review: ReviewFacts | None = None
    next: str

    @property
    def exit_code(self) -> int:
        return 0 if self.review is None or self.review.is_unchanged else 1

    def text(self) -> str:
        """A few lines, and the next command."""
        of_model = f" of {self.model}" if self.model is not None else ""
        folds = f", folds {', '.join(self.folds)}" if self.folds else ""
        left = str(len(self.left)) if self.is_left_known else "it is not known how many"
        lines = [
            f"{self.path}: {count(len(self.done), 'mask')} by segfw {self.made_by}",
            f"made with {self.configuration or 'several models'}{of_model}{folds}",
            f"{len(self.done)} done, {len(self.failed)} failed, {left} left, {len(self.in_work)} being worked on now",
        ]
        if self.only:
            lines.append(f"made for {listed(self.only, 'and')} alone; of other structures the masks do not tell")
        if self.verdicts is not None:
            doubtful = self.verdicts["look"] + self.verdicts["do-not-use"]
            lines.append(
                f"quality: {doubtful} of {count(sum(self.verdicts.values()), 'judged mask')} doubtful, of which "
                f"{self.verdicts['do-not-use']} not to be used; the least trusted first in {QUALITY_TABLE_FILE}"
            )
        for what, cases in (("failed", self.failed), ("left", self.left)):
            if cases:
                lines.append(f"{what}: {', '.join(cases[:NAMED])}{' ...' if len(cases) > NAMED else ''}")
        if self.seconds_spent:
            each = f", {self.seconds_spent / max(1, len(self.done)):.1f} s a case"
            lines.append(f"spent: {self.seconds_spent:.0f} s{each}")
        if self.seconds_left:
            lines.append(f"left, estimated from the cases so far: {self.seconds_left:.0f} s")
        if self.review is not None:
            lines += self.review.lines()
        return "\n".join([*lines, f"next: {self.next}"])

    def with_review(self, review: ReviewFacts) -> MasksStanding:
        """The same of a folder that people review."""
        next_step = shell_line("segfw", "review", self.path)
        if not review.left and not review.log_problem:
            next_step = shell_line("segfw", "deliver", self.path, "DELIVERED")
        return self.model_copy(update={"review": review, "next": next_step})


def masks_standing(path: Path) -> MasksStanding | None:
    """How far a folder of masks is; None if it is none. UserError if its record is damaged.

    How far people are that review it is told by ``standing/of_review.py``.
    """
    is_predicted = (path / MASK_SETTINGS_FILE).is_file()
    if not is_predicted and not (path / ENSEMBLE_SETTINGS_FILE).is_file():
        return None
    settings = MaskSettings(configuration="", folds=())
    if is_predicted:
        settings = MaskSettings.load(path / MASK_SETTINGS_FILE)
    calls = read_calls(path)
    done = _masks(path)
    failed = tuple(case for case in _failed(path) if case not in done)
    asked = {case for call in calls for case in call.cases}
    left = tuple(sorted(asked - set(done) - set(failed)))
    seconds = _seconds(path, done)
    only = read_mask_facts(path).only
    verdicts = _verdicts(path, done)
    return MasksStanding(
        path=path,
        made_by="predict" if is_predicted else "ensemble",
        model=calls[-1].model if calls else None,
        images=calls[-1].images if calls else None,
        configuration=settings.configuration,
        folds=settings.folds,
        only=only,
        done=done,
        failed=failed,
        left=left,
        in_work=tuple(case for case in left if is_held(path / HIDDEN / f"{case}.lock")),
        is_left_known=bool(calls),
        started=calls[0].started if calls else None,
        seconds_spent=sum(seconds),
        seconds_left=len(left) * sum(seconds) / len(seconds) if seconds else None,
        verdicts=verdicts,
        next=_next(path, calls, only, is_whole=not left and not failed, is_judged=verdicts is not None),
    )


def _masks(path: Path) -> tuple[str, ...]:
    files = [each for each in path.iterdir() if each.is_file() and not each.name.startswith(".")]
    found = {split_ending(each)[0] for each in files if split_ending(each)[1]}
    # Of formats that have a folder of their name
    for folder, ending in FORMAT_FOLDERS.items():
        found |= {each.name.removesuffix(ending) for each in (path / folder).glob(f"[!.]*{ending}")}
    return tuple(sorted(found | _recorded(path)))


def _recorded(path: Path) -> set[str]:
    """Cases of whose masks all files are there, by what ``predict`` keeps of them."""
    found = set()
    for file in (path / HIDDEN).glob("[!.]*.json"):
        try:
            known = FilesKept.load(file)
        except UserError:  # of another version
            continue
        if known.files and all((path / each).is_file() for each in known.files):
            found.add(known.id)
    return found


def _failed(path: Path) -> list[str]:
    found: set[str] = set()
    for file in path.glob("failures*.json"):
        try:
            found |= Failures.load(file).failed.keys()
        except UserError:  # of another version
            continue
    return sorted(found)


def _seconds(path: Path, done: tuple[str, ...]) -> list[float]:
    seconds = []
    for case in done:
        file = path / HIDDEN / f"{case}.json"
        try:
            if file.is_file():
                seconds.append(sum(CaseTimesKept.load(file).seconds.values()))
        except UserError:  # of another version
            continue
    return seconds


def _verdicts(path: Path, done: tuple[str, ...]) -> dict[str, int] | None:
    """How many masks have which verdict on their least trusted structure; None if none was judged."""
    numbers = dict.fromkeys(VERDICTS, 0)
    for case in done:
        file = path / QUALITY_FOLDER / f"{case}.json"
        try:
            kept = QualityKept.load(file).structures if file.is_file() else ()
        except UserError:  # of another version
            continue
        found = [VERDICTS.index(each.verdict) for each in kept if each.verdict in VERDICTS]
        if found:
            numbers[VERDICTS[max(found)]] += 1
    return numbers if any(numbers.values()) else None


def _next(path: Path, calls: list[PredictionCall], only: tuple[str, ...], *, is_whole: bool, is_judged: bool) -> str:
    if is_whole and is_judged:  # as predict says
        return shell_line("segfw", "queue", path)
    if is_whole or not calls:
        return shell_line("segfw", "evaluate", path, "EXPERT_MASKS", "--output", "scores.json")
    part = [] if calls[-1].part == "1/1" else ["--part", calls[-1].part]
    part += ["--only", ",".join(only)] if only else []
    return shell_line("segfw", "predict", calls[-1].model, calls[-1].images, path, *part)
