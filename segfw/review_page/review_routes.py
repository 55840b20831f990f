"""The addresses of the review page: each reads what a request says, asks the desk, and answers in JSON or bytes."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping
from dataclasses import replace
from typing import Any

import numpy as np
from pydantic import BaseModel, ConfigDict, ValidationError
from starlette.applications import Starlette
from starlette.concurrency import run_in_threadpool
from starlette.exceptions import HTTPException
from starlette.requests import ClientDisconnect, Request
from starlette.responses import JSONResponse, Response, StreamingResponse
from starlette.routing import Route

from segfw.base.errors import UserError, is_disk_full, reason_of
from segfw.review_page.case_views import NotFound
from segfw.review_page.click_desk import PageClick
from segfw.review_page.label_palette import WrongBitmap
from segfw.review_page.page_files import PageFiles
from segfw.review_page.request_body import (
    MOST_JSON_BYTES,
    BodyDamaged,
    BodyTooLarge,
    most_packed_bytes,
    read_body,
    unpacked,
)
from segfw.review_page.review_desk import Bitmap, Refused, ReviewDesk
from segfw.review_page.review_index import Wanted
from segfw.review_page.served_grid import ServedGrid
from segfw.review_page.session_summary import session_summary
from segfw.review_page.volume_bytes import gzip_parts, nifti_parts
from segfw.reviewing.refusals import Conflict, Locked
from segfw.reviewing.viewing import Shown

GZIP_TYPE = "application/gzip"
MOST_ITEMS = 5000
ITEMS = 500


class Asked(BaseModel):
    """What a request says in JSON; other keys are refused."""

    model_config = ConfigDict(extra="forbid", strict=True, allow_inf_nan=False)


class OfCase(Asked):
    """Of open, release and finish."""

    case: str


class Beat(OfCase):
    """Of heartbeat; ``box`` is that of the volumes on the page, '' the case's own.

    ``quality_shown`` and ``overlay_shown`` are what has been on the screen since the case was opened.
    """

    active_s: float
    idle_s: float = 0.0
    slices_viewed: dict[str, list[int]] = {}
    box: str = ""
    whole: bool = False
    quality_shown: bool | None = None
    overlay_shown: bool | None = None

    @property
    def shown(self) -> Shown | None:
        """What has been on the screen; None where the page does not say it."""
        if self.quality_shown is None or self.overlay_shown is None:
            return None
        return Shown(quality=self.quality_shown, overlay=self.overlay_shown)


class Decided(OfCase):
    """Of decide."""

    structure: str
    decision: str
    region: int | None = None
    asked_again: bool = False


class Signature(OfCase):
    """Of sign."""

    name: str
    meaning: str
    sha256: str


class Rejection(OfCase):
    """Of reject."""

    reason: str
    text: str = ""


class Delivered(OfCase):
    """Of deliver."""

    formats: list[str]


class Amendment(OfCase):
    """Of amend."""

    reason: str


class BadRequest(UserError):
    """A request that no page of ours sends."""


def review_app(desk: ReviewDesk, files: PageFiles) -> Starlette:
    """All addresses. Who may ask is checked before, by ``RequestGuard``."""
    routes = ReviewRoutes(desk, files)
    case = "/api/case/{case}"
    app = Starlette(
        routes=[
            Route("/api/session", routes.session),
            Route("/api/queue", routes.queue),
            Route("/api/summary", routes.summary),
            Route(case, routes.case),
            Route(case + "/image.nii.gz", routes.image),
            Route(case + "/doubt.nii.gz", routes.doubt),
            Route(case + "/label/{number:int}.nii.gz", routes.label),
            Route(case + "/compare/{kind}", routes.compare),
            Route(case + "/click-places", routes.click_places),
            Route(case + "/candidate/{region:int}/{number:int}", routes.candidate),
            Route("/api/save", routes.save, methods=["POST"]),
            Route("/api/refine", routes.refine, methods=["POST"]),
            *(Route(f"/api/{name}", routes.action(name), methods=["POST"]) for name in ACTIONS),
            Route("/", routes.page),
            Route("/{name}", routes.page),
            Route("/{folder}/{name}", routes.page),
        ],
        exception_handlers={
            UserError: _user_error,
            HTTPException: _http_error,
            BodyTooLarge: _too_large,
            BodyDamaged: _damaged,
            ClientDisconnect: _gone,
            Exception: _any_error,
        },
    )
    app.router.redirect_slashes = False
    return app


class ReviewRoutes:
    """The answer to each address. What reads files is done in a thread, so that others need not wait."""

    def __init__(self, desk: ReviewDesk, files: PageFiles) -> None:
        self.desk = desk
        self.files = files

    # ---- what is asked ----

    async def session(self, request: Request) -> Response:
        """Who sits here."""
        return JSONResponse(await run_in_threadpool(self.desk.session))

    async def queue(self, request: Request) -> Response:
        """Some items of the queue."""
        query = request.query_params
        wanted = Wanted(
            case=query.get("case", ""),
            structure=query.get("structure", ""),
            state=query.get("state", ""),
            verdict=query.get("verdict", ""),
            text=query.get("text", "")[:200],
        )
        offset = _number(query, "offset", 0)
        limit = min(_number(query, "limit", ITEMS), MOST_ITEMS)
        return JSONResponse(await run_in_threadpool(self.desk.queue, offset, limit, wanted))

    async def summary(self, request: Request) -> Response:
        """What the end of a session shows."""
        return JSONResponse(await run_in_threadpool(session_summary, self.desk.store))

    async def case(self, request: Request) -> Response:
        """A case but its volumes."""

        def answer(case: str) -> Response:
            return JSONResponse(self.desk.case(case, self._grid(case, request.query_params)))

        return await self._of_case(request, answer)

    async def image(self, request: Request) -> Response:
        """The image, or one channel of it."""

        def answer(case: str) -> Response:
            grid = self._grid(case, request.query_params)
            shown = self.desk.views.image(case, grid, _number(request.query_params, "channel", 0))
            return _streamed(nifti_parts(shown.array, grid.geometry))

        return await self._of_case(request, answer)

    async def label(self, request: Request) -> Response:
        """A version of the mask."""

        def answer(case: str) -> Response:
            grid = self._grid(case, request.query_params)
            group = _number(request.query_params, "group", 0)
            bitmap = self.desk.views.label(case, request.path_params["number"], grid, group)
            return _streamed(nifti_parts(bitmap, grid.geometry))

        return await self._of_case(request, answer)

    async def compare(self, request: Request) -> Response:
        """Another mask."""

        def answer(case: str) -> Response:
            kind = request.path_params["kind"].removesuffix(".nii.gz")
            if kind.startswith("fold_"):
                self.desk.require_shown(case)
            grid = self._grid(case, request.query_params)
            bitmap = self.desk.views.other(case, kind, grid, _number(request.query_params, "group", 0))
            return _streamed(nifti_parts(bitmap, grid.geometry))

        return await self._of_case(request, answer)

    async def doubt(self, request: Request) -> Response:
        """The map of doubt."""

        def answer(case: str) -> Response:
            self.desk.require_shown(case)
            grid = self._grid(case, request.query_params)
            return _streamed(nifti_parts(self.desk.views.doubt(case, grid), grid.geometry))

        return await self._of_case(request, answer)

    async def click_places(self, request: Request) -> Response:
        """Where a click probably pays."""

        def answer(case: str) -> Response:
            query = request.query_params
            grid = self._grid(case, query)
            base = _number(query, "base", 0)
            return JSONResponse(self.desk.click_places(case, query.get("structure", ""), base, grid))

        return await self._of_case(request, answer)

    async def candidate(self, request: Request) -> Response:
        """Another mask of a region, as bits in bytes."""

        def answer(case: str) -> Response:
            self.desk.require_shown(case)
            grid = self._grid(case, request.query_params)
            numbers = request.path_params
            return _streamed(gzip_parts(self.desk.views.candidate(case, numbers["region"], numbers["number"], grid)))

        return await self._of_case(request, answer)

    async def page(self, request: Request) -> Response:
        """A file of the page, by its name in the list of all."""
        parts = [request.path_params.get(name) for name in ("folder", "name")]
        name = "/".join(part for part in parts if part) or "index.html"
        found = self.files.get(name)
        if found is None:
            raise HTTPException(404, "there is no such page")
        return Response(await run_in_threadpool(found.path.read_bytes), media_type=found.media_type)

    async def _of_case(self, request: Request, answer: Callable[[str], Response]) -> Response:
        case = self.desk.case_of(request.path_params["case"])
        return await run_in_threadpool(answer, case)

    def _grid(self, case: str, query: Mapping[str, str]) -> ServedGrid:
        return self.desk.views.grid(case, box_xyz=query.get("box", ""), is_whole=query.get("whole", "0") == "1")

    # ---- what is done ----

    def action(self, name: str) -> Callable[[Request], Any]:
        """The answer to one of ACTIONS."""
        record, do = ACTIONS[name]

        async def answer(request: Request) -> Response:
            body = await read_body(request.headers, request.stream(), MOST_JSON_BYTES)
            asked = _parsed(record, body)
            case = self.desk.case_of(asked.case)
            return JSONResponse(await run_in_threadpool(do, self, case, asked))

        return answer

    async def save(self, request: Request) -> Response:
        """Makes a version of a bitmap."""
        query = request.query_params

        def store(case: str, bitmap: Bitmap) -> dict[str, Any]:
            bitmap = replace(
                bitmap,
                origin=query.get("origin", "edited"),
                is_autosave=query.get("autosave", "0") == "1",
                clicks=_number(query, "clicks", 0),
            )
            return self.desk.save(case, bitmap)

        return await self._of_bitmap(request, store)

    async def refine(self, request: Request) -> Response:
        """What a click would change of a bitmap."""
        query = request.query_params
        click = PageClick(
            structure=query.get("structure", ""),
            at_xyz=_place(query.get("at", "")),
            is_inside=query.get("inside", "1") == "1",
            may_overwrite=query.get("overwrite", "0") == "1",
            after=_number(query, "after", 0),
        )

        def answer(case: str, bitmap: Bitmap) -> dict[str, Any]:
            return self.desk.refine(case, click, bitmap)

        return await self._of_bitmap(request, answer)

    async def _of_bitmap(self, request: Request, do: Callable[[str, Bitmap], dict[str, Any]]) -> Response:
        """Reads what is drawn of a case, gzipped, and hands it on."""
        query = request.query_params
        case = self.desk.case_of(query.get("case", ""))
        grid = await run_in_threadpool(self._grid, case, query)
        if not grid.is_whole and not query.get("box"):
            raise WrongBitmap(f"{case}: is served as a box; say which, by box=x0,y0,z0,x1,y1,z1 as the case says it")
        packed = await read_body(request.headers, request.stream(), most_packed_bytes(grid.voxels))

        def answer() -> dict[str, Any]:
            content = unpacked(packed, grid.voxels)
            bitmap = Bitmap(
                indexes_zyx=np.frombuffer(content, np.uint8).reshape(grid.shape),
                grid=grid,
                group=_number(query, "group", 0),
                base=_number(query, "base", None),
            )
            return do(case, bitmap)

        return JSONResponse(await run_in_threadpool(answer))

    def _open(self, case: str, asked: OfCase) -> dict[str, Any]:
        return self.desk.open(case)

    def _release(self, case: str, asked: OfCase) -> dict[str, Any]:
        return self.desk.release(case)

    def _finish(self, case: str, asked: OfCase) -> dict[str, Any]:
        return self.desk.finish(case)

    def _heartbeat(self, case: str, asked: Beat) -> dict[str, Any]:
        return self.desk.heartbeat(
            case,
            active_s=asked.active_s,
            idle_s=asked.idle_s,
            slices_viewed=asked.slices_viewed,
            grid=self.desk.views.grid(case, box_xyz=asked.box, is_whole=asked.whole),
            shown=asked.shown,
        )

    def _decide(self, case: str, asked: Decided) -> dict[str, Any]:
        return self.desk.decide(
            case, asked.structure, asked.decision, region=asked.region, asked_again=asked.asked_again
        )

    def _sign(self, case: str, asked: Signature) -> dict[str, Any]:
        return self.desk.sign(case, name=asked.name, meaning=asked.meaning, sha256=asked.sha256)

    def _reject(self, case: str, asked: Rejection) -> dict[str, Any]:
        return self.desk.reject(case, asked.reason, asked.text)

    def _deliver(self, case: str, asked: Delivered) -> dict[str, Any]:
        return self.desk.deliver(case, asked.formats)

    def _amend(self, case: str, asked: Amendment) -> dict[str, Any]:
        return self.desk.amend(case, asked.reason)


ACTIONS: Mapping[str, tuple[type[OfCase], Callable[[ReviewRoutes, str, Any], dict[str, Any]]]] = {
    "open": (OfCase, ReviewRoutes._open),
    "heartbeat": (Beat, ReviewRoutes._heartbeat),
    "release": (OfCase, ReviewRoutes._release),
    "decide": (Decided, ReviewRoutes._decide),
    "finish": (OfCase, ReviewRoutes._finish),
    "sign": (Signature, ReviewRoutes._sign),
    "reject": (Rejection, ReviewRoutes._reject),
    "deliver": (Delivered, ReviewRoutes._deliver),
    "amend": (Amendment, ReviewRoutes._amend),
}


def _parsed(record: type[OfCase], body: bytes) -> OfCase:
    try:
        return record.model_validate_json(body)
    except ValidationError as error:
        first = error.errors()[0]
        field = ".".join(str(part) for part in first["loc"])
        raise BadRequest(f"the request is wrong ({field or 'JSON'}: {first['msg']}); load the page again") from None


def _number(query: Mapping[str, str], name: str, default: int | None) -> int:
    text = query.get(name)
    if text is None and default is not None:
        return default
    if text is None or not (text.isascii() and text.isdigit() and len(text) < 10):
        raise BadRequest(f"{name}={(text or '')[:50]!r} is no whole number; load the page again")
    return int(text)


def _place(text: str) -> tuple[int, int, int]:
    """The voxel 'x,y,z' of what is served."""
    parts = text.split(",")
    if len(parts) != 3 or not all(part.isascii() and part.isdigit() and len(part) < 7 for part in parts):
        raise BadRequest(f"at={text[:50]!r} is no voxel; give x,y,z of what is shown")
    x, y, z = map(int, parts)
    return x, y, z


def _streamed(parts: Iterator[bytes]) -> Response:
    return StreamingResponse(parts, media_type=GZIP_TYPE)


# ---- errors ----


def _error(status: int, error: str, **more: object) -> Response:
    headers = {"connection": "close"} if status == 413 else None  # what else comes is not read
    return JSONResponse({"error": error, **more}, status, headers)


async def _user_error(request: Request, error: Exception) -> Response:
    if isinstance(error, Conflict):
        return _error(409, str(error), newest=error.newest, author=error.author)
    if isinstance(error, Locked):
        return _error(409, str(error), holder=getattr(error, "holder", None))
    if isinstance(error, NotFound):
        return _error(404, str(error))
    if isinstance(error, Refused):
        return _error(403, str(error))
    if isinstance(error, WrongBitmap):
        return _error(422, str(error))
    return _error(507 if is_disk_full(error) else 400, str(error))


async def _http_error(request: Request, error: Exception) -> Response:
    assert isinstance(error, HTTPException)
    return _error(error.status_code, str(error.detail))


async def _too_large(request: Request, error: Exception) -> Response:
    return _error(413, "what was sent is larger than it may be; nothing was saved")


async def _damaged(request: Request, error: Exception) -> Response:
    return _error(422, str(error))


async def _gone(request: Request, error: Exception) -> Response:
    return _error(400, "the connection was closed before all had come; nothing was saved")


async def _any_error(request: Request, error: Exception) -> Response:
    if is_disk_full(error):
        return _error(507, reason_of(error) or "the disk is full; free some space and save again")
    return _error(500, reason_of(error) or f"an error of segfw ({type(error).__name__}: {error}); see the terminal")
