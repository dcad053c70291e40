"""Models in process, with scripted engines behind real files: what happens when."""

from __future__ import annotations

import asyncio
import gc
import threading
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from typing import Any

import pytest

from modelyard import ChatCompletionMessage, ModelBuilder
from modelyard.errors import Closed, EngineError, InvalidRequest, ModelNotFound
from modelyard.protocol.prompts import Chat
from modelyard.protocol.requests import Cancel, Submit
from support.models_in_process import WAIT_S, async_model_of, model_of, texts, two
from support.scripted_engines import ScriptedEngines


def test_an_answer_arrives_piece_by_piece(tiny: Callable[[], ModelBuilder], engines: ScriptedEngines) -> None:
    with model_of(two(tiny), engines) as model, model.stream_chat_request("Hi") as stream, ThreadPoolExecutor() as pool:
        first = pool.submit(next, stream)
        engine = engines.started("a")
        engine.heard(Submit)
        assert first.result(WAIT_S).choices[0].delta.role == "assistant"
        for said in ("one", "two", "three"):
            engine.say(said)
            # Nothing more is said before this has arrived.
            assert next(stream).choices[0].delta.content == said
        engine.finish()
        last = next(stream)
        assert last.choices[0].finish_reason == "stop"
        assert last.usage is not None
        assert (last.usage.prompt_tokens, last.usage.completion_tokens, last.usage.total_tokens) == (3, 3, 6)
        with pytest.raises(StopIteration):
            next(stream)


def test_a_stream_that_is_closed_early_ends_its_sequence(
    tiny: Callable[[], ModelBuilder], engines: ScriptedEngines
) -> None:
    with model_of(two(tiny), engines) as model:
        stream = model.stream_chat_request_with_model("Hi", "b")
        assert next(stream).model == "b"
        engine = engines.started("b")
        engine.say("one")
        next(stream)
        stream.close()
        assert len(engine.heard(Cancel)) == 1
        assert list(stream) == []
        stream.close()


def test_a_stream_can_be_closed_while_another_thread_reads_it(
    tiny: Callable[[], ModelBuilder], engines: ScriptedEngines
) -> None:
    with model_of(two(tiny), engines) as model, ThreadPoolExecutor() as pool:
        stream = model.stream_chat_request("Hi")
        next(stream)
        reading = pool.submit(texts, stream)
        stream.close()
        assert reading.result(WAIT_S) == []
        engines.started("a").heard(Cancel)


def test_a_stream_that_is_dropped_ends_its_sequence(tiny: Callable[[], ModelBuilder], engines: ScriptedEngines) -> None:
    with model_of(two(tiny), engines) as model:
        stream = model.stream_chat_request("Hi")
        next(stream)
        del stream
        gc.collect()
        engines.started("a").heard(Cancel)


def test_a_stream_that_is_dropped_on_the_thread_of_the_model_ends_its_sequence(
    tiny: Callable[[], ModelBuilder], engines: ScriptedEngines
) -> None:
    with model_of(two(tiny), engines) as model:
        streams = [model.stream_chat_request("Hi")]
        next(streams[0])
        model.thread.call_sync(lambda _: streams.clear())
        engines.started("a").heard(Cancel)


def test_a_finalizer_that_runs_while_work_is_submitted_does_not_wait_for_itself(
    tiny: Callable[[], ModelBuilder], engines: ScriptedEngines, monkeypatch: pytest.MonkeyPatch
) -> None:
    with model_of(two(tiny), engines) as model:
        streams = [model.stream_chat_request("Hi")]
        next(streams[0])
        submit = asyncio.run_coroutine_threadsafe

        def submit_and_collect(*arguments: Any) -> Any:
            streams.clear()
            return submit(*arguments)

        monkeypatch.setattr(asyncio, "run_coroutine_threadsafe", submit_and_collect)
        other = threading.Thread(target=model.list_models, daemon=True)
        other.start()
        other.join(WAIT_S)
        assert not other.is_alive()
        engines.started("a").heard(Cancel)


def test_an_error_inside_a_stream_is_raised_and_ends_it(
    tiny: Callable[[], ModelBuilder], engines: ScriptedEngines
) -> None:
    with model_of(two(tiny), engines) as model:
        stream = model.stream_chat_request("Hi")
        next(stream)
        engine = engines.started("a")
        engine.say("one")
        assert next(stream).choices[0].delta.content == "one"
        engine.fail(EngineError("a", "it broke"))
        with pytest.raises(EngineError, match="it broke"):
            next(stream)
        assert list(stream) == []


