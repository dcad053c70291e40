"""Three hundred streams at once, of clients of all kinds: only those are refused that deserve it, and nothing stays."""

from __future__ import annotations

import asyncio
import random
import time
from collections import Counter
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import httpx
import pytest

from conftest import two_models
from modelyard.config import Server
from support.server import WAIT_S, RunningServer, serving

STREAMS = 300
ROUNDS = 2
KEY = "the-key"
ROUND_WAIT_S = 4 * WAIT_S
STREAM, CHAT = "/v1/completions", "/v1/chat/completions"
BROKEN = [
    b"",
    b"{",
    b"[]",
    b'{"messages": 7}',
    b'{"messages": "Hi", "max_tokens": -3}',
    b'{"messages": "Hi", "model": "nobody"}',
    b"\xff\xfe",
]
# What the process may grow by from one round to the next: a tenth of a megabyte for each stream.
MAX_GROWTH_BYTES = 32 * 2**20

Answers = Counter[tuple[str, Any]]


@pytest.fixture(scope="module")
def server(weights: dict[str, Path]) -> Iterator[RunningServer]:
    config = two_models(weights, context=512, max_seqs=16, prefix_cache_n=4)
    settings = Server.model_validate({"api_keys": [KEY]})
    with serving(config.model_copy(update={"server": settings})) as running:
        yield running


def resident_bytes() -> int:
    status = Path("/proc/self/status").read_text()
    return int(status.split("VmRSS:")[1].split()[0]) * 1024


async def one(client: httpx.AsyncClient, number: int, dice: random.Random) -> tuple[str, Any]:
    """One client's visit: how it behaved, and what became of it."""
    body = {"model": "smollm2", "prompt": f"{number}?", "max_tokens": 3, "stream": True, "ignore_eos": True}
    match number % 6:
        case 0 | 1:
            return "cut", await cut(client, body | {"max_tokens": 50}, dice.randrange(4))
        case 2 if dice.random() < 0.5:
            wrong = await client.post(STREAM, json=body, headers={"authorization": "Bearer wrong"})
            return "wrong key", wrong.status_code
        case 2:
            headers = {"content-type": "application/json"}
            broken = await client.post(CHAT, content=dice.choice(BROKEN), headers=headers)
            return "broken body", broken.status_code
        case _:
            answer = await client.post(STREAM, json=body)
            return "whole", (answer.status_code, answer.text.endswith("data: [DONE]\n\n"))


async def cut(client: httpx.AsyncClient, body: dict[str, Any], patience: int) -> int:
    """Leave after so many pieces; at 0, as soon as the answer begins."""
    async with client.stream("POST", STREAM, json=body) as answer:
        lines = answer.aiter_lines()
        for _ in range(patience):
            await anext(lines)
        return answer.status_code


async def load(server: RunningServer, seed: int) -> Answers:
    dice = random.Random(seed)
    limits = httpx.Limits(max_connections=None)
    headers = {"authorization": f"Bearer {KEY}"}
    async with (
        asyncio.timeout(ROUND_WAIT_S),
        httpx.AsyncClient(base_url=server.url, limits=limits, headers=headers, timeout=ROUND_WAIT_S) as client,
    ):
        return Counter(await asyncio.gather(*(one(client, number, dice) for number in range(STREAMS))))


def what_is_left(server: RunningServer) -> dict[str, Any]:
    """All that a request leaves behind while it is answered; empty when the server is idle."""

    def look() -> dict[str, Any]:
        controller = server.yard.controller
        states = controller.state.models.values()
        census = server.yard.monitor.metrics()
        vitals = [model.counters.engine_stats for model in census.models if model.counters.engine_stats is not None]
        left = {
            "streams": len(controller._inflight.open),
            "leases": sum(len(state.leases) for state in states),
            "in line": sum(len(state.queue) for state in states),
            "in engines": sum(model.running + model.waiting for model in census.models),
            "sequences": sum(each.running + each.waiting for each in vitals),
        }
        return {name: number for name, number in left.items() if number}

    return server.read(look)


def wait_until(is_so: Callable[[], bool], what: Callable[[], object]) -> None:
    deadline = time.monotonic() + WAIT_S
    while not is_so():
        assert time.monotonic() < deadline, what()


@pytest.mark.long
@pytest.mark.timeout(900)
def test_three_hundred_streams_a_third_cut_off_leave_nothing_behind(server: RunningServer) -> None:
    def tasks() -> set[str]:
        def look() -> set[str]:
            return {task.get_name() for task in asyncio.all_tasks() - {asyncio.current_task()}}

        return server.read(look)

    before = tasks()
    sizes = []
    for seed in range(ROUNDS):
        answers = asyncio.run(load(server, seed))
        assert {number for kind, number in answers if kind == "cut"} == {200}
        assert {number for kind, number in answers if kind == "wrong key"} == {401}
        assert {number for kind, number in answers if kind == "broken body"} == {400, 404}
        assert {number for kind, number in answers if kind == "whole"} == {(200, True)}
        wait_until(lambda: not what_is_left(server), lambda: what_is_left(server))
        wait_until(lambda: tasks() <= before, lambda: tasks() - before)
        sizes.append(resident_bytes())
    # The first round has filled what is kept: weights that are mapped, pools, prompts.
    assert sizes[-1] - sizes[-2] < MAX_GROWTH_BYTES, sizes
    headers = {"authorization": f"Bearer {KEY}"}
    body = {"messages": "Hi", "max_tokens": 2, "ignore_eos": True}
    last = httpx.post(server.url + CHAT, json=body, headers=headers, timeout=WAIT_S)
    assert last.json()["usage"]["completion_tokens"] == 2
