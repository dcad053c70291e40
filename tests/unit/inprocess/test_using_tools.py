"""What a program meets when its models call its functions."""

from __future__ import annotations

import asyncio
import json
import threading
from collections.abc import AsyncIterator, Awaitable, Callable, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextvars import ContextVar
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import httpx
import pytest
from pydantic import BaseModel

from modelyard import (
    AsyncModel,
    FunctionTool,
    Model,
    ModelBuilder,
    MultiModelBuilder,
    ToolApproval,
    ToolInfo,
    create_app,
    from_config,
    start_server,
)
from modelyard.errors import Closed, ConfigError, InvalidRequest, ModelNotFound, ShuttingDown
from modelyard.inprocess.buildable import Buildable
from modelyard.protocol.prompts import Chat, NamedTool
from modelyard.protocol.requests import Submit, Tokenize
from modelyard.yard.yard import Yard
from support.scripted_engines import ScriptedEngines
from support.tool_turns import HERMES, call, messages_of, results_of, turns

WAIT_S = 20.0
USER: ContextVar[str] = ContextVar("USER", default="nobody")


@dataclass
class Weather:
    city: str
    degrees: int


def weather(city: str) -> Weather:
    """Look up the weather.

    Args:
        city: Name of the city.
    """
    return Weather(city, len(city))


async def clock() -> str:
    """Tell the time."""
    return "noon"


def broken() -> str:
    raise ValueError("no luck")


ASKS = turns(call("weather", city="Rome"), "It is {result}")


@pytest.fixture
def engines(engines: ScriptedEngines) -> ScriptedEngines:
    engines.output_format = HERMES
    engines.answer = ASKS
    return engines


Build = Callable[..., Model]


@pytest.fixture
def build(engines: ScriptedEngines) -> Iterator[Build]:
    """Builds models on scripted engines."""
    built: list[Model] = []

    def build(builder: Buildable) -> Model:
        config = builder.config()
        model = Model(config, lambda config: Yard(config, engines.make_handle), tools=builder._checked_tools(config))
        built.append(model)
        return model

    yield build
    for model in built:
        model.close()


@pytest.fixture
async def built_async(
    tiny: Callable[[], ModelBuilder], engines: ScriptedEngines
) -> AsyncIterator[Callable[[Buildable], Awaitable[AsyncModel]]]:
    built: list[AsyncModel] = []

    async def build(builder: Buildable) -> AsyncModel:
        config = builder.config()
        model = AsyncModel(
            config, lambda config: Yard(config, engines.make_handle), tools=builder._checked_tools(config)
        )
        built.append(model)
        await model.start()
        return model

    yield build
    for model in built:
        await model.aclose()


def submits(engines: ScriptedEngines, model: str, number: int) -> Sequence[Submit]:
    """What the engine of ``model`` has been asked, at least ``number`` times."""
    heard = engines.of(model)[-1].heard(Submit, number)
    return [message for message in heard if isinstance(message, Submit)]


def multi(tiny: Callable[[], ModelBuilder]) -> MultiModelBuilder:
    return MultiModelBuilder().add_model_with_alias("a", tiny()).add_model_with_alias("b", tiny())


def test_a_function_is_called_and_the_model_goes_on_with_its_result(
    tiny: Callable[[], ModelBuilder], build: Build, engines: ScriptedEngines
) -> None:
    model = build(MultiModelBuilder().add_model_with_alias("a", tiny()).with_tools([weather]))
    completion = model.send_chat_request("How is Rome?")
    assert completion.choices[0].message.content == 'It is {"city":"Rome","degrees":4}'
    assert completion.choices[0].finish_reason == "stop"
    assert completion.usage.completion_tokens == 2
    (made,) = completion.agentic_tool_calls or []
    assert (made.name, made.server, made.round, made.is_error, made.index) == ("weather", "program", 0, False, 0)
    assert (json.loads(made.arguments), made.result) == ({"city": "Rome"}, '{"city":"Rome","degrees":4}')
    first, second = submits(engines, "a", 2)
    assert isinstance(first.prompt, Chat)
    assert [tool["function"]["name"] for tool in first.prompt.tools] == ["weather"]
    assert [message["role"] for message in messages_of(second)] == ["user", "assistant", "tool"]


