"""Images that a plug-in sends along to be predicted, kept for a while and nowhere but in temporary folders."""

from __future__ import annotations

import secrets
import shutil
import threading
import time
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

from segfw.images.formats import FORMATS, split_ending
from segfw.monailabel.label_desk import Unknown

KEPT_S = 3600.0
MOST_KEPT = 10


@dataclass(frozen=True, kw_only=True)
class SentImage:
    """An image: a file, or a folder of a DICOM series."""

    id: str
    path: Path
    name: str
    until: float

    @property
    def about(self) -> dict[str, Any]:
        """As the plug-in reads it."""
        return {"name": self.id, "path": str(self.path.parent), "image": str(self.path), "expiry": int(KEPT_S)}


class SentImages:
    """At most ten images, each for an hour. Threads may share it."""

    def __init__(self) -> None:
        self._own = TemporaryDirectory(prefix="segfw-monailabel-sent-")
        self._kept: dict[str, SentImage] = {}
        self._lock = threading.Lock()

    def close(self) -> None:
        """Removes all."""
        self._own.cleanup()

    def new_folder(self) -> tuple[str, Path]:
        """A name that nobody can guess, and an empty folder."""
        key = secrets.token_urlsafe(16)
        folder = Path(self._own.name) / key
        folder.mkdir()
        return key, folder

    def keep(self, key: str, files: Sequence[Path]) -> SentImage:
        """The image in files that were put into the folder of ``key``."""
        folder = Path(self._own.name) / key
        path = files[0] if len(files) == 1 else folder
        made = SentImage(id=key, path=path, name=path.name, until=time.monotonic() + KEPT_S)
        with self._lock:
            self._kept[key] = made
            stale = [each for each, image in self._kept.items() if image.until < time.monotonic()]
            surplus = list(self._kept)[: max(0, len(self._kept) - len(stale) - MOST_KEPT)]
            for each in dict.fromkeys([*stale, *surplus]):
                self._forget(each)
        return made

    def get(self, key: str) -> SentImage:
        """An image by its name; Unknown if it is not kept any more."""
        with self._lock:
            found = self._kept.get(key)
            if found is None or found.until < time.monotonic():
                raise Unknown("there is no such session; send the image again")
            return found

    def remove(self, key: str) -> SentImage:
        """Forgets an image."""
        found = self.get(key)
        with self._lock:
            self._forget(key)
        return found

    def _forget(self, key: str) -> None:
        if self._kept.pop(key, None) is not None:
            shutil.rmtree(Path(self._own.name) / key, ignore_errors=True)


def safe_name(sent: str | None, number: int, more: Sequence[str] = ()) -> str:
    """A name of our own for a file that was sent, with the ending that says its format; never one of a path."""
    ending = split_ending(Path(Path(sent or "").name))[1]
    for each in (*FORMATS, *more):
        if (sent or "").lower().endswith(each):
            ending = each
            break
    return f"{number:06d}{ending or '.dcm'}"
