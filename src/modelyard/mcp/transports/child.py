"""Starts MCP servers as programs, under a launcher that ends them with this process, however it ends."""

from __future__ import annotations

import asyncio
import contextlib
import os
import signal
import subprocess
import sys
from collections import deque
from dataclasses import dataclass, field
from pathlib import Path
from typing import Final

from modelyard.config import McpServer
from modelyard.mcp import launcher

CLOSE_S: Final = launcher.EXIT_S + launcher.TERMINATE_S * 2 + launcher.KILL_S * 2 + 1
"""Seconds within which the launcher has ended everything."""

_INHERITED: Final = (
    *("HOME", "LOGNAME", "PATH", "SHELL", "TERM", "USER", "LANG", "LC_ALL", "TZ", "TMPDIR"),
    # Where a machine reaches the internet through a proxy only, so does a server.
    *("HTTP_PROXY", "HTTPS_PROXY", "NO_PROXY", "http_proxy", "https_proxy", "no_proxy"),
    *("SSL_CERT_FILE", "SSL_CERT_DIR", "REQUESTS_CA_BUNDLE", "NODE_EXTRA_CA_CERTS"),
)
"""Variables that servers inherit. Others may hold secrets, such as the keys of this server."""

_LAST_LINES: Final = 5
_EXIT_S: Final = 1.0


def environment_of(server: McpServer) -> dict[str, str]:
    """Return the environment of a server's program."""
    inherited = {name: os.environ[name] for name in _INHERITED if name in os.environ}
    return {**inherited, **{name: value.get_secret_value() for name, value in server.env}}


@dataclass
class Child:
    """A server's program that runs, with the launcher above it.

    Attributes:
        process: the launcher. Its pipes are those of the server.
        last_lines: the last lines of the server's standard error, for the reason of its end.
    """

    process: subprocess.Popen[bytes]
    _lifeline: int
    last_lines: deque[str] = field(default_factory=lambda: deque(maxlen=_LAST_LINES))

    def let_go(self) -> None:
        """Have the launcher end the server, unless it ends by itself soon."""
        if self._lifeline >= 0:
            os.close(self._lifeline)
            self._lifeline = -1

    async def close(self) -> None:
        """End the server and everything that it has started. Bounded, and never cut short by a cancel."""
        self.let_go()
        waiting = asyncio.ensure_future(asyncio.to_thread(self._wait))
        try:
            await asyncio.shield(waiting)
        except asyncio.CancelledError:
            await asyncio.wait((waiting,))
            raise

    def _wait(self) -> None:
        try:
            self.process.wait(CLOSE_S)
        except subprocess.TimeoutExpired:
            # Its child gets SIGKILL from the kernel then.
            self.process.kill()
            self.process.wait()

    async def reason(self) -> str:
        """Return why the server has ended, as far as it can be told."""
        # It ends a moment after its output.
        with contextlib.suppress(subprocess.TimeoutExpired):
            await asyncio.to_thread(self.process.wait, _EXIT_S)
        status = self.process.poll()
        last = next((line for line in reversed(self.last_lines) if line.strip()), "")
        if status == launcher.CANNOT_START and last:
            return last
        ended = f"its program has ended{_how(status)}"
        return f"{ended}: {last}" if last else ended


def _how(status: int | None) -> str:
    """Return how a program has ended, by the exit status of its launcher, as the end of a sentence."""
    if status is None:
        return ""
    with contextlib.suppress(ValueError):
        return f" by {signal.Signals(status - launcher.SIGNALLED).name}"
    return f" with exit status {status}"


def start_child(server: McpServer) -> Child:
    """Start the program of a server.

    Raises:
        OSError: the interpreter, or the working directory, cannot be used; or this is Windows.
    """
    assert server.command is not None
    if sys.platform == "win32":
        raise OSError("MCP servers that are programs need Linux or macOS")
    theirs, ours = os.pipe()
    try:
        process = subprocess.Popen(
            [
                *(sys.executable, "-I", "-S", str(Path(launcher.__file__))),
                *(str(theirs), server.command, *server.args),
            ],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
            bufsize=0,
            env=environment_of(server),
            cwd=server.cwd,
            pass_fds=(theirs,),
            # Ctrl-C at the terminal signals this process only, which then ends the server in order.
            start_new_session=True,
        )
    except BaseException:
        with contextlib.suppress(OSError):
            os.close(ours)
        raise
    finally:
        os.close(theirs)
    return Child(process, ours)
