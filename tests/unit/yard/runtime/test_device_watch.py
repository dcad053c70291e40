"""The watch of devices: which readings count, what is lost with a device, and that it ends."""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Mapping
from dataclasses import replace
from typing import Any

import pytest

from modelyard.engine.placing import LlamaDevice
from modelyard.errors import ConfigError
from modelyard.yard.memory.device_budgets import reserve_bytes
from modelyard.yard.memory.footprint import DeviceShare, Footprint
from modelyard.yard.residency.events import DeviceBudgetsChanged
from modelyard.yard.residency.policy import ModelPolicy
from modelyard.yard.residency.state import LoadState, ModelState, Residency
from modelyard.yard.runtime.device_watch import DeviceWatch, at_rest
from support.scripted_devices import CPU, FIRST, GIB, SECOND, WAIT_S, Reading, ScriptedReader, taken_by_others

RESERVE = reserve_bytes(24 * GIB)


class Stage:
    """A watch of scripted devices, and a residency with one model."""

    def __init__(self, *readings: Reading, interval_s: float = 1000.0) -> None:
        self.reader = ScriptedReader(*readings)
        self.watch = DeviceWatch(self.reader, interval_s)
        self.state = Residency.of({"a": ModelPolicy("a", 8)}, GIB)
        self.fed: list[Mapping[str, int]] = []
        self.changes: asyncio.Queue[Mapping[str, int]] = asyncio.Queue()

    async def start(self, *configured: tuple[str, int | float]) -> Mapping[str, int]:
        await self.watch.list()
        self.watch.check(configured)
        budgets = self.watch.configure(configured)
        self.watch.follow(lambda: self.state, self._feed)
        return budgets

    def _feed(self, changed: DeviceBudgetsChanged) -> None:
        self.fed.append(changed.budgets)
        self.changes.put_nowait(changed.budgets)

    async def read(self, *readings: Reading) -> None:
        """Have the watch read once."""
        for reading in readings:
            self.reader.readings.put(reading)
        async with asyncio.timeout(WAIT_S):
            await self.watch.refresh()

    async def begun(self) -> asyncio.Future[None]:
        """Ask for a reading; return once it has begun."""
        reading = asyncio.ensure_future(self.watch.refresh())
        for _ in range(2):
            # The first one was that of the start.
            assert await asyncio.to_thread(self.reader.begun.acquire, timeout=WAIT_S)
        return reading

    def put(self, load_state: LoadState, began: float = 1.0, taken: int = 4 * GIB) -> None:
        """The model is on the first device."""
        footprint = Footprint("w", 0, 0, devices=(DeviceShare("CUDA0", "w", taken, 0),))
        model = ModelState(self.state.models["a"].policy, load_state, footprint, load_began=began)
        self.state = self.state._replace(models={"a": model}, active=frozenset({"a"}))


@pytest.fixture
async def stage() -> Any:
    stage = Stage((CPU, FIRST, SECOND))
    yield stage
    async with asyncio.timeout(WAIT_S):
        await stage.watch.close()
    assert stage.reader.is_closed
    assert not [task for task in asyncio.all_tasks() if task.get_name() == "devices"]


async def test_devices_have_budgets_before_anything_is_loaded(stage: Stage) -> None:
    assert await stage.start(("CUDA1", 0.5)) == {"CUDA0": 20 * GIB - RESERVE, "CUDA1": 12 * GIB}
    assert stage.watch.found == (CPU, FIRST, SECOND)
    assert stage.fed == []


async def test_what_another_program_takes_is_noticed(stage: Stage) -> None:
    await stage.start()
    await stage.read((CPU, taken_by_others(FIRST, 6 * GIB), SECOND))
    assert stage.fed == [{"CUDA0": 14 * GIB - RESERVE, "CUDA1": 20 * GIB - RESERVE}]
    await stage.read((CPU, FIRST, SECOND))
    assert stage.fed[1]["CUDA0"] == 20 * GIB - RESERVE


async def test_small_changes_are_not_told(stage: Stage) -> None:
    await stage.start()
    await stage.read((CPU, taken_by_others(FIRST, 60 << 20), SECOND))
    assert stage.fed == []


async def test_what_the_models_take_is_no_loss(stage: Stage) -> None:
    await stage.start()
    stage.put(LoadState.LOADED)
    await stage.read((CPU, taken_by_others(FIRST, 4 * GIB), SECOND))
    assert stage.fed == []


@pytest.mark.parametrize("load_state", [LoadState.LOADING, LoadState.FREEING])
async def test_a_reading_while_a_model_is_loaded_or_freed_does_not_count(stage: Stage, load_state: LoadState) -> None:
    await stage.start()
    stage.put(load_state)
    await stage.read((CPU, FIRST, SECOND))
    assert stage.fed == []


@pytest.mark.parametrize(
    "load_state", [LoadState.LOADED, LoadState.UNLOADED], ids=["a load that has ended", "a free that has ended"]
)
async def test_a_reading_does_not_count_where_a_model_was_loaded_or_freed_meanwhile(
    stage: Stage, load_state: LoadState
) -> None:
    await stage.start()
    stage.put(LoadState.LOADED, began=1.0)
    reading = await stage.begun()
    stage.put(load_state, began=2.0)
    stage.reader.readings.put((CPU, taken_by_others(FIRST, 8 * GIB), SECOND))
    async with asyncio.timeout(WAIT_S):
        await reading
    assert stage.fed == []


def test_a_residency_is_at_rest_while_nothing_is_loaded_or_freed() -> None:
    stage = Stage()
    assert at_rest(stage.state) == ()
    stage.put(LoadState.LOADED)
    first = at_rest(stage.state)
    stage.put(LoadState.PARKED)
    assert at_rest(stage.state) not in (None, first)
    stage.put(LoadState.LOADING)
    assert at_rest(stage.state) is None


