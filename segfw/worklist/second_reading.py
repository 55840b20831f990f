"""A second reader: some cases in a folder of their own, without what is predicted of them, and how far both agree.

``review/second/`` is a folder of masks like any other, with drafts, a log and versions of its own, so that neither
reader sees what the other one did. Quality is not copied: the second reading is blind to it.
"""

from __future__ import annotations

import shutil
from pathlib import Path

import numpy as np

from segfw.base.errors import UserError
from segfw.base.file_names import ENSEMBLE_SETTINGS_FILE, HIDDEN, MASK_SETTINGS_FILE, REVIEW_FOLDER
from segfw.base.files import new_folder
from segfw.base.records import Record
from segfw.dataset.labels import LABELS_FILE
from segfw.evaluation.mask_facts import FACTS_FILE, read_mask_facts
from segfw.reviewing.review_policy import POLICY_FILE
from segfw.reviewing.review_store import ReviewStore
from segfw.worklist.audit_reading import dice, structure_mask

SECOND_FOLDER = "second"
SHARE = 0.1  # of the cases
LEAST = 5
MANY_TIMES = 2.0  # the median difference, beyond which a third person decides
FINISHED = ("REVIEWED", "SIGNED")


class ReadTwice(Record):
    """One structure of a case as both readers left it: Dice of the two masks, their volumes, and both decisions."""

    case: str
    structure: str
    dice: float
    first_ml: float
    second_ml: float
    first_decision: str
    second_decision: str
    is_for_a_third: bool


class Agreement(Record):
    """How far two readers agree: of one structure, or of all under ''.

    ``alpha`` is Krippendorff's for their decisions (accept, edit, absent), 1 for full agreement and 0 for chance; None
    where both always decided the same one thing, or nothing was read twice.
    """

    structure: str
    read: int
    median_dice: float | None
    median_difference_ml: float | None
    alpha: float | None


class SecondReading(Record):
    """All that was read twice, and the figures of each structure; the last row is of all of them."""

    cases: tuple[str, ...]
    unread: tuple[str, ...]
    rows: tuple[ReadTwice, ...]
    agreement: tuple[Agreement, ...]

    @property
    def for_a_third(self) -> tuple[ReadTwice, ...]:
        """What a third person is to decide, the largest disagreement first."""
        return tuple(sorted((row for row in self.rows if row.is_for_a_third), key=lambda row: row.dice))

    @property
    def text(self) -> str:
        """'second reading: 4 of 5 cases are read by both, median Dice 0.953, alpha of decisions 0.61'."""
        both = len(self.cases) - len(self.unread)
        if not self.rows:
            return f"second reading: {both} of {len(self.cases)} cases are read by both"
        last = self.agreement[-1]
        alpha = "" if last.alpha is None else f", alpha of decisions {last.alpha:.2f}"
        third = self.for_a_third
        shown = ", ".join(f"{row.case}: {row.structure}" for row in third[:5])
        more = f"; for a third person: {shown}{', ...' if len(third) > 5 else ''}" if third else ""
        return (
            f"second reading: {both} of {len(self.cases)} cases are read by both, median Dice {last.median_dice:.3f}"
            f"{alpha}{more}"
        )


def second_folder(folder: Path) -> Path:
    """Where the cases of a second reader lie, in a folder of masks."""
    return Path(folder) / REVIEW_FOLDER / SECOND_FOLDER


def second_cases(folder: Path) -> tuple[str, ...]:
    """The cases that a second reader has; none where nothing was prepared."""
    place = second_folder(folder)
    return ReviewStore.open(place).case_ids if place.is_dir() else ()


