"""Failures that real weights do not produce on demand, with a scripted engine behind the real HTTP stack."""

from __future__ import annotations

import json
import time
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import httpx
import openai
import pytest

from conftest import two_models
from modelyard.engine.messages import Submit, Text
from support.server import WAIT_S, RunningServer, serving
from unit.yard.scripted import ScriptedEngines

CHAT = {"model": "smollm2", "messages": [{"role": "user", "content": "Hi"}]}


@pytest.fixture
def engines() -> Iterator[ScriptedEngines]:
    engines = ScriptedEngines()
    yield engines
    assert engines.end()


@pytest.fixture
def server(weights: dict[str, Path], engines: ScriptedEngines) -> Iterator[RunningServer]:
    with serving(two_models(weights), engines.make_handle) as running:
        yield running


def test_an_engine_that_dies_ends_its_streams_with_an_error_frame_and_is_restarted(
    server: RunningServer, engines: ScriptedEngines
) -> None:
    engine = engines.started("smollm2")
    with httpx.stream("POST", f"{server.url}/v1/chat/completions", json={**CHAT, "stream": True}) as answer:
        lines = answer.iter_lines()
        assert answer.status_code == 200
        next(lines)
        engine.say("Hel")
        assert '"content":"Hel"' in next(line for line in lines if "Hel" in line)
        engine.die("a fault in the test")
        rest = [line for line in lines if line]
    error = json.loads(rest[-1].removeprefix("data: "))["error"]
    assert error["code"] == "engine_error"
    assert "a fault in the test" in error["message"]
    assert server.get("/v1/models/smollm2").json()["status"] == "unloaded"
    assert server.get("/v1/models/google/gemma3").json()["status"] == "loaded"
    assert server.post("/v1/models/reload", {"model_id": "smollm2"}).json()["status"] == "loaded"
    assert len(engines.of("smollm2")) == 2


def test_the_official_client_raises_the_error_of_a_broken_stream(
    server: RunningServer, engines: ScriptedEngines
) -> None:
    engine = engines.started("smollm2")
    with server.client() as client:
        stream = client.chat.completions.create(**CHAT, stream=True)
        engine.say("Hel")
        engine.die("a fault in the test")
        with pytest.raises(openai.APIError, match="a fault in the test"):
            list(stream)


def test_a_whole_answer_that_fails_is_an_error_with_its_status(server: RunningServer, engines: ScriptedEngines) -> None:
    engine = engines.started("smollm2")
    with ThreadPoolExecutor(1) as pool:
        answer = pool.submit(server.post, "/v1/chat/completions", CHAT)
        engine.heard(Submit)
        engine.die("a fault in the test")
        refused = answer.result(WAIT_S)
    assert (refused.status_code, refused.json()["error"]["code"]) == (500, "engine_error")


def test_a_load_that_fails_says_why_and_when_to_come_again(server: RunningServer, engines: ScriptedEngines) -> None:
    engines.started("smollm2").die("a fault in the test")
    engines.loads = False
    with ThreadPoolExecutor(4) as pool:
        waiting = [pool.submit(server.post, "/v1/models/reload", {"model_id": "smollm2"})]
        second = engines.started("smollm2", 2)
        waiting += [pool.submit(server.post, "/v1/chat/completions", CHAT) for _ in range(3)]
        wait_for_line(server, "smollm2", 4)
        second.fail_load("no room on this machine")
        answers = [answer.result(WAIT_S) for answer in waiting]
    for answer in answers:
        error = answer.json()["error"]
        assert (answer.status_code, error["code"]) == (503, "model_load_failed")
        assert "no room on this machine" in error["message"]
        assert int(answer.headers["retry-after"]) >= 1
    status = server.post("/v1/models/status", {"model_id": "smollm2"}).json()
    assert status == {"model_id": "smollm2", "status": "unloaded", "error": "no room on this machine"}
    assert server.get("/v1/models/google/gemma3").json()["status"] == "loaded"


def test_a_full_queue_is_refused_with_retry_after(server: RunningServer, engines: ScriptedEngines) -> None:
    state = server.read(lambda: server.yard.conductor.state)
    most = state.models["smollm2"].traits.most_requests

    async def fill() -> None:
        for _ in range(most):
            server.yard.conductor.submit("smollm2", lambda sequence: Submit(sequence, Text("x")))

    server.call(fill())
    refused = server.post("/v1/chat/completions", CHAT)
    assert (refused.status_code, refused.json()["error"]["code"]) == (429, "queue_full")
    assert refused.headers["retry-after"] == "1"
    assert engines.of("google/gemma3")


def wait_for_line(server: RunningServer, model: str, length: int) -> None:
    """Nothing tells when a request has come as far as the line: look again, for a bounded time."""
    for _ in range(1000):
        if len(server.read(lambda: server.yard.conductor.state.models[model].line)) >= length:
            return
        time.sleep(0.01)
    raise AssertionError("too few requests came")
