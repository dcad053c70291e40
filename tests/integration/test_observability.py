"""What the server tells of its work: metrics, log, request ids, timing, spans, health. And what it never tells."""

from __future__ import annotations

import json
import logging
import re
import time
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import httpx
import pytest
from opentelemetry import trace
from opentelemetry.sdk.trace import TracerProvider
from opentelemetry.sdk.trace.export import SimpleSpanProcessor
from opentelemetry.sdk.trace.export.in_memory_span_exporter import InMemorySpanExporter
from prometheus_client.parser import text_string_to_metric_families

from conftest import two_models
from modelyard.api.middleware.server_timing import PHASES, trace_phases
from modelyard.api.server.metric_specs import METRICS
from modelyard.config import Server
from modelyard.protocol.requests import Submit
from modelyard.yard.requests.timings import RequestTimings
from support.scripted_engines import ScriptedEngines
from support.server import WAIT_S, RunningServer, serving

SECRETS = {"prompt": "zanzibar-in-the-prompt", "key": "sk-that-is-secret", "name": "mordor-as-a-model"}
CHAT: dict[str, Any] = {"model": "smollm2", "messages": [{"role": "user", "content": f"Hi, {SECRETS['prompt']}"}]}

Samples = dict[tuple[str, frozenset[tuple[str, str]]], float]


def guarded(weights: dict[str, Path], memory: dict[str, Any] | None = None, **server: Any) -> Any:
    settings = Server.model_validate(
        {"keys": [{"name": "alice", "key": SECRETS["key"], "scopes": ["inference", "read", "admin"]}], **server}
    )
    return two_models(weights, memory=memory, max_seqs=4, prefix_cache_n=4).model_copy(update={"server": settings})


def post(server: RunningServer, path: str, body: Any, **headers: str) -> httpx.Response:
    headers = {"authorization": f"Bearer {SECRETS['key']}", **headers}
    return httpx.post(f"{server.url}{path}", json=body, headers=headers, timeout=WAIT_S)


def get(server: RunningServer, path: str, **headers: str) -> httpx.Response:
    headers = {"authorization": f"Bearer {SECRETS['key']}", **headers}
    return httpx.get(f"{server.url}{path}", headers=headers, timeout=WAIT_S)


def scrape(server: RunningServer) -> Samples:
    """What is counted once all requests are done."""
    server.settle()
    return counted(server)


def counted(server: RunningServer) -> Samples:
    """What is counted now."""
    families = text_string_to_metric_families(get(server, "/metrics").text)
    return {(s.name, frozenset(s.labels.items())): s.value for family in families for s in family.samples}


def value(samples: Samples, name: str, **labels: str) -> float:
    return samples[name, frozenset(labels.items())]


def lines_of(caplog: pytest.LogCaptureFixture, server: RunningServer) -> list[str]:
    """The access log once all requests are done."""
    server.settle()
    return [record.getMessage() for record in caplog.records if record.name == "modelyard.access"]


@pytest.fixture(scope="module")
def server(weights: dict[str, Path]) -> Iterator[RunningServer]:
    """With real engines."""
    with serving(guarded(weights, record_texts=True)) as running:
        yield running


