"""What MONAI Label's plug-ins ask of a folder under review, answered from its store.

Saves become versions and, where the plug-in submits them, end the review of their case: REVIEWED, never SIGNED.
"""

from __future__ import annotations

import hashlib
import json
import random
import threading
import time
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from tempfile import TemporaryDirectory, mkdtemp
from typing import Any

from segfw.base.errors import UserError
from segfw.base.own_version import own_version
from segfw.base.words import listed
from segfw.images.formats import FORMATS, read_volume, split_ending
from segfw.images.image_hash import image_sha256
from segfw.images.nifti import write_nifti
from segfw.images.values import count_values
from segfw.monailabel.sent_labels import brought_home, label_names
from segfw.reviewing.case_history import CaseStanding
from segfw.reviewing.import_step import import_case
from segfw.reviewing.people import Person
from segfw.reviewing.review_log import Entry, LogReader
from segfw.reviewing.review_store import ReviewStore
from segfw.reviewing.step_options import CorrectedOptions
from segfw.reviewing.version_files import version_file
from segfw.worklist.queue_file import read_queue

ORIGINAL = "original"  # the draft
FINAL = "final"  # what counts now, of a case that was reviewed
FINISHED = ("REVIEWED", "SIGNED")
STRATEGIES = {
    "segfw-queue": "the most urgent case first, as segfw queue has them; without a queue by name",
    "first": "by name",
    "random": "any that nobody has reviewed",
}
LENT_S = 600.0  # for which a case that was handed out is handed to nobody else
NOTE = "reviewer-note"
MOST_NOTE = 4000  # characters


class Unknown(UserError):
    """There is no such case, label, model or session."""


@dataclass(frozen=True, kw_only=True)
class ServedFile:
    """A file to send, and what it is called."""

    path: Path
    name: str


