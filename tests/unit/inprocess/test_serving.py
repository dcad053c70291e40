"""Servers on models in process, which outlive them."""

from __future__ import annotations

import asyncio
import socket
import time
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import httpx
import pytest

from modelyard import ModelBuilder, serve, serve_async
from modelyard.api.openai.responses.records import RecordTable
from modelyard.errors import PortUnavailable
from support.models_in_process import WAIT_S, async_model_of, interrupt_main, model_of, two
from support.scripted_engines import ScriptedEngines


def free_port() -> int:
    with socket.create_server(("127.0.0.1", 0)) as taken:
        port: int = taken.getsockname()[1]
        return port


def answered(port: int) -> list[str]:
    """Models that a server lists, as soon as it listens."""
    deadline = time.monotonic() + WAIT_S
    while True:
        try:
            return [model["id"] for model in httpx.get(f"http://127.0.0.1:{port}/v1/models").json()["data"]]
        except httpx.ConnectError:
            assert time.monotonic() < deadline
            time.sleep(0.01)


def test_a_server_is_put_on_a_model_that_outlives_it(
    tiny: Callable[[], ModelBuilder], engines: ScriptedEngines
) -> None:
    engines.answer = lambda _: ["Hello"]
    port = free_port()

    def visit() -> list[str]:
        try:
            return answered(port)
        finally:
            interrupt_main()

    with model_of(two(tiny), engines) as model, ThreadPoolExecutor() as pool:
        visiting = pool.submit(visit)
        serve(model, port=port)
        assert visiting.result(WAIT_S) == ["a", "b"]
        assert model.send_chat_request("Hi").choices[0].message.content == "Hello"
        with socket.create_server(("127.0.0.1", 0)) as taken, pytest.raises(PortUnavailable):
            serve(model, port=taken.getsockname()[1])


async def test_a_server_on_an_async_model_ends_with_its_task_and_closes_what_it_stored(
    tiny: Callable[[], ModelBuilder], engines: ScriptedEngines, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path))
    port = free_port()
    async with asyncio.timeout(WAIT_S), await async_model_of(two(tiny), engines) as model:
        serving = asyncio.create_task(serve_async(model, port=port))
        assert await asyncio.to_thread(answered, port) == ["a", "b"]
        async with httpx.AsyncClient() as client:
            made = await client.post(f"http://127.0.0.1:{port}/v1/conversations", json={})
        assert made.status_code == 200, made.text
        closed: list[RecordTable] = []
        close = RecordTable.close
        monkeypatch.setattr(RecordTable, "close", lambda table: (closed.append(table), close(table)))
        serving.cancel()
        with pytest.raises(asyncio.CancelledError):
            await serving
        assert len(closed) == 1
        assert (tmp_path / "modelyard" / "responses" / f"127.0.0.1_{port}.sqlite").exists()
        with pytest.raises(httpx.ConnectError):
            await asyncio.to_thread(httpx.get, f"http://127.0.0.1:{port}/v1/models")
