"""Ollama's management of models: pull, create, copy, delete, and the files that clients send for them."""

from __future__ import annotations

import asyncio
import hashlib
from collections.abc import AsyncGenerator, Mapping
from contextlib import aclosing
from pathlib import Path
from typing import Any, Final, NoReturn, TypeAlias

import orjson
from fastapi import APIRouter
from fastapi import Request as HttpRequest
from fastapi.responses import Response
from starlette.types import Receive, Scope, Send

from modelyard.api.middleware.authorization import needs, takes_body
from modelyard.api.middleware.body_intake import MAX_UPLOAD_BYTES
from modelyard.api.ollama.any_type import AnyTypeRoute
from modelyard.api.ollama.created import Creation, creation_of
from modelyard.api.ollama.modelfile import parse_modelfile
from modelyard.api.ollama.routes import model_id_of
from modelyard.api.ollama.schema import CopyRequest, CreateRequest, NamedModel, PullRequest
from modelyard.api.request_context import RequestContext
from modelyard.api.services import Services
from modelyard.api.serving.ignored_fields import report_ignored
from modelyard.api.serving.streaming import while_connected
from modelyard.errors import InvalidRequest, ModelNotFound, ModelyardError, PermissionDenied, UnsupportedOperation
from modelyard.yard.additions import Additions
from modelyard.yard.pulls import PullSteps

_LINES: Final = [(b"content-type", b"application/x-ndjson"), (b"cache-control", b"no-store")]
_TAG: Final = ":latest"

_JsonLines: TypeAlias = AsyncGenerator[dict[str, Any], None]

router = APIRouter(prefix="/api", route_class=AnyTypeRoute)
upload_router = APIRouter(prefix="/api")


@router.post("/pull", response_model=None)
@needs("read")
async def pull_model(body: PullRequest, http: HttpRequest) -> Response:
    """Download a model of the Hugging Face Hub and serve it; at once where it is served already."""
    report_ignored(http.scope, body)
    yard, name = Services.of(http).yard, body.model or body.name
    additions: Additions | None = http.app.state.additions
    if additions is None or not additions.is_pulling(name.removesuffix(_TAG)):
        try:
            yard.model(model_id_of(yard, name))
        except ModelNotFound:
            if additions is None:
                raise
        else:
            return _answered(_success(), body)
    caller = RequestContext.of(http.scope).caller
    if not caller.may("admin") or caller.models is not None:
        raise PermissionDenied("This API key may not download models: it needs the scope 'admin'.")
    steps = await additions.pull(name.removesuffix(_TAG))
    return _answered(_pull_lines(name, steps), body, steps)


@router.post("/copy", response_model=None)
@needs("admin", all_models=True)
async def copy_model(body: CopyRequest, http: HttpRequest) -> Response:
    """Serve a model under a second name."""
    report_ignored(http.scope, body)
    additions = additions_of(http)
    await additions.copy(model_id_of(additions.yard, body.source), body.destination.removesuffix(_TAG))
    return Response()


@router.delete("/delete", response_model=None)
@needs("admin", all_models=True)
async def delete_model(body: NamedModel, http: HttpRequest) -> Response:
    """Remove a model that was added, and what was downloaded for it alone."""
    report_ignored(http.scope, body)
    additions = additions_of(http)
    await additions.delete(model_id_of(additions.yard, body.model or body.name))
    return Response()


@router.post("/create", response_model=None)
@needs("admin", all_models=True)
@takes_body(2**20)
async def create_model(body: CreateRequest, http: HttpRequest) -> Response:
    """Serve a model with other settings than its base, or a file that was sent. A base is downloaded if need be."""
    report_ignored(http.scope, body)
    additions = additions_of(http)
    name = (body.model or body.name).removesuffix(_TAG)
    if not name:
        raise InvalidRequest("'model' is missing: it names the new model.", "model")
    creation = creation_of(body, parse_modelfile(body.modelfile) if body.modelfile else None)
    base = await _base(additions, creation)
    adapters = await _sent(additions, creation.adapters, "adapters")
    steps = None
    if isinstance(base, str):
        base = base.removesuffix(_TAG)
        steps = await additions.pull(base)
    return _answered(_create_lines(additions, name, base, adapters, creation, steps), body, steps)


@router.post("/push", include_in_schema=False, response_model=None)
@needs("admin", all_models=True)
async def refuse_push(http: HttpRequest) -> NoReturn:  # noqa: ARG001
    """Answer 400, whatever was sent."""
    raise UnsupportedOperation(
        "POST /api/push: this server uploads nothing. Upload the model's files with the hub's own command: hf upload. "
        "Models are named in the configuration, and changed by POST /v1/config/reload.",
        "model",
    )


@upload_router.post("/blobs/{digest}", response_model=None)
@needs("admin", all_models=True)
@takes_body(MAX_UPLOAD_BYTES)
async def receive_blob(digest: str, http: HttpRequest) -> Response:
    """Keep a file for ``POST /api/create`` by its digest: ``sha256:`` and 64 hexadecimal digits."""
    uploads = additions_of(http).uploads
    if await asyncio.to_thread(uploads.find, digest) is not None:
        return Response()
    declared = http.headers.get("content-length", "")
    await uploads.receive(digest, http.stream(), int(declared) if declared.isdigit() else None)
    return Response(status_code=201)


