"""GET /v1/activity, and what is below it: who sees which requests, and what of them."""

from __future__ import annotations

import asyncio
import json
from collections.abc import AsyncIterator
from pathlib import Path
from typing import Any

import pytest
import pytest_asyncio

from modelyard.api.server.activity import activity_object
from modelyard.api.server.activity_stream import ActivityStream
from modelyard.api.services import Services
from modelyard.config import AccessKey
from modelyard.config.key_rules import digest_of
from support.scripted_server import ScriptedServer, scripted_server

WAIT_S = 20
HELLO = {"messages": [{"role": "user", "content": "Hi"}]}


def access_key(name: str, *scopes: str, models: frozenset[str] | None = None) -> AccessKey:
    return AccessKey(name, digest_of(name), models, frozenset(scopes))


KEYS = [
    access_key("alice", "inference", "read"),
    access_key("bob", "inference", "read"),
    access_key("boss", "inference", "read", "admin"),
    access_key("sender", "inference"),
]


def as_key(name: str) -> dict[str, dict[str, str]]:
    return {"headers": {"authorization": f"Bearer {name}"}}


@pytest_asyncio.fixture
async def server(tmp_path: Path) -> AsyncIterator[ScriptedServer]:
    async with scripted_server(tmp_path, keys=KEYS) as server:
        yield server


async def chat(server: ScriptedServer, key: str, **body: Any) -> None:
    answer = await server.client.post("/v1/chat/completions", json={**HELLO, **body}, **as_key(key))
    assert answer.status_code == 200, answer.text


async def activity(server: ScriptedServer, key: str, **query: Any) -> list[dict[str, Any]]:
    answer = await server.client.get("/v1/activity", params=query, **as_key(key))
    assert answer.status_code == 200, answer.text
    return list(answer.json()["data"])


async def test_a_key_sees_its_own_requests_and_admin_all(server: ScriptedServer) -> None:
    await chat(server, "alice", stream=True)
    await chat(server, "bob")
    (own,) = await activity(server, "alice")
    assert own["key"] == "alice"
    assert (own["model"], own["dialect"], own["path"]) == ("m", "openai", "/v1/chat/completions")
    assert (own["state"], own["finish_reason"], own["stream"]) == ("done", "stop", True)
    assert own["arrived_at"] <= own["granted_at"] <= own["ended_at"]
    assert [each["key"] for each in await activity(server, "boss")] == ["bob", "alice"]
    # What is foreign is not there.
    assert [each["key"] for each in await activity(server, "bob")] == ["bob"]
    foreign = await server.client.get(f"/v1/activity/{own['id']}", **as_key("bob"))
    assert (foreign.status_code, foreign.json()["error"]["code"]) == (404, "activity_not_found")
    # No key, nor its digest, is in any answer.
    assert digest_of("alice").hex() not in json.dumps(own)


@pytest.mark.parametrize("path", ["/v1/activity", "/v1/activity/1", "/v1/activity/events", "/v1/models/history"])
async def test_they_need_a_key_with_the_scope_read(server: ScriptedServer, path: str) -> None:
    assert (await server.client.get(path)).status_code == 401
    assert (await server.client.get(path, **as_key("sender"))).status_code == 403


async def test_requests_are_filtered_by_model_and_state_and_the_latest_come_first(server: ScriptedServer) -> None:
    await chat(server, "alice")
    await chat(server, "alice", model="m")
    every = await activity(server, "alice")
    assert [each["id"] for each in await activity(server, "alice", model="m", state="done")] == [
        each["id"] for each in every
    ]
    assert await activity(server, "alice", limit=1) == every[:1]
    assert await activity(server, "alice", state="decode") == []
    unknown = await server.client.get("/v1/activity", params={"model": "x"}, **as_key("alice"))
    assert unknown.status_code == 404
    wrong = await server.client.get("/v1/activity", params={"state": "x"}, **as_key("alice"))
    assert wrong.status_code == 400