def test_a_stream_tells_what_becomes_of_a_call(tiny: Callable[[], ModelBuilder], build: Build) -> None:
    model = build(MultiModelBuilder().add_model_with_alias("a", tiny()).with_tools([weather]))
    with model.stream_chat_request("How is Rome?") as stream:
        chunks = list(stream)
    text = "".join(chunk.choices[0].delta.content or "" for chunk in chunks)
    assert text == 'It is {"city":"Rome","degrees":4}'
    news = [chunk.agentic_tool_call_progress for chunk in chunks if chunk.agentic_tool_call_progress]
    assert [(each.tool_name, each.phase) for each in news] == [("weather", "calling"), ("weather", "complete")]
    assert news[1].data["content"] == '{"city":"Rome","degrees":4}'
    assert "weather" in repr([chunk for chunk in chunks if chunk.agentic_tool_call_progress])
    assert chunks[0].choices[0].delta.role == "assistant"
    assert chunks[-1].choices[0].finish_reason == "stop"
    assert [chunk.usage is not None for chunk in chunks] == [False] * (len(chunks) - 1) + [True]
    assert chunks[-1].usage is not None
    assert chunks[-1].usage.completion_tokens == 2
    assert len({chunk.id for chunk in chunks}) == 1


def test_choices_are_answered_side_by_side(tiny: Callable[[], ModelBuilder], build: Build) -> None:
    model = build(MultiModelBuilder().add_model_with_alias("a", tiny()).with_tools([weather]))
    completion = model.send_chat_request("How is Rome?", n=2)
    assert [made.index for made in completion.agentic_tool_calls or []] == [0, 1]
    with model.stream_chat_request("How is Rome?", n=2) as stream:
        chunks = list(stream)
    for index in (0, 1):
        own = [chunk.choices[0] for chunk in chunks if chunk.choices[0].index == index]
        assert "".join(choice.delta.content or "" for choice in own) == 'It is {"city":"Rome","degrees":4}'
        assert own[-1].finish_reason == "stop"
    assert [chunk.usage is not None for chunk in chunks] == [False] * (len(chunks) - 1) + [True]


async def test_coroutines_run_on_the_event_loop_of_the_model(
    tiny: Callable[[], ModelBuilder],
    built_async: Callable[[Buildable], Awaitable[AsyncModel]],
    engines: ScriptedEngines,
) -> None:
    loops: list[asyncio.AbstractEventLoop] = []

    async def loop_name() -> str:
        loops.append(asyncio.get_running_loop())
        return "main"

    engines.answer = turns(call("loop_name"), "On {result}")
    model = await built_async(tiny().with_tools([loop_name]))
    completion = await model.send_chat_request("Where?")
    assert completion.choices[0].message.content == "On main"
    stream = model.stream_chat_request("Where?")
    assert "".join([chunk.choices[0].delta.content or "" async for chunk in stream]) == "On main"
    assert loops == [asyncio.get_running_loop()] * 2


def test_what_a_function_raises_is_a_result(
    tiny: Callable[[], ModelBuilder], build: Build, engines: ScriptedEngines
) -> None:
    engines.answer = turns(call("broken"), call("weather", town="Rome"), "Sorry: {result}")
    completion = build(tiny().with_tools([broken, weather])).send_chat_request("Try.")
    assert [(made.is_error, made.round) for made in completion.agentic_tool_calls or []] == [(True, 0), (True, 1)]
    assert "ValueError: no luck" in results_of(submits(engines, completion.model, 3)[2])
    content = completion.choices[0].message.content or ""
    assert content.startswith("Sorry: The arguments are invalid. city: Field required")


