"""Runs the HTTP server of a configuration until a signal stops it."""

from __future__ import annotations

import asyncio
import contextlib
import gc
import logging
import os
import signal
import socket
import sys
from collections.abc import AsyncIterator, Awaitable, Callable, Collection, Coroutine, Iterator, Sequence
from functools import partial
from pathlib import Path
from types import ModuleType
from typing import TYPE_CHECKING, Any, Final

import uvloop
from rich.console import Console

from modelyard.cli.announcing import own_announcement
from modelyard.cli.greeting import MemoryUse, greet
from modelyard.cli.loading import follow_loads, start_visibly
from modelyard.cli.log import ServerLog
from modelyard.cli.stopping import Stop, forced_line, stop_line
from modelyard.config import AccessKey, Config, missing_ids
from modelyard.config.added import AddedModels, added_folder
from modelyard.config.reader import ConfigReader
from modelyard.errors import ConfigError, ModelyardError
from modelyard.inprocess.async_model import AsyncModel
from modelyard.inprocess.http_server.server import DRAIN_S, HttpServer, finishes_before
from modelyard.inprocess.http_server.tls import Certificate
from modelyard.system.announcements import announced
from modelyard.system.full_collections import full_collections_at_intervals
from modelyard.system.hang_up import watched_terminal
from modelyard.system.memory import total_bytes
from modelyard.system.restarts import ENDED_AT_ONCE
from modelyard.system.supervised import SupervisorLink, unblock
from modelyard.system.two_ways import TwoWays
from modelyard.yard.discovery.discovery import Discovery
from modelyard.yard.discovery.follow import DiscoveryFollower
from modelyard.yard.yard import Yard

if TYPE_CHECKING:
    from modelyard.api.mcp.routes import McpEndpoint

logger = logging.getLogger(__name__)

SWITCH_INTERVAL_S: Final = 0.0005
"""How long a thread that computes keeps the interpreter's lock from the event loop's, which needs it several times for
each answer. With Python's own 5 ms, ``/health`` takes twice as long beside bodies that are parsed."""

# Seconds in which engines free their models, after DRAIN_S in which requests end; and after a second signal.
CLOSE_S = 10.0
FORCED_CLOSE_S = 2.0

# How long the greeting waits for the headers of models that are not loaded. Reading goes on after it.
MAX_SURVEY_S = 5.0


def run_server(
    config: Config,
    keys: Sequence[AccessKey],
    listener: socket.socket,
    read_config: Callable[[], Config] | None,
    link: SupervisorLink | None,
    tls: Certificate | None,
    file: Path | None,
    mcp_listener: socket.socket | None,
) -> None:
    """Load the models, serve them on ``listener``, and /mcp alone on ``mcp_listener``; return after SIGINT or SIGTERM.

    ``file`` is the configuration file, which the server announces. On SIGHUP it changes to the configuration that
    ``read_config`` returns; it stops if there is none, or if the terminal has hung up. With a ``link`` the supervisor
    passes on these signals as well, and the server also stops when the supervisor has ended.

    Raises:
        ConfigError, ModelLoadFailed: see Yard.start.
        SystemExit: a second signal has cut off what the first one waited for.
    """
    log = ServerLog()
    log.open(config.server)
    sys.setswitchinterval(SWITCH_INTERVAL_S)
    with (
        contextlib.closing(log),
        contextlib.closing(listener),
        contextlib.closing(mcp_listener) if mcp_listener else contextlib.nullcontext(),
        asyncio.Runner(loop_factory=uvloop.new_event_loop) as runner,
    ):
        was_forced = runner.run(_serve(config, keys, listener, read_config, link, tls, file, mcp_listener, log))
    if was_forced:
        sys.exit(ENDED_AT_ONCE)


