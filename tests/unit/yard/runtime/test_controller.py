"""What happens to requests between callers, the residency and the engines' threads."""

import asyncio
import random
import threading
from dataclasses import replace
from types import SimpleNamespace

import pytest

from modelyard.errors import (
    EngineError,
    HarmfulRequest,
    InvalidRequest,
    ModelBusy,
    ModelFileChanged,
    ModelLoadFailed,
    ModelLoading,
    ModelyardError,
    QueueFull,
    ShuttingDown,
    UnusableModel,
)
from modelyard.protocol.messages import Resume
from modelyard.protocol.prompts import Sampling, Text
from modelyard.protocol.requests import Cancel, Embed, Stop, Submit
from modelyard.protocol.values import Usage
from modelyard.yard.residency.events import Tick
from modelyard.yard.residency.failures import FIRST_BACKOFF_S
from modelyard.yard.residency.state import LoadState, ModelPolicy, Residency, UnloadMode, WaitPolicy
from modelyard.yard.runtime import controller as conductor_module
from modelyard.yard.runtime import inflight as streams_module
from modelyard.yard.runtime.controller import LifecycleController
from modelyard.yard.runtime.interfaces import ModelFilesReplaced
from support.scripted_engines import BUDGET, MAX_WAIT_S, PROMPT_TOKENS, ScriptedEngine, ScriptedEngines

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

    def __init__(self, engines, *, make=None, size=None, models=("a", "b"), max_requests=8, budget=BUDGET, policy=None):
        self.engines = engines
        state = Residency.of({model: ModelPolicy(model, max_requests) for model in models}, budget, policy)
        self.factory = SimpleNamespace(size=size or engines.size, make=make or engines.make)
        self.controller = LifecycleController(state, self.factory)

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
        assert controller._callers == {}
        assert controller._engines.is_empty
        assert not controller._events
        for model in controller.state.models.values():
            assert model.queue == ()
            assert not model.leases


@pytest.fixture
async def stage_of():
    """Builds stages. Each is closed in the end, and must then hold nothing; no callback may have failed."""
    failures, stages = [], []
    asyncio.get_running_loop().set_exception_handler(lambda _, context: failures.append(context))

    def build(*, loads=True, answer=None, **options):
        stage = Stage(ScriptedEngines(loads=loads, answer=answer), **options)
        stages.append(stage)
        return stage

    yield build
    for stage in stages:
        for engine in (engine for name in stage.controller.state.models for engine in stage.engines.of(name)):
            engine.wake()
        assert await soon(stage.controller.close(MAX_WAIT_S))
        await turn()
        stage.assert_nothing_is_left()
        assert await asyncio.to_thread(stage.engines.end)
    await turn()
    assert failures == []


@pytest.fixture
def clock(monkeypatch):
    """The controller's clock: it stands still until the test moves it."""
    clock = SimpleNamespace(now=1000.0)
    for module in (conductor_module, streams_module):
        monkeypatch.setattr(module, "time", SimpleNamespace(monotonic=lambda: clock.now))
    return clock


# Loads


async def test_many_requests_for_an_unloaded_model_cause_one_load_and_reach_the_engine_in_order(stage_of):
    stage = stage_of(loads=False)
    asked = [stage.submit() for _ in range(5)]
    engine = await stage.engine()
    engine.load()
    for _, generation in asked:
        await soon(generation.accepted())
    submits = await stage.heard(engine, Submit, 5)
    assert [submit.sequence for submit in submits] == [request for request, _ in asked]
    assert len(stage.engines.of("a")) == 1
    engine.finish()
    assert [await soon(generation.text()) for _, generation in asked] == [""] * 5


async def test_an_answer_arrives_with_its_models_fingerprint_and_ends_its_lease(stage_of):
    stage = stage_of()
    _, generation = await stage.running()
    engine = await stage.engine()
    engine.say("Hello", " world")
    engine.finish()
    assert await soon(generation.text()) == "Hello world"
    assert generation.fingerprint == "fp_a"
    assert generation.finished.usage.completion_tokens == 2
    assert not stage.model().leases
    assert stage.controller._inflight.open == {}


async def test_load_progress_is_published(stage_of):
    stage = stage_of(loads=False)
    _, generation = stage.submit()
    engine = await stage.engine()
    assert stage.controller.load_progress == {"a": 0.0}
    engine.progress(0.5)
    engine.fail_load("bad magic")
    with pytest.raises(ModelLoadFailed):
        await soon(generation.accepted())
    assert stage.controller.load_progress == {"a": 0.5}


async def test_a_model_that_hangs_while_loading_holds_up_no_other(stage_of):
    stage = stage_of(loads=False)
    _, waiting = stage.submit("a")
    (await stage.engine("a")).hang()
    _, generation = stage.submit("b")
    engine = await stage.engine("b")
    engine.load()
    await soon(generation.accepted())
    engine.finish()
    await soon(generation.text())
    assert not waiting.is_over