def test_tools_belong_to_a_model_or_to_all(tiny: Callable[[], ModelBuilder], build: Build) -> None:
    builder = (
        MultiModelBuilder()
        .add_model_with_alias("a", tiny().with_tools([weather]))
        .add_model_with_alias("b", tiny())
        .with_tools([clock])
    )
    model = build(builder)
    assert [tool.name for tool in model.tools_of("a")] == ["weather", "clock"]
    assert [tool.name for tool in model.tools_of("b")] == ["clock"]
    assert model.tools_of() == model.tools_of("a")
    assert [tool.name for tool in model.tools] == ["weather", "clock"]
    assert model.tools[1] == ToolInfo("clock", "program", "Tell the time.", model.tools[1].parameters, False)
    model.add_model_with_alias("c", tiny().with_tools([broken]))
    assert [tool.name for tool in model.tools_of("c")] == ["broken", "clock"]
    model.remove_model("c")
    assert [tool.name for tool in model.tools] == ["weather", "clock"]
    with pytest.raises(ModelNotFound):
        model.tools_of("c")


def test_a_model_that_is_added_must_not_have_two_tools_of_one_name(
    tiny: Callable[[], ModelBuilder], build: Build
) -> None:
    model = build(multi(tiny).with_tools([clock]))
    with pytest.raises(ConfigError, match="Two tools are named 'clock'"):
        model.add_model_with_alias("c", tiny().with_tools([clock]))
    assert model.list_models() == ["a", "b"]


def test_a_request_brings_functions_of_its_own(
    tiny: Callable[[], ModelBuilder], build: Build, engines: ScriptedEngines
) -> None:
    model = build(MultiModelBuilder().add_model_with_alias("a", tiny()))
    asked = {"messages": "How is Rome?", "tools": [weather]}
    for completion in (model.send_chat_request("How is Rome?", tools=[weather]), model.send_chat_request(asked)):
        assert completion.choices[0].message.content == 'It is {"city":"Rome","degrees":4}'
    assert asked["tools"] == [weather]
    with model.stream_chat_request("How is Rome?", tools=[FunctionTool(weather)]) as stream:
        assert any(chunk.agentic_tool_call_progress for chunk in stream)
    # Keywords go before a whole request, whose tools would have the calls returned.
    described = {"type": "function", "function": {"name": "weather", "parameters": {"type": "object"}}}
    completion = model.send_chat_request({"messages": "How is Rome?", "tools": [described]}, tools=[weather])
    assert completion.choices[0].finish_reason == "stop"
    # Without them the call is plain text.
    assert model.tools == []
    assert model.send_chat_request("How is Rome?").agentic_tool_calls is None


def test_functions_of_a_request_go_before_those_of_its_model(
    tiny: Callable[[], ModelBuilder], build: Build, engines: ScriptedEngines
) -> None:
    def other(city: str) -> str:
        return f"rain in {city}"

    model = build(MultiModelBuilder().add_model_with_alias("a", tiny()).with_tools([weather, clock]))
    completion = model.send_chat_request("How is Rome?", tools=[FunctionTool(other, name="weather")])
    assert completion.choices[0].message.content == "It is rain in Rome"
    (first, _) = submits(engines, "a", 2)
    assert isinstance(first.prompt, Chat)
    assert [tool["function"]["name"] for tool in first.prompt.tools] == ["weather", "clock"]


def test_dicts_stay_the_callers(tiny: Callable[[], ModelBuilder], build: Build, engines: ScriptedEngines) -> None:
    engines.answer = turns(call("weather", city="Rome") + call("book", city="Rome"), "Booked: {result}")
    model = build(MultiModelBuilder().add_model_with_alias("a", tiny()))
    book = {"type": "function", "function": {"name": "book", "parameters": {"type": "object"}}}
    completion = model.send_chat_request("Book.", tools=[weather, book])
    choice = completion.choices[0]
    assert choice.finish_reason == "tool_calls"
    assert [made.function.name for made in choice.message.tool_calls or []] == ["book"]
    assert [made.name for made in completion.agentic_tool_calls or []] == ["weather"]
    # The result of the program's function is part of the conversation when the caller's is known.
    made = (choice.message.tool_calls or [])[0]
    history = [
        {"role": "user", "content": "Book."},
        choice.message,
        {"role": "tool", "tool_call_id": made.id, "content": "room 4"},
    ]
    assert model.send_chat_request(history, tools=[weather, book]).choices[0].message.content == "Booked: room 4"
    assert results_of(submits(engines, "a", 2)[-1]) == ['{"city":"Rome","degrees":4}', "room 4"]
    # Also in a request that brings no function.
    assert model.send_chat_request(history, tools=[book]).choices[0].message.content == "Booked: room 4"
    assert results_of(submits(engines, "a", 3)[-1]) == ['{"city":"Rome","degrees":4}', "room 4"]


