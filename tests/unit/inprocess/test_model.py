"""Models in process, with scripted engines behind real files: what happens when."""

from __future__ import annotations

import asyncio
import gc
import signal
import socket
import subprocess
import sys
import threading
import time
import weakref
from collections.abc import Callable, Iterator
from concurrent.futures import Future, ThreadPoolExecutor
from pathlib import Path
from typing import Any

import httpx
import openai
import pytest

from modelyard import (
    AsyncModel,
    ChatCompletionMessage,
    ChatStream,
    Model,
    ModelBuilder,
    MultiModelBuilder,
    serve,
    serve_async,
)
from modelyard.api.openai.responses.records import RecordTable
from modelyard.errors import (
    Closed,
    ConfigError,
    EngineError,
    InvalidRequest,
    ModelLoadFailed,
    ModelNotFound,
    ModelRequired,
    PortUnavailable,
)
from modelyard.protocol.prompts import Chat
from modelyard.protocol.requests import Cancel, Submit
from modelyard.yard.yard import Yard
from support.gguf_writer import tiny_model, write
from support.scripted_engines import ScriptedEngines

WAIT_S = 20.0


@pytest.fixture(autouse=True)
def no_thread_is_left() -> Iterator[None]:
    yield
    assert not [thread for thread in threading.enumerate() if thread.name == "modelyard"]


def two(tiny: Callable[[], ModelBuilder]) -> MultiModelBuilder:
    return MultiModelBuilder().add_model_with_alias("a", tiny()).add_model_with_alias("b", tiny())


def model_of(builder: MultiModelBuilder, engines: ScriptedEngines) -> Model:
    return Model(builder.config(), lambda config: Yard(config, engines.make_handle))


async def async_model_of(builder: MultiModelBuilder, engines: ScriptedEngines) -> AsyncModel:
    model = AsyncModel(builder.config(), lambda config: Yard(config, engines.make_handle))
    await model.start()
    return model


def texts(stream: ChatStream) -> list[str]:
    return [chunk.choices[0].delta.content or "" for chunk in stream]


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


def interrupt_main() -> None:
    """As Ctrl-C does."""
    ident = threading.main_thread().ident
    assert ident is not None
    signal.pthread_kill(ident, signal.SIGINT)


def test_an_interrupt_ends_what_it_interrupts(tiny: Callable[[], ModelBuilder], engines: ScriptedEngines) -> None:
    def interrupt() -> None:
        engines.started("a").heard(Submit)
        interrupt_main()

    with model_of(two(tiny), engines) as model, ThreadPoolExecutor() as pool:
        interrupting = pool.submit(interrupt)
        with pytest.raises(KeyboardInterrupt):
            model.send_chat_request("Hi")
        interrupting.result(WAIT_S)
        engines.started("a").heard(Cancel)
        assert model.list_models() == ["a", "b"]


def test_an_interrupted_build_frees_everything(tiny: Callable[[], ModelBuilder]) -> None:
    engines = ScriptedEngines(loads=False)

    def interrupt() -> None:
        engines.started("a").load()
        engines.started("b")
        interrupt_main()

    with ThreadPoolExecutor() as pool:
        interrupting = pool.submit(interrupt)
        with pytest.raises(KeyboardInterrupt):
            model_of(two(tiny), engines)
        interrupting.result(WAIT_S)
    assert all(engine.join(WAIT_S) for name in ("a", "b") for engine in engines.of(name))


def free_port() -> int:
    with socket.create_server(("127.0.0.1", 0)) as taken:
        port: int = taken.getsockname()[1]
        return port


def answered(port: int) -> list[str]:
    """Models that a server lists, as soon as it listens."""
    deadline = time.monotonic() + WAIT_S
    while True:
        try:
            return [model["id"] for model in httpx.get(f"http://127.0.0.1:{port}/v1/models").json()["data"]]
        except httpx.ConnectError:
            assert time.monotonic() < deadline
            time.sleep(0.01)


