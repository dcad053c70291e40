"""What only shows after many times: memory that does not come back, clients that come and go, engines that die."""

from __future__ import annotations

import json
import random
import subprocess
import sys
import textwrap
import threading
import time
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import httpx
import pytest

from conftest import two_models
from modelyard.engine.generation.step import StepRunner
from support.server import WAIT_S, RunningServer, serving

CYCLES = 60
CLIENTS = 200
STORY = {"model": "smollm2", "prompt": "A story:", "max_tokens": 8, "temperature": 0, "ignore_eos": True}


@pytest.fixture
def server(drawn_weights: dict[str, Path]) -> Iterator[RunningServer]:
    with serving(two_models(drawn_weights, context=512, max_seqs=4, prefix_cache_n=4)) as running:
        yield running


@pytest.mark.long
@pytest.mark.timeout(300)
def test_sixty_loads_and_unloads_a_tenth_of_them_failing_leave_no_memory_behind(weights: dict[str, Path]) -> None:
    # A process of its own: what other tests left in this one's heap would be measured too.
    script = textwrap.dedent(f"""
        import asyncio, gc, sys
        from pathlib import Path
        from modelyard.config import validate_config
        from modelyard.errors import ModelLoadFailed
        from modelyard.yard.requests.requests import Request
        from modelyard.yard.yard import Yard
        from modelyard.protocol.prompts import Text

        def resident():
            status = Path("/proc/self/status").read_text()
            return int(status.split("VmRSS:")[1].split()[0])

        async def main(path, broken):
            def entry(where, name):
                return {{"model_id": where, "alias": name, "device": {{"max_seq_len": 512}}, "load": "on-demand"}}
            models = [entry(path, "sound"), entry(broken, "broken")]
            runtime = {{"isolation": "thread", "max_seqs": 4, "prefix_cache_n": 4}}
            yard = Yard(validate_config({{"runtime": runtime, "models": models}}))
            await yard.start()
            for cycle in range({CYCLES}):
                if cycle % 10 == 9:
                    try:
                        await yard.reload("broken")
                        raise SystemExit("a broken model was loaded")
                    except ModelLoadFailed:
                        pass
                else:
                    async with yard.generate(Request(Text("Once upon a time"), "sound", max_tokens=2)) as generation:
                        await generation.text()
                    await yard.unload("sound")
                # Python frees cycles of objects when it sees fit, and not within sixty loads.
                gc.collect()
                print(resident(), flush=True)
            await yard.close()

        asyncio.run(main(*sys.argv[1:]))
    """)
    broken = weights["smollm2"].with_name("truncated.gguf")
    done = subprocess.run(
        [sys.executable, "-c", script, str(weights["smollm2"]), str(_truncated(weights["smollm2"], broken))],
        capture_output=True,
        text=True,
        timeout=WAIT_S * 4,
        check=False,
    )
    broken.unlink()
    assert done.returncode == 0, done.stderr
    sizes = [int(line) for line in done.stdout.split()]
    assert len(sizes) == CYCLES
    assert max(sizes[-10:]) < 1.02 * max(sizes[:10]), sizes


def _truncated(source: Path, target: Path) -> Path:
    """A file whose header is sound, so that it is llama.cpp that fails: its tensors have another type of the same size.

    llama.cpp reads all of the header, makes its tables, and then misses a tensor that the architecture needs.
    """
    raw = source.read_bytes()
    target.write_bytes(raw.replace(b"blk.29.attn_q.weight", b"blk.29.attn_Q.weight", 1))
    return target


def test_two_hundred_clients_that_vanish_at_random_cost_the_next_one_nothing(server: RunningServer) -> None:
    dice = random.Random(7)

    def visit(number: int) -> None:
        body = {**STORY, "prompt": f"{number}. A story:", "max_tokens": 200, "stream": True}
        patience = dice.choice((0, 1, 5, 20))
        try:
            with httpx.stream(
                "POST", f"{server.url}/v1/completions", json=body, timeout=dice.uniform(0.01, 3)
            ) as answer:
                for _, _line in zip(range(patience), answer.iter_lines(), strict=False):
                    pass
        except httpx.TimeoutException:
            pass

    with ThreadPoolExecutor(50) as pool:
        list(pool.map(visit, range(CLIENTS)))
    deadline = time.monotonic() + WAIT_S
    while server.read(
        lambda: server.yard.controller._inflight.open or server.yard.controller.state.models["smollm2"].leases
    ):
        assert time.monotonic() < deadline, "streams without clients go on"
    assert server.post("/v1/completions", STORY).json()["usage"]["completion_tokens"] == 8
    assert server.read(lambda: server.yard.controller.state.models["smollm2"].queue) == ()


def test_a_client_that_reads_nothing_holds_up_nobody(server: RunningServer) -> None:
    body = {**STORY, "max_tokens": 150, "stream": True}
    with httpx.stream("POST", f"{server.url}/v1/completions", json=body, timeout=WAIT_S) as silent:
        for _ in range(3):
            assert server.post("/v1/completions", STORY).status_code == 200
        assert server.post("/v1/models/unload", {"model_id": "smollm2"}).json()["status"] == "unloaded"
        assert [line for line in silent.iter_lines() if line][-1] == "data: [DONE]"


def test_a_stopped_client_process_holds_up_nobody(server: RunningServer) -> None:
    body = json.dumps({**STORY, "max_tokens": 150, "stream": True})
    url = f"{server.url}/v1/completions"
    command = ["curl", "-sN", url, "-H", "content-type: application/json", "-d", body]
    with subprocess.Popen(command, stdout=subprocess.PIPE) as client:
        assert client.stdout is not None
        client.stdout.readline()
        client.send_signal(19)  # SIGSTOP
        try:
            assert server.post("/v1/completions", STORY).status_code == 200
            assert server.post("/v1/models/unload", {"model_id": "smollm2"}).json()["status"] == "unloaded"
        finally:
            client.kill()


@pytest.mark.long
def test_a_real_engine_that_dies_takes_nobody_with_it(server: RunningServer, monkeypatch: pytest.MonkeyPatch) -> None:
    run, faults = StepRunner.run, threading.Semaphore(0)

    def faulty(step: StepRunner) -> None:
        if step._name == "smollm2" and faults.acquire(blocking=False):
            raise RuntimeError("a fault in the test")
        run(step)

    monkeypatch.setattr(StepRunner, "run", faulty)
    other: dict[str, Any] = {**STORY, "model": "google/gemma3", "max_tokens": 60}
    body = {**STORY, "max_tokens": 300, "stream": True}
    with ThreadPoolExecutor(1) as pool:
        beside = pool.submit(server.post, "/v1/completions", other)
        with httpx.stream("POST", f"{server.url}/v1/completions", json=body, timeout=WAIT_S) as answer:
            lines = answer.iter_lines()
            next(lines)
            faults.release()
            last = [line for line in lines if line][-1]
        assert last == "data: [DONE]"
        assert server.get("/v1/models/smollm2").json()["restarts"] == 1
        assert server.post("/v1/completions", STORY).json()["usage"]["completion_tokens"] == 8
        assert server.get("/health/ready").status_code == 200
        assert beside.result(WAIT_S).json()["usage"]["completion_tokens"] == 60
