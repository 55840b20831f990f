"""One file that holds a whole model: JSON and safetensors, stored uncompressed in a zip. Nothing in it can run code.

Every member is listed with its SHA-256 in the card, ``model.json``. That tells a damaged file from a whole one; it does
not tell who made it, because whoever alters a member can alter the card too.
"""

from __future__ import annotations

import hashlib
import json
import re
import zipfile
from collections.abc import Iterator
from dataclasses import dataclass
from datetime import UTC, datetime
from pathlib import Path
from typing import Literal

from segfw.base.records import GIGABYTE, NAME, Record, UserError

CARD_FILE, SELECTION_FILE, POSTPROCESSING_FILE = "model.json", "selection.json", "postprocessing.json"
# The only names a model file may have: no path can lead out of it, and nothing in it is of another kind.
MEMBER = re.compile(
    rf"(model|plan|selection)\.json|runs/{NAME}/(postprocessing\.json|fold_{NAME}/weights\.safetensors)"
)
MOST_MEMBERS = 1000
LARGEST_JSON = 1 << 26  # bytes; a plan has some ten thousand
LARGEST_WEIGHTS = 16 * GIGABYTE  # of one fold
PACKAGES_SAID = ("segfw", "torch", "cuda")


class HalfRounding(Record):
    """What storing weights as float16 changed, on one patch: measured when the file was made."""

    patch: str  # whose patch
    largest_logit_change: float
    changed_classes: float  # share of the patch's voxels


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
    data_digest: str | None = None  # of its training cases as stored (training.runrecord.data_digest)
    half_rounding: HalfRounding | None = None


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
                f"{fold.epochs} epochs" if fold.epochs is not None else "",
                f"{fold.steps} steps" if fold.steps is not None else "",
                f"trained {fold.trained}" if fold.trained else "",
                f"validation Dice {fold.validation_dice:.4f}" if fold.validation_dice is not None else "",
                _in_words(fold.half_rounding) if fold.half_rounding else "",
            ]
            said = ", ".join(fact for fact in facts if fact) or "its training is not described"
            lines.append(f"  {fold.configuration} fold {fold.fold}: {said}.")
        return "\n".join(lines)


def _in_words(half: HalfRounding) -> str:
    return (
        f"float16 changed a logit by {half.largest_logit_change:.2g} at most and the class of "
        f"{half.changed_classes:.2%} of the voxels of {half.patch}"
    )


def fold_facts(folder: Path, configuration: str, fold: str, weights: Path) -> FoldFacts:
    """What a fold's folder says of its training; the rest is left out. The file ``weights`` has a date in any case."""
    sessions = _loaded(folder / "run.json").get("sessions") or [{}]
    last, scores = sessions[-1], _loaded(folder / "validation" / "scores.json")
    rows = list(_lines(folder / "metrics.jsonl"))
    trained = last.get("started") or datetime.fromtimestamp(weights.stat().st_mtime, UTC).isoformat()
    return FoldFacts(
        configuration=configuration,
        fold=fold,
        epochs=len(rows) or None,
        steps=sum(row.get("steps", 0) for row in rows) or None,
        seconds=rows[-1].get("elapsed_s") if rows else None,
        validation_dice=scores.get("foreground_mean", {}).get("dice"),
        validation_dice_per_label={name: score.get("dice") for name, score in scores.get("labels", {}).items()},
        precision=last.get("precision"),
        trained=trained[:10],
        versions={name: text for name, text in last.get("versions", {}).items() if name in PACKAGES_SAID},
        data_digest=last.get("data_digest"),
    )


def _loaded(path: Path) -> dict:
    return json.loads(path.read_text(encoding="utf-8")) if path.is_file() else {}


def _lines(path: Path) -> Iterator[dict]:
    for line in path.read_text(encoding="utf-8").splitlines() if path.is_file() else []:
        try:
            yield json.loads(line)
        except ValueError:  # cut off by a kill
            return


@dataclass(frozen=True, kw_only=True)
class Packed:
    """An opened model file: its card, and its members, each checked against the card when it is read."""

    path: Path
    card: Card

    @staticmethod
    def open(path: Path) -> Packed:
        """Raises UserError, one sentence, if the file is damaged or holds anything but a model."""
        try:
            with zipfile.ZipFile(path) as archive:
                members = archive.infolist()
        except (zipfile.BadZipFile, OSError, ValueError, NotImplementedError) as error:
            raise UserError(f"{path}: is no model folder and no whole model file of segfw export ({error})") from None
        _check_members(path, members)
        content = _read(path, CARD_FILE)
        card = Card.parse(content, f"{path}/{CARD_FILE}")
        present, listed = {member.filename for member in members} - {CARD_FILE}, set(card.members)
        if present != listed:
            odd = sorted(present ^ listed)[0]
            what = "is missing" if odd in listed else "is not listed in its card"
            raise UserError(f"{path}: {odd} {what}; get the file again from where it was made")
        return Packed(path=path, card=card)

    def has(self, name: str) -> bool:
        return name in self.card.members

    def read(self, name: str) -> bytes:
        """Content of a member; raises UserError if it is not there, or not what the card says."""
        if not self.has(name):
            raise UserError(f"{self.path}: holds no {name}; make the file again with segfw export")
        content = _read(self.path, name)
        if hashlib.sha256(content).hexdigest() != self.card.members[name]:
            raise UserError(f"{self.path}: {name} was altered or damaged; get the file again from where it was made")
        return content


def _check_members(path: Path, members: list[zipfile.ZipInfo]) -> None:
    names = [member.filename for member in members]
    if CARD_FILE not in names:
        raise UserError(f"{path}: holds no {CARD_FILE}, so it is no model file; make one with segfw export")
    if len(names) > MOST_MEMBERS:
        raise UserError(f"{path}: holds {len(names)} members, more than any model has ({MOST_MEMBERS})")
    for member in members:
        name = member.filename
        if not MEMBER.fullmatch(name) or member.orig_filename != name:
            raise UserError(f"{path}: holds {name!r}, which no model file does; it was not made by segfw export")
        if names.count(name) > 1:
            raise UserError(f"{path}: holds {name} twice; it was not made by segfw export")
        # Stored as it is, a member cannot be larger than the file that holds it.
        if member.compress_type != zipfile.ZIP_STORED or member.file_size != member.compress_size:
            raise UserError(f"{path}: {name} is compressed, which no model file's members are; use segfw export")
        limit = LARGEST_JSON if name.endswith(".json") else LARGEST_WEIGHTS
        if member.file_size > limit:
            raise UserError(f"{path}: {name} says it has {member.file_size} bytes, more than any model's ({limit})")
    if sum(member.file_size for member in members) > path.stat().st_size:
        raise UserError(f"{path}: its members say they are larger than the file; get it again from where it was made")


def _read(path: Path, name: str) -> bytes:
    try:
        with zipfile.ZipFile(path) as archive:
            return archive.read(name)
    except (zipfile.BadZipFile, OSError, EOFError, RuntimeError, NotImplementedError) as error:
        raise UserError(f"{path}: {name} cannot be read ({error}); get the file again from where it was made") from None
