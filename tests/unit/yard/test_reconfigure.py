"""From one configuration to the next, with scripted engines behind real files."""

from __future__ import annotations

import asyncio
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from modelyard.config import Config, validate_config
from modelyard.errors import ConfigError
from modelyard.protocol.prompts import Text
from modelyard.protocol.requests import SetAdapters, SetShare
from modelyard.yard import yard as yard_module
from modelyard.yard.requests.requests import Request, WaitOptions
from modelyard.yard.yard import Yard
from support.adapters import adapter_pairs, matrices
from support.gguf_writer import gguf, tiny_model, write
from support.scripted_engines import ScriptedEngines

GIB = 2**30


@pytest.fixture
def engines() -> Iterator[ScriptedEngines]:
    engines = ScriptedEngines(answer=lambda _: ["Hello"])
    yield engines
    assert engines.end()


def config(folder: Path, model: dict[str, Any] | None = None, **memory: Any) -> Config:
    write(folder / "tiny.gguf", tiny_model())
    models = [{"model_id": "./tiny.gguf", "alias": "a", **(model or {})}]
    return validate_config({"models": models, "memory": memory}, source="test", base=folder)


async def test_a_budget_that_is_not_set_stays_what_it_was_at_the_start(
    tmp_path: Path, engines: ScriptedEngines, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(yard_module, "available_bytes", lambda: 5 * GIB)
    yard = Yard(config(tmp_path), engines.make_handle)
    await yard.start()
    assert yard.controller.state.budget_bytes == 4 * GIB
    for memory in ({"kv_keep_bytes": "3GiB"}, {"budget": "2GiB"}, {}):
        done = await yard.reconfigure(config(tmp_path, **memory))
        assert done.diff.memory
        assert yard.controller.state.budget_bytes == (2 if "budget" in memory else 4) * GIB
    await yard.close()


async def test_another_budget_replaces_no_model(tmp_path: Path, engines: ScriptedEngines) -> None:
    yard = Yard(config(tmp_path, budget="2GiB"), engines.make_handle)
    await yard.start()
    done = await yard.reconfigure(config(tmp_path, budget="1GiB"))
    assert (done.diff.memory, done.replaced, done.failed) == (("budget",), {}, {})
    assert yard.controller.state.budget_bytes == GIB
    assert len(engines.of("a")) == 1
    await yard.close()


async def test_another_weight_or_priority_holds_for_the_engine_that_runs_and_for_the_next(
    tmp_path: Path, engines: ScriptedEngines
) -> None:
    yard = Yard(config(tmp_path), engines.make_handle)
    await yard.start()
    done = await yard.reconfigure(config(tmp_path, {"weight": 2.0, "priority": 7}))
    assert (done.diff.retuned, done.replaced) == ({"a": ("priority", "weight")}, {})
    (engine,) = engines.of("a")
    assert await asyncio.to_thread(engine.heard, SetShare)
    assert yard.factory.specs["a"].model.weight == 2.0
    await yard.close()


async def test_a_retuned_model_is_treated_so_by_what_runs_and_by_its_next_load(
    tmp_path: Path, engines: ScriptedEngines
) -> None:
    yard = Yard(config(tmp_path), engines.make_handle)
    await yard.start()
    status = yard.retune("a", priority=7)
    assert (status.is_pinned, status.priority, status.is_retuned) == (False, 7, True)
    # What is not named stays as it is.
    status = yard.retune("a", pinned=True)
    assert (status.is_pinned, status.priority) == (True, 7)
    policy = yard.controller.state.models["a"].policy
    assert (policy.is_pinned, policy.priority) == (True, 7)
    (engine,) = engines.of("a")
    shares = await asyncio.to_thread(engine.heard, SetShare, 2)
    assert [share.priority for share in shares if isinstance(share, SetShare)] == [7, 7]
    await yard.unload("a")
    await yard.reload("a")
    settings = engines.of("a")[-1].settings
    assert settings is not None
    assert settings.priority == 7
    assert yard.model("a").is_pinned
    await yard.close()


async def test_a_reload_treats_models_as_configured_again(tmp_path: Path, engines: ScriptedEngines) -> None:
    yard = Yard(config(tmp_path), engines.make_handle)
    await yard.start()
    yard.retune("a", pinned=True, priority=7)
    previewed = await yard.reconfigure(config(tmp_path), dry_run=True)
    assert previewed.diff.retuned == {"a": ("pinned", "priority")}
    assert yard.model("a").is_retuned
    # Models that are found or added meanwhile change nothing of it.
    await yard.revise(lambda present: present)
    assert yard.model("a").is_retuned
    await yard.reconfigure(config(tmp_path, {"priority": 7}))
    status = yard.model("a")
    assert (status.is_pinned, status.priority, status.is_retuned) == (False, 7, False)
    assert not (await yard.reconfigure(config(tmp_path, {"priority": 7}))).diff.retuned
    await yard.close()


async def test_the_time_that_a_request_asked_for_outlives_another_priority(
    tmp_path: Path, engines: ScriptedEngines
) -> None:
    yard = Yard(config(tmp_path), engines.make_handle)
    await yard.start()
    chat = Request(Text("Hi"), wait_options=WaitOptions(keep_alive_s=90.0))
    async with yard.generate(chat) as generation:
        await generation.text()
    yard.retune("a", priority=7)
    assert yard.model("a").unloads_after_s == 90.0
    await yard.close()


def adapter(folder: Path, name: str, width: int = 32) -> dict[str, Any]:
    tensors = matrices("blk.0.attn_q.weight", (width, 32), 4)
    write(folder / f"{name}.gguf", gguf(adapter_pairs(), tensors))
    return {"name": name, "path": f"{name}.gguf"}


async def test_other_adapters_replace_no_engine(tmp_path: Path, engines: ScriptedEngines) -> None:
    one, two = adapter(tmp_path, "one"), adapter(tmp_path, "two")
    yard = Yard(config(tmp_path, {"adapters": [one]}), engines.make_handle)
    await yard.start()
    before = yard.model("a").predicted_bytes
    assert [each.id for each in yard.model("a").adapters] == ["a::one"]
    done = await yard.reconfigure(config(tmp_path, {"adapters": [one, two]}))
    assert dict(done.diff.retuned) == {"a": ("adapters",)}
    (engine,) = engines.of("a")
    (told,) = await asyncio.to_thread(engine.heard, SetAdapters)
    assert isinstance(told, SetAdapters)
    assert [each.name for each in told.adapters] == ["one", "two"]
    assert before is not None
    assert (yard.model("a").predicted_bytes or 0) - before == sum(each.size_bytes for each in told.adapters[1:])
    await yard.reconfigure(config(tmp_path))
    assert yard.model("a").adapters == ()
    await yard.close()


async def test_an_adapter_of_another_model_changes_nothing(tmp_path: Path, engines: ScriptedEngines) -> None:
    yard = Yard(config(tmp_path), engines.make_handle)
    await yard.start()
    with pytest.raises(ConfigError, match=r"Its adapter 'wide': wide\.gguf: The matrices .* do not fit"):
        await yard.reconfigure(config(tmp_path, {"adapters": [adapter(tmp_path, "wide", width=64)]}))
    assert yard.model("a").adapters == ()
    await yard.close()
