"""Runs the HTTP server from a configuration until it is told to stop."""

from __future__ import annotations

import asyncio
import contextlib
import json
import logging
import shlex
import signal
import socket
from collections.abc import Callable, Sequence

import uvloop
from rich.console import Console
from rich.table import Table

import modelyard
from modelyard.api.access_log import LOGGER as ACCESS_LOGGER
from modelyard.cli.loading import start_visibly
from modelyard.config import AccessKey, Config, is_loopback, read_keys
from modelyard.errors import ModelyardError
from modelyard.inprocess.application import application
from modelyard.inprocess.async_model import AsyncModel
from modelyard.inprocess.serve import DRAIN_S, HttpServer, finishes_before, listen
from modelyard.yard.status import ModelStatus
from modelyard.yard.yard import Yard

logger = logging.getLogger(__name__)

# How long engines may take to free their models after that.
CLOSE_S = 10.0
# Models that the greeting lists; GET /v1/models lists all.
MOST_SHOWN = 30
_ALL_HOSTS = frozenset({"0.0.0.0", "::"})


def run_server(config: Config, read_config: Callable[[], Config] | None = None) -> None:
    """Load the models, serve them, and return when SIGINT or SIGTERM asked for it.

    On SIGHUP, serve what ``read_config`` reads from then on.

    Raises:
        PortUnavailable: the address is taken or not ours. Nothing was loaded.
        ConfigError: a key is not where the configuration says; or as Yard.start.
        ModelLoadFailed: as Yard.start.
    """
    logging.basicConfig(level=logging.INFO, format="%(asctime)s %(levelname)s %(message)s")
    for chatty in ("uvicorn.error", "httpx"):
        logging.getLogger(chatty).setLevel(logging.WARNING)
    if config.server.access_log_format == "json":
        _log_as_it_is(ACCESS_LOGGER)
    keys = read_keys(config)
    listener = listen(config.server.host, config.server.port)
    with contextlib.closing(listener), asyncio.Runner(loop_factory=uvloop.new_event_loop) as runner:
        runner.run(_serve(config, keys, listener, read_config))


def _log_as_it_is(name: str) -> None:
    """Let the lines of a logger stand for themselves, without time and level before them."""
    handler = logging.StreamHandler()
    handler.setFormatter(logging.Formatter("%(message)s"))
    lines = logging.getLogger(name)
    lines.addHandler(handler)
    lines.propagate = False


async def _serve(
    config: Config, keys: Sequence[AccessKey], listener: socket.socket, read_config: Callable[[], Config] | None
) -> None:
    stop = _Stop()
    console = Console(soft_wrap=True, highlight=False)
    model = AsyncModel(config)
    try:
        loading = asyncio.create_task(start_visibly(model, console))
        if not await finishes_before(stop.asked, loading):
            loading.cancel()
            await asyncio.gather(loading, return_exceptions=True)
            return
        await loading
        app = application(model, keys, read_config, host=config.server.host)
        server = HttpServer(app, listener, DRAIN_S + CLOSE_S)
        await server.start()
        if not server.serving.done():
            _greet(console, config, model.yard.models(), listener.getsockname()[1], needs_key=bool(keys))
        if read_config is not None:
            _reload_on_hangup(model.yard, read_config)
        await finishes_before(stop.asked, server.serving)
        server.ask_to_stop()
        model.yard.dismiss_observers()
        with contextlib.suppress(TimeoutError):
            async with asyncio.timeout(DRAIN_S):
                await finishes_before(stop.insisted, server.serving)
        # What still runs ends with an error that says so, and its connections close.
        await model.aclose(CLOSE_S)
        await server.serving
    finally:
        await model.aclose(CLOSE_S)


def _reload_on_hangup(yard: Yard, read_config: Callable[[], Config]) -> None:
    running: set[asyncio.Task[None]] = set()

    async def reload() -> None:
        try:
            await yard.reconfigure(read_config())
        except ModelyardError as error:
            logger.error("The configuration was not reloaded, nothing has changed. %s", error)
        else:
            logger.info("The configuration was reloaded")

    def hear() -> None:
        task = asyncio.get_running_loop().create_task(reload(), name="reload the configuration")
        running.add(task)
        task.add_done_callback(running.discard)

    asyncio.get_running_loop().add_signal_handler(signal.SIGHUP, hear)


class _Stop:
    """SIGINT and SIGTERM: the first asks to stop, the second insists."""

    def __init__(self) -> None:
        self.asked = asyncio.Event()
        self.insisted = asyncio.Event()
        loop = asyncio.get_running_loop()
        for number in (signal.SIGINT, signal.SIGTERM):
            loop.add_signal_handler(number, self._hear)

    def _hear(self) -> None:
        (self.insisted if self.asked.is_set() else self.asked).set()


def _greet(console: Console, config: Config, models: list[ModelStatus], port: int, *, needs_key: bool) -> None:
    """Say what is served, and how to try it: a line that works as pasted."""
    host = config.server.host
    reachable = "localhost" if host in _ALL_HOSTS else f"[{host}]" if ":" in host else host
    url = f"http://{reachable}:{port}/v1"
    console.print(f"[bold]Modelyard {modelyard.__version__}[/] serves {_count(models)} at [bold]{url}[/]\n")
    console.print(_table(models))
    shown = next((model for model in models if model.is_default), models[0])
    console.print("\n[bold]Try it:[/]")
    # Printed as it is: wrapped or marked up, it would not work as pasted.
    print(_curl(url, shown, needs_key=needs_key), flush=True)  # noqa: T201
    if not needs_key and not is_loopback(host):
        logger.warning(
            "Whoever reaches this machine may use the models: it listens on %s, and there are no API keys. Set "
            "api_keys under [server].",
            host,
        )
    console.print("\nCtrl-C stops it.")


def _count(models: list[ModelStatus]) -> str:
    return "1 model" if len(models) == 1 else f"{len(models)} models"


def _table(models: list[ModelStatus]) -> Table:
    table = Table(box=None, pad_edge=False, padding=(0, 2, 0, 0))
    for heading in ("Model", "Status", "Quantisation", "Context", "Weights", ""):
        table.add_column(heading, justify="right" if heading in ("Context", "Weights") else "left", no_wrap=True)
    for model in models[:MOST_SHOWN]:
        table.add_row(
            model.id,
            model.status,
            model.quantization or "",
            str(model.context_length or ""),
            "" if model.size_bytes is None else f"{model.size_bytes / 1e6:,.0f} MB",
            "default" if model.is_default else "",
        )
    if len(models) > MOST_SHOWN:
        table.add_row(f"and {len(models) - MOST_SHOWN} more")
    return table


def _curl(url: str, model: ModelStatus, *, needs_key: bool) -> str:
    if model.can_chat is False:
        path, question = "/completions", {"prompt": "Once upon a time", "max_tokens": 64}
    else:
        path, question = "/chat/completions", {"messages": [{"role": "user", "content": "Hello!"}]}
    body = json.dumps({"model": model.id, **question})
    key = " -H 'Authorization: Bearer <one of the API keys>'" if needs_key else ""
    return f"curl {url}{path} -H 'Content-Type: application/json'{key} -d {shlex.quote(body)}"
