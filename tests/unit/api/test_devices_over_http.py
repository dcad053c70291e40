"""The endpoints show the memory of devices, and where each model is."""

from __future__ import annotations

import json
import threading
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import httpx
import pytest
from prometheus_client.parser import text_string_to_metric_families

from modelyard.config import validate_config
from modelyard.yard.residency.events import DeviceBudgetsChanged
from support.gguf_writer import tiny_model, write
from support.models_on_devices import BUDGETS, MB, serving_on_devices
from support.scripted_engines import CONTEXT_BYTES, MODEL_BYTES, ScriptedEngines
from support.server import RunningServer, serving

ON_HOST = MODEL_BYTES + CONTEXT_BYTES


@pytest.fixture
def server(tmp_path: Path) -> Iterator[RunningServer]:
    with serving_on_devices(tmp_path) as (server, _):
        yield server


def load(server: RunningServer, model: str) -> None:
    assert server.post("/v1/models/reload", {"model_id": model}).json()["status"] == "loaded"


def shown(server: RunningServer, model: str) -> dict[str, Any]:
    return dict(server.get(f"/v1/models/{model}").json())


def held(server: RunningServer) -> dict[str, dict[str, Any]]:
    return {model["name"]: model for model in server.get("/api/ps").json()["models"]}


def plan(server: RunningServer, model: str) -> dict[str, Any]:
    return dict(server.post("/v1/models/plan", {"model_id": model}).json())


def samples(server: RunningServer, name: str) -> dict[tuple[str, ...], float]:
    families = text_string_to_metric_families(server.get("/metrics").text)
    found = [sample for family in families for sample in family.samples if sample.name == name]
    return {tuple(sample.labels[key] for key in sorted(sample.labels)): sample.value for sample in found}


def test_a_loaded_model_shows_where_it_is_and_what_it_takes_there(server: RunningServer) -> None:
    assert not {"placement", "device_bytes"} & shown(server, "large").keys()
    load(server, "large")
    model = shown(server, "large")
    assert model["placement"] == "CUDA0+CUDA1 75:25"
    assert model["device_bytes"] == {"CUDA0": 75 * MB, "CUDA1": 25 * MB}
    assert model["resident_bytes"] == model["predicted_bytes"] == 100 * MB + ON_HOST


def test_ollamas_clients_see_which_part_of_a_model_is_on_devices(server: RunningServer) -> None:
    load(server, "small")
    assert (held(server)["small"]["size"], held(server)["small"]["size_vram"]) == (40 * MB + ON_HOST, 40 * MB)


def test_a_model_shows_while_it_loads_what_is_predicted(tmp_path: Path) -> None:
    with serving_on_devices(tmp_path, loads=False) as (server, engines):
        answers: list[httpx.Response] = []
        waiting = threading.Thread(
            target=lambda: answers.append(server.post("/v1/models/reload", {"model_id": "small"}))
        )
        waiting.start()
        engine = engines.started("small")
        assert shown(server, "small")["device_bytes"] == {"CUDA0": 40 * MB}
        assert shown(server, "small")["placement"] == "CUDA0"
        engine.load()
        waiting.join(20)
        assert answers[0].json()["status"] == "loaded"


def test_a_parked_model_holds_its_weights_on_the_device(server: RunningServer) -> None:
    load(server, "small")
    server.post("/v1/models/unload", {"model_id": "small", "mode": "park"})
    assert shown(server, "small")["device_bytes"] == {"CUDA0": 20 * MB}
    assert shown(server, "small")["placement"] == "CUDA0"
    server.post("/v1/models/unload", {"model_id": "small"})
    assert not {"placement", "device_bytes"} & shown(server, "small").keys()


def test_a_plan_says_where_the_model_goes_how_fast_it_is_there_and_what_is_given_back(server: RunningServer) -> None:
    load(server, "small")
    planned = plan(server, "large")
    assert (planned["outcome"], planned["placement"], planned["tokens_per_second"]) == (
        "evicts",
        "CUDA0+CUDA1 75:25",
        50,
    )
    assert planned["needed_bytes"] == ON_HOST
    assert planned["devices"] == {
        "CUDA0": {"needed_bytes": 75 * MB, "free_bytes": 60 * MB, "budget_bytes": 100 * MB},
        "CUDA1": {"needed_bytes": 25 * MB, "free_bytes": 100 * MB, "budget_bytes": 100 * MB},
    }
    (evicted,) = planned["evicts"]
    assert evicted["reason"].endswith("its weights stay")
    assert (evicted["model_id"], evicted["device_bytes"]) == ("small", {"CUDA0": 20 * MB})


