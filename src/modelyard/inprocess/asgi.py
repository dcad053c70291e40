"""ASGI wrappers around the HTTP application, for other event loops and for mounts below a path."""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable
from typing import Any, TypeVar

from starlette.types import ASGIApp, Message, Receive, Scope, Send

from modelyard.agent.agent import Agent
from modelyard.api.app import create_app
from modelyard.api.errors.rendering import error_response
from modelyard.errors import Closed, ForkedProcess
from modelyard.inprocess.loop_thread import LoopThread
from modelyard.yard.yard import Yard

_T = TypeVar("_T")


def in_process_app(yard: Yard, agent: Agent) -> ASGIApp:
    """Return the HTTP application on ``yard`` without API keys, for clients on the yard's event loop.

    Args:
        yard: the models.
        agent: runs the tools of the models.
    """
    return create_app(yard, is_mounted=True, agent=agent)


class MountedApp:
    """Removes the path of a mount, so that the application sees paths from its own root."""

    def __init__(self, app: ASGIApp) -> None:
        self._app = app

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Pass the request on to the application."""
        root, path = scope.get("root_path", ""), scope.get("path", "")
        if root and (path == root or path.startswith(f"{root}/")):
            scope = {**scope, "path": path.removeprefix(root) or "/", "root_path": ""}
        await self._app(scope, receive, send)


class UsableApp:
    """Answers with an error once the model is closed.

    Args:
        app: the application of the model.
        check_usable: raises Closed or ForkedProcess if the model cannot be used.
    """

    def __init__(self, app: ASGIApp, check_usable: Callable[[], object]) -> None:
        self._app, self._check_usable = app, check_usable

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Pass the request on to the application."""
        if scope["type"] != "lifespan":
            try:
                self._check_usable()
            except (Closed, ForkedProcess) as refused:
                await error_response(refused, scope["path"])(scope, receive, send)
                return
        await self._app(scope, receive, send)


class OtherLoopApp:
    """Runs an application on the event loop of another thread than the caller's.

    Args:
        app: runs on the event loop of ``thread``.
        thread: the thread of the model that the application serves.
    """

    def __init__(self, app: ASGIApp, thread: LoopThread[Any]) -> None:
        self._app, self._thread = app, thread

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Pass the request on to the application."""
        caller_loop = asyncio.get_running_loop()
        if caller_loop is self._thread.loop:
            await self._app(scope, receive, send)
            return

        def received() -> Awaitable[Message]:
            return _run_on(caller_loop, receive)

        def sent(message: Message) -> Awaitable[None]:
            return _run_on(caller_loop, lambda: send(message))

        async def run(_: object) -> None:
            await self._app(scope, received, sent)

        try:
            running = self._thread.submit(run)
        except (Closed, ForkedProcess) as refused:
            if scope["type"] == "lifespan":
                raise
            await error_response(refused, scope["path"])(scope, receive, send)
            return
        await asyncio.wrap_future(running)


async def _run_on(loop: asyncio.AbstractEventLoop, work: Callable[[], Awaitable[_T]]) -> _T:
    """Run ``work`` on ``loop`` and wait for it on the current loop. Cancelling the wait cancels the work."""

    async def run() -> _T:
        return await work()

    try:
        return await asyncio.wrap_future(asyncio.run_coroutine_threadsafe(run(), loop))
    except RuntimeError:
        if loop.is_closed():
            raise asyncio.CancelledError from None
        raise
