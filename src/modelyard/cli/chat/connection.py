"""What a chat speaks to: a server that runs, or models that it loads into its own process."""

from __future__ import annotations

import contextlib
import logging
import signal
import sys
from collections.abc import AsyncIterator, Iterator
from dataclasses import dataclass
from shutil import get_terminal_size
from typing import TYPE_CHECKING, Final, NoReturn, TextIO
from urllib.parse import urlsplit

import httpx2
from rich.console import Console

from modelyard.cli.chat.client import Client
from modelyard.cli.client.connection import ServerAddress, tls_context
from modelyard.cli.line_wrap import wrapped
from modelyard.config import is_loopback
from modelyard.inprocess.loop_thread import LoopThread

if TYPE_CHECKING:
    from modelyard.config import Config

MCP_S: Final = 30.0
"""Seconds that a chat waits for the MCP servers of its own models."""


@dataclass(frozen=True, slots=True)
class Connection:
    """A client, and the model that answers first.

    Attributes:
        where: where the models are, as a part of a sentence.
        is_own: whether they are in this process.
    """

    client: Client
    model: str
    where: str
    is_own: bool


@contextlib.contextmanager
def server_connection(address: ServerAddress, model: str) -> Iterator[Connection]:
    """Enter with a connection to a server that runs."""

    with contextlib.closing(LoopThread(lambda: server_client(address), "modelyard client")) as thread:
        yield Connection(Client(thread, address.url), model, f"on the server at {address.url}", is_own=False)


@contextlib.asynccontextmanager
async def server_client(address: ServerAddress) -> AsyncIterator[httpx2.AsyncClient]:
    """Enter with an HTTP client of a server that runs; its paths start at the server's root."""
    headers = {} if address.key is None else {"authorization": f"Bearer {address.key}"}
    host = urlsplit(address.url).hostname or ""
    async with httpx2.AsyncClient(
        base_url=address.url,
        headers=headers,
        verify=tls_context(address) if address.url.startswith("https:") else True,
        # A proxy does not reach this machine's loopback.
        trust_env=not is_loopback(host),
    ) as client:
        yield client


@contextlib.contextmanager
def own_connection(config: Config, model: str, console: Console) -> Iterator[Connection]:
    """Enter with the models of ``config`` in this process; those that load at the start are loaded, with bars.

    Raises:
        ConfigError, ModelLoadFailed: see AsyncModel.start.
    """
    from modelyard.cli.loading import connect_visibly, start_visibly
    from modelyard.inprocess.asgi import in_process_app
    from modelyard.inprocess.async_model import AsyncModel
    from modelyard.inprocess.transport import async_http_client

    @contextlib.asynccontextmanager
    async def connect() -> AsyncIterator[httpx2.AsyncClient]:
        async with contextlib.aclosing(AsyncModel(config)) as models:
            await start_visibly(models, console)
            # The first question is to have the tools; a server that takes long has them for a later one.
            await connect_visibly(models, console, MCP_S)
            async with async_http_client(in_process_app(models.yard, models.agent)) as client:
                yield client

    log_warnings()
    with _signals_end_it(), contextlib.closing(LoopThread(connect, "modelyard")) as thread:
        yield Connection(Client(thread, "this process"), model, "in this process", is_own=True)


@contextlib.contextmanager
def _signals_end_it() -> Iterator[None]:
    """Let a terminal that is closed, and SIGTERM, end the context as an exception does.

    An engine that ends with its process while it computes counts as one that has crashed it.
    """

    def end(number: int, _: object) -> NoReturn:
        raise SystemExit(128 + number)

    # What is ignored stays so, as under nohup.
    changed = [each for each in (signal.SIGHUP, signal.SIGTERM) if signal.getsignal(each) is signal.SIG_DFL]
    for each in changed:
        signal.signal(each, end)
    try:
        yield
    finally:
        for each in changed:
            signal.signal(each, signal.SIG_DFL)


def log_warnings() -> None:
    """Log warnings and errors to standard error, whatever that is when they come: a prompt keeps them off its line."""
    from modelyard.cli.log import LineFormatter

    if not logging.root.handlers:
        handler = _CurrentStandardError()
        handler.setFormatter(LineFormatter("%(levelname)s %(message)s"))
        logging.root.addHandler(handler)


class _CurrentStandardError(logging.StreamHandler[TextIO]):
    def __init__(self) -> None:
        logging.Handler.__init__(self, logging.WARNING)

    def format(self, record: logging.LogRecord) -> str:
        """Return the line, broken at words where it is for a terminal."""
        line = super().format(record)
        if not self.stream.isatty():
            return line
        return wrapped(line, get_terminal_size().columns)

    @property
    def stream(self) -> TextIO:  # type: ignore[override]
        return sys.stderr