def test_a_model_that_devices_have_no_room_for_is_planned_on_the_host(server: RunningServer) -> None:
    server.read(lambda: server.yard.controller.feed(DeviceBudgetsChanged({"CUDA0": 50 * MB})))
    planned = plan(server, "large")
    assert (planned["outcome"], planned["placement"], planned["tokens_per_second"]) == ("fits", "host", 0.1)
    load(server, "large")
    assert shown(server, "large")["placement"] == "host"


def test_a_model_that_fits_no_device_is_refused_with_the_device(server: RunningServer) -> None:
    server.read(lambda: server.yard.controller.feed(DeviceBudgetsChanged({**BUDGETS, "CUDA0": 30 * MB})))
    assert plan(server, "small")["outcome"] == "never"
    refused = server.post("/v1/models/reload", {"model_id": "small"})
    assert refused.status_code == 507
    assert "needs 40 MB of CUDA0, whose memory budget is 30 MB" in refused.json()["error"]["message"]


def test_the_server_has_the_memory_of_each_device(server: RunningServer) -> None:
    load(server, "small")
    state = server.get("/v1/server").json()
    assert state["memory"]["devices"] == {
        "CUDA0": {"budget_bytes": 100 * MB, "used_bytes": 40 * MB, "free_bytes": 60 * MB},
        "CUDA1": {"budget_bytes": 100 * MB, "used_bytes": 0, "free_bytes": 100 * MB},
    }
    small, _ = state["models"]
    assert (small["resident_bytes"], small["device_bytes"]) == (40 * MB + ON_HOST, {"CUDA0": 40 * MB})


def test_metrics_have_a_sample_for_each_device_and_each_model_on_it(server: RunningServer) -> None:
    load(server, "small")
    assert samples(server, "modelyard_device_memory_budget_bytes") == {("CUDA0",): 100 * MB, ("CUDA1",): 100 * MB}
    assert samples(server, "modelyard_device_memory_used_bytes") == {("CUDA0",): 40 * MB, ("CUDA1",): 0}
    assert samples(server, "modelyard_model_device_bytes") == {
        ("CUDA0", "small"): 40 * MB,
        ("CUDA1", "small"): 0,
        ("CUDA0", "large"): 0,
        ("CUDA1", "large"): 0,
    }
    assert samples(server, "modelyard_resident_bytes")["small",] == 40 * MB + ON_HOST


def test_the_events_of_a_load_say_where_the_model_is_put(server: RunningServer) -> None:
    with httpx.stream("GET", f"{server.url}/v1/models/events", timeout=20) as stream:
        lines = (line.removeprefix("data: ") for line in stream.iter_lines() if line.startswith("data: "))
        assert {json.loads(next(lines))["model_id"] for _ in range(2)} == {"small", "large"}
        load(server, "small")
        placed = []
        for event in map(json.loads, lines):
            placed.append((event.get("stage"), event.get("placement")))
            if event.get("stage") == "loaded":
                break
    assert [change for change in placed if change[1]] == [("loading", "CUDA0"), ("loaded", "CUDA0")]


def test_without_devices_no_answer_has_a_field_about_them(tmp_path: Path) -> None:
    write(tmp_path / "m.gguf", tiny_model())
    models = [{"model_id": "./m.gguf", "alias": "m"}]
    engines = ScriptedEngines(answer=lambda _: ["Hello"])
    try:
        with serving(validate_config({"models": models}, source="test", base=tmp_path), engines.make_handle) as server:
            load(server, "m")
            fields = {"placement", "device_bytes", "devices", "tokens_per_second"}
            state = server.get("/v1/server").json()
            answers = [shown(server, "m"), plan(server, "m"), state["memory"], state["models"][0]]
            assert not any(fields & answer.keys() for answer in answers)
            assert samples(server, "modelyard_device_memory_budget_bytes") == {}
            assert held(server)["m"]["size_vram"] == 0
    finally:
        assert engines.end()
