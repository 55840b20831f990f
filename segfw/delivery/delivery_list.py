"""``delivered.json`` and ``delivered.csv``: every file in a folder of deliveries, whose it is, and whether it holds."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from pathlib import Path

from segfw.base.files import file_sha256, write_text
from segfw.base.printing import csv_text
from segfw.base.records import Record, UserError
from segfw.delivery.delivered_copies import DeliveredCopy, last_copies

LIST_FILE = "delivered.json"
TABLE_FILE = "delivered.csv"


class DeliveredFile(Record):
    """A file, from the folder of deliveries, and all that it says of its mask.

    ``log_events`` is the number of the line of the review log that tells of the delivery, ``log_sha256`` its hash.
    ``image_not_found``: the image on which the mask was signed was not there to be compared. ``superseded`` says why
    the file no longer holds; '' if it does.
    """

    case: str
    state: str
    file: str
    format: str
    file_sha256: str
    version: int
    version_sha256: str
    signed_name: str | None
    signed_by: str | None
    identity: str | None
    meaning: str | None
    signed_utc: str | None
    model_digest: str
    drawn_by: dict[str, str]
    delivered_by: str
    delivered_utc: str
    log_events: int
    log_sha256: str
    image_not_found: bool = False
    superseded: str = ""


COLUMNS = tuple(name for name in DeliveredFile.model_fields if name != "drawn_by")


class DeliveryList(Record):
    """``review`` is the hash of the first line of the review log: deliveries of two reviews are never mixed."""

    review: str
    files: tuple[DeliveredFile, ...] = ()
    superseded_elsewhere: tuple[DeliveredCopy, ...] = ()

    @classmethod
    def of_folder(cls, folder: Path, review: str) -> DeliveryList:
        """The list in a folder, or an empty one; UserError if it is of another review, or damaged."""
        path = folder / LIST_FILE
        found = cls.load(path) if path.is_file() else cls(review=review)
        if found.review not in ("", review):  # there was no log before the first delivery
            raise UserError(f"{folder}: holds masks of another review; give another folder")
        return found

    def with_files(self, made: Sequence[DeliveredFile], copies: Iterable[DeliveredCopy], place: str) -> DeliveryList:
        """The list after a delivery; ``copies`` are all that the log tells of, ``place`` is this folder."""
        replaced = {each.file for each in made}
        kept = [each for each in self.files if each.file not in replaced]
        copies = tuple(copies)
        # A file that no later one was written over has a line before the last where a process was killed meanwhile
        why = {(copy.case, copy.n): copy.superseded for copy in copies if copy.place == place}
        elsewhere = [copy for copy in last_copies(copies) if copy.place != place and copy.superseded]
        files = [
            each.model_copy(update={"superseded": why.get((each.case, each.log_events), each.superseded)})
            for each in sorted((*kept, *made), key=lambda each: (each.case, each.file))
        ]
        return self.model_copy(update={"files": tuple(files), "superseded_elsewhere": tuple(elsewhere)})

    def write(self, folder: Path) -> None:
        """Writes list and table, each whole."""
        rows = [[getattr(each, name) for name in COLUMNS] for each in self.files]
        write_text(folder / TABLE_FILE, csv_text(COLUMNS, rows))
        self.save(folder / LIST_FILE)

    def problems(self, folder: Path) -> list[str]:
        """What is no longer as it was delivered, a sentence each: files that are gone, changed or superseded."""
        found = []
        for each in self.files:
            path = folder / each.file
            if not path.is_file():
                found.append(f"{path}: is gone; deliver {each.case} again")
            elif file_sha256(path) != each.file_sha256:
                found.append(f"{path}: was changed after it was delivered; deliver {each.case} again")
            elif each.superseded:
                found.append(f"{path}: no longer holds, because {each.superseded}")
        return found