async def _serve(
    config: Config,
    keys: Sequence[AccessKey],
    listener: socket.socket,
    read_config: Callable[[], Config] | None,
    link: SupervisorLink | None,
    tls: Certificate | None,
    file: Path | None,
    mcp_listener: socket.socket | None,
    log: ServerLog,
) -> bool:
    """Serve until a signal stops it; return whether a second signal has cut off what the stop waited for."""
    discovery = Discovery()
    folder = added_folder(file)
    added = None if folder is None else AddedModels(folder)
    if added is not None:
        config = await asyncio.to_thread(added.served, config)
    if read_config is not None:
        read_config = _with_others(discovery, added, read_config)
        if tls is not None:
            read_config = _with_renewed_certificate(tls, read_config)
    stop = Stop(link)
    # Engines run in processes, so that a crash of one does not end the others; docs/performance.md has the cost.
    model = AsyncModel(config, partial(Yard, auto_host="process"))
    loading = asyncio.create_task(start_visibly(model, log.console, log.drawing()))
    # While the models load: a fifth of what a server imports is for its endpoints alone.
    importing = asyncio.create_task(asyncio.to_thread(_import_app), name="import the endpoints")
    reload = None if read_config is None else _reload_starter(model, loading, read_config)
    closing = _Closing(model, stop)
    close_store: Callable[[], Awaitable[None]] | None = None
    announcement = own_announcement(config, listener, file, is_supervised=link is not None)
    # From the start to the end: `modelyard stop` finds the server while it loads, and while it waits for its answers.
    with announced(announcement, os.environ) as announce_serving, _signals_handled(stop, reload, link):
        try:
            if not await finishes_before(stop.requested, loading):
                logger.info("Stopping, before all models were loaded; a second signal ends it at once")
                loading.cancel()
                stop.has_cut = not await finishes_before(stop.forced, asyncio.ensure_future(_outcome(loading)))
                return stop.has_cut
            await loading
            # Before the start, models of a configuration file whose paths do not exist were shown by their lines.
            known = frozenset[str]() if file is None else missing_ids(config)
            survey = asyncio.create_task(_survey(model.yard, known), name="read headers")
            follower = DiscoveryFollower(model.yard, discovery)
            address = config.server
            responses_file = address.responses_file(address.host, address.port)
            api = await importing
            app = api.create_app(
                model.yard,
                keys,
                read_config,
                host=address.host,
                responses_file=responses_file,
                log_ring=log.ring,
                agent=model.agent,
                mcp_statuses=lambda: model.mcp_servers,
                added=added,
            )
            close_store = partial(api.close_app, app)
            server = HttpServer(
                app,
                listener,
                config.server,
                models=len(config.models),
                tls=tls,
                mcp_listener=mcp_listener,
                drain_s=DRAIN_S + CLOSE_S,
            )
            # Without freeze, a full collection visits all permanent objects, and stops all threads for 25 ms or more.
            gc.collect()
            gc.freeze()
            async with full_collections_at_intervals(), _looking(follower):
                await server.start()
                if not server.serving.done():
                    if link is not None:
                        link.report_serving()
                    announce_serving()
                    await _await_survey(survey, follower, stop)
                    if not stop.requested.is_set():
                        _greet(log.greeting, model.yard.config, model.yard, listener, keys)
                with _running(follow_loads(model.yard, log.console, log.drawing())), _running(survey):
                    await finishes_before(stop.requested, server.serving)
                    await _drain(model, server, stop, log, app.state.mcp)
                    # Closing the models ends running requests with an error, and their connections close.
                    await closing.finish()
                    await closing.wait_for(server.serving)
        finally:
            await closing.finish()
            # After the models: responses in the background end with them, and are stored.
            if close_store is not None:
                await close_store()
            if closing.was_given_up:
                # The end of the event loop would wait for threads that hang, or that read a large file.
                log.close()
                os._exit(ENDED_AT_ONCE)
    return stop.has_cut


def _import_app() -> ModuleType:
    from modelyard.api import app

    return app


class _Closing:
    """The close of the models, and what is waited for after it: not for long once a second signal has come.

    Attributes:
        was_given_up: whether something was not waited for.
    """

    def __init__(self, model: AsyncModel, stop: Stop) -> None:
        self.was_given_up = False
        self._model, self._stop = model, stop
        self._task: asyncio.Task[None] | None = None

    async def finish(self) -> None:
        """Free all models. Idempotent."""
        if self._task is None:
            self._task = asyncio.create_task(self._model.aclose(CLOSE_S))
        await self.wait_for(self._task)

    async def wait_for(self, work: asyncio.Task[None]) -> None:
        """Wait until ``work`` is done, or is given up."""
        if not await finishes_before(self._stop.forced, work):
            await asyncio.wait((work,), timeout=0 if self.was_given_up else FORCED_CLOSE_S)
        if work.done():
            await work
        else:
            self.was_given_up = True


async def _outcome(task: asyncio.Task[None]) -> None:
    """Wait until a task is over, whatever becomes of it."""
    await asyncio.gather(task, return_exceptions=True)


@contextlib.asynccontextmanager
async def _looking(follower: DiscoveryFollower) -> AsyncIterator[None]:
    """Look for models beside the context."""
    with _running(follower.run()):
        yield


@contextlib.contextmanager
def _running(work: Coroutine[Any, Any, None] | asyncio.Task[None]) -> Iterator[None]:
    """Run ``work`` beside the context, and cancel it at the end."""
    task = work if isinstance(work, asyncio.Task) else asyncio.create_task(work)
    try:
        yield
    finally:
        task.cancel()


