"""Who may ask the server: checked of every request, before anything else looks at it.

The plug-ins know no cookie, so that anybody on this computer may ask. But a page that happens to be open in a browser
must not: each request must name the server by its own address, and one that a browser sends for a page says from where
(Origin), which must be the server itself or a page that was allowed.
"""

from __future__ import annotations

import json
from collections.abc import Awaitable, Callable, Iterable, MutableMapping
from typing import Any
from urllib.parse import urlsplit

from segfw.base.errors import UserError

Scope = MutableMapping[str, Any]
Message = MutableMapping[str, Any]
Receive = Callable[[], Awaitable[Message]]
Send = Callable[[Message], Awaitable[None]]
App = Callable[[Scope, Receive, Send], Awaitable[None]]
Headers = list[tuple[bytes, bytes]]

MOST_BODY_BYTES = 1 << 31  # of an image that is sent along
LONGEST_ADDRESS = 8192
METHODS = b"GET, HEAD, PUT, POST, DELETE"
PLAIN_HEADERS = ((b"x-content-type-options", b"nosniff"), (b"cache-control", b"no-store"))


class TooMuch(Exception):
    """More was sent than may be; what is left of it is not read."""


class OriginGuard:
    """Wraps the server: what it does not let through never reaches it."""

    def __init__(
        self, app: App, port: int, allowed: Iterable[str] = (), most_body_bytes: int = MOST_BODY_BYTES
    ) -> None:
        self._app = app
        self._hosts = (f"127.0.0.1:{port}".encode(), f"localhost:{port}".encode())
        self._own = {b"http://" + host for host in self._hosts}
        self._allowed = {origin_of(url).encode() for url in allowed}
        self._most_body_bytes = most_body_bytes

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Lets a request through, or answers it."""
        if scope["type"] != "http":  # no websockets
            raise RuntimeError(f"no {scope['type']} is served")
        headers: Headers = scope["headers"]
        origin = _only(headers, b"origin")
        answering = _with_headers(send, self._cors_headers(origin))
        if len(scope.get("raw_path") or b"") + len(scope["query_string"]) > LONGEST_ADDRESS:
            await _answer(answering, 414, "the address is too long")
            return
        refusal = self._refusal(headers, origin)
        if refusal:
            await _answer(answering, 403, refusal)
            return
        if scope["method"] == "OPTIONS":
            await _answer(answering, 204, "")
            return
        if _length(headers) > self._most_body_bytes:
            await _answer(answering, 413, f"more than {self._most_body_bytes} bytes are not taken")
            return
        await self._app(scope, self._counted(receive), answering)

    def _refusal(self, headers: Headers, origin: bytes | None) -> str:
        """Why a request is not let through; '' if it is."""
        hosts = _all_of(headers, b"host")
        if len(hosts) != 1 or hosts[0].lower() not in self._hosts:
            return "this server is asked by its own address alone, such as http://127.0.0.1:8000"
        if len(_all_of(headers, b"origin")) > 1:
            return "the request says twice where it began"
        if origin is not None:
            is_known = origin in self._own or origin in self._allowed
            return "" if is_known else "the request began on a page that is not allowed; see --allow-origin"
        began = _all_of(headers, b"sec-fetch-site")
        if any(each not in (b"same-origin", b"none") for each in began):
            return "the request began on another page"
        return ""

    def _cors_headers(self, origin: bytes | None) -> Headers:
        """What lets an allowed page read the answer; nothing for others."""
        if origin is None or origin not in self._allowed:
            return []
        return [
            (b"access-control-allow-origin", origin),
            (b"access-control-allow-methods", METHODS),
            (b"access-control-allow-headers", b"content-type, authorization"),
            (b"access-control-expose-headers", b"content-disposition"),
            (b"access-control-allow-private-network", b"true"),
            (b"vary", b"origin"),
        ]

    def _counted(self, receive: Receive) -> Receive:
        """Ends the request where more comes than may."""
        total = 0

        async def counted() -> Message:
            nonlocal total
            message = await receive()
            total += len(message.get("body", b""))
            if total > self._most_body_bytes:
                raise TooMuch
            return message

        return counted


def origin_of(url: str) -> str:
    """'http://localhost:3000' of a page's address; UserError if it is none."""
    parts = urlsplit(url)
    if parts.scheme not in ("http", "https") or not parts.netloc or "*" in url or "@" in parts.netloc:
        raise UserError(f"--allow-origin is {url!r}; give the address of one page, such as http://localhost:3000")
    return f"{parts.scheme}://{parts.netloc.lower()}"


def _all_of(headers: Headers, name: bytes) -> list[bytes]:
    return [value for key, value in headers if key.lower() == name]


def _only(headers: Headers, name: bytes) -> bytes | None:
    found = _all_of(headers, name)
    return found[0] if len(found) == 1 else None


def _length(headers: Headers) -> int:
    said = _only(headers, b"content-length") or b""
    return int(said) if said.isdigit() else 0


def _with_headers(send: Send, more: Headers) -> Send:
    async def answering(message: Message) -> None:
        if message["type"] == "http.response.start":
            message = {**message, "headers": [*message.get("headers", []), *PLAIN_HEADERS, *more]}
        await send(message)

    return answering


async def _answer(send: Send, status: int, error: str) -> None:
    body = json.dumps({"detail": error}).encode() if error else b""
    headers = [(b"content-type", b"application/json"), (b"content-length", str(len(body)).encode())]
    if status >= 400:
        headers.append((b"connection", b"close"))  # what else the request brings is not read
    await send({"type": "http.response.start", "status": status, "headers": headers})
    await send({"type": "http.response.body", "body": body})
