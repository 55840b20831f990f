"""Who may ask the server what: checked of every request, before anything else looks at it.

The server listens on this computer alone, but any page that is open in a browser here can send requests to it. So each
request must name the server by its own address (a foreign name that was made to lead here is refused), bring the cookie
that the one-time address of the command line has set, and, where it may change something, come from the server's own
page by Origin and by a header that no form can send.
"""

from __future__ import annotations

import hmac
import json
import secrets
import threading
from collections.abc import Awaitable, Callable, Iterable, MutableMapping
from http.cookies import CookieError, SimpleCookie
from typing import Any
from urllib.parse import parse_qs

Scope = MutableMapping[str, Any]
Receive = Callable[[], Awaitable[MutableMapping[str, Any]]]
Send = Callable[[MutableMapping[str, Any]], Awaitable[None]]
App = Callable[[Scope, Receive, Send], Awaitable[None]]

TOKEN_BYTES = 32
READING = ("GET",)
OWN_HEADER = b"x-segfw"
NOT_LET_IN = "this browser was not let in; open the address that segfw review printed"
LONGEST_QUERY = 4096
LONGEST_PATH = 4096
POLICY = (
    "default-src 'none'; script-src 'self'; style-src 'self'; connect-src 'self'; img-src 'self' data: blob:; "
    "font-src 'self' data:; base-uri 'none'; form-action 'none'; frame-ancestors 'none'"
)
HEADERS = (
    (b"content-security-policy", POLICY.encode()),
    (b"x-content-type-options", b"nosniff"),
    (b"referrer-policy", b"no-referrer"),
    (b"cache-control", b"no-store"),
    (b"cross-origin-opener-policy", b"same-origin"),
    (b"cross-origin-resource-policy", b"same-origin"),
)
WELCOME = (
    '<!doctype html><html lang="en"><head><meta charset="utf-8"><meta http-equiv="refresh" content="0;url=/">'
    '<title>segfw review</title></head><body><p><a href="/">segfw review</a></p></body></html>'
)
REFUSED = (
    '<!doctype html><html lang="en"><head><meta charset="utf-8"><title>segfw review</title></head><body>'
    "<p>This address opens the page once. Use the browser in which it was opened, or end segfw review and start it "
    "again.</p><p>此地址只能使用一次。请在已打开的浏览器中继续，或重新启动 segfw review。</p></body></html>"
)


class Pass:
    """The one-time token of an address, and the secret that it is exchanged for."""

    def __init__(self) -> None:
        self.token = secrets.token_urlsafe(TOKEN_BYTES)
        self._secret = secrets.token_urlsafe(TOKEN_BYTES)
        self._is_used = False
        self._lock = threading.Lock()

    def exchange(self, token: str) -> str | None:
        """The secret, the first time that the right token is given."""
        is_right = hmac.compare_digest(token.encode(errors="replace"), self.token.encode())
        with self._lock:
            if not is_right or self._is_used:
                return None
            self._is_used = True
            return self._secret

    def lets_in(self, secret: str) -> bool:
        """Whether a cookie holds the secret; compared in constant time."""
        return hmac.compare_digest(secret.encode(errors="replace"), self._secret.encode())


