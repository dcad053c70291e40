"""What a program meets when its models call its functions."""

from __future__ import annotations

import asyncio
import json
import threading
from collections.abc import Awaitable, Callable
from contextvars import ContextVar

import pytest
from pydantic import BaseModel

from modelyard import AsyncModel, ModelBuilder, MultiModelBuilder, ToolInfo
from modelyard.errors import ConfigError, ModelNotFound
from modelyard.inprocess.buildable import Buildable
from modelyard.protocol.prompts import Chat
from support.models_in_process import two
from support.program_tools import Build, Weather, broken, clock, submits, weather
from support.scripted_engines import ScriptedEngines
from support.tool_turns import call, messages_of, results_of, turns

WAIT_S = 20.0

USER: ContextVar[str] = ContextVar("USER", default="nobody")


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
    model = build(two(tiny).with_tools([clock]))
    with pytest.raises(ConfigError, match="Two tools are named 'clock'"):
        model.add_model_with_alias("c", tiny().with_tools([clock]))
    assert model.list_models() == ["a", "b"]


def test_rounds_are_bounded(tiny: Callable[[], ModelBuilder], build: Build, engines: ScriptedEngines) -> None:
    engines.answer = turns(call("clock"))
    model = build(MultiModelBuilder().add_model_with_alias("a", tiny()).with_tools([clock]))
    completion = model.send_chat_request("When?", max_tool_rounds=2)
    assert len(completion.agentic_tool_calls or []) == 2
    assert model.send_chat_request("When?", max_tool_rounds=0).agentic_tool_calls is None


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
    model = build(two(tiny).with_tools([ask]))
    assert model.send_chat_request("Outer?").choices[0].message.content == "inner"


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


def test_a_structure_may_be_made_of_what_tools_return(
    tiny: Callable[[], ModelBuilder], build: Build, engines: ScriptedEngines
) -> None:
    class Report(BaseModel):
        city: str
        degrees: int

    engines.answer = turns(call("weather", city="Rome"), "{result}")
    model = build(tiny())
    assert model.generate_structured(Report, "How is Rome?", tools=[weather]) == Report(city="Rome", degrees=4)
