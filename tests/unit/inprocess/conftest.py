"""Models in process, with scripted engines behind real files."""

from __future__ import annotations

import threading
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from modelyard import ModelBuilder
from support.gguf_writer import tiny_model, write
from support.scripted_engines import ScriptedEngines


@pytest.fixture
def engines() -> Iterator[ScriptedEngines]:
    engines = ScriptedEngines()
    yield engines
    assert engines.end()


@pytest.fixture
def tiny(tmp_path: Path) -> Callable[[], ModelBuilder]:
    path = write(tmp_path / "tiny.gguf", tiny_model())
    return lambda: ModelBuilder(path)


@pytest.fixture(autouse=True)
def no_thread_is_left() -> Iterator[None]:
    yield
    assert not [thread for thread in threading.enumerate() if thread.name == "modelyard"]