def test_a_busy_run_is_counted_and_logged_and_its_secrets_are_not(
    server: RunningServer, caplog: pytest.LogCaptureFixture
) -> None:
    caplog.set_level(logging.DEBUG)
    whole = post(
        server, "/v1/chat/completions", {**CHAT, "max_tokens": 8, "ignore_eos": True}, **{"x-request-id": "mine-1"}
    )
    streamed = post(server, "/v1/chat/completions", {**CHAT, "max_tokens": 8, "ignore_eos": True, "stream": True})
    post(server, "/v1/chat/completions", {**CHAT, "model": SECRETS["name"]})
    get(server, f"/v1/models/{SECRETS['name']}")
    get(server, f"/{SECRETS['name']}?key={SECRETS['key']}")
    post(server, "/v1/chat/completions", {**CHAT, "temperature": SECRETS["prompt"]})
    httpx.get(f"{server.url}/v1/models", headers={"authorization": f"Bearer {SECRETS['key']}-wrong"}, timeout=WAIT_S)
    post(server, "/v1/models/unload", {"model_id": "google/gemma3"})

    assert whole.status_code == streamed.status_code == 200
    usage = whole.json()["usage"]
    samples = scrape(server)
    chat = {"method": "POST", "path": "/v1/chat/completions"}
    assert value(samples, "http_requests_total", **chat, model="smollm2", status="200") == 2
    assert value(samples, "http_requests_total", **chat, model="unknown", status="404") == 1
    assert value(samples, "http_requests_total", **chat, model="none", status="400") == 1
    assert value(samples, "http_requests_total", method="GET", path="unknown", model="none", status="404") == 1
    assert value(samples, "http_requests_total", method="GET", path="unknown", model="none", status="401") == 1
    assert value(samples, "http_request_duration_seconds_count", **chat, model="smollm2", status="200") == 2
    assert value(samples, "http_request_body_bytes_count", **chat, model="smollm2") == 2
    of_model = {"model": "smollm2"}
    assert value(samples, "modelyard_requests_finished_total", **of_model, reason="length") == 2
    assert value(samples, "modelyard_prompt_tokens_total", **of_model) == 2 * usage["prompt_tokens"]
    assert value(samples, "modelyard_completion_tokens_total", **of_model) == 16
    # The second request found the prompt of the first.
    assert value(samples, "modelyard_prefix_hits_total", **of_model) == 1
    assert 0 < value(samples, "modelyard_prefix_hit_tokens_total", **of_model) < usage["prompt_tokens"]
    assert value(samples, "modelyard_time_to_first_token_seconds_count", **of_model) == 2
    assert 0 < value(samples, "modelyard_inter_token_latency_seconds_count", **of_model) <= 14
    assert value(samples, "modelyard_queue_seconds_count", **of_model) == 2
    assert value(samples, "modelyard_loads_total", **of_model, result="ok") == 1
    assert value(samples, "modelyard_load_seconds_count", **of_model) == 1
    assert value(samples, "modelyard_model_loaded", **of_model) == 1
    assert value(samples, "modelyard_kv_cells", **of_model) == 512
    assert 0 < value(samples, "modelyard_kv_cells_used", **of_model) < 512
    assert value(samples, "modelyard_sequences_running", **of_model) == 0
    assert value(samples, "modelyard_evictions_total", model="google/gemma3", reason="asked") == 1
    assert value(samples, "modelyard_evictions_total", model="google/gemma3", reason="room") == 0
    assert value(samples, "modelyard_model_loaded", model="google/gemma3") == 0
    assert value(samples, "modelyard_resident_bytes", model="google/gemma3") == 0
    assert value(samples, "modelyard_resident_bytes", **of_model) > 100e6
    assert value(samples, "modelyard_predicted_bytes", **of_model) > 100e6
    assert value(samples, "modelyard_memory_used_bytes") <= value(samples, "modelyard_memory_budget_bytes")
    assert ("modelyard_kv_cells", frozenset({("model", "google/gemma3")})) not in samples
    assert value(samples, "process_resident_memory_bytes") > 0

    lines = lines_of(caplog, server)
    assert len(lines) == 8, "one for each request, and none for the scrape"
    line = r"POST /v1/chat/completions 200 model=smollm2 key=alice ms=[\d.]+ ttft_ms=[\d.]+ "
    line += rf"prompt_tokens={usage['prompt_tokens']} completion_tokens=8 finish=length request_id="
    assert re.fullmatch(line + "mine-1", lines[0])
    assert re.fullmatch(line + streamed.headers["x-request-id"], lines[1])
    # What does not exist is named, so that the client that asks for it can be corrected.
    name = SECRETS["name"]
    assert lines[2].startswith(f"POST /v1/chat/completions 404 model={name} key=alice ms=")
    assert lines[3].startswith(f"GET /v1/models/{{model_id}} 404 path=/v1/models/{name} model={name} key=alice ms=")
    assert lines[4].startswith(f"GET unknown 404 path=/{name} key=alice")
    assert re.fullmatch(r"GET unknown 401 path=/v1/models ms=[\d.]+ error=invalid_api_key request_id=\w+", lines[6])
    # Not those of this test's own client, nor uvicorn's own access log: that is off, and pytest turns it on again.
    foreign = ("httpx", "httpcore", "uvicorn.access")
    records = [record for record in caplog.records if not record.name.startswith(foreign)]
    everything = "\n".join(f"{record.getMessage()} {record.exc_text or ''} {record.args}" for record in records)
    metrics = get(server, "/metrics").text
    assert "alice" in everything
    assert [what for what in ("prompt", "key") if SECRETS[what] in everything] == []
    assert [secret for secret in SECRETS.values() if secret in metrics] == []


