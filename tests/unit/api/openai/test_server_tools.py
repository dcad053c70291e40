"""Chat completions whose model calls tools of the server: rounds, what the client reads, and how it is switched off."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Mapping
from pathlib import Path
from typing import Any

import httpx
import pytest
import pytest_asyncio

from modelyard.agent.tools import ReportProgress, ToolProgress, ToolResult
from modelyard.api.ollama.encoder import OllamaEncoder
from modelyard.api.openai.chat_agent_encoder import ChatAgentEncoder
from modelyard.api.openai.chunks import Identity
from modelyard.api.openai.responses.encoder import ResponseEncoder
from modelyard.api.openai.responses.schema import ResponsesRequest
from modelyard.api.openai.schema import ChatCompletionRequest
from modelyard.api.serving.agent_encoder import AgentAnswer, AgentEncoder, RoundMessage
from modelyard.config import AccessKey
from modelyard.config.key_rules import digest_of
from modelyard.protocol.deltas import Message
from modelyard.protocol.events import Finished
from modelyard.protocol.prompts import Chat, Sampling
from modelyard.protocol.values import SequenceId, TokenLogprob, Usage
from modelyard.yard.requests.token_stream import TokenStream
from support.scripted_chats import SUM, USER, chat, chunks, news_of, text_of
from support.scripted_server import ScriptedServer, call, scripted_server
from support.scripted_tools import Gate, ScriptedTools, add, fail, server_tool

WEATHER = {"type": "function", "function": {"name": "weather", "parameters": {"type": "object"}}}


async def measured(arguments: Mapping[str, Any], report: ReportProgress) -> ToolResult:
    """Add two numbers, and report it."""
    report(ToolProgress(1, 2, "half"))
    await asyncio.sleep(0)
    return await add(arguments, report)


@pytest.fixture
def gate() -> Gate:
    return Gate()


@pytest_asyncio.fixture
async def server(tmp_path: Path, gate: Gate) -> AsyncIterator[ScriptedServer]:
    source = ScriptedTools(
        server_tool("add", add),
        server_tool("measured", measured),
        server_tool("fail", fail),
        server_tool("gate", gate),
        server_tool("guarded", add, needs_approval=True),
    )
    async with scripted_server(tmp_path, tools=[source]) as server:
        yield server


async def test_the_server_runs_what_the_model_calls_until_the_answer_is_there(server: ScriptedServer) -> None:
    server.answers = [["I add. ", SUM], ["It is", " 3."]]
    answer = await chat(server)
    (choice,) = answer["choices"]
    assert choice["message"] == {"role": "assistant", "content": "I add.\n\nIt is 3.", "refusal": None}
    assert choice["finish_reason"] == "stop"
    (made,) = answer["agentic_tool_calls"]
    assert {**made, "id": 0, "duration_ms": 0} == {
        "index": 0,
        "id": 0,
        "name": "calc_add",
        "server": "calc",
        "arguments": '{"a": 1, "b": 2}',
        "result": "3",
        "is_error": False,
        "round": 0,
        "duration_ms": 0,
    }
    *_, turn, result = server.chat.messages
    assert turn["content"] == "I add."
    assert turn["tool_calls"][0]["id"] == result["tool_call_id"] == made["id"]
    assert (result["role"], result["name"], result["content"]) == ("tool", "calc_add", "3")


async def test_the_usage_is_that_of_all_rounds(server: ScriptedServer) -> None:
    server.answers = [[SUM], ["It", " is", " 3."]]
    usage = (await chat(server))["usage"]
    assert (usage["prompt_tokens"], usage["completion_tokens"]) == (6, 4)


async def test_a_stream_reports_each_call_in_chunks_that_every_client_reads(server: ScriptedServer) -> None:
    server.answers = [["I add. ", call("calc_measured", a=1, b=2)], ["It is 3."]]
    read = await chunks(server, stream_options={"include_usage": True})
    assert text_of(read) == "I add.\n\nIt is 3."
    assert [news["phase"] for news in news_of(read)] == ["calling", "running", "complete"]
    begun, running, ended = news_of(read)
    assert (begun["tool_name"], begun["server"], begun["round"]) == ("calc_measured", "calc", 0)
    assert begun["data"] == {"tool_type": "custom", "arguments": '{"a": 1, "b": 2}'}
    assert running["data"] == {"tool_type": "custom", "progress": 1, "total": 2, "message": "half"}
    assert (ended["data"]["content"], ended["data"]["is_error"]) == ("3", False)
    assert all(chunk["object"] == "chat.completion.chunk" for chunk in read)
    *_, last, usage = read
    assert last["choices"][0]["finish_reason"] == "stop"
    assert usage["usage"]["prompt_tokens"] == 6
    assert all(len(chunk["choices"]) == 1 for chunk in read[:-1])


async def test_calls_of_one_turn_run_at_the_same_time(server: ScriptedServer, gate: Gate) -> None:
    server.answers = [[call("calc_gate"), call("calc_gate"), SUM], ["Done."]]
    asked = asyncio.create_task(chat(server))
    await gate.wait_for(started=2)
    gate.open()
    answer = await asked
    assert [made["result"] for made in answer["agentic_tool_calls"]] == ["3", "open", "open"]
    results = [message["content"] for message in server.chat.messages if message["role"] == "tool"]
    assert results == ["open", "open", "3"]


@pytest.mark.parametrize(
    ("written", "read"),
    [
        (call("calc_fail"), "The disk is full."),
        (call("calc_nothing"), "There is no tool 'calc_nothing'."),
    ],
)
async def test_what_goes_wrong_is_a_result_that_the_model_reads(
    server: ScriptedServer, written: str, read: str
) -> None:
    server.answers = [[written], ["Sorry."]]
    answer = await chat(server)
    assert answer["choices"][0]["message"]["content"] == "Sorry."
    assert server.chat.messages[-1]["content"].startswith(read)


async def test_calls_of_the_clients_tools_end_the_answer_after_the_servers_have_run(server: ScriptedServer) -> None:
    server.answers = [["I look. ", SUM, call("weather", city="Rome")]]
    answer = await chat(server, tools=[WEATHER])
    (choice,) = answer["choices"]
    assert choice["finish_reason"] == "tool_calls"
    (made,) = choice["message"]["tool_calls"]
    assert made["function"] == {"name": "weather", "arguments": '{"city": "Rome"}'}
    assert [each["result"] for each in answer["agentic_tool_calls"]] == ["3"]
    assert len(server.asked) == 1


async def test_a_stream_numbers_the_calls_of_the_client_from_0(server: ScriptedServer) -> None:
    server.answers = [[SUM, call("weather", city="Rome"), call("weather", city="Oslo")]]
    read = await chunks(server, tools=[WEATHER])
    deltas = [delta for chunk in read for delta in chunk["choices"][0]["delta"].get("tool_calls", ())]
    assert [(delta["index"], delta["function"]["arguments"]) for delta in deltas if delta["function"]["arguments"]] == [
        (0, '{"city": "Rome"}'),
        (1, '{"city": "Oslo"}'),
    ]
    assert read[-1]["choices"][0]["finish_reason"] == "tool_calls"


async def test_what_the_servers_tools_gave_is_there_when_the_client_returns_its_results(server: ScriptedServer) -> None:
    server.answers = [["I add. ", SUM], ["I look. ", SUM, call("weather", city="Rome")], ["3, and rain."]]
    answer = await chat(server, tools=[WEATHER])
    message = answer["choices"][0]["message"]
    result = {"role": "tool", "tool_call_id": message["tool_calls"][0]["id"], "content": "rain"}
    again = await chat(server, USER, message, result, tools=[WEATHER])
    assert again["choices"][0]["message"]["content"] == "3, and rain."
    user, first, first_sum, second, second_sum, weather = server.chat.messages
    assert (user["role"], first["content"], second["content"]) == ("user", "I add.", "I look.")
    assert [each["content"] for each in (first_sum, second_sum, weather)] == ["3", "3", "rain"]
    assert [each["function"]["name"] for each in second["tool_calls"]] == ["calc_add", "weather"]


@pytest.mark.parametrize("path", ["/v1/chat/completions", "/api/chat"])
async def test_it_is_there_as_well_where_the_model_may_call_no_further_tools(server: ScriptedServer, path: str) -> None:
    server.answers = [[SUM, call("weather", city="Rome")], ["3, and rain."]]
    body: dict[str, Any] = {"model": "m", "tools": [WEATHER], "stream": False}
    answer = (await server.post(path, messages=[USER], **body)).json()
    message = answer["message"] if path == "/api/chat" else answer["choices"][0]["message"]
    result = {"role": "tool", "content": "rain"}
    if path != "/api/chat":
        result["tool_call_id"] = message["tool_calls"][0]["id"]
    last = {**body, "messages": [USER, message, result]}
    assert (await server.client.post(path, json=last, headers={"x-tools": "off"})).status_code == 200
    assert [turn["content"] for turn in server.chat.messages if turn["role"] == "tool"] == ["3", "rain"]
    assert server.offered == ["weather"]


async def test_a_tool_of_the_client_takes_the_name_of_one_of_the_servers(server: ScriptedServer) -> None:
    own = {"type": "function", "function": {"name": "calc_add", "parameters": {"type": "object"}}}
    server.answers = [[SUM]]
    answer = await chat(server, tools=[own])
    assert answer["choices"][0]["finish_reason"] == "tool_calls"
    assert server.offered.count("calc_add") == 1


async def test_rounds_are_bounded_and_the_last_one_has_no_tools_of_the_server(server: ScriptedServer) -> None:
    server.answers = [[SUM], [call("calc_fail")], ["Enough."]]
    answer = await chat(server, max_tool_rounds=2, tools=[WEATHER])
    assert answer["choices"][0]["message"]["content"] == "Enough."
    assert [made["round"] for made in answer["agentic_tool_calls"]] == [0, 1]
    assert server.offered == ["weather"]


async def test_identical_failing_calls_end_with_the_rounds(server: ScriptedServer) -> None:
    server.answers = [[call("calc_fail")]]
    answer = await chat(server, max_tool_rounds=3)
    assert len(answer["agentic_tool_calls"]) == 3
    assert len(server.asked) == 4
    assert server.chat.tool_choice == "none"


async def test_the_tokens_of_all_rounds_count_against_max_tokens(server: ScriptedServer) -> None:
    server.answers = [["a", "b", SUM], ["c"]]
    await chat(server, max_tokens=10)
    assert [submit.max_tokens for submit in server.asked] == [10, 7]
    server.asked.clear()
    server.answers = [["a", "b", SUM], ["c"]]
    answer = await chat(server, max_tokens=3)
    assert answer["choices"][0]["finish_reason"] == "length"
    assert (len(server.asked), answer["agentic_tool_calls"]) == (1, [])


@pytest.mark.parametrize(
    "choice", ["required", {"type": "function", "function": {"name": "calc_add"}}], ids=["required", "named"]
)
async def test_a_demanded_call_is_demanded_once(server: ScriptedServer, choice: Any) -> None:
    server.answers = [[SUM], ["It is 3."]]
    answer = await chat(server, tool_choice=choice)
    assert answer["choices"][0]["message"]["content"] == "It is 3."
    first, second = (submit.prompt for submit in server.asked)
    assert first.tool_choice != "auto"
    assert second.tool_choice == "auto"


async def test_allowed_tools_may_be_those_of_the_server(server: ScriptedServer) -> None:
    allowed = {"mode": "auto", "tools": [{"type": "function", "function": {"name": "calc_add"}}]}
    await chat(server, tool_choice={"type": "allowed_tools", "allowed_tools": allowed}, tools=[WEATHER])
    assert server.offered == ["calc_add"]


@pytest.mark.parametrize(
    "fields",
    [{"tool_choice": "none"}, {"max_tool_rounds": 0}, {"agent_permission": "deny"}],
    ids=lambda fields: next(iter(fields)),
)
async def test_a_request_does_without_the_tools_of_the_server(server: ScriptedServer, fields: dict[str, Any]) -> None:
    answer = await chat(server, **fields)
    assert "agentic_tool_calls" not in answer
    assert server.chat.tools == ()


async def test_a_header_switches_the_tools_of_the_server_off(server: ScriptedServer) -> None:
    body = {"messages": [USER]}
    answer = await server.client.post("/v1/chat/completions", json=body, headers={"X-Tools": "off"})
    assert (answer.status_code, server.chat.tools) == (200, ())
    refused = await server.client.post("/v1/chat/completions", json=body, headers={"X-Tools": "some"})
    assert (refused.status_code, refused.json()["error"]["param"]) == (400, "X-Tools")


async def test_a_tool_that_does_not_exist_cannot_be_demanded(server: ScriptedServer) -> None:
    named = {"type": "function", "function": {"name": "calc_add"}}
    for fields in ({"tool_choice": {"type": "function", "function": {"name": "nothing"}}}, {"max_tool_rounds": 0}):
        answer = await server.post("/v1/chat/completions", messages=[USER], **{"tool_choice": named, **fields})
        assert (answer.status_code, answer.json()["error"]["param"]) == (400, "tool_choice")


async def test_every_choice_has_calls_of_its_own(server: ScriptedServer) -> None:
    server.answers = [[SUM], [SUM], ["3."], ["3."]]
    answer = await chat(server, n=2)
    assert [choice["message"]["content"] for choice in answer["choices"]] == ["3.", "3."]
    assert sorted(made["index"] for made in answer["agentic_tool_calls"]) == [0, 1]
    server.answers = [[SUM], [SUM], ["3."], ["3."]]
    read = await chunks(server, n=2)
    ends = [chunk["choices"][0] for chunk in read if chunk["choices"][0]["finish_reason"]]
    assert sorted(end["index"] for end in ends) == [0, 1]


# Keys


async def test_an_answer_counts_against_the_limits_of_its_key_from_its_first_round_to_its_last(tmp_path: Path) -> None:
    gate, scopes = Gate(), frozenset({"inference"})
    # The first round takes them all.
    key = AccessKey("alice", digest_of("alice"), None, scopes, tokens_per_minute=4, max_concurrent=1)
    source = ScriptedTools(server_tool("gate", gate))
    async with scripted_server(tmp_path, tools=[source], keys=[key]) as server:
        headers = {"authorization": "Bearer alice"}

        async def asked() -> httpx.Response:
            body = {"messages": [USER]}
            return await server.client.post("/v1/chat/completions", json=body, headers=headers)

        server.answers = [[call("calc_gate")], ["Done."]]
        answering = asyncio.create_task(asked())
        await gate.wait_for(started=1)
        assert (await asked()).status_code == 429
        gate.open()
        answer = await answering
        assert (answer.status_code, answer.json()["choices"][0]["message"]["content"]) == (200, "Done.")
        assert answer.json()["usage"]["total_tokens"] == 8
        late = await asked()
        assert (late.status_code, late.json()["error"]["code"]) == (429, "rate_limit_exceeded")


async def test_what_was_kept_for_one_key_is_not_given_to_another(tmp_path: Path) -> None:
    keys = [AccessKey(name, digest_of(name), None, frozenset({"inference"})) for name in ("alice", "bob")]
    async with scripted_server(tmp_path, tools=[ScriptedTools(server_tool("add", add))], keys=keys) as server:
        server.answers = [[SUM], [call("weather")], ["Done."]]
        alice, bob = ({"authorization": f"Bearer {key.name}"} for key in keys)
        body: dict[str, Any] = {"messages": [USER], "tools": [WEATHER]}
        answer = await server.client.post("/v1/chat/completions", json=body, headers=alice)
        message = answer.json()["choices"][0]["message"]
        body["messages"] = [USER, message, {"role": "tool", "tool_call_id": message["tool_calls"][0]["id"]}]
        for headers, turns in ((bob, 3), (alice, 5)):
            await server.client.post("/v1/chat/completions", json=body, headers=headers)
            assert len(server.chat.messages) == turns


# What is shown


async def test_the_list_of_tools_has_what_a_model_may_call(server: ScriptedServer) -> None:
    tools = (await server.client.get("/v1/agent/tools")).json()["data"]
    assert [tool["name"] for tool in tools][:2] == ["calc_add", "calc_measured"]
    guarded = tools[-1]
    assert (guarded["server"], guarded["own_name"], guarded["needs_approval"]) == ("calc", "guarded", True)
    assert (await server.client.get("/v1/agent/tools", params={"model": "x"})).status_code == 404


async def test_the_list_of_models_counts_tools_of_mcp_servers_alone(tmp_path: Path) -> None:
    own, connected = ScriptedTools(server_tool("add", add)), ScriptedTools(server_tool("fail", fail), connected=3)
    async with scripted_server(tmp_path, tools=[own, connected]) as server:
        (model,) = (await server.client.get("/v1/models")).json()["data"]
        one = (await server.client.get("/v1/models/m")).json()
    for shown in (model, one):
        assert (shown["tools_available"], shown["mcp_tools_count"], shown["mcp_servers_connected"]) == (True, 1, 3)


async def test_the_list_of_models_says_nothing_of_tools_where_there_are_none(tmp_path: Path) -> None:
    async with scripted_server(tmp_path) as server:
        (model,) = (await server.client.get("/v1/models")).json()["data"]
    assert not {"tools_available", "mcp_tools_count", "mcp_servers_connected"} & set(model)


async def test_metrics_and_log_name_the_tool_and_never_its_arguments(
    server: ScriptedServer, caplog: pytest.LogCaptureFixture
) -> None:
    server.answers = [[SUM, call("calc_fail", secret="xyzzy")], ["3."]]
    with caplog.at_level("INFO", "modelyard.agent"):
        await chat(server)
    lines = [record.getMessage() for record in caplog.records if record.name.startswith("modelyard.agent")]
    assert sorted(line.split(" duration=")[0] for line in lines) == [
        "tool=add server=calc model=m round=0 outcome=ok",
        "tool=fail server=calc model=m round=0 outcome=error",
    ]
    assert "xyzzy" not in caplog.text
    metrics = (await server.client.get("/metrics")).text
    assert 'modelyard_tool_calls_total{outcome="error",server="calc",tool="fail"} 1.0' in metrics
    assert 'modelyard_tool_seconds_count{server="calc",tool="add"} 1.0' in metrics


def test_a_whole_answer_has_the_log_probabilities_of_all_rounds() -> None:
    # The call between the rounds names no tool: nothing became of it.
    parts = RoundMessage(Message("a"), 0), RoundMessage(Message("b"), 1)
    chat, ended = Chat(()), AgentAnswer(parts, Finished(SequenceId(1), "stop", Usage(1, 2, 0)), calls_client=False)

    def choice_of(encoder: AgentEncoder) -> Any:
        first, second = TokenStream("m"), TokenStream("m")
        first.logprobs, second.logprobs = [TokenLogprob(b"a", -1.0, ())], [TokenLogprob(b"b", -2.0, ())]
        encoder.open(first)
        encoder.next_round(second)
        return encoder.agent_choice(ended)

    body = ChatCompletionRequest.model_validate({"messages": "Hi", "logprobs": True})
    choice = choice_of(ChatAgentEncoder(body, chat, Identity("chatcmpl"), 0, []))
    assert [each["token"] for each in choice["logprobs"]["content"]] == ["a", "b"]
    ollama = OllamaEncoder(chat, None, is_chat=True)
    whole = ollama.whole([choice_of(ollama)], [ended.finished])
    assert [each["token"] for each in whole["logprobs"]] == ["a", "b"]
    asked = ResponsesRequest.model_validate({"input": "Hi", "top_logprobs": 0})
    response = choice_of(ResponseEncoder(asked, chat, {}, Sampling(), lambda _: None))
    written = [item["content"][0] for item in response["output"]]
    assert [(part["text"], [each["token"] for each in part["logprobs"]]) for part in written] == [
        ("a", ["a"]),
        ("b", ["b"]),
    ]
