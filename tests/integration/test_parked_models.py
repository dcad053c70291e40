"""Models whose weights stay in memory without a context, on real weights."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import ExitStack
from pathlib import Path

import httpx
import pytest

from conftest import two_models
from modelyard.engine.llama import Weights
from modelyard.engine.loading import weights as weights_module
from modelyard.engine.loading.weights import WeightsKey, WeightsPool
from modelyard.protocol.events import Stopped
from modelyard.protocol.requests import Stop
from modelyard.yard.memory.footprint import Footprint
from support.engine_driver import Driven, engine
from support.server import RunningServer, serving

SMOL, GEMMA = "smollm2", "google/gemma3"
GREEDY = {"temperature": 0, "ignore_eos": True, "max_tokens": 24}
PROMPT = "The sea is a vast and"


@pytest.fixture
def reads(monkeypatch: pytest.MonkeyPatch) -> list[str]:
    """The files whose weights were read, by name."""
    seen: list[str] = []

    def reading(paths: tuple[Path, ...], **options: object) -> Weights:
        seen.append(paths[0].name)
        return Weights(paths, **options)  # type: ignore[arg-type]

    monkeypatch.setattr(weights_module, "Weights", reading)
    return seen


# An engine


def test_an_engine_that_parks_leaves_its_weights_for_the_next(weights: dict[str, Path], reads: list[str]) -> None:
    pool, key = WeightsPool(), WeightsKey.of([weights[SMOL]])
    first = engine(weights[SMOL], pool=pool)
    expected = first.answer(PROMPT)
    ended = first.stopped(Stop(park=True))
    assert isinstance(ended, Stopped)
    assert ended.parked is not None
    assert pool.users(key) == 1
    second = engine(weights[SMOL], pool=pool)
    ended.parked.release()
    assert second.answer(PROMPT) == expected
    second.stopped(Stop())
    assert (pool.users(key), len(reads)) == (0, 1)


def test_an_engine_with_a_draft_model_parks_both(weights: dict[str, Path]) -> None:
    pool, key = WeightsPool(), WeightsKey.of([weights[SMOL]])
    driven = Driven(weights[SMOL], pool=pool, draft=(weights[SMOL],))
    assert driven.loaded()
    assert pool.users(key) == 2
    ended = driven.stopped(Stop(park=True))
    assert isinstance(ended, Stopped)
    assert ended.parked is not None
    assert pool.users(key) == 2
    ended.parked.release()
    assert pool.users(key) == 0


# Over HTTP


@pytest.fixture
def start(weights: dict[str, Path]) -> Iterator[Callable[..., RunningServer]]:
    with ExitStack() as servers:
        yield lambda **options: servers.enter_context(
            serving(two_models(weights, max_seqs=4, prefix_cache_n=2, **options))
        )


def resident_file_bytes() -> int:
    """Source: Linux, Documentation/filesystems/proc.rst, status: in KiB."""
    lines = Path("/proc/self/status").read_text().splitlines()
    return next(int(line.split()[1]) * 1024 for line in lines if line.startswith("RssFile:"))


def ask(server: RunningServer, model: str, prompt: str = PROMPT, **fields: object) -> dict[str, object]:
    answer = server.post("/v1/completions", {"model": model, "prompt": prompt, **GREEDY, **fields})
    assert answer.status_code == 200, answer.text
    body: dict[str, object] = answer.json()
    return body


def park(server: RunningServer, model: str) -> httpx.Response:
    return server.post("/v1/models/unload", {"model_id": model, "mode": "park"})


def test_a_model_that_is_parked_answers_the_next_request_without_reading_its_file_again(
    start: Callable[..., RunningServer], reads: list[str]
) -> None:
    server = start()
    expected = ask(server, SMOL)["choices"]
    read = list(reads)
    assert park(server, SMOL).json() == {"model_id": SMOL, "status": "unloaded"}
    shown = server.get(f"/v1/models/{SMOL}").json()
    assert (shown["status"], shown["parked"]) == ("unloaded", True)
    assert 0 < shown["resident_bytes"] < shown["predicted_bytes"]
    held = {model["name"]: model for model in server.get("/api/ps").json()["models"]}
    assert (held[SMOL]["size"], held[SMOL]["parked"]) == (shown["resident_bytes"], True)
    # The other one does not notice.
    assert ask(server, GEMMA)
    assert ask(server, SMOL)["choices"] == expected
    assert "parked" not in server.get(f"/v1/models/{SMOL}").json()
    assert reads == read


def test_a_parked_model_gives_back_its_context_and_the_pages_of_its_file(start: Callable[..., RunningServer]) -> None:
    server = start()

    def used() -> int:
        return server.read(lambda: server.yard.controller.state.used_bytes)

    def footprint() -> Footprint:
        found = server.read(lambda: server.yard.controller.state.models[SMOL].footprint)
        assert found is not None
        return found

    loaded, taken = used(), footprint()
    # llama.cpp computes on the file itself.
    assert 0.8 * taken.weights_bytes < taken.mapped_bytes < taken.weights_bytes
    before = resident_file_bytes()
    park(server, SMOL)
    assert loaded - used() == taken.context_bytes + taken.mapped_bytes
    assert before - resident_file_bytes() >= 0.9 * taken.mapped_bytes
    server.post("/v1/models/unload", {"model_id": SMOL})
    assert loaded - used() == taken.host_bytes


def test_parking_keeps_the_prompts_too_where_they_outlive_an_unload(start: Callable[..., RunningServer]) -> None:
    server = start(memory={"kv_keep": "memory"})
    prompt = "The harbour at dawn. " * 20
    ask(server, SMOL, prompt, max_tokens=1)
    park(server, SMOL)
    usage = ask(server, SMOL, prompt, max_tokens=1)["usage"]
    assert isinstance(usage, dict)
    assert usage["prompt_tokens_details"]["cached_tokens"] == usage["prompt_tokens"] - 1


def test_a_model_that_makes_room_leaves_its_weights_where_they_fit(
    start: Callable[..., RunningServer], reads: list[str]
) -> None:
    """Both weights and either context fit."""
    server = start(memory={"budget": "490MB"})
    # Once both were loaded it is known how much of their weights is in memory twice.
    for model in (SMOL, GEMMA, SMOL):
        ask(server, model)
    reads.clear()
    for _ in range(3):
        ask(server, SMOL)
        plan = server.post("/v1/models/plan", {"model_id": GEMMA}).json()
        assert plan["outcome"] == "evicts"
        assert [gone["reason"].endswith("its weights stay") for gone in plan["evicts"]] == [True]
        ask(server, GEMMA)
        assert server.get(f"/v1/models/{SMOL}").json()["parked"] is True
    assert reads == []


def test_a_parked_model_whose_file_is_gone_fails_with_a_reason_and_holds_nothing(
    weights: dict[str, Path], tmp_path: Path
) -> None:
    path = tmp_path / "copy.gguf"
    path.write_bytes(weights[SMOL].read_bytes())
    with serving(two_models({**weights, SMOL: path})) as server:
        park(server, SMOL)
        path.unlink()
        answer = server.post("/v1/completions", {"model": SMOL, "prompt": PROMPT, **GREEDY})
        assert (answer.status_code, answer.json()["error"]["code"]) == (503, "model_load_failed")
        assert "copy.gguf" in answer.json()["error"]["message"]
        assert not server.read(lambda: server.yard.controller.state.models[SMOL].is_resident)
        assert not server.read(lambda: server.yard.controller._engines._parked)
