from __future__ import annotations

from collections.abc import AsyncIterator
from pathlib import Path

import pytest

from support.scripted_server import ScriptedServer, scripted_server


@pytest.fixture
async def server(tmp_path: Path) -> AsyncIterator[ScriptedServer]:
    async with scripted_server(tmp_path) as server:
        yield server