async def test_a_device_that_is_gone_has_no_budget_also_while_models_are_loaded(
    stage: Stage, caplog: pytest.LogCaptureFixture
) -> None:
    await stage.start()
    stage.put(LoadState.LOADING)
    with caplog.at_level(logging.WARNING):
        await stage.read(None, (CPU, FIRST))
    assert stage.fed == [{"CUDA0": 20 * GIB - RESERVE}]
    assert stage.watch.found == (CPU, FIRST)
    assert "Lost CUDA1" in caplog.text


async def test_a_smaller_device_that_has_the_name_of_a_lost_one_has_its_own_budget_at_once(stage: Stage) -> None:
    await stage.start(("CUDA0", 0.5))
    stage.put(LoadState.LOADING)
    smaller = replace(FIRST, total_bytes=8 * GIB, free_bytes=6 * GIB)
    await stage.read(None, (CPU, smaller))
    assert stage.fed == [{"CUDA0": 4 * GIB}], "numbers count anew"


async def test_a_device_that_is_back_has_a_budget_once_the_models_are_at_rest(stage: Stage) -> None:
    await stage.start()
    stage.put(LoadState.LOADING)
    await stage.read((CPU, FIRST))
    await stage.read((CPU, FIRST, SECOND))
    assert set(stage.fed[-1]) == {"CUDA0"}
    stage.put(LoadState.UNLOADED)
    await stage.read((CPU, FIRST, SECOND))
    assert set(stage.fed[-1]) == {"CUDA0", "CUDA1"}


async def test_devices_that_cannot_be_read_by_a_second_child_have_no_budgets(stage: Stage) -> None:
    await stage.start()
    await stage.read(None, None)
    assert stage.fed == [{}]
    await stage.read(None, None)
    assert stage.fed == [{}]
    await stage.read((CPU, FIRST, SECOND))
    assert set(stage.fed[-1]) == {"CUDA0", "CUDA1"}


async def test_a_changed_budget_is_applied_at_once(stage: Stage) -> None:
    await stage.start(("0", 5 * GIB))
    stage.put(LoadState.LOADED)
    await stage.read((CPU, taken_by_others(FIRST, 6 * GIB), SECOND))
    assert stage.fed == []
    stage.watch.configure((("0", 7 * GIB),))
    assert stage.fed[-1]["CUDA0"] == 7 * GIB
    stage.watch.configure((("0", 1.0),))
    assert stage.fed[-1]["CUDA0"] == 18 * GIB, "others have 2 GiB more than at the start"
    stage.watch.configure(())
    assert stage.fed[-1]["CUDA0"] == 18 * GIB - RESERVE


async def test_unknown_devices_are_refused(stage: Stage) -> None:
    with pytest.raises(ConfigError, match=r"'CUDA7', which does not exist\. There are: 0 \(CUDA0\), 1 \(CUDA1\)\."):
        await stage.start(("CUDA7", 0.5))


@pytest.mark.parametrize("readings", [[(CPU,)], [None, None]], ids=["there are none", "they cannot be listed"])
async def test_without_accelerators_nothing_is_watched(readings: list[Reading]) -> None:
    stage = Stage(*readings)
    assert await stage.start() == {}
    assert stage.watch.found == ()
    assert stage.reader.is_closed
    await stage.watch.refresh()
    assert stage.reader.count == len(readings)
    await stage.watch.close()


async def test_a_new_configuration_may_name_a_device_that_is_gone_at_the_moment(stage: Stage) -> None:
    await stage.start()
    await stage.read((CPU, SECOND))
    stage.watch.check((("CUDA0", 0.5), ("1", 0.5)))
    stage.watch.configure((("CUDA0", 0.5), ("1", 0.5)))
    assert stage.fed[-1] == {"CUDA1": 12 * GIB}
    await stage.read((CPU, FIRST, SECOND))
    assert stage.fed[-1] == {"CUDA0": 12 * GIB, "CUDA1": 12 * GIB}


async def test_devices_with_the_machines_memory_are_listed_and_not_watched() -> None:
    metal = LlamaDevice("Metal", "", "gpu", 5 * GIB, 8 * GIB, "Metal")
    stage = Stage((metal, CPU))
    assert await stage.start() == {}
    assert stage.watch.found == (metal, CPU)
    assert stage.reader.is_closed
    await stage.watch.close()


async def test_devices_are_read_every_few_seconds() -> None:
    stage = Stage((CPU, FIRST), interval_s=0.01)
    await stage.start()
    for gone in range(1, 4):
        stage.reader.readings.put((CPU, taken_by_others(FIRST, gone * GIB)))
    async with asyncio.timeout(WAIT_S):
        for gone in range(1, 4):
            assert (await stage.changes.get())["CUDA0"] == (20 - gone) * GIB - RESERVE
    await stage.watch.close()


async def test_a_reading_that_was_asked_for_is_not_waited_for_once_the_watch_closes(stage: Stage) -> None:
    await stage.start()
    reading = await stage.begun()
    await stage.watch.close()
    async with asyncio.timeout(WAIT_S):
        await reading
        await stage.watch.refresh()
    assert stage.fed == []


async def test_a_defect_of_the_watch_is_logged_and_holds_up_nobody(
    stage: Stage, caplog: pytest.LogCaptureFixture
) -> None:
    await stage.start()
    await stage.read(RuntimeError("a defect"))
    await stage.read()
    assert "The memory of devices is not watched any longer" in caplog.text