async def test_a_failed_load_fails_all_waiters_and_completes_an_unload(stage_of):
    stage = stage_of(loads=False)
    asked = [stage.submit()[1] for _ in range(3)]
    reload = stage.controller.reload("a")
    unload = stage.controller.unload("a", UnloadMode.DRAIN)
    await turn()
    (await stage.engine()).fail_load("bad magic")
    for generation in asked:
        with pytest.raises(ModelLoadFailed, match="bad magic"):
            await soon(generation.accepted())
    with pytest.raises(ModelLoadFailed, match="bad magic"):
        await soon(reload)
    await soon(unload)


class CannotStart(ScriptedEngine):
    def start(self):
        raise RuntimeError("can't start new thread")


@pytest.mark.parametrize(
    ("failure", "reason"),
    [
        (UnusableModel("There is no such folder."), "There is no such folder."),
        (ValueError("a defect"), "an internal error (ValueError); the server's log has the details"),
        (
            ExceptionGroup("several", [OSError()]),
            "an internal error (ExceptionGroup); the server's log has the details",
        ),
        (None, "an internal error (RuntimeError); the server's log has the details"),
    ],
    ids=["refused", "defect", "group", "no-thread"],
)
async def test_whatever_keeps_an_engine_from_being_made_fails_the_load_for_all_who_wait(
    stage_of, clock, failure, reason
):
    all_are_in_line = asyncio.Event()
    attempts = []

    async def make(model, publish):
        attempts.append(model)
        if len(attempts) > 1:
            return await stage.engines.make(model, publish)
        await all_are_in_line.wait()
        if failure is None:
            return CannotStart(model, publish)
        raise failure

    stage = stage_of(make=make)
    asked = [stage.submit()[1] for _ in range(2)]
    reload = stage.controller.reload("a")
    await turn()
    all_are_in_line.set()
    for generation in asked:
        with pytest.raises(ModelLoadFailed) as failed:
            await soon(generation.accepted())
        assert failed.value.reason == reason
    with pytest.raises(ModelLoadFailed):
        await soon(reload)
    assert stage.controller._engines.engines == {}

    await soon(stage.controller.reload("a"))
    assert attempts == ["a", "a"]


async def test_after_a_failed_load_requests_are_refused_until_the_backoff_is_over(stage_of, clock):
    stage = stage_of(loads=False)
    _, first = stage.submit()
    (await stage.engine()).fail_load("bad magic")
    with pytest.raises(ModelLoadFailed):
        await soon(first.accepted())

    with pytest.raises(ModelLoadFailed) as refused:
        await soon(stage.submit()[1].accepted())
    assert refused.value.retry_after_s == 1
    clock.now += FIRST_BACKOFF_S
    _, later = stage.submit()
    (await stage.engine(number=2)).load()
    await soon(later.accepted())


# Weights that stay


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


async def test_files_that_are_replaced_before_their_load_are_sized_again(stage_of):
    stage = stage_of()
    made, sized = stage.factory.make, stage.factory.size
    sizes = []

    async def size(model):
        sizes.append(model)
        return await sized(model)

    async def make_of_other_files(model, publish):
        stage.factory.make = made
        raise ModelFilesReplaced("m.gguf")

    stage.factory.make, stage.factory.size = make_of_other_files, size
    await stage.running()
    assert sizes == ["a", "a"]
    assert stage.controller.counters["a"].loads == {"ok": 1}


async def test_parked_weights_are_held_until_the_next_engine_has_loaded(stage_of):
    stage = stage_of()
    weights = await parked(stage)
    _, generation = stage.submit()
    await soon(generation.accepted())
    assert weights.releases == 1


async def test_parked_weights_are_given_up_when_the_next_load_fails(stage_of):
    stage = stage_of()
    weights = await parked(stage)
    make = stage.engines.make

    async def fail(model, publish):
        raise UnusableModel("gone")

    stage.factory.make = fail
    with pytest.raises(ModelLoadFailed):
        await soon(stage.controller.reload("a"))
    assert weights.releases == 1
    stage.factory.make = make
    await soon(stage.controller.reload("a"))
    assert weights.releases == 1


async def test_an_engine_that_fails_to_wake_leaves_no_weights(stage_of):
    stage = stage_of()
    weights = await parked(stage)
    stage.engines.loads = False
    reload = stage.controller.reload("a")
    (await stage.engine(number=2)).fail_load("no memory")
    with pytest.raises(ModelLoadFailed):
        await soon(reload)
    assert weights.releases == 1


async def test_an_unload_of_a_parked_model_gives_its_weights_up(stage_of):
    stage = stage_of()
    weights = await parked(stage)
    await soon(unload(stage.controller, "a"))
    assert (weights.releases, stage.model().load_state) == (1, LoadState.UNLOADED)


async def test_a_close_gives_parked_weights_up(stage_of):
    stage = stage_of()
    weights = await parked(stage)
    assert await soon(stage.controller.close(MAX_WAIT_S))
    assert weights.releases == 1