def test_a_choice_names_a_function(tiny: Callable[[], ModelBuilder], build: Build, engines: ScriptedEngines) -> None:
    model = build(MultiModelBuilder().add_model_with_alias("a", tiny()).with_tools([clock]))
    for choice in (weather, "weather", FunctionTool(weather)):
        model.send_chat_request("How is Rome?", tools=[weather], tool_choice=choice)
        submit = submits(engines, "a", 2)[-2]
        assert isinstance(submit.prompt, Chat)
        assert submit.prompt.tool_choice == NamedTool("weather")
    model.send_chat_request("When?", tool_choice="clock")
    with pytest.raises(InvalidRequest, match="'tool_choice' names 'weather', which is not one of the tools: clock"):
        model.send_chat_request("When?", tool_choice=weather)
    assert model.send_chat_request("When?", tool_choice="none").agentic_tool_calls is None


def test_rounds_are_bounded(tiny: Callable[[], ModelBuilder], build: Build, engines: ScriptedEngines) -> None:
    engines.answer = turns(call("clock"))
    model = build(MultiModelBuilder().add_model_with_alias("a", tiny()).with_tools([clock]))
    completion = model.send_chat_request("When?", max_tool_rounds=2)
    assert len(completion.agentic_tool_calls or []) == 2
    assert model.send_chat_request("When?", max_tool_rounds=0).agentic_tool_calls is None


@pytest.mark.parametrize(
    ("tools", "says"),
    [
        ([weather, weather], "Two tools are named 'weather'"),
        ([weather, {"type": "function", "function": {"name": "weather"}}], "Two tools are named 'weather'"),
        ([lambda: 1], "cannot be the name of a tool"),
        ([Weather], "this is a class"),
        (weather, "'tools': Input should be a valid list"),
        ([print], r"takes \*args"),
    ],
)
def test_tools_that_cannot_be_used_are_refused_with_the_request(
    tiny: Callable[[], ModelBuilder], build: Build, tools: Any, says: str
) -> None:
    model = build(tiny())
    with pytest.raises(InvalidRequest, match=says):
        model.send_chat_request("Hi", tools=tools)
    with pytest.raises(InvalidRequest, match=says):
        model.stream_chat_request("Hi", tools=tools)


def test_functions_see_the_context_of_the_caller(
    tiny: Callable[[], ModelBuilder], build: Build, engines: ScriptedEngines
) -> None:
    def who() -> str:
        return USER.get()

    async def who_async() -> str:
        return USER.get()

    engines.answer = turns(call("who"), call("who_async"), "Done")
    model = build(tiny())
    USER.set("ada")
    completion = model.send_chat_request("Who?", tools=[who, who_async])
    with model.stream_chat_request("Who?", tools=[who, who_async]) as stream:
        news = [chunk.agentic_tool_call_progress for chunk in stream if chunk.agentic_tool_call_progress]
    assert [made.result for made in completion.agentic_tool_calls or []] == ["ada", "ada"]
    assert [each.data["content"] for each in news if each.phase == "complete"] == ["ada", "ada"]


def test_calls_of_one_turn_run_at_the_same_time(
    tiny: Callable[[], ModelBuilder], build: Build, engines: ScriptedEngines
) -> None:
    both = threading.Barrier(2)

    def meet(name: str) -> str:
        both.wait(WAIT_S)
        return name

    engines.answer = turns(call("meet", name="a") + call("meet", name="b"), "Done")
    completion = build(tiny().with_tools([meet])).send_chat_request("Meet.")
    assert sorted((made.result, made.is_error) for made in completion.agentic_tool_calls or []) == [
        ("a", False),
        ("b", False),
    ]