def test_a_server_is_put_on_a_model_that_outlives_it(
    tiny: Callable[[], ModelBuilder], engines: ScriptedEngines
) -> None:
    engines.answer = lambda _: ["Hello"]
    port = free_port()

    def visit() -> list[str]:
        try:
            return answered(port)
        finally:
            interrupt_main()

    with model_of(two(tiny), engines) as model, ThreadPoolExecutor() as pool:
        visiting = pool.submit(visit)
        serve(model, port=port)
        assert visiting.result(WAIT_S) == ["a", "b"]
        assert model.send_chat_request("Hi").choices[0].message.content == "Hello"
        with socket.create_server(("127.0.0.1", 0)) as taken, pytest.raises(PortUnavailable):
            serve(model, port=taken.getsockname()[1])


async def test_a_server_on_an_async_model_ends_with_its_task_and_closes_what_it_stored(
    tiny: Callable[[], ModelBuilder], engines: ScriptedEngines, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path))
    port = free_port()
    async with asyncio.timeout(WAIT_S), await async_model_of(two(tiny), engines) as model:
        serving = asyncio.create_task(serve_async(model, port=port))
        assert await asyncio.to_thread(answered, port) == ["a", "b"]
        async with httpx.AsyncClient() as client:
            made = await client.post(f"http://127.0.0.1:{port}/v1/conversations", json={})
        assert made.status_code == 200, made.text
        closed: list[RecordTable] = []
        close = RecordTable.close
        monkeypatch.setattr(RecordTable, "close", lambda table: (closed.append(table), close(table)))
        serving.cancel()
        with pytest.raises(asyncio.CancelledError):
            await serving
        assert len(closed) == 1
        assert (tmp_path / "modelyard" / "responses" / f"127.0.0.1_{port}.sqlite").exists()
        with pytest.raises(httpx.ConnectError):
            await asyncio.to_thread(httpx.get, f"http://127.0.0.1:{port}/v1/models")


def test_a_build_that_fails_half_way_frees_everything(tiny: Callable[[], ModelBuilder]) -> None:
    engines = ScriptedEngines(loads=False)

    def load() -> None:
        engines.started("a").load()
        engines.started("b").fail_load("its weights are odd")

    with ThreadPoolExecutor() as pool:
        loading = pool.submit(load)
        with pytest.raises(ModelLoadFailed, match="its weights are odd"):
            model_of(two(tiny), engines)
        loading.result(WAIT_S)
    # Also the one that was loaded has ended.
    assert all(engine.join(WAIT_S) for name in ("a", "b") for engine in engines.of(name))


def test_a_model_that_is_closed_says_so(tiny: Callable[[], ModelBuilder], engines: ScriptedEngines) -> None:
    model = model_of(two(tiny), engines)
    stream = model.stream_chat_request("Hi")
    next(stream)
    client = model.openai_client()
    model.close()
    for call in (
        model.list_models,
        lambda: model.send_chat_request("Hi"),
        lambda: model.stream_chat_request("Hi"),
        lambda: next(stream),
        model.openai_client,
        lambda: client.models.list(),
        model.__enter__,
    ):
        with pytest.raises(Closed, match="Build it again"):
            call()
    model.close()
    stream.close()


def test_the_repr_of_a_model_that_is_closed_meanwhile_says_so(
    tiny: Callable[[], ModelBuilder], engines: ScriptedEngines, monkeypatch: pytest.MonkeyPatch
) -> None:
    with model_of(two(tiny), engines) as model:
        cut: Future[str] = Future()
        cut.cancel()
        monkeypatch.setattr(model.thread, "submit", lambda _: cut)
        assert repr(model) == "<Model: closed>"
        monkeypatch.undo()


def test_who_waits_when_the_model_is_closed_is_told(tiny: Callable[[], ModelBuilder], engines: ScriptedEngines) -> None:
    model = model_of(two(tiny), engines)
    with ThreadPoolExecutor() as pool:
        waiting = [pool.submit(model.send_chat_request, "Hi") for _ in range(3)]
        engines.started("a").heard(Submit, 3)
        model.close()
        for each in waiting:
            assert isinstance(each.exception(WAIT_S), Closed)


