"""Unload, reload and disconnect on real weights, over HTTP, while others are served."""

from __future__ import annotations

import contextlib
import subprocess
import sys
import textwrap
import threading
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import httpx
import openai
import pytest
from openai.types import Completion

from conftest import two_models
from modelyard.protocol.events import SequenceEvent
from modelyard.yard.residency.state import LoadState
from support.server import WAIT_S, RunningServer, serving

STORY = {"model": "smollm2", "prompt": "A long story:", "temperature": 0, "ignore_eos": True}
GEMMA = {"model_id": "google/gemma3"}


@pytest.fixture
def server(drawn_weights: dict[str, Path]) -> Iterator[RunningServer]:
    """A server of its own for each test."""
    with serving(two_models(drawn_weights, max_seqs=4, prefix_cache_n=2)) as running:
        yield running


@contextlib.contextmanager
def endings(server: RunningServer) -> Iterator[list[str]]:
    """How the sequences ended that were in an engine, once the context is left: all of them have by then."""
    streams = server.read(lambda: server.yard.controller._inflight)
    end, seen = streams._end, []

    def recording(event: SequenceEvent) -> None:
        seen.append(type(event).__name__)
        end(event)

    streams._end = recording
    yield seen
    # An unload returns when the last lease has ended.
    assert server.post("/v1/models/unload", {"model_id": "smollm2"}).status_code == 200
    streams._end = end


def test_unload_status_reload_answer_with_the_references_bodies(server: RunningServer) -> None:
    status = server.post("/v1/models/status", GEMMA)
    assert (status.status_code, status.json()["status"]) == (200, "loaded")
    for _ in range(2):
        unload = server.post("/v1/models/unload", GEMMA)
        assert (unload.status_code, unload.json()) == (200, {"model_id": "google/gemma3", "status": "unloaded"})
    assert server.get("/v1/models/google/gemma3").json()["status"] == "unloaded"
    for _ in range(2):
        reload = server.post("/v1/models/reload", GEMMA)
        assert (reload.status_code, reload.json()) == (200, {"model_id": "google/gemma3", "status": "loaded"})


@pytest.mark.parametrize("call", ["unload", "reload", "status"])
def test_an_unknown_model_is_not_found(drawn_server: RunningServer, call: str) -> None:
    answer = drawn_server.post(f"/v1/models/{call}", {"model_id": "nobody"})
    assert answer.status_code == 404
    assert answer.json()["error"]["code"] == "model_not_found"
    assert drawn_server.get("/v1/models/nobody").status_code == 404
    assert [model["status"] for model in drawn_server.get("/v1/models").json()["data"]] == ["loaded", "loaded"]


@pytest.mark.parametrize("body", [{}, {"model_id": 7}, {"model_id": ""}])
def test_a_management_call_without_a_model_is_refused_by_name(
    drawn_server: RunningServer, body: dict[str, object]
) -> None:
    answer = drawn_server.post("/v1/models/unload", body)
    assert answer.status_code == 400
    assert answer.json()["error"]["param"] == "model_id"


def test_the_default_stays_the_default_while_it_is_unloaded(server: RunningServer) -> None:
    server.post("/v1/models/unload", {"model_id": "smollm2"})
    answer = server.post("/v1/completions", {"prompt": "Hi", "max_tokens": 1})
    assert answer.json()["model"] == "smollm2"


def test_many_requests_for_an_unloaded_model_cause_one_load(server: RunningServer) -> None:
    server.post("/v1/models/unload", {"model_id": "smollm2"})
    loads = []

    def count() -> None:
        factory = server.yard.factory
        make = factory.make

        async def counting(model: str, publish: object, placement: object, cells: int) -> object:
            loads.append(model)
            return await make(model, publish, placement, cells)

        factory.make = counting

    server.read(count)
    with ThreadPoolExecutor(12) as pool:
        answers = list(pool.map(lambda _: server.post("/v1/completions", {**STORY, "max_tokens": 2}), range(12)))
    assert [answer.status_code for answer in answers] == [200] * 12
    assert loads == ["smollm2"]


