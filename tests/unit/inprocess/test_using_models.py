"""What a program meets when it uses a model: its requests, its ``repr``, its server, and the errors of misuse."""

from __future__ import annotations

import asyncio
import gc
import inspect
import sys
import tomllib
import traceback
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import httpx
import pytest
from pydantic import BaseModel, field_validator

import modelyard
from modelyard import (
    AsyncModel,
    LoadProgress,
    Model,
    ModelBuilder,
    ModelyardError,
    MultiModelBuilder,
    Server,
    from_config,
    start_server,
)
from modelyard.errors import (
    AnswerInvalid,
    Closed,
    ConfigError,
    InvalidRequest,
    MissingExtra,
    PortUnavailable,
    WrongEventLoop,
)
from modelyard.inprocess.fields import ChatFields, CompletionFields, RerankFields
from modelyard.protocol.prompts import Text
from modelyard.protocol.requests import Cancel, Submit
from modelyard.yard.yard import Yard
from support.scripted_engines import ScriptedEngines

WAIT_S = 20.0
PROJECT = Path(__file__).parents[3] / "pyproject.toml"


@pytest.fixture
def model(tiny: Callable[[], ModelBuilder], engines: ScriptedEngines) -> Iterator[Model]:
    builder = MultiModelBuilder().add_model_with_alias("a", tiny()).add_model_with_alias("b", tiny())
    with Model(builder.config(), lambda config: Yard(config, engines.make_handle)) as model:
        yield model


async def async_model(tiny: Callable[[], ModelBuilder], engines: ScriptedEngines) -> AsyncModel:
    builder = MultiModelBuilder().add_model_with_alias("a", tiny())
    model = AsyncModel(builder.config(), lambda config: Yard(config, engines.make_handle))
    await model.start()
    return model


def test_a_text_is_continued_whole_and_in_pieces(model: Model, engines: ScriptedEngines) -> None:
    engines.answer = lambda submit: [" upon", " a time"]
    model.unload_model("b")
    whole = model.send_completion_request("Once", model="b", max_tokens=8)
    assert (whole.model, whole.choices[0].text, whole.choices[0].finish_reason) == ("b", " upon a time", "stop")
    (submit,) = engines.of("b")[-1].heard(Submit)
    assert isinstance(submit, Submit)
    assert submit.prompt == Text("Once")
    with model.stream_completion_request_with_model("Once", "b", n=2) as stream:
        pieces = list(stream)
    for index in (0, 1):
        own = [piece.choices[0] for piece in pieces if piece.choices[0].index == index]
        assert "".join(choice.text for choice in own) == " upon a time"
        assert own[-1].finish_reason == "stop"
    assert [piece.usage is not None for piece in pieces] == [False] * (len(pieces) - 1) + [True]
    assert repr(stream) == "<CompletionStream of 'b', ended>"


def test_a_stream_of_a_completion_that_is_left_ends_its_sequence(model: Model, engines: ScriptedEngines) -> None:
    with model.stream_completion_request("Once") as stream, ThreadPoolExecutor() as pool:
        reading = pool.submit(next, stream)
        engine = engines.started("a")
        engine.heard(Submit)
        engine.say(" upon")
        assert reading.result(WAIT_S).choices[0].text == " upon"
    engine.heard(Cancel)
    assert list(stream) == []


@pytest.mark.parametrize("kind", [Model, AsyncModel])
def test_help_and_completion_show_what_each_request_takes(kind: type[Model | AsyncModel]) -> None:
    for short, fields in (
        (kind.send_chat_request, ChatFields),
        (kind.stream_completion_request, CompletionFields),
        (kind.rerank, RerankFields),
    ):
        assert short.__doc__ == getattr(kind, f"{short.__name__}_with_model").__doc__
        parameters = inspect.signature(short).parameters
        assert set(fields.__annotations__) <= set(parameters)
        assert {parameters[name].kind for name in fields.__annotations__} == {inspect.Parameter.KEYWORD_ONLY}
    assert str(inspect.signature(kind.rerank).parameters["top_n"]) == "top_n: 'int | None' = None"


def test_a_model_can_be_named_by_a_keyword(model: Model, engines: ScriptedEngines) -> None:
    engines.answer = lambda _: ["Hello"]
    model.unload_model("b")
    assert model.send_chat_request("Hi", model="b").model == "b"
    assert model.stream_chat_request("Hi", model="b").model == "b"


def test_the_repr_of_a_model_shows_its_models_and_their_states(model: Model) -> None:
    assert repr(model) == "<Model: a (loaded, default), b (loaded)>"
    model.unload_model("b")
    assert repr(model) == "<Model: a (loaded, default), b (unloaded)>"
    # Also for a debugger that stops the event loop itself.
    assert model.thread.call_sync(lambda _: repr(model)) == "<Model: wrong_event_loop>"
    model.close()
    assert repr(model) == "<Model: closed>"