def test_a_model_that_nobody_holds_goes(tiny: Callable[[], ModelBuilder], engines: ScriptedEngines) -> None:
    model = model_of(two(tiny), engines)
    thread = model.thread
    gone = weakref.ref(model)
    with pytest.warns(ResourceWarning, match="not closed"):
        del model
    assert gone() is None
    thread.close(WAIT_S)
    assert all(engine.join(WAIT_S) for name in ("a", "b") for engine in engines.of(name))


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


def test_models_come_and_go_while_others_stream(tiny: Callable[[], ModelBuilder], engines: ScriptedEngines) -> None:
    with model_of(two(tiny), engines) as model, model.stream_chat_request_with_model("Hi", "a") as stream:
        next(stream)
        model.add_model_with_alias("c", tiny())
        assert model.list_models_with_status() == [("a", "loaded"), ("b", "loaded"), ("c", "loaded")]
        model.set_default_model_id("c")
        model.remove_model("a")
        model.remove_model("b")
        assert (model.list_models(), model.get_default_model_id()) == (["c"], "c")
        engine = engines.started("a")
        engine.say("still here")
        engine.finish()
        assert texts(stream) == ["still here", ""]
        with pytest.raises(InvalidRequest, match="the only model"):
            model.remove_model("c")
        with pytest.raises(ModelNotFound, match="Known: c"):
            model.remove_model("a")


def test_without_its_default_a_request_must_name_its_model(
    tiny: Callable[[], ModelBuilder], engines: ScriptedEngines
) -> None:
    with model_of(two(tiny).add_model_with_alias("c", tiny()), engines) as model:
        model.remove_model("a")
        assert model.get_default_model_id() is None
        with pytest.raises(ModelRequired, match="b, c"):
            model.send_chat_request("Hi")


def test_what_cannot_be_added_changes_nothing(
    tiny: Callable[[], ModelBuilder], engines: ScriptedEngines, tmp_path: Path
) -> None:
    with model_of(two(tiny), engines) as model:
        with pytest.raises(ConfigError, match="does not exist"):
            model.add_model(ModelBuilder(tmp_path / "nowhere.gguf"))
        with pytest.raises(ConfigError, match="'b' belongs to more than one"):
            model.add_model_with_alias("b", tiny())
        engines.loads = False
        with ThreadPoolExecutor() as pool:
            adding = pool.submit(model.add_model_with_alias, "c", tiny())
            engines.started("c").fail_load("it is odd")
            with pytest.raises(ModelLoadFailed, match="it is odd"):
                adding.result(WAIT_S)
        assert model.list_models() == ["a", "b"]
        assert len(engines.of("c")) == 1


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


async def test_a_build_that_is_cancelled_frees_everything(tiny: Callable[[], ModelBuilder]) -> None:
    engines = ScriptedEngines(loads=False)
    async with asyncio.timeout(WAIT_S):
        building = asyncio.create_task(async_model_of(two(tiny), engines))
        await asyncio.to_thread(engines.started, "b")
        building.cancel()
        with pytest.raises(asyncio.CancelledError):
            await building
    assert all(engine.join(WAIT_S) for name in ("a", "b") for engine in engines.of(name))


def test_openais_client_streams_as_it_is_said_and_cancels(
    tiny: Callable[[], ModelBuilder], engines: ScriptedEngines
) -> None:
    with model_of(two(tiny), engines) as model, model.openai_client() as client, ThreadPoolExecutor() as pool:
        asking = pool.submit(
            client.chat.completions.create, model="b", messages=[{"role": "user", "content": "Hi"}], stream=True
        )
        engine = engines.started("b")
        stream = asking.result(WAIT_S)
        assert next(stream).choices[0].delta.role == "assistant"
        for said in ("one", "two", "three"):
            engine.say(said)
            assert next(stream).choices[0].delta.content == said
        stream.close()
        engine.heard(Cancel)


async def test_openais_async_client_streams_as_it_is_said_and_cancels(
    tiny: Callable[[], ModelBuilder], engines: ScriptedEngines
) -> None:
    messages: Any = [{"role": "user", "content": "Hi"}]
    async with asyncio.timeout(WAIT_S):
        async with await async_model_of(two(tiny), engines) as model, model.async_openai_client() as client:
            stream = await client.chat.completions.create(model="b", messages=messages, stream=True)
            await anext(stream)
            engine = engines.started("b")
            for said in ("one", "two"):
                engine.say(said)
                assert (await anext(stream)).choices[0].delta.content == said
            await stream.close()
            await asyncio.to_thread(engine.heard, Cancel)


