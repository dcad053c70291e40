"""What becomes of models on devices that are gone: the residency learns of that before it decides anew."""

import asyncio

import pytest

from modelyard.errors import ModelLoadFailed
from modelyard.protocol.placement import ON_HOST, Placement
from modelyard.yard.memory.footprint import DeviceShare, Footprint
from modelyard.yard.residency.events import DeviceBudgetsChanged, Sized
from modelyard.yard.residency.state import LoadState
from support.controller_stage import soon, turn
from support.scripted_engines import CONTEXT_BYTES, MODEL_BYTES

ON_DEVICE = Placement(devices=("CUDA0",))
FAST = Footprint(
    "a", 0, CONTEXT_BYTES, devices=(DeviceShare("CUDA0", "a", MODEL_BYTES, 0),), placement=ON_DEVICE, token_s=0.001
)
SLOW = Footprint("a", MODEL_BYTES, CONTEXT_BYTES, placement=ON_HOST, token_s=0.1)
BUDGETS = {"CUDA0": 2 * MODEL_BYTES, "CUDA1": 2 * MODEL_BYTES}


class Devices:
    """Devices whose next reading waits for the test, and then has what is left."""

    def __init__(self):
        self.stage = None
        self.left = BUDGETS
        self.looks = 0
        self.may_look = asyncio.Event()

    async def refresh(self):
        self.looks += 1
        await self.may_look.wait()
        self.stage.controller.feed(DeviceBudgetsChanged(self.left))


@pytest.fixture
async def devices():
    return Devices()


@pytest.fixture
async def stage(stage_of, devices):
    devices.stage = stage_of(loads=False, device_budgets=BUDGETS, refresh_devices=devices.refresh)
    devices.stage.controller.feed(Sized("a", FAST, (SLOW,)))
    return devices.stage


async def test_a_model_whose_engine_dies_with_its_device_is_loaded_elsewhere(stage, devices):
    reload = stage.controller.reload("a")
    first = await stage.engine()
    first.load()
    await soon(reload)
    assert stage.model().footprint.placement == ON_DEVICE
    _, generation = stage.submit()
    await soon(generation.accepted())
    first.finish()
    assert await soon(generation.text()) == ""

    devices.left = {"CUDA1": BUDGETS["CUDA1"]}
    first.die("the device is gone")
    assert await asyncio.to_thread(first.join, 20.0)
    await turn()
    _, generation = stage.submit()
    await turn()
    assert devices.looks == 1
    assert len(stage.engines.of("a")) == 1, "where it is loaded is decided after the look"
    devices.may_look.set()
    second = await stage.engine(number=2)
    assert stage.model().footprint.placement == ON_HOST
    second.load()
    await soon(generation.accepted())


async def test_a_load_on_a_device_that_is_gone_goes_on_elsewhere(stage, devices):
    devices.left, _ = {}, devices.may_look.set()
    _, generation = stage.submit()
    (await stage.engine()).fail_load("there is no device 'CUDA0'")
    second = await stage.engine(number=2)
    assert stage.model().footprint.placement == ON_HOST
    second.load()
    await soon(generation.accepted())
    assert devices.looks == 1


async def test_a_load_that_fails_on_a_device_that_is_there_fails(stage, devices):
    devices.may_look.set()
    _, generation = stage.submit()
    (await stage.engine()).fail_load("no tensors")
    with pytest.raises(ModelLoadFailed, match="no tensors"):
        await soon(generation.accepted())
    assert devices.looks == 1


async def test_a_load_that_is_no_longer_wanted_does_not_wait_for_the_look(stage, devices):
    reload = stage.controller.reload("a")
    (await stage.engine()).fail_load("no tensors")
    while not devices.looks:
        await turn()
    assert stage.model().load_state is LoadState.LOADING
    closed = await soon(stage.controller.close(20.0))
    assert closed
    assert reload.done()


async def test_the_host_is_not_looked_at(stage, devices):
    reload = stage.controller.reload("b")
    (await stage.engine("b")).fail_load("no tensors")
    with pytest.raises(ModelLoadFailed, match="no tensors"):
        await soon(reload)
    assert devices.looks == 0
