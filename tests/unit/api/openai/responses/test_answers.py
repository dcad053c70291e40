"""Responses and their events, as the schemas of Open Responses and of OpenAI's client have them."""

from __future__ import annotations

import asyncio
import re
from itertools import groupby
from typing import Any

import openresponses_types.types as open_responses
import pytest
from openai.types.responses import Response
from pydantic import BaseModel

from modelyard.api.openai.responses.response_object import failure_of
from modelyard.engine.settings import DEFAULT_SAMPLING
from modelyard.errors import ContextLengthExceeded, EngineError, InvalidRequest, ModelyardError, QueueFull
from support.scripted_responses import EVENT
from support.scripted_server import ScriptedServer, call

FUNCTION = {"type": "function", "name": "f", "parameters": {"type": "object"}, "strict": False}
CUSTOM = {"type": "custom", "name": "code"}
SHELLS = [{"type": "local_shell"}, {"type": "shell"}, {"type": "apply_patch"}]
SEARCH = {"type": "tool_search", "execution": "client"}
NAMESPACE = {"type": "namespace", "name": "ns", "description": "N.", "tools": [{"type": "function", "name": "g"}]}


def events_of_open_responses() -> dict[str, type[BaseModel]]:
    """The schema of each event by its type."""
    found: dict[str, type[BaseModel]] = {}
    for name, schema in vars(open_responses).items():
        if name.endswith("StreamingEvent"):
            (kind,) = schema.model_fields["type"].annotation
            found[kind.value] = schema
    return found


OPEN_RESPONSES = events_of_open_responses()

# Open Responses names these two otherwise; OpenAI's name is what clients read.
NAMED_BY_OPENAI = {
    "response.reasoning_text.delta": "response.reasoning.delta",
    "response.reasoning_text.done": "response.reasoning.done",
}


def check_open_responses(event: dict[str, Any]) -> None:
    kind = NAMED_BY_OPENAI.get(event["type"], event["type"])
    OPEN_RESPONSES[kind].model_validate({**event, "type": kind})


REQUESTS: dict[str, dict[str, Any]] = {
    "plain": {},
    "all fields": {
        "instructions": "Be brief.",
        "temperature": 0.5,
        "top_p": 1,
        "presence_penalty": 0.5,
        "frequency_penalty": 1,
        "max_output_tokens": 100,
        "max_tool_calls": 3,
        "metadata": {"a": "b"},
        "parallel_tool_calls": False,
        "reasoning": {"effort": "low", "summary": "auto"},
        "safety_identifier": "me",
        "prompt_cache_key": "key",
        "service_tier": "flex",
        "store": False,
        "text": {"format": {"type": "json_object"}, "verbosity": "low"},
        "top_logprobs": 2,
        "truncation": "auto",
        "user": "me",
        "include": ["reasoning.encrypted_content", "message.output_text.logprobs"],
        "stream_options": {"include_obfuscation": True},
    },
    "function": {"tools": [FUNCTION], "tool_choice": {"type": "function", "name": "f"}},
    "allowed": {
        "tools": [FUNCTION],
        "tool_choice": {"type": "allowed_tools", "mode": "auto", "tools": [{"type": "function", "name": "f"}]},
    },
}


@pytest.mark.parametrize("name", REQUESTS)
async def test_every_event_is_valid_for_both(server: ScriptedServer, name: str) -> None:
    server.answers = [["<think>", "Hm.", "</think>", "Let", " me.", call("f", a="b")]]
    events = await server.events(model="m", input="Hi.", **REQUESTS[name])
    assert [event["sequence_number"] for event in events] == list(range(len(events)))
    for event in events:
        EVENT.validate_python(event)
        check_open_responses(event)
    last = events[-1]["response"]
    assert (events[-1]["type"], last["status"]) == ("response.completed", "completed")
    assert last["completed_at"] >= last["created_at"]
    Response.model_validate(last)
    open_responses.ResponseResource.model_validate(last)