@upload_router.get("/blobs/{digest}", response_model=None)
@needs("admin", all_models=True)
async def find_blob(digest: str, http: HttpRequest) -> Response:
    """Whether a file of that digest was sent: 200, else 404. ``HEAD`` does the same."""
    found = await asyncio.to_thread(additions_of(http).uploads.find, digest)
    return Response(status_code=404 if found is None else 200)


def additions_of(http: HttpRequest) -> Additions:
    """Return what adds models to the application.

    Raises:
        UnsupportedOperation: a program has given it its models.
    """
    additions: Additions | None = http.app.state.additions
    if additions is None:
        raise UnsupportedOperation(
            f"{http.method} {http.url.path}: this server does not change its models on request. Add them to [[models]] "
            "in the configuration, or remove them there, and POST /v1/config/reload.",
            "model",
        )
    return additions


async def _base(additions: Additions, creation: Creation) -> str | Path:
    """Return the name of the model that a new one begins with, or the path of the file that it is.

    Raises:
        InvalidRequest: there is not exactly one file, or it was not sent.
    """
    if creation.base:
        if creation.base.startswith(("/", "./", "../", "~")):
            raise InvalidRequest(
                "FROM names a model of this server or of the hub. Send the file itself: POST /api/blobs/{digest}, and "
                "its digest in files.",
                "from",
            )
        return creation.base
    weights = {name: digest for name, digest in creation.files.items() if name.lower().endswith(".gguf")}
    if len(weights) != 1 or len(creation.files) != 1:
        raise UnsupportedOperation("files: a model is created of one GGUF file. Convert others first.", "files")
    (path,) = (await _sent(additions, weights, "files")).values()
    return path


async def _sent(additions: Additions, digests: Mapping[str, str], field: str) -> dict[str, Path]:
    """Return the paths of files that were sent, by their names.

    Raises:
        InvalidRequest: one of them was not sent.
    """
    found = {}
    for name, digest in digests.items():
        path = await asyncio.to_thread(additions.uploads.find, digest)
        if path is None:
            raise InvalidRequest(f"The file '{name}' was not sent: POST /api/blobs/{digest} first.", field)
        found[name] = path
    return found


async def _create_lines(
    additions: Additions,
    name: str,
    base: str | Path,
    adapters: Mapping[str, Path],
    creation: Creation,
    steps: PullSteps | None,
) -> _JsonLines:
    if steps is not None:
        async with aclosing(_progress_lines(str(base), steps)) as lines:
            async for line in lines:
                yield line
    for field in creation.ignored:
        yield {"status": f"{field} has no effect here"}
    yield {"status": "reading the files"}
    await additions.create(name, base, creation.changes, creation.template, adapters)
    yield {"status": "success"}


async def _success() -> _JsonLines:
    yield {"status": "success"}


async def _pull_lines(name: str, steps: PullSteps) -> _JsonLines:
    yield {"status": "pulling manifest"}
    async with aclosing(_progress_lines(name, steps)) as lines:
        async for line in lines:
            yield line
    yield {"status": "success"}


async def _progress_lines(name: str, steps: PullSteps) -> _JsonLines:
    """Yield the lines of a download. Clients draw a bar for each digest, so a model has one."""
    digest = f"sha256:{hashlib.sha256(name.encode()).hexdigest()}"
    async for step in steps:
        if step.step == "downloading":
            numbers = {"digest": digest, "total": step.total_bytes, "completed": step.done_bytes}
            yield {"status": f"pulling {name}", **numbers}
        else:
            yield {"status": step.step}


def _answered(lines: _JsonLines, body: PullRequest, steps: PullSteps | None = None) -> Response:
    """Return a stream of the lines, or once they have ended the last of them, as the request asks.

    ``steps`` are closed with the response, also where it has read none of the lines.
    """
    return _Lines(lines, steps) if body.streams else _Last(lines, steps)


class _Lines(Response):
    """Sends each line as it comes. An error is the last line: the status was sent."""

    def __init__(self, lines: _JsonLines, steps: PullSteps | None) -> None:
        super().__init__()
        self._lines, self._steps = lines, steps

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Send the lines until they end or the client disconnects."""
        try:
            await while_connected(receive, self._send(scope, send))
        finally:
            await self._lines.aclose()
            if self._steps is not None:
                await self._steps.aclose()

    async def _send(self, scope: Scope, send: Send) -> None:
        await send({"type": "http.response.start", "status": 200, "headers": _LINES})
        caller = RequestContext.of(scope).caller
        try:
            async for line in self._lines:
                await send({"type": "http.response.body", "body": orjson.dumps(line) + b"\n", "more_body": True})
        except ModelyardError as error:
            line = {"error": caller.visible_error(error).wire_message}
            await send({"type": "http.response.body", "body": orjson.dumps(line) + b"\n", "more_body": True})
        await send({"type": "http.response.body", "body": b"", "more_body": False})


class _Last(_Lines):
    """Sends the last line alone, when all have come. An error is raised before the status is sent."""

    async def _send(self, scope: Scope, send: Send) -> None:
        line: dict[str, Any] = {}
        async for each in self._lines:
            line = each
        await Response(orjson.dumps(line), media_type="application/json")(scope, _no_message, send)


async def _no_message() -> NoReturn:
    raise AssertionError("a response with a body reads nothing")
