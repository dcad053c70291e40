"""The HTTP application on a model, for servers and clients on whatever event loop."""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable, Sequence
from typing import TypeVar

from starlette.types import ASGIApp, Message, Receive, Scope, Send

from modelyard.api.app import create_app as create_http_app
from modelyard.api.errors.responses import error_response
from modelyard.config import AccessKey, Config, read_keys
from modelyard.errors import Closed, ForkedProcess
from modelyard.inprocess.async_model import AsyncModel
from modelyard.inprocess.loop_thread import LoopThread
from modelyard.inprocess.model import Model

_T = TypeVar("_T")


def create_app(model: Model | AsyncModel) -> ASGIApp:
    """The whole HTTP API on ``model``, as an ASGI application: to be served, or mounted in another application.

        app = FastAPI()
        app.mount("/llm", modelyard.create_app(model))

    That of a Model runs on any event loop, that of an AsyncModel on its own. A request must carry one of the keys of
    the configuration's ``[server]`` or of ``MODELYARD_API_KEYS``, if there are any. Which names clients address it by
    is the server's affair, and checked only where ``allowed_hosts`` is configured. Closing the model is the caller's
    affair; requests get a 503 afterwards.

    Raises:
        ConfigError: a key is not where the configuration says.
        Closed, ForkedProcess: as the model's methods.
    """
    if isinstance(model, AsyncModel):
        return _Mounted(_Alive(model, application(model, read_keys(model.yard.config))))
    inner = model.thread.look(lambda there: application(there, read_keys(there.yard.config)))
    return _Mounted(_Elsewhere(inner, model.thread))


def application(
    model: AsyncModel,
    keys: Sequence[AccessKey] = (),
    read_config: Callable[[], Config] | None = None,
    *,
    host: str | None = None,
) -> ASGIApp:
    """The application alone, for the event loop of ``model``.

    Args:
        host: where it listens; None: it is another's affair where.
    """
    return create_http_app(model.yard, keys, read_config, host=host, is_mounted=host is None)


def in_process(model: Model | AsyncModel) -> ASGIApp:
    """The application for clients in the same process, who need no key."""
    if isinstance(model, AsyncModel):
        return _Alive(model, application(model))
    return _Elsewhere(model.thread.look(application), model.thread)


class _Mounted:
    """An application under the path that another one has it at, as if that were the root."""

    def __init__(self, app: ASGIApp) -> None:
        self._app = app

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        root, path = scope.get("root_path", ""), scope.get("path", "")
        if root and (path == root or path.startswith(f"{root}/")):
            scope = {**scope, "path": path.removeprefix(root) or "/", "root_path": ""}
        await self._app(scope, receive, send)


class _Alive:
    """The application of an AsyncModel, while that can be used."""

    def __init__(self, model: AsyncModel, app: ASGIApp) -> None:
        self._model, self._app = model, app

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        if scope["type"] != "lifespan":
            try:
                self._model.yard  # noqa: B018 (raises where it cannot be used)
            except (Closed, ForkedProcess) as refused:
                await error_response(refused, scope["path"])(scope, receive, send)
                return
        await self._app(scope, receive, send)


class _Elsewhere:
    """The application of a Model, which is on another event loop than who calls it."""

    def __init__(self, app: ASGIApp, thread: LoopThread[AsyncModel]) -> None:
        self._app, self._thread = app, thread

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        here = asyncio.get_running_loop()
        if here is self._thread.loop:
            await self._app(scope, receive, send)
            return

        def received() -> Awaitable[Message]:
            return _done_on(here, receive)

        def sent(message: Message) -> Awaitable[None]:
            return _done_on(here, lambda: send(message))

        async def run(_: AsyncModel) -> None:
            await self._app(scope, received, sent)

        try:
            running = self._thread.submit(run)
        except (Closed, ForkedProcess) as refused:
            if scope["type"] == "lifespan":
                raise
            await error_response(refused, scope["path"])(scope, receive, send)
            return
        await asyncio.wrap_future(running)


async def _done_on(loop: asyncio.AbstractEventLoop, work: Callable[[], Awaitable[_T]]) -> _T:
    """Do ``work`` on ``loop`` and wait for it here; cancelled here, it is cancelled there."""

    async def doing() -> _T:
        return await work()

    try:
        return await asyncio.wrap_future(asyncio.run_coroutine_threadsafe(doing(), loop))
    except RuntimeError:
        if loop.is_closed():
            raise asyncio.CancelledError from None
        raise
