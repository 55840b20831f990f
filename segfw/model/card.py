"""The card of a model file, ``model.json``: what it is, how it was trained, and a digest of everything beside it.

Every member is listed with its SHA-256. That tells a damaged file from a whole one; it does not tell who made it,
because whoever alters a member can alter the card too.
"""

from __future__ import annotations

from datetime import UTC, datetime
from pathlib import Path
from typing import Literal

from pydantic import SerializerFunctionWrapHandler, ValidationError, model_serializer

from segfw.base.records import Record, UserError
from segfw.base.words import count
from segfw.base.written_by_people import read_json
from segfw.model.training_record import RunRecord, StartFacts, read_metrics, read_run_record

CARD_FILE = "model.json"
LISTED_PACKAGES = ("segfw", "torch", "cuda")  # whose versions a card tells


class HalfRounding(Record):
    """What storing weights as float16 changed, on one patch: measured when the file was made."""

    patch: str  # whose patch
    largest_logit_change: float
    changed_classes: float  # share of the patch's voxels


class Dice(Record):
    """What is taken of a scores.json."""

    mean: float | None
    per_label: dict[str, float | None]


class FoldFacts(Record):
    """How one fold was trained, as far as its folder says; None is what it does not."""

    configuration: str
    fold: str
    epochs: int | None = None
    steps: int | None = None
    seconds: float | None = None
    validation_dice: float | None = None  # foreground mean over whole validation cases
    validation_dice_per_label: dict[str, float | None] = {}
    precision: str | None = None
    trained: str | None = None  # day of its last session, ISO 8601
    versions: dict[str, str] = {}
    data_digest: str | None = None  # of its training cases as stored (training.run_record.data_digest)
    half_rounding: HalfRounding | None = None
    start: StartFacts | None = None  # weights that its training began with

    @model_serializer(mode="wrap")
    def _as_before(self, handler: SerializerFunctionWrapHandler) -> dict[str, object]:
        """Folds that begin with drawn weights are written as before there were others."""
        content: dict[str, object] = handler(self)
        if self.start is None:
            del content["start"]
        return content


class Card(Record):
    """What a model file says of itself: ``model.json``. It names no patient and no folder.

    ``created`` is the day its newest fold was trained, so that one model always gives the same bytes. ``data_digest``
    is the SHA-256 of the data set's fingerprint (every case's id, sizes, labels' voxels; the intensities).
    ``configurations`` are those that predict by default; a cascade's first stage comes along without being one.
    """

    format: Literal["segfw model 1"] = "segfw model 1"
    segfw: str
    created: str
    dataset: str
    licence: str | None = None
    licence_text: str | None = None
    data_digest: str | None = None
    configurations: tuple[str, ...]
    weights: Literal["last", "best"]
    precision: Literal["float32", "float16"]
    folds: tuple[FoldFacts, ...]
    members: dict[str, str]  # name -> SHA-256 of its content

    def text(self) -> str:
        """The card in words, a few lines."""
        digest = f"Data digest {self.data_digest}." if self.data_digest else "No data digest."
        lines = [
            f"Model file of segfw {self.segfw}, trained until {self.created}, {self.weights} weights in "
            f"{self.precision}.",
            f"Licence: {self.licence or 'not stated by its author'}.",
            digest,
        ]
        for fold in self.folds:
            facts = [
                count(fold.epochs, "epoch") if fold.epochs is not None else "",
                count(fold.steps, "step") if fold.steps is not None else "",
                f"trained {fold.trained}" if fold.trained else "",
                f"validation Dice {fold.validation_dice:.4f}" if fold.validation_dice is not None else "",
                _in_words(fold.half_rounding) if fold.half_rounding else "",
                fold.start.text if fold.start else "",
            ]
            training = ", ".join(fact for fact in facts if fact) or "its training is not described"
            lines.append(f"  {fold.configuration} fold {fold.fold}: {training}.")
        return "\n".join(lines)


def _in_words(half: HalfRounding) -> str:
    return (
        f"float16 changed a logit by {half.largest_logit_change:.2g} at most and the class of "
        f"{half.changed_classes:.2%} of the voxels of {half.patch}"
    )


def fold_facts(folder: Path, configuration: str, fold: str, weights: Path) -> FoldFacts:
    """What a fold's folder says of its training; the rest is left out. The file ``weights`` has a date in any case."""
    record = _record_of(folder)
    last = record.sessions[-1] if record and record.sessions else None
    dice, dice_per_label = _validation_dice(folder / "validation" / "scores.json")
    rows = read_metrics(folder)
    trained = last.started if last else datetime.fromtimestamp(weights.stat().st_mtime, UTC).isoformat()
    versions = last.versions if last else {}
    return FoldFacts(
        configuration=configuration,
        fold=fold,
        epochs=len(rows) or None,
        steps=sum(row.get("steps", 0) for row in rows) or None,
        seconds=rows[-1].get("elapsed_s") if rows else None,
        validation_dice=dice,
        validation_dice_per_label=dice_per_label,
        precision=last.precision if last else None,
        trained=trained[:10],
        versions={name: text for name, text in versions.items() if name in LISTED_PACKAGES},
        data_digest=last.data_digest if last else None,
        start=record.start if record else None,
    )


def _record_of(folder: Path) -> RunRecord | None:
    """None where there is no record of the run, or none that this version reads."""
    try:
        return read_run_record(folder)
    except UserError:
        return None


def _validation_dice(path: Path) -> tuple[float | None, dict[str, float | None]]:
    """Foreground mean and Dice by label of a scores.json; with a note, nothing of one that is damaged."""
    if not path.is_file():
        return None, {}
    try:
        scores = read_json(path)
        found = Dice(
            mean=scores.get("foreground_mean", {}).get("dice"),
            per_label={name: score.get("dice") for name, score in scores.get("labels", {}).items()},
        )
    except UserError as error:
        print(f"note: {error}; the model's card goes without its scores")
        return None, {}
    except (AttributeError, ValidationError):
        print(f"note: {path}: holds no scores as segfw evaluate writes them; the model's card goes without them")
        return None, {}
    return found.mean, found.per_label