def test_a_function_may_ask_the_model_itself(
    tiny: Callable[[], ModelBuilder], build: Build, engines: ScriptedEngines
) -> None:
    def ask(question: str) -> str:
        return model.send_chat_request_with_model(question, "b", tool_choice="none").choices[0].message.content or ""

    engines.answer = lambda submit: (
        ["inner"]
        if messages_of(submit)[0]["content"] == "Inner?"
        else turns(call("ask", question="Inner?"), "{result}")(submit)
    )
    model = build(multi(tiny).with_tools([ask]))
    assert model.send_chat_request("Outer?").choices[0].message.content == "inner"


# Approvals


def test_a_function_approves_calls_or_denies_them_with_a_reason(
    tiny: Callable[[], ModelBuilder], build: Build, engines: ScriptedEngines
) -> None:
    asked: list[ToolApproval] = []
    decisions: list[Any] = [True, False, "not on Sundays", ValueError("broken"), 3]

    def approve(approval: ToolApproval) -> bool | str:
        asked.append(approval)
        decision = decisions[len(asked) - 1]
        if isinstance(decision, Exception):
            raise decision
        return decision  # type: ignore[no-any-return]

    model = build(
        MultiModelBuilder().add_model_with_alias("a", tiny()).with_tools([weather]).with_tool_approval(approve)
    )
    results = []
    for _ in decisions:
        (made,) = model.send_chat_request("How is Rome?").agentic_tool_calls or []
        results.append((made.is_error, made.result))
    assert asked == [ToolApproval("weather", "program", {"city": "Rome"}, "a")] * 5
    assert "Rome" not in repr(asked[0])
    assert results[0] == (False, '{"city":"Rome","degrees":4}')
    assert [is_error for is_error, _ in results[1:]] == [True] * 4
    assert "denied" in results[1][1]
    assert results[2][1].endswith("not on Sundays")
    assert "failed" in results[3][1]
    assert "failed" in results[4][1]
    assert all(tool.needs_approval for tool in model.tools)


def test_approvals_may_be_asynchronous_and_belong_to_one_model(
    tiny: Callable[[], ModelBuilder], build: Build, engines: ScriptedEngines
) -> None:
    async def never(approval: ToolApproval) -> bool:
        return False

    builder = (
        MultiModelBuilder()
        .add_model_with_alias("a", tiny().with_tool_approval(never))
        .add_model_with_alias("b", tiny())
        .with_tools([weather])
    )
    model = build(builder)
    (made,) = model.send_chat_request_with_model("How is Rome?", "a").agentic_tool_calls or []
    assert made.is_error
    (made,) = model.send_chat_request_with_model("How is Rome?", "b").agentic_tool_calls or []
    assert not made.is_error
    with model.stream_chat_request_with_model("How is Rome?", "a") as stream:
        chunks = list(stream)
    (waiting,) = [each.agentic_tool_approval_required for each in chunks if each.agentic_tool_approval_required]
    assert waiting.tool["name"] == "weather"
    phases = [each.agentic_tool_call_progress.phase for each in chunks if each.agentic_tool_call_progress]
    assert phases == ["calling", "denied", "complete"]


def test_an_approval_runs_on_a_thread_of_its_own(tiny: Callable[[], ModelBuilder], build: Build) -> None:
    def approve(approval: ToolApproval) -> bool:
        # It may use the model, which a callback on its event loop could not.
        return bool(model.list_models())

    model = build(tiny().with_tools([weather]).with_tool_approval(approve))
    (made,) = model.send_chat_request("How is Rome?").agentic_tool_calls or []
    assert not made.is_error


# Over HTTP


def test_requests_to_a_server_on_the_model_use_the_same_tools(
    tiny: Callable[[], ModelBuilder], build: Build, engines: ScriptedEngines
) -> None:
    model = build(MultiModelBuilder().add_model_with_alias("a", tiny()).with_tools([weather]))
    body = {"model": "a", "messages": [{"role": "user", "content": "How is Rome?"}]}
    with start_server(model, port=0) as server:
        answer = httpx.post(f"{server.url}/v1/chat/completions", json=body, timeout=WAIT_S).json()
    assert answer["choices"][0]["message"]["content"] == 'It is {"city":"Rome","degrees":4}'
    assert answer["agentic_tool_calls"][0]["server"] == "program"
    completion = model.openai_client().chat.completions.create(**body)  # type: ignore[call-overload]
    assert completion.choices[0].message.content == 'It is {"city":"Rome","degrees":4}'