def test_a_whole_answer_says_where_its_time_went(server: RunningServer) -> None:
    answer = post(server, "/v1/completions", {"prompt": "One, two", "max_tokens": 4, "ignore_eos": True})
    parts = dict(part.split(";dur=") for part in answer.headers["server-timing"].split(", "))
    assert tuple(parts) == PHASES
    assert float(parts["load"]) == 0
    assert float(parts["prefill"]) > 0
    assert float(parts["decode"]) > 0


def test_a_request_that_loads_its_model_says_how_long_that_took(server: RunningServer) -> None:
    assert post(server, "/v1/models/unload", {"model_id": "smollm2"}).status_code == 200
    answer = post(server, "/v1/completions", {"prompt": "One, two", "max_tokens": 1, "stream": True})
    parts = dict(part.split(";dur=") for part in answer.headers["server-timing"].split(", "))
    assert float(parts["load"]) > 0
    # The head of a stream is sent before there is a text.
    assert set(parts) <= {"queue", "load"}


def test_metrics_come_as_openmetrics_where_they_are_asked_for(server: RunningServer) -> None:
    answer = get(server, "/metrics", accept="application/openmetrics-text; version=1.0.0")
    assert answer.headers["content-type"].startswith("application/openmetrics-text")
    assert answer.text.endswith("# EOF\n")


def test_every_metric_that_is_described_is_there(server: RunningServer) -> None:
    families = {family.name: family for family in text_string_to_metric_families(get(server, "/metrics").text)}
    for metric in METRICS:
        family = families[metric.name.removesuffix("_total")]
        assert (family.type, family.documentation) == (metric.kind, metric.meaning)
        labels = {label for sample in family.samples for label in sample.labels} - {"le"}
        assert labels <= set(metric.labels), metric.name


