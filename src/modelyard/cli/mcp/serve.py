"""``modelyard mcp serve``: Modelyard as an MCP server on standard input and output."""

from __future__ import annotations

import asyncio
import contextlib
import signal
from collections.abc import AsyncIterator, Callable, Coroutine
from contextlib import AbstractAsyncContextManager
from typing import TYPE_CHECKING, Any, Final

import typer

from modelyard.cli.client.options import KeyFileOption, UrlOption
from modelyard.cli.model_names import read_names
from modelyard.cli.options import (
    ConfigOption,
    ModelOptions,
    ModelsArgument,
    ModelsOption,
    takes_model_options,
)
from modelyard.cli.usage import UsageError

if TYPE_CHECKING:
    import httpx2

    from modelyard.cli.client.connection import ServerAddress
    from modelyard.config import Config

Connect = Callable[[], AbstractAsyncContextManager["httpx2.AsyncClient"]]

_CLOSE_S: Final = 10.0
"""Seconds in which models of this process end."""


@takes_model_options()
def serve_stdio(
    names: ModelsArgument = None,
    model: ModelsOption = None,
    config: ConfigOption = None,
    url: UrlOption = None,
    key_file: KeyFileOption = None,
    *,
    options: ModelOptions,
) -> None:
    """Serve MCP on standard input and output, for programs that start their MCP servers.

    Without a model or a configuration, it passes everything on to a running server; with one, it loads the models into
    this process. It ends with its standard input.
    """
    named = read_names(names or (), model or (), config, command="mcp serve")
    is_own = bool(named.models or named.config)
    if is_own and (url or key_file):
        raise UsageError("--url and --key-file are for a running server, and models are given for this process.")
    if named.config is not None:
        from modelyard.cli.served_models import refuse_model_options
        from modelyard.config import load_config

        refuse_model_options(options, named.config)
        _run(own_models(load_config(named.config)))
    elif named.models:
        from modelyard.cli.served_models import served_models
        from modelyard.cli.typed_names import options_as_typed

        with options_as_typed():
            _run(own_models(_on_demand(served_models(named.models, options))))
    else:
        from modelyard.cli.client.choose import choose_server

        _run(running_server(choose_server(url, key_file, only_looks=True).address))


def _on_demand(config: Config) -> Config:
    """Return ``config`` with models that load with their first request: clients do not wait long for a start."""
    models = [model.model_copy(update={"load": "on-demand"}) for model in config.models]
    return config.model_copy(update={"models": models})


def running_server(address: ServerAddress) -> Connect:
    """Return a function that connects to a server that runs."""
    from modelyard.cli.chat.connection import server_client

    return lambda: server_client(address)


def own_models(config: Config) -> Connect:
    """Return a function that starts the models of ``config`` in this process.

    It raises what ``AsyncModel.start`` raises.
    """

    @contextlib.asynccontextmanager
    async def connect() -> AsyncIterator[httpx2.AsyncClient]:
        from rich.console import Console

        from modelyard.api.app import close_app, create_app
        from modelyard.cli.loading import start_visibly
        from modelyard.inprocess.async_model import AsyncModel
        from modelyard.inprocess.transport import async_http_client

        model = AsyncModel(config)
        try:
            await start_visibly(model, Console(stderr=True))
            app = create_app(model.yard, is_mounted=True, agent=model.agent)
            try:
                async with async_http_client(app) as client:
                    yield client
            finally:
                await close_app(app)
        finally:
            await model.aclose(_CLOSE_S)

    return connect


def _run(connect: Connect) -> None:
    """Serve until standard input ends, or a signal comes."""
    from modelyard.cli.chat.connection import log_warnings
    from modelyard.cli.mcp.standard_io import own_streams

    log_warnings()
    with own_streams() as (source, sink):
        asyncio.run(until_signalled(serve_streams(connect, source, sink)))


async def until_signalled(work: Coroutine[Any, Any, None]) -> None:
    """Run ``work``; SIGINT, SIGTERM and the end of the terminal cancel it, so that models are freed.

    An engine that ends with its process while it computes counts as one that has crashed it.
    """
    task = asyncio.ensure_future(work)
    loop = asyncio.get_running_loop()
    # A hang-up that is ignored stays so, as under nohup.
    hang_up = () if signal.getsignal(signal.SIGHUP) is signal.SIG_IGN else (signal.SIGHUP,)
    for number in (signal.SIGINT, signal.SIGTERM, *hang_up):
        loop.add_signal_handler(number, task.cancel)
    try:
        await task
    except asyncio.CancelledError:
        if not task.cancelled():
            raise


async def serve_streams(connect: Connect, source: int, sink: int) -> None:
    """Pass on the messages on ``source``, and write what comes back to ``sink``, until ``source`` ends.

    Args:
        connect: connects to the server.
        source, sink: descriptors.

    Raises:
        ModelyardError: as ``connect``.
    """
    from modelyard.cli.mcp.bridge import Bridge
    from modelyard.cli.mcp.standard_io import MAX_LINE_BYTES, LineTooLong, LineWriter, lines_of

    async with connect() as http:
        bridge = Bridge(http, LineWriter(sink).write)
        try:
            async for line in lines_of(source):
                await bridge.pass_on(line)
        except LineTooLong:
            typer.echo(f"A message has more than {MAX_LINE_BYTES} bytes. The connection ends.", err=True)
        except BrokenPipeError:
            # Nobody reads the answers any more.
            return
        finally:
            await bridge.aclose()
