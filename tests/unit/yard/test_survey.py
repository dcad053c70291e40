"""Models that are loaded on demand are known from their headers, before anything of them is loaded or downloaded."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from modelyard.config import validate_config
from modelyard.hub import Stores
from modelyard.hub.sources.huggingface import Hub
from modelyard.yard.directory import ModelDirectory
from modelyard.yard.memory.footprint import Choices, Footprint
from modelyard.yard.survey import FileSurvey
from modelyard.yard.yard import Yard
from support.gguf_writer import tiny_model, write
from support.scripted_engines import ScriptedEngines


async def test_a_model_that_is_removed_meanwhile_is_not_looked_into() -> None:
    looked: list[str] = []

    class Factory:
        specs = dict.fromkeys(("a", "b", "c"))

        async def estimate(self, name: str, *, is_offline: bool) -> Choices:
            looked.append(name)
            self.specs.pop("c", None)
            return (Footprint(name, 1, 1),)

    factory: Any = Factory()
    directory = ModelDirectory(validate_config({"models": [{"model_id": "a.gguf"}]}, source="test"))
    assert await FileSurvey(directory, factory).look_into(("a", "b", "c")) == {}
    assert looked == ["a", "b"]


async def test_a_survey_tells_what_is_here_what_is_yet_to_come_and_what_cannot_be_served(tmp_path: Path) -> None:
    write(tmp_path / "here.gguf", tiny_model())
    (tmp_path / "broken.gguf").write_bytes(b"GGUF")
    names = ("here.gguf", "broken.gguf", "missing.gguf", "org/remote-7B")
    models = [{"model_id": name, "load": "on-demand"} for name in names]
    config = validate_config({"models": models}, source="test", base=tmp_path)
    engines = ScriptedEngines()
    # An endpoint that does not answer: nothing may be asked of it.
    hub = Hub(cache=tmp_path / "cache", endpoint="http://127.0.0.1:9")
    yard = Yard(config, engines.make_handle, stores=Stores(hub=hub))
    await yard.start()
    problems = await yard.survey()
    here, broken, missing, remote = yard.models()
    assert [model.files for model in (here, broken, missing, remote)] == ["here", "unusable", "unusable", "remote"]
    assert (here.status, here.resident_bytes) == ("unloaded", 0)
    assert here.quantization
    assert here.context_length
    assert here.size_bytes == (tmp_path / "here.gguf").stat().st_size
    assert here.predicted_bytes
    assert problems.keys() == {broken.id, missing.id}
    assert str(tmp_path / "missing.gguf") in problems[missing.id]
    assert (remote.size_bytes, remote.predicted_bytes) == (None, None)
    await yard.close()
    assert engines.end()
