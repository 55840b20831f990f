"""What ``ensemble`` made the masks of a folder of; read without PyTorch by whoever only looks at the folder."""

from __future__ import annotations

import hashlib
from collections.abc import Sequence

from segfw.base.records import Record
from segfw.dataset.finished_mask import MaskMaker
from segfw.model.postprocess import Postprocessing

WAYS = ("holes", "seg_type")  # of writing: None until the format is asked for


class EnsembleSettings(Record):
    """What the masks in a folder were averaged from; masks of other models or weights are never mixed in."""

    models: tuple[str, ...]  # digests, as in the files of probabilities
    weights: tuple[float, ...]
    postprocessing: Postprocessing
    holes: str | None = None
    seg_type: str | None = None

    def completed(self, kept: EnsembleSettings) -> EnsembleSettings:
        """The same, with the ways of writing that only ``kept`` tells."""
        untold = [name for name in WAYS if getattr(self, name) is None]
        return self.model_copy(update={name: getattr(kept, name) for name in untold})

    def maker(self, configurations: Sequence[str]) -> MaskMaker:
        """Who the masks are said to be of."""
        digest = hashlib.sha256(self.model_dump_json(exclude=set(WAYS)).encode()).hexdigest()
        return MaskMaker(name=f"segfw ensemble of {', '.join(dict.fromkeys(configurations))}", digest=digest)
