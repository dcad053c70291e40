"""More models than memory: who gets it, who waits, and what streams see of it."""

from __future__ import annotations

import json
import threading
import time
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import httpx
import pytest

from conftest import two_models
from modelyard.config import validate_config
from modelyard.errors import InsufficientMemory
from modelyard.yard.residency.policy import WaitPolicy
from support.server import WAIT_S, RunningServer, serving

# Either model, and some state beside it, but not both.
ONE_FITS = {"budget": "480MB"}
SMOL, GEMMA = "smollm2", "google/gemma3"
HASTY = WaitPolicy(min_residency_s=1.0, residency_per_load=1.0, drain_s=0.2)
GREEDY = {"temperature": 0, "ignore_eos": True}
# Both models count on, and are sure of each number: a near tie would be decided by what else is in the KV cache.
COUNT = "1, 2, 3, 4, 5, 6, 7,"


@pytest.fixture(scope="module")
def crowded(weights: dict[str, Path]) -> Iterator[RunningServer]:
    """A server whose two models fit only one at a time."""
    with serving(two_models(weights, memory=ONE_FITS, max_seqs=8, prefix_cache_n=8), policy=HASTY) as running:
        yield running


@pytest.fixture
def smol_is_loaded(crowded: RunningServer) -> RunningServer:
    renew(crowded)
    return crowded


def renew(server: RunningServer) -> None:
    """An engine that has served nothing: what else its cache holds can move the last bits of its arithmetic."""
    server.post("/v1/models/unload", {"model_id": SMOL})
    assert server.post("/v1/models/reload", {"model_id": SMOL}).json()["status"] == "loaded"


def loads_of(server: RunningServer) -> list[str]:
    """Every load from now on, by model."""
    loads: list[str] = []

    def count() -> None:
        factory = server.yard.factory
        make = factory.make

        async def counting(model: str, publish: Any, placement: Any, cells: int) -> Any:
            loads.append(model)
            return await make(model, publish, placement, cells)

        factory.make = counting  # type: ignore[method-assign]

    server.read(count)
    return loads


def completion(server: RunningServer, **fields: Any) -> dict[str, Any]:
    answer = server.post("/v1/completions", {"prompt": COUNT, **GREEDY, **fields})
    assert answer.status_code == 200, answer.text
    body: dict[str, Any] = answer.json()
    return body


def streamed(server: RunningServer, **fields: Any) -> tuple[str, int]:
    """The text of a stream and its number of tokens; it must end as it should."""
    usage = {"stream_options": {"include_usage": True}}
    body = {"prompt": COUNT, "stream": True, **usage, **GREEDY, **fields}
    text, tokens, last = "", 0, ""
    with httpx.stream("POST", f"{server.url}/v1/completions", json=body, timeout=WAIT_S) as answer:
        assert answer.status_code == 200
        for line in answer.iter_lines():
            if line.startswith("data: {"):
                chunk = json.loads(line.removeprefix("data: "))
                assert "error" not in chunk, chunk
                text += "".join(choice["text"] for choice in chunk["choices"])
                tokens = (chunk.get("usage") or {}).get("completion_tokens", tokens)
            last = line or last
    assert last == "data: [DONE]"
    return text, tokens


def test_sixteen_streams_on_two_models_that_fit_one_at_a_time_all_complete(crowded: RunningServer) -> None:
    loads, began = loads_of(crowded), time.monotonic()
    bodies = [
        {"model": model, "prompt": f"{number}. A story:", "max_tokens": 24}
        for number in range(8)
        for model in (SMOL, GEMMA)
    ]
    with ThreadPoolExecutor(len(bodies)) as pool:
        answers = list(pool.map(lambda body: streamed(crowded, **body), bodies))
    assert [tokens for _, tokens in answers] == [24] * 16
    # A model that is busy stays a second at least; the first swap may come at once.
    assert len(loads) <= 2 + (time.monotonic() - began) / HASTY.min_residency_s


