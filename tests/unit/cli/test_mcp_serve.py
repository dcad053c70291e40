"""``modelyard mcp serve``: which signals end it, and how."""

from __future__ import annotations

import asyncio
import signal

import pytest

from modelyard.cli.mcp.serve import until_signalled


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM, signal.SIGHUP])
def test_a_signal_ends_it_in_order_so_that_its_models_do_not_count_as_crashed(number: int) -> None:
    ends: list[str] = []

    async def serve() -> None:
        asyncio.get_running_loop().call_soon(signal.raise_signal, number)
        try:
            await asyncio.sleep(30)
        finally:
            await asyncio.sleep(0)
            ends.append("in order")

    asyncio.run(until_signalled(serve()))
    assert ends == ["in order"]


def test_a_hang_up_that_is_ignored_stays_ignored() -> None:
    async def serve() -> None:
        signal.raise_signal(signal.SIGHUP)
        assert signal.getsignal(signal.SIGHUP) is signal.SIG_IGN

    before = signal.signal(signal.SIGHUP, signal.SIG_IGN)
    try:
        asyncio.run(until_signalled(serve()))
    finally:
        signal.signal(signal.SIGHUP, before)
