"""Tools that the server runs, through the official client: with a real model, and when clients leave."""

from __future__ import annotations

import asyncio
import json
from collections.abc import Iterator, Mapping
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any, Final

import httpx
import pytest

from modelyard.agent.tools import ReportProgress, ServerTool, ToolResult
from modelyard.config import Config, Server, validate_config
from modelyard.protocol.requests import Submit
from support.scripted_engines import ScriptedEngines
from support.scripted_server import HERMES, call
from support.scripted_tools import Gate, ScriptedTools, add, server_tool
from support.server import RunningServer, serving

PARAMETERS: Final = {
    "type": "object",
    "properties": {"city": {"enum": ["Oslo", "Rome"]}},
    "required": ["city"],
    "additionalProperties": False,
}
QUESTION: Final = [{"role": "user", "content": "What is the weather in Oslo?"}]
CHOSEN: Final = {"type": "function", "function": {"name": "weather"}}


async def weather(arguments: Mapping[str, Any], _report: ReportProgress) -> ToolResult:
    """Say the weather."""
    return ToolResult(f"It rains in {arguments['city']}.")


def config_of(weights: dict[str, Path]) -> Config:
    return validate_config(
        {"models": [{"model_id": str(weights["smollm2"]), "alias": "smollm2", "device": {"max_seq_len": 2048}}]}
    )


@pytest.fixture(scope="module")
def real(weights: dict[str, Path]) -> Iterator[RunningServer]:
    tool = ServerTool("weather", "sky", "weather", "Return the weather of a city.", PARAMETERS, weather)
    with serving(config_of(weights), tools=[ScriptedTools(tool)]) as server:
        yield server


def asked(**more: Any) -> dict[str, Any]:
    return {
        "model": "smollm2",
        "messages": QUESTION,
        "tool_choice": CHOSEN,
        "max_tokens": 120,
        "temperature": 0,
        **more,
    }


class TestARealModel:
    def test_answers_with_what_the_tool_gave(self, real: RunningServer) -> None:
        with real.client() as client:
            answer = client.chat.completions.create(**asked())
        (made,) = answer.agentic_tool_calls
        assert (made["name"], made["server"], made["is_error"]) == ("weather", "sky", False)
        city = json.loads(made["arguments"])["city"]
        assert made["result"] == f"It rains in {city}."
        (choice,) = answer.choices
        assert choice.message.content
        assert not choice.message.tool_calls
        assert answer.usage.completion_tokens <= 120

    def test_streams_its_answer_and_its_calls(self, real: RunningServer) -> None:
        with real.client() as client:
            content, phases = "", []
            for chunk in client.chat.completions.create(**asked(), stream=True):
                content += chunk.choices[0].delta.content or ""
                if news := getattr(chunk, "agentic_tool_call_progress", None):
                    phases.append(news["phase"])
        assert content
        assert phases == ["calling", "complete"]

    def test_the_clients_own_reader_of_streams_takes_it(self, real: RunningServer) -> None:
        with real.client() as client, client.chat.completions.stream(**asked()) as stream:
            final = stream.get_final_completion()
        assert final.choices[0].message.content
        assert final.choices[0].finish_reason in ("stop", "length")

    def test_a_round_computes_only_what_is_new(self, real: RunningServer) -> None:
        with real.client() as client:
            usage = client.chat.completions.create(**asked()).usage
        # The prompt of the second round begins with the one of the first.
        assert usage.prompt_tokens_details.cached_tokens > usage.prompt_tokens / 4


@pytest.fixture
def gate() -> Gate:
    return Gate()


@pytest.fixture
def scripted(weights: dict[str, Path], gate: Gate) -> Iterator[RunningServer]:
    """A model that calls the tool ``gate`` in its first round, unless its question says otherwise."""

    def answer(submit: Submit) -> list[str]:
        prompt: Any = submit.prompt
        return [call("calc_gate")] if prompt.messages[-1]["content"] == "wait" else ["Hello", " world"]

    engines = ScriptedEngines(answer=answer, output_format=HERMES)
    source = ScriptedTools(server_tool("gate", gate))
    with serving(config_of(weights), engines.make_handle, tools=[source]) as server:
        yield server
    assert engines.end()


async def _leave(server: RunningServer, gate: Gate, count: int, *, stream: bool) -> None:
    """Ask for answers whose tool hangs, and hang up once all of their tools run."""
    body = {"messages": [{"role": "user", "content": "wait"}], "stream": stream}
    async with httpx.AsyncClient(base_url=server.url, timeout=60) as client:
        requests = [asyncio.create_task(client.post("/v1/chat/completions", json=body)) for _ in range(count)]
        started = asyncio.run_coroutine_threadsafe(gate.wait_for(started=count), server.loop)
        await asyncio.wrap_future(started)
        # Others are answered meanwhile.
        other = await client.post("/v1/chat/completions", json={"messages": [{"role": "user", "content": "hi"}]})
        assert other.json()["choices"][0]["message"]["content"] == "Hello world"
        for request in requests:
            request.cancel()
        await asyncio.gather(*requests, return_exceptions=True)


