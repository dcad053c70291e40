"""Where models are put on a machine with devices, from the header of a file to its engine: see ``support.rpc_devices``.

What a device then has allocated is what was predicted, within 3 %.
"""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Iterator, Mapping
from contextlib import asynccontextmanager
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import pytest

from modelyard.config import validate_config
from modelyard.engine.hosts.device_list import list_devices
from modelyard.protocol.placement import Placement
from modelyard.protocol.prompts import Sampling, Text
from modelyard.protocol.requests import Submit
from modelyard.yard.from_config import model_policy, stores_of
from modelyard.yard.memory.footprint import Footprint
from modelyard.yard.residency.state import Residency
from modelyard.yard.residency.waiting import UnloadMode
from modelyard.yard.runtime.controller import LifecycleController
from modelyard.yard.runtime.engine_factory import EngineFactory
from modelyard.yard.runtime.interfaces import ModelOutgrown
from modelyard.yard.runtime.model_spec import ModelSpec
from support.rpc_devices import RpcDevices, rpc_devices

MIB = 1 << 20
SIZES = (600 * MIB, 300 * MIB)
HOST_BYTES = 8 << 30
WAIT_S = 120.0


@pytest.fixture
def devices(monkeypatch: pytest.MonkeyPatch, request: pytest.FixtureRequest) -> Iterator[RpcDevices]:
    with rpc_devices(*getattr(request, "param", SIZES)) as running:
        for variable, value in running.environment.items():
            monkeypatch.setenv(variable, value)
        yield running


@dataclass(frozen=True)
class Placed:
    """A controller with real engines, in processes of their own, which alone have the devices."""

    controller: LifecycleController
    factory: EngineFactory

    def footprint(self, model: str = "m") -> Footprint:
        footprint = self.controller.state.models[model].footprint
        assert footprint is not None
        return footprint

    async def load(self, model: str = "m") -> Footprint:
        async with asyncio.timeout(WAIT_S):
            await self.controller.reload(model)
        return self.footprint(model)

    async def unload(self, model: str = "m") -> None:
        async with asyncio.timeout(WAIT_S):
            await self.controller.unload(model, UnloadMode.DRAIN)

    async def text(self, model: str = "m") -> str:
        sampling = Sampling(temperature=0.0)
        _, answer = self.controller.submit(
            model, lambda sequence: Submit(sequence, Text("The capital of France is"), sampling, max_tokens=16)
        )
        async with asyncio.timeout(WAIT_S):
            return "".join([text async for text in answer])


@asynccontextmanager
async def placed(
    models: Mapping[str, Mapping[str, Any]], budgets: Mapping[str, int], **more: Any
) -> AsyncIterator[Placed]:
    """Serve ``models``, configured by their names, within budgets by device."""
    entries = [{"alias": name, **fields} for name, fields in models.items()]
    config = validate_config(
        {"models": entries, "runtime": {"isolation": "process", "max_seqs": 4, "prefix_cache_n": 4}, **more}
    )
    factory = EngineFactory(None, stores_of(config))
    factory.specs = {model.id: ModelSpec(config, model) for model in config.models}
    factory.memory.devices = factory.memory.known_devices = await asyncio.to_thread(list_devices)
    factory.memory.budget_bytes = HOST_BYTES
    policies = {model.id: model_policy(config, model) for model in config.models}
    controller = LifecycleController(Residency.of(policies, HOST_BYTES, device_budgets=budgets), factory)
    try:
        yield Placed(controller, factory)
    finally:
        await controller.close(WAIT_S)
        factory.close()


def model(path: Path, length: int = 2048, **device: Any) -> dict[str, Any]:
    return {"model_id": str(path), "device": {"max_seq_len": length, **device}}


def budgets_of(devices: RpcDevices, sizes: tuple[int, ...] = SIZES) -> dict[str, int]:
    return dict(zip(devices.names, sizes, strict=True))


def on_devices(footprint: Footprint) -> dict[str, int]:
    taken: dict[str, int] = {}
    for share in footprint.devices:
        taken[share.pool] = taken.get(share.pool, 0) + share.total_bytes
    return taken


def assert_as_predicted(devices: RpcDevices, predicted: Footprint) -> None:
    used = {name: size for name, size in devices.used_bytes().items() if size}
    assert on_devices(predicted) == pytest.approx(used, rel=0.03)


@pytest.mark.parametrize("devices", [(1200 * MIB, 300 * MIB)], indirect=True)
@pytest.mark.parametrize("name", ["smollm2", "minilm", pytest.param("gemma3", marks=pytest.mark.long)])
async def test_a_small_model_is_put_whole_on_a_device_and_takes_what_was_predicted(
    name: str, devices: RpcDevices, weights: dict[str, Path], minilm: Path
) -> None:
    path = {**weights, "minilm": minilm}[name]
    budgets = budgets_of(devices, (1200 * MIB, 300 * MIB))
    async with placed({"m": model(path, 256 if name == "minilm" else 2048)}, budgets) as yard:
        (choices,) = (await yard.factory.check(["m"])).values()
        assert [each.placement.devices for each in choices[:2]] == [("RPC0",), ("RPC1",)]
        assert choices[-1].placement.devices == ()
        loaded = await yard.load()
        assert loaded.placement == choices[0].placement
        assert_as_predicted(devices, choices[0])
        # Devices report what they have allocated, with the loss of a log that has two decimals.
        assert_as_predicted(devices, loaded)
        await yard.unload()
        assert devices.used_bytes() == {"RPC0": 0, "RPC1": 0}


