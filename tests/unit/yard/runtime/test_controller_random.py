"""Whatever happens in whatever order, every request has one end, and nothing is left."""

import asyncio
import random
import threading

import pytest

from modelyard.errors import (
    ModelBusy,
    ModelLoadFailed,
    ModelLoading,
    ModelyardError,
)
from modelyard.protocol.requests import Stop
from modelyard.yard.residency.events import Tick
from modelyard.yard.residency.failures import FIRST_BACKOFF_S
from modelyard.yard.residency.policy import WaitPolicy
from modelyard.yard.residency.waiting import UnloadMode
from support.controller_stage import Stage, soon
from support.scripted_engines import BUDGET, MAX_WAIT_S, ScriptedEngines


async def test_two_controllers_share_nothing(stage_of):
    one, other = stage_of(), stage_of()
    first, of_one = await one.running()
    second, of_other = await other.running()
    assert first == second
    (await one.engine()).say("one")
    (await other.engine()).say("other")
    assert await soon(anext(of_one)) == "one"
    assert await soon(anext(of_other)) == "other"
    assert await soon(one.controller.close(MAX_WAIT_S))
    (await other.engine()).finish()
    assert await soon(of_other.text()) == ""


def test_events_after_the_event_loop_is_closed_do_not_fail_the_engines_thread(monkeypatch):
    failures = []
    monkeypatch.setattr(threading, "excepthook", failures.append)
    engines = ScriptedEngines()

    async def serve():
        await Stage(engines).running()

    asyncio.run(serve())
    engine = engines.started("a")
    engine.say("Is anybody there?")
    assert engines.end()
    assert failures == []
    assert engine.heard(Stop)


ENDS = {"finished", "left", "engine_error", "model_load_failed", "model_loading", "model_unloaded", "queue_full"}


@pytest.mark.parametrize("seed", range(4))
async def test_whatever_happens_every_request_has_one_end_and_nothing_is_left(stage_of, clock, seed):
    rng = random.Random(seed)
    # Both fit, or one at a time, which then make room for each other again and again.
    budget = rng.choice((BUDGET, 1_500_000))
    stage = stage_of(max_requests=6, budget=budget, policy=WaitPolicy(min_residency_s=1.0, drain_s=0.5))
    reading, asking = [], []

    async def read(model):
        request, generation = stage.submit(model)
        try:
            await generation.text()
        except ModelyardError as error:
            return error.code
        except asyncio.CancelledError:
            return "left"
        finally:
            if not generation.is_over:
                stage.controller.abandon(request)
        return "finished"

    def act(model, deed):
        engines = stage.engines.of(model)
        match deed:
            case "submit":
                reading.append(asyncio.create_task(read(model)))
            case "leave" if reading:
                rng.choice(reading).cancel()
            case "unload":
                asking.append(stage.controller.unload(model, UnloadMode.DRAIN))
            case "suspend":
                asking.append(stage.controller.unload(model, UnloadMode.SUSPEND))
            case "force":
                asking.append(stage.controller.unload(model, UnloadMode.FORCE))
            case "reload":
                asking.append(stage.controller.reload(model))
            case "tick":
                clock.now += FIRST_BACKOFF_S
            case "say" if engines:
                engines[-1].say("more")
            case "finish" if engines:
                engines[-1].finish()
            case "die" if engines:
                engines[-1].die("segfault")
            case "die slowly" if engines:
                engines[-1].die("segfault", frees=False)
            case "crash" if engines:
                active = [request for request in stage.model(model).leases if rng.random() < 0.5]
                engines[-1].crash("signal 11", active=active, frees=rng.random() < 0.5)
            case "lose weights" if engines:
                engines[-1].lose_weights("signal 9")
            case "park":
                asking.append(stage.controller.unload(model, UnloadMode.PARK))
            case "wake" if engines:
                engines[-1].wake()

    actions = {
        "submit": 40,
        "leave": 10,
        "unload": 4,
        "suspend": 4,
        "force": 1,
        "reload": 5,
        "say": 20,
        "finish": 10,
        "die": 2,
        "die slowly": 2,
        "crash": 8,
        "park": 3,
        "lose weights": 3,
        "wake": 6,
        "tick": 6,
    }
    for deed in rng.choices(list(actions), list(actions.values()), k=400):
        act(rng.choice("ab"), deed)
        if rng.random() < 0.5:
            await asyncio.sleep(0)
        assert_sound(stage)

    async def wind_down():
        everything = asyncio.gather(*reading, *asking, return_exceptions=True)
        while not everything.done():
            for engine in stage.controller._engines.engines.values():
                engine.wake()
                engine.finish()
            # Who makes room for another has had a second, so that it gets somewhere.
            clock.now += 0.05
            stage.controller.feed(Tick(clock.now))
            await asyncio.sleep(0)
            assert_sound(stage)
        return await everything

    ends = await soon(wind_down())
    never_begun = [end for end in ends[: len(reading)] if isinstance(end, asyncio.CancelledError)]
    assert set(ends[: len(reading)]) - set(never_begun) <= ENDS
    assert {type(answer) for answer in ends[len(reading) :]} <= {type(None), ModelBusy, ModelLoadFailed, ModelLoading}


def assert_sound(stage):
    """A model has one engine at most; a lease is a stream in an engine, and the other way round."""
    for name, model in stage.controller.state.models.items():
        assert sum(not engine._is_over for engine in stage.engines.of(name)) <= 1
        streams = stage.controller._inflight.open.items()
        assert {r for r, stream in streams if stream.model == name and stream.engine is not None} == model.leases.keys()
