"""llama.cpp's router and the management of models: what is followed, and what is refused with a way out."""

from __future__ import annotations

import json
from typing import Any

import httpx
import pytest

from support.server import WAIT_S, RunningServer


def test_the_router_s_events_begin_with_the_status_of_every_model(server: RunningServer) -> None:
    events: list[dict[str, Any]] = []
    with httpx.stream("GET", f"{server.url}/models/sse", timeout=WAIT_S) as response:
        assert response.headers["content-type"].startswith("text/event-stream")
        for line in response.iter_lines():
            if line.startswith("data: "):
                events.append(json.loads(line.removeprefix("data: ")))
            if len(events) == 2:
                break
    assert [event["model"] for event in events] == ["smollm2", "google/gemma3"]
    assert {event["event"] for event in events} == {"model_status"}


@pytest.mark.parametrize(
    ("method", "path", "body"),
    [
        ("DELETE", "/models?model=smollm2", {}),
        ("POST", "/props", {}),
        ("POST", "/slots/0?action=save", {}),
        ("POST", "/api/push", {"model": "smollm2"}),
        ("DELETE", "/api/delete", {"model": "smollm2"}),
    ],
)
def test_what_requests_cannot_change_is_refused_with_a_way_out(
    server: RunningServer, method: str, path: str, body: dict[str, str]
) -> None:
    response = httpx.request(method, f"{server.url}{path}", json=body, timeout=WAIT_S)
    assert response.status_code == 400
    error = response.json()["error"]
    message = error if path.startswith("/api/") else error["message"]
    assert "configuration" in message
    assert "/v1/config/reload" in message


def test_a_pull_of_a_model_that_is_there_succeeds(server: RunningServer) -> None:
    for name in ("smollm2", "smollm2:latest"):
        response = server.post("/api/pull", {"model": name})
        assert [json.loads(line) for line in response.text.splitlines()] == [{"status": "success"}]
    assert server.post("/api/pull", {"model": "nothing"}).status_code == 404


@pytest.mark.parametrize("path", ["/v1/health", "/lora-adapters"])
def test_what_a_client_of_llama_cpp_looks_at_first_is_there(server: RunningServer, path: str) -> None:
    assert server.get(path).status_code == 200