@pytest.mark.parametrize("devices", [(300 * MIB, 300 * MIB)], indirect=True)
async def test_a_model_larger_than_a_device_is_split_or_goes_partly_to_the_host(
    devices: RpcDevices, weights: dict[str, Path]
) -> None:
    budgets = budgets_of(devices, (300 * MIB, 300 * MIB))
    async with placed({"m": model(weights["smollm2"], 8192)}, budgets) as yard:
        split = await yard.load()
        assert split.placement.devices == ("RPC0", "RPC1")
        assert sum(split.placement.split) == 31
        assert_as_predicted(devices, split)
        text = await yard.text()
    assert devices.used_bytes() == {"RPC0": 0, "RPC1": 0}
    async with placed({"m": model(weights["smollm2"], 8192, devices=["RPC1"])}, budgets) as yard:
        part = await yard.load()
        assert part.placement.devices == ("RPC1",)
        assert part.placement.gpu_layers
        assert_as_predicted(devices, part)
        assert await yard.text() == text
    async with placed({"m": model(weights["smollm2"], 8192)}, {}) as yard:
        host = await yard.load()
        assert not host.placement.uses_devices
        assert devices.used_bytes() == {"RPC0": 0, "RPC1": 0}
        assert await yard.text() == text


@pytest.mark.parametrize("devices", [(150 * MIB, 600 * MIB)], indirect=True)
async def test_where_an_allocation_fails_the_model_is_loaded_in_its_next_placement_and_serves(
    devices: RpcDevices, weights: dict[str, Path]
) -> None:
    async with placed({"m": model(weights["smollm2"])}, budgets_of(devices, (400 * MIB, 400 * MIB))) as yard:
        assert await yard.text()
        assert yard.footprint().placement.devices == ("RPC1",)
        assert devices.used_bytes()["RPC0"] == 0
        assert yard.controller.counters["m"].loads["failed"] == 1
        assert_as_predicted(devices, yard.footprint())
        # What failed counts as larger than the device from now on.
        await yard.unload()
        await yard.load()
        assert yard.footprint().placement.devices == ("RPC1",)
        assert yard.controller.counters["m"].loads["failed"] == 1


async def test_a_draft_model_is_put_on_the_device_of_its_target_and_shares_it(
    devices: RpcDevices, weights: dict[str, Path]
) -> None:
    small = model(weights["smollm2"])
    async with placed({"m": {**small, "draft": "small"}, "small": small}, budgets_of(devices)) as yard:
        loaded = await yard.load()
        assert [share.pool for share in loaded.devices] == ["RPC0", "RPC0"]
        used = devices.used_bytes()
        assert used["RPC1"] == 0
        taken = yard.controller.state.taken(["m"])
        assert taken["RPC0"] == pytest.approx(used["RPC0"], rel=0.03)
        # llama.cpp has planned both contexts. The weights are those of one file, and are on the device once.
        first, draft = (await yard.factory.size("m"))[0].devices
        assert first.total_bytes + draft.context_bytes == pytest.approx(used["RPC0"], rel=0.005)


async def test_what_llama_cpp_plans_corrects_a_prediction_before_the_load_and_once(
    devices: RpcDevices, weights: dict[str, Path]
) -> None:
    async with placed({"m": model(weights["smollm2"])}, budgets_of(devices)) as yard:
        choices = await yard.factory.size("m")
        # As if the header had told less than llama.cpp allocates.
        less = replace(choices[0], devices=tuple(replace(each, context_bytes=0) for each in choices[0].devices))
        yard.factory._choices_of["m"] = (less, *choices[1:])
        with pytest.raises(ModelOutgrown) as outgrown:
            await yard.factory.make("m", lambda _: None, less.placement)
        assert on_devices(outgrown.value.footprint) == pytest.approx(on_devices(choices[0]), rel=0.03)
        await yard.factory.make("m", lambda _: None, less.placement)
        # Known from now on, also where the model is sized again.
        assert (await yard.factory.size("m"))[0].devices == outgrown.value.footprint.devices


async def test_a_fixed_placement_has_no_other(devices: RpcDevices, weights: dict[str, Path]) -> None:
    fixed = model(weights["smollm2"], device_layers=["1:20"])
    async with placed({"m": fixed}, budgets_of(devices)) as yard:
        (choices,) = (await yard.factory.check(["m"])).values()
        assert [each.placement for each in choices] == [
            Placement(devices=("RPC0", "RPC1"), gpu_layers=20, split=(0.0, 20.0))
        ]
        assert_as_predicted(devices, await yard.load())
