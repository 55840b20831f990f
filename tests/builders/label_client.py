"""A server of ``segfw serve-monailabel`` in a process of its own, and a client that sends what the plug-ins send."""

from __future__ import annotations

import http.client
import json
import re
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from email import message_from_bytes
from pathlib import Path
from typing import Any
from urllib.parse import quote_plus

from builders.started_server import started_server

ADDRESS = re.compile(r"served at http://127\.0\.0\.1:(\d+);")
LIMIT = "----------lImIt_of_THE_fIle_eW_$"  # as the plug-in of 3D Slicer has it


@dataclass(frozen=True)
class Reply:
    """What came back."""

    status: int
    headers: Mapping[str, str]
    body: bytes

    @property
    def json(self) -> Any:
        """The body, of JSON."""
        return json.loads(self.body)

    @property
    def parts(self) -> dict[str, tuple[str, bytes]]:
        """{name: (file name, content)} of an answer in parts."""
        head = f"Content-Type: {self.headers['content-type']}\r\n\r\n".encode()
        found = {}
        for part in message_from_bytes(head + self.body).get_payload():
            name = part.get_param("name", header="content-disposition")
            found[name] = (part.get_filename() or "", part.get_payload(decode=True))
        return found


@dataclass(frozen=True)
class LabelClient:
    """The requests of MONAI Label's client class, byte for byte as it builds them."""

    port: int
    client_id: str = "user-xyz"

    def ask(self, method: str, path: str, body: bytes | None = None, headers: Mapping[str, str] | None = None) -> Reply:
        """One request with these headers, as it is."""
        connection = http.client.HTTPConnection("127.0.0.1", self.port, timeout=300)
        try:
            connection.request(method, path, body, dict(headers or {}))
            response = connection.getresponse()
            found = {name.lower(): value for name, value in response.getheaders()}
            return Reply(response.status, found, response.read())
        finally:
            connection.close()

    def get(self, path: str) -> Reply:
        """Of info, datastore and status."""
        return self.ask("GET", path)

    def next_sample(self, strategy: str) -> Reply:
        """Asks for a case to work on."""
        body = json.dumps({"client_id": self.client_id}).encode()
        headers = {"content-type": "application/json", "content-length": str(len(body))}
        return self.ask("POST", f"/activelearning/{quote_plus(strategy)}", body, headers)

    def save_label(self, case: str, label: Path, params: Mapping[str, Any], tag: str = "") -> Reply:
        """Submits a label map."""
        path = f"/datastore/label?image={quote_plus(case)}" + (f"&tag={quote_plus(tag)}" if tag else "")
        fields = {"params": json.dumps({**params, "client_id": self.client_id})}
        return self.multipart("PUT", path, fields, {"label": label})

    def infer(self, model: str, case: str, params: Mapping[str, Any], more: str = "", **files: Path) -> Reply:
        """Lets a model predict."""
        path = f"/infer/{quote_plus(model)}?image={quote_plus(case)}{more}"
        return self.multipart("POST", path, {"params": json.dumps({**params, "client_id": self.client_id})}, files)

    def multipart(self, method: str, path: str, fields: Mapping[str, str], files: Mapping[str, Path]) -> Reply:
        """A request in parts; a file is called by its whole path, as the plug-in does."""
        lines: list[bytes] = []
        for name, value in fields.items():
            lines += [f"--{LIMIT}".encode(), f'Content-Disposition: form-data; name="{name}"'.encode(), b""]
            lines.append(value.encode())
        for name, file in files.items():
            head = f'Content-Disposition: form-data; name="{name}"; filename="{file}"'
            lines += [f"--{LIMIT}".encode(), head.encode(), b"Content-Type: application/octet-stream", b""]
            lines.append(file.read_bytes())
        lines += [f"--{LIMIT}--".encode(), b""]
        body = b"".join(line + b"\r\n" for line in lines)
        headers = {"content-type": f"multipart/form-data; boundary={LIMIT}", "content-length": str(len(body))}
        return self.ask(method, path, body, headers)


@contextmanager
def label_server(
    folder: Path, *options: str, program: tuple[str, ...] = ("segfw", "serve-monailabel")
) -> Iterator[int]:
    """Starts the server, or another ``program`` in its place, and gives its port."""
    words = (*program, str(folder), "--port", "0", "--user", "ada", *options)
    with started_server(words, ADDRESS) as (_, said):
        yield int(said[1])
