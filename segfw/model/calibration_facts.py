"""What those who only look at a model tell of its ``quality.json``, the rest of which ``predict`` reads."""

from __future__ import annotations

import json
from collections.abc import Mapping

from pydantic import ConfigDict

from segfw.base.records import Record
from segfw.base.words import count, named
from segfw.model.source import QUALITY_FILE, ModelSource


class _Part(Record):
    """Keys that are not named are passed over."""

    model_config = ConfigDict(extra="ignore")


class CalibratedNetworks(_Part):
    """Which configuration was calibrated, and a digest of each fold's weights."""

    configuration: str
    folds: dict[str, str]


class CalibrationSize(_Part):
    """On how many cases, of how many patients."""

    cases: int
    patients: int


class CalibrationFacts(_Part):
    """When, on what and of what a model was calibrated."""

    made: str
    identity: CalibratedNetworks
    counts: CalibrationSize

    def text(self) -> str:
        """'3d_fullres, folds 0 and 1, on 40 cases of 20 patients, 2026-11-30'."""
        folds = tuple(self.identity.folds)
        cases = f"{count(self.counts.cases, 'case')} of {count(self.counts.patients, 'patient')}"
        return f"{self.identity.configuration}, {named('fold', folds)}, on {cases}, {self.made}"


def read_calibration(source: ModelSource) -> CalibrationFacts | None:
    """Of an opened model; None if it is not calibrated. UserError if its quality.json is damaged."""
    content = source.read_if_there(QUALITY_FILE)
    return None if content is None else CalibrationFacts.parse(content, source.path / QUALITY_FILE)


def calibration_text(facts: CalibrationFacts | None) -> str:
    """Whether masks will come with a quality, in words."""
    return "not calibrated: masks come without quality (segfw calibrate)" if facts is None else facts.text()


def with_digests(quality: bytes, digests: Mapping[str, str]) -> bytes:
    """A quality.json whose folds have these digests, others as they are; unchanged if they all have."""
    content = json.loads(quality)
    folds = content["identity"]["folds"]
    if all(folds[fold] == digest for fold, digest in digests.items()):
        return quality
    folds.update(digests)
    content["notes"] = [*content.get("notes", []), "the weights were rounded to float16 after the calibration"]
    return (json.dumps(content, indent=1) + "\n").encode()