def test_a_stream_that_gives_way_to_another_model_goes_on_where_it_was(smol_is_loaded: RunningServer) -> None:
    server = smol_is_loaded
    # For longer than a busy model stays.
    undisturbed = completion(server, model=SMOL, max_tokens=200)["choices"][0]["text"]
    renew(server)
    loads = loads_of(server)
    with ThreadPoolExecutor(2) as pool:
        stream = pool.submit(streamed, server, model=SMOL, max_tokens=200)
        while not server.read(lambda: server.yard.controller.state.models[SMOL].leases):
            time.sleep(0.01)
        assert completion(server, model=GEMMA, max_tokens=5)["usage"]["completion_tokens"] == 5
        text, _ = stream.result(WAIT_S)
    assert text == undisturbed
    assert loads == [GEMMA, SMOL]


@pytest.mark.parametrize("seed", [None, 11])
def test_an_unload_that_suspends_pauses_streams_until_the_reload(
    smol_is_loaded: RunningServer, seed: int | None
) -> None:
    server = smol_is_loaded
    how = {} if seed is None else {"seed": seed, "temperature": 0.9}
    undisturbed = completion(server, model=SMOL, max_tokens=60, **how)["choices"][0]["text"]
    renew(server)
    with ThreadPoolExecutor(1) as pool:
        stream = pool.submit(streamed, server, model=SMOL, max_tokens=60, **how)
        while not server.read(lambda: server.yard.controller.state.models[SMOL].leases):
            time.sleep(0.01)
        unloaded = server.post("/v1/models/unload", {"model_id": SMOL, "mode": "suspend"})
        assert unloaded.json() == {"model_id": SMOL, "status": "unloaded"}
        assert not stream.done()
        server.post("/v1/models/reload", {"model_id": SMOL})
        text, _ = stream.result(WAIT_S)
    assert text == undisturbed


def test_an_unload_by_force_ends_streams_with_an_error_that_says_so(smol_is_loaded: RunningServer) -> None:
    server = smol_is_loaded
    body = {"model": SMOL, "prompt": "A story:", "max_tokens": 1500, "stream": True, **GREEDY}
    with httpx.stream("POST", f"{server.url}/v1/completions", json=body, timeout=WAIT_S) as answer:
        lines = answer.iter_lines()
        next(lines)
        assert server.post("/v1/models/unload", {"model_id": SMOL, "mode": "force"}).json()["status"] == "unloaded"
        last = [line for line in lines if line][-1]
    assert json.loads(last.removeprefix("data: "))["error"]["code"] == "model_unloaded"


def test_an_unknown_unload_mode_is_refused_by_name(crowded: RunningServer) -> None:
    answer = crowded.post("/v1/models/unload", {"model_id": SMOL, "mode": "gently"})
    assert answer.status_code == 400
    assert "mode" in answer.json()["error"]["message"]


def test_who_does_not_want_to_wait_is_told_when_to_come_again(smol_is_loaded: RunningServer) -> None:
    server = smol_is_loaded
    body = {"model": GEMMA, "prompt": "Hello", "max_tokens": 1}
    answer = httpx.post(f"{server.url}/v1/completions", json=body, headers={"Prefer": "wait=0"}, timeout=WAIT_S)
    assert (answer.status_code, answer.json()["error"]["code"]) == (503, "model_loading")
    assert 1 <= int(answer.headers["retry-after"]) <= 120
    # It is being loaded for the next try.
    server.post("/v1/models/reload", {"model_id": GEMMA})
    again = httpx.post(f"{server.url}/v1/completions", json=body, headers={"Prefer": "wait=0"}, timeout=WAIT_S)
    assert again.status_code == 200


def test_a_plan_says_what_a_load_would_do_and_does_nothing(smol_is_loaded: RunningServer) -> None:
    server = smol_is_loaded
    plan = server.post("/v1/models/plan", {"model_id": GEMMA}).json()
    assert plan["outcome"] == "evicts"
    assert [gone["model_id"] for gone in plan["evicts"]] == [SMOL]
    assert "idle" in plan["evicts"][0]["reason"]
    assert plan["needed_bytes"] > plan["free_bytes"]
    assert plan["budget_bytes"] == 480_000_000
    assert server.post("/v1/models/plan", {"model_id": SMOL}).json()["outcome"] == "loaded"
    assert server.post("/v1/models/status", {"model_id": SMOL}).json()["status"] == "loaded"


