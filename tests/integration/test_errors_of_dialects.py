"""Errors are in the shape of the dialect that was spoken: before the route, in it, and after the stream began."""

from __future__ import annotations

import http.client
import json
from collections.abc import Iterator
from pathlib import Path
from typing import Any, Final
from urllib.parse import urlsplit

import httpx
import pytest

from conftest import two_models
from modelyard.api.middleware.body_intake import MAX_BODY_BYTES
from modelyard.config import Server
from support.scripted_engines import ScriptedEngines
from support.server import WAIT_S, RunningServer, serving

KEY: Final = "the-key"
TURN: Final = [{"role": "user", "content": "Hi"}]

OPENAI: Final = {
    "/v1/chat/completions": {"messages": TURN},
    "/v1/completions": {"prompt": "Hi"},
    "/v1/embeddings": {"input": "Hi"},
    "/v1/responses": {"input": "Hi"},
    "/tokenize": {"content": "Hi"},
    "/v1/detokenize": {"tokens": [1]},
    "/models/load": {},
}
ANTHROPIC: Final = {
    "/v1/messages": {"messages": TURN, "max_tokens": 8},
    "/v1/messages/count_tokens": {"messages": TURN},
}
OLLAMA: Final = {
    "/api/chat": {"messages": TURN},
    "/api/generate": {"prompt": "Hi"},
    "/api/embed": {"input": "Hi"},
    "/api/embeddings": {"prompt": "Hi"},
    "/api/show": {},
}
BODIES: Final[dict[str, dict[str, Any]]] = {**OPENAI, **ANTHROPIC, **OLLAMA}
PATHS: Final = [*BODIES, "/v1/nothing", "/v1/messages/nothing", "/api/status"]
STREAMS: Final = [
    "/v1/chat/completions",
    "/v1/completions",
    "/v1/responses",
    "/v1/messages",
    "/api/chat",
    "/api/generate",
]


@pytest.fixture(scope="module")
def engines() -> Iterator[ScriptedEngines]:
    engines = ScriptedEngines()
    yield engines
    assert engines.end()


@pytest.fixture(scope="module")
def server(weights: dict[str, Path], engines: ScriptedEngines) -> Iterator[RunningServer]:
    config = two_models(weights).model_copy(update={"server": Server.model_validate({"api_keys": [KEY]})})
    with serving(config, engines.make_handle) as running:
        yield running


def send(server: RunningServer, path: str, *, method: str = "POST", key: str = KEY, **more: Any) -> httpx.Response:
    headers = {"authorization": f"Bearer {key}", **more.pop("headers", {})}
    return httpx.request(method, f"{server.url}{path}", headers=headers, timeout=WAIT_S, **more)


def message_of(path: str, body: Any) -> str:
    """The words of an error, which is in the shape of the dialect of ``path``."""
    if path.startswith("/api/"):
        assert set(body) == {"error"}
        return str(body["error"])
    if path.startswith("/v1/messages"):
        assert body["type"] == "error"
        assert set(body["error"]) == {"type", "message"}
        return str(body["error"]["message"])
    assert set(body) == {"error"}
    assert set(body["error"]) == {"message", "type", "param", "code"}
    return str(body["error"]["message"])


def refused(path: str, response: httpx.Response, status: int) -> str:
    assert response.status_code == status, response.text
    assert response.headers["content-type"] == "application/json"
    return message_of(path, response.json())


@pytest.mark.parametrize("path", PATHS)
def test_before_the_route(server: RunningServer, path: str) -> None:
    assert "API key" in refused(path, send(server, path, key="another", json={}), 401)
    assert "'evil.example'" in refused(path, send(server, path, json={}, headers={"host": "evil.example"}), 403)
    there = path in BODIES
    answer = send(server, path, method="DELETE") if there else send(server, path, json={})
    assert path in refused(path, answer, 405 if there else 404)


@pytest.mark.parametrize("path", PATHS)
def test_a_body_that_says_it_is_too_large(server: RunningServer, path: str) -> None:
    connection = http.client.HTTPConnection(urlsplit(server.url).netloc, timeout=WAIT_S)
    try:
        connection.putrequest("POST", path)
        connection.putheader("authorization", f"Bearer {KEY}")
        connection.putheader("content-length", str(MAX_BODY_BYTES + 1))
        connection.endheaders()
        answer = connection.getresponse()
        assert answer.status == 413
        assert "52428800 bytes" in message_of(path, json.loads(answer.read()))
    finally:
        connection.close()


@pytest.mark.parametrize("path", BODIES)
def test_in_the_route(server: RunningServer, path: str) -> None:
    as_json = {"content-type": "application/json"}
    assert "not valid JSON" in refused(path, send(server, path, content=b"{broken", headers=as_json), 400)
    assert "must be a JSON object" in refused(path, send(server, path, content=b"", headers=as_json), 400)
    nobody = send(server, path, json={**BODIES[path], "model": "nobody"})
    assert "'nobody' does not exist" in refused(path, nobody, 404)
    assert "'model'" in refused(path, send(server, path, json={**BODIES[path], "model": 5}), 400)


@pytest.mark.parametrize("path", STREAMS)
def test_after_the_stream_began(server: RunningServer, engines: ScriptedEngines, path: str) -> None:
    body = {**BODIES[path], "model": "smollm2", "stream": True}
    server.call(server.yard.reload("smollm2"))
    engine = engines.of("smollm2")[-1]
    headers = {"authorization": f"Bearer {KEY}"}
    with httpx.stream("POST", f"{server.url}{path}", json=body, headers=headers, timeout=WAIT_S) as answer:
        assert answer.status_code == 200
        engine.say("Hel")
        lines = answer.iter_lines()
        assert any("Hel" in line for line in lines)
        engine.die("a fault in the test")
        rest = [line for line in lines if line]
    last = json.loads(rest[-1].removeprefix("data: "))
    if path == "/v1/responses":
        assert rest[-2] == "event: response.failed"
        assert "a fault in the test" in last["response"]["error"]["message"]
        return
    if path == "/v1/messages":
        assert rest[-2] == "event: error"
    assert rest[-1].startswith("{" if path in OLLAMA else "data: {")
    assert "a fault in the test" in message_of(path, last)


def test_a_fault_of_ours_is_told_in_each_shape() -> None:
    from modelyard.api.errors.rendering import InternalError, shape_of

    for path in PATHS:
        assert "under id-1" in message_of(path, json.loads(shape_of(path)(InternalError("id-1"))))


def test_llama_cpps_router_is_answered_in_its_shape(server: RunningServer) -> None:
    def value() -> str:
        models = send(server, "/models", method="GET").json()
        assert models["object"] == "list"
        return str(next(model["status"]["value"] for model in models["data"] if model["id"] == "google/gemma3"))

    assert send(server, "/models/unload", json={"model": "google/gemma3"}).json() == {"success": True}
    assert value() == "unloaded"
    assert send(server, "/models/load", json={"model": "google/gemma3"}).json() == {"success": True}
    assert value() == "loaded"
