"""What ``predict`` made the masks of a folder with; read without PyTorch by whoever only looks at the folder."""

from __future__ import annotations

import hashlib

from segfw.base.records import Record
from segfw.model.postprocess import Postprocessing

NOT_FOR_PROBABILITIES = {"postprocessing", "probability_bits", "only", "names", "quality", "holes", "seg_type"}
ONLY_IF_ASKED_FOR = ("probability_bits", "quality", "holes", "seg_type")  # else None


class PredictionSettings(Record):
    """What the files in a folder were made with; those of another model are never mixed in.

    ``plan_digest`` is of what decides masks besides the weights; a folder from before it was kept counts as of another
    plan, because nobody knows. ``precision`` is as asked for: with 'auto' each device that shares the cases takes what
    it is fastest in, or for imported models what nnU-Net takes. ``probability_bits`` is None until probabilities are
    asked for. ``only`` names the structures that the masks hold (empty: all), ``names`` whose numbers they have.
    ``quality`` is the digest of what masks are judged by, None where they are not; ``holes`` and ``seg_type`` say how
    RTSTRUCT and DICOM SEG were written, None until they are asked for.
    """

    configuration: str
    folds: tuple[str, ...]
    weights_digest: str
    plan_digest: str = ""
    step: float
    mirroring: bool
    postprocessing: Postprocessing = Postprocessing()
    precision: str = "auto"
    probability_bits: int | None = None
    only: tuple[str, ...] = ()
    names: str | None = None
    quality: str | None = None
    holes: str | None = None
    seg_type: str | None = None

    @property
    def digest(self) -> str:
        """Of all that probabilities depend on: weights, plan and how they were used, but not what is done to masks."""
        return hashlib.sha256(self.model_dump_json(exclude=NOT_FOR_PROBABILITIES).encode()).hexdigest()

    def differences(self, kept: PredictionSettings) -> list[str]:
        """Names of what differs from ``kept``; what only one of the two was asked for does not, nor by what masks are
        judged, which changes no mask."""
        names = [name for name in PredictionSettings.model_fields if getattr(self, name) != getattr(kept, name)]
        untold = [name for name in ONLY_IF_ASKED_FOR if None in (getattr(self, name), getattr(kept, name))]
        return [name.replace("_", " ") for name in names if name not in (*untold, "quality")]

    def completed(self, kept: PredictionSettings) -> PredictionSettings:
        """The same, with what only ``kept`` tells."""
        untold = [name for name in ONLY_IF_ASKED_FOR if getattr(self, name) is None]
        return self.model_copy(update={name: getattr(kept, name) for name in untold})
