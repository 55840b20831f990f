"""Which cases train and which validate, per fold: seeded, kept, and never silently changed."""

from __future__ import annotations

import json
from collections.abc import Sequence
from pathlib import Path

import numpy as np

from segfw.records import Record, UserError

FOLDS = 5
SEED = 12345


class Fold(Record):
    """Case ids of one fold."""

    train: tuple[str, ...]
    validation: tuple[str, ...]


class Splits(Record):
    """All folds, and where they come from."""

    source: str
    folds: tuple[Fold, ...]

    def fold(self, name: str) -> Fold:
        """Fold '0', '1', ... or 'all' (every case trains, none validates); raises UserError for another."""
        if name == "all":
            everything = sorted({case for fold in self.folds for case in (*fold.train, *fold.validation)})
            return Fold(train=tuple(everything), validation=())
        if not name.isdecimal() or int(name) >= len(self.folds):
            raise UserError(f"fold {name!r} does not exist; choose 0 to {len(self.folds) - 1} or all")
        return self.folds[int(name)]


def make_splits(case_ids: Sequence[str], *, folds: int = FOLDS, seed: int = SEED) -> Splits:
    """Shuffled folds of nearly equal size: the same as nnU-Net's for the same case ids; fewer if cases are few."""
    ids = sorted(case_ids)
    if len(ids) < 2:
        raise UserError(f"the data set has {len(ids)} usable cases; training needs at least 2, better 20 or more")
    folds = min(folds, len(ids))
    # The legacy generator on purpose: it is what nnU-Net's splits are drawn with, so results can be compared.
    shuffled = np.arange(len(ids))
    np.random.RandomState(seed).shuffle(shuffled)  # noqa: NPY002
    result = []
    for chosen in np.array_split(shuffled, folds):
        held_out = set(chosen.tolist())
        train = tuple(case for index, case in enumerate(ids) if index not in held_out)
        validation = tuple(case for index, case in enumerate(ids) if index in held_out)
        result.append(Fold(train=train, validation=validation))
    return Splits(source=f"{folds} folds drawn with seed {seed}", folds=tuple(result))


def import_splits(path: Path, case_ids: Sequence[str]) -> Splits:
    """Folds of an nnU-Net ``splits_final.json``; raises UserError if they do not fit the cases."""
    try:
        entries = json.loads(path.read_text(encoding="utf-8"))
        folds = tuple(Fold(train=tuple(entry["train"]), validation=tuple(entry["val"])) for entry in entries)
    except (OSError, ValueError, TypeError, KeyError) as error:
        reason = str(error).splitlines()[0]
        raise UserError(f"{path}: is not a list of {{'train': [...], 'val': [...]}} ({reason}); correct it") from None
    if not folds:
        raise UserError(f"{path}: lists no folds; correct it, or remove it to have folds drawn")
    for number, fold in enumerate(folds):
        unknown = sorted({*fold.train, *fold.validation} - set(case_ids))
        shared = sorted(set(fold.train) & set(fold.validation))
        if unknown:
            raise UserError(f"{path}: fold {number} names {unknown[0]!r}, which is no usable case; correct it")
        if shared:
            raise UserError(f"{path}: fold {number} has {shared[0]!r} in both parts; keep it in one")
        if not fold.train:
            raise UserError(f"{path}: fold {number} has no training cases; correct it")
    return Splits(source=path.name, folds=folds)