def long_stream(client: openai.OpenAI, tokens: int) -> openai.Stream[Completion]:
    return client.completions.create(
        model="smollm2",
        prompt="A long story:",
        max_tokens=tokens,
        temperature=0,
        stream=True,
        stream_options={"include_usage": True},
        extra_body={"ignore_eos": True},
    )


def test_an_unload_waits_for_the_running_stream_and_kills_nothing(server: RunningServer) -> None:
    with server.client() as client, ThreadPoolExecutor(2) as pool:
        stream = long_stream(client, 150)
        next(stream)
        unload = pool.submit(server.post, "/v1/models/unload", {"model_id": "smollm2"})
        late = pool.submit(server.post, "/v1/completions", {**STORY, "max_tokens": 1})
        assert list(stream)[-1].usage.completion_tokens == 150
        assert unload.result(WAIT_S).status_code == 200
        assert late.result(WAIT_S).status_code == 200


def test_one_models_unload_and_reload_do_not_touch_the_others_streams(server: RunningServer) -> None:
    with server.client() as client:
        stream = long_stream(client, 300)
        next(stream)
        for _ in range(3):
            assert server.post("/v1/models/unload", GEMMA).json()["status"] == "unloaded"
            assert server.post("/v1/models/reload", GEMMA).json()["status"] == "loaded"
        chunks = list(stream)
    assert chunks[-1].usage.completion_tokens == 300


def test_a_client_that_leaves_a_stream_ends_its_sequence(server: RunningServer) -> None:
    body = {**STORY, "max_tokens": 2000, "stream": True}
    with endings(server) as seen, httpx.stream("POST", f"{server.url}/v1/completions", json=body) as answer:
        next(answer.iter_lines())
    assert seen == ["Cancelled"]


def test_a_client_that_leaves_before_its_whole_answer_ends_its_sequence(server: RunningServer) -> None:
    with endings(server) as seen, pytest.raises(httpx.ReadTimeout):
        post_and_leave(server, {**STORY, "max_tokens": 2000})
    assert seen == ["Cancelled"]


def test_a_client_that_leaves_the_line_costs_nobody_a_slot(server: RunningServer) -> None:
    """Four streams fill the model; two more wait in line, leave, and the next in line is served."""
    body = {**STORY, "max_tokens": 150}
    with endings(server) as seen, ThreadPoolExecutor(4) as pool:
        running = [pool.submit(server.post, "/v1/completions", body) for _ in range(4)]
        for _ in range(2):
            with pytest.raises(httpx.ReadTimeout):
                post_and_leave(server, {**STORY, "max_tokens": 2000})
        last = server.post("/v1/completions", {**STORY, "max_tokens": 1})
        assert last.status_code == 200
        assert [answer.result(WAIT_S).json()["usage"]["completion_tokens"] for answer in running] == [150] * 4
    assert sorted(seen) == ["Cancelled"] * 2 + ["Finished"] * 5


def post_and_leave(server: RunningServer, body: dict[str, object]) -> None:
    httpx.post(f"{server.url}/v1/completions", json=body, timeout=httpx.Timeout(WAIT_S, read=0.3))


def test_sequences_that_outgrow_the_cache_together_all_finish(drawn_weights: dict[str, Path]) -> None:
    """Four answers of 120 tokens need more cells than the cache's 256: the youngest are preempted and resumed."""
    body = {**STORY, "max_tokens": 120}
    with serving(two_models(drawn_weights, context=256, max_seqs=4, prefix_cache_n=0)) as server:
        assert server.yard.model("smollm2").context_length == 256
        with ThreadPoolExecutor(4) as pool:
            answers = list(pool.map(lambda n: server.post("/v1/completions", {**body, "prompt": f"{n}:"}), range(4)))
    assert [answer.json()["usage"]["completion_tokens"] for answer in answers] == [120] * 4