def test_choices_arrive_side_by_side(tiny: Callable[[], ModelBuilder], engines: ScriptedEngines) -> None:
    with model_of(two(tiny), engines) as model, model.stream_chat_request("Hi", n=2) as stream:
        assert [next(stream).choices[0].index for _ in range(2)] == [0, 1]
        engine = engines.started("a")
        first, second = (submit.sequence for submit in engine.heard(Submit, 2) if isinstance(submit, Submit))
        engine.say("later", to=second)
        assert (next(stream).choices[0].index, engine.finish(to=second)) == (1, None)
        assert next(stream).usage is None
        engine.say("first", to=first)
        assert next(stream).choices[0].delta.content == "first"
        engine.finish(to=first)
        last = next(stream)
        assert last.choices[0].index == 0
        assert last.usage is not None
        assert last.usage.completion_tokens == 2
        with pytest.raises(StopIteration):
            next(stream)


def test_an_unknown_model_and_an_unknown_field_are_named(
    tiny: Callable[[], ModelBuilder], engines: ScriptedEngines
) -> None:
    with model_of(two(tiny), engines) as model:
        with pytest.raises(ModelNotFound, match="Known: a, b"):
            model.send_chat_request_with_model("Hi", "c")
        with pytest.raises(ModelNotFound, match="Known: a, b"):
            model.stream_chat_request_with_model("Hi", "c")
        with pytest.raises(InvalidRequest, match="Did you mean 'temperature'"):
            model.send_chat_request("Hi", temprature=1)  # type: ignore[call-arg]
        with pytest.raises(InvalidRequest, match=r"'messages\[1\]\.role'"):
            model.send_chat_request([{"role": "user", "content": "Hi"}, {"role": "nobody"}])
        with pytest.raises(InvalidRequest, match="'temperature': Input should be"):
            model.stream_chat_request("Hi", temperature=-1)
        with pytest.raises(InvalidRequest, match="'away' is no mode"):
            model.unload_model("a", "away")  # type: ignore[arg-type]


def test_an_answer_goes_into_the_next_request_as_it_is(
    tiny: Callable[[], ModelBuilder], engines: ScriptedEngines
) -> None:
    engines.answer = lambda _: ["Hello"]
    with model_of(two(tiny), engines) as model:
        said = model.send_chat_request({"messages": "Hi", "model": "b", "max_tokens": 4})
        assert (said.model, said.choices[0].message) == ("b", ChatCompletionMessage(content="Hello"))
        model.send_chat_request(
            [{"role": "user", "content": "Hi"}, said.choices[0].message, {"role": "user", "content": "?"}]
        )
        (submit,) = engines.started("a").heard(Submit)
        assert isinstance(submit, Submit)
        assert isinstance(submit.prompt, Chat)
        assert [message["content"] for message in submit.prompt.messages] == ["Hi", "Hello", "?"]


def test_two_models_in_one_process_know_nothing_of_each_other(
    tiny: Callable[[], ModelBuilder], engines: ScriptedEngines
) -> None:
    engines.answer = lambda _: ["Hello"]
    others = ScriptedEngines(answer=lambda _: ["Other"])
    with model_of(two(tiny), engines) as model:
        with model_of(two(tiny), others) as other:
            other.remove_model("b")
            assert other.send_chat_request("Hi").choices[0].message.content == "Other"
        assert model.list_models() == ["a", "b"]
        assert model.send_chat_request("Hi").choices[0].message.content == "Hello"


async def test_an_async_stream_is_closed_by_leaving_it(
    tiny: Callable[[], ModelBuilder], engines: ScriptedEngines
) -> None:
    async with asyncio.timeout(WAIT_S), await async_model_of(two(tiny), engines) as model:
        async with model.stream_chat_request("Hi") as stream:
            await anext(stream)
            engine = engines.started("a")
            engine.say("one")
            assert (await anext(stream)).choices[0].delta.content == "one"
        await asyncio.to_thread(engine.heard, Cancel)
        with pytest.raises(StopAsyncIteration):
            await anext(stream)


async def test_an_async_model_belongs_to_its_event_loop(
    tiny: Callable[[], ModelBuilder], engines: ScriptedEngines
) -> None:
    async with asyncio.timeout(WAIT_S):
        model = await async_model_of(two(tiny), engines)
        elsewhere = await asyncio.to_thread(lambda: _raised(lambda: asyncio.run(model.send_chat_request("Hi"))))
        assert isinstance(elsewhere, RuntimeError)
        assert "event loop" in str(elsewhere)
        await model.aclose()
        await model.aclose()
        with pytest.raises(Closed):
            model.list_models()


def _raised(work: Callable[[], Any]) -> BaseException | None:
    try:
        work()
    except BaseException as failure:
        return failure
    return None
