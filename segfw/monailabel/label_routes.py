"""The addresses of MONAI Label's interface: each reads what a request says, asks the desk, and answers."""

from __future__ import annotations

import json
import secrets
import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

from starlette.applications import Starlette
from starlette.background import BackgroundTask
from starlette.concurrency import run_in_threadpool
from starlette.datastructures import FormData, UploadFile
from starlette.exceptions import HTTPException
from starlette.requests import Request
from starlette.responses import FileResponse, JSONResponse, Response
from starlette.routing import Route

from segfw.base.errors import UserError, is_disk_full, reason_of
from segfw.monailabel.label_desk import FINAL, LabelDesk, ServedFile, Unknown
from segfw.monailabel.model_on_demand import ModelOnDemand, Predicted
from segfw.monailabel.origin_guard import TooMuch
from segfw.monailabel.refiner_on_demand import RefinerOnDemand
from segfw.monailabel.sent_images import SentImages, safe_name
from segfw.monailabel.sent_labels import RAW
from segfw.review_page.request_body import MOST_JSON_BYTES, BodyTooLarge, read_body
from segfw.reviewing.refusals import Conflict, Locked
from segfw.reviewing.states import WrongState

MOST_FILES = 5000  # of a DICOM series
PART_BYTES = 1 << 20
NO_TRAINING = "this server trains nothing; retrain with segfw retrain, and start the server with the new model"
NO_IMAGES = "images are not taken here; predict them with segfw predict, which makes the folder under review"
MIME = "application/octet-stream"


def label_app(
    desk: LabelDesk, model: ModelOnDemand | None, images: SentImages, refiner: RefinerOnDemand | None = None
) -> Starlette:
    """All addresses. Who may ask is checked before, by ``OriginGuard``."""
    routes = LabelRoutes(desk, model, images, refiner)
    app = Starlette(
        routes=[
            *_both("/info", routes.info),
            Route("/activelearning/{strategy}", routes.next_sample, methods=["POST"]),
            *_both("/datastore", routes.datastore),
            *_both("/datastore", _refused(405, NO_IMAGES), "PUT", "DELETE"),
            Route("/datastore/image", routes.image),
            Route("/datastore/image", _refused(405, NO_IMAGES), methods=["PUT", "DELETE"]),
            Route("/datastore/image/info", routes.image_info),
            Route("/datastore/label", routes.label),
            Route("/datastore/label", routes.save, methods=["PUT"]),
            Route("/datastore/label", _refused(405, "versions are never removed"), methods=["DELETE"]),
            Route("/datastore/label/info", routes.label_info),
            Route("/datastore/label/info", routes.note, methods=["PUT"]),
            Route("/datastore/updatelabelinfo", routes.note, methods=["PUT"]),
            Route("/infer/{model}", routes.infer, methods=["POST"]),
            *_both("/train", routes.train),
            *_both("/train", _refused(405, NO_TRAINING), "POST", "DELETE"),
            Route("/train/{model}", _refused(405, NO_TRAINING), methods=["POST"]),
            *_both("/auth", routes.auth),
            Route("/auth/token", routes.token, methods=["POST"]),
            Route("/auth/token/valid", routes.auth),
            *_both("/session", routes.open_session, "PUT"),
            Route("/session/{key}", routes.session),
            Route("/session/{key}", routes.close_session, methods=["DELETE"]),
        ],
        exception_handlers={
            UserError: _user_error,
            HTTPException: _http_error,
            BodyTooLarge: _too_large,
            TooMuch: _too_large,
            Exception: _any_error,
        },
    )
    app.router.redirect_slashes = False
    return app