class TestScripted:
    """Where an engine must fail, or a request must be caught on its way."""

    @pytest.fixture
    def engines(self) -> Iterator[ScriptedEngines]:
        engines = ScriptedEngines()
        yield engines
        assert engines.end()

    @pytest.fixture
    def settings(self) -> dict[str, Any]:
        return {}

    @pytest.fixture
    def server(
        self, weights: dict[str, Path], engines: ScriptedEngines, settings: dict[str, Any]
    ) -> Iterator[RunningServer]:
        with serving(guarded(weights, **settings), engines.make_handle) as running:
            yield running

    def test_deaths_failed_loads_and_what_is_in_flight_are_counted(
        self, server: RunningServer, engines: ScriptedEngines
    ) -> None:
        with ThreadPoolExecutor(1) as pool:
            asked = pool.submit(post, server, "/v1/chat/completions", CHAT)
            engine = engines.started("smollm2")
            engine.heard(Submit)
            samples = counted(server)
            labels = {"method": "POST", "path": "/v1/chat/completions", "model": "smollm2"}
            assert value(samples, "http_requests_in_flight", **labels) == 1
            assert value(samples, "modelyard_requests_running", model="smollm2") == 1
            engine.die("a fault in the test")
            assert asked.result(WAIT_S).status_code == 500
            engines.loads = False
            asked = pool.submit(post, server, "/v1/chat/completions", CHAT)
            second = engines.started("smollm2", 2)
            second.fail_load("no room on this machine")
            assert asked.result(WAIT_S).status_code == 503
        samples = scrape(server)
        assert value(samples, "modelyard_evictions_total", model="smollm2", reason="died") == 1
        assert value(samples, "modelyard_loads_total", model="smollm2", result="ok") == 1
        assert value(samples, "modelyard_loads_total", model="smollm2", result="failed") == 1
        assert value(samples, "modelyard_requests_finished_total", model="smollm2", reason="failed") == 2
        assert value(samples, "modelyard_requests_waiting", model="smollm2") == 0

    def test_health_of_one_model(self, server: RunningServer, engines: ScriptedEngines) -> None:
        def health(model: str, key: str = SECRETS["key"]) -> tuple[int, str]:
            headers = {"authorization": f"Bearer {key}"} if key else {}
            answer = httpx.get(f"{server.url}/health", params={"model": model}, headers=headers, timeout=WAIT_S)
            return answer.status_code, answer.text

        for name in ("smollm2", "org/smol", "default"):
            assert health(name)[0] == 200
            assert health(name, key="") == (200, '{"status":"ok"}')
        assert health("nothing", key="") == (503, '{"status":"unavailable"}')
        status, missing = health("nothing")
        assert status == 404
        assert "gemma" not in missing, "the names that there are"
        used = server.read(lambda: server.yard.controller.state.models["smollm2"].last_used)
        assert post(server, "/v1/models/unload", {"model_id": "smollm2"}).status_code == 200
        assert health("smollm2") == (503, '{"model":"smollm2","status":"unavailable","reason":"not loaded"}')
        assert health("smollm2", key="") == (503, '{"status":"unavailable"}')
        assert len(engines.of("smollm2")) == 1, "asking loads nothing"
        assert server.read(lambda: server.yard.controller.state.models["smollm2"].last_used) == used
        engines.started("google/gemma3").die("a fault in the test")
        deadline = time.monotonic() + WAIT_S
        while (answer := health("google/gemma3"))[0] == 200:
            assert time.monotonic() < deadline
        assert answer[1].endswith('"reason":"a fault in the test"}')
        assert httpx.get(f"{server.url}/health/live", timeout=WAIT_S).status_code == 200
        assert httpx.get(f"{server.url}/health/ready", timeout=WAIT_S).status_code == 503

    def test_a_fault_is_found_in_the_log_by_the_id_of_its_request(
        self, server: RunningServer, caplog: pytest.LogCaptureFixture, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        def fail(*_: object) -> None:
            raise RuntimeError("a fault in the test")

        monkeypatch.setattr(server.yard, "models", fail)
        answer = get(server, "/v1/models", **{"x-request-id": "find-me"})
        assert answer.status_code == 500
        assert answer.headers["x-request-id"] == "find-me"
        error = answer.json()["error"]
        assert (error["code"], error["type"]) == ("internal_error", "server_error")
        assert "find-me" in error["message"]
        assert "a fault in the test" not in answer.text
        server.settle()
        assert [record for record in caplog.records if "find-me" in record.getMessage() and record.exc_info]

    @pytest.mark.parametrize("settings", [{"access_log_format": "json", "access_log_health": True}])
    def test_a_log_as_json_with_health(self, server: RunningServer, caplog: pytest.LogCaptureFixture) -> None:
        caplog.set_level(logging.INFO)
        get(server, "/health", **{"x-request-id": "1"})
        (line,) = lines_of(caplog, server)
        facts = json.loads(line)
        assert facts.pop("time").endswith("+00:00")
        assert facts.pop("ms") > 0
        assert facts == {"method": "GET", "route": "/health", "status": 200, "request_id": "1"}

    @pytest.mark.parametrize(
        "settings", [{"disable_access_log": True, "disable_request_id_header": True, "disable_metrics": True}]
    )
    def test_what_is_turned_off_is_off(self, server: RunningServer, caplog: pytest.LogCaptureFixture) -> None:
        caplog.set_level(logging.INFO)
        answer = get(server, "/v1/models", **{"x-request-id": "1"})
        assert "x-request-id" not in answer.headers
        assert get(server, "/metrics").status_code == 404
        assert lines_of(caplog, server) == []

    def test_a_client_that_leaves_is_logged(
        self, server: RunningServer, engines: ScriptedEngines, caplog: pytest.LogCaptureFixture
    ) -> None:
        caplog.set_level(logging.INFO)
        with httpx.Client(timeout=WAIT_S, headers={"authorization": f"Bearer {SECRETS['key']}"}) as client:
            body = {**CHAT, "stream": True}
            with client.stream("POST", f"{server.url}/v1/chat/completions", json=body) as answer:
                engines.started("smollm2").heard(Submit)
                engines.started("smollm2").say("Hello")
                next(line for line in answer.iter_lines() if "Hello" in line)
        line = next(line for line in lines_of(caplog, server) if "/v1/chat" in line)
        assert "POST /v1/chat/completions 200 model=smollm2" in line
        assert "finish=cancelled" in line


def test_who_went_for_whom_is_counted(weights: dict[str, Path]) -> None:
    engines = ScriptedEngines(answer=lambda submit: ["Hello"])
    with serving(guarded(weights, memory={"budget": "480MB"}), engines.make_handle) as server:
        for model in ("smollm2", "google/gemma3", "smollm2"):
            assert post(server, "/v1/completions", {"prompt": "x", "model": model}).status_code == 200
        samples = scrape(server)
        unloads = {
            model: value(samples, "modelyard_evictions_total", model=model, reason="room")
            for model in ("smollm2", "google/gemma3")
        }
        assert all(unloads.values())
        assert value(samples, "modelyard_loads_total", model="smollm2", result="ok") == 2
        assert value(samples, "modelyard_memory_budget_bytes") == 480e6
        assert 0 < value(samples, "modelyard_memory_used_bytes") <= 480e6
    assert engines.end()


def test_two_applications_in_one_process_count_for_themselves(weights: dict[str, Path]) -> None:
    engines = ScriptedEngines(answer=lambda submit: ["Hello"])
    with serving(guarded(weights), engines.make_handle) as one, serving(guarded(weights), engines.make_handle) as other:
        assert post(one, "/v1/chat/completions", CHAT).status_code == 200
        finished = "modelyard_requests_finished_total"
        assert value(scrape(one), finished, model="smollm2", reason="stop") == 1
        assert value(scrape(other), finished, model="smollm2", reason="stop") == 0
    assert engines.end()


def test_the_parts_of_a_request_become_spans_under_its_own() -> None:
    exporter = InMemorySpanExporter()
    provider = TracerProvider()
    provider.add_span_processor(SimpleSpanProcessor(exporter))
    tracer = provider.get_tracer("test")
    now = time.monotonic()
    times = RequestTimings(
        now - 10, granted=now - 7, load_s=2.0, started=now - 6, first=now - 4, last=now - 1, ended=now - 1
    )
    with trace.use_span(tracer.start_span("POST /v1/completions")) as request:
        trace_phases(times, tracer)
    spans = exporter.get_finished_spans()
    assert [span.name for span in spans] == list(PHASES)
    durations = [(span.end_time - span.start_time) / 1e9 for span in spans]
    assert durations == pytest.approx([2.0, 2.0, 2.0, 3.0], abs=1e-3)
    assert all(span.parent.span_id == request.get_span_context().span_id for span in spans)
    trace_phases(times, tracer)
    assert len(exporter.get_finished_spans()) == len(PHASES), "without a span of the request there is none to add to"


def test_what_a_request_waited_for_read_and_wrote_is_there_to_be_seen(server: RunningServer) -> None:
    body = {**CHAT, "max_tokens": 6, "temperature": 0, "stream": False}
    text = post(server, "/v1/chat/completions", body).json()["choices"][0]["message"]["content"]
    server.settle()
    (listed,) = get(server, "/v1/activity?model=smollm2&state=done&limit=1").json()["data"]
    assert (listed["key"], listed["state"], listed["answer_tokens"]) == ("alice", "done", 6)
    assert listed["arrived_at"] <= listed["granted_at"] <= listed["first_token_at"] <= listed["ended_at"]
    found = get(server, f"/v1/activity/{listed['id']}").json()
    assert [phase["phase"] for phase in found["phases"]][-2:] == ["prefill", "decode"]
    # As the template wrote it.
    assert "<|im_start|>user" in found["prompt"]
    assert SECRETS["prompt"] in found["prompt"]
    assert found["answer"].strip() == text.strip()
    history = {each["model_id"]: each["intervals"] for each in get(server, "/v1/models/history").json()["data"]}
    assert [each["state"] for each in history["smollm2"]][:2] == ["loading", "loaded"]
    assert history["smollm2"][-1]["bytes"]["host"] > 50_000_000
    headers = {"authorization": f"Bearer {SECRETS['key']}"}
    with httpx.stream("GET", f"{server.url}/v1/activity/events", headers=headers, timeout=WAIT_S) as stream:
        lines = stream.iter_lines()
        assert next(lines) == "event: snapshot"
        assert json.loads(next(lines).removeprefix("data: "))["data"][0]["id"] == listed["id"]
