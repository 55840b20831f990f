"""Planted cases as the page sees them: they take the steps of any other case, and leave nothing but answers.

Their masks lie in ``review/plants/`` alone. States, versions and edits of a planted case are kept in memory while the
server runs; what people decided is kept by ``PlantedCases``, and the log hears of it when they are revealed.
"""

from __future__ import annotations

import threading
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace
from datetime import timedelta
from pathlib import Path

import numpy as np

from segfw.images.volume import Volume
from segfw.reviewing.case_history import CaseStanding
from segfw.reviewing.mask_version import MaskVersion, Origin, content_sha256, edits_between
from segfw.reviewing.people import Person, checked_name
from segfw.reviewing.refusals import (
    Conflict,
    not_open,
    require_all_decided,
    require_amend_reason,
    require_decision,
    require_grid,
    require_meaning,
    require_other_hands,
    require_reject_reason,
    require_shown_version,
)
from segfw.reviewing.review_log import utc_text
from segfw.reviewing.review_store import ReviewStore
from segfw.reviewing.states import Decision, Meaning, RejectReason, transition
from segfw.reviewing.viewing import Asked, Shown, Viewing, too_little_viewed
from segfw.worklist.planted_cases import Plant, PlantedCases

LEASE = timedelta(minutes=10)
OF_THE_CASE = ""  # as structure of an answer: a step of the case, which says nothing of its masks
STEPS = ("finish", "sign")


@dataclass(kw_only=True)
class _Planted:
    """A planted case while the server runs; ``hands`` are all who reviewed or changed it."""

    plant: Plant
    standing: CaseStanding
    hands: set[str]
    versions: list[MaskVersion] = field(default_factory=list)
    masks: list[np.ndarray] = field(default_factory=list)
    viewed: dict[str, set[int]] = field(default_factory=dict)
    asked: set[str] = field(default_factory=set)
    active_s: float = 0.0
    told_s: float = 0.0


