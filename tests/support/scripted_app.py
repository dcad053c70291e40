"""The whole HTTP application on a scripted engine: what a test needs to see a request go in and an answer come out."""

from __future__ import annotations

import contextlib
from collections.abc import AsyncIterator
from pathlib import Path
from typing import Any

import httpx

from modelyard.api.app import create_app
from modelyard.config import validate_config
from modelyard.yard.yard import Yard
from support.gguf_writer import tiny_model, write
from support.scripted_engines import Answer, ScriptedEngines


@contextlib.asynccontextmanager
async def scripted_app(folder: Path, answer: Answer, **server: Any) -> AsyncIterator[httpx.AsyncClient]:
    """A client of the application with one model, ``m``, that answers as ``answer`` says.

    Args:
        folder: an empty folder for the model's file.
        server: keys of ``[server]``.
    """
    write(folder / "m.gguf", tiny_model())
    config = {"server": server, "models": [{"model_id": "m.gguf", "alias": "m"}]}
    engines = ScriptedEngines(answer=answer)
    yard = Yard(validate_config(config, source="test", base=folder), make_engine=engines.make_handle)
    await yard.start()
    try:
        transport = httpx.ASGITransport(create_app(yard))
        async with httpx.AsyncClient(transport=transport, base_url="http://localhost") as client:
            yield client
    finally:
        await yard.close()
        assert engines.end()