class RequestGuard:
    """Wraps the server: what it does not let through never reaches it."""

    def __init__(self, app: App, port: int, entry: Pass) -> None:
        self._app = app
        self._pass = entry
        self._hosts = (f"127.0.0.1:{port}".encode(), f"localhost:{port}".encode())
        self._cookie = f"segfw-{port}"  # cookies do not know ports: two servers must not take each other's

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Lets a request through, or answers it."""
        if scope["type"] != "http":  # no websockets
            raise RuntimeError(f"no {scope['type']} is served")
        guarded = _with_headers(send)
        headers: list[tuple[bytes, bytes]] = scope["headers"]
        if len(scope.get("raw_path") or b"") > LONGEST_PATH or len(scope["query_string"]) > LONGEST_QUERY:
            await _answer(guarded, 414, "the address is too long")
            return
        hosts = _all_of(headers, b"host")
        if len(hosts) != 1 or hosts[0].lower() not in self._hosts:
            await _answer(guarded, 403, "this server is asked by the address that segfw review printed alone")
            return
        token = _token_of(scope)
        if token is not None:
            await self._enter(token, guarded)
            return
        refusal = self._refusal(scope["method"], headers, hosts[0].lower())
        if refusal:
            is_page = scope["path"] == "/" and scope["method"] == "GET"
            is_let_in = refusal != NOT_LET_IN
            await _answer(guarded, 403, refusal, page=REFUSED if is_page else "", is_let_in=is_let_in)
            return
        await self._app(scope, receive, guarded)

    async def _enter(self, token: str, send: Send) -> None:
        """Exchanges a one-time token for the cookie.

        The page leads on by itself: a cookie of SameSite=Strict would not be sent along with a redirection that began
        on another site.
        """
        secret = self._pass.exchange(token)
        if secret is None:
            await _answer(send, 403, "this address was used already", page=REFUSED)
            return
        cookie = f"{self._cookie}={secret}; HttpOnly; SameSite=Strict; Path=/"
        await _answer(send, 200, "", page=WELCOME, more=[(b"set-cookie", cookie.encode())])

    def _refusal(self, method: str, headers: list[tuple[bytes, bytes]], host: bytes) -> str:
        """Why a request is not let through; '' if it is."""
        if not self._pass.lets_in(_cookie_of(headers, self._cookie)):
            return NOT_LET_IN
        # Browsers say where a request began; of another port of this computer the cookie would be sent along.
        began = _all_of(headers, b"sec-fetch-site")
        if any(each not in (b"same-origin", b"none") for each in began):
            return "the request began on another page"
        if method in READING:
            return ""
        if _all_of(headers, b"origin") != [b"http://" + host]:
            return "what changes something must come from the page itself (Origin)"
        if _all_of(headers, OWN_HEADER) != [b"1"]:
            return "what changes something must come from the page itself (X-Segfw)"
        return ""


def _all_of(headers: Iterable[tuple[bytes, bytes]], name: bytes) -> list[bytes]:
    return [value for key, value in headers if key.lower() == name]


def _token_of(scope: Scope) -> str | None:
    """The token of an address /?t=...; None if it is another one."""
    if scope["path"] != "/" or scope["method"] != "GET":
        return None
    found = parse_qs(scope["query_string"].decode("latin-1")).get("t")
    return found[0] if found else None


def _cookie_of(headers: Iterable[tuple[bytes, bytes]], name: str) -> str:
    """The value of a cookie; '' if it is not there, or there twice."""
    found = []
    for value in _all_of(headers, b"cookie"):
        try:
            cookies = SimpleCookie(value.decode("latin-1"))
        except CookieError:
            continue
        if name in cookies:
            found.append(cookies[name].value)
    return found[0] if len(found) == 1 else ""


def _with_headers(send: Send) -> Send:
    """Adds to every answer what keeps browsers from doing anything else with it."""

    async def guarded(message: MutableMapping[str, Any]) -> None:
        if message["type"] == "http.response.start":
            own = {name for name, _ in HEADERS}
            others = [(name, value) for name, value in message.get("headers", []) if name.lower() not in own]
            message = {**message, "headers": [*others, *HEADERS]}
        await send(message)

    return guarded


async def _answer(
    send: Send,
    status: int,
    error: str,
    *,
    page: str = "",
    is_let_in: bool = True,
    more: Iterable[tuple[bytes, bytes]] = (),
) -> None:
    told: dict[str, object] = {"error": error} if is_let_in else {"error": error, "is_let_in": False}
    body = page.encode() if page else json.dumps(told).encode()
    kind = b"text/html; charset=utf-8" if page else b"application/json"
    headers = [(b"content-type", kind), (b"content-length", str(len(body)).encode()), *more]
    if status != 200:
        headers.append((b"connection", b"close"))  # what else the request brings is not read
    await send({"type": "http.response.start", "status": status, "headers": headers})
    await send({"type": "http.response.body", "body": body})
