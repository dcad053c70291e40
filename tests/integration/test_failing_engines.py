"""Failures that real weights do not produce on demand, with a scripted engine behind the real HTTP stack."""

from __future__ import annotations

import json
import time
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import httpx
import openai
import pytest

from conftest import two_models
from modelyard.api.serving import streaming
from modelyard.protocol.messages import Resume
from modelyard.protocol.prompts import Text
from modelyard.protocol.requests import Submit
from support.scripted_engines import ScriptedEngines
from support.server import WAIT_S, RunningServer, serving

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


def test_a_stream_goes_on_in_its_connection_when_the_process_of_its_engine_dies_and_the_listing_tells_of_it(
    server: RunningServer, engines: ScriptedEngines
) -> None:
    engine = engines.started("smollm2")
    with httpx.stream("POST", f"{server.url}/v1/chat/completions", json={**CHAT, "stream": True}) as answer:
        lines = answer.iter_lines()
        next(lines)
        engine.say("Hel")
        assert '"content":"Hel"' in next(line for line in lines if "Hel" in line)
        (submit,) = engine.heard(Submit)
        engine.crash("signal 11", active=[submit.sequence])
        second = engines.started("smollm2", 2)
        (resume,) = second.heard(Resume)
        assert resume.alone
        second.say("lo")
        second.finish()
        rest = [line for line in lines if line and not line.startswith(":")]
    assert '"content":"lo"' in rest[0]
    assert rest[-1] == "data: [DONE]"
    shown = server.get("/v1/models/smollm2").json()
    assert (shown["status"], shown["restarts"], shown["last_death"]) == ("loaded", 1, "signal 11")
    metrics = httpx.get(f"{server.url}/metrics").text
    assert 'modelyard_engine_deaths_total{model="smollm2"} 1.0' in metrics
    assert 'modelyard_requests_retried_alone_total{model="smollm2"} 1.0' in metrics


def test_who_was_told_of_a_death_finds_the_model_failed_at_once_and_the_next_request_waits_for_its_memory(
    server: RunningServer, engines: ScriptedEngines
) -> None:
    with ThreadPoolExecutor(2) as pool:
        answer = pool.submit(server.post, "/v1/chat/completions", CHAT)
        engine = engines.started("smollm2")
        engine.heard(Submit)
        used_bytes = server.read(lambda: server.yard.controller.state.used_bytes)
        engine.die("a fault in the test", frees=False)
        assert answer.result(WAIT_S).status_code == 500
        assert server.get("/health/ready").json() == {"status": "failed", "failed": {"smollm2": "a fault in the test"}}
        assert httpx.get(f"{server.url}/health", params={"model": "smollm2"}).json()["reason"] == "a fault in the test"
        shown = server.get("/v1/models/smollm2").json()
        assert (shown["status"], shown["error"]) == ("unloaded", "a fault in the test")
        assert server.read(lambda: server.yard.controller.state.used_bytes) == used_bytes
        late = pool.submit(server.post, "/v1/chat/completions", CHAT)
        wait_for_line(server, "smollm2", 1)
        assert len(engines.of("smollm2")) == 1
        engine.wake()
        second = engines.started("smollm2", 2)
        second.heard(Submit)
        second.finish()
        assert late.result(WAIT_S).status_code == 200


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
    engines.loads = False
    engines.started("smollm2").die("a fault in the test")
    wait_until_failed(server, "smollm2")
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
    assert status == {
        "model_id": "smollm2",
        "status": "unloaded",
        "error": "no room on this machine",
        "resident_bytes": 0,
    }
    assert server.get("/v1/models/google/gemma3").json()["status"] == "loaded"


def test_a_full_queue_is_refused_with_retry_after(server: RunningServer, engines: ScriptedEngines) -> None:
    state = server.read(lambda: server.yard.controller.state)
    most = state.models["smollm2"].policy.max_requests

    async def fill() -> None:
        for _ in range(most):
            server.yard.controller.submit("smollm2", lambda sequence: Submit(sequence, Text("x")))

    server.call(fill())
    refused = server.post("/v1/chat/completions", CHAT)
    assert (refused.status_code, refused.json()["error"]["code"]) == (429, "queue_full")
    assert refused.headers["retry-after"] == "1"
    assert engines.of("google/gemma3")