async def test_events_come_in_the_order_of_openai(server: ScriptedServer) -> None:
    server.answers = [["<think>", "Hm.", "</think>", "Let", " me.", call("f", a="b")]]
    events = await server.events(model="m", input="Hi.", tools=[FUNCTION])
    kinds = [event["type"].removeprefix("response.") for event in events]
    # However many pieces the text came in.
    assert [kind for kind, _ in groupby(kinds)] == [
        *("created", "in_progress"),
        *("output_item.added", "content_part.added", "reasoning_text.delta", "reasoning_text.done"),
        *("content_part.done", "output_item.done"),
        *("output_item.added", "content_part.added", "output_text.delta", "output_text.done"),
        *("content_part.done", "output_item.done"),
        *("output_item.added", "function_call_arguments.delta", "function_call_arguments.done", "output_item.done"),
        "completed",
    ]


async def test_calls_of_all_tools_come_back_as_their_own_items(server: ScriptedServer) -> None:
    server.answers = [
        [
            call("code", input='print("é")\n'),
            call("local_shell", command=["ls", "-l"], timeout_ms=5),
            call("shell", commands=["ls"]),
            call("apply_patch", type="update_file", path="a", diff="@@"),
            call("tool_search", query="mail"),
            call("ns__g"),
        ]
    ]
    tools = [CUSTOM, *SHELLS, SEARCH, NAMESPACE]
    events = await server.events(model="m", input="Go.", tools=tools)
    for event in events:
        EVENT.validate_python(event)
    output = events[-1]["response"]["output"]
    assert [event["item"] for event in events if event["type"] == "response.output_item.done"] == output
    assert [item["type"] for item in output] == [
        *("custom_tool_call", "local_shell_call", "shell_call", "apply_patch_call", "tool_search_call"),
        "function_call",
    ]
    custom, local_shell, shell, patch, search, function = output
    assert custom["input"] == 'print("é")\n'
    deltas = [event["delta"] for event in events if event["type"] == "response.custom_tool_call_input.delta"]
    assert "".join(deltas) == custom["input"]
    assert local_shell["action"] == {"type": "exec", "command": ["ls", "-l"], "env": {}, "timeout_ms": 5}
    assert shell["action"]["commands"] == ["ls"]
    assert patch["operation"] == {"type": "update_file", "path": "a", "diff": "@@"}
    assert search["arguments"] == {"query": "mail"}
    assert (function["name"], function["namespace"]) == ("g", "ns")
    # Sent back, they are the calls that the model wrote.
    outputs = [{"type": "function_call_output", "call_id": item["call_id"], "output": "Done."} for item in output]
    sent = [{"role": "user", "content": "Go."}, *output, *outputs]
    answer = await server.post("/v1/responses", model="m", input=sent, tools=tools)
    assert answer.status_code == 200, answer.text
    assert "x-modelyard-ignored" not in answer.headers
    _, turn, *results = server.chat.messages
    assert [made["function"]["name"] for made in turn["tool_calls"]] == [
        *("code", "local_shell", "shell", "apply_patch", "tool_search", "ns__g")
    ]
    assert [result["role"] for result in results] == ["tool"] * 6


@pytest.mark.parametrize(
    ("error", "code"),
    [
        (EngineError("m", "a fault"), "server_error"),
        (QueueFull("m", 8), "rate_limit_exceeded"),
        (InvalidRequest("Not so.", "input"), "invalid_prompt"),
        (ContextLengthExceeded(10, 20), "context_length_exceeded"),
    ],
)
def test_a_failed_response_has_a_code_that_clients_know(error: ModelyardError, code: str) -> None:
    failure = failure_of(error)
    assert (failure["code"], failure["type"]) == (code, error.code)
    open_responses.Error1.model_validate(failure)


async def test_a_call_that_its_item_cannot_hold_is_a_call_of_a_function(server: ScriptedServer) -> None:
    server.answers = [[call("shell", commands=7)]]
    answer = await server.post("/v1/responses", model="m", input="Go.", tools=SHELLS)
    (item,) = answer.json()["output"]
    assert (item["type"], item["name"], item["arguments"]) == ("function_call", "shell", '{"commands": 7}')


@pytest.mark.parametrize("function", ["shell", "code"])
async def test_a_call_that_is_none_leaves_its_text_and_nothing_in_progress(
    server: ScriptedServer, function: str
) -> None:
    server.answers = [[call(function, input="a").removesuffix('"a"}}\n</tool_call>')]]
    answer = await server.post("/v1/responses", model="m", input="Go.", tools=[*SHELLS, CUSTOM])
    assert [(item["type"], item["status"]) for item in answer.json()["output"]] == [("message", "completed")]


