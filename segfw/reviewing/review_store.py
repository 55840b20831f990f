"""Every step that a person can take with a mask under review: checked, done, and noted in the log.

What people made lies in ``review/`` of the folder of masks, and drafts are never written over. A step counts once the
log holds its line; the files of versions are written before, so that no line speaks of a file that is not there.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from pathlib import Path

import numpy as np

from segfw.base.errors import UserError
from segfw.base.file_names import REVIEW_FOLDER
from segfw.base.locks import alone
from segfw.images.image_hash import image_sha256
from segfw.images.values import as_integers, count_values
from segfw.images.volume import Volume
from segfw.reviewing.case_history import CaseHistory, CaseStanding
from segfw.reviewing.leases import Lease, lease_file, new_lease, read_lease
from segfw.reviewing.mask_version import EditedVoxels, MaskVersion, Origin, edits_between
from segfw.reviewing.people import Person, checked_name
from segfw.reviewing.refusals import (
    Conflict,
    Locked,
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
from segfw.reviewing.review_folder import ReviewFolder
from segfw.reviewing.review_ledger import LedgerRow, add_rows
from segfw.reviewing.review_log import LOCKS_FOLDER, Clock, Edited, Entry, Event, now_utc, utc_text
from segfw.reviewing.states import Decision, Meaning, RejectReason, Transition, transition
from segfw.reviewing.version_files import next_number, read_record, remove_version, write_version
from segfw.reviewing.viewing import Asked, Shown, Viewing, too_little_viewed, too_many_in_a_row

DRAFT_TOOL = "segfw predict"


class ReviewStore(ReviewFolder):
    """What people decide, draw and sign of the masks in one folder. Threads and processes may share it."""

    @classmethod
    def open(cls, folder: Path, clock: Clock = now_utc) -> ReviewStore:
        """The review of a folder of masks, begun or not; nothing is written. UserError if it is no such folder."""
        return cls(folder, clock)

    @contextmanager
    def alone_with(self, case: str) -> Iterator[None]:
        """Keeps all others from taking a step with a case meanwhile, and this thread as well."""
        self._require_case(case)
        with alone(self.folder / REVIEW_FOLDER / LOCKS_FOLDER / f"{case}.case.lock"):
            yield

    def open_case(self, case: str, person: Person) -> CaseStanding:
        """Lets a person work on a case for ten minutes from now; also renews that. Locked if another one has it."""
        self.policy.require(person, "reviewer")
        with self.alone_with(case):
            history, lease = self._now(case)
            if lease is not None:
                self._require_own(case, lease, person)
                self._keep(lease)
                return self.standing(case)
            step = transition(case, "open", self._state(history, None))
            number = history.standing.version
            entry = self._step_entry(step, case, person).model_copy(
                update={"version": number, "version_sha256": self.sha256(case, number)}
            )
            self._append_step(history, lease, entry)
            self._keep(new_lease(case, person.user, person.identity, self.clock()))
            return self.standing(case)

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
        """Adds what was done since the last time, and ten minutes; Locked if the person has not the case."""
        with self.alone_with(case):
            _, lease = self._opened(case, person)
            worked = lease.with_work(max(0.0, active_s), max(0.0, idle_s), slices_viewed)
            self._keep(worked.with_shown(shown))

    def viewing(self, case: str, person: Person, axis: str, slices: Sequence[int]) -> Viewing:
        """How much of the slices of a structure was displayed to a person since he opened the case."""
        lease = read_lease(self.folder, case)
        if lease is None or lease.user != person.user:
            return Viewing(slices=len(slices), displayed=0, active_s=0.0)
        displayed = set(slices) & set(lease.slices_viewed.get(axis, ()))
        return Viewing(slices=len(slices), displayed=len(displayed), active_s=lease.active_s)

    def release(self, case: str, person: Person) -> None:
        """Gives a case back. Versions that were saved stay as unsigned ones, and make it a draft again."""
        with self.alone_with(case):
            history, lease = self._opened(case, person)
            entry = self._entry("release", case, person, lease)
            states = {"from_state": "IN_REVIEW", "to_state": history.back_to}
            self.log.append(entry.model_copy(update=states))
            self._end(lease, "release")

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
        """Makes a version of label values (Z, Y, X), in the order of the draft's file.

        Where nothing differs from the version ``base`` that one is given back. Conflict if ``base`` is not the newest
        (0 is the draft); UserError if the shape is another one, or a value is no label.
        """
        with self.alone_with(case):
            history, lease = self._opened(case, person)
            self._require_newest(case, history, base)
            before = self.read(case, base)
            values = self._checked_values(case, values_zyx, before)
            about = self._about(case, person, base, origin, tool)
            edits, slices = edits_between(before.array[0], values, self.label_names)
            if not slices and origin != "imported":
                return read_record(self.folder, case, base) if base else self._draft_version(about)
            about = about.model_copy(update={"edited_voxels": edits, "edited_slices": slices})
            made = write_version(self.folder, about, values, before.geometry, self._drafts.get(case))
            entry = self._version_entry("autosave" if is_autosave else "save", made, person, lease)
            voxels = self._voxels_by_structure(edits)
            changed: dict[str, Decision] = {
                name: "edit" for name in voxels if history.standing.decisions.get(name, "edit") != "edit"
            }
            decided = self._decisions(case, person, changed, "its voxels were changed after it was decided")
            self._commit([entry, *decided], made)
            self._keep(lease.with_edits(voxels, slices).noted())
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
        """Notes what a person decided on a structure, or on a suspected region of it.

        Gives back a question, once, where he can hardly have looked at what he accepts; nothing is decided then.
        Whoever was asked decides with ``asked_again``.
        """
        require_decision(case, self.structures, structure, decision)
        with self.alone_with(case):
            history, lease = self._opened(case, person)
            asked = None
            if decision == "accept" and region is None:
                asked = self._question(history, person, structure, viewing)
            entries = []
            if asked is not None:
                said = {"structure": structure, "reason": asked.text}
                entries.append(self._entry(asked.event, case, person, lease).model_copy(update=said))
                lease = lease.noted()
            if asked is not None and not asked_again:
                self.log.append_all(entries)
                self._keep(lease)
                return asked
            update = {"structure": structure, "region": region, "decision": decision}
            entries.append(self._entry("decide", case, person, lease).model_copy(update=update))
            self.log.append_all(entries)
            add_rows(self.folder, [_row(lease, structure, region, decision)])
            self._keep(lease.noted().listed(structure))
        return None

    def decide_all(self, case: str, person: Person, decisions: Mapping[str, Decision], reason: str = "") -> None:
        """Notes decisions on many structures at once, without asking: for scripts, which cannot look."""
        for structure, decision in decisions.items():
            require_decision(case, self.structures, structure, decision)
        with self.alone_with(case):
            _, lease = self._opened(case, person)
            self.log.append_all(self._decisions(case, person, decisions, reason))
            self._keep(lease)

    def finish(self, case: str, person: Person) -> MaskVersion:
        """Makes a case REVIEWED, of which every structure is decided.

        The draft becomes version 1 where nobody drew anything. Structures that are said to be absent are taken out;
        UserError where that would change others, and where the draft is not the one that was opened.
        """
        with self.alone_with(case):
            state = self._state(*self._now(case))
            if state != "DRAFT":
                transition(case, "finish", state)  # which says what else is to be done
            history, lease = self._opened(case, person)
            step = transition(case, "finish", "IN_REVIEW")
            require_all_decided(case, self.structures, history.standing.decisions)
            made, is_new = self._final_version(case, person, history)
            entry = self._version_entry(step.event, made, person, lease).model_copy(
                update={
                    "from_state": step.before,
                    "to_state": step.after,
                    "image_sha256": image_sha256(self.image_files(case)),
                }
            )
            self._commit([entry], made if is_new else None)
            self._end(lease, step.event)
            return made

    def sign(self, case: str, person: Person, *, name: str, meaning: Meaning, version_sha256: str) -> Event:
        """Signs the version whose hash was shown. UserError if it, its file or the image is another one by now.

        With four eyes nobody signs what he reviewed or changed.
        """
        self.policy.require(person, "signer")
        require_meaning(case, meaning)
        printed = checked_name(name, "the name of a signature")
        with self.alone_with(case):
            history, lease = self._now(case)
            step = transition(case, "sign", self._state(history, lease))
            self._require_signable(case, person, history, version_sha256)
            image = image_sha256(self.image_files(case))
            self._require_image(case, history, image)
            entry = self._step_entry(step, case, person).model_copy(
                update={
                    "version": history.standing.version,
                    "version_sha256": version_sha256,
                    "image_sha256": image,
                    "name": printed,
                    "meaning": meaning,
                }
            )
            return self._append_step(history, lease, entry)

    def reject(self, case: str, person: Person, reason: RejectReason, text: str = "") -> Event:
        """Says that no mask can be had from this draft, and why; 'other' needs a text."""
        self.policy.require(person, "reviewer")
        require_reject_reason(case, reason, text)
        with self.alone_with(case):
            history, lease = self._now(case)
            step = transition(case, "reject", self._state(history, lease))
            if lease is not None:
                self._require_own(case, lease, person)
            said = f"{reason}: {text.strip()}" if text.strip() else reason
            entry = self._step_entry(step, case, person, lease).model_copy(update={"reason": said})
            event = self._append_step(history, lease, entry)
            if lease is not None:
                self._end(lease, step.event)
            return event

    def amend(self, case: str, person: Person, reason: str) -> Event:
        """Takes a signature back, for a reason; the version that was signed stays."""
        self.policy.require(person, "signer")
        require_amend_reason(case, reason)
        with self.alone_with(case):
            history, lease = self._now(case)
            step = transition(case, "amend", self._state(history, lease))
            update = {
                "reason": reason.strip(),
                "version": history.standing.version,
                "version_sha256": history.standing.sha256,
            }
            return self.log.append(self._step_entry(step, case, person).model_copy(update=update))

    # ---- who may, and what ----

    def _now(self, case: str) -> tuple[CaseHistory, Lease | None]:
        """What is known of a case, and the lease, if somebody has it now."""
        with self._reading:
            history = self._read_log().of(case)
        return history, self._live_lease(history, read_lease(self.folder, case))

    def _opened(self, case: str, person: Person) -> tuple[CaseHistory, Lease]:
        """The same of a case that the person has open; Locked if he has not.

        Whoever opened it last still has it where his lease ran out, as on a computer that slept, if nobody took it.
        """
        self.policy.require(person, "reviewer")
        history, lease = self._now(case)
        if lease is not None:
            self._require_own(case, lease, person)
            return history, lease
        kept = read_lease(self.folder, case)
        is_his = history.standing.state == "IN_REVIEW" and history.opened_by == person.user
        if is_his and kept is not None and kept.user == person.user:
            return history, kept
        raise not_open(case, person.user, self._state(history, lease))

    def _require_own(self, case: str, lease: Lease, person: Person) -> None:
        if lease.user != person.user:
            raise Locked(f"{case}: is being reviewed by {lease.user} until {lease.until_utc}; look at it read-only")

    def _require_newest(self, case: str, history: CaseHistory, base: int) -> None:
        newest = history.standing.version
        if base != newest:
            author = read_record(self.folder, case, newest).author if newest else "the model"
            raise Conflict(case, base, newest, author)

    def _require_signable(self, case: str, person: Person, history: CaseHistory, version_sha256: str) -> None:
        number = history.standing.version
        require_shown_version(case, number, history.standing.sha256, version_sha256)
        if self.sha256(case, number) != version_sha256:
            raise UserError(
                f"{case}: the file of version {number} was changed after it was reviewed; put it back from a copy"
            )
        if self.policy.four_eyes:
            require_other_hands(case, person.user, history.hands)

    def _require_image(self, case: str, history: CaseHistory, image: str | None) -> None:
        """UserError where a signature would be bound to another image than was reviewed, or to none any more."""
        reviewed = history.reviewed_image_sha256
        if reviewed is not None and image is None:
            raise UserError(
                f"{case}: the image on which it was reviewed is not found any more; put it back, or say where it lies "
                "with 'images' in review/policy.json"
            )
        if reviewed not in (None, image):
            raise UserError(f"{case}: its image was changed since it was reviewed; open it and review it again")

    def _question(self, history: CaseHistory, person: Person, structure: str, viewing: Viewing | None) -> Asked | None:
        """What is asked before a structure is accepted; each thing once."""
        text = too_little_viewed(structure, viewing, self.policy)
        if text and structure not in history.asked:
            return Asked(text=text, event="asked")
        with self._reading:
            accepted = self._histories.accepts_in_a_row.get(person.user, 0)
        text = too_many_in_a_row(accepted, self.policy)
        return Asked(text=text, event="asked-row") if text else None

    # ---- masks ----

    def _checked_values(self, case: str, values_zyx: np.ndarray, before: Volume) -> np.ndarray:
        """Whole numbers that are labels, on the grid of the draft; UserError for anything else."""
        require_grid(case, values_zyx.shape, before.array.shape[1:])
        try:
            values = as_integers(values_zyx)
        except ValueError as error:
            raise UserError(f"{case}: the mask {error}; give label values") from None
        unknown = sorted(set(count_values(values)) - set(self.labels.stored_values))
        if unknown:
            raise UserError(f"{case}: the mask holds {unknown[0]}, which is no label here; give one of labels.json")
        return values

    def _about(self, case: str, person: Person, base: int, origin: Origin, tool: str) -> MaskVersion:
        """What is said of a version that is to be written."""
        made = self.version_by(person, case, next_number(self.folder, case), base, origin, tool)
        if not base:
            return made
        return made.model_copy(update={"model_digest": read_record(self.folder, case, base).model_digest})

    def version_by(self, person: Person, case: str, number: int, base: int, origin: Origin, tool: str) -> MaskVersion:
        """What is said of a version that somebody makes now of the model's drafts, before its voxels are known."""
        return MaskVersion(
            case=case,
            number=number,
            sha256="",
            parent=base,
            origin=origin,
            model_digest=self.model_digest(),
            author=person.user,
            editor_tool=tool,
            made_utc=utc_text(self.clock()),
            label_names=self.label_names,
        )

    def _draft_version(self, about: MaskVersion) -> MaskVersion:
        """The draft as a version: number 0, which nobody drew."""
        sha256 = self.sha256(about.case, 0)
        said = {"number": 0, "parent": 0, "origin": "model", "author": "", "editor_tool": DRAFT_TOOL, "sha256": sha256}
        return about.model_copy(update=said)

    def _final_version(self, case: str, person: Person, history: CaseHistory) -> tuple[MaskVersion, bool]:
        """The version that a case ends with, and whether it was written just now."""
        number = history.standing.version
        present = self.read(case, number)
        known = history.standing.sha256 if number else history.opened_sha256
        if self._hash_of(present) != known:
            what = f"the file of version {number} was changed" if number else "there is another draft"
            raise UserError(f"{case}: {what} since it was opened; give it back, and open and look at it again")
        values = self._without_absent(case, present, history)
        edits, slices = edits_between(present.array[0], values, self.label_names)
        if number and not slices:
            return read_record(self.folder, case, number), False
        about = self._about(case, person, number, "edited" if slices else "model", "decisions")
        about = about.model_copy(update={"edited_voxels": edits, "edited_slices": slices})
        return write_version(self.folder, about, values, present.geometry, self._drafts.get(case)), True

    def _without_absent(self, case: str, present: Volume, history: CaseHistory) -> np.ndarray:
        """The values of a mask without the structures that were said to be absent."""
        values = as_integers(present.array[0])
        absent = {name for name, decision in history.standing.decisions.items() if decision == "absent"}
        drawn = set(count_values(values))
        gone = {value for name in absent for value in self._values_of(name)} & drawn
        for name in set(self.labels.structures) - absent:
            if gone & set(self._values_of(name)):
                raise UserError(
                    f"{case}: {', '.join(sorted(absent))} is said to be absent, but shares voxels with {name}, which "
                    "is not; edit the mask so that each is right"
                )
        if not gone:
            return values
        return np.where(np.isin(values, sorted(gone)), self.labels.values[0], values).astype(values.dtype)

    def _values_of(self, structure: str) -> tuple[int, ...]:
        stored = self.labels.stored_values
        return tuple(stored[index] for index in self.labels.structures[structure])

    def labels_of(self, structure: str) -> tuple[str, ...]:
        """Names of the labels that a structure consists of."""
        return tuple(self.label_names.get(str(value), "") for value in self._values_of(structure))

    def _voxels_by_structure(self, edits: Mapping[str, EditedVoxels]) -> dict[str, int]:
        """How many voxels of each structure were changed; structures that were not are left out."""
        found = {}
        for name in self.structures:
            mine = [edits[label] for label in self.labels_of(name) if label in edits]
            voxels = sum(each.added + each.removed for each in mine)
            if voxels:
                found[name] = voxels
        return found

    # ---- notes ----

    def _entry(self, event: str, case: str, person: Person, lease: Lease | None = None) -> Entry:
        return Entry(
            event=event,
            case=case,
            user=person.user,
            identity=person.identity,
            model_digest=self.model_digest(),
            active_s=0.0 if lease is None else round(lease.active_s - lease.noted_active_s, 1),
            slices_viewed=0 if lease is None else lease.slices,
            quality_shown=None if lease is None else lease.quality_shown,
            overlay_shown=None if lease is None else lease.overlay_shown,
        )

    def _step_entry(self, step: Transition, case: str, person: Person, lease: Lease | None = None) -> Entry:
        states = {"from_state": step.before, "to_state": step.after}
        return self._entry(step.event, case, person, lease).model_copy(update=states)

    def _version_entry(self, event: str, version: MaskVersion, person: Person, lease: Lease) -> Entry:
        edited = version.all_edited
        update = {
            "version": version.number,
            "version_sha256": version.sha256,
            "edited": Edited(added=edited.added, removed=edited.removed),
        }
        return self._entry(event, version.case, person, lease).model_copy(update=update)

    def _decisions(self, case: str, person: Person, decisions: Mapping[str, Decision], reason: str) -> list[Entry]:
        entry = self._entry("decide", case, person)
        return [
            entry.model_copy(update={"structure": name, "decision": decision, "reason": reason})
            for name, decision in decisions.items()
        ]

    def _append_step(self, history: CaseHistory, lease: Lease | None, entry: Entry) -> Event:
        """Notes a step and, before it, that somebody's lease ran out, which is ended then; ``lease`` is a live one."""
        over = self._lease_over(history) if lease is None else []
        left = read_lease(self.folder, history.standing.case) if over else None
        event = self.log.append_all([*over, entry])[-1]
        if left is not None:
            self._end(left, "lease-over")
        return event

    def _lease_over(self, history: CaseHistory) -> list[Entry]:
        """What is noted before the next step where somebody's lease ran out; the time that he worked is kept."""
        if history.standing.state != "IN_REVIEW":
            return []
        case = history.standing.case
        lease = read_lease(self.folder, case)
        person = Person(user=history.opened_by or "unknown")
        states = {"from_state": "IN_REVIEW", "to_state": history.back_to, "reason": "the lease ran out"}
        return [self._entry("lease-over", case, person, lease).model_copy(update=states)]

    def _commit(self, entries: Sequence[Entry], made: MaskVersion | None) -> None:
        """Notes entries; the files of a version that was made for them go again where that fails."""
        try:
            self.log.append_all(entries)
        except Exception:
            if made is not None:
                remove_version(self.folder, made.case, made.number)
            raise

    def _keep(self, lease: Lease) -> None:
        """Keeps a lease for ten more minutes."""
        lease.renewed(self.clock()).save(lease_file(self.folder, lease.case))

    def _end(self, lease: Lease, event: str) -> None:
        """Ends a lease after the event that says so."""
        add_rows(self.folder, [_row(lease, "", None, event)])
        lease_file(self.folder, lease.case).unlink(missing_ok=True)


def _row(lease: Lease, structure: str, region: int | None, decision: str) -> LedgerRow:
    """What the ledger was not told yet."""
    edited = lease.edited_voxels
    return LedgerRow(
        case=lease.case,
        structure=structure,
        region=region,
        user=lease.user,
        opened=lease.opened_utc,
        active_s=lease.active_s - lease.listed_active_s,
        idle_s=lease.idle_s - lease.listed_idle_s,
        slices_viewed=lease.slices,
        slices_edited=len(lease.edited_slices),
        edited_voxels=edited.get(structure, 0) if structure else sum(edited.values()),
        decision=decision,
    )