def test_a_request_says_how_long_its_model_stays(smol_is_loaded: RunningServer) -> None:
    server = smol_is_loaded
    completion(server, model=SMOL, max_tokens=1, keep_alive=0)
    deadline = time.monotonic() + WAIT_S
    while server.post("/v1/models/status", {"model_id": SMOL}).json()["status"] != "unloaded":
        assert time.monotonic() < deadline
    completion(server, model=SMOL, max_tokens=1, keep_alive="10m")
    assert server.post("/v1/models/status", {"model_id": SMOL}).json()["status"] == "loaded"
    refused = server.post("/v1/completions", {"prompt": "x", "keep_alive": "soon"})
    assert (refused.status_code, refused.json()["error"]["param"]) == (400, "keep_alive")


def test_all_that_happens_to_models_is_told_as_events(smol_is_loaded: RunningServer) -> None:
    server = smol_is_loaded
    seen: list[tuple[str, dict[str, Any]]] = []
    ready = threading.Event()

    def watch() -> None:
        name = ""
        with httpx.stream("GET", f"{server.url}/v1/models/events", timeout=WAIT_S) as answer:
            assert answer.headers["content-type"].startswith("text/event-stream")
            for line in answer.iter_lines():
                if line.startswith("event: "):
                    name = line.removeprefix("event: ")
                if line.startswith("data: "):
                    seen.append((name, json.loads(line.removeprefix("data: "))))
                    ready.set()
                    if seen[-1][1].get("stage") == "loaded" and seen[-1][1]["model_id"] == GEMMA:
                        return

    with ThreadPoolExecutor(1) as pool:
        watching = pool.submit(watch)
        assert ready.wait(WAIT_S)
        server.post("/v1/models/reload", {"model_id": GEMMA})
        watching.result(WAIT_S)
    assert seen[:2] == [
        ("status", {"model_id": SMOL, "status": "loaded"}),
        ("status", {"model_id": GEMMA, "status": "unloaded"}),
    ]
    stages = [(what["model_id"], what["stage"]) for name, what in seen[2:] if name == "status"]
    assert stages == [(SMOL, "freeing"), (SMOL, "unloaded"), (GEMMA, "loading"), (GEMMA, "loaded")]
    fractions = [what["progress"] for name, what in seen if name == "progress"]
    assert fractions == sorted(fractions)
    assert fractions


def test_a_model_that_never_fits_stops_the_start_and_answers_507_with_the_numbers(weights: dict[str, Path]) -> None:
    with pytest.raises(InsufficientMemory, match="MB"), serving(two_models(weights, memory={"budget": "100MB"})):
        pass
    entry = {"model_id": str(weights["gemma3"]), "alias": "big", "load": "on-demand"}
    small = {"model_id": str(weights["smollm2"]), "alias": "small", "device": {"max_seq_len": 256}}
    config = validate_config({"memory": {"budget": "250MB"}, "runtime": {"max_seqs": 2}, "models": [small, entry]})
    with serving(config) as server:
        answer = server.post("/v1/completions", {"model": "big", "prompt": "x"})
        assert answer.status_code == 507
        assert answer.headers["x-should-retry"] == "false"
        assert answer.json()["error"]["code"] == "insufficient_memory"
        assert "250 MB" in answer.json()["error"]["message"]
        assert server.post("/v1/models/plan", {"model_id": "big"}).json()["outcome"] == "never"
        assert server.post("/v1/models/status", {"model_id": "small"}).json()["status"] == "loaded"


def test_a_thousand_models_on_demand_cost_nothing(weights: dict[str, Path], tmp_path: Path) -> None:
    models = []
    for number in range(1000):
        link = tmp_path / f"m{number}.gguf"
        link.symlink_to(weights["smollm2"])
        models.append(
            {"model_id": str(link), "alias": f"m{number}", "load": "on-demand", "device": {"max_seq_len": 256}}
        )
    with serving(validate_config({"default_model_id": "m7", "runtime": {"max_seqs": 2}, "models": models})) as server:
        assert len(server.get("/v1/models").json()["data"]) == 1000
        # Symbolic links to one file: the weights are loaded once, and shared.
        for name in ("m7", "m8"):
            completion(server, model=name, max_tokens=2)
        shown = server.get("/v1/models/m8").json()
        assert 0 < shown["shared_bytes"] < shown["memory_bytes"]
