"""Requests over HTTP use the functions of the program that serves."""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from pathlib import Path

import httpx

from modelyard import ModelBuilder, MultiModelBuilder, create_app, from_config, start_server
from support.program_tools import Build, weather
from support.scripted_engines import ScriptedEngines

WAIT_S = 20.0


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
