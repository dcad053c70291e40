"""A second port, on which nothing but /mcp is served."""

from __future__ import annotations

import asyncio
from pathlib import Path

import httpx
import pytest

import modelyard
from modelyard.config import validate_config
from modelyard.errors import PortUnavailable
from modelyard.inprocess.async_model import AsyncModel
from modelyard.inprocess.listen import listen
from modelyard.yard.yard import Yard
from support.gguf_writer import tiny_model, write
from support.scripted_engines import ScriptedEngines


def free_port() -> int:
    with listen("127.0.0.1", 0) as listener:
        port: int = listener.getsockname()[1]
        return port


@pytest.fixture
async def model(tmp_path: Path) -> AsyncModel:
    write(tmp_path / "m.gguf", tiny_model())
    tables = {"models": [{"model_id": "m.gguf", "alias": "m"}], "server": {"mcp_port": free_port()}}
    engines = ScriptedEngines(answer=lambda _: ["Hello"])
    config = validate_config(tables, source="test", base=tmp_path)
    return AsyncModel(config, lambda config: Yard(config, engines.make_handle))


async def test_the_port_serves_mcp_alone(model: AsyncModel) -> None:
    async with model, httpx.AsyncClient(timeout=20) as client:
        mcp_port, port = model.yard.config.server.mcp_port, free_port()
        serving = asyncio.create_task(modelyard.serve_async(model, port=port))
        own, main = f"http://127.0.0.1:{mcp_port}", f"http://127.0.0.1:{port}"
        async with asyncio.timeout(20):
            while not await answers(client, f"{own}/mcp"):
                assert not serving.done(), serving.exception()
        try:
            for url in (own, main):
                ping = {"jsonrpc": "2.0", "id": 1, "method": "ping"}
                refused = await client.post(f"{url}/mcp", json=ping, headers={"accept": "text/html"})
                assert refused.status_code == 406
            for path in ("/v1/models", "/health", "/", "/mcp/", "/metrics"):
                answer = await client.get(f"{own}{path}")
                assert answer.status_code == 404
                assert "serves /mcp alone" in answer.json()["error"]["message"]
            assert (await client.get(f"{main}/v1/models")).status_code == 200
            foreign = await client.post(f"{own}/mcp", json={}, headers={"origin": "https://evil.example"})
            assert foreign.status_code == 403
            assert (await client.post(f"{own}/mcp", json={}, headers={"host": "evil.example"})).status_code == 403
        finally:
            serving.cancel()
            await asyncio.gather(serving, return_exceptions=True)
        assert not await answers(client, f"{own}/mcp")


async def answers(client: httpx.AsyncClient, url: str) -> bool:
    try:
        await client.get(url)
    except httpx.ConnectError:
        await asyncio.sleep(0.02)
        return False
    return True


async def test_a_port_that_is_taken_is_told(model: AsyncModel) -> None:
    with listen("127.0.0.1", 0) as taken:
        taken.listen()
        busy = taken.getsockname()[1]
        async with model:
            server = model.yard.config.server.model_copy(update={"mcp_port": busy})
            model.yard.directory.replace_config(model.yard.config.model_copy(update={"server": server}))
            with pytest.raises(PortUnavailable) as refused:
                await modelyard.serve_async(model, port=0)
            assert f":{busy}: address already in use. Choose another mcp_port." in str(refused.value)