async def _await_survey(survey: asyncio.Task[None], follower: DiscoveryFollower, stop: Stop) -> None:
    """Wait until headers are read and models were looked for, for a while, unless the server is to stop."""
    looked = asyncio.create_task(follower.until_looked())
    with contextlib.suppress(TimeoutError):
        async with asyncio.timeout(MAX_SURVEY_S):
            await finishes_before(stop.requested, survey)
            await finishes_before(stop.requested, looked)
    looked.cancel()


async def _survey(yard: Yard, known: Collection[str]) -> None:
    """Read the headers of the models that are not loaded, and log which of them cannot be, except the ``known``."""
    for model, problem in (await yard.survey()).items():
        if model not in known:
            logger.warning("%s cannot be loaded as it is configured: %s", model, problem)


def _greet(console: Console, config: Config, yard: Yard, listener: socket.socket, keys: Sequence[AccessKey]) -> None:
    metrics = yard.monitor.metrics()
    memory = MemoryUse(metrics.used_bytes, metrics.budget_bytes, total_bytes(), metrics.devices)
    greet(console, config, yard.models(), memory, listener.getsockname()[1], needs_key=bool(keys))


async def _drain(model: AsyncModel, server: HttpServer, stop: Stop, log: ServerLog, mcp: McpEndpoint) -> None:
    """Accept no connections any more, and let running requests end, for a while."""
    server.ask_to_stop()
    # Those who follow the log or the models end at once: nothing waits for them.
    followers = mcp.spare_streams + model.yard.monitor.dismiss_observers() + log.ring.follower_count
    requests = max(0, server.open_requests - followers)
    is_terminal = log.console.is_terminal
    logger.info("%s", stop_line(model.yard.monitor.running(), requests, DRAIN_S, is_terminal=is_terminal))
    # After that line, which is the last one that they read.
    log.ring.dismiss()
    with contextlib.suppress(TimeoutError):
        async with asyncio.timeout(DRAIN_S):
            await finishes_before(stop.forced, server.serving)
    if not server.serving.done() and (line := forced_line(model.yard.monitor.running(), server.open_requests)):
        stop.has_cut = stop.forced.is_set()
        logger.warning("%s", line)


@contextlib.contextmanager
def _signals_handled(stop: Stop, reload: Callable[[], None] | None, link: SupervisorLink | None) -> Iterator[None]:
    """Handle signals, and messages of the supervisor, on the event loop within the context.

    The handlers are removed at the end: uvloop leaves its own installed when it closes, where they do nothing.
    """
    loop = asyncio.get_running_loop()
    # Ctrl-C in a terminal, or systemd's SIGTERM, reaches both the server and its supervisor, which passes it on.
    stops = TwoWays(stop.on_signal)
    handlers: dict[signal.Signals, Callable[[], None]] = dict.fromkeys(
        (signal.SIGINT, signal.SIGTERM), lambda: stops.arrive("signal")
    )
    with contextlib.ExitStack() as stack:
        if link is not None:
            # Only the SIGHUP that the supervisor passes on counts: it knows whether the terminal has hung up.
            handlers[signal.SIGHUP] = _ignore
        else:
            terminal = stack.enter_context(watched_terminal(loop))
            if reload is not None:
                handlers[signal.SIGHUP] = lambda: stop.request() if terminal.is_hang_up() else reload()
            elif not terminal.ignores_hang_ups:
                handlers[signal.SIGHUP] = stop.request
        for number, handler in handlers.items():
            loop.add_signal_handler(number, handler)
            stack.callback(loop.remove_signal_handler, number)
        if link is not None:
            stack.enter_context(link.heard(lambda: stops.arrive("supervisor"), reload or _ignore, stop.request))
            unblock()
        yield


def _with_others(
    discovery: Discovery, added: AddedModels | None, read_config: Callable[[], Config]
) -> Callable[[], Config]:
    """Return a function that reads the configuration, and puts the models that were added or found behind its own."""

    def read() -> Config:
        config = read_config()
        return discovery.served(config if added is None else added.served(config))

    return read


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
            result = await model.yard.reconfigure(await reader.read_async())
        except ModelyardError as error:
            reason = error.in_one_line if isinstance(error, ConfigError) else error
            logger.error("The configuration was not reloaded, nothing has changed. %s", reason)
        else:
            logger.info("The configuration was reloaded: %s", result.summary())

    def start() -> None:
        task = asyncio.get_running_loop().create_task(reload(), name="reload the configuration")
        running.add(task)
        task.add_done_callback(running.discard)

    return start
