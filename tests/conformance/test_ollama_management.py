"""Ollama's official client adds models to a server and removes them."""

from __future__ import annotations

from collections.abc import AsyncIterator
from pathlib import Path

import ollama
import pytest

from support.adapters import write_adapter
from support.changing_server import ChangingServer, changing_server
from support.gguf_writer import tiny_model
from support.hub import serving_hub

PULLED = "hf.co/org/tiny-GGUF:Q4_K_M"


@pytest.fixture
async def server(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> AsyncIterator[ChangingServer]:
    with serving_hub() as hub:
        hub.add("org/tiny-GGUF", {"tiny-Q4_K_M.gguf": tiny_model() + bytes(2_000_000)}, bytes_per_s=4_000_000)
        async with changing_server(tmp_path, hub, monkeypatch) as serving:
            yield serving


@pytest.fixture
def client(server: ChangingServer) -> ollama.AsyncClient:
    return ollama.AsyncClient("http://localhost", transport=server.transport)


async def names(client: ollama.AsyncClient) -> list[str | None]:
    return [model.model for model in (await client.list()).models]


async def test_a_model_is_pulled_copied_changed_and_deleted(client: ollama.AsyncClient) -> None:
    steps = [step async for step in await client.pull(PULLED, stream=True)]
    assert steps[-1].status == "success"
    assert any(step.total and step.digest for step in steps)
    assert (await client.pull(PULLED)).status == "success"
    assert (await client.copy(PULLED, "mine")).status == "success"
    created = await client.create("poet", from_="mine", system="Answer in verse.", parameters={"temperature": 1.2})
    assert created.status == "success"
    assert await names(client) == ["own", PULLED, "mine", "poet"]
    assert "temperature" in ((await client.show("poet")).parameters or "")
    for model in (PULLED, "mine", "poet"):
        assert (await client.delete(model)).status == "success"
    assert await names(client) == ["own"]


async def test_a_file_is_sent_and_becomes_a_model(client: ollama.AsyncClient, tmp_path: Path) -> None:
    file = tmp_path / "sent.gguf"
    file.write_bytes(tiny_model())
    digest = await client.create_blob(file)
    assert (await client.create("sent", files={"sent.gguf": digest})).status == "success"
    assert await names(client) == ["own", "sent"]


async def test_an_adapter_is_sent_and_is_part_of_the_created_model(
    client: ollama.AsyncClient, server: ChangingServer, tmp_path: Path
) -> None:
    file = write_adapter(tmp_path / "sea.gguf", tmp_path / "own.gguf")
    digest = await client.create_blob(file)
    assert (await client.create("sailor", from_="own", adapters={"sea.gguf": digest})).status == "success"
    assert await names(client) == ["own", "sailor"]
    (adapter,) = server.yard.model("sailor").adapters
    assert (adapter.scale, adapter.applied_scale) == (1.0, 1.0)
    file.write_bytes(b"GGUF")
    damaged = await client.create_blob(file)
    with pytest.raises(ollama.ResponseError, match="Its adapter 'adapter'"):
        await client.create("other", from_="own", adapters={"sea.gguf": damaged})
    assert (await client.delete("sailor")).status == "success"
    assert await names(client) == ["own"]
    assert list(server.uploads.iterdir()) == []


async def test_errors_are_ollamas(client: ollama.AsyncClient) -> None:
    with pytest.raises(ollama.ResponseError, match="nothing") as missing:
        await client.pull("nothing")
    assert missing.value.status_code == 404
    with pytest.raises(ollama.ResponseError, match="uploads nothing"):
        await client.push("own")
    with pytest.raises(ollama.ResponseError, match="configuration"):
        await client.delete("own")
