"""Which cases train and which validate, per fold: seeded, kept, and never silently changed."""

from __future__ import annotations

import json
from collections import Counter, defaultdict
from collections.abc import Collection, Mapping, Sequence
from pathlib import Path

from segfw.base.records import Record, UserError
from segfw.base.words import count, first_line
from segfw.planning.draw import draw_parts

SPLITS_FILE = "splits.json"
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


def make_splits(
    case_ids: Sequence[str],
    *,
    groups: Mapping[str, str] | None = None,
    labels_of_case: Mapping[str, Collection[str]] | None = None,
    folds: int = FOLDS,
    seed: int = SEED,
) -> Splits:
    """Shuffled folds of nearly equal size; fewer if patients are few.

    All cases of a patient (``groups``: case -> patient; each case its own without it) are in one fold. Where a plain
    draw would leave a label (``labels_of_case``: foreground names in each mask) out of a fold's validation or out of
    training, although enough patients have it, folds are drawn so that it is in each; ``source`` says so. In all other
    data sets of one case per patient, the folds are the same as nnU-Net's for the same case ids.
    """
    ids = sorted(case_ids)
    groups = groups or {}
    members: dict[str, list[str]] = defaultdict(list)
    for case in ids:
        members[groups.get(case, case)].append(case)
    if len(ids) < 2:
        raise UserError(f"the data set has {len(ids)} usable cases; training needs at least 2, better 20 or more")
    if len(members) < 2:
        patient = next(iter(members))
        raise UserError(
            f"all {len(ids)} cases are of one patient ({patient!r}), so none can validate; correct the groups or add "
            "cases of others"
        )
    labels = labels_of_case or {}
    labels_of_patient = {
        name: {label for case in cases for label in labels.get(case, ())} for name, cases in members.items()
    }
    sizes = {patient: len(cases) for patient, cases in members.items()}
    parts, stratified = draw_parts(sizes, labels_of_patient, min(folds, len(members)), seed)
    result = []
    for part in parts:
        held_out = {case for patient in part for case in members[patient]}
        train = tuple(case for case in ids if case not in held_out)
        result.append(Fold(train=train, validation=tuple(case for case in ids if case in held_out)))
    source = f"{len(parts)} folds drawn with seed {seed}"
    if len(members) < len(ids):
        source += f", all cases of each of {len(members)} patients in one fold"
    if stratified:
        source += f", so that rare labels ({', '.join(stratified)}) are in as many folds as possible"
    return Splits(source=source, folds=tuple(result))


def import_splits(path: Path, case_ids: Sequence[str], groups: Mapping[str, str] | None = None) -> Splits:
    """Folds of an nnU-Net ``splits_final.json`` or of a ``splits.json`` of segfw.

    Raises UserError if they do not fit the cases, or if one patient (``groups``: case -> patient) is in training and
    validation of one fold.
    """
    folds = _read_folds(path)
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
        _refuse_shared_patient(path, number, fold, groups or {})
    return Splits(source=path.name, folds=folds)


def _read_folds(path: Path) -> tuple[Fold, ...]:
    """Folds of a list (nnU-Net: train, val) or of an object with the field folds (segfw: train, validation)."""
    try:
        content = json.loads(path.read_text(encoding="utf-8"))
        if isinstance(content, dict) and {"source", "folds"} <= content.keys():
            return Splits.load(path).folds
        return tuple(Fold(train=tuple(entry["train"]), validation=tuple(entry["val"])) for entry in content)
    except (OSError, ValueError, TypeError, KeyError) as error:
        reason = first_line(error)
        raise UserError(f"{path}: is not a list of {{'train': [...], 'val': [...]}} ({reason}); correct it") from None


def _refuse_shared_patient(path: Path, number: int, fold: Fold, groups: Mapping[str, str]) -> None:
    trains = {groups.get(case, case): case for case in reversed(fold.train)}
    for case in fold.validation:
        patient = groups.get(case, case)
        if patient in trains:
            raise UserError(
                f"{path}: fold {number} trains on {trains[patient]!r} and validates on {case!r}, both of patient "
                f"{patient!r}; move them into one part, or correct which cases are of one patient"
            )


def split_notes(splits: Splits, labels_of_case: Mapping[str, Collection[str]]) -> list[str]:
    """What is wrong with folds though they can be used, a sentence each: labels and cases that parts go without.

    ``labels_of_case`` has every case of the data set and the foreground labels in its mask.
    """
    notes = []
    holders: dict[str, set[str]] = defaultdict(set)
    for case, labels in labels_of_case.items():
        for label in labels:
            holders[label].add(case)
    for label, cases in sorted(holders.items()):
        where = f"label {label} ({count(len(cases), 'case')})"
        for part, effect in (("train", "cannot be learnt there"), ("validation", "gets no score there")):
            without = [str(index) for index, fold in enumerate(splits.folds) if not cases & set(getattr(fold, part))]
            if without:
                name = "training" if part == "train" else part
                notes.append(f"{where} is in no {name} case of fold {', '.join(without)} and {effect}")
    used = {case for fold in splits.folds for case in (*fold.train, *fold.validation)}
    validated = Counter(case for fold in splits.folds for case in fold.validation)
    several = {case for case, times in validated.items() if times > 1}
    for cases, what in (
        (set(labels_of_case) - used, "in no fold: neither trained on nor validated"),
        (used - set(validated), "validated in no fold"),
        (several, "validated in several folds"),
    ):
        if cases:
            first = f", such as {min(cases)!r}," if len(cases) > 1 else f" ({min(cases)!r})"
            notes.append(f"{count(len(cases), 'case')}{first} {'are' if len(cases) > 1 else 'is'} {what}")
    return notes