async def test_a_close_gives_weights_up_whose_model_was_about_to_wake(stage_of):
    stage = stage_of()
    weights = await parked(stage)

    async def never(model, publish):
        await asyncio.Event().wait()

    stage.factory.make = never
    stage.submit()
    await turn()
    assert await soon(stage.controller.close(MAX_WAIT_S))
    assert weights.releases == 1


# Clients that leave


async def test_a_client_that_leaves_while_it_waits_never_reaches_the_engine(stage_of):
    stage = stage_of(loads=False)
    leaver, _ = stage.submit()
    stayer, generation = stage.submit()
    engine = await stage.engine()
    stage.controller.abandon(leaver)
    engine.load()
    await soon(generation.accepted())
    assert [submit.sequence for submit in await stage.heard(engine, Submit)] == [stayer]


async def test_a_client_that_leaves_while_it_runs_holds_its_lease_until_the_engine_has_cancelled(stage_of):
    stage = stage_of()
    request, _ = await stage.running()
    engine = await stage.engine()
    engine.hang()
    stage.controller.abandon(request)
    stage.controller.abandon(request)
    unload = stage.controller.unload("a", UnloadMode.DRAIN)
    await turn()
    assert stage.model().leases.keys() == {request}
    assert stage.model().is_draining
    engine.wake()
    await soon(unload)
    assert [cancel.sequence for cancel in engine.heard(Cancel)] == [request, request]
    assert not stage.model().leases


async def test_leaving_after_the_end_is_nothing(stage_of):
    stage = stage_of(answer=lambda _: ["yes"])
    request, generation = await stage.running()
    assert await soon(generation.text()) == "yes"
    stage.controller.abandon(request)
    stage.controller.abandon(10_000)
    assert await soon(stage.controller.close(MAX_WAIT_S))
    assert [type(message) for message in (await stage.engine())._heard] == [Submit, Stop]


async def test_a_client_that_leaves_before_reading_a_complete_answer_sends_a_cancel_without_effect(stage_of):
    stage = stage_of()
    request, _ = await stage.running()
    _, other = await stage.running()
    engine = await stage.engine()
    engine.finish(to=request)
    stage.controller.abandon(request)
    await stage.heard(engine, Cancel)
    engine.say("still here")
    assert await soon(anext(other)) == "still here"


async def test_a_request_that_the_engine_refuses_gets_the_reason_and_frees_its_lease(stage_of):
    def refuse(_):
        raise InvalidRequest("too odd", "prompt")

    stage = stage_of(answer=refuse)
    _, generation = stage.submit()
    with pytest.raises(InvalidRequest, match="too odd"):
        await soon(generation.accepted())
    assert not stage.model().leases


# Unload and reload


async def test_an_unload_waits_for_the_stream_and_requests_behind_it_share_one_reload(stage_of):
    stage = stage_of()
    request, running = await stage.running()
    engine = await stage.engine()
    unload = stage.controller.unload("a", UnloadMode.DRAIN)
    await turn()
    behind = [stage.submit()[1] for _ in range(3)]
    engine.say("on and on")
    assert await soon(anext(running)) == "on and on"
    assert [type(message) for message in engine._heard] == [Submit]

    engine.finish(to=request)
    await soon(unload)
    assert engine.join(MAX_WAIT_S)
    for generation in behind:
        await soon(generation.accepted())
    assert len(stage.engines.of("a")) == 2


async def test_an_unload_returns_only_when_the_engine_has_freed_its_memory(stage_of):
    stage = stage_of()
    await soon(stage.controller.reload("a"))
    engine = await stage.engine()
    engine.hang()
    unload = stage.controller.unload("a", UnloadMode.DRAIN)
    await turn()
    assert stage.model().load_state is LoadState.FREEING
    assert not unload.done()
    engine.wake()
    await soon(unload)
    assert stage.model().load_state is LoadState.UNLOADED
    assert stage.controller._engines.engines == {}


async def test_an_unload_during_a_load_serves_those_before_it_and_then_frees(stage_of):
    stage = stage_of(loads=False)
    _, before = stage.submit()
    unload = stage.controller.unload("a", UnloadMode.DRAIN)
    engine = await stage.engine()
    engine.load()
    await soon(before.accepted())
    assert not unload.done()
    engine.finish()
    await soon(unload)
    assert stage.model().load_state is LoadState.UNLOADED


@pytest.mark.parametrize("ask", [unload, reload], ids=["unload", "reload"])
async def test_asking_twice_is_asking_once(stage_of, ask):
    stage = stage_of()
    await soon(stage.controller.reload("a"))
    await soon(asyncio.gather(ask(stage.controller, "a"), ask(stage.controller, "a")))
    await soon(ask(stage.controller, "a"))
    assert len(stage.engines.of("a")) == 1


async def test_an_unload_whose_caller_was_cancelled_still_happens(stage_of):
    stage = stage_of()
    _, running = await stage.running()
    engine = await stage.engine()
    unload = stage.controller.unload("a", UnloadMode.DRAIN)
    await turn()
    unload.cancel()
    await asyncio.gather(unload, return_exceptions=True)
    assert stage.controller._callers == {}
    assert stage.model().is_draining
    engine.finish()
    await soon(running.text())
    _, next_one = stage.submit()
    await soon(next_one.accepted())
    assert await stage.heard(engine, Stop)
    assert len(stage.engines.of("a")) == 2


