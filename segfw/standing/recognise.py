"""Everything that is known at sight: by kind, the function that says what it is and how far."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

from segfw.base.answers import Answer
from segfw.base.errors import UserError
from segfw.standing.of_data import data_standing
from segfw.standing.of_delivery import delivery_standing
from segfw.standing.of_exports import nnunet_standing, onnx_standing
from segfw.standing.of_masks import masks_standing
from segfw.standing.of_measures import measures_standing
from segfw.standing.of_model import model_standing
from segfw.standing.of_outcome import outcome_standing
from segfw.standing.of_scores import scores_standing
from segfw.standing.of_stress import stress_standing
from segfw.standing.of_work import work_standing

# Asked in this order: a work folder is a model, too, and a folder of masks might pass for images.
RECOGNISERS: dict[str, Callable[[Path], Answer | None]] = {
    "work": work_standing,
    "model": model_standing,
    "stress": stress_standing,
    "masks": masks_standing,
    "delivery": delivery_standing,
    "onnx": onnx_standing,
    "nnunet": nnunet_standing,
    "scores": scores_standing,
    "measures": measures_standing,
    "outcome": outcome_standing,
    "data": data_standing,
}


def standing_of(path: Path) -> Answer:
    """What lies at ``path`` and how far it is; UserError if it is nothing that segfw makes or takes."""
    if not path.exists():
        raise UserError(f"{path}: no such file or folder; give one that segfw made or is to work on")
    for recognise in RECOGNISERS.values():
        found = recognise(path)
        if found is not None:
            return found
    raise UserError(
        f"{path}: is nothing that segfw knows; give a work folder, a model, a folder of masks that segfw made or "
        "delivered, a data set, scores.json of an evaluation, measures.json, stress.json, or a study of an outcome"
    )
