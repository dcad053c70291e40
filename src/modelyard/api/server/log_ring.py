"""The last lines of the server's log, in memory, for clients that read or follow them."""

from __future__ import annotations

import asyncio
import logging
import re
import threading
import time
from collections import deque
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from itertools import takewhile
from typing import Final

from modelyard.errors import TooManyConnections

MAX_LINES: Final = 5_000
MAX_BYTES: Final = 4 * 2**20
"""Characters of all lines together, about as many bytes."""
MAX_LINE_CHARS: Final = 8_192
MAX_FOLLOWERS: Final = 64

# Log messages hold no secrets. Exceptions of libraries may quote a request to the hub, with its token.
_SECRETS: Final = re.compile(
    r"(?i:(?<=bearer )|(?<=token=)|(?<=signature=)|(?<=\?sig=)|(?<=&sig=))[^\s&'\"]{8,}"
    # A slash ends what may be a user, so that each character of a long line is looked at once.
    r"|\b(?:hf_|sk-)[A-Za-z0-9_-]{8,}|(?<=://)[^/\s@]+(?=@)"
)
# One of these is in each text that the pattern matches. Lines of requests have none, and cost no search.
_SIGNS: Final = ("earer ", "EARER ", "oken=", "OKEN=", "sig=", "ignature=", "hf_", "sk-", "://")


@dataclass(frozen=True, slots=True)
class LogLine:
    """One record of the log.

    Attributes:
        id: identifies it among the lines of all runs of the server, as the id of a server-sent event.
        number: its place among the lines of this run.
        time: seconds of the epoch.
        level: such as "INFO".
        logger: name of the logger.
        message: the text, with a traceback if there is one; at most MAX_LINE_CHARS.
    """

    id: str
    number: int
    time: float
    level: str
    logger: str
    message: str


class LogRing(logging.Handler):
    """Keeps the last lines; older ones are dropped. Records come from any thread, readers are on event loops."""

    def __init__(self) -> None:
        super().__init__()
        self.setFormatter(logging.Formatter("%(message)s"))
        self._lines: deque[LogLine] = deque()
        self._chars = 0
        self._count = 0
        self._run = f"{time.time_ns():x}"
        self._reading = threading.Lock()
        self._followers: set[LogFollower] = set()
        self._is_closed = False

    def emit(self, record: logging.LogRecord) -> None:
        """Keep a record, and wake those that follow the log."""
        try:
            message = self.format(record)
        except Exception:  # noqa: BLE001 (what is logged may be of any class, and logging must not fail for it)
            # The arguments do not suit the message. Standard error has what the other handlers say of that.
            return
        message = without_secrets(message[:MAX_LINE_CHARS])
        with self._reading:
            self._count += 1
            line = LogLine(
                f"{self._run}-{self._count}", self._count, record.created, record.levelname, record.name, message
            )
            self._lines.append(line)
            self._chars += len(message)
            while len(self._lines) > MAX_LINES or self._chars > MAX_BYTES:
                self._chars -= len(self._lines.popleft().message)
            followers = tuple(self._followers)
        for follower in followers:
            follower.wake()

    def lines(self, after: int = 0) -> list[LogLine]:
        """Return the lines that are kept, the oldest first, of those after the number ``after``."""
        with self._reading:
            # From the newest on: a follower asks for few lines, and often.
            newer = list(takewhile(lambda line: line.number > after, reversed(self._lines)))
        return newer[::-1]

    def number_of(self, line_id: str) -> int:
        """Return the number of the line with that id; 0 if it is of another run, all of whose lines are older."""
        run, _, number = line_id.rpartition("-")
        return int(number) if run == self._run and number.isdecimal() and len(number) < 20 else 0

    @contextmanager
    def follower(self) -> Iterator[LogFollower]:
        """Enter with a follower of the log, on the running event loop.

        Raises:
            TooManyConnections: there are MAX_FOLLOWERS already.
        """
        follower = LogFollower(asyncio.get_running_loop())
        with self._reading:
            if len(self._followers) >= MAX_FOLLOWERS:
                raise TooManyConnections(f"{MAX_FOLLOWERS} clients follow the log already.")
            follower.is_over = self._is_closed
            self._followers.add(follower)
        try:
            yield follower
        finally:
            with self._reading:
                self._followers.discard(follower)

    @property
    def follower_count(self) -> int:
        """Number of those that wait for new lines."""
        with self._reading:
            return len(self._followers)

    def dismiss(self) -> None:
        """End all followers, once they have read what there is: a server that stops waits for its readers."""
        with self._reading:
            self._is_closed = True
            followers = tuple(self._followers)
        for follower in followers:
            follower.is_over = True
            follower.wake()


class LogFollower:
    """A reader that waits for new lines.

    Attributes:
        is_over: whether it is to end.
    """

    def __init__(self, loop: asyncio.AbstractEventLoop) -> None:
        self.is_over = False
        self._loop = loop
        self._news = asyncio.Event()

    def wake(self) -> None:
        """Note that there are new lines, from any thread."""
        # RuntimeError: the event loop is closed.
        with suppress(RuntimeError):
            self._loop.call_soon_threadsafe(self._news.set)

    async def wait(self, timeout_s: float) -> None:
        """Wait until there are new lines, at most ``timeout_s``."""
        with suppress(TimeoutError):
            async with asyncio.timeout(timeout_s):
                await self._news.wait()
        self._news.clear()


def without_secrets(text: str) -> str:
    """Return ``text`` with what looks like a key, a token or a password replaced."""
    return _SECRETS.sub("***", text) if any(sign in text for sign in _SIGNS) else text


def mentions(model: str) -> Callable[[LogLine], bool]:
    """Return whether a line is about ``model``: its id occurs, and not as a part of a longer name."""
    pattern = re.compile(rf"(?<![\w/.:@+~-]){re.escape(model)}(?![\w/:@+~-]|\.\w)")
    return lambda line: pattern.search(line.message) is not None
