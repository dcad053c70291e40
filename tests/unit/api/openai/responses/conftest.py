from __future__ import annotations

from collections.abc import AsyncIterator
from pathlib import Path

import openai
import pytest

from support.scripted_server import ScriptedServer, scripted_server


@pytest.fixture
async def server(tmp_path: Path) -> AsyncIterator[ScriptedServer]:
    async with scripted_server(tmp_path) as server:
        yield server


@pytest.fixture
def client(server: ScriptedServer) -> openai.AsyncOpenAI:
    return openai.AsyncOpenAI(
        base_url="http://localhost/v1",
        api_key="unused",
        http_client=server.client,
        max_retries=0,
        _strict_response_validation=True,
    )