async def test_a_mounted_application_uses_the_same_tools(
    tiny: Callable[[], ModelBuilder], build: Build, engines: ScriptedEngines
) -> None:
    model = await asyncio.to_thread(build, tiny().with_tools([weather]))
    transport = httpx.ASGITransport(create_app(model))
    body = {"messages": [{"role": "user", "content": "How is Rome?"}]}
    async with httpx.AsyncClient(transport=transport, base_url="http://localhost", timeout=WAIT_S) as client:
        answer = (await client.post("/v1/chat/completions", json=body)).json()
    assert answer["choices"][0]["message"]["content"] == 'It is {"city":"Rome","degrees":4}'


# Ends


@pytest.fixture
def hangs() -> Iterator[FunctionTool]:
    """A function that returns when the test has ended."""
    released = threading.Event()
    yield FunctionTool(lambda: str(released.wait(WAIT_S)), name="hangs")
    released.set()


def test_closing_the_model_does_not_wait_for_a_function_that_hangs(
    tiny: Callable[[], ModelBuilder], build: Build, engines: ScriptedEngines, hangs: FunctionTool
) -> None:
    begun = threading.Event()

    def hangs_visibly() -> str:
        begun.set()
        return str(hangs.function())

    engines.answer = turns(call("hangs_visibly"), "Done")
    model = build(tiny().with_tools([hangs_visibly]))
    with ThreadPoolExecutor(1) as asking:
        answer = asking.submit(model.send_chat_request, "Hang.")
        assert begun.wait(WAIT_S)
        model.close()
        with pytest.raises(Closed):
            answer.result(WAIT_S)


async def test_closing_an_asynchronous_model_ends_the_calls_of_its_answers(
    tiny: Callable[[], ModelBuilder],
    built_async: Callable[[Buildable], Awaitable[AsyncModel]],
    engines: ScriptedEngines,
    hangs: FunctionTool,
) -> None:
    engines.answer = turns(call("hangs"), "Done")
    model = await built_async(tiny().with_tools([hangs]))
    stream = model.stream_chat_request("Hang.")
    async for chunk in stream:
        if chunk.agentic_tool_call_progress:
            break
    await model.aclose()
    with pytest.raises(ShuttingDown):
        async for _ in stream:
            pass


def test_closing_a_stream_cancels_its_calls(
    tiny: Callable[[], ModelBuilder], build: Build, engines: ScriptedEngines
) -> None:
    begun, cancelled = threading.Event(), threading.Event()

    async def forever() -> None:
        begun.set()
        try:
            await asyncio.Event().wait()
        finally:
            cancelled.set()

    engines.answer = turns(call("forever"), "Done")
    model = build(tiny().with_tools([forever]))
    with model.stream_chat_request("Hang.") as stream, ThreadPoolExecutor(1) as reading:
        chunks = reading.submit(list, stream)
        assert begun.wait(WAIT_S)
        stream.close()
        assert not any(chunk.usage for chunk in chunks.result(WAIT_S))
    assert cancelled.wait(WAIT_S)


# Builders and notebooks


def test_a_builder_refuses_what_is_no_tool(tiny: Callable[[], ModelBuilder]) -> None:
    with pytest.raises(ConfigError, match=r"(?s)'<lambda>' cannot be the name.*this is a class"):
        tiny().with_tools([lambda: 1, Weather])
    for tools in (weather, "weather", {"weather": weather}):
        with pytest.raises(ConfigError, match="with_tools takes a list of functions, not"):
            tiny().with_tools(tools)  # type: ignore[arg-type]
    with pytest.raises(ConfigError, match="with_tool_approval takes a function, not True"):
        tiny().with_tool_approval(True)  # type: ignore[arg-type]
    builder = MultiModelBuilder().add_model_with_alias("a", tiny().with_tools([weather])).with_tools([weather])
    with pytest.raises(ConfigError, match=r"Two tools are named 'weather'.*FunctionTool\(function, name="):
        builder.build()