async def test_a_reload_whose_caller_was_cancelled_fails_without_a_warning(stage_of):
    stage = stage_of(loads=False)
    reload = stage.controller.reload("a")
    engine = await stage.engine()
    reload.cancel()
    await asyncio.gather(reload, return_exceptions=True)
    _, generation = stage.submit()
    engine.fail_load("bad magic")
    with pytest.raises(ModelLoadFailed):
        await soon(generation.accepted())


@pytest.mark.parametrize("ask", [unload, reload], ids=["unload", "reload"])
async def test_a_caller_that_is_cancelled_as_the_outcome_arrives_affects_no_other(stage_of, ask):
    stage = stage_of(loads=False)
    _, generation = stage.submit()
    asking = ask(stage.controller, "a")
    engine = await stage.engine()
    await turn()
    engine.fail_load("bad magic")
    # The event loop does not run here: the outcome is its next callback, followed by the end of the caller's task.
    assert engine.join(MAX_WAIT_S)
    asking.cancel()
    with pytest.raises(asyncio.CancelledError):
        await soon(asking)
    with pytest.raises(ModelLoadFailed):
        await soon(generation.accepted())


# Engines that die


async def test_the_death_of_an_engine_ends_all_its_streams_and_no_others_and_the_next_request_restarts_it(
    stage_of, clock
):
    stage = stage_of()
    doomed = [(await stage.running())[1] for _ in range(3)]
    _, other = await stage.running("b")
    engine = await stage.engine()
    engine.say("half")
    engine.die("segfault")
    for generation in doomed:
        assert await soon(anext(generation)) == "half"
        with pytest.raises(EngineError, match="segfault"):
            await soon(anext(generation))
    assert not stage.model().leases
    survivor = await stage.engine("b")
    survivor.say("alive")
    assert await soon(anext(other)) == "alive"

    clock.now += FIRST_BACKOFF_S
    await stage.running()
    assert len(stage.engines.of("a")) == 2


async def about_to_die(stage):
    """The engine of a, loaded; when it is woken it dies, and receives no message from here on."""
    await soon(stage.controller.reload("a"))
    engine = await stage.engine()
    engine.hang()
    engine.die("segfault")
    return engine


async def test_a_request_that_a_dying_engine_did_not_receive_is_served_by_the_next(stage_of):
    stage = stage_of()
    engine = await about_to_die(stage)
    request, generation = stage.submit()
    assert stage.model().leases.keys() == {request}
    engine.wake()
    await soon(generation.accepted())
    assert engine._heard == []
    assert [submit.alone for submit in (await stage.engine(number=2)).heard(Submit)] == [False]


async def test_a_drain_whose_last_request_was_not_received_serves_it_and_loads_again_for_those_behind(stage_of):
    stage = stage_of()
    engine = await about_to_die(stage)
    _, generation = stage.submit()
    unload = stage.controller.unload("a", UnloadMode.DRAIN)
    await turn()
    _, behind = stage.submit()
    engine.wake()
    await soon(generation.accepted())
    assert not unload.done()
    (await stage.engine(number=2)).finish()
    await soon(unload)
    await soon(behind.accepted())
    assert len(stage.engines.of("a")) == 3


async def test_when_a_death_is_published_the_model_does_not_serve_and_later_requests_go_to_the_next_engine(
    stage_of, clock
):
    stage = stage_of()
    _, doomed = await stage.running()
    engine = await stage.engine()
    used_bytes = stage.controller.state.used_bytes
    engine.die("segfault", frees=False)
    with pytest.raises(EngineError, match="segfault"):
        await soon(anext(doomed))
    assert (stage.model().load_state, stage.model().failure) == (LoadState.FREEING, "segfault")
    assert stage.controller.state.used_bytes == used_bytes

    request, late = stage.submit()
    leaver, _ = stage.submit()
    stage.controller.abandon(leaver)
    await turn()
    assert [waiter.request for waiter in stage.model().queue] == [request]
    assert len(stage.engines.of("a")) == 1
    engine.wake()
    await soon(late.accepted())
    assert [type(message) for message in engine._heard] == [Submit]
    assert len(stage.engines.of("a")) == 2
    assert stage.controller.state.used_bytes == used_bytes


async def test_a_close_waits_until_a_dying_engine_is_dead(stage_of):
    stage = stage_of()
    _, doomed = await stage.running()
    engine = await stage.engine()
    engine.die("segfault", frees=False)
    with pytest.raises(EngineError):
        await soon(anext(doomed))
    assert not await soon(stage.controller.close(SHORT_S))
    engine.wake()
    assert await soon(stage.controller.close(MAX_WAIT_S))