class LabelDesk:
    """Answers for one folder; all saves are ``person``'s. Threads may share it."""

    def __init__(self, store: ReviewStore, person: Person) -> None:
        self.store = store
        self.person = person
        self._saving: dict[str, threading.Lock] = {}
        self._lock = threading.Lock()
        self._lent: dict[str, tuple[str, float]] = {}  # case: client, until
        self._present: dict[tuple[str, int, int], dict[str, int]] = {}  # label names by case, version and change
        self._notes: dict[str, dict[str, Any]] = {}
        self._reader = LogReader(store.log.path)
        self._own = TemporaryDirectory(prefix="segfw-monailabel-")

    def new_folder(self) -> Path:
        """An empty folder for one request; what of it is left goes with the desk."""
        return Path(mkdtemp(dir=self._own.name))

    def close(self) -> None:
        """Removes what was made to be sent."""
        self._own.cleanup()

    # ---- what there is ----

    def info(self, models: Mapping[str, Any]) -> dict[str, Any]:
        """What the plug-ins show, and what they build their lists from."""
        return {
            "name": f"segfw: {self.store.folder.name}",
            "description": "masks under review; saves become versions, signing is done in segfw review",
            "version": own_version(),
            "labels": list(self.store.labels.names[1:]),
            "models": models,
            "trainers": {},
            "strategies": {name: {"description": what} for name, what in STRATEGIES.items()},
            "scoring": {},
            "train_stats": {},
            "datastore": self.status(),
        }

    def status(self) -> dict[str, Any]:
        """How many cases there are, and how many are reviewed."""
        standings = self.store.standings()
        finished = sum(standing.state in FINISHED for standing in standings.values())
        return {
            "total": len(standings),
            "completed": finished,
            "label_tags": {ORIGINAL: len(standings), FINAL: finished},
        }

    def datastore(self) -> dict[str, Any]:
        """All cases with what there is of each."""
        objects = {}
        for case, standing in self.store.standings().items():
            labels = {ORIGINAL: {"ext": ".nii.gz", "info": self._about(case, 0)}}
            if standing.state in FINISHED:
                info = self._about(case, standing.version) | self.label_info(case)
                labels[FINAL] = {"ext": ".nii.gz", "info": info}
            objects[case] = {
                "image": {"ext": ".nii.gz", "info": {"segfw": _said(standing)}},
                "labels": labels,
            }
        return {"name": self.store.folder.name, "description": "segfw", "objects": objects}

    def training_list(self) -> list[dict[str, str]]:
        """Image and mask of each case that was reviewed."""
        found = []
        for case, standing in self.store.standings().items():
            images = self.store.image_files(case)
            if standing.state in FINISHED and images:
                label = version_file(self.store.folder, case, standing.version)
                found.append({"image": str(images[0]), "label": str(label)})
        return found

    def next_sample(self, strategy: str, client: str) -> dict[str, Any]:
        """A case that nobody reviewed, nor has open, nor was given a moment ago; {} if there is none."""
        if strategy not in STRATEGIES:
            raise Unknown(f"{strategy!r} is no strategy here; choose {listed(STRATEGIES)}")
        standings = self.store.standings()
        free = [case for case, standing in standings.items() if standing.state == "DRAFT"]
        if strategy == "random":
            random.shuffle(free)
        elif strategy == "segfw-queue":
            place = {case: number for number, case in enumerate(self._queued())}
            free.sort(key=lambda case: place.get(case, len(place)))
        case = self._lend(free, client)
        return {} if case is None else self._sample(case, standings[case])

    def _lend(self, free: Sequence[str], client: str) -> str | None:
        """The first case that was not given to another client a moment ago, and whose image is there."""
        now = time.monotonic()
        with self._lock:
            for case in free:
                owner, until = self._lent.get(case, ("", 0.0))
                is_lent = owner not in ("", client) and now < until
                if not is_lent and self.store.image_files(case):
                    self._lent[case] = (client, now + LENT_S)
                    return case
        return None

    def _queued(self) -> tuple[str, ...]:
        """Cases by their first place in the queue, if there is one."""
        queue = read_queue(self.store.folder)
        return () if queue is None else tuple(dict.fromkeys(queue.cases[number] for number in queue.columns.case))

    def _sample(self, case: str, standing: CaseStanding) -> dict[str, Any]:
        served = self.image_file(case)
        self._names_in(case, 0)  # the plug-in asks for the draft next, and needs to know what is in it
        return {
            "id": case,
            "path": str(served.path),
            "name": served.name,
            "checksum": f"SHA256:{image_sha256([served.path])}",
            "segfw": _said(standing),
        }

    # ---- files ----

    def require_case(self, case: str) -> str:
        """The id as it is in the folder; Unknown if there is none of that name."""
        if case not in self.store.case_ids:
            raise Unknown(f"{case!r} is no case here")
        return case

    def image_file(self, case: str) -> ServedFile:
        """The image of a case as one file: its own, or NIfTI of a DICOM series. Of several channels the first."""
        self.require_case(case)
        images = self.store.image_files(case)
        if not images:
            raise Unknown(f"{case}: its image is not found any more; see segfw status {self.store.folder}")
        image = images[0]
        if image.is_file() and split_ending(image)[1] in FORMATS:
            return ServedFile(path=image, name=image.name)
        made = Path(self._own.name) / f"{hashlib.sha256(case.encode()).hexdigest()[:16]}.nii.gz"
        with self._lock_of(case):
            if not made.is_file():
                volume = read_volume(image)
                write_nifti(made, volume.array[0], volume.geometry.matrix)
        return ServedFile(path=made, name=f"{case}.nii.gz")

    def label_file(self, case: str, tag: str) -> ServedFile:
        """A mask: the draft, or what counts now."""
        self.require_case(case)
        path = self._mask_file(case, self._number(case, tag))
        return ServedFile(path=path, name=f"{case}{split_ending(path)[1]}")

    def _number(self, case: str, tag: str) -> int:
        """The version that a tag means."""
        if tag == ORIGINAL:
            return 0
        standing = self.store.standing(case)
        if tag in ("", FINAL) and standing.version > 0:
            return standing.version
        raise Unknown(f"{case}: has no label {tag!r}; ask for {ORIGINAL}, or for {FINAL} of a case that was saved")

    def label_info(self, case: str) -> dict[str, Any]:
        """What a reviewer noted of a mask by a plug-in, and where the case stands here."""
        self.require_case(case)
        with self._lock:
            for event in self._reader.more():
                if event["event"] == NOTE:
                    self._notes[event["case"]] = json.loads(event["reason"])
            noted = dict(self._notes.get(case, {}))
        return noted | {"segfw": _said(self.store.standing(case))}

    def note(self, case: str, info: Mapping[str, Any]) -> dict[str, Any]:
        """Keeps what a reviewer says of a mask in the log. It is a note: it signs nothing and rejects nothing."""
        self.require_case(case)
        text = json.dumps(dict(info), sort_keys=True)
        if len(text) > MOST_NOTE:
            raise UserError(f"{case}: a note has {len(text)} characters; write at most {MOST_NOTE}")
        standing = self.store.standing(case)
        self.store.log.append(
            Entry(
                event=NOTE,
                case=case,
                user=self.person.user,
                identity=self.person.identity,
                version=standing.version,
                version_sha256=standing.sha256,
                reason=text,
            )
        )
        return self.label_info(case)

    # ---- saving ----

    def save(self, case: str, sent: Path, params: Mapping[str, Any], tag: str, folder: Path) -> dict[str, Any]:
        """Makes a version of a label map that was sent; with the tag 'final' the case is REVIEWED then.

        Saves of one case wait for each other, so that each is a version of its own. ``folder`` is for what is made of
        ``sent`` on the way.
        """
        self.require_case(case)
        client = str(params.get("client_id") or "")
        is_final = tag in ("", FINAL)
        with self._lock_of(case):
            draft = self.store.read(case, 0)
            home = brought_home(sent, params.get("label_info"), self.store.labels, draft.geometry, folder)
            standing = self.store.standing(case)
            options = CorrectedOptions(
                tool=f"MONAI Label {client}".strip()[:200],
                base=standing.version,
                finish=is_final,
            )
            import_case(self.store, case, home, self.person, 0.0, options)
            now = self.store.standing(case)
        with self._lock:
            self._lent.pop(case, None)
        return {"image": case, "label": case, "tag": FINAL if is_final else tag, "segfw": _said(now)}

    def _lock_of(self, case: str) -> threading.Lock:
        with self._lock:
            return self._saving.setdefault(case, threading.Lock())

    def _about(self, case: str, number: int) -> dict[str, Any]:
        """What the plug-in needs to name the structures in a mask, if it was looked at already."""
        names = self._present.get((case, number, self._last_change(case, number)))
        return {} if names is None else {"params": {"label_names": names}}

    def _names_in(self, case: str, number: int) -> None:
        """Looks which labels a mask holds."""
        key = (case, number, self._last_change(case, number))
        if key not in self._present:
            values = self.store.read(case, number).array[0]
            self._present[key] = label_names(list(count_values(values)), self.store.labels)

    def _last_change(self, case: str, number: int) -> int:
        """Of a mask's file: a draft may be replaced by that of a newer model."""
        path = self._mask_file(case, number)
        return path.stat().st_mtime_ns if path.is_file() else 0

    def _mask_file(self, case: str, number: int) -> Path:
        if number == 0:
            return self.store.draft_file(case)
        return version_file(self.store.folder, case, number)


def _said(standing: CaseStanding) -> dict[str, Any]:
    return {
        "state": standing.state,
        "version": standing.version,
        "sha256": standing.sha256,
        "reviewed_by": standing.reviewed_by,
        "signed_by": standing.signed_name,
    }