async def test_reasoning_goes_to_the_client_and_back_encoded(server: ScriptedServer) -> None:
    server.answers = [["<think>", "Hm.", "</think>", "Yes."]]
    asked: dict[str, Any] = {"model": "m", "store": False, "include": ["reasoning.encrypted_content"]}
    answer = await server.post("/v1/responses", input="Hi.", **asked)
    reasoning, message = answer.json()["output"]
    # Some clients keep the encoded form alone.
    kept = {"type": "reasoning", "summary": [], "encrypted_content": reasoning["encrypted_content"]}
    await server.post("/v1/responses", input=[{"role": "user", "content": "Hi."}, kept, message], **asked)
    assert server.chat.messages[1:] == ({"role": "assistant", "content": "Yes.", "reasoning_content": "Hm."},)


async def test_what_has_no_effect_is_named(server: ScriptedServer) -> None:
    answer = await server.post(
        "/v1/responses",
        model="m",
        input=[{"role": "user", "content": "Hi."}, {"type": "web_search_call", "id": "ws", "status": "completed"}],
        tools=[FUNCTION, {"type": "web_search"}],
        tool_choice={"type": "web_search_preview"},
        text={"verbosity": "low"},
        reasoning={"summary": "auto"},
        include=["web_search_call.action.sources", "reasoning.encrypted_content"],
        service_tier="flex",
        context_management=[{"type": "compaction"}],
        prompt_cache_retention="24h",
    )
    assert answer.status_code == 200, answer.text
    assert answer.headers["x-modelyard-ignored"].split(", ") == [
        *("tools[1] (web_search)", "input[1] (web_search_call)", "tool_choice", "text.verbosity", "reasoning.summary"),
        *("include (web_search_call.action.sources)", "service_tier", "context_management"),
        "prompt_cache_retention",
    ]


async def test_fields_that_change_nothing_are_not_named(server: ScriptedServer) -> None:
    answer = await server.post(
        "/v1/responses",
        model="m",
        input="Hi.",
        user="me",
        safety_identifier="me",
        prompt_cache_key="key",
        metadata={"a": "b"},
        service_tier="auto",
        truncation="disabled",
        text={"verbosity": "medium"},
    )
    assert answer.status_code == 200, answer.text
    assert "x-modelyard-ignored" not in answer.headers


@pytest.mark.parametrize(
    ("fields", "param"),
    [
        ({"prompt": {"id": "pmpt_1"}}, "prompt"),
        ({"stream_options": {"include_obfuscation": False}}, "stream_options"),
        ({"previous_response_id": "resp_1", "conversation": "conv_1"}, None),
        ({"background": True, "store": False}, "background"),
        ({"truncation": "some"}, "truncation"),
    ],
)
async def test_what_cannot_be_is_refused_by_its_name(
    server: ScriptedServer, fields: dict[str, Any], param: str | None
) -> None:
    answer = await server.post("/v1/responses", model="m", input="Hi.", **fields)
    assert answer.status_code in (400, 404)
    if param is not None:
        assert answer.json()["error"]["param"] == param


async def test_pieces_of_text_are_padded_only_when_asked(server: ScriptedServer) -> None:
    def paddings(events: list[dict[str, Any]]) -> list[str]:
        return [event.get("obfuscation", "") for event in events if event["type"] == "response.output_text.delta"]

    asked: dict[str, Any] = {"model": "m", "input": "Hi."}
    assert set(paddings(await server.events(**asked))) == {""}
    padded = await server.events(**asked, stream_options={"include_obfuscation": True})
    assert all(re.fullmatch(r"[\w-]{1,16}", padding) for padding in paddings(padded))


async def test_a_conversation_that_is_too_long_loses_its_oldest_turns(server: ScriptedServer) -> None:
    long = "word " * 900
    turns = [{"role": role, "content": long} for role in ("user", "assistant", "user", "assistant", "user")]
    asked: dict[str, Any] = {"model": "m", "input": turns, "instructions": "Be brief."}
    answer = await server.post("/v1/responses", **asked, truncation="auto")
    assert answer.status_code == 200, answer.text
    assert [message["role"] for message in server.chat.messages] == ["system", "user"]
    assert answer.headers["x-modelyard-ignored"] == "input (4 oldest turns)"


