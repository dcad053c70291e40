"""Functions among the tools of a request, beside those of its model and those of the caller."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import pytest

from modelyard import FunctionTool, ModelBuilder, MultiModelBuilder
from modelyard.errors import InvalidRequest
from modelyard.protocol.prompts import Chat, NamedTool
from modelyard.protocol.requests import Tokenize
from support.program_tools import Build, Weather, clock, submits, weather
from support.scripted_engines import ScriptedEngines
from support.tool_turns import call, results_of, turns


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


def test_functions_are_part_of_a_tokenized_conversation(
    tiny: Callable[[], ModelBuilder], build: Build, engines: ScriptedEngines
) -> None:
    model = build(MultiModelBuilder().add_model_with_alias("a", tiny()))
    model.tokenize([{"role": "user", "content": "Hi"}], tools=[weather])
    (asked,) = engines.of("a")[-1].heard(Tokenize)
    assert isinstance(asked, Tokenize)
    assert isinstance(asked.prompt, Chat)
    assert [tool["function"]["name"] for tool in asked.prompt.tools] == ["weather"]
