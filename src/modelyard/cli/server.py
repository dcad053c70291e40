"""Runs the HTTP server of a configuration until a signal stops it."""

from __future__ import annotations

import asyncio
import contextlib
import gc
import logging
import signal
import socket
from collections.abc import Awaitable, Callable, Iterator, Sequence
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

# Seconds in which engines free their models, after DRAIN_S in which requests end.
CLOSE_S = 10.0


def run_server(
    config: Config,
    keys: Sequence[AccessKey],
    listener: socket.socket,
    read_config: Callable[[], Config] | None,
    link: SupervisorLink | None,
    tls: Certificate | None,
) -> None:
    """Load the models, serve them on ``listener``, and return after SIGINT or SIGTERM.

    On SIGHUP the server changes to the configuration that ``read_config`` returns. With a ``link`` the supervisor
    passes on these signals as well, and the server also stops when the supervisor has ended.

    Raises:
        ConfigError, ModelLoadFailed: see Yard.start.
    """
    logging.basicConfig(level=logging.INFO, format="%(asctime)s %(levelname)s %(message)s")
    for name in ("uvicorn.error", "httpx"):
        logging.getLogger(name).setLevel(logging.WARNING)
    if config.server.access_log_format == "json":
        _log_messages_only(ACCESS_LOGGER)
    with contextlib.closing(listener), asyncio.Runner(loop_factory=uvloop.new_event_loop) as runner:
        runner.run(_serve(config, keys, listener, read_config, link, tls))


def _log_messages_only(name: str) -> None:
    """Let a logger write its messages without time and level before them."""
    handler = logging.StreamHandler()
    handler.setFormatter(logging.Formatter("%(message)s"))
    log = logging.getLogger(name)
    log.addHandler(handler)
    log.propagate = False


async def _serve(
    config: Config,
    keys: Sequence[AccessKey],
    listener: socket.socket,
    read_config: Callable[[], Config] | None,
    link: SupervisorLink | None,
    tls: Certificate | None,
) -> None:
    if tls is not None and read_config is not None:
        read_config = _with_renewed_certificate(tls, read_config)
    stop, console = _Stop(link), Console(soft_wrap=True, highlight=False)
    # Engines run in processes, so that a crash of one does not end the others; docs/performance.md has the cost.
    model = AsyncModel(config, partial(Yard, auto_host="process"))
    loading = asyncio.create_task(start_visibly(model, console))
    reload = None if read_config is None else _reload_starter(model, loading, read_config)
    close_store: Callable[[], Awaitable[None]] | None = None
    with _signals_handled(stop, reload, link):
        try:
            if not await finishes_before(stop.requested, loading):
                loading.cancel()
                await asyncio.gather(loading, return_exceptions=True)
                return
            await loading
            address = config.server
            responses_file = address.responses_file(address.host, address.port)
            app = create_app(model.yard, keys, read_config, host=address.host, responses_file=responses_file)
            close_store = app.state.responses.aclose
            server = HttpServer(
                app, listener, config.server, models=len(config.models), tls=tls, drain_s=DRAIN_S + CLOSE_S
            )
            # Without freeze, a full collection visits all permanent objects, and stops all threads for 25 ms or more.
            gc.collect()
            gc.freeze()
            await server.start()
            if not server.serving.done():
                if link is not None:
                    link.report_serving()
                greet(console, config, model.yard.models(), listener.getsockname()[1], needs_key=bool(keys))
            await finishes_before(stop.requested, server.serving)
            server.ask_to_stop()
            model.yard.dismiss_observers()
            with contextlib.suppress(TimeoutError):
                async with asyncio.timeout(DRAIN_S):
                    await finishes_before(stop.forced, server.serving)
            # Closing the model ends running requests with an error, and their connections close.
            await model.aclose(CLOSE_S)
            await server.serving
        finally:
            await model.aclose(CLOSE_S)
            # After the models: responses in the background end with them, and are stored.
            if close_store is not None:
                await close_store()


@contextlib.contextmanager
def _signals_handled(stop: _Stop, reload: Callable[[], None] | None, link: SupervisorLink | None) -> Iterator[None]:
    """Handle signals, and messages of the supervisor, on the event loop within the context.

    The handlers are removed at the end: uvloop leaves its own installed when it closes, where they do nothing.
    """
    loop = asyncio.get_running_loop()
    # Ctrl-C in a terminal, or systemd's SIGTERM, reaches both the server and its supervisor, which passes it on.
    stops = TwoWays(stop.on_signal)
    handlers: dict[signal.Signals, Callable[[], None]] = dict.fromkeys(
        (signal.SIGINT, signal.SIGTERM), lambda: stops.arrive("signal")
    )
    if reload is not None:
        # With a supervisor, only the SIGHUP that it passes on counts, so that a hang-up of the terminal reloads once.
        handlers[signal.SIGHUP] = reload if link is None else _ignore
    with contextlib.ExitStack() as stack:
        for number, handler in handlers.items():
            loop.add_signal_handler(number, handler)
            stack.callback(loop.remove_signal_handler, number)
        if link is not None:
            stack.enter_context(link.heard(lambda: stops.arrive("supervisor"), reload or _ignore, stop.request))
            unblock()
        yield


def _with_renewed_certificate(tls: Certificate, read_config: Callable[[], Config]) -> Callable[[], Config]:
    """Return a function that reads the configuration, and the certificate, which is renewed every few weeks."""

    def read() -> Config:
        config = read_config()
        tls.renew()
        return config

    return read


def _ignore() -> None:
    """Do nothing. Unlike SIG_IGN, a handler is not inherited by programs that the server starts."""


def _reload_starter(
    model: AsyncModel, loading: asyncio.Task[None], read_config: Callable[[], Config]
) -> Callable[[], None]:
    """Return a function that starts a reload of the configuration, which runs once the models are loaded."""
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

    def start() -> None:
        task = asyncio.get_running_loop().create_task(reload(), name="reload the configuration")
        running.add(task)
        task.add_done_callback(running.discard)

    return start


class _Stop:
    """The state of stopping: the first SIGINT or SIGTERM requests it, and the second ends running requests at once."""

    def __init__(self, link: SupervisorLink | None) -> None:
        self.requested = asyncio.Event()
        self.forced = asyncio.Event()
        self._link = link

    def on_signal(self) -> None:
        """Request stopping, or force it if it is requested already."""
        if self.requested.is_set():
            self.forced.set()
        else:
            self.request()

    def request(self) -> None:
        """Request stopping, which lets running requests end."""
        if self._link is not None and not self.requested.is_set():
            self._link.report_stopping()
        self.requested.set()
