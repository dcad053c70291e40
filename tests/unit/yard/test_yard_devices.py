"""Budgets of devices in a yard: at the start, in a new configuration, and in the end."""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

from modelyard.config import Config, validate_config
from modelyard.engine.placing import LlamaDevice
from modelyard.errors import ConfigError
from modelyard.protocol.placement import ON_HOST
from modelyard.yard.memory.device_budgets import reserve_bytes
from modelyard.yard.runtime.device_watch import DeviceWatch
from modelyard.yard.yard import Yard
from support.gguf_writer import U32, tiny_model, write
from support.scripted_devices import CPU, FIRST, GIB, SECOND, WAIT_S, Reading, ScriptedReader
from support.scripted_engines import ScriptedEngines

RESERVE = reserve_bytes(24 * GIB)


@pytest.fixture
def engines() -> Iterator[ScriptedEngines]:
    engines = ScriptedEngines(answer=lambda _: ["Hello"])
    yield engines
    assert engines.end()


def config(folder: Path, device: dict[str, Any] | None = None, **devices: Any) -> Config:
    model = {"model_id": str(write(folder / "tiny.gguf", tiny_model())), "alias": "a", "device": device or {}}
    return validate_config({"memory": {"devices": devices}, "models": [{**model, "load": "on-demand"}]})


def yard_of(config: Config, engines: ScriptedEngines, *readings: Reading) -> tuple[Yard, ScriptedReader]:
    reader = ScriptedReader(*readings)
    return Yard(config, engines.make_handle, devices=DeviceWatch(reader, 1000.0)), reader


async def test_devices_have_budgets_from_the_start_on(tmp_path: Path, engines: ScriptedEngines) -> None:
    yard, reader = yard_of(config(tmp_path, CUDA1="50%"), engines, (CPU, FIRST, SECOND))
    await yard.start()
    assert yard.controller.state.device_budgets == {"CUDA0": 20 * GIB - RESERVE, "CUDA1": 12 * GIB}
    assert yard.factory.memory.devices == (CPU, FIRST, SECOND)
    async with asyncio.timeout(WAIT_S):
        await yard.close()
    assert reader.is_closed


async def test_an_unknown_device_is_refused_at_the_start(tmp_path: Path, engines: ScriptedEngines) -> None:
    yard, reader = yard_of(config(tmp_path, CUDA7=0.5), engines, (CPU, FIRST))
    with pytest.raises(ConfigError, match=r"'CUDA7', which does not exist\. There are: 0 \(CUDA0\)\."):
        await yard.start()
    assert reader.is_closed


async def test_a_changed_budget_is_applied_by_a_new_configuration(tmp_path: Path, engines: ScriptedEngines) -> None:
    yard, _ = yard_of(config(tmp_path), engines, (CPU, FIRST))
    await yard.start()
    await yard.reload("a")
    changed = await yard.reconfigure(config(tmp_path, CUDA0="5GiB"), dry_run=True)
    assert changed.diff.memory == ("devices",)
    assert yard.controller.state.device_budgets == {"CUDA0": 20 * GIB - RESERVE}
    await yard.reconfigure(config(tmp_path, CUDA0="5GiB"))
    assert yard.controller.state.device_budgets == {"CUDA0": 5 * GIB}
    with pytest.raises(ConfigError, match="CUDA7"):
        await yard.reconfigure(config(tmp_path, CUDA7="5GiB"))
    assert yard.controller.state.device_budgets == {"CUDA0": 5 * GIB}
    assert len(engines.of("a")) == 1, "no model is loaded again for it"
    await yard.close()