@pytest.mark.parametrize("stream", [True, False], ids=["streamed", "whole"])
def test_ten_clients_that_leave_cancel_their_hanging_tools(scripted: RunningServer, gate: Gate, stream: bool) -> None:
    asyncio.run(_leave(scripted, gate, 10, stream=stream))
    scripted.call(gate.wait_for(cancelled=10))
    scripted.settle()
    metrics = scripted.get("/metrics").text
    assert 'modelyard_tool_calls_total{outcome="cancelled",server="calc",tool="gate"} 10.0' in metrics
    assert 'modelyard_requests_running{model="smollm2"} 0.0' in metrics


def test_events_show_calls_that_wait_until_the_server_stops(weights: dict[str, Path]) -> None:
    engines = ScriptedEngines(answer=lambda _: [call("calc_add")], output_format=HERMES)
    source = ScriptedTools(server_tool("add", add, needs_approval=True))
    with (
        ThreadPoolExecutor(1) as pool,
        serving(config_of(weights), engines.make_handle, tools=[source]) as server,
        httpx.stream("GET", f"{server.url}/v1/agent/approvals/events", timeout=60) as answer,
    ):
        lines = (line for line in answer.iter_lines() if line.startswith("data: "))
        body = {"messages": QUESTION, "max_tool_rounds": 1}
        asked = pool.submit(server.post, "/v1/chat/completions", body)
        waiting = json.loads(next(lines).removeprefix("data: "))
        assert (waiting["tool"], waiting["status"]) == ("calc_add", "waiting")
        server.post(f"/v1/agent/approvals/{waiting['id']}", {"decision": "deny"})
        assert json.loads(next(lines).removeprefix("data: "))["status"] == "denied"
        assert asked.result(60).status_code == 200
        server.call(server.yard.close())
        assert list(lines) == []
    assert engines.end()


def test_a_key_watches_its_own_calls_alone(weights: dict[str, Path]) -> None:
    def answer(submit: Submit) -> list[str]:
        prompt: Any = submit.prompt
        return ["Done."] if prompt.messages[-1]["role"] == "tool" else [call("calc_add")]

    def watched(server: RunningServer, key: str) -> Any:
        headers = {"authorization": f"Bearer {key}"}
        return httpx.stream("GET", f"{server.url}/v1/agent/approvals/events", headers=headers, timeout=60)

    def events(stream: httpx.Response) -> Iterator[tuple[str, str]]:
        lines = (line for line in stream.iter_lines() if line.startswith("data: "))
        return ((each["id"], each["status"]) for each in (json.loads(line.removeprefix("data: ")) for line in lines))

    engines = ScriptedEngines(answer=answer, output_format=HERMES)
    source = ScriptedTools(server_tool("add", add, needs_approval=True))
    keys = [{"key": "alice"}, {"key": "bob"}, {"key": "root", "scopes": ["inference", "admin"]}]
    config = config_of(weights).model_copy(update={"server": Server.model_validate({"keys": keys})})
    with (
        ThreadPoolExecutor(2) as pool,
        serving(config, engines.make_handle, tools=[source]) as server,
        watched(server, "alice") as of_alice,
        watched(server, "bob") as of_bob,
        watched(server, "root") as of_root,
    ):

        def post(path: str, key: str, body: dict[str, Any]) -> httpx.Response:
            headers = {"authorization": f"Bearer {key}"}
            return httpx.post(f"{server.url}{path}", headers=headers, json=body, timeout=60)

        seen = {"alice": events(of_alice), "bob": events(of_bob)}
        all_seen = events(of_root)
        for key, other in (("alice", "bob"), ("bob", "alice")):
            asked = pool.submit(post, "/v1/chat/completions", key, {"messages": QUESTION})
            # Were the first key's call shown to the second, it would stand here.
            approval, status = next(seen[key])
            assert (status, next(all_seen)) == ("waiting", (approval, "waiting"))
            path = f"/v1/agent/approvals/{approval}"
            assert post(path, other, {"decision": "deny"}).status_code == 404
            assert post(path, key, {"decision": "approve"}).status_code == 200
            assert (next(seen[key]), next(all_seen)) == ((approval, "approved"), (approval, "approved"))
            assert asked.result(60).status_code == 200
        server.call(server.yard.close())
        assert [list(each) for each in (*seen.values(), all_seen)] == [[], [], []]
    assert engines.end()


def test_a_silent_stream_keeps_its_connection_while_a_tool_runs(
    scripted: RunningServer, gate: Gate, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("modelyard.api.serving.agent.QUIET_S", 0.01)
    monkeypatch.setattr("modelyard.api.serving.streaming.KEEP_ALIVE_S", 0.01)
    body = {"messages": [{"role": "user", "content": "wait"}], "stream": True}
    with httpx.stream("POST", f"{scripted.url}/v1/chat/completions", json=body, timeout=60) as answer:
        lines = answer.iter_lines()
        assert any(line == ": keep-alive" for line in lines)
        scripted.loop.call_soon_threadsafe(gate.open)
        # The result asks the model to answer.
        assert any("Hello world" in line or '" world"' in line for line in lines)