@pytest.mark.parametrize("dies", [ScriptedEngine.die, ScriptedEngine.crash_loading])
async def test_an_engine_that_dies_while_it_loads_is_tried_three_times_and_not_for_ever(stage_of, dies):
    stage = stage_of(loads=False)
    reload = stage.controller.reload("a")
    for number in (1, 2, 3):
        dies(await stage.engine(number=number), "no room for the batch")
    with pytest.raises(ModelLoadFailed, match="no room for the batch"):
        await soon(reload)
    assert len(stage.engines.of("a")) == 3
    assert (stage.model().restarts, stage.controller.counters["a"].deaths) == (3, 3)
    assert stage.controller.counters["a"].loads == {"failed": 3}


async def test_an_engine_that_dies_while_it_is_stopped_is_freed_all_the_same(stage_of):
    stage = stage_of()
    engine = await about_to_die(stage)
    unload = stage.controller.unload("a", UnloadMode.DRAIN)
    await turn()
    assert stage.model().load_state is LoadState.FREEING
    engine.wake()
    await soon(unload)
    assert stage.model().load_state is LoadState.UNLOADED


# Processes that die


async def ended_by(stage, *requests, number=1, active=None):
    """The engine of a crashes while it computes ``requests``; the next one, as soon as it serves."""
    (await stage.engine(number=number)).crash("signal 11", active=requests if active is None else active)
    return await stage.engine(number=number + 1)


async def test_answers_go_on_in_the_next_engine_when_the_process_of_theirs_has_died(stage_of):
    stage = stage_of()
    asked = [(await stage.running()) for _ in range(3)]
    (await stage.engine()).say("half")
    following = await ended_by(stage, asked[0][0])
    resumes = await stage.heard(following, Resume, 3)
    assert [(resume.state.sequence, resume.state.texts, resume.alone) for resume in resumes] == [
        (asked[0][0], 1, True),
        (asked[1][0], 1, False),
        (asked[2][0], 1, False),
    ]
    following.say(" and half")
    following.finish()
    assert [await soon(generation.text()) for _, generation in asked] == ["half and half"] * 3
    assert stage.controller.counters["a"].deaths == 1
    assert stage.controller.counters["a"].retried_alone == 1
    assert stage.controller.counters["a"].unloads == {"died": 1}
    assert stage.controller.counters["a"].requests == {"stop": 3}


async def test_a_request_that_returns_is_sent_again_alone_and_may_be_accepted_twice(stage_of):
    stage = stage_of()
    request, generation = await stage.running()
    (await stage.engine()).crash("signal 11", active=[request], returns=[request])
    following = await stage.engine(number=2)
    (submit,) = await stage.heard(following, Submit)
    assert (submit.sequence, submit.alone) == (request, True)
    following.say("whole")
    following.finish()
    assert await soon(generation.text()) == "whole"


async def test_a_request_to_embed_is_sent_again_alone(stage_of):
    stage = stage_of()
    request, inquiry = stage.controller.submit_one_shot("a", lambda sequence: Embed(sequence, (Text("Once"),)))
    engine = await stage.engine()
    (embed,) = await stage.heard(engine, Embed)
    engine.crash("signal 11", active=[request], returns=[request])
    assert await stage.heard(await stage.engine(number=2), Embed) == [replace(embed, alone=True)]
    assert await soon(stage.controller.close(MAX_WAIT_S))
    with pytest.raises(ShuttingDown):
        await soon(inquiry.embedded())


async def test_a_state_that_an_engine_died_too_early_to_receive_goes_to_the_next(stage_of):
    stage = stage_of(loads=False)
    _, generation = stage.submit()
    engine = await stage.engine()
    engine.load()
    await soon(generation.accepted())
    engine.say("half")
    assert await soon(anext(generation)) == "half"
    unload = stage.controller.unload("a", UnloadMode.SUSPEND)
    await soon(unload)
    reload = stage.controller.reload("a")
    deaf = await stage.engine(number=2)
    deaf.load()
    deaf.crash("signal 11")
    await soon(reload)
    following = await stage.engine(number=3)
    following.load()
    (resume,) = await stage.heard(following, Resume)
    assert (resume.state.texts, resume.state.size_bytes, deaf._heard) == (1, 0, [])
    following.say(" and half")
    following.finish()
    assert await soon(generation.text()) == " and half"


async def test_nothing_is_granted_to_an_engine_whose_death_is_published_with_its_last_events(stage_of):
    stage = stage_of()
    request, _ = await stage.running()
    engine = await stage.engine()
    with stage.controller.watch.observer() as observer:
        engine.crash("signal 11", active=[request], frees=False)
        change = await soon(anext(aiter(observer)))
    assert (change.load_state, change.reason) == (LoadState.FREEING, "signal 11")
    await turn()
    assert [waiter.request for waiter in stage.model().queue] == [request]
    assert not stage.model().leases
    assert [type(message) for message in engine._heard] == [Submit]
    engine.wake()
    await stage.heard(await stage.engine(number=2), Resume)


