"""Whether a start has seen images that a training is judged on: their scores would say nothing of new patients."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

from segfw.base.records import UserError
from segfw.base.words import count
from segfw.dataset.cases import Case
from segfw.images.image_hash import image_sha256
from segfw.model.pretraining_record import PretrainingRecord


def seen_cases(record: PretrainingRecord, cases: Sequence[Case]) -> list[str]:
    """Ids of the cases whose image files, byte for byte, were pretrained on, whatever they were called there."""
    digests = {image.sha256 for image in record.seen}
    return [case.id for case in cases if image_sha256(case.images) in digests]


def require_unseen(start: Path, record: PretrainingRecord, validation: Sequence[Case], *, may_have_seen: bool) -> None:
    """UserError if a start has seen validation images, unless that is allowed; then it is said."""
    seen = seen_cases(record, validation)
    if not seen:
        return
    what = f"{start}: was pretrained on {count(len(seen), 'image')} of the {len(validation)} that validate ({seen[0]})"
    if not may_have_seen:
        raise UserError(
            f"{what}; pretrain with these folds in --folds, or give --may-have-seen and distrust the scores"
        )
    print(f"note: {what}: the scores will be too good")
