"""How a chat with models of its own process begins and ends."""

from __future__ import annotations

import asyncio
import io
import logging
import signal

import pytest
from rich.console import Console

from modelyard.cli.chat.connection import _CurrentStandardError, _signals_end_it
from modelyard.cli.loading import connect_visibly
from modelyard.mcp.connection import ServerStatus, State


@pytest.mark.parametrize("number", [signal.SIGHUP, signal.SIGTERM])
def test_a_closed_terminal_ends_a_chat_in_order_so_that_its_model_does_not_count_as_crashed(number: int) -> None:
    with pytest.raises(SystemExit) as ended, _signals_end_it():
        signal.raise_signal(number)
    assert ended.value.code == 128 + number
    assert signal.getsignal(number) is signal.SIG_DFL


def test_a_hang_up_that_is_ignored_stays_ignored() -> None:
    before = signal.signal(signal.SIGHUP, signal.SIG_IGN)
    try:
        with _signals_end_it():
            assert signal.getsignal(signal.SIGHUP) is signal.SIG_IGN
    finally:
        signal.signal(signal.SIGHUP, before)


class Connecting:
    """Models whose MCP server takes until ``connected`` is set."""

    def __init__(self) -> None:
        self.connected = asyncio.Event()

    @property
    def mcp_servers(self) -> list[ServerStatus]:
        state: State = "connected" if self.connected.is_set() else "connecting"
        return [ServerStatus("files", "stdio", state, "", 0, "", None, None)]

    async def wait_for_mcp_servers(self, _timeout_s: float) -> None:
        await self.connected.wait()


def test_a_server_that_is_being_connected_has_a_line_until_it_is() -> None:
    models = Connecting()

    class Drawn(io.StringIO):
        def write(self, text: str) -> int:
            if "Connecting to files" in text:
                models.connected.set()
            return super().write(text)

    drawn = Drawn()
    asyncio.run(connect_visibly(models, Console(file=drawn, force_terminal=True), 30))  # type: ignore[arg-type]
    assert "Connecting to files" in drawn.getvalue()
    assert drawn.getvalue().endswith("\x1b[2K")


@pytest.mark.parametrize(("is_terminal", "lines"), [(True, 3), (False, 1)])
def test_warnings_break_at_words_of_a_narrow_terminal(
    is_terminal: bool, lines: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    class Stream(io.StringIO):
        def isatty(self) -> bool:
            return is_terminal

    monkeypatch.setattr("sys.stderr", Stream())
    monkeypatch.setenv("COLUMNS", "40")
    message = "MCP server files is not connected: nothing listens there; it is tried again, and again"
    record = logging.LogRecord("modelyard", logging.WARNING, "", 0, message, None, None)
    line = _CurrentStandardError().format(record)
    assert len(line.splitlines()) == lines
    assert line.split() == message.split()
