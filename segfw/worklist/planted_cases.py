"""Copies of cases with an error that was made on purpose, which stand in the queue under names of their own.

They lie in ``review/plants/`` alone: never among the versions of masks, in what is delivered or in what a model learns
from. What people decide on them is kept there too, and the log is told at the end, when they are revealed.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Collection, Iterator, Sequence
from datetime import datetime
from pathlib import Path

import numpy as np

from segfw.base.errors import UserError
from segfw.base.file_names import REVIEW_FOLDER
from segfw.base.locks import alone
from segfw.base.records import Record
from segfw.dataset.labels import LabelSet
from segfw.dataset.sides import pairs_by_name
from segfw.images.formats import PLAIN_MASK, read_mask, write_labels
from segfw.images.volume import Volume
from segfw.reviewing.people import Person
from segfw.reviewing.review_log import Entry, utc_text
from segfw.reviewing.review_store import ReviewStore
from segfw.reviewing.states import Decision
from segfw.worklist.failure_bound import caught_bound
from segfw.worklist.made_errors import KINDS, WORDS, ErrorKind, MaskedStructure, made_error

PLANTS_FOLDER = "plants"
PLANTS_FILE = "plants.json"
LOCK = "plants.lock"
MOST_SHARE = 0.05  # of the items of a queue
NUMBER = re.compile(r"\d+")


class PlantAnswer(Record):
    """What a person decided on a structure of a planted case; None of ``structure`` for the case as a whole."""

    utc: str
    user: str
    structure: str | None
    decision: str
    active_s: float


class Plant(Record):
    """One planted case: ``structure`` of a copy of ``source`` has the error."""

    id: str
    source: str
    structure: str
    kind: ErrorKind
    answers: tuple[PlantAnswer, ...] = ()

    @property
    def is_answered(self) -> bool:
        """Whether somebody has decided on the structure with the error, or on the case."""
        return any(answer.structure in (None, self.structure) for answer in self.answers)

    @property
    def is_caught(self) -> bool:
        """Whether what was decided last on the structure, or on the case, is no acceptance."""
        told = [answer for answer in self.answers if answer.structure in (None, self.structure)]
        return bool(told) and told[-1].decision != "accept"


class PlantFile(Record):
    """All planted cases, those that were revealed among them."""

    seed: int = 0
    plants: tuple[Plant, ...] = ()
    revealed: tuple[Plant, ...] = ()


class Vigilance(Record):
    """How many planted errors were seen: ``bound`` is the least share that is believable, by those that somebody
    decided on."""

    planted: int
    answered: int
    caught: int
    bound: float
    missed: tuple[Plant, ...]

    @property
    def text(self) -> str:
        """'18 of 20 planted errors were seen, so at least 72 % of such errors are'."""
        if not self.answered:
            return f"nobody has decided on any of {self.planted} planted errors"
        seen = f"{self.caught} of {self.answered} planted errors were seen"
        left = f"; {self.planted - self.answered} more were not reached" if self.planted > self.answered else ""
        return f"{seen}, so at least {100 * self.bound:.0f} % of such errors are (95 % confidence){left}"


class PlantedCases:
    """The planted cases of one folder of masks."""

    def __init__(self, folder: Path) -> None:
        self.folder = Path(folder)
        self._place = self.folder / REVIEW_FOLDER / PLANTS_FOLDER

    @property
    def file(self) -> Path:
        """What was planted, for nobody who reviews to read."""
        return self._place / PLANTS_FILE

    def read(self) -> PlantFile:
        """What is planted; nothing where there is no file."""
        return PlantFile.load(self.file) if self.file.is_file() else PlantFile()

    def plant(self, case: str) -> Plant | None:
        """The planted case of that name, None of any other."""
        return next((plant for plant in self.read().plants if plant.id == case), None)

    def mask_file(self, case: str) -> Path:
        """The mask with the error."""
        return self._place / f"{case}{PLAIN_MASK}"

    def mask(self, case: str) -> Volume:
        """Its voxels, (1, Z, Y, X), in the order of the source's draft."""
        return read_mask(self.mask_file(case))

    def make(self, store: ReviewStore, wanted: Sequence[tuple[str, str]], number: int, seed: int) -> int:
        """Plants errors in copies of so many of the wanted cases and structures; returns how many there are now.

        ``wanted`` are open items whose masks are believed to be right, in any order. UserError if errors are planted
        already, or if it cannot be done in as many.
        """
        kept = self.read()
        if kept.plants:
            raise UserError(
                f"{len(kept.plants)} errors are planted already; end that with --reveal before others are planted"
            )
        rng = np.random.default_rng(seed)
        taken = set(store.case_ids) | {plant.id for plant in kept.revealed}
        made: list[Plant] = []
        for index in rng.permutation(len(wanted)).tolist():
            if len(made) == number:
                break
            source, structure = wanted[index]
            if any(plant.source == source for plant in made):
                continue
            plant = self._made(store, source, structure, new_name(source, taken, rng), rng)
            if plant is not None:
                taken.add(plant.id)
                made.append(plant)
        if len(made) < number:
            for plant in made:
                self.mask_file(plant.id).unlink(missing_ok=True)
            raise UserError(
                f"{self.folder}: errors can be planted in {len(made)} cases that nobody has opened; ask for fewer "
                f"than {number}"
            )
        PlantFile(seed=seed, plants=tuple(made), revealed=kept.revealed).save(self.file)
        return len(made)

    def _made(
        self, store: ReviewStore, source: str, structure: str, name: str, rng: np.random.Generator
    ) -> Plant | None:
        draft = store.read(source, 0)
        mask = masked_structure(draft, store.labels, structure)
        for kind in rng.permutation(np.array(KINDS)).tolist():
            changed = made_error(mask, kind, rng)
            if changed is None:
                continue
            self._place.mkdir(parents=True, exist_ok=True)
            like = store.draft_file(source)
            write_labels(self.mask_file(name), changed, draft.geometry, like, is_checked=True)
            return Plant(id=name, source=source, structure=structure, kind=kind)
        return None

    def answer(
        self,
        case: str,
        person: Person,
        structure: str | None,
        decision: Decision | str,
        *,
        active_s: float = 0.0,
        now: Callable[[], datetime],
    ) -> None:
        """Notes what a person decided on a planted case as if it were another one. UserError if it is none."""
        with alone(self._place / LOCK):
            kept = self.read()
            if all(plant.id != case for plant in kept.plants):
                raise UserError(f"{self.folder}: has no case {case!r}; segfw queue lists them")
            answer = PlantAnswer(
                utc=utc_text(now()), user=person.user, structure=structure, decision=decision, active_s=active_s
            )
            plants = [
                plant.model_copy(update={"answers": (*plant.answers, answer)}) if plant.id == case else plant
                for plant in kept.plants
            ]
            kept.model_copy(update={"plants": tuple(plants)}).save(self.file)

    def vigilance(self) -> Vigilance:
        """How many were seen so far."""
        return vigilance_of(self.read().plants)

    def reveal(self, store: ReviewStore) -> Vigilance:
        """Tells the log what was planted and how each came out, and takes the masks away. UserError if none are."""
        with alone(self._place / LOCK):
            kept = self.read()
            if not kept.plants:
                raise UserError(f"{self.folder}: no errors are planted; plant some with --plant 10")
            store.log.append_all(list(_revealed(kept.plants)))
            PlantFile(seed=kept.seed, revealed=(*kept.revealed, *kept.plants)).save(self.file)
            for plant in kept.plants:
                self.mask_file(plant.id).unlink(missing_ok=True)
        return vigilance_of(kept.plants)