def test_a_call_that_would_wait_for_itself_is_refused(model: Model) -> None:
    with pytest.raises(WrongEventLoop, match="from another thread"):
        model.thread.call_sync(lambda _: model.list_models())


@pytest.mark.parametrize(
    "call",
    [
        lambda model: model.unload_model(3),
        lambda model: model.reload_model(None),
        lambda model: model.remove_model(["a"]),
        lambda model: model.is_model_loaded(3),
        lambda model: model.set_default_model_id(3),
        lambda model: model.plan(3),
        lambda model: model.max_sequence_length_with_model(3),
        lambda model: model.send_chat_request("Hi", model=3),
        lambda model: model.add_model("a"),
        lambda model: model.add_model(ModelBuilder),
        lambda model: model.send_chat_request(3),
        lambda model: model.tokenize(3),
        lambda model: modelyard.create_app(ModelBuilder("org/a")),  # type: ignore[arg-type]
        lambda model: asyncio.run(modelyard.serve_async(model)),
        lambda model: Model("model.gguf"),  # type: ignore[arg-type]
    ],
)
def test_misuse_raises_an_error_of_the_tree(model: Model, call: Callable[[Model], object]) -> None:
    with pytest.raises(ModelyardError) as refused:
        call(model)
    assert len(str(refused.value)) > 20
    # What a person reads last is the message, not the way through an event loop.
    frames = traceback.extract_tb(refused.value.__traceback__)
    assert not any("concurrent" in frame.filename for frame in frames)
    assert repr(refused.value) == f"{type(refused.value).__name__}({str(refused.value)!r})"


@pytest.mark.parametrize(
    "build",
    [
        lambda: ModelBuilder(3),  # type: ignore[arg-type]
        lambda: from_config(None),  # type: ignore[arg-type]
        lambda: modelyard.GgufModelBuilder("a", 3),  # type: ignore[arg-type]
        lambda: MultiModelBuilder().add_model("a"),  # type: ignore[arg-type]
        lambda: MultiModelBuilder().add_model(MultiModelBuilder()),  # type: ignore[arg-type]
        lambda: ModelBuilder("org/a").with_progress("yes"),  # type: ignore[arg-type]
        lambda: ModelBuilder("org/a").with_max_seq_len("many").config(),  # type: ignore[arg-type]
        lambda: ModelBuilder("org/a").with_device_layers("many").config(),
        lambda: ModelBuilder("org/a").with_isq("q99").config(),
        lambda: ModelBuilder("org/a").with_sampling(temp=1).config(),
        lambda: MultiModelBuilder().build(),
    ],
)
def test_a_builder_refuses_what_it_cannot_build(build: Callable[[], object]) -> None:
    with pytest.raises(ConfigError):
        build()


def test_the_repr_of_a_builder_shows_what_it_builds() -> None:
    one = modelyard.TextModelBuilder("org/a").with_isq("q4k").with_max_seq_len(512)
    assert repr(one) == "TextModelBuilder('org/a', isq='q4k', max_seq_len=512)"
    several = MultiModelBuilder().add_model(one).add_model_with_alias("b", ModelBuilder("org/b"))
    assert repr(several) == f"MultiModelBuilder({one!r}, b: ModelBuilder('org/b'))"
    assert repr(from_config("models.toml")) == "ConfigFile('models.toml')"


async def test_an_async_model_is_used_where_it_was_started(
    tiny: Callable[[], ModelBuilder], engines: ScriptedEngines
) -> None:
    model = AsyncModel(tiny().config(), lambda config: Yard(config, engines.make_handle))
    with pytest.raises(WrongEventLoop, match="was not started"):
        model.list_models()
    assert "(not started, default)" in repr(model)
    await model.start()
    assert "(loaded, default)" in repr(model)
    with pytest.raises(WrongEventLoop):
        await asyncio.to_thread(model.list_models)
    await model.aclose()
    assert repr(model) == "<AsyncModel: closed>"


async def test_an_async_model_that_nobody_holds_goes(
    tiny: Callable[[], ModelBuilder], engines: ScriptedEngines
) -> None:
    model = await async_model(tiny, engines)
    with pytest.warns(ResourceWarning, match="not closed"):
        del model
    gc.collect()
    (engine,) = engines.of("a")
    assert await asyncio.to_thread(engine.join, WAIT_S)


class Even(BaseModel):
    number: int

    @field_validator("number")
    @classmethod
    def _is_even(cls, number: int) -> int:
        if number % 2:
            raise ValueError("must be even")
        return number