class PlantedReview:
    """The steps of ``ReviewStore`` for planted cases."""

    def __init__(self, store: ReviewStore) -> None:
        self.store = store
        self._planted = PlantedCases(store.folder)
        self._lock = threading.RLock()
        self._cases: dict[str, _Planted] = {}
        for plant in self._planted.read().plants:
            self._cases[plant.id] = _Planted(plant=plant, standing=_standing_of(plant), hands=_hands_of(plant))

    @property
    def case_ids(self) -> tuple[str, ...]:
        """Names of all planted cases."""
        return tuple(self._cases)

    def source(self, case: str) -> str:
        """The case that it is a copy of."""
        return self._cases[case].plant.source

    def decided_by(self, person: Person) -> set[str]:
        """Cases on which a person has decided something."""
        plants = self._planted.read().plants
        return {plant.id for plant in plants if any(answer.user == person.user for answer in plant.answers)}

    # ---- what is there ----

    def standings(self) -> dict[str, CaseStanding]:
        """Where every planted case stands."""
        return {case: self.standing(case) for case in self._cases}

    def standing(self, case: str) -> CaseStanding:
        """Where a planted case stands."""
        standing = self._cases[case].standing
        return replace(standing, decisions=dict(standing.decisions))

    def changed(self, case: str) -> tuple[str, ...]:
        """Nothing."""
        return ()

    def versions(self, case: str) -> list[MaskVersion]:
        """What was saved since the server runs."""
        return list(self._cases[case].versions)

    def image_files(self, case: str) -> tuple[Path, ...]:
        """Those of the case that it is a copy of."""
        return self.store.image_files(self.source(case))

    def draft_file(self, case: str) -> Path:
        """The mask with the error."""
        return self._planted.mask_file(case)

    def read(self, case: str, number: int | None = None) -> Volume:
        """The mask with the error, or what was made of it."""
        planted = self._cases[case]
        number = planted.standing.version if number is None else number
        draft = self._planted.mask(case)
        draft = replace(draft, is_picture=self.store.read(planted.plant.source, 0).is_picture)
        return replace(draft, array=planted.masks[number - 1][None]) if number else draft

    # ---- what people do ----

    def open_case(self, case: str, person: Person) -> CaseStanding:
        """Lets a person work on it."""
        self.store.policy.require(person, "reviewer")
        with self._lock:
            planted = self._cases[case]
            if planted.standing.holder != person.user:
                step = transition(case, "open", planted.standing.state)
                planted.standing = replace(planted.standing, state=step.after, holder=person.user)
                planted.viewed = {}
            self._renew(planted)
            return self.standing(case)

    def _renew(self, planted: _Planted) -> None:
        until = utc_text(self.store.clock() + LEASE)
        planted.standing = replace(planted.standing, lease_until_utc=until)

    def _held(self, case: str, person: Person) -> _Planted:
        self.store.policy.require(person, "reviewer")
        planted = self._cases[case]
        if planted.standing.holder != person.user:
            raise not_open(case, person.user, planted.standing.state)
        return planted

    def renew(
        self,
        case: str,
        person: Person,
        *,
        active_s: float = 0.0,
        idle_s: float = 0.0,
        slices_viewed: Mapping[str, Sequence[int]] = {},
        shown: Shown | None = None,
    ) -> None:
        """Adds what was done."""
        with self._lock:
            planted = self._held(case, person)
            planted.active_s += active_s
            for axis, slices in slices_viewed.items():
                planted.viewed.setdefault(axis, set()).update(slices)
            self._renew(planted)

    def viewing(self, case: str, person: Person, axis: str, slices: Sequence[int]) -> Viewing:
        """How much of the slices was displayed."""
        planted = self._cases[case]
        displayed = set(slices) & planted.viewed.get(axis, set())
        return Viewing(slices=len(slices), displayed=len(displayed), active_s=planted.active_s)

    def release(self, case: str, person: Person) -> None:
        """Gives it back."""
        with self._lock:
            planted = self._held(case, person)
            planted.standing = replace(_free(planted.standing), state="DRAFT", decisions={})

    def save(
        self,
        case: str,
        person: Person,
        values_zyx: np.ndarray,
        *,
        base: int,
        origin: Origin,
        tool: str,
        is_autosave: bool = False,
    ) -> MaskVersion:
        """Keeps an edit in memory."""
        with self._lock:
            planted = self._held(case, person)
            newest = planted.standing.version
            if base != newest:
                raise Conflict(case, base, newest, planted.versions[-1].author)
            before = self.read(case, base)
            require_grid(case, values_zyx.shape, before.array.shape[1:])
            edits, slices = edits_between(before.array[0], values_zyx, self.store.label_names)
            sha256 = content_sha256(values_zyx, before.geometry.matrix, self.store.label_names)
            made = self.store.version_by(person, case, newest + 1, base, origin, tool).model_copy(
                update={"sha256": sha256, "edited_voxels": edits, "edited_slices": slices}
            )
            planted.versions.append(made)
            planted.hands.add(person.user)
            planted.masks.append(values_zyx.astype(before.array.dtype))
            planted.standing = replace(planted.standing, version=made.number, sha256=made.sha256, autosaved=is_autosave)
            return made

    def decide(
        self,
        case: str,
        person: Person,
        structure: str,
        decision: Decision,
        *,
        region: int | None = None,
        viewing: Viewing | None = None,
        asked_again: bool = False,
    ) -> Asked | None:
        """Notes what a person decided."""
        require_decision(case, self.store.structures, structure, decision)
        with self._lock:
            planted = self._held(case, person)
            text = too_little_viewed(structure, viewing, self.store.policy) if decision == "accept" else ""
            if text and region is None and not asked_again and structure not in planted.asked:
                planted.asked.add(structure)
                return Asked(text=text, event="asked")
            if region is None:
                planted.standing.decisions[structure] = decision
                self._answer(planted, person, structure, decision)
            return None

    def _answer(self, planted: _Planted, person: Person, structure: str | None, decision: str) -> None:
        active_s = planted.active_s - planted.told_s
        planted.told_s = planted.active_s
        self._planted.answer(planted.plant.id, person, structure, decision, active_s=active_s, now=self.store.clock)

    def finish(self, case: str, person: Person) -> MaskVersion:
        """Looks like REVIEWED."""
        with self._lock:
            planted = self._held(case, person)
            require_all_decided(case, self.store.structures, planted.standing.decisions)
            if not planted.versions:
                draft = self.read(case, 0).array[0]
                self.save(case, person, draft, base=0, origin="model", tool="segfw predict")
            self._answer(planted, person, OF_THE_CASE, "finish")
            planted.hands.add(person.user)
            planted.standing = replace(_free(planted.standing), state="REVIEWED", reviewed_by=person.user)
            return planted.versions[-1]

    def sign(self, case: str, person: Person, *, name: str, meaning: Meaning, version_sha256: str) -> object:
        """Looks like SIGNED."""
        self.store.policy.require(person, "signer")
        require_meaning(case, meaning)
        printed = checked_name(name, "the name of a signature")
        with self._lock:
            planted = self._cases[case]
            step = transition(case, "sign", planted.standing.state)
            require_shown_version(case, planted.standing.version, planted.standing.sha256, version_sha256)
            if self.store.policy.four_eyes:
                require_other_hands(case, person.user, planted.hands)
            self._answer(planted, person, OF_THE_CASE, "sign")
            planted.standing = replace(
                planted.standing,
                state=step.after,
                signed_by=person.user,
                signed_name=printed,
                meaning=meaning,
                signed_utc=utc_text(self.store.clock()),
            )
            return step

    def reject(self, case: str, person: Person, reason: RejectReason, text: str = "") -> object:
        """Notes that a person would not have it."""
        self.store.policy.require(person, "reviewer")
        require_reject_reason(case, reason, text)
        with self._lock:
            planted = self._cases[case]
            step = transition(case, "reject", planted.standing.state)
            self._answer(planted, person, None, "reject")
            planted.standing = replace(
                _free(planted.standing), state=step.after, reject_reason=reason, reject_text=text.strip()
            )
            return step

    def amend(self, case: str, person: Person, reason: str) -> object:
        """Takes a signature back."""
        self.store.policy.require(person, "signer")
        require_amend_reason(case, reason)
        with self._lock:
            planted = self._cases[case]
            step = transition(case, "amend", planted.standing.state)
            planted.standing = replace(
                planted.standing, state=step.after, signed_by=None, signed_name=None, meaning=None, signed_utc=None
            )
            return step


def _free(standing: CaseStanding) -> CaseStanding:
    return replace(standing, holder=None, lease_until_utc=None, decisions=dict(standing.decisions))


def _hands_of(plant: Plant) -> set[str]:
    """Who had reviewed it before the server was started."""
    return {answer.user for answer in plant.answers if answer.structure == OF_THE_CASE and answer.decision == "finish"}


def _standing_of(plant: Plant) -> CaseStanding:
    """Where a planted case stands when a server starts, by what was decided before."""
    standing = CaseStanding(case=plant.id)
    for answer in plant.answers:
        if answer.structure is None:
            standing = replace(standing, state="REJECTED")
        elif answer.structure != OF_THE_CASE:
            standing.decisions[answer.structure] = _DECISIONS.get(answer.decision, "edit")
        elif answer.decision in STEPS:
            standing = replace(standing, state="REVIEWED", reviewed_by=standing.reviewed_by or answer.user)
            if answer.decision == "sign":
                standing = replace(standing, state="SIGNED", signed_by=answer.user, signed_utc=answer.utc)
    is_done = standing.state != "DRAFT"
    return standing if is_done else replace(standing, decisions={})


_DECISIONS: Mapping[str, Decision] = {"accept": "accept", "edit": "edit", "absent": "absent"}