async def test_a_response_in_the_background_is_never_told_as_failed_while_it_is_generated(
    server: ScriptedServer,
) -> None:
    made = (await server.post("/v1/responses", model="m", input="Hi.", background=True)).json()
    assert made["status"] == "queued"
    found = made
    async with asyncio.timeout(20):
        while found["status"] in ("queued", "in_progress"):
            found = (await server.client.get(f"/v1/responses/{made['id']}")).json()
    assert (found["status"], found["error"]) == ("completed", None)
    stored = (await server.client.get(f"/v1/responses/{made['id']}")).json()
    assert stored == found


async def test_penalties_of_a_request_are_sampled_with(server: ScriptedServer) -> None:
    await server.post("/v1/responses", model="m", input="Hi.", presence_penalty=0.5, frequency_penalty=1)
    sampling = server.asked[-1].sampling
    assert (sampling.presence_penalty, sampling.frequency_penalty) == (0.5, 1)


async def test_a_response_tells_the_sampling_that_applies(server: ScriptedServer) -> None:
    answer = (await server.post("/v1/responses", model="m", input="Hi.")).json()
    names = ("temperature", "top_p", "presence_penalty", "frequency_penalty")
    assert [answer[name] for name in names] == [getattr(DEFAULT_SAMPLING, name) for name in names]


async def test_tokens_are_counted_without_an_answer(server: ScriptedServer) -> None:
    answer = await server.post("/v1/responses/input_tokens", model="m", input="one two three", instructions="four")
    assert answer.json() == {"object": "response.input_tokens", "input_tokens": 4}
    assert server.asked == []


async def test_a_conversation_is_compacted_and_goes_on(server: ScriptedServer) -> None:
    server.answers = [["They said hello."]]
    said = [{"role": "user", "content": "Hi."}, {"role": "assistant", "content": "Hello!"}]
    compacted = (await server.post("/v1/responses/compact", model="m", input=said)).json()
    open_responses.CompactResource.model_validate(compacted)
    assert [item["type"] for item in compacted["output"]] == ["message", "compaction"]
    await server.post("/v1/responses", model="m", input=[*compacted["output"], {"role": "user", "content": "Go on."}])
    contents = [message["content"] for message in server.chat.messages]
    assert contents == ["Hi.", "Summary of the conversation so far:\n\nThey said hello.", "Go on."]


async def test_a_conversation_that_is_too_long_is_compacted_and_what_was_left_out_is_listed(
    server: ScriptedServer,
) -> None:
    long = "word " * 900
    said = [{"role": role, "content": long} for role in ("user", "assistant", "user")]
    answer = await server.post("/v1/responses/compact", model="m", input=said)
    assert answer.status_code == 200, answer.text
    assert answer.headers["x-modelyard-ignored"] == "input (2 oldest turns)"
    # The last question is still there to be summarised, before the task.
    assert [message["content"] for message in server.chat.messages][:-1] == [long]


async def test_no_conversation_is_compacted_to_nothing(server: ScriptedServer) -> None:
    server.answers = [["<think>", "Hm.", "</think>", " \n"]]
    answer = await server.post("/v1/responses/compact", model="m", input="Hi.")
    assert (answer.status_code, answer.json()["error"]["code"]) == (500, "engine_error")
    assert "no summary" in answer.json()["error"]["message"]
    assert server.chat.options["enable_thinking"] is False


def nested(depth: int) -> Any:
    value: Any = {}
    for _ in range(depth):
        value = {"properties": value}
    return value


@pytest.mark.parametrize(
    "fields",
    [
        {"tools": [{"type": "function", "name": "f", "parameters": nested(300)}]},
        {"input": [{"role": "user", "content": "hi", "note": nested(300)}]},
        {"input": [{"type": "function_call", "call_id": "c", "name": "f", "arguments": nested(300)}]},
    ],
)
async def test_what_nests_too_deeply_to_be_returned_is_refused(server: ScriptedServer, fields: dict[str, Any]) -> None:
    answer = await server.post("/v1/responses", **{"model": "m", "input": "Go.", **fields})
    assert (answer.status_code, answer.json()["error"]["code"]) == (400, "invalid_request")
