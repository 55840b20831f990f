"""Serves MONAI Label's interface on this computer alone, until it is ended."""

from __future__ import annotations

from collections.abc import Callable
from importlib.util import find_spec
from pathlib import Path

from segfw.base.records import UserError
from segfw.monailabel.label_server_options import LabelServerOptions
from segfw.review_page.serve_review import answer_until_ended, bound_socket, local_server
from segfw.reviewing.people import Person
from segfw.reviewing.review_store import ReviewStore

NEEDED = {"starlette": "starlette", "uvicorn": "uvicorn", "python_multipart": "python-multipart"}


def require_packages() -> None:
    """UserError if the packages of the server are not installed."""
    lacking = [package for module, package in NEEDED.items() if find_spec(module) is None]
    if lacking:
        raise UserError(f"serving needs {' and '.join(lacking)}; install it with: pip install 'segfw[review]'")


def serve_labels(folder: Path, options: LabelServerOptions, is_ready: Callable[[str], None]) -> None:
    """Answers until it is ended; ``is_ready`` gets the address once it listens."""
    require_packages()
    from segfw.monailabel.label_desk import LabelDesk
    from segfw.monailabel.label_routes import label_app
    from segfw.monailabel.model_on_demand import ModelOnDemand
    from segfw.monailabel.origin_guard import OriginGuard, origin_of
    from segfw.monailabel.refiner_on_demand import RefinerOnDemand
    from segfw.monailabel.sent_images import SentImages

    store = ReviewStore.open(folder)
    for url in options.allow_origin:
        origin_of(url)
    model = None if options.model is None else ModelOnDemand(options.model, options.device)
    refiner = None if options.refiner is None else RefinerOnDemand(options.refiner, options.device)
    listening = bound_socket(options.port)
    port = listening.getsockname()[1]
    desk = LabelDesk(store, Person.named(options.user))
    images = SentImages()
    guarded = OriginGuard(label_app(desk, model, images, refiner), port, options.allow_origin)
    server = local_server(guarded)
    try:
        answer_until_ended(server, listening, lambda: is_ready(f"http://127.0.0.1:{port}"))
    finally:
        desk.close()
        images.close()
