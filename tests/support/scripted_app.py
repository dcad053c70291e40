"""The whole HTTP application on a scripted engine: what a test needs to see a request go in and an answer come out."""

from __future__ import annotations

import contextlib
from collections.abc import AsyncIterator, Sequence
from pathlib import Path
from typing import Any

import httpx

from modelyard.api.app import create_app
from modelyard.api.ui.files import UI_FOLDER
from modelyard.config import AccessKey, validate_config
from modelyard.yard.yard import Yard
from support.gguf_writer import tiny_model, write
from support.scripted_engines import Answer, ScriptedEngines


@contextlib.asynccontextmanager
async def scripted_app(
    folder: Path, answer: Answer, *, keys: Sequence[AccessKey] = (), ui_folder: Path = UI_FOLDER, **server: Any
) -> AsyncIterator[httpx.AsyncClient]:
    """A client of the application with one model, ``m``, that answers as ``answer`` says.

    Args:
        folder: an empty folder for the model's file.
        answer: of the model.
        keys: the accepted API keys.
        ui_folder: has the files of the page.
        server: keys of ``[server]``.
    """
    write(folder / "m.gguf", tiny_model())
    config = {"server": server, "models": [{"model_id": "m.gguf", "alias": "m"}]}
    engines = ScriptedEngines(answer=answer)
    yard = Yard(validate_config(config, source="test", base=folder), make_engine=engines.make_handle)
    await yard.start()
    try:
        transport = httpx.ASGITransport(create_app(yard, keys, ui_folder=ui_folder))
        async with httpx.AsyncClient(transport=transport, base_url="http://localhost") as client:
            yield client
    finally:
        await yard.close()
        assert engines.end()