def test_closing_ends_streams_with_an_error_that_says_so(server: RunningServer) -> None:
    body = {**STORY, "max_tokens": 2000, "stream": True}
    with httpx.stream("POST", f"{server.url}/v1/completions", json=body, timeout=WAIT_S) as answer:
        lines = answer.iter_lines()
        next(lines)
        server.call(server.yard.close())
        rest = list(lines)
    assert '"code":"shutting_down"' in rest[-2]
    assert "data: [DONE]" not in rest
    refused = server.post("/v1/completions", {**STORY, "max_tokens": 1})
    assert (refused.status_code, refused.json()["error"]["code"]) == (503, "shutting_down")
    assert server.read(lambda: server.yard.controller.state.models["smollm2"].load_state) is LoadState.UNLOADED


def test_a_closed_yard_leaves_no_thread(drawn_weights: dict[str, Path]) -> None:
    before = set(threading.enumerate())
    with serving(two_models(drawn_weights, max_seqs=1, prefix_cache_n=0)) as server:
        engines = {thread.name for thread in set(threading.enumerate()) - before}
        assert {"engine smollm2", "engine google/gemma3"} <= engines
        server.post("/v1/completions", {**STORY, "max_tokens": 1})
    assert set(threading.enumerate()) <= before


def test_an_unload_gives_back_what_its_load_took(weights: dict[str, Path]) -> None:
    """After a first cycle, which leaves one-time pools behind: at least 95 % of it."""
    # A process of its own: in this one the garbage of other tests comes and goes meanwhile.
    script = textwrap.dedent("""
        import asyncio, gc, sys
        from pathlib import Path
        from modelyard.config import validate_config
        from modelyard.protocol.prompts import Text
        from modelyard.yard.requests.requests import Request
        from modelyard.yard.yard import Yard

        def resident():
            return int(Path("/proc/self/statm").read_text().split()[1]) * 4096

        async def main(*paths):
            models = [{"model_id": path, "alias": path, "device": {"max_seq_len": 2048}} for path in paths]
            runtime = {"isolation": "thread", "max_seqs": 4, "prefix_cache_n": 2}
            yard = Yard(validate_config({"runtime": runtime, "models": models}))
            await yard.start()
            for _ in range(5):
                async with yard.generate(Request(Text("A long story:"), paths[0], max_tokens=4)) as generation:
                    await generation.text()
                loaded = resident()
                await yard.unload(paths[0])
                gc.collect()
                print(loaded, resident(), flush=True)
            await yard.close()

        asyncio.run(main(*sys.argv[1:]))
    """)
    paths = sorted(weights.values(), key=lambda path: path != weights["gemma3"])
    done = subprocess.run(
        [sys.executable, "-c", script, *map(str, paths)], capture_output=True, text=True, timeout=WAIT_S, check=False
    )
    assert done.returncode == 0, done.stderr
    (_, before), *cycles = ([int(number) for number in line.split()] for line in done.stdout.splitlines())
    for loaded, after in cycles:
        assert loaded - before > 90e6
        assert loaded - after >= 0.95 * (loaded - before)


def test_two_yards_in_one_process_share_nothing(server: RunningServer, drawn_weights: dict[str, Path]) -> None:
    with serving(two_models(drawn_weights, context=512, max_seqs=1, prefix_cache_n=0)) as other:
        other.post("/v1/models/unload", {"model_id": "smollm2"})
        assert server.get("/v1/models/smollm2").json()["status"] == "loaded"
        with ThreadPoolExecutor(4) as pool:
            asked = {**STORY, "max_tokens": 8}
            answers = list(pool.map(lambda each: each.post("/v1/completions", asked), [server, other] * 2))
    assert [answer.status_code for answer in answers] == [200] * 4
    assert server.get("/v1/models/smollm2").json()["status"] == "loaded"