async def test_contexts_fit_the_budgets_of_the_configuration_that_they_are_chosen_for(
    tmp_path: Path, engines: ScriptedEngines
) -> None:
    path = write(tmp_path / "long.gguf", tiny_model({"llama.context_length": (U32, 131_072)}))

    def given(budget: str) -> Config:
        model = {"model_id": str(path), "alias": "a", "device": {"max_seq_len": "auto"}}
        return validate_config({"memory": {"devices": {"CUDA0": budget}}, "models": [model]})

    yard, _ = yard_of(given("20GiB"), engines, (CPU, FIRST))
    await yard.start()
    assert engines.of("a")[-1].settings.context_length == 131_072
    dry = await yard.reconfigure(given("30MB"), dry_run=True)
    assert dry.diff.changed == {"a": ("memory.devices",)}
    assert yard.factory.memory.device_budgets == {"CUDA0": 20 * GIB}
    await yard.reconfigure(given("30MB"))
    length = engines.of("a")[-1].settings.context_length
    assert length is not None
    assert 4096 <= length < 131_072
    assert yard.factory.memory.device_budgets == {"CUDA0": 30_000_000}
    await yard.close()


async def test_models_of_the_start_use_all_devices_before_their_contexts_are_shortened(
    tmp_path: Path, engines: ScriptedEngines
) -> None:
    models = [
        {
            "model_id": str(write(tmp_path / f"{name}.gguf", tiny_model({"llama.context_length": (U32, 131_072)}))),
            "alias": name,
            "device": {"max_seq_len": "auto"},
        }
        for name in ("a", "b")
    ]
    given = validate_config({"memory": {"devices": {"0": "150MB", "1": "150MB"}}, "models": models})
    yard, _ = yard_of(given, engines, (CPU, FIRST, SECOND))
    await yard.start()
    places = {name: engines.of(name)[-1].settings.placement.devices for name in ("a", "b")}
    assert places == {"a": ("CUDA0",), "b": ("CUDA1",)}
    assert {engines.of(name)[-1].settings.context_length for name in ("a", "b")} == {131_072}
    taken = yard.controller.state.taken({"a", "b"})
    assert taken["CUDA0"] == taken["CUDA1"] > 150_000_000 / 2
    await yard.unload("b")
    await yard.reload("b")
    assert engines.of("b")[-1].settings.placement.devices == ("CUDA1",)
    await yard.close()


def long_model(folder: Path, name: str, **more: Any) -> dict[str, Any]:
    """A model whose context is chosen by what fits."""
    path = write(folder / f"{name}.gguf", tiny_model({"llama.context_length": (U32, 131_072)}))
    return {"model_id": str(path), "alias": name, "device": {"max_seq_len": "auto"}, **more}


async def read_as(watch: DeviceWatch, reader: ScriptedReader, *devices: LlamaDevice) -> None:
    """Have the devices be these from now on."""
    reader.readings.put((CPU, *devices))
    async with asyncio.timeout(WAIT_S):
        await watch.refresh()


def context_of(engines: ScriptedEngines, name: str) -> int:
    length = engines.of(name)[-1].settings.context_length
    assert length is not None
    return length


async def test_the_next_load_has_the_context_that_fits_by_then(tmp_path: Path, engines: ScriptedEngines) -> None:
    watch = DeviceWatch(reader := ScriptedReader((CPU, FIRST)), 1000.0)
    yard = Yard(validate_config({"models": [long_model(tmp_path, "a")]}), engines.make_handle, devices=watch)
    await yard.start()
    assert context_of(engines, "a") == 131_072
    await read_as(watch, reader, replace(FIRST, free_bytes=RESERVE + 60_000_000))
    assert len(engines.of("a")) == 1, "a loaded model stays as it is"
    await yard.unload("a")
    await read_as(watch, reader, replace(FIRST, free_bytes=RESERVE + 60_000_000))
    await yard.reload("a")
    short = context_of(engines, "a")
    assert 4096 <= short < 131_072
    assert engines.of("a")[-1].settings.placement.devices == ("CUDA0",)
    await yard.unload("a")
    await read_as(watch, reader, replace(FIRST, free_bytes=RESERVE + 63_000_000))
    await yard.reload("a")
    assert context_of(engines, "a") == short, "about the same would be chosen, and clients know the length"
    await yard.unload("a")
    await read_as(watch, reader, FIRST)
    await yard.reload("a")
    assert context_of(engines, "a") == 131_072
    assert yard.model("a").context_reason == "all that the model was trained on"
    await yard.close()


