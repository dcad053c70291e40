"""The log of a server: lines on standard error, which share a terminal with progress bars."""

from __future__ import annotations

import logging
import sys
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from typing import IO, Final, TextIO, cast

from rich.console import Console
from rich.text import Text

from modelyard.api.middleware.access_log import LOGGER as ACCESS_LOGGER
from modelyard.api.server.log_ring import LogRing
from modelyard.config import Server
from modelyard.system.printable import printable
from modelyard.system.queued_output import QueuedOutput

# Libraries whose lines of level INFO repeat what the access log has, or have a line for each request to the hub.
_QUIET: Final = ("uvicorn.error", "httpx", "httpx2", "websockets")

# The SDK of MCP logs what servers send, with tracebacks. What it means for a connection is logged by that.
_SILENT: Final = ("mcp", "client")

MAX_DRAIN_S: Final = 2.0
"""How long the end of a server waits for its last lines to be shown."""

_STYLES: Final = {logging.WARNING: "yellow", logging.ERROR: "red", logging.CRITICAL: "bold red"}


class LineFormatter(logging.Formatter):
    """Formats a record as one line: control characters of its message, which clients may have sent, are escaped.

    Only a traceback takes further lines.
    """

    def format(self, record: logging.LogRecord) -> str:
        """Return the line of a record, and its traceback."""
        record.message = printable(record.getMessage())
        if self.usesTime():
            record.asctime = self.formatTime(record, self.datefmt)
        parts = [self.formatMessage(record)]
        # Not from the record's cache, which another handler may have filled with text that is not escaped.
        if record.exc_info:
            parts += map(printable, self.formatException(record.exc_info).splitlines())
        return "\n".join(parts)


class ConsoleHandler(logging.StreamHandler):  # type: ignore[type-arg]
    """Writes records to the console, above the bars that are drawn on it.

    Attributes:
        is_drawing: whether there are bars.
    """

    def __init__(self, console: Console) -> None:
        super().__init__(console.file)
        self.is_drawing = False
        self._console = console

    def emit(self, record: logging.LogRecord) -> None:
        """Write one record."""
        style = _STYLES.get(record.levelno)
        if not self._console.is_terminal or not (self.is_drawing or style):
            super().emit(record)
            return
        try:
            line = Text(self.format(record))
            if style:
                line.highlight_words([record.levelname], style)
            self._console.print(line, soft_wrap=True)
        except Exception:  # noqa: BLE001 (what logging does with a line that cannot be written)
            self.handleError(record)


class ServerLog:
    """The console of a server on standard error, and the log on it and in memory.

    Attributes:
        console: where it is written.
        greeting: standard output, for what the start says.
        ring: its last lines.
    """

    def __init__(self) -> None:
        # The event loop writes: it must not wait for a terminal that reads nothing.
        self._output = QueuedOutput()
        self.console = self._console_to(sys.stderr)
        self.greeting = self._console_to(sys.stdout)
        self.ring = LogRing()
        self.ring.setFormatter(LineFormatter("%(message)s"))
        self._handlers: list[ConsoleHandler] = []
        self._settings_before = ExitStack()

    def open(self, server: Server) -> None:
        """Write everything that is logged from now on to the console."""
        root = logging.getLogger()
        self._set_level(root, logging.INFO)
        self._add_handler(root, self._handler("%(asctime)s %(levelname)s %(message)s"))
        self._add_handler(root, self.ring)
        for name in _QUIET:
            self._set_level(logging.getLogger(name), logging.WARNING)
        for name in _SILENT:
            self._set_level(logging.getLogger(name), logging.CRITICAL + 1)
        if server.access_log_format == "json":
            access = logging.getLogger(ACCESS_LOGGER)
            self._add_handler(access, self._handler("%(message)s"))
            self._add_handler(access, self.ring)
            self._settings_before.callback(setattr, access, "propagate", access.propagate)
            access.propagate = False

    def close(self) -> None:
        """Wait until the lines so far are shown, though not for long where nothing reads them; log as before ``open``.

        The process may go on without a server.
        """
        self._output.drain(MAX_DRAIN_S)
        self._settings_before.close()

    def _set_level(self, logger: logging.Logger, level: int) -> None:
        self._settings_before.callback(logger.setLevel, logger.level)
        logger.setLevel(level)

    def _add_handler(self, logger: logging.Logger, handler: logging.Handler) -> None:
        self._settings_before.callback(logger.removeHandler, handler)
        logger.addHandler(handler)

    def _console_to(self, stream: TextIO) -> Console:
        return Console(file=cast("IO[str]", self._output.stream(stream)), highlight=False)

    def _handler(self, form: str) -> ConsoleHandler:
        handler = ConsoleHandler(self.console)
        handler.setFormatter(LineFormatter(form))
        self._handlers.append(handler)
        return handler

    @contextmanager
    def drawing(self) -> Iterator[None]:
        """Enter while bars are drawn on the console."""
        for handler in self._handlers:
            handler.is_drawing = True
        try:
            yield
        finally:
            for handler in self._handlers:
                handler.is_drawing = False