class LabelRoutes:
    """The answer to each address. What reads files is done in a thread, so that others need not wait."""

    def __init__(
        self, desk: LabelDesk, model: ModelOnDemand | None, images: SentImages, refiner: RefinerOnDemand | None
    ) -> None:
        self.desk = desk
        self.model = model
        self.refiner = refiner
        self.images = images

    # ---- what there is ----

    async def info(self, request: Request) -> Response:
        """Name, labels, model, strategies."""
        models = {each.name: each.about for each in (self.model, self.refiner) if each is not None}
        return JSONResponse(await run_in_threadpool(self.desk.info, models))

    async def next_sample(self, request: Request) -> Response:
        """A case to work on."""
        params = await _json(request)
        client = str(params.get("client_id") or "")
        strategy = request.path_params["strategy"]
        return JSONResponse(await run_in_threadpool(self.desk.next_sample, strategy, client))

    async def datastore(self, request: Request) -> Response:
        """All cases, or how many there are."""
        answers: dict[str, Callable[[], Any]] = {"all": self.desk.datastore, "train": self.desk.training_list}
        answer = answers.get(request.query_params.get("output", ""), self.desk.status)
        return JSONResponse(await run_in_threadpool(answer))

    async def image(self, request: Request) -> Response:
        """The image of a case, as a file."""
        return _file(await run_in_threadpool(self.desk.image_file, _asked(request, "image")))

    async def image_info(self, request: Request) -> Response:
        """Where a case stands."""
        return JSONResponse(await run_in_threadpool(self.desk.label_info, _asked(request, "image")))

    async def label(self, request: Request) -> Response:
        """A mask, as a file."""
        case = request.query_params.get("label") or _asked(request, "image")
        tag = request.query_params.get("tag", FINAL)
        return _file(await run_in_threadpool(self.desk.label_file, case, tag))

    async def label_info(self, request: Request) -> Response:
        """What was noted of a mask."""
        return JSONResponse(await run_in_threadpool(self.desk.label_info, _asked(request, "label")))

    # ---- what people do ----

    async def save(self, request: Request) -> Response:
        """Takes a label map."""
        case = _asked(request, "image")
        tag = request.query_params.get("tag", FINAL)
        self.desk.require_case(case)
        folder = self.desk.new_folder()
        try:
            async with request.form(max_files=1, max_fields=10, max_part_size=MOST_JSON_BYTES) as form:
                params = _params(form)
                sent = await _stored(form, "label", folder, RAW)
            if sent is None:
                raise UserError("no label map was sent; send it as the part 'label'")
            return JSONResponse(await run_in_threadpool(self.desk.save, case, sent, params, tag, folder))
        finally:
            await run_in_threadpool(shutil.rmtree, folder, True)

    async def note(self, request: Request) -> Response:
        """Keeps what a reviewer says of a mask."""
        case = _asked(request, "label")
        async with request.form(max_files=0, max_fields=10, max_part_size=MOST_JSON_BYTES) as form:
            info = _object(form.get("info") or form.get("params") or "{}")
        return JSONResponse(await run_in_threadpool(self.desk.note, case, info))

    async def infer(self, request: Request) -> Response:
        """Predicts a case, or an image that was sent; a refiner changes one structure of a case by points."""
        name = request.path_params["model"]
        if self.model is None and self.refiner is None:
            raise Unknown("no model answers here; start the server with --model or --refiner")
        folder = self.desk.new_folder()
        try:
            async with request.form(max_files=2, max_fields=10, max_part_size=MOST_JSON_BYTES) as form:
                params = _params(form)
                sent = await _stored(form, "file", folder)
            found = await run_in_threadpool(self._found, name, request, sent, params, folder)
        except BaseException:
            shutil.rmtree(folder, True)
            raise
        removal = BackgroundTask(shutil.rmtree, folder, True)
        said = {"label_names": found.label_names, "model": name}
        output = request.query_params.get("output", "all")
        if output == "json":
            return JSONResponse({"params": said}, background=removal)
        if output == "image":
            return _file(found.file, removal)
        return await run_in_threadpool(_multipart, found, said, removal)

    def _found(self, name: str, request: Request, sent: Path | None, params: dict[str, Any], folder: Path) -> Predicted:
        """What the model of that name makes of what is asked for."""
        if self.refiner is not None and name == self.refiner.name:
            if sent is not None or request.query_params.get("session_id"):
                raise UserError("the refiner mends masks of cases of this folder; take one by Next Sample")
            return self.refiner.refine(self.desk, _asked(request, "image"), params, folder)
        if self.model is None:
            raise Unknown(f"{name!r} is no model here; start the server with --model")
        return self.model.predict(name, self._images_asked_for(request, sent), params, folder)

    def _images_asked_for(self, request: Request, sent: Path | None) -> tuple[Path, ...]:
        """The files of an image, one a channel."""
        query = request.query_params
        if sent is not None:
            return (sent,)
        if query.get("session_id"):
            return (self.images.get(query["session_id"]).path,)
        case = self.desk.require_case(_asked(request, "image"))
        files = self.desk.store.image_files(case)
        if not files:
            raise Unknown(f"{case}: its image is not found any more; see segfw status")
        return files

    async def train(self, request: Request) -> Response:
        """Nothing is trained here."""
        if request.query_params.get("check_if_running", "").lower() == "true":
            return JSONResponse({"detail": NO_TRAINING}, status_code=404)
        return JSONResponse({"status": "NOT RUNNING", "details": [NO_TRAINING]})

    async def auth(self, request: Request) -> Response:
        """Nobody needs a name here: the server is of this computer alone."""
        return JSONResponse({"enabled": False, "client_id": "", "realm": "", "username": self.desk.person.user})

    async def token(self, request: Request) -> Response:
        """There is none."""
        return JSONResponse({"access_token": None, "token_type": None})

    # ---- images that are sent ----

    async def open_session(self, request: Request) -> Response:
        """Keeps an image for a while."""
        key, folder = await run_in_threadpool(self.images.new_folder)
        files = []
        async with request.form(max_files=MOST_FILES, max_fields=10, max_part_size=MOST_JSON_BYTES) as form:
            for number, part in enumerate(form.getlist("files")):
                if isinstance(part, UploadFile):
                    files.append(await _copied(part, folder / safe_name(part.filename, number)))
        if not files:
            raise UserError("no image was sent; send it as the part 'files'")
        kept = self.images.keep(key, files)
        return JSONResponse({"session_id": kept.id, "session_info": kept.about})

    async def session(self, request: Request) -> Response:
        """What is kept, or the image."""
        kept = self.images.get(request.path_params["key"])
        if request.query_params.get("image", "").lower() == "true" and kept.path.is_file():
            return _file(ServedFile(path=kept.path, name=kept.name))
        return JSONResponse(kept.about)

    async def close_session(self, request: Request) -> Response:
        """Forgets an image."""
        return JSONResponse((await run_in_threadpool(self.images.remove, request.path_params["key"])).about)


