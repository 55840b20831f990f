"""What the Dice of each structure is worth, from a table that people write."""

from __future__ import annotations

import math
from collections.abc import Sequence
from pathlib import Path

from segfw.base.errors import UserError
from segfw.base.words import did_you_mean
from segfw.dataset.case_tables import cell_of, column_of, table_rows

STRUCTURE_COLUMNS = frozenset({"structure", "label", "name"})
WEIGHT_COLUMNS = frozenset({"weight", "worth"})


def read_weights(path: Path, structures: Sequence[str]) -> dict[str, float]:
    """Weights by structure, 0 or more; those that are not named count 1. UserError names the line that is wrong."""
    try:
        header, *rows = table_rows(path, "structure and weight")
    except OSError as error:
        raise UserError(f"{path}: cannot be read ({error.strerror}); give a table of structures and weights") from None
    name_column = column_of(path, header, STRUCTURE_COLUMNS, "structure")
    weight_column = column_of(path, header, WEIGHT_COLUMNS, "weight")
    weights: dict[str, float] = {}
    for number, row in rows:
        name = cell_of(row, name_column)
        text = cell_of(row, weight_column)
        if name not in structures:
            known = did_you_mean(name, structures) or f"; the masks have {', '.join(structures[:20])}"
            raise UserError(f"{path}, line {number}: there is no structure {name!r}{known}")
        if name in weights:
            raise UserError(f"{path}, line {number}: {name!r} has a weight already; give one")
        try:
            weight = float(text)
        except ValueError:
            weight = math.nan
        if not (math.isfinite(weight) and weight >= 0):
            raise UserError(f"{path}, line {number}: the weight of {name!r} is {text!r}; give a number, 0 or more")
        weights[name] = weight
    return weights