async def test_a_request_that_ends_its_engine_twice_is_blamed_and_refused_when_it_comes_again(stage_of):
    stage = stage_of()
    request, generation = await stage.running()
    _, other = stage.controller.submit("a", lambda sequence: Submit(sequence, Text("Twice")))
    await soon(other.accepted())
    following = await ended_by(stage, request)
    await stage.heard(following, Resume, 2)
    last = await ended_by(stage, request, number=2)
    with pytest.raises(HarmfulRequest, match="signal 11"):
        await soon(generation.text())
    with pytest.raises(HarmfulRequest):
        await soon(stage.submit()[1].accepted())
    # With another seed it is the same, for another model it is not.
    seeded = stage.controller.submit("a", lambda sequence: Submit(sequence, Text("Once"), Sampling(seed=1)))[1]
    with pytest.raises(HarmfulRequest):
        await soon(seeded.accepted())
    await stage.running("b")
    (resume,) = await stage.heard(last, Resume)
    assert not resume.alone
    last.finish()
    assert await soon(other.text()) == ""
    assert (stage.controller.counters["a"].blamed, stage.controller.counters["a"].deaths) == (1, 2)


async def test_a_suspect_that_has_a_token_is_not_blamed_for_the_next_death(stage_of):
    stage = stage_of()
    request, generation = await stage.running()
    following = await ended_by(stage, request)
    following.say("alive")
    assert await soon(anext(generation)) == "alive"
    assert stage.model().suspects == frozenset()
    last = await ended_by(stage, request, number=2)
    (resume,) = await stage.heard(last, Resume)
    assert resume.alone
    last.finish()
    assert await soon(generation.text()) == ""


async def test_the_echo_of_a_prompt_clears_no_suspect(stage_of):
    stage = stage_of()
    request, generation = stage.controller.submit("a", lambda sequence: Submit(sequence, Text("Once"), echoes=True))
    await soon(generation.accepted())
    (await stage.engine()).crash("signal 11", active=[request], returns=[request])
    following = await stage.engine(number=2)
    following.say("Once", ids=())
    assert await soon(anext(generation)) == "Once"
    assert stage.model().suspects == {request}
    following.say(" more")
    assert await soon(anext(generation)) == " more"
    assert stage.model().suspects == frozenset()


async def test_a_client_that_left_when_its_engine_died_ends_as_one_that_left(stage_of):
    stage = stage_of()
    request, generation = await stage.running()
    engine = await stage.engine()
    engine.hang()
    engine.crash("signal 11", active=[request])
    # Too late for the engine to receive it.
    stage.controller.abandon(request)
    engine.wake()
    await soon(generation.until(lambda: generation.is_over))
    assert stage.controller.counters["a"].requests == {"cancelled": 1}
    assert len(stage.engines.of("a")) == 1


async def test_a_client_that_left_and_is_blamed_counts_as_one_that_left(stage_of):
    stage = stage_of()
    request, generation = await stage.running()
    following = await ended_by(stage, request)
    await stage.heard(following, Resume)
    following.hang()
    following.crash("signal 11", active=[request])
    stage.controller.abandon(request)
    following.wake()
    await soon(generation.until(lambda: generation.is_over))
    assert stage.controller.counters["a"].requests == {"cancelled": 1}
    with pytest.raises(HarmfulRequest):
        await soon(stage.submit()[1].accepted())


async def test_a_close_during_a_death_ends_what_the_engine_had(stage_of):
    stage = stage_of()
    request, generation = await stage.running()
    engine = await stage.engine()
    engine.hang()
    engine.crash("signal 11", active=[request])
    close = asyncio.create_task(stage.controller.close(MAX_WAIT_S))
    await turn()
    engine.wake()
    assert await soon(close)
    with pytest.raises(ShuttingDown):
        await soon(generation.text())


async def test_a_process_that_dies_when_it_is_to_stop_is_no_error_to_who_unloads(stage_of):
    stage = stage_of()
    await soon(stage.controller.reload("a"))
    engine = await stage.engine()
    engine.hang()
    engine.crash("signal 11")
    unload = stage.controller.unload("a", UnloadMode.DRAIN)
    await turn()
    engine.wake()
    await soon(unload)
    assert (stage.model().load_state, stage.model().failure) == (LoadState.UNLOADED, None)
    assert stage.controller.counters["a"].unloads == {"asked": 1}


async def test_weights_that_are_lost_while_they_are_parked_are_not_held_any_more(stage_of):
    stage = stage_of()
    weights = await parked(stage)
    (await stage.engine()).lose_weights("signal 9")
    await turn()
    assert stage.model().load_state is LoadState.UNLOADED
    await soon(stage.controller.reload("a"))
    assert weights.releases == 0


async def test_weights_that_are_lost_while_their_model_wakes_fail_nothing(stage_of):
    stage = stage_of(loads=False)
    reload = stage.controller.reload("a")
    engine = await stage.engine()
    engine.load()
    await soon(reload)
    await soon(stage.controller.unload("a", UnloadMode.PARK))
    again = stage.controller.reload("a")
    following = await stage.engine(number=2)
    engine.lose_weights("signal 9")
    following.load()
    await soon(again)
    assert stage.model().load_state is LoadState.LOADED


