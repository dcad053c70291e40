"""Memory of devices in a running yard: what others take, what a budget bounds, and a device that is lost.

The devices are made of llama.cpp itself: see ``support.rpc_devices``.
"""

from __future__ import annotations

import asyncio
import subprocess
from collections.abc import AsyncIterator, Callable, Iterator
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any

import pytest

from modelyard.config import Config, validate_config
from modelyard.engine.hosts.device_reader import DeviceReader
from modelyard.engine.llama import backends
from modelyard.errors import ConfigError
from modelyard.protocol.prompts import Sampling, Text
from modelyard.yard.requests.requests import Request
from modelyard.yard.residency.state import LoadState, ModelState, Residency
from modelyard.yard.runtime.device_watch import DeviceWatch
from modelyard.yard.yard import Yard
from support.rpc_devices import RpcDevices, rpc_devices

MIB = 1 << 20
SIZES = (700 * MIB, 500 * MIB)
# What loads leave free of devices of this size.
RESERVE = 256 * MIB
WAIT_S = 240.0
TOKENS = 120


@pytest.fixture
def devices(monkeypatch: pytest.MonkeyPatch) -> Iterator[RpcDevices]:
    # Before the variables are set: these tests are not to have the devices, which end processes that ask them later.
    backends()
    with rpc_devices(*SIZES) as running:
        for variable, value in running.environment.items():
            monkeypatch.setenv(variable, value)
        yield running


def config_of(*models: dict[str, Any], **budgets: str | int | float) -> Config:
    return validate_config(
        {
            "models": [{"load": "on-demand", **model} for model in models],
            "runtime": {"max_seqs": 4, "prefix_cache_n": 2},
            "memory": {"devices": budgets},
        }
    )


def model_of(path: Path, alias: str, **device: Any) -> dict[str, Any]:
    return {"model_id": str(path), "alias": alias, "device": {"max_seq_len": 1024, **device}}


class Running:
    """A yard on devices, and the changes of its state."""

    def __init__(self, yard: Yard) -> None:
        self.yard = yard

    @property
    def state(self) -> Residency:
        return self.yard.controller.state

    def model(self, name: str) -> ModelState:
        return self.state.models[name]

    def devices_of(self, name: str) -> tuple[str, ...] | None:
        footprint = self.model(name).footprint
        return None if footprint is None else footprint.placement.devices

    async def until(self, holds: Callable[[], bool]) -> None:
        """Wait until something holds of the state."""
        async with asyncio.timeout(WAIT_S):
            while not holds():  # noqa: ASYNC110 (budgets have no event of their own)
                await asyncio.sleep(0.05)

    async def text(self, model: str, on_token: Callable[[int], None] = lambda _: None) -> str:
        request = Request(Text("Once upon a time"), model, Sampling(temperature=0.0), max_tokens=TOKENS)
        parts: list[str] = []
        async with asyncio.timeout(WAIT_S), self.yard.generate(request) as generation:
            async for part in generation:
                parts.append(part)
                on_token(len(parts))
        return "".join(parts)


@asynccontextmanager
async def running(config: Config) -> AsyncIterator[Running]:
    yard = Yard(config, devices=DeviceWatch(DeviceReader(first_s=WAIT_S, next_s=WAIT_S), interval_s=0.1))
    try:
        async with asyncio.timeout(WAIT_S):
            await yard.start()
        yield Running(yard)
    finally:
        async with asyncio.timeout(WAIT_S):
            await yard.close(60.0)