async def test_models_of_the_start_share_what_is_left_also_when_they_are_loaded_again(
    tmp_path: Path, engines: ScriptedEngines
) -> None:
    watch = DeviceWatch(reader := ScriptedReader((CPU, FIRST, SECOND)), 1000.0)
    models = [long_model(tmp_path, "a"), long_model(tmp_path, "b")]
    yard = Yard(validate_config({"models": models}), engines.make_handle, devices=watch)
    await yard.start()
    await yard.unload("a")
    await yard.unload("b")
    await read_as(watch, reader, replace(FIRST, free_bytes=RESERVE + 100_000_000))
    await yard.reload("a")
    await yard.reload("b")
    assert context_of(engines, "a") == context_of(engines, "b") < 131_072
    assert [model.status for model in yard.models()] == ["loaded", "loaded"]
    await yard.close()


async def test_a_device_that_comes_back_is_a_choice_again(tmp_path: Path, engines: ScriptedEngines) -> None:
    watch = DeviceWatch(reader := ScriptedReader((CPU, FIRST)), 1000.0)
    yard = Yard(config(tmp_path), engines.make_handle, devices=watch)
    await yard.start()
    await read_as(watch, reader)
    await yard.reload("a")
    assert engines.of("a")[-1].settings.placement == ON_HOST
    await yard.unload("a")
    await read_as(watch, reader, FIRST)
    await yard.reload("a")
    assert engines.of("a")[-1].settings.placement.devices == ("CUDA0",)
    await yard.close()


@pytest.mark.parametrize("device", [{"cpu": True}, {"n_gpu_layers": 0}])
async def test_devices_that_no_model_uses_are_not_asked_for(
    tmp_path: Path, engines: ScriptedEngines, device: dict[str, Any], caplog: pytest.LogCaptureFixture
) -> None:
    yard, reader = yard_of(config(tmp_path, device, CUDA0=0.5), engines, (CPU, FIRST))
    with caplog.at_level(logging.WARNING):
        await yard.start()
    assert reader.count == 0
    assert yard.factory.memory.devices == ()
    assert "[memory.devices] have no effect" in caplog.text
    await yard.reconfigure(config(tmp_path, CUDA0="5GiB"))
    assert yard.controller.state.device_budgets == {"CUDA0": 5 * GIB}
    await yard.close()


async def test_a_device_that_is_lost_is_no_choice_any_more(tmp_path: Path, engines: ScriptedEngines) -> None:
    watch = DeviceWatch(reader := ScriptedReader((CPU, FIRST, SECOND)), 1000.0)
    yard = Yard(config(tmp_path), engines.make_handle, devices=watch)
    await yard.start()
    reader.readings.put(None)
    reader.readings.put((CPU, FIRST))
    async with asyncio.timeout(WAIT_S):
        await watch.refresh()
    assert set(yard.controller.state.device_budgets) == {"CUDA0"}
    assert yard.factory.memory.devices == (CPU, FIRST)
    await yard.close()


async def test_a_model_that_is_sized_after_all_devices_were_lost_is_on_the_host(
    tmp_path: Path, engines: ScriptedEngines
) -> None:
    watch = DeviceWatch(reader := ScriptedReader((CPU, FIRST, SECOND)), 1000.0)
    yard = Yard(config(tmp_path), engines.make_handle, devices=watch)
    await yard.start()
    reader.readings.put((CPU,))
    async with asyncio.timeout(WAIT_S):
        await watch.refresh()
        await yard.reload("a")
    footprint = yard.controller.state.models["a"].footprint
    assert footprint is not None
    assert footprint.placement == ON_HOST
    await yard.close()


async def test_scripted_engines_are_on_no_devices(tmp_path: Path, engines: ScriptedEngines) -> None:
    yard = Yard(config(tmp_path), engines.make_handle)
    await yard.start()
    assert yard.controller.state.device_budgets == {}
    assert yard.factory.memory.devices == ()
    await yard.close()
