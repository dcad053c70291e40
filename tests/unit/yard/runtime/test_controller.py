"""What happens to requests between callers, the residency and the engines' threads."""

import asyncio

import pytest

from modelyard.errors import (
    EngineError,
    InvalidRequest,
    ModelLoadFailed,
    QueueFull,
    UnusableModel,
)
from modelyard.protocol.prompts import Text
from modelyard.protocol.requests import Cancel, Stop, Submit
from modelyard.protocol.values import Usage
from modelyard.yard.residency.failures import FIRST_BACKOFF_S
from modelyard.yard.residency.state import LoadState
from modelyard.yard.residency.waiting import UnloadMode
from support.controller_stage import reload, soon, turn, unload
from support.scripted_engines import MAX_WAIT_S, PROMPT_TOKENS, ScriptedEngine

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

    async def make(model, publish, placement, cells):
        attempts.append(model)
        if len(attempts) > 1:
            return await stage.engines.make(model, publish, placement, cells)
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
    assert stage.model().has_unload_next
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


async def test_the_files_of_a_model_that_waits_for_the_memory_of_another_are_read_ahead(stage_of):
    stage = stage_of(budget=1_500_000)
    request, _ = await stage.running()
    engine = await stage.engine()
    waiting = [stage.submit("b")[1] for _ in range(2)]
    await turn()
    assert stage.engines.read_ahead_of == ["b"]
    engine.finish(to=request)
    for each in waiting:
        await soon(each.accepted())
    assert stage.engines.read_ahead_of == ["b"]


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
    assert stage.controller._callers.waiting == {}
    assert stage.model().has_unload_next
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
