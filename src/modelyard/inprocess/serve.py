"""Serves an existing model over HTTP."""

from __future__ import annotations

import asyncio
import contextlib

from modelyard.api.app import create_app
from modelyard.config import read_keys
from modelyard.errors import Closed
from modelyard.inprocess.async_model import AsyncModel
from modelyard.inprocess.http_server.server import HttpServer, finishes_before
from modelyard.inprocess.http_server.tls import certificate_of
from modelyard.inprocess.listen import listen
from modelyard.inprocess.model import Model


def serve(model: Model, *, host: str | None = None, port: int | None = None) -> None:
    """Serve ``model`` over HTTP until an interrupt (Ctrl-C). The model stays open; the caller closes it.

    After an interrupt, running answers have 30 seconds to finish; a second interrupt ends them.

    Args:
        host, port: address to listen on; None: as in the configuration's ``[server]``, by default 127.0.0.1:1234.
            Port 0 takes any free port.

    Raises:
        PortUnavailable: the address is in use or does not belong to this machine.
        ConfigError: the source of a key cannot be read, or the certificate cannot be used.
        Closed, ForkedProcess: as the model's methods.
    """
    stopping = asyncio.Event()
    serving = model.thread.submit(lambda twin: _serve(twin, host, port, stopping))
    try:
        serving.result()
    except KeyboardInterrupt:
        model.thread.call_sync(lambda _: stopping.set())
        try:
            serving.result()
        except KeyboardInterrupt:
            serving.cancel()
    finally:
        serving.cancel()


async def serve_async(model: AsyncModel, *, host: str | None = None, port: int | None = None) -> None:
    """Serve ``model`` over HTTP until the task is cancelled; see ``serve``."""
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
    tls = certificate_of(server)
    port = server.port if port is None else port
    with contextlib.closing(listen(host, port)) as listener:
        models = len(model.yard.config.models)
        app = create_app(model.yard, keys, host=host, responses_file=server.responses_file(host, port))
        http = HttpServer(app, listener, server, models=models, tls=tls)
        try:
            await http.start()
            await finishes_before(stopping, http.serving)
        finally:
            http.ask_to_stop()
            with contextlib.suppress(Closed):
                model.yard.dismiss_observers(for_good=False)
            try:
                await http.serving
            finally:
                await app.state.responses.aclose()
