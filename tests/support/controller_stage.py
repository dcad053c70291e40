"""A lifecycle controller on a stage, with scripted engines."""

import asyncio
from types import SimpleNamespace

from modelyard.protocol.prompts import Text
from modelyard.protocol.requests import Stop, Submit
from modelyard.yard.residency.policy import ModelPolicy
from modelyard.yard.residency.state import LoadState, Residency
from modelyard.yard.residency.waiting import UnloadMode
from modelyard.yard.runtime.controller import LifecycleController
from support.scripted_engines import BUDGET, MAX_WAIT_S

# How long a close waits where it is known that an engine hangs.
SHORT_S = 0.05


async def soon(awaitable):
    """Wait for what must happen, but not for ever."""
    async with asyncio.timeout(MAX_WAIT_S):
        return await awaitable


async def turn():
    """Let everything run that can run now."""
    for _ in range(5):
        await asyncio.sleep(0)


def unload(controller, model):
    return controller.unload(model, UnloadMode.DRAIN)


def reload(controller, model):
    return controller.reload(model)


class Stage:
    """A controller, and the engines that it makes; by default for the models a and b."""

    def __init__(
        self,
        engines,
        *,
        make=None,
        size=None,
        models=("a", "b"),
        max_requests=8,
        budget=BUDGET,
        policy=None,
        device_budgets=None,
        refresh_devices=None,
    ):
        self.engines = engines
        policies = {model: ModelPolicy(model, max_requests) for model in models}
        state = Residency.of(policies, budget, policy, device_budgets or {})
        self.factory = SimpleNamespace(
            size=size or engines.size, make=make or engines.make, read_ahead=engines.read_ahead
        )
        self.controller = LifecycleController(state, self.factory, refresh_devices=refresh_devices)

    def submit(self, model="a"):
        return self.controller.submit(model, lambda sequence: Submit(sequence, Text("Once")))

    async def running(self, model="a"):
        """A request that its engine has accepted."""
        request, generation = self.submit(model)
        await soon(generation.accepted())
        return request, generation

    async def engine(self, model="a", number=1):
        return await asyncio.to_thread(self.engines.started, model, number)

    async def heard(self, engine, kind, number=1):
        return await asyncio.to_thread(engine.heard, kind, number)

    def model(self, name="a"):
        return self.controller.state.models[name]

    def assert_nothing_is_left(self):
        controller = self.controller
        assert controller._inflight.open == {}
        assert controller._callers.waiting == {}
        assert controller._engines.is_empty
        assert not controller._events
        for model in controller.state.models.values():
            assert model.queue == ()
            assert not model.leases


async def parked(stage):
    """An engine that was stopped with its weights parked, and what it has kept."""
    await stage.running()
    engine = await stage.engine()
    engine.finish()
    await soon(stage.controller.unload("a", UnloadMode.PARK))
    assert stage.model().load_state is LoadState.PARKED
    assert [stop.park for stop in engine.heard(Stop)] == [True]
    assert engine.parked.releases == 0
    return engine.parked