def prepare_second(store: ReviewStore, seed: int) -> tuple[str, ...]:
    """Draws a SHARE of the cases and copies their drafts into a folder for a second reader.

    Nothing is done, and the cases are given, where there is such a folder already.
    """
    place = second_folder(store.folder)
    if place.is_dir():
        return second_cases(store.folder)
    cases = [case for case in store.case_ids if store.standing(case).state != "REJECTED"]
    number = min(len(cases), max(LEAST, round(SHARE * len(cases))))
    if not number:
        raise UserError(f"{store.folder}: has no case that a second reader could read")
    drawn = np.random.default_rng(seed).choice(len(cases), number, replace=False)
    chosen = sorted(cases[int(index)] for index in drawn)
    with new_folder(place) as made:
        (made / HIDDEN).mkdir()
        (made / REVIEW_FOLDER).mkdir()
        for name in (LABELS_FILE, FACTS_FILE, MASK_SETTINGS_FILE, ENSEMBLE_SETTINGS_FILE):
            if (store.folder / name).is_file():
                shutil.copy2(store.folder / name, made / name)
        for case in chosen:
            draft = store.draft_file(case)
            copy = made / draft.relative_to(store.folder)
            copy.parent.mkdir(parents=True, exist_ok=True)
            shutil.copy2(draft, copy)
            record = store.folder / HIDDEN / f"{case}.json"
            if record.is_file():
                shutil.copy2(record, made / HIDDEN / record.name)
        policy = store.policy.model_copy(update={"images": _images(store)})
        policy.save(made / REVIEW_FOLDER / POLICY_FILE)
    return tuple(chosen)


def _images(store: ReviewStore) -> str | None:
    """Where the images are, from the root: the way from the masks to them does not lead there from the copies."""
    noted = store.policy.images or read_mask_facts(store.folder).images
    return (store.folder / noted).resolve().as_posix() if noted else None


def compared(first: ReviewStore, second: ReviewStore) -> SecondReading:
    """What both readers finished, structure by structure."""
    rows: list[ReadTwice] = []
    unread = []
    for case in second.case_ids:
        standings = first.standing(case), second.standing(case)
        if any(standing.state not in FINISHED for standing in standings):
            unread.append(case)
            continue
        voxel_ml = abs(float(np.linalg.det(first.read(case).geometry.matrix[:3, :3]))) / 1000
        for structure in first.structures:
            one = structure_mask(first, case, structure, None)
            other = structure_mask(second, case, structure, None)
            rows.append(
                ReadTwice(
                    case=case,
                    structure=structure,
                    dice=dice(one, other),
                    first_ml=float(one.sum()) * voxel_ml,
                    second_ml=float(other.sum()) * voxel_ml,
                    first_decision=standings[0].decisions.get(structure, ""),
                    second_decision=standings[1].decisions.get(structure, ""),
                    is_for_a_third=False,
                )
            )
    return second_reading_of(second.case_ids, unread, rows)


def second_reading_of(cases: tuple[str, ...], unread: list[str], rows: list[ReadTwice]) -> SecondReading:
    """The figures of what was read twice."""
    structures = list(dict.fromkeys(row.structure for row in rows))
    judged: list[ReadTwice] = []
    agreement = []
    for structure in structures:
        own = [row for row in rows if row.structure == structure]
        limit = MANY_TIMES * float(np.median([1 - row.dice for row in own]))
        judged += [row.model_copy(update={"is_for_a_third": 1 - row.dice > limit}) for row in own]
        agreement.append(_agreement(structure, own))
    return SecondReading(
        cases=cases,
        unread=tuple(unread),
        rows=tuple(judged),
        agreement=(*agreement, _agreement("", rows)),
    )


def _agreement(structure: str, rows: list[ReadTwice]) -> Agreement:
    if not rows:
        return Agreement(structure=structure, read=0, median_dice=None, median_difference_ml=None, alpha=None)
    return Agreement(
        structure=structure,
        read=len(rows),
        median_dice=float(np.median([row.dice for row in rows])),
        median_difference_ml=float(np.median([row.second_ml - row.first_ml for row in rows])),
        alpha=krippendorff_alpha([(row.first_decision, row.second_decision) for row in rows]),
    )


def krippendorff_alpha(pairs: list[tuple[str, str]]) -> float | None:
    """For two readers and named decisions: 1 - observed disagreement / that of decisions paired at random.

    None where only one decision occurs at all, so that there is nothing to agree on.
    """
    told = [pair for pair in pairs if pair[0] and pair[1]]
    values = [value for pair in told for value in pair]
    number = len(values)
    counts = [values.count(name) for name in set(values)]
    if number < 2 or len(counts) < 2:
        return None
    observed = sum(one != other for one, other in told) / len(told)
    expected = 1 - sum(times * (times - 1) for times in counts) / (number * (number - 1))
    return 1 - observed / expected