async def test_budgets_are_what_is_free_or_what_is_configured(
    devices: RpcDevices, drawn_weights: dict[str, Path]
) -> None:
    config = config_of(model_of(drawn_weights["smollm2"], "m"), rpc1="80%")
    async with running(config) as stage:
        whole = {"RPC0": SIZES[0] - RESERVE, "RPC1": int(0.8 * SIZES[1])}
        assert stage.state.device_budgets == whole
        with devices.taken(0, 300 * MIB):
            await stage.until(lambda: stage.state.device_budgets["RPC0"] == whole["RPC0"] - 300 * MIB)
            assert stage.state.device_budgets["RPC1"] == whole["RPC1"], "others take nothing of what is bounded there"
        await stage.until(lambda: stage.state.device_budgets == whole)
        await stage.yard.reload("m")
        assert stage.devices_of("m") == ("RPC0",)
        await stage.yard.reconfigure(config_of(model_of(drawn_weights["smollm2"], "m"), RPC0="1MiB"))
        assert stage.state.device_budgets == {"RPC0": 1 * MIB, "RPC1": SIZES[1] - RESERVE}
        await stage.until(lambda: stage.model("m").load_state is not LoadState.LOADED)
        await stage.text("m")
        assert stage.devices_of("m") == ("RPC1",), "an idle model has given its memory back, and is put elsewhere"


async def test_a_budget_of_an_unknown_device_is_refused(devices: RpcDevices, drawn_weights: dict[str, Path]) -> None:
    with pytest.raises(ConfigError, match=r"'CUDA0', which does not exist\. There are: 0 \(RPC0\), 1 \(RPC1\)\."):
        async with running(config_of(model_of(drawn_weights["smollm2"], "m"), CUDA0=0.5)):
            pass


async def test_a_model_gives_its_device_to_another_program(devices: RpcDevices, drawn_weights: dict[str, Path]) -> None:
    async with running(config_of(model_of(drawn_weights["smollm2"], "m"))) as stage:
        text = await stage.text("m")
        assert stage.devices_of("m") == ("RPC0",)
        used = devices.used_bytes()["RPC0"]
        assert used
        with devices.taken(0, SIZES[0] - used - 10 * MIB):
            await stage.until(lambda: stage.model("m").load_state is not LoadState.LOADED)
            assert await stage.text("m") == text
            assert stage.devices_of("m") == ("RPC1",)


@pytest.mark.parametrize("name", ["devices", "host"])
async def test_a_stream_goes_on_elsewhere_when_its_device_is_lost_and_others_do_not_notice(
    name: str, devices: RpcDevices, drawn_weights: dict[str, Path]
) -> None:
    where = {} if name == "devices" else {"devices": ["RPC1"]}
    lost = 0 if name == "devices" else 1
    models = [
        model_of(drawn_weights["smollm2"], "m", **where),
        model_of(drawn_weights["gemma3"], "other", n_gpu_layers=0),
    ]
    async with running(config_of(*models)) as stage:
        undisturbed = await stage.text("m")
        other = await stage.text("other")
        assert stage.devices_of("m") == (devices.names[lost],)

        def kill_soon(count: int) -> None:
            if count == 10:
                devices.kill(lost)

        found = await asyncio.gather(stage.text("m", kill_soon), stage.text("other"))
        assert devices.processes[lost].poll() is not None
        assert found == [undisturbed, other]
        assert len(stage.state.device_budgets) == 1
        # The device that is left is the first one in processes that are started from now on.
        assert stage.devices_of("m") == (("RPC0",) if name == "devices" else ())
        assert bool(devices_used(devices, 1 - lost)) is (name == "devices")
        # The server goes on with what is left.
        assert await stage.text("m") == undisturbed
        assert stage.model("m").restarts == 1


def devices_used(devices: RpcDevices, number: int) -> int:
    return devices.used_bytes()[devices.names[number]]


async def test_no_process_asks_devices_once_a_yard_is_closed(
    devices: RpcDevices, drawn_weights: dict[str, Path], monkeypatch: pytest.MonkeyPatch
) -> None:
    started: list[subprocess.Popen[bytes]] = []
    popen = subprocess.Popen

    def start(*arguments: Any, **options: Any) -> Any:
        process = popen(*arguments, **options)
        started.append(process)
        return process

    monkeypatch.setattr("modelyard.engine.hosts.device_reader.subprocess.Popen", start)
    async with running(config_of(model_of(drawn_weights["smollm2"], "m"))):
        (asking,) = (each for each in started if any("device_report_program" in str(word) for word in each.args))
        assert asking.poll() is None
    assert asking.poll() is not None
