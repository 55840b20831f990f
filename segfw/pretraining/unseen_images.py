"""Whether a start has seen images that a training is judged on: their scores would say nothing of new patients."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

from segfw.base.records import UserError
from segfw.base.words import count
from segfw.dataset.cases import Case
from segfw.model.pretraining_record import PretrainingRecord
from segfw.pretraining.given_start import GivenStart
from segfw.pretraining.seen_images import seen_cases


def require_unseen(start: GivenStart, validation: Sequence[Case], preprocessed: Path, *, may_have_seen: bool) -> None:
    """UserError if a start has seen validation images, unless that is allowed; then it is said."""
    record = start.pretraining
    seen = {} if record is None else seen_cases(start.folder, record, validation, preprocessed)
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


def require_not_scored(start: GivenStart, scored: Sequence[Case], preprocessed: Path, fold: str) -> None:
    """UserError if a start is known to have seen what all arms of a comparison are scored on."""
    record = start.pretraining
    seen = {} if record is None else seen_cases(start.folder, record, scored, preprocessed)
    if seen:
        case, how = next(iter(seen.items()))
        raise UserError(
            f"--init-from {start.path}: was pretrained on {case} ({how}), which fold {fold} validates on; give a start "
            "that has not seen what is scored"
        )


def pretraining_guard(record: PretrainingRecord, fold: str) -> str:
    """What is known of the images that a comparison's own network was pretrained on, as a sentence."""
    more = f"; {count(len(record.kept_out), 'image')} more stayed unseen" if record.kept_out else ""
    return f"Pretrained on {count(len(record.seen), 'image')}, none of which fold {fold} validates on{more}."


def model_guard(start: GivenStart, fold: str) -> str:
    """What is known of the images that a given start has seen, as a sentence."""
    name = start.path.name
    if start.pretraining is not None:
        seen = count(len(start.pretraining.seen), "image")
        return f"The given start {name} was pretrained on {seen}, none of which fold {fold} validates on."
    if start.is_published:
        return (
            f"Of the published start {name} nobody here knows which images it has seen: if the scored ones are public, "
            "they may be among them."
        )
    return (
        f"Nothing is known here of the images that the given model {name} was trained on: if those that fold {fold} "
        "validates on are among them, its scores are too good."
    )
