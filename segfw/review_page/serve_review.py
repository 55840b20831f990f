"""Serves the review page on this computer alone, until it is ended."""

from __future__ import annotations

import errno
import signal
import socket
import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from importlib.util import find_spec
from types import FrameType
from typing import TYPE_CHECKING

from segfw.base.errors import UserError

if TYPE_CHECKING:
    import uvicorn
    from starlette.types import ASGIApp

    from segfw.review_page.review_desk import ReviewDesk

ADDRESS = "127.0.0.1"
GRACE_S = 5  # that a save has to end in, after Ctrl-C
LARGEST_HEAD_BYTES = 1 << 15
NEEDED = ("starlette", "uvicorn")


def require_server() -> None:
    """UserError if the packages of the server are not installed."""
    lacking = [name for name in NEEDED if find_spec(name) is None]
    if lacking:
        raise UserError(
            f"the review page needs {' and '.join(lacking)}; install it with: pip install 'segfw[review]', or write a "
            "page that needs no server with --static FILE"
        )


def bound_socket(port: int) -> socket.socket:
    """A socket of this computer alone; UserError if something listens at that port already."""
    made = socket.socket(socket.AF_INET, socket.SOCK_STREAM)
    exclusive = getattr(socket, "SO_EXCLUSIVEADDRUSE", None)
    if exclusive is not None:  # Windows alone would let another program listen there, too
        made.setsockopt(socket.SOL_SOCKET, exclusive, 1)
    else:  # a server that was killed leaves its port unusable for a minute, which this ends; two still cannot listen
        made.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
    try:
        made.bind((ADDRESS, port))
        made.listen()  # so that a fast browser waits until the server answers
    except OSError as error:
        made.close()
        if error.errno in (errno.EADDRINUSE, errno.EACCES):
            raise UserError(f"port {port} is taken or may not be used; give another one, or 0 for any") from None
        raise
    return made


def local_server(app: ASGIApp, *, largest_head_bytes: int | None = None) -> uvicorn.Server:
    """A server of one process that says nothing of itself and ends in GRACE_S; heads of requests may be limited."""
    import uvicorn

    config = uvicorn.Config(
        app,
        http="h11",
        ws="none",
        lifespan="off",
        log_level="error",
        access_log=False,
        server_header=False,
        date_header=False,
        proxy_headers=False,
        timeout_graceful_shutdown=GRACE_S,
        h11_max_incomplete_event_size=largest_head_bytes,
    )
    return uvicorn.Server(config)


def answer_until_ended(server: uvicorn.Server, listening: socket.socket, is_ready: Callable[[], None]) -> None:
    """Answers at a socket until Ctrl-C, or SIGTERM, by which services and containers are ended: then it returns.

    ``is_ready`` is called when the server may be ended. Without a handler of its own, SIGTERM would end the process
    before the caller lets go of what it holds, such as images of patients in the system's folder for temporary files.
    Outside the main thread, where no signal comes, the program around ends the server.
    """
    with suppress(KeyboardInterrupt), _ended_by_sigterm():
        is_ready()
        server.run(sockets=[listening])


@contextmanager
def _ended_by_sigterm() -> Iterator[None]:
    if threading.current_thread() is not threading.main_thread():
        yield
        return

    def end(number: int, frame: FrameType | None) -> None:
        raise KeyboardInterrupt

    before = signal.signal(signal.SIGTERM, end)
    try:
        yield
    finally:
        signal.signal(signal.SIGTERM, before)


def serve_review(desk: ReviewDesk, listening: socket.socket, is_ready: Callable[[str], None]) -> None:
    """Answers at a socket until it is ended; ``is_ready`` gets the address that opens the page once."""
    from segfw.review_page.page_files import page_files
    from segfw.review_page.request_guard import Pass, RequestGuard
    from segfw.review_page.review_routes import review_app

    port = listening.getsockname()[1]
    entry = Pass()
    guarded = RequestGuard(review_app(desk, page_files()), port, entry)
    server = local_server(guarded, largest_head_bytes=LARGEST_HEAD_BYTES)
    address = f"http://{ADDRESS}:{port}/?t={entry.token}"
    answer_until_ended(server, listening, lambda: is_ready(address))