async def test_a_file_that_is_written_over_ends_its_streams_and_no_others_and_nothing_is_kept(stage_of, caplog):
    stage = stage_of()
    _, generation = await stage.running()
    _, other = await stage.running("b")
    engine = await stage.engine()
    engine.say("Hello")
    engine.write_over("m.gguf")
    with pytest.raises(ModelFileChanged, match=r"The file m\.gguf of the model 'a' changed"):
        await soon(generation.text())
    (stop,) = await stage.heard(engine, Stop)
    assert (stop.suspend, stop.keep_bytes, stop.park, stop.discard) == (False, 0, False, True)
    assert "a: the file m.gguf was written over while it was served" in caplog.text
    assert stage.controller.counters["a"].unloads == {"changed": 1}
    (await stage.engine("b")).finish()
    await soon(other.text())
    await stage.running()
    assert len(stage.engines.of("a")) == 2


async def test_parked_weights_whose_file_is_written_over_are_given_up(stage_of):
    stage = stage_of()
    weights = await parked(stage)
    (await stage.engine()).write_over("m.gguf", at_once=True)
    await turn()
    # Done when its memory is free.
    await soon(stage.controller.unload("a", UnloadMode.FORCE))
    assert stage.model().load_state is LoadState.UNLOADED
    assert weights.releases == 1
    assert stage.controller.counters["a"].unloads == {"asked": 1, "changed": 1}


async def test_what_becomes_of_a_death_is_logged(stage_of, caplog):
    stage = stage_of()
    request, _ = await stage.running()
    await stage.running()
    await stage.heard(await ended_by(stage, request), Resume, 2)
    assert "The engine of a died (signal 11): starting it again, 2 requests go on" in caplog.messages


# Close


async def test_closing_what_was_never_used_is_done_at_once(stage_of):
    stage = stage_of()
    assert await soon(stage.controller.close(MAX_WAIT_S))
    with pytest.raises(ShuttingDown):
        await soon(stage.submit()[1].accepted())
    with pytest.raises(ShuttingDown):
        await soon(stage.controller.reload("a"))


async def test_a_close_ends_streams_after_their_text_and_refuses_those_who_wait(stage_of):
    stage = stage_of()
    _, running = await stage.running()
    engine = await stage.engine()
    unload = stage.controller.unload("a", UnloadMode.DRAIN)
    await turn()
    _, waiting = stage.submit()
    engine.say("half")
    assert await soon(stage.controller.close(MAX_WAIT_S))
    assert await soon(anext(running)) == "half"
    for hearing in (anext(running), waiting.accepted(), unload):
        with pytest.raises(ShuttingDown):
            await soon(hearing)
    stage.assert_nothing_is_left()
    assert engine.join(MAX_WAIT_S)


async def test_a_close_during_a_load_gives_it_up(stage_of):
    stage = stage_of(loads=False)
    _, waiting = stage.submit()
    engine = await stage.engine()
    assert await soon(stage.controller.close(MAX_WAIT_S))
    with pytest.raises(ShuttingDown):
        await soon(waiting.accepted())
    assert engine.join(MAX_WAIT_S)


@pytest.mark.parametrize("last_words", [ScriptedEngine.load, lambda engine: engine.fail_load("bad magic")])
async def test_a_load_that_ends_while_it_is_closed_ends_the_close(stage_of, last_words):
    stage = stage_of(loads=False)
    _, waiting = stage.submit()
    engine = await stage.engine()
    last_words(engine)
    assert await soon(stage.controller.close(MAX_WAIT_S))
    with pytest.raises(ShuttingDown):
        await soon(waiting.accepted())
    stage.assert_nothing_is_left()


async def test_a_close_while_the_files_are_still_looked_for_does_not_wait_and_starts_no_engine(stage_of):
    is_looking, found, has_looked = threading.Event(), threading.Event(), threading.Event()
    made = []

    def look():
        is_looking.set()
        found.wait(MAX_WAIT_S)
        has_looked.set()

    async def make(model, publish):
        await asyncio.to_thread(look)
        made.append(model)

    stage = stage_of(make=make)
    _, waiting = stage.submit()
    assert await asyncio.to_thread(is_looking.wait, MAX_WAIT_S)
    assert await soon(stage.controller.close(MAX_WAIT_S))
    with pytest.raises(ShuttingDown):
        await soon(waiting.accepted())
    found.set()
    assert await asyncio.to_thread(has_looked.wait, MAX_WAIT_S)
    await turn()
    assert made == []
    assert stage.model().load_state is LoadState.UNLOADED


async def test_a_close_before_the_load_has_begun_makes_no_engine(stage_of):
    stage = stage_of()
    stage.submit()
    assert await soon(stage.controller.close(MAX_WAIT_S))
    await turn()
    assert stage.engines.of("a") == []


