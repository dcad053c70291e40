"""The placement of a load goes from the residency to the engine, and what is learnt of it comes back."""

from __future__ import annotations

import asyncio
from typing import Any

import pytest

from modelyard.errors import ModelLoadFailed, OutOfDeviceMemory
from modelyard.protocol.placement import ON_HOST, Placement
from modelyard.yard.memory.footprint import Choices, DeviceShare, Footprint
from modelyard.yard.residency.events import DeviceBudgetsChanged
from modelyard.yard.residency.state import LoadState
from modelyard.yard.runtime.interfaces import ModelOutgrown
from support.controller_stage import Stage, soon

FIRST, SECOND = Placement(devices=("CUDA0",)), Placement(devices=("CUDA1",))


def on(device: str, placement: Placement, size: int = 60) -> Footprint:
    shares = (DeviceShare(device, device, size, 20),)
    return Footprint(f"a {device}", 5, 5, devices=shares, placement=placement, token_s=0.001)


CHOICES = (on("CUDA0", FIRST), on("CUDA1", SECOND), Footprint("a", 60, 40, placement=ON_HOST, token_s=0.01))


class Placing:
    """Makes engines for a stage, and notes where. Refusals are raised in turn in place of the first ones."""

    def __init__(self, *refusals: Exception) -> None:
        self.placements: list[Placement] = []
        self.sizes = 0
        self._refusals = list(refusals)
        self.stage: Any = None

    async def size(self, _model: str) -> Choices:
        self.sizes += 1
        return CHOICES

    async def make(self, model: str, publish: Any, placement: Placement, cells: int) -> Any:
        self.placements.append(placement)
        if self._refusals:
            raise self._refusals.pop(0)
        return await self.stage.engines.make(model, publish, placement, cells)

    def on(self, stage_of: Any, **options: Any) -> Stage:
        stage: Stage = stage_of(size=self.size, make=self.make, **options)
        stage.controller.feed(DeviceBudgetsChanged({"CUDA0": 100, "CUDA1": 100}))
        self.stage = stage
        return stage


async def test_an_engine_is_made_where_the_residency_puts_its_model(stage_of: Any) -> None:
    placing = Placing()
    stage = placing.on(stage_of)
    await soon(stage.controller.reload("a"))
    assert placing.placements == [FIRST]
    assert stage.model().footprint.placement == FIRST


async def test_where_a_device_lacks_memory_the_next_placement_is_tried(
    stage_of: Any, caplog: pytest.LogCaptureFixture
) -> None:
    placing = Placing()
    stage = placing.on(stage_of, loads=False)
    reload = stage.controller.reload("a")
    (await stage.engine()).fail_load("no memory on CUDA0", lacks_device_memory=True)
    (await stage.engine(number=2)).load()
    await soon(reload)
    assert placing.placements == [FIRST, SECOND]
    assert placing.sizes == 1
    assert "a cannot be loaded on CUDA0, and is put elsewhere: no memory on CUDA0" in caplog.text


async def test_a_trial_that_lacks_the_memory_of_a_device_has_the_next_placement_tried(stage_of: Any) -> None:
    placing = Placing(OutOfDeviceMemory("no memory on CUDA0"))
    await soon(placing.on(stage_of).controller.reload("a"))
    assert placing.placements == [FIRST, SECOND]


async def test_a_second_device_without_memory_fails_the_load_with_its_reason(stage_of: Any) -> None:
    placing = Placing(OutOfDeviceMemory("no memory on CUDA0"), OutOfDeviceMemory("no memory on CUDA1"))
    stage = placing.on(stage_of)
    with pytest.raises(ModelLoadFailed) as failed:
        await soon(stage.controller.reload("a"))
    assert failed.value.reason == "no memory on CUDA1"
    assert stage.model().load_state is LoadState.FAILED


async def test_a_model_that_takes_more_than_it_was_sized_with_is_put_where_that_fits(stage_of: Any) -> None:
    placing = Placing(ModelOutgrown(on("CUDA0", FIRST, 90)))
    stage = placing.on(stage_of)
    await soon(stage.controller.reload("a"))
    assert placing.placements == [FIRST, SECOND]
    assert [sum(share.total_bytes for share in each.devices) for each in stage.model().choices] == [110, 80, 0]
    await asyncio.to_thread(stage.engines.started, "a")
