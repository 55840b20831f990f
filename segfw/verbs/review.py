"""``segfw review``: a page on this computer for one person who looks at masks, mends them and signs them."""

from __future__ import annotations

import os
import sys
from pathlib import Path
from typing import TYPE_CHECKING

from segfw.base.command import Argument, Command
from segfw.base.options import takes_options
from segfw.base.speech import say_next
from segfw.review_page.review_options import ReviewOptions

if TYPE_CHECKING:
    from segfw.review_page.click_desk import ClickRefiner
    from segfw.reviewing.review_store import ReviewStore


@takes_options(options=ReviewOptions)
def review(folder: Path, options: ReviewOptions = ReviewOptions()) -> None:
    """Serves the review page of a folder of masks until it is interrupted, or writes a page that needs no server.

    The page is of this computer alone (127.0.0.1), and of the browser in which the address was opened first: the
    address holds a token that can be used once. What is done there is kept in ``review/`` of the folder, as by
    ``accept`` and ``reject``: a log, versions of masks and signatures, each with the name of ``user``. Names are
    declared: they are no proof of who it was.

    Parameters
    ----------
    folder
        Of masks that ``predict`` or ``ensemble`` wrote.
    options
        Who reviews, and how the page is opened. With ``refiner`` the page has a click tool, and PyTorch is loaded;
        without it nothing of it is. ``static`` writes one HTML file of the most urgent ``cases`` instead,
        with pictures; ``segfw accept --from`` takes the decisions that are downloaded from it.

    Raises
    ------
    UserError
        If it is no folder of masks, the model has no refiner, the port is taken, or the packages of the server are not
        installed.
    """
    from segfw.review_page.serve_review import bound_socket, require_server, serve_review
    from segfw.reviewing.people import Person
    from segfw.reviewing.review_store import ReviewStore

    store = ReviewStore.open(Path(folder))
    if options.static is not None:
        _write_static(store, options.static, options, folder)
        return
    require_server()
    from segfw.review_page.review_desk import ReviewDesk, Seat

    person = Person.named(options.user)
    seat = Seat(
        person=person,
        language=options.language,
        deliver_to=options.deliver_to,
        is_read_only=options.read_only,
        is_blind=options.blind,
    )
    desk = ReviewDesk(store, seat, refiner=_refiner(options))
    desk.index()  # before the page is opened, which would wait for it

    def say_ready(address: str) -> None:
        print(f"{store.folder}: {len(store.case_ids)} cases, reviewed by {person.user} ({person.identity})")
        print(f"open this address; it works once, on this computer: {address}", flush=True)
        if options.browser and _has_display():
            import webbrowser

            webbrowser.open(address)
        print("Ctrl-C ends it; what was saved stays", flush=True)

    serve_review(desk, bound_socket(options.port), say_ready)


def _refiner(options: ReviewOptions) -> ClickRefiner | None:
    """What answers clicks, read before the page is opened; None without one."""
    if options.refiner is None:
        return None
    from segfw.interaction.refiner import Refiner

    return Refiner(options.refiner, device=options.device)


def _write_static(store: ReviewStore, path: Path, options: ReviewOptions, typed: Path) -> None:
    from segfw.base.words import count
    from segfw.review_page.static_review import write_static_review

    page = write_static_review(store, path, most_cases=options.cases, language=options.language)
    left = f"; {page.left_out} more are open, give more --cases for them" if page.left_out else ""
    print(f"written: {page.path}, with {count(page.cases, 'case')}{left}")
    say_next("accept", typed, "--from", "decisions.json")


def _has_display() -> bool:
    """Whether a browser has a screen to open on; without one, Linux would open a browser of text in this terminal."""
    return not sys.platform.startswith("linux") or any(map(os.environ.get, ("DISPLAY", "WAYLAND_DISPLAY")))


def _say_nothing(*_: object) -> None:
    """All was said while it ran."""


COMMAND = Command(
    function=review,
    what="Review masks on a page of this computer: look, decide, mend and sign, the most urgent first.",
    example="segfw review masks --user 'A. Meier'",
    arguments=(Argument(name="folder", help="folder of masks that segfw predict wrote"),),
    say_result=_say_nothing,
)