async def test_a_close_overtakes_an_unload_that_is_freeing(stage_of):
    stage = stage_of()
    await soon(stage.controller.reload("a"))
    engine = await stage.engine()
    engine.hang()
    unload = stage.controller.unload("a", UnloadMode.DRAIN)
    await turn()
    close = asyncio.create_task(stage.controller.close(MAX_WAIT_S))
    with pytest.raises(ShuttingDown):
        await soon(unload)
    engine.wake()
    assert await soon(close)
    assert len(await stage.heard(engine, Stop)) == 1


async def test_closing_twice_and_at_once_is_closing_once(stage_of):
    stage = stage_of()
    await stage.running()
    engine = await stage.engine()
    closes = (stage.controller.close(MAX_WAIT_S) for _ in range(2))
    assert await soon(asyncio.gather(*closes)) == [True, True]
    assert await soon(stage.controller.close(MAX_WAIT_S))
    assert len(await stage.heard(engine, Stop)) == 1


async def test_closing_an_engine_that_hangs_returns_false_and_ends_all_requests(stage_of):
    stage = stage_of()
    _, running = await stage.running()
    engine = await stage.engine()
    engine.hang()
    engine.say("too late")
    assert not await soon(stage.controller.close(SHORT_S))
    with pytest.raises(ShuttingDown):
        await soon(anext(running))
    assert not await soon(stage.controller.close(SHORT_S))

    engine.wake()
    assert await soon(stage.controller.close(MAX_WAIT_S))
    stage.assert_nothing_is_left()


async def test_a_close_with_a_model_in_every_state_frees_them_all(stage_of):
    forever = asyncio.Event()
    engines = ScriptedEngines(loads=False)

    async def make(model, publish):
        if model == "resolving":
            await forever.wait()
        if model == "failed":
            raise UnusableModel("no")
        return await engines.make(model, publish)

    stage = stage_of(make=make, models=("unused", "resolving", "loading", "served", "failed"))
    stage.engines = engines
    asked = [stage.submit(model)[1] for model in ("resolving", "loading", "served", "failed")]
    (await stage.engine("served")).load()
    await soon(asked[2].accepted())
    await stage.engine("loading")
    with pytest.raises(ModelLoadFailed):
        await soon(asked[3].accepted())
    assert await soon(stage.controller.close(MAX_WAIT_S))
    for generation in asked[:3]:
        with pytest.raises(ShuttingDown):
            await soon(generation.text())
    stage.assert_nothing_is_left()


# The process


async def test_two_conductors_share_nothing(stage_of):
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


# Owners


async def test_an_owner_leaves_places_to_others_and_has_them_back_when_it_is_done(stage_of):
    stage = stage_of(max_requests=8)

    def submit(owner):
        return stage.controller.submit("a", lambda sequence: Submit(sequence, Text("Once")), owner=owner)

    first = [submit("a") for _ in range(4)]
    await soon(first[-1][1].accepted())
    refused = submit("a")[1]
    with pytest.raises(QueueFull, match="4 requests of this API key for 'a' are running or waiting"):
        await soon(refused.accepted())
    others = [submit("b"), submit("b"), submit("c")]
    for _, generation in others:
        await soon(generation.accepted())
    assert stage.controller._inflight.held_by("a", "b") == (2, 7)
    engine = await stage.engine()
    engine.finish()
    for _, generation in (*first, *others):
        await soon(generation.text())
    assert stage.controller._inflight.held_by("a", "a") == (0, 0)
    await soon(submit("a")[1].accepted())
    engine.finish()


async def test_without_owners_the_first_to_come_may_have_all_places(stage_of):
    stage = stage_of(max_requests=8)
    for _, generation in [stage.submit() for _ in range(8)]:
        await soon(generation.accepted())
    with pytest.raises(QueueFull, match="8 requests for 'a' are running or waiting, which is its limit"):
        await soon(stage.submit()[1].accepted())
    (await stage.engine()).finish()


class Account:
    """What a caller is charged."""

    def __init__(self):
        self.recorded = []

    def record_prompt(self, prompt_tokens):
        self.recorded.append(prompt_tokens)

    def record_usage(self, usage):
        self.recorded.append(usage)


@pytest.mark.parametrize("ends", ["finished", "abandoned", "failed", "refused"])
async def test_every_request_is_settled_once_with_what_it_has_used(stage_of, ends):
    stage, account = stage_of(max_requests=1), Account()
    if ends == "refused":
        await stage.running()
    request, generation = stage.submit()
    generation.attach_account(account)
    engine = await stage.engine()
    if ends != "refused":
        await soon(generation.accepted())
        engine.say("Hello")
        await soon(generation.until(lambda: bool(generation._text)))
    match ends:
        case "finished":
            engine.finish()
        case "abandoned":
            stage.controller.abandon(request)
        case "failed":
            engine.fail(EngineError("a", "why"))
    await soon(generation.until(lambda: generation.is_over))
    used = Usage(PROMPT_TOKENS, 1, 0)
    expected = {"finished": [PROMPT_TOKENS, used], "abandoned": [PROMPT_TOKENS, used], "failed": [PROMPT_TOKENS, None]}
    assert account.recorded == expected.get(ends, [None])
    if ends == "refused":
        engine.finish()
