"""Serves an existing model over HTTP."""

from __future__ import annotations

import asyncio
import contextlib
import socket
from collections.abc import Callable
from concurrent.futures import FIRST_COMPLETED, Future, wait
from typing import Any, Self, cast

from modelyard.api.app import close_app, create_app
from modelyard.config import read_keys
from modelyard.errors import Closed, InvalidRequest, PortUnavailable
from modelyard.inprocess.async_model import AsyncModel
from modelyard.inprocess.http_server.server import HttpServer, finishes_before
from modelyard.inprocess.http_server.tls import certificate_of
from modelyard.inprocess.listen import listen, listen_for_mcp
from modelyard.inprocess.loop_thread import outcome
from modelyard.inprocess.model import Model
from modelyard.inprocess.requests import shown


class Server:
    """A running HTTP server on a model, as ``start_server`` returns it. Leave its context, or ``stop`` it.

    Attributes:
        url: its address, such as ``http://127.0.0.1:1234``; OpenAI's clients take ``url + "/v1"``.
    """

    def __init__(self, model: Model, host: str | None, port: int | None) -> None:
        if not isinstance(model, Model):
            raise InvalidRequest(
                f"A server is started on a Model; this is {shown(model)}. An AsyncModel has serve_async."
            )
        self._thread = model.thread
        self._stopping = asyncio.Event()
        address: Future[str] = Future()
        self._serving = self._thread.submit(lambda twin: _serve(twin, host, port, self._stopping, address.set_result))
        try:
            wait([cast(Future[Any], address), self._serving], return_when=FIRST_COMPLETED)
        except BaseException:
            self._serving.cancel()
            raise
        if not address.done():
            outcome(self._serving)
        self.url = address.result()

    def wait(self) -> None:
        """Return when the server has stopped."""
        outcome(self._serving)

    def stop(self) -> None:
        """Accept no more requests; running answers have 30 seconds to finish. Idempotent. The model stays open.

        An interrupt (Ctrl-C) ends the running answers.
        """
        # A model that is closed has stopped its servers.
        with contextlib.suppress(Closed):
            self._thread.call_sync(lambda _: self._stopping.set())
            try:
                outcome(self._serving)
            except KeyboardInterrupt:
                self._serving.cancel()

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self.stop()

    def __repr__(self) -> str:
        return f"<Server at {self.url}{', stopped' if self._serving.done() else ''}>"


def start_server(model: Model, *, host: str | None = None, port: int | None = None) -> Server:
    """Start to serve ``model`` over HTTP, and return at once: a notebook goes on beside the server.

    Args:
        model: stays open when the server stops; its ``close`` ends the server.
        host, port: address to listen on; None: as in the configuration's ``[server]``, by default 127.0.0.1:1234.
            Port 0 takes any free port.

    Raises:
        PortUnavailable: the address is in use or does not belong to this machine.
        ConfigError: the source of a key cannot be read, or the certificate cannot be used.
        Closed, ForkedProcess: as the model's methods.
    """
    return Server(model, host, port)


def serve(model: Model, *, host: str | None = None, port: int | None = None) -> None:
    """Serve ``model`` over HTTP until an interrupt (Ctrl-C); see ``start_server``. The caller closes the model.

    After an interrupt, running answers have 30 seconds to finish; a second interrupt ends them.
    """
    server = Server(model, host, port)
    try:
        server.wait()
    except KeyboardInterrupt:
        server.stop()


async def serve_async(model: AsyncModel, *, host: str | None = None, port: int | None = None) -> None:
    """Serve ``model`` over HTTP until the task is cancelled; see ``start_server``."""
    if not isinstance(model, AsyncModel):
        raise InvalidRequest(f"serve_async serves an AsyncModel; this is {shown(model)}. A Model has start_server.")
    stopping = asyncio.Event()
    serving = asyncio.create_task(_serve(model, host, port, stopping, lambda _: None))
    try:
        await asyncio.shield(serving)
    finally:
        stopping.set()
        await serving


def _listen(host: str, port: int) -> socket.socket:
    try:
        return listen(host, port)
    except PortUnavailable as unavailable:
        unavailable.advice = "Pass another host or port; port=0 takes any free port."
        raise


async def _serve(
    model: AsyncModel,
    host: str | None,
    port: int | None,
    stopping: asyncio.Event,
    on_start: Callable[[str], None],
) -> None:
    """Serve until ``stopping``; ``on_start`` is called with the address."""
    server = model.yard.config.server
    keys = read_keys(model.yard.config)
    host = host or server.host
    tls = certificate_of(server)
    port = server.port if port is None else port
    with contextlib.ExitStack() as listeners:
        listener = listeners.enter_context(contextlib.closing(_listen(host, port)))
        if (mcp_listener := listen_for_mcp(host, server.mcp_port)) is not None:
            listeners.enter_context(contextlib.closing(mcp_listener))
        models = len(model.yard.config.models)
        responses_file = server.responses_file(host, port)
        app = create_app(
            model.yard,
            keys,
            host=host,
            responses_file=responses_file,
            agent=model.agent,
            mcp_statuses=lambda: model.mcp_servers,
        )
        http = HttpServer(app, listener, server, models=models, tls=tls, mcp_listener=mcp_listener)
        try:
            await http.start()
            bound = listener.getsockname()[1]
            address = f"[{host}]" if ":" in host else host
            on_start(f"{'http' if tls is None else 'https'}://{address}:{bound}")
            await finishes_before(stopping, http.serving)
        finally:
            http.ask_to_stop()
            with contextlib.suppress(Closed):
                model.yard.monitor.dismiss_observers(for_good=False)
            try:
                await http.serving
            finally:
                await close_app(app)
