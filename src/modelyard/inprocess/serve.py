"""An HTTP server on a model that is there already."""

from __future__ import annotations

import asyncio
import contextlib
import socket
from collections.abc import Iterator

import uvicorn
from starlette.types import ASGIApp

from modelyard.config import read_keys
from modelyard.errors import Closed
from modelyard.inprocess.application import application
from modelyard.inprocess.async_model import AsyncModel
from modelyard.inprocess.listen import listen
from modelyard.inprocess.model import Model

# How long running answers may go on once the server is to stop.
DRAIN_S = 30.0


def serve(model: Model, *, host: str | None = None, port: int | None = None) -> None:
    """Serve ``model`` over HTTP until an interrupt (Ctrl-C). The model goes on, and is still the caller's to close.

    Answers that are running when it is interrupted may go on for 30 seconds; a second interrupt ends them.

    Args:
        host, port: where to listen; None: as the configuration's ``[server]`` says, which by default is
            127.0.0.1:1234. Port 0 takes any free one.

    Raises:
        PortUnavailable: the address is taken or not ours.
        ConfigError: a key is not where the configuration says.
        Closed, ForkedProcess: as the model's methods.
    """
    stopping = asyncio.Event()
    serving = model.thread.submit(lambda there: _serve(there, host, port, stopping))
    try:
        serving.result()
    except KeyboardInterrupt:
        model.thread.look(lambda _: stopping.set())
        try:
            serving.result()
        except KeyboardInterrupt:
            serving.cancel()
    finally:
        serving.cancel()


async def serve_async(model: AsyncModel, *, host: str | None = None, port: int | None = None) -> None:
    """As ``serve``, until the task is cancelled."""
    stopping = asyncio.Event()
    serving = asyncio.create_task(_serve(model, host, port, stopping))
    try:
        await asyncio.shield(serving)
    finally:
        stopping.set()
        await serving


async def _serve(model: AsyncModel, host: str | None, port: int | None, stopping: asyncio.Event) -> None:
    server = model.yard.config.server
    keys = read_keys(model.yard.config)
    host = host or server.host
    with contextlib.closing(listen(host, server.port if port is None else port)) as listener:
        http = HttpServer(application(model, keys, host=host), listener)
        try:
            await http.start()
            await finishes_before(stopping, http.serving)
        finally:
            http.ask_to_stop()
            with contextlib.suppress(Closed):
                model.yard.dismiss_observers(for_good=False)
            await http.serving


async def finishes_before(event: asyncio.Event, work: asyncio.Task[None]) -> bool:
    """Wait until ``work`` is done or ``event`` is set, whichever is first; whether the work is done."""
    waiting = asyncio.create_task(event.wait())
    try:
        await asyncio.wait((work, waiting), return_when=asyncio.FIRST_COMPLETED)
    finally:
        waiting.cancel()
    return work.done()


class HttpServer:
    """Serves an application on a socket that is bound already.

    Args:
        drain_s: how long running answers may go on once it was asked to stop; then their connections are cut.

    Attributes:
        serving: done when it has stopped.
    """

    serving: asyncio.Task[None]

    def __init__(self, app: ASGIApp, listener: socket.socket, drain_s: float = DRAIN_S) -> None:
        self._listener = listener
        self._server = _Uvicorn(
            uvicorn.Config(
                app,
                lifespan="off",
                log_config=None,
                # We have our own, which says more, and shows no query.
                access_log=False,
                server_header=False,
                timeout_graceful_shutdown=int(drain_s),
            )
        )

    async def start(self) -> None:
        """Begin to accept connections."""
        self.serving = asyncio.create_task(self._server.serve(sockets=[self._listener]))
        await finishes_before(self._server.listens, self.serving)

    def ask_to_stop(self) -> None:
        """Accept no more connections, and stop when those that there are have ended."""
        self._server.should_exit = True


class _Uvicorn(uvicorn.Server):
    """uvicorn, but signals are left to whoever runs it, and it says when it listens."""

    def __init__(self, config: uvicorn.Config) -> None:
        super().__init__(config)
        self.listens = asyncio.Event()

    async def startup(self, sockets: list[socket.socket] | None = None) -> None:
        await super().startup(sockets)
        self.listens.set()

    @contextlib.contextmanager
    def capture_signals(self) -> Iterator[None]:
        yield