async def test_one_request_has_its_phases_in_words(server: ScriptedServer) -> None:
    await chat(server, "alice")
    (own,) = await activity(server, "alice")
    found = (await server.client.get(f"/v1/activity/{own['id']}", **as_key("alice"))).json()
    assert {name: found[name] for name in own} == own
    assert found["phases"][0]["began_at"] == own["arrived_at"]
    assert all(phase["text"].endswith(".") for phase in found["phases"])
    assert found["error_message"] is None


async def test_other_dialects_have_their_names(server: ScriptedServer) -> None:
    await server.client.post("/v1/messages", json={**HELLO, "max_tokens": 5, "model": "m"}, **as_key("alice"))
    await server.client.post("/api/chat", json={**HELLO, "model": "m", "stream": False}, **as_key("alice"))
    await server.client.post("/completion", json={"prompt": "Hi"}, **as_key("alice"))
    assert [each["dialect"] for each in await activity(server, "alice")] == ["llama.cpp", "ollama", "anthropic"]


async def test_the_events_begin_with_a_snapshot_and_go_on_with_changes(server: ScriptedServer) -> None:
    await chat(server, "alice")
    services: Services = server.app.state.services
    frames: asyncio.Queue[bytes] = asyncio.Queue()

    async def send(message: Any) -> None:
        if message.get("body"):
            await frames.put(message["body"])

    async def receive() -> Any:
        await asyncio.Event().wait()

    stream = ActivityStream(services.yard, lambda logged: logged.owner == digest_of("alice"), activity_object, 100)
    following = asyncio.create_task(stream({}, receive, send))
    async with asyncio.timeout(WAIT_S):
        kind, data = (await frames.get()).decode().strip().split("\n")
        assert kind == "event: snapshot"
        assert [each["key"] for each in json.loads(data.removeprefix("data: "))["data"]] == ["alice"]
        await chat(server, "bob")
        await chat(server, "alice")
        kind, data = (await frames.get()).decode().strip().split("\n")
        assert kind == "event: request"
        changed = json.loads(data.removeprefix("data: "))
        assert (changed["key"], changed["id"]) == ("alice", (await activity(server, "alice"))[0]["id"])
        # A server that stops waits for none of its readers.
        services.yard.monitor.dismiss_observers()
        await following


async def test_the_history_tells_when_the_model_was_in_memory(server: ScriptedServer) -> None:
    answer = await server.client.get("/v1/models/history", **as_key("alice"))
    (model,) = answer.json()["data"]
    assert model["model_id"] == "m"
    last = model["intervals"][-1]
    assert (last["state"], last["cause"], last["ended_at"]) == ("loaded", "loaded", None)
    assert last["bytes"]["host"] > 0
    assert last["began_at"] <= answer.json()["as_of"]


async def test_a_key_for_other_models_sees_nothing_of_this_one(tmp_path: Path) -> None:
    keys = [access_key("boss", "inference", "read", "admin"), access_key("other", "read", "admin", models=frozenset())]
    async with scripted_server(tmp_path, keys=keys) as server:
        await chat(server, "boss")
        assert await activity(server, "other") == []
        assert (await server.client.get("/v1/models/history", **as_key("other"))).json()["data"] == []


async def test_texts_are_recorded_only_where_that_is_switched_on(server: ScriptedServer) -> None:
    services: Services = server.app.state.services
    await chat(server, "alice")
    services.yard.monitor.recorder.requests.keeps_texts = True
    await chat(server, "alice", stream=True)
    recorded, earlier = await activity(server, "alice")
    found = (await server.client.get(f"/v1/activity/{recorded['id']}", **as_key("alice"))).json()
    assert found["answer"] == "Hello world"
    before = (await server.client.get(f"/v1/activity/{earlier['id']}", **as_key("alice"))).json()
    assert (before["prompt"], before["answer"]) == (None, None)
    # Who looks is not among those to be seen.
    assert len(await activity(server, "alice")) == 2
    assert (await server.client.get(f"/v1/activity/{recorded['id']}", **as_key("bob"))).status_code == 404
    services.yard.monitor.recorder.requests.keeps_texts = False
    assert "answer" not in (await server.client.get(f"/v1/activity/{recorded['id']}", **as_key("alice"))).json()
