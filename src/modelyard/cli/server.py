"""Runs the HTTP server from a configuration until it is told to stop."""

from __future__ import annotations

import asyncio
import contextlib
import gc
import logging
import signal
import socket
from collections.abc import Callable, Iterator, Sequence
from functools import partial

import uvloop
from rich.console import Console

from modelyard.api.app import create_app
from modelyard.api.middleware.access_log import LOGGER as ACCESS_LOGGER
from modelyard.cli.greeting import greet
from modelyard.cli.loading import start_visibly
from modelyard.config import AccessKey, Config
from modelyard.config.reader import ConfigReader
from modelyard.errors import ModelyardError
from modelyard.inprocess.async_model import AsyncModel
from modelyard.inprocess.http_server.server import DRAIN_S, HttpServer, finishes_before
from modelyard.inprocess.http_server.tls import Certificate
from modelyard.system.supervised import SupervisorLink, unblock
from modelyard.system.two_ways import TwoWays
from modelyard.yard.yard import Yard

logger = logging.getLogger(__name__)

# How long engines may take to free their models after that.
CLOSE_S = 10.0


def run_server(
    config: Config,
    keys: Sequence[AccessKey],
    listener: socket.socket,
    read_config: Callable[[], Config] | None,
    link: SupervisorLink | None,
    tls: Certificate | None,
) -> None:
    """Load the models, serve them on ``listener``, and return when SIGINT or SIGTERM asked for it.

    On SIGHUP, serve what ``read_config`` reads from then on. With a ``link``, a supervisor has both signals, too, and
    the server also stops when the supervisor has ended.

    Raises:
        ConfigError, ModelLoadFailed: as Yard.start.
    """
    logging.basicConfig(level=logging.INFO, format="%(asctime)s %(levelname)s %(message)s")
    for chatty in ("uvicorn.error", "httpx"):
        logging.getLogger(chatty).setLevel(logging.WARNING)
    if config.server.access_log_format == "json":
        _log_as_it_is(ACCESS_LOGGER)
    with contextlib.closing(listener), asyncio.Runner(loop_factory=uvloop.new_event_loop) as runner:
        runner.run(_serve(config, keys, listener, read_config, link, tls))


def _log_as_it_is(name: str) -> None:
    """Let the lines of a logger stand for themselves, without time and level before them."""
    handler = logging.StreamHandler()
    handler.setFormatter(logging.Formatter("%(message)s"))
    lines = logging.getLogger(name)
    lines.addHandler(handler)
    lines.propagate = False


async def _serve(
    config: Config,
    keys: Sequence[AccessKey],
    listener: socket.socket,
    read_config: Callable[[], Config] | None,
    link: SupervisorLink | None,
    tls: Certificate | None,
) -> None:
    if tls is not None and read_config is not None:
        read_config = _renewing(tls, read_config)
    stop, console = _Stop(link), Console(soft_wrap=True, highlight=False)
    # A crash of one engine is not to end all others; what it costs is in docs/performance.md.
    model = AsyncModel(config, partial(Yard, auto_host="process"))
    loading = asyncio.create_task(start_visibly(model, console))
    reload = None if read_config is None else _reloading(model, loading, read_config)
    with _heard(stop, reload, link):
        try:
            if not await finishes_before(stop.asked, loading):
                loading.cancel()
                await asyncio.gather(loading, return_exceptions=True)
                return
            await loading
            app = create_app(model.yard, keys, read_config, host=config.server.host)
            server = HttpServer(
                app, listener, config.server, models=len(config.models), tls=tls, drain_s=DRAIN_S + CLOSE_S
            )
            # Every full collection would go over all that is there for good, and stop all threads for 25 ms and more.
            gc.collect()
            gc.freeze()
            await server.start()
            if not server.serving.done():
                if link is not None:
                    link.report_serving()
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
def _heard(stop: _Stop, reload: Callable[[], None] | None, link: SupervisorLink | None) -> Iterator[None]:
    """Have signals, and a supervisor, heard on the event loop for the length of the context.

    uvloop itself leaves handlers behind, which hear nothing.
    """
    loop = asyncio.get_running_loop()
    # Ctrl-C in a terminal, or systemd's SIGTERM, comes to the server and to its supervisor, which passes it on.
    stops = TwoWays(stop.hear)
    handlers: dict[signal.Signals, Callable[[], None]] = dict.fromkeys(
        (signal.SIGINT, signal.SIGTERM), lambda: stops.arrive("signal")
    )
    if reload is not None:
        # With a supervisor, its SIGHUP counts alone, so that a hang-up of the terminal reloads once.
        handlers[signal.SIGHUP] = reload if link is None else _ignore
    with contextlib.ExitStack() as stack:
        for number, hear in handlers.items():
            loop.add_signal_handler(number, hear)
            stack.callback(loop.remove_signal_handler, number)
        if link is not None:
            stack.enter_context(link.heard(lambda: stops.arrive("supervisor"), reload or _ignore, stop.ask))
            unblock()
        yield


def _renewing(tls: Certificate, read_config: Callable[[], Config]) -> Callable[[], Config]:
    """Reads the configuration again, and the certificate, which is renewed every few weeks."""

    def read() -> Config:
        config = read_config()
        tls.renew()
        return config

    return read


def _ignore() -> None:
    """Do nothing. A signal that has a handler is not ignored in programs that the server starts."""


def _reloading(model: AsyncModel, loading: asyncio.Task[None], read_config: Callable[[], Config]) -> Callable[[], None]:
    """What reloads the configuration when it is called, as soon as the models are loaded, and does not wait for it."""
    running: set[asyncio.Task[None]] = set()
    reader = ConfigReader(read_config)

    async def reload() -> None:
        await asyncio.wait((loading,))
        if loading.cancelled() or loading.exception() is not None:
            return
        try:
            await model.yard.reconfigure(await reader.read_async())
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

    def __init__(self, link: SupervisorLink | None) -> None:
        self.asked = asyncio.Event()
        self.insisted = asyncio.Event()
        self._link = link

    def hear(self) -> None:
        """Take a signal."""
        if self.asked.is_set():
            self.insisted.set()
        else:
            self.ask()

    def ask(self) -> None:
        """Stop, without insisting."""
        if self._link is not None and not self.asked.is_set():
            self._link.report_stopping()
        self.asked.set()