def test_a_structured_answer_that_breaks_a_rule_is_an_error_of_the_tree(model: Model, engines: ScriptedEngines) -> None:
    model.unload_model("b")
    engines.answer = lambda _: ['{"number": 3}']
    with pytest.raises(AnswerInvalid, match="no valid Even: number: Value error, must be even") as refused:
        model.generate_structured(Even, "A number?", model="b")
    assert refused.value.answer == '{"number": 3}'
    engines.answer = lambda _: ['{"number": 4}']
    model.unload_model("b")
    assert model.generate_structured(Even, "A number?", model="b") == Even(number=4)


def test_a_warning_points_at_the_line_that_passed_what_has_no_effect(model: Model, engines: ScriptedEngines) -> None:
    engines.answer = lambda _: ["Hello"]
    model.unload_model("b")
    with pytest.warns(UserWarning, match="Without effect") as warned:
        model.send_chat_request("Hi", model="b", store=True)
    line = sys._getframe().f_lineno
    assert [(each.filename, each.lineno) for each in warned] == [(__file__, line - 1)]


async def test_a_warning_of_an_async_model_points_at_the_line_that_awaits(
    tiny: Callable[[], ModelBuilder], engines: ScriptedEngines
) -> None:
    engines.answer = lambda _: ["Hello"]
    async with await async_model(tiny, engines) as model:
        await model.unload_model("a")
        with pytest.warns(UserWarning, match="Without effect") as warned:
            await model.send_chat_request("Hi", store=True)
        line = sys._getframe().f_lineno
    assert [(each.filename, each.lineno) for each in warned] == [(__file__, line - 1)]


def test_a_missing_package_is_an_error_that_names_the_extra(model: Model, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "openai", None)
    for make in (model.openai_client, model.async_openai_client):
        with pytest.raises(MissingExtra, match=r"pip install 'modelyard\[openai\]'") as missing:
            make()
        assert isinstance(missing.value, ImportError)


def test_a_package_that_is_too_old_is_an_error_that_names_the_extra(
    model: Model, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("openai.__version__", "1.99.0")
    (extra,) = tomllib.loads(PROJECT.read_text("utf-8"))["project"]["optional-dependencies"]["openai"]
    with pytest.raises(MissingExtra, match=rf"{extra} \(installed: 1.99.0\)"):
        model.openai_client()


def test_a_server_runs_beside_the_program_until_it_is_stopped(model: Model) -> None:
    with start_server(model, port=0) as server:
        listed = httpx.get(f"{server.url}/v1/models").json()
        assert [each["id"] for each in listed["data"]] == ["a", "b"]
        assert model.list_models() == ["a", "b"]
        with pytest.raises(PortUnavailable, match="port=0 takes any free port"):
            start_server(model, port=int(server.url.rpartition(":")[2]))
        assert repr(server) == f"<Server at {server.url}>"
        for port in (99999, -1, "80a"):
            with pytest.raises(PortUnavailable, match=f":{port}: a port is a whole number from 0 to 65535"):
                start_server(model, port=port)  # type: ignore[arg-type]
    assert repr(server) == f"<Server at {server.url}, stopped>"
    with pytest.raises(httpx.ConnectError):
        httpx.get(server.url)
    server.stop()
    with pytest.raises(InvalidRequest, match="this is 3"):
        Server(3, None, None)  # type: ignore[arg-type]


def test_a_server_ends_with_its_model(model: Model) -> None:
    server = start_server(model, port=0)
    model.close()
    with pytest.raises(Closed):
        server.wait()
    server.stop()
    with pytest.raises(Closed):
        start_server(model, port=0)


def test_a_build_reports_its_progress_and_a_later_load_too(
    tiny: Callable[[], ModelBuilder], engines: ScriptedEngines
) -> None:
    reports: list[LoadProgress] = []
    config = tiny().with_load("on-demand").config()
    engines.loads = False
    with (
        Model(config, lambda config: Yard(config, engines.make_handle), progress=reports.append) as model,
        ThreadPoolExecutor() as pool,
    ):
        (name,) = model.list_models()
        asking = pool.submit(model.send_chat_request, "Hi")
        engine = engines.started(name)
        engine.load()
        (submit,) = engine.heard(Submit)
        assert isinstance(submit, Submit)
        engine.say("Hello", to=submit.sequence)
        engine.finish(to=submit.sequence)
        assert asking.result(WAIT_S).choices[0].message.content == "Hello"
    assert {(report.model, report.step) for report in reports} >= {(name, "loading")}


def test_the_package_lists_what_is_public_and_nothing_else() -> None:
    assert dir(modelyard) == sorted([*modelyard.__all__, "errors"])
    for name in modelyard.__all__:
        assert getattr(modelyard, name) is not None
