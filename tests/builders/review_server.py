"""A real ``segfw review`` in a process of its own, and somebody who asks it as the page would."""

from __future__ import annotations

import gzip
import http.client
import json
import re
import subprocess
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any
from urllib.parse import quote

import nibabel
import numpy as np

from builders.started_server import started_server

ADDRESS = re.compile(r"http://127\.0\.0\.1:(\d+)/\?t=(\S+)")


@dataclass
class Answer:
    """What came back."""

    status: int
    headers: dict[str, str]
    body: bytes

    @property
    def json(self) -> Any:
        """The body, of JSON."""
        return json.loads(self.body)

    @property
    def volume(self) -> nibabel.Nifti1Image:
        """The body, of a gzipped NIfTI."""
        return nibabel.Nifti1Image.from_bytes(gzip.decompress(self.body))


@dataclass
class Reviewer:
    """Somebody with a browser; ``enter`` opens the address that was printed."""

    port: int
    token: str
    cookie: str = ""
    process: subprocess.Popen[str] | None = field(default=None, repr=False)

    @property
    def origin(self) -> str:
        """Where the page comes from."""
        return f"http://127.0.0.1:{self.port}"

    def ask(
        self, method: str, path: str, body: Any = None, headers: Mapping[str, str] | None = None, timeout_s: float = 60
    ) -> Answer:
        """One request with exactly these headers."""
        connection = http.client.HTTPConnection("127.0.0.1", self.port, timeout=timeout_s)
        try:
            connection.request(method, path, body, dict(headers or {}))
            response = connection.getresponse()
            found = {name.lower(): value for name, value in response.getheaders()}
            return Answer(response.status, found, response.read())
        finally:
            connection.close()

    def enter(self) -> Answer:
        """Exchanges the token for the cookie."""
        answer = self.ask("GET", f"/?t={self.token}")
        self.cookie = answer.headers.get("set-cookie", "").partition(";")[0]
        return answer

    @property
    def own_headers(self) -> dict[str, str]:
        """What the page sends with a request that may change something."""
        return {"Cookie": self.cookie, "Origin": self.origin, "X-Segfw": "1"}

    def get(self, path: str) -> Answer:
        """As the page asks."""
        return self.ask("GET", path, headers={"Cookie": self.cookie})

    def post(self, path: str, content: Any) -> Answer:
        """As the page sends: JSON, or bytes as they are."""
        body = content if isinstance(content, bytes) else json.dumps(content).encode()
        return self.ask("POST", path, body, self.own_headers)

    def bitmap(self, case: str, version: int = 0, query: str = "") -> np.ndarray:
        """The bitmap (z, y, x) of a version."""
        answer = self.get(f"/api/case/{quote(case)}/label/{version}.nii.gz{query}")
        assert answer.status == 200, answer.body
        return np.asarray(answer.volume.dataobj).transpose(2, 1, 0)

    def save(self, case: str, bitmap_zyx: np.ndarray, base: int, more: str = "") -> Answer:
        """Saves a bitmap as the page does."""
        packed = gzip.compress(np.ascontiguousarray(bitmap_zyx).tobytes(), 1)
        return self.post(f"/api/save?case={quote(case)}&base={base}{more}", packed)


@contextmanager
def review_server(
    folder: Path,
    *options: str,
    user: str = "Anna",
    limits: Any = None,
    program: tuple[str, ...] = ("segfw", "review"),
) -> Iterator[Reviewer]:
    """Starts ``segfw review`` and waits for its address; ``limits`` is run in the process before it starts.

    ``program`` is what is run in its place.
    """
    words = (*program, str(folder), "--user", user, "--no-browser", *options)
    with started_server(words, ADDRESS, limits) as (process, said):
        yield Reviewer(int(said[1]), said[2], process=process)
