"""What the yard records of requests and models: the way of each request, and what was in memory when."""

from __future__ import annotations

import time

from modelyard.errors import ModelLoadFailed
from modelyard.yard.residency.state import LoadState
from modelyard.yard.stats.request_log import MAX_ENDED, MAX_STEPS, LoggedRequest
from modelyard.yard.stats.request_phases import Step
from support.controller_stage import Stage, soon, turn, unload
from support.scripted_engines import CONTEXT_BYTES, MODEL_BYTES


def logged(stage: Stage) -> list[LoggedRequest]:
    return list(stage.controller.recorder.requests)


def history(stage: Stage) -> list[tuple[str, LoadState, str]]:
    intervals = stage.controller.recorder.history.intervals(time.monotonic(), 60.0)
    return [(each.model, each.load_state, each.cause) for each in intervals]


async def test_a_request_waits_loads_decodes_and_is_done(stage_of):
    stage = stage_of(loads=False)
    _, generation = stage.submit()
    engine = await stage.engine()
    (request,) = logged(stage)
    assert (request.state, request.model, request.kind) == ("loading", "a", "text")
    engine.load()
    await soon(generation.accepted())
    engine.say("Hello", " world")
    await soon(generation.until(lambda: generation.generated == 2))
    assert (request.state, request.tokens.answer) == ("decode", 2)
    engine.finish()
    await soon(generation.text())
    assert (request.state, request.finish_reason, request.tokens.answer) == ("done", "stop", 2)
    assert request.phases[0].text
    # A request that is over keeps nothing of its answer.
    assert request._result is None


async def test_a_request_whose_model_cannot_be_loaded_has_failed_with_the_reason(stage_of):
    stage = stage_of(loads=False)
    _, generation = stage.submit()
    (await stage.engine()).fail_load("bad magic")
    await soon(generation.until(lambda: generation.is_over))
    (request,) = logged(stage)
    assert request.state == "failed"
    assert isinstance(request.error, ModelLoadFailed)
    assert history(stage)[-1] == ("a", LoadState.FAILED, "failed")


async def test_a_request_whose_reader_leaves_is_cancelled(stage_of):
    stage = stage_of(loads=False)
    number, _ = stage.submit()
    await stage.engine()
    stage.controller.abandon(number)
    assert [each.state for each in logged(stage)] == ["cancelled"]


async def test_who_waits_for_memory_is_told_who_has_it(stage_of):
    stage = stage_of(budget=MODEL_BYTES + CONTEXT_BYTES)
    _, first = await stage.running("a")
    stage.submit("b")
    await turn()
    request = logged(stage)[0]
    assert (request.model, request.state) == ("b", "waiting")
    assert request.phases[-1].text.startswith("The model waits for memory: it needs 1 MB")
    assert request.phases[-1].models == ("a",)
    (await stage.engine()).finish()
    await soon(first.text())
    await soon(stage.engine("b"))
    assert ("a", LoadState.UNLOADED, "room") in history(stage)
    reasons = {each.reason for each in stage.controller.recorder.history.intervals(time.monotonic(), 60.0)}
    assert "to make room for b" in reasons


async def test_the_history_has_the_memory_of_each_state_and_why_it_began(stage_of):
    stage = stage_of()
    _, generation = await stage.running()
    (await stage.engine()).finish()
    await soon(generation.text())
    await soon(unload(stage.controller, "a"))
    assert history(stage) == [
        ("a", LoadState.SIZING, "asked"),
        ("a", LoadState.LOADING, "asked"),
        ("a", LoadState.LOADED, "loaded"),
        ("a", LoadState.FREEING, "asked"),
        ("a", LoadState.UNLOADED, "asked"),
    ]
    intervals = stage.controller.recorder.history.intervals(time.monotonic(), 60.0)
    assert [sum(each.bytes.values()) for each in intervals] == [0, *[MODEL_BYTES + CONTEXT_BYTES] * 3, 0]
    assert [each.ended for each in intervals[:-1]] == [each.began for each in intervals[1:]]


async def test_of_many_requests_the_last_are_kept_and_of_a_long_way_its_ends(stage_of):
    stage = stage_of(max_requests=MAX_ENDED + 10)
    log = stage.controller.recorder.requests
    numbers = [stage.submit()[0] for _ in range(MAX_ENDED + 2)]
    for at in range(2 * MAX_STEPS):
        log.step(numbers[-1], Step(float(at + 1), text=f"reason {at}"))
    steps = log.running()[-1].steps
    assert (len(steps), steps[-1].text) == (MAX_STEPS, f"reason {2 * MAX_STEPS - 1}")
    for number in numbers:
        stage.controller.abandon(number)
    assert [each.id.rpartition("-")[2] for each in logged(stage)] == [str(number) for number in numbers[:1:-1]]
    assert len(logged(stage)) == MAX_ENDED


async def test_observers_are_told_once_of_many_changes(stage_of):
    stage = stage_of(loads=False)
    log = stage.controller.recorder.requests
    with log.observer() as news:
        for _ in range(5):
            stage.submit()
        assert await soon(anext(news)) == log.revision
        assert news._unread == type(news._unread)()
    assert [each.id for each in log.changed_since(0)] == [each.id for each in log.running()]
    assert log.changed_since(log.revision) == []


async def test_recorded_texts_are_bounded_in_bytes_and_the_oldest_go_first(stage_of, monkeypatch):
    monkeypatch.setattr("modelyard.yard.stats.request_log.MAX_TEXT_BYTES", 500)
    stage = stage_of(answer=lambda _: ["x" * 100])
    stage.controller.recorder.requests.keeps_texts = True
    for _ in range(3):
        _, generation = stage.submit()
        await soon(generation.text())
    texts = [each.transcript and each.transcript.answer for each in logged(stage)]
    assert texts == ["x" * 100, None, None]