def _revealed(plants: Sequence[Plant]) -> Iterator[Entry]:
    for plant in plants:
        how = "seen" if plant.is_caught else "accepted" if plant.is_answered else "not reached"
        last = plant.answers[-1] if plant.answers else None
        yield Entry(
            event="planted",
            case=plant.source,
            structure=plant.structure,
            user="" if last is None else last.user,
            planted=True,
            reason=f"in a copy called {plant.id} {WORDS[plant.kind]}: {how}",
        )


def vigilance_of(plants: Sequence[Plant]) -> Vigilance:
    """The figures of some planted cases."""
    answered = [plant for plant in plants if plant.is_answered]
    caught = sum(plant.is_caught for plant in answered)
    return Vigilance(
        planted=len(plants),
        answered=len(answered),
        caught=caught,
        bound=caught_bound(caught, len(answered)),
        missed=tuple(plant for plant in answered if not plant.is_caught),
    )


def masked_structure(draft: Volume, labels: LabelSet, structure: str) -> MaskedStructure:
    """One structure of a mask, with its counterpart on the other side where names tell of one."""
    pairs, _ = pairs_by_name(list(labels.structures))
    other = {**dict(pairs), **{right: left for left, right in pairs}}.get(structure)
    return MaskedStructure(
        values_zyx=draft.array[0],
        own=_values(labels, structure),
        other_side=() if other is None else _values(labels, other),
        background=labels.values[0],
        spacing_mm=draft.geometry.spacing_mm,
    )


def _values(labels: LabelSet, structure: str) -> tuple[int, ...]:
    return tuple(labels.stored_values[index] for index in labels.structures[structure])


def new_name(source: str, taken: Collection[str], rng: np.random.Generator) -> str:
    """A name like that of other cases: another number of as many digits in place of the last one, or one behind it."""
    found = list(NUMBER.finditer(source))
    start, stop = found[-1].span() if found else (len(source), len(source))
    digits = max(3, stop - start) if found else 3
    head = source[:start] if found else f"{source}_"
    while True:
        for _ in range(100):
            name = f"{head}{rng.integers(1, 10**digits):0{digits}d}{source[stop:]}"
            if name not in taken:
                return name
        digits += 1


def most_plants(items: int) -> int:
    """How many may be planted among so many items."""
    return int(MOST_SHARE * items)


def placed_among(number: int, places: int, rng: np.random.Generator) -> list[int]:
    """Before which of so many places each planted item stands, ascending: drawn, each once if that can be."""
    return sorted(rng.choice(places + 1, size=number, replace=number > places + 1).tolist())