# ---- requests ----


def _both(path: str, endpoint: Callable[[Request], Any], *methods: str) -> tuple[Route, Route]:
    """An address with and without a slash at its end: a redirection would lose what is sent."""
    wanted = list(methods) or None
    return Route(path, endpoint, methods=wanted), Route(f"{path}/", endpoint, methods=wanted)


def _asked(request: Request, name: str) -> str:
    found = request.query_params.get(name, "")
    if not found:
        raise UserError(f"the address names no {name}; add ?{name}=...")
    return found


async def _json(request: Request) -> dict[str, Any]:
    body = await read_body(request.headers, request.stream(), MOST_JSON_BYTES)
    return _object(body.decode("utf-8", "replace") or "{}")


def _params(form: FormData) -> dict[str, Any]:
    return _object(form.get("params") or "{}")


def _object(text: object) -> dict[str, Any]:
    try:
        found = json.loads(text) if isinstance(text, str) else None
    except (ValueError, RecursionError):
        found = None
    if not isinstance(found, dict):
        raise UserError('what was sent is no JSON object; send such as {"label_info": []}')
    return found


async def _stored(form: FormData, name: str, folder: Path, *more: str) -> Path | None:
    """The file of a part, in ``folder``; None if nothing was sent."""
    part = form.get(name)
    if not isinstance(part, UploadFile):
        return None
    return await _copied(part, folder / safe_name(part.filename, 0, more))


async def _copied(part: UploadFile, path: Path) -> Path:
    with open(path, "wb") as file:
        while content := await part.read(PART_BYTES):
            file.write(content)
    return path


# ---- answers ----


def _file(served: ServedFile, background: BackgroundTask | None = None) -> Response:
    return FileResponse(served.path, media_type=MIME, filename=served.name, background=background)


def _multipart(found: Predicted, said: dict[str, Any], background: BackgroundTask) -> Response:
    """Parameters and mask in one answer, as the plug-ins take it (RFC 7578)."""
    limit = f"segfw-{secrets.token_hex(16)}"
    name = found.file.name.replace('"', "'").encode("ascii", "replace").decode()
    parts = [
        f"--{limit}\r\n",
        'Content-Disposition: form-data; name="params"\r\nContent-Type: application/json\r\n\r\n',
        json.dumps(said),
        f'\r\n--{limit}\r\nContent-Disposition: form-data; name="image"; filename="{name}"\r\n',
        f"Content-Type: {MIME}\r\n\r\n",
    ]
    body = "".join(parts).encode() + found.file.path.read_bytes() + f"\r\n--{limit}--\r\n".encode()
    return Response(body, media_type=f"multipart/form-data; boundary={limit}", background=background)


def _refused(status: int, why: str) -> Callable[[Request], Any]:
    async def refuse(request: Request) -> Response:
        return JSONResponse({"detail": why}, status_code=status)

    return refuse


async def _user_error(request: Request, error: Exception) -> Response:
    if isinstance(error, Unknown):
        return JSONResponse({"detail": str(error)}, status_code=404)
    is_conflict = isinstance(error, Locked | Conflict | WrongState)
    return JSONResponse({"detail": str(error)}, status_code=409 if is_conflict else 422)


async def _http_error(request: Request, error: Exception) -> Response:
    assert isinstance(error, HTTPException)
    return JSONResponse({"detail": error.detail}, status_code=error.status_code, headers=error.headers)


async def _too_large(request: Request, error: Exception) -> Response:
    return JSONResponse({"detail": "more was sent than is taken"}, status_code=413, headers={"connection": "close"})


async def _any_error(request: Request, error: Exception) -> Response:
    if is_disk_full(error):
        return JSONResponse({"detail": "the disk is full; make room and save again"}, status_code=507)
    said = reason_of(error) or f"the server failed ({type(error).__name__}); see where it was started"
    return JSONResponse({"detail": said}, status_code=500)
