"""Whether a start has seen images that a training is judged on: their scores would say nothing of new patients."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path

from segfw.base.records import UserError
from segfw.base.words import count
from segfw.dataset.cases import Case
from segfw.model.pretraining_record import PretrainingRecord
from segfw.pretraining.given_start import GivenStart
from segfw.pretraining.seen_images import seen_cases


def require_unseen(start: GivenStart, validation: Sequence[Case], preprocessed: Path, *, may_have_seen: bool) -> None:
    """UserError if a start has seen validation images, unless that is allowed; then it is said."""
    seen = _seen_by(start, validation, preprocessed)
    if not seen:
        return
    images = count(len(seen), "image")
    case, how = next(iter(seen.items()))
    what = f"{start.path}: was pretrained on {images} of the {len(validation)} that validate ({case}, {how})"
    if not may_have_seen:
        raise UserError(
            f"{what}; pretrain with these folds in --folds, or give --may-have-seen and distrust the scores"
        )
    print(f"note: {what}: the scores will be too good")


def require_not_scored(
    start: GivenStart, scored: Sequence[Case], preprocessed: Path, fold: str, *, may_have_seen: bool
) -> dict[str, str]:
    """Which cases that all arms of a comparison are scored on a start is known to have seen, and what tells so.

    UserError if there are any, unless that is allowed; then it is said.
    """
    seen = _seen_by(start, scored, preprocessed)
    if seen:
        case, how = next(iter(seen.items()))
        what = f"--init-from {start.path}: was pretrained on {case} ({how}), which fold {fold} validates on"
        if not may_have_seen:
            raise UserError(
                f"{what}; give a start that has not seen what is scored, or give --may-have-seen and distrust its "
                "scores"
            )
        print(f"note: {what}: unless that is wrong, its scores will be too good")
    return seen


def _seen_by(start: GivenStart, cases: Sequence[Case], preprocessed: Path) -> dict[str, str]:
    """By id each case that a start was pretrained on, as far as it has a record, and what tells so."""
    record = start.pretraining
    return {} if record is None else seen_cases(start.folder, record, cases, preprocessed)


def pretraining_guard(record: PretrainingRecord, fold: str) -> str:
    """What is known of the images that a comparison's own network was pretrained on, as a sentence."""
    more = f"; {count(len(record.kept_out), 'image')} more stayed unseen" if record.kept_out else ""
    return f"Pretrained on {count(len(record.seen), 'image')}, none of which fold {fold} validates on{more}."


def model_guard(start: GivenStart, fold: str, seen: Mapping[str, str]) -> str:
    """What is known of the images that a given start has seen, as a sentence; ``seen`` are scored cases among them."""
    name = start.path.name
    if start.pretraining is not None:
        images = count(len(start.pretraining.seen), "image")
        if seen:
            case, how = next(iter(seen.items()))
            return (
                f"The given start {name} was pretrained on {images}, and {len(seen)} of them seem to be what fold "
                f"{fold} validates on ({case}, {how}), which --may-have-seen allowed: unless that is wrong, its scores "
                "are too good and its gains count for nothing."
            )
        return f"The given start {name} was pretrained on {images}, none of which fold {fold} validates on."
    if start.is_published:
        return (
            f"Of the published start {name} nobody here knows which images it has seen: if the scored ones are public, "
            "they may be among them."
        )
    return (
        f"Nothing is known here of the images that the given model {name} was trained on: if those that fold {fold} "
        "validates on are among them, its scores are too good."
    )
