"""What is known of a folder of masks under review: drafts, versions, and where each case stands."""

from __future__ import annotations

import threading
from dataclasses import replace
from functools import cached_property
from pathlib import Path

from segfw.base.errors import UserError
from segfw.base.file_names import REVIEW_FOLDER
from segfw.dataset.labels import LABELS_FILE, LabelSet
from segfw.evaluation.mask_facts import read_mask_facts, structures_in_masks
from segfw.evaluation.masks import read_stored_mask
from segfw.images.formats import has_names, is_picture, read_volume
from segfw.images.image_hash import image_sha256
from segfw.images.volume import Volume
from segfw.reviewing.case_history import CaseHistory, CaseStanding, Histories
from segfw.reviewing.draft_files import DraftImages, drafts_in
from segfw.reviewing.draft_model import draft_model_digest, is_folder_of_drafts
from segfw.reviewing.leases import Lease, read_lease, read_leases
from segfw.reviewing.mask_version import MaskVersion, content_sha256, label_table
from segfw.reviewing.review_log import Clock, Event, LogReader, ReviewLog, now_utc
from segfw.reviewing.review_policy import ReviewPolicy
from segfw.reviewing.states import State
from segfw.reviewing.version_files import LABELS_FOLDER, read_record, read_version, version_file


class ReviewFolder:
    """Reads a folder of masks and its ``review/``; writes nothing. Threads may share it."""

    def __init__(self, folder: Path, clock: Clock = now_utc) -> None:
        folder = Path(folder)
        if not folder.is_dir():
            raise UserError(f"{folder}: no such folder; give a folder of masks that segfw predict wrote")
        if not is_folder_of_drafts(folder) or not (folder / LABELS_FILE).is_file():
            raise UserError(f"{folder}: is no folder of segfw's masks; give one that segfw predict or ensemble wrote")
        self.folder = folder.resolve()
        self.clock = clock
        self.labels = LabelSet.load(folder / LABELS_FILE)
        self.policy = ReviewPolicy.of_folder(folder)
        self.log = ReviewLog.open(self.folder, clock)
        self._drafts = drafts_in(self.folder)
        kept = self.folder / REVIEW_FOLDER / LABELS_FOLDER
        reviewed = {path.name for path in kept.iterdir() if path.is_dir()} if kept.is_dir() else set()
        self.case_ids: tuple[str, ...] = tuple(sorted(self._drafts.keys() | reviewed))
        if not self.case_ids:
            raise UserError(f"{folder}: holds no mask that can be reviewed; predict with --as nifti")
        self._known = frozenset(self.case_ids)
        self._reader = LogReader(self.log.path)
        self._histories = Histories()
        self._reading = threading.RLock()
        self._draft_hashes: dict[tuple[Path, int, int], str] = {}  # by file, bytes and last change

    @property
    def is_begun(self) -> bool:
        """Whether anything was reviewed here."""
        return self.log.path.is_file()

    @cached_property
    def structures(self) -> tuple[str, ...]:
        """Names of the structures that are decided on: all, or those that alone the masks were made for."""
        return structures_in_masks(self.labels, self.folder, read_mask_facts(self.folder))

    @cached_property
    def label_names(self) -> dict[str, str]:
        """Names of the labels by their values, as texts."""
        return label_table(self.labels)

    @cached_property
    def _images(self) -> DraftImages:
        return DraftImages(self.folder, self._drafts, self.policy.images)

    # ---- what is there ----

    def standings(self) -> dict[str, CaseStanding]:
        """Where every case stands, from what was added to the log since the last time, and from the leases."""
        with self._reading:
            histories = self._read_log()
            leases = read_leases(self.folder)
            return {case: self._with_lease(histories.of(case), leases.get(case)) for case in self.case_ids}

    def standing(self, case: str) -> CaseStanding:
        """Where a case stands; UserError if there is none of that name."""
        self._require_case(case)
        with self._reading:
            return self._with_lease(self._read_log().of(case), read_lease(self.folder, case))

    def history(self, case: str) -> list[Event]:
        """All events of a case."""
        self._require_case(case)
        return [event for event in self.log.events() if event.case == case]

    def image_files(self, case: str) -> tuple[Path, ...]:
        """The files of the case's image, one a channel; none if they are not found any more."""
        self._require_case(case)
        return self._images.files(case)

    def draft_file(self, case: str) -> Path:
        """What ``predict`` wrote; UserError if it is gone."""
        self._require_case(case)
        if case not in self._drafts or not self._drafts[case].is_file():
            raise UserError(f"{case}: the draft is gone from {self.folder}; predict it again")
        return self._drafts[case]

    def versions(self, case: str) -> list[MaskVersion]:
        """All versions that the log knows, in their order."""
        self._require_case(case)
        with self._reading:
            numbers = sorted(self._read_log().of(case).versions)
        return [read_record(self.folder, case, number) for number in numbers]

    def version(self, case: str, number: int) -> MaskVersion:
        """What is said of a version; UserError if its file is gone or damaged."""
        self._require_case(case)
        return read_record(self.folder, case, number)

    @property
    def head(self) -> tuple[int, str]:
        """Number and hash of the last line of the log that was read."""
        return self._reader.n, self._reader.sha256

    def known_versions(self) -> dict[str, dict[int, str]]:
        """The hash of every version that the part of the log knows that was read so far, by case and number."""
        return {case: dict(history.versions) for case, history in self._histories.cases.items()}

    def read(self, case: str, number: int | None = None) -> Volume:
        """The voxels of a version, (1, Z, Y, X) in the file's own order; 0 is the draft, None what counts now."""
        if number is None:
            number = self.standing(case).version
        self._require_case(case)
        if number == 0:
            return self._read_draft(case)
        if not version_file(self.folder, case, number).is_file():
            raise UserError(f"{case}: has no version {number}; give one that segfw status lists")
        volume = read_version(self.folder, case, number)
        return replace(volume, is_picture=case in self._drafts and is_picture(self._drafts[case]))

    def sha256(self, case: str, number: int) -> str:
        """The hash of what a version's file holds now."""
        if number == 0:
            return self._draft_sha256(case)
        return self._hash_of(self.read(case, number))

    def model_digest(self) -> str:
        """Of the model that made the drafts."""
        return draft_model_digest(self.folder)

    def changed(self, case: str) -> tuple[str, ...]:
        """What is no longer as it was signed: 'mask', 'image', 'model'; nothing of a case that is not signed."""
        self._require_case(case)
        with self._reading:
            signed = self._read_log().of(case).signed
        if signed is None:
            return ()
        found = []
        try:
            is_same = self.sha256(case, signed.version) == signed.version_sha256
            is_same = is_same and read_record(self.folder, case, signed.version).sha256 == signed.version_sha256
        except UserError:
            is_same = False
        if not is_same:
            found.append("mask")
        image = image_sha256(self.image_files(case))
        if image is not None and signed.image_sha256 is not None and image != signed.image_sha256:
            found.append("image")
        if signed.model_digest != self.model_digest():
            found.append("model")
        return tuple(found)

    def is_image_gone(self, case: str) -> bool:
        """Whether a case was signed on an image that is not found any more, so that it cannot be compared."""
        self._require_case(case)
        with self._reading:
            signed = self._read_log().of(case).signed
        return signed is not None and signed.image_sha256 is not None and not self.image_files(case)

    # ---- inside ----

    def _require_case(self, case: str) -> None:
        if case not in self._known:
            raise UserError(f"{self.folder}: has no case {case!r}; segfw status lists them")

    def _read_log(self) -> Histories:
        for event in self._reader.more():
            self._histories.take(event)
        return self._histories

    def _live_lease(self, history: CaseHistory, lease: Lease | None) -> Lease | None:
        """The lease, if somebody has the case now."""
        is_open = history.standing.state == "IN_REVIEW" and lease is not None and lease.is_live(self.clock())
        return lease if is_open else None

    def _state(self, history: CaseHistory, lease: Lease | None) -> State:
        """The state of a case now, with the lease that somebody has: without one it has fallen back."""
        state = history.standing.state
        return history.back_to if state == "IN_REVIEW" and lease is None else state

    def _with_lease(self, history: CaseHistory, lease: Lease | None) -> CaseStanding:
        standing = replace(history.standing, decisions=dict(history.standing.decisions))
        live = self._live_lease(history, lease)
        if live is not None:
            return replace(standing, holder=live.user, lease_until_utc=live.until_utc)
        state = self._state(history, live)
        kept = standing.decisions if state == standing.state or state == "REVIEWED" else {}
        return replace(standing, state=state, decisions=kept)

    def _read_draft(self, case: str) -> Volume:
        path = self.draft_file(case)
        if not has_names(path):
            return read_stored_mask(path)
        images = self.image_files(case)
        return read_stored_mask(path, self.labels, read_volume(images[0]) if images else None)

    def _draft_sha256(self, case: str) -> str:
        path = self.draft_file(case)
        state = path.stat()
        key = (path, state.st_size, state.st_mtime_ns)
        if key not in self._draft_hashes:
            self._draft_hashes[key] = self._hash_of(self._read_draft(case))
        return self._draft_hashes[key]

    def _hash_of(self, volume: Volume) -> str:
        return content_sha256(volume.array[0], volume.geometry.matrix, self.label_names)
