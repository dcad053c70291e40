"""The progress of a call, as its client hears of it."""

from __future__ import annotations

import asyncio

from modelyard.api.mcp.progress import CallProgress

Report = tuple[float, float | None, str | None]


class Client:
    """Collects reports; each waits until the client reads."""

    def __init__(self) -> None:
        self.reports: list[Report] = []
        self.reads = asyncio.Event()
        self.reads.set()
        self.is_called = asyncio.Event()

    async def __call__(self, progress: float, total: float | None, message: str | None) -> None:
        self.is_called.set()
        await self.reads.wait()
        self.reports.append((progress, total, message))


async def test_reports_grow_and_have_all_text() -> None:
    client = Client()
    progress = CallProgress(client)
    async with progress.reported():
        progress.loading(0.25, "m: loading")
        await asyncio.wait_for(client.is_called.wait(), 5)
        for tokens in range(1, 50):
            progress.generated(tokens, f"{tokens} ", 100)
            await asyncio.sleep(0)
    values = [report[0] for report in client.reports]
    assert client.reports[0] == (0.25, None, "m: loading")
    assert values == sorted(set(values))
    assert values[-1] == 49
    assert client.reports[-1][1] == 100
    texts = "".join(message or "" for _, _, message in client.reports[1:])
    assert texts == "".join(f"{tokens} " for tokens in range(1, 50))


async def test_a_loaded_model_and_one_token_are_different_amounts() -> None:
    client = Client()
    progress = CallProgress(client)
    async with progress.reported():
        progress.loading(1.0, "m: loading")
        await asyncio.wait_for(client.is_called.wait(), 5)
        progress.generated(1, "", None)
    assert [report[0] for report in client.reports] == [0.999, 1.0]


async def test_what_is_reported_again_is_not_sent_again() -> None:
    client = Client()
    progress = CallProgress(client)
    async with progress.reported():
        for _ in range(10):
            progress.loading(0.5, "m: loading")
    assert len(client.reports) == 1


async def test_a_call_does_not_wait_for_a_client_that_does_not_read_until_its_end() -> None:
    client = Client()
    client.reads.clear()
    progress = CallProgress(client)
    async with progress.reported():
        progress.generated(1, "a", None)
        await asyncio.wait_for(client.is_called.wait(), 5)
        progress.generated(2, "b", None)
        client.reads.set()
    assert client.reports[-1][0] == 2


async def test_nothing_is_sent_where_nobody_asked() -> None:
    progress = CallProgress(None)
    assert not progress.is_wanted
    async with progress.reported():
        progress.generated(1, "a", None)
