"""An application beside whose configuration requests add models, from a hub on loopback, with scripted engines."""

from __future__ import annotations

import contextlib
import json
from collections.abc import AsyncIterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import httpx
import pytest

from modelyard.api.app import create_app
from modelyard.config import Config, load_config
from modelyard.config.added import AddedModels, added_folder
from modelyard.hub import Hub, Stores
from modelyard.yard.additions import Additions
from modelyard.yard.yard import Yard
from support.gguf_writer import tiny_model, write
from support.hub import LoopbackHub
from support.scripted_engines import ScriptedEngines


@dataclass
class ChangingServer:
    """An application with a configuration beside which models are added."""

    client: httpx.AsyncClient
    transport: httpx.ASGITransport
    additions: Additions
    yard: Yard
    file: Path
    cache: Path
    uploads: Path
    added: AddedModels

    async def lines(self, path: str, body: dict[str, Any]) -> list[dict[str, Any]]:
        """The lines of a streamed answer."""
        response = await self.client.post(path, json=body)
        assert response.status_code == 200, response.text
        return [json.loads(line) for line in response.text.splitlines()]

    def reread(self) -> Config:
        """What the server would serve after a restart."""
        return self.added.served(load_config(self.file))

    @property
    def ids(self) -> list[str]:
        return [model.id for model in self.yard.models()]


@contextlib.asynccontextmanager
async def changing_server(
    folder: Path, hub: LoopbackHub, monkeypatch: pytest.MonkeyPatch
) -> AsyncIterator[ChangingServer]:
    """A server with one model, ``own``, in an empty folder."""
    cache, file = folder / "hub", folder / "models.toml"
    monkeypatch.setattr("huggingface_hub.constants.HF_HUB_CACHE", str(cache))
    monkeypatch.setenv("XDG_CACHE_HOME", str(folder / "cache"))
    monkeypatch.setenv("XDG_DATA_HOME", str(folder / "data"))
    write(folder / "own.gguf", tiny_model())
    file.write_text('[[models]]\nmodel_id = "own.gguf"\n\n[models.sampling]\ntemperature = 0.5\n')
    engines, stores = ScriptedEngines(answer=lambda _: ["Hello"]), Stores(Hub(cache, endpoint=hub.url))
    yard = Yard(load_config(file), engines.make_handle, stores=stores)
    await yard.start()
    added_to = added_folder(file)
    assert added_to is not None
    added = AddedModels(added_to)
    app = create_app(yard, added=added)
    app.state.additions.stores = stores
    transport = httpx.ASGITransport(app)
    try:
        async with httpx.AsyncClient(transport=transport, base_url="http://localhost") as client:
            uploads = folder / "data/modelyard/uploads"
            yield ChangingServer(client, transport, app.state.additions, yard, file, cache, uploads, added)
    finally:
        await yard.close()
        assert engines.end()
