"""Runs the HTTP server from a configuration until it is told to stop."""

from __future__ import annotations

import asyncio
import contextlib
import logging
import signal
import socket
from collections.abc import Callable, Iterator, Mapping, Sequence

import uvloop
from rich.console import Console

from modelyard.api.access_log import LOGGER as ACCESS_LOGGER
from modelyard.cli.greeting import greet
from modelyard.cli.loading import start_visibly
from modelyard.config import AccessKey, Config, read_keys
from modelyard.errors import ModelyardError
from modelyard.inprocess.application import application
from modelyard.inprocess.async_model import AsyncModel
from modelyard.inprocess.serve import DRAIN_S, HttpServer, finishes_before, listen

logger = logging.getLogger(__name__)

# How long engines may take to free their models after that.
CLOSE_S = 10.0


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
    stop, console, model = _Stop(), Console(soft_wrap=True, highlight=False), AsyncModel(config)
    loading = asyncio.create_task(start_visibly(model, console))
    handlers = {signal.SIGINT: stop.hear, signal.SIGTERM: stop.hear}
    if read_config is not None:
        handlers[signal.SIGHUP] = _reloading(model, loading, read_config)
    with _heard(handlers):
        try:
            if not await finishes_before(stop.asked, loading):
                loading.cancel()
                await asyncio.gather(loading, return_exceptions=True)
                return
            await loading
            app = application(model, keys, read_config, host=config.server.host)
            server = HttpServer(app, listener, DRAIN_S + CLOSE_S)
            await server.start()
            if not server.serving.done():
                greet(console, config, model.yard.models(), listener.getsockname()[1], needs_key=bool(keys))
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


@contextlib.contextmanager
def _heard(handlers: Mapping[signal.Signals, Callable[[], None]]) -> Iterator[None]:
    """Have signals heard on the event loop, for so long: uvloop itself leaves handlers behind, which hear nothing."""
    loop = asyncio.get_running_loop()
    for number, hear in handlers.items():
        loop.add_signal_handler(number, hear)
    try:
        yield
    finally:
        for number in handlers:
            loop.remove_signal_handler(number)


def _reloading(model: AsyncModel, loading: asyncio.Task[None], read_config: Callable[[], Config]) -> Callable[[], None]:
    """What reloads the configuration when it is called, as soon as the models are loaded, and does not wait for it."""
    running: set[asyncio.Task[None]] = set()

    async def reload() -> None:
        await asyncio.wait((loading,))
        if loading.cancelled() or loading.exception() is not None:
            return
        try:
            await model.yard.reconfigure(read_config())
        except ModelyardError as error:
            logger.error("The configuration was not reloaded, nothing has changed. %s", error)
        else:
            logger.info("The configuration was reloaded")

    def hear() -> None:
        task = asyncio.get_running_loop().create_task(reload(), name="reload the configuration")
        running.add(task)
        task.add_done_callback(running.discard)

    return hear


class _Stop:
    """What the first SIGINT or SIGTERM asks for, and the second insists on."""

    def __init__(self) -> None:
        self.asked = asyncio.Event()
        self.insisted = asyncio.Event()

    def hear(self) -> None:
        """Take a signal."""
        (self.insisted if self.asked.is_set() else self.asked).set()
