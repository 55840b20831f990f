"""Items of a folder whose model was not calibrated, by its maps of doubt: one number a case.

The mean entropy of what was found says which cases to look at first; that it lies between 0 and 1 does not make it a
loss of Dice, and structures of a case are not told apart.
"""

from __future__ import annotations

import csv
from collections.abc import Sequence
from pathlib import Path

import numpy as np

from segfw.base.errors import UserError
from segfw.base.written_by_people import read_text
from segfw.worklist.judged_items import VERDICTS, JudgedItems
from segfw.worklist.minutes_model import wrong_slices
from segfw.worklist.work_items import WHOLE, WorkItems

TABLE = "uncertainty.csv"  # of predict --uncertainty
ASSUMED_SLICES = 20
NOTHING_FOUND = 1.0  # doubt of a case in which nothing was found


def has_doubt(folder: Path) -> bool:
    """Whether a folder of masks has a table of doubt."""
    return (Path(folder) / TABLE).is_file()


def doubtful_items(folder: Path, cases: Sequence[str], structures: Sequence[str]) -> JudgedItems:
    """Every structure of every case in the table, with the doubt of its case as the loss."""
    doubt = _doubts(Path(folder) / TABLE)
    known = [case for case in cases if case in doubt]
    number = len(structures)
    loss = np.repeat([doubt[case] for case in known], number).astype(float)
    slices = np.full(len(loss), ASSUMED_SLICES, np.float32)
    unknown = np.full(len(loss), np.nan, np.float32)
    items = WorkItems(
        cases=tuple(known),
        structures=tuple(structures),
        verdicts=VERDICTS,
        reasons=("doubt of the whole case; the model is not calibrated",),
        case=np.repeat(np.arange(len(known), dtype=np.int32), number),
        structure=np.tile(np.arange(number, dtype=np.int32), len(known)),
        region=np.full(len(loss), WHOLE, np.int32),
        quality=(1 - loss).astype(np.float32),
        predicted=unknown,
        lower=unknown,
        verdict=np.full(len(loss), VERDICTS.index(""), np.int8),
        reason=np.zeros(len(loss), np.int32),
        slices=slices,
        wrong_slices=wrong_slices(slices, 1 - loss).astype(np.float32),
        wrong_mm2=np.zeros(len(loss), np.float32),
        gain=loss,
    )
    return JudgedItems(
        items=items,
        left_out=tuple(case for case in cases if case not in doubt),
        features=np.repeat(1 - loss.reshape(len(known), number), 1, axis=1)[:, :, None].astype(np.float32),
        gate_scores=np.full(len(known), np.nan),
    )


def _doubts(path: Path) -> dict[str, float]:
    try:
        rows = list(csv.DictReader(read_text(path).splitlines()))
        return {row["case"]: min(1.0, float(row["entropy"] or NOTHING_FOUND)) for row in rows}
    except (KeyError, TypeError, ValueError):
        raise UserError(f"{path}: is no table of doubt; predict again with --uncertainty") from None