def test_a_notebook_shows_calls_folded(
    tiny: Callable[[], ModelBuilder], build: Build, engines: ScriptedEngines
) -> None:
    def page() -> str:
        return "<b>" + "x" * 10_000

    engines.answer = turns(call("page"), "Done")
    completion = build(tiny().with_tools([page])).send_chat_request("Read.")
    shown = completion._repr_html_()
    assert "<details><summary><code>page({})</code></summary>" in shown
    assert "&lt;b&gt;xxx" in shown
    assert len(shown) < 6_000
    assert "agentic_tool_calls=[AgenticToolCall('page({})', result='<b>xxx" in repr(completion)
    assert completion.to_dict()["agentic_tool_calls"][0]["name"] == "page"


def test_the_repr_of_a_failed_call_has_its_result_and_that_it_failed(
    tiny: Callable[[], ModelBuilder], build: Build, engines: ScriptedEngines
) -> None:
    def page() -> str:
        raise ValueError("gone")

    engines.answer = turns(call("page"), "Done")
    (ran,) = build(tiny().with_tools([page])).send_chat_request("Read.").agentic_tool_calls
    assert repr(ran) == "AgenticToolCall('page({})', result='ValueError: gone', is_error=True)"


def test_a_call_that_waits_for_its_approval_is_decided_over_http(
    tiny: Callable[[], ModelBuilder], build: Build, engines: ScriptedEngines
) -> None:
    model = build(tiny().with_tools([FunctionTool(weather, needs_approval=True)]))
    with start_server(model, port=0) as server, ThreadPoolExecutor(1) as asking:
        answer = asking.submit(model.send_chat_request, "How is Rome?")
        waiting = httpx.get(f"{server.url}/v1/agent/approvals", params={"wait": WAIT_S}, timeout=2 * WAIT_S).json()
        (pending,) = waiting["data"]
        assert (pending["tool"], pending["server"]) == ("weather", "program")
        decided = httpx.post(
            f"{server.url}/v1/agent/approvals/{pending['id']}",
            json={"decision": "deny", "message": "not now"},
            timeout=WAIT_S,
        )
        assert decided.json() == {"status": "resolved"}
        (made,) = answer.result(WAIT_S).agentic_tool_calls or []
    assert made.is_error
    assert made.result.endswith("not now")


def test_a_key_with_a_list_of_mcp_servers_reaches_no_functions(
    tiny: Callable[[], ModelBuilder], build: Build, tmp_path: Path
) -> None:
    path = tmp_path / "models.toml"
    path.write_text(
        f"""
[[server.keys]]
name = "all"
key = "{"a" * 32}"

[[server.keys]]
name = "none"
key = "{"b" * 32}"
mcp = []

[[models]]
model_id = "{tiny().table()["model_id"]}"
"""
    )
    model = build(from_config(path).with_tools([weather]))
    body = {"messages": [{"role": "user", "content": "How is Rome?"}]}
    with start_server(model, port=0) as server:
        answers = [
            httpx.post(
                f"{server.url}/v1/chat/completions",
                json=body,
                headers={"Authorization": f"Bearer {letter * 32}"},
                timeout=WAIT_S,
            ).json()
            for letter in "ab"
        ]
    assert [len(answer.get("agentic_tool_calls", ())) for answer in answers] == [1, 0]


def test_a_structure_may_be_made_of_what_tools_return(
    tiny: Callable[[], ModelBuilder], build: Build, engines: ScriptedEngines
) -> None:
    class Report(BaseModel):
        city: str
        degrees: int

    engines.answer = turns(call("weather", city="Rome"), "{result}")
    model = build(tiny())
    assert model.generate_structured(Report, "How is Rome?", tools=[weather]) == Report(city="Rome", degrees=4)


def test_functions_are_part_of_a_tokenized_conversation(
    tiny: Callable[[], ModelBuilder], build: Build, engines: ScriptedEngines
) -> None:
    model = build(MultiModelBuilder().add_model_with_alias("a", tiny()))
    model.tokenize([{"role": "user", "content": "Hi"}], tools=[weather])
    (asked,) = engines.of("a")[-1].heard(Tokenize)
    assert isinstance(asked, Tokenize)
    assert isinstance(asked.prompt, Chat)
    assert [tool["function"]["name"] for tool in asked.prompt.tools] == ["weather"]