def test_readiness_tells_of_a_dead_engine_until_the_next_request_has_restarted_it(
    server: RunningServer, engines: ScriptedEngines
) -> None:
    assert server.get("/health/ready").json() == {"status": "ok", "failed": {}}
    with ThreadPoolExecutor(1) as pool:
        answer = pool.submit(server.post, "/v1/chat/completions", CHAT)
        engine = engines.started("smollm2")
        engine.heard(Submit)
        engine.die("a fault in the test")
        assert answer.result(WAIT_S).status_code == 500
        not_ready = server.get("/health/ready")
        assert not_ready.status_code == 503
        assert not_ready.json() == {"status": "failed", "failed": {"smollm2": "a fault in the test"}}
        assert server.get("/health").status_code == 200
        again = pool.submit(server.post, "/v1/chat/completions", CHAT)
        second = engines.started("smollm2", 2)
        second.heard(Submit)
        second.say("Hello")
        second.finish()
        assert again.result(WAIT_S).json()["choices"][0]["message"]["content"] == "Hello"
    assert server.get("/health/ready").status_code == 200


@pytest.fixture
def impatient(monkeypatch: pytest.MonkeyPatch) -> None:
    """Streams that say at once what they wait for."""
    monkeypatch.setattr(streaming, "QUIET_S", 0.02)


@pytest.mark.usefixtures("impatient")
def test_a_stream_that_waits_for_a_load_says_how_far_it_is(server: RunningServer, engines: ScriptedEngines) -> None:
    server.post("/v1/models/unload", {"model_id": "smollm2"})
    engines.loads = False
    body = {**CHAT, "stream": True}
    with httpx.stream("POST", f"{server.url}/v1/chat/completions", json=body, timeout=WAIT_S) as answer:
        lines = answer.iter_lines()
        assert answer.status_code == 200
        engine = engines.started("smollm2", 2)
        engine.progress(0.25)
        assert next(line for line in lines if "25%" in line) == ": smollm2: loading 25%"
        engine.load()
        engine.heard(Submit)
        engine.say("Hello")
        engine.finish()
        rest = [line for line in lines if line and not line.startswith(":")]
    assert '"role":"assistant"' in rest[0]
    assert '"content":"Hello"' in rest[1]
    assert rest[-1] == "data: [DONE]"


@pytest.mark.usefixtures("impatient")
def test_a_load_that_fails_after_a_stream_has_begun_is_an_error_frame(
    server: RunningServer, engines: ScriptedEngines
) -> None:
    server.post("/v1/models/unload", {"model_id": "smollm2"})
    engines.loads = False
    body = {**CHAT, "stream": True}
    with httpx.stream("POST", f"{server.url}/v1/chat/completions", json=body, timeout=WAIT_S) as answer:
        engines.started("smollm2", 2).fail_load("bad magic")
        last = [line for line in answer.iter_lines() if line][-1]
    assert json.loads(last.removeprefix("data: "))["error"]["code"] == "model_load_failed"


@pytest.mark.usefixtures("impatient")
def test_a_stream_whose_sequence_is_suspended_says_so_and_goes_on(
    server: RunningServer, engines: ScriptedEngines
) -> None:
    body = {**CHAT, "stream": True}
    with httpx.stream("POST", f"{server.url}/v1/chat/completions", json=body, timeout=WAIT_S) as answer:
        lines = answer.iter_lines()
        engine = engines.started("smollm2")
        engine.heard(Submit)
        engine.say("Hel")
        server.post("/v1/models/unload", {"model_id": "smollm2", "mode": "suspend"})
        assert ": smollm2: waiting for its model" in lines
        server.post("/v1/models/reload", {"model_id": "smollm2"})
        second = engines.started("smollm2", 2)
        second.heard(Resume)
        second.say("lo")
        second.finish()
        rest = "".join(lines)
    assert '"content":"lo"' in rest
    assert rest.endswith("data: [DONE]")


def wait_for_line(server: RunningServer, model: str, length: int) -> None:
    until(server, lambda: len(server.yard.controller.state.models[model].queue) >= length)


def wait_until_failed(server: RunningServer, model: str) -> None:
    """Wait until the server has heard that the engine of ``model`` died; until then the model counts as loaded."""
    until(server, lambda: server.yard.controller.state.models[model].failure is not None)


def until(server: RunningServer, happens: Callable[[], bool]) -> None:
    """Nothing tells a client when a server has come as far: look again, for a bounded time."""
    for _ in range(1000):
        if server.read(happens):
            return
        time.sleep(0.01)
    raise AssertionError("it never happened")