async def test_openais_async_client_runs_on_any_event_loop(
    tiny: Callable[[], ModelBuilder], engines: ScriptedEngines
) -> None:
    messages: Any = [{"role": "user", "content": "Hi"}]
    async with asyncio.timeout(WAIT_S):
        model = await asyncio.to_thread(model_of, two(tiny), engines)
        async with model.async_openai_client() as client:
            stream = await client.chat.completions.create(model="b", messages=messages, stream=True)
            await anext(stream)
            engine = engines.started("b")
            engine.say("one")
            assert (await anext(stream)).choices[0].delta.content == "one"
            await stream.close()
            await asyncio.to_thread(engine.heard, Cancel)
            with pytest.raises(openai.NotFoundError, match="Known: a, b"):
                await client.chat.completions.create(model="c", messages=messages)
        await asyncio.to_thread(model.close)


def test_openais_client_raises_its_own_errors(tiny: Callable[[], ModelBuilder], engines: ScriptedEngines) -> None:
    messages: Any = [{"role": "user", "content": "Hi"}]
    with model_of(two(tiny), engines) as model, model.openai_client() as client:
        with pytest.raises(openai.NotFoundError, match="Known: a, b"):
            client.chat.completions.create(model="c", messages=messages)
        with pytest.raises(openai.BadRequestError, match="temperature"):
            client.chat.completions.create(model="a", messages=messages, temperature=-1)
        hasty = client.with_options(timeout=0.2)
        with pytest.raises(openai.APITimeoutError):
            # It is never answered.
            hasty.chat.completions.create(model="a", messages=messages)
        engines.started("a").heard(Cancel)


FORK = """
import os, sys
from modelyard import Model, ModelBuilder
from modelyard.yard.yard import Yard
from support.scripted_engines import ScriptedEngines

engines = ScriptedEngines(answer=lambda _: ["Hello"])
model = Model(ModelBuilder(sys.argv[1]).config(), lambda config: Yard(config, engines.make_handle))
child = os.fork()
if child == 0:
    try:
        model.send_chat_request("Hi")
    except BaseException as refused:
        print(type(refused).__name__, refused, flush=True)
    # Its end must not disturb, nor wait for, what only the parent has.
    sys.exit(0)
assert os.waitstatus_to_exitcode(os.waitpid(child, 0)[1]) == 0
print(model.send_chat_request("Hi").choices[0].message.content)
# Not closed: the interpreter's exit does it.
"""


def run(program: str, path: Path) -> str:
    """Return what a program prints that must end well, and say nothing on stderr."""
    tests = Path(__file__).parents[2]
    environment = {"PYTHONPATH": f"{tests.parent / 'src'}:{tests}", "PATH": "", "HOME": str(path.parent)}
    done = subprocess.run(
        [sys.executable, "-W", "ignore::DeprecationWarning", "-c", program, str(path)],
        capture_output=True,
        text=True,
        timeout=60,
        env=environment,
        check=False,
    )
    assert (done.returncode, done.stderr) == (0, "")
    return done.stdout


def test_a_forked_child_is_told_at_once_and_the_parent_goes_on(tmp_path: Path) -> None:
    first, second = run(FORK, write(tmp_path / "tiny.gguf", tiny_model())).splitlines()
    assert first.startswith("ForkedProcess The model was built in process ")
    assert second == "Hello"


SERVING_AT_THE_END = """
import sys
from modelyard import Model, ModelBuilder, start_server
from modelyard.yard.yard import Yard
from support.scripted_engines import ScriptedEngines

engines = ScriptedEngines(answer=lambda _: ["Hello"])
model = Model(ModelBuilder(sys.argv[1]).config(), lambda config: Yard(config, engines.make_handle))
print(start_server(model, port=0).url)
"""


def test_a_program_that_ends_beside_its_server_ends_without_a_word(tmp_path: Path) -> None:
    assert run(SERVING_AT_THE_END, write(tmp_path / "tiny.gguf", tiny_model())).startswith("http://127.0.0.1:")
