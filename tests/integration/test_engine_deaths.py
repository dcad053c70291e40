"""The process of an engine dies under the streams of a real server: they end complete, in their connections."""

from __future__ import annotations

import json
import os
import resource
import signal
import threading
import time
from collections import defaultdict
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import suppress
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Final

import pytest

from conftest import two_models
from modelyard.engine.hosts.stalls import StallBounds
from modelyard.engine.hosts.step_watch import StepWatch
from support.server import WAIT_S, RunningServer, serving

TOKENS = 32
# The other model, whose engine nothing happens to, and its streams.
OTHER: Final = "google/gemma3"
OTHERS: Final = 8
OTHER_TOKENS: Final = 3 * TOKENS
SCHEMA = {
    "type": "json_schema",
    "json_schema": {
        "name": "person",
        "schema": {
            "type": "object",
            "properties": {"name": {"type": "string", "maxLength": 30}, "age": {"type": "integer"}},
            "required": ["name", "age"],
            "additionalProperties": False,
        },
    },
}
TOOL = {
    "type": "function",
    "function": {
        "name": "weather",
        "parameters": {
            "type": "object",
            "properties": {"town": {"type": "string", "maxLength": 20}},
            "additionalProperties": False,
        },
    },
}
# Continued with tokens that nothing else comes near, so that the kernels that compute them do not matter.
COUNTED: Final = (
    "1, 2, 3, 4, 5, 6, 7, 8, 9, 10, 11, 12, 13, 14, 15,",
    "a b c d e f g a b c d e f g a b c d e f g a b c",
    "10, 20, 30, 40, 50, 60, 70, 80, 90, 100, 110,",
)
CHATS: Final[dict[str, dict[str, Any]]] = {
    "seeded": {"content": "Who are you?", "temperature": 0.8, "seed": 5},
    "schema": {"content": "Name a person.", "response_format": SCHEMA},
    "tool": {
        "content": "How is the weather in Rome?",
        "tools": [TOOL],
        "tool_choice": "required",
        "parallel_tool_calls": False,
    },
    "logprobs": {"content": "Tell me of the sea.", "logprobs": True, "top_logprobs": 2, "stop": ["zebra"]},
    "three": {"content": "Tell me of the sea.", "n": 3, "temperature": 0.8},
}


@dataclass
class Said:
    """A streamed answer, put together: its choices, the tokens that have logprobs, and the usage."""

    texts: dict[int, str] = field(default_factory=lambda: defaultdict(str))
    calls: str = ""
    tokens: bytes = b""
    finished: list[str] = field(default_factory=list)
    usage: int = 0


@pytest.fixture
def server(drawn_weights: dict[str, Path]) -> Iterator[RunningServer]:
    with serving(two_models(drawn_weights, isolation="process")) as running:
        yield running


@dataclass(frozen=True)
class Undisturbed:
    """What both models say to COUNTED where nothing happens to their engines."""

    texts: dict[str, str]
    others: dict[str, str]


@pytest.fixture(scope="module")
def undisturbed(drawn_weights: dict[str, Path]) -> Undisturbed:
    with serving(two_models(drawn_weights, isolation="thread")) as server:
        return Undisturbed(
            {prompt: complete(server, prompt) for prompt in COUNTED},
            {prompt: complete(server, prompt, model=OTHER, tokens=OTHER_TOKENS) for prompt in COUNTED},
        )


def complete(
    server: RunningServer,
    prompt: str,
    on_piece: Callable[[], None] = lambda: None,
    *,
    model: str = "smollm2",
    tokens: int = TOKENS,
) -> str:
    """What is streamed to go on with ``prompt``."""
    said, finished = "", ""
    with server.client() as client:
        body = {"model": model, "prompt": prompt, "max_tokens": tokens, "temperature": 0}
        for chunk in client.completions.create(**body, stream=True):
            said += chunk.choices[0].text
            finished = chunk.choices[0].finish_reason or finished
            on_piece()
    assert finished == "length"
    return said


def chat(server: RunningServer, content: str, on_piece: Callable[[], None] = lambda: None, **asked: Any) -> Said:
    """What is streamed in a chat."""
    said = Said()
    body = {"model": "smollm2", "temperature": 0, "max_tokens": 2 * TOKENS, **asked}
    body |= {"messages": [{"role": "user", "content": content}], "stream_options": {"include_usage": True}}
    with server.client() as client:
        for chunk in client.chat.completions.create(**body, stream=True):
            for choice in chunk.choices:
                said.texts[choice.index] += choice.delta.content or ""
                for call in choice.delta.tool_calls or ():
                    said.calls += call.function.arguments or ""
                for entry in (choice.logprobs.content or ()) if choice.logprobs else ():
                    said.tokens += bytes(entry.bytes)
                if choice.finish_reason:
                    said.finished.append(choice.finish_reason)
            if chunk.usage:
                said.usage = chunk.usage.completion_tokens
            on_piece()
    return said


def pid_of(server: RunningServer, model: str) -> int | None:
    hosts = server.yard.factory._hosts.hosts()
    pids = {activity.pid for activity in hosts._journal.table.records() if activity.name.endswith(model)}
    assert os.getpid() not in pids
    return pids.pop() if pids else None


def kill(server: RunningServer, number: signal.Signals) -> None:
    """End the process of SmolLM2's engine, once there is one."""

    def is_hit() -> bool:
        pid = pid_of(server, "smollm2")
        with suppress(ProcessLookupError):
            if pid is not None:
                os.kill(pid, number)
                return True
        return False

    until(is_hit)


def until(happens: Callable[[], bool]) -> None:
    deadline = time.monotonic() + WAIT_S
    while not happens():
        assert time.monotonic() < deadline
        time.sleep(0.005)


class Streams:
    """Eight streams of one model at the same time, and eight of the other one, with a count of the pieces."""

    def __init__(self, server: RunningServer, pool: ThreadPoolExecutor) -> None:
        self.pieces = 0
        self._lock = threading.Lock()
        self._completions = {prompt: pool.submit(complete, server, prompt, self._count) for prompt in COUNTED}
        self._chats = {name: pool.submit(chat, server, on_piece=self._count, **asked) for name, asked in CHATS.items()}
        prompts = [COUNTED[number % len(COUNTED)] for number in range(OTHERS)]
        self._others = [
            (prompt, pool.submit(complete, server, prompt, model=OTHER, tokens=OTHER_TOKENS)) for prompt in prompts
        ]
        assert len(self._completions) + len(self._chats) == len(self._others) == 8

    def _count(self) -> None:
        with self._lock:
            self.pieces += 1

    def are_complete(self, undisturbed: Undisturbed) -> None:
        assert {prompt: said.result(WAIT_S) for prompt, said in self._completions.items()} == undisturbed.texts
        said = {name: answer.result(WAIT_S) for name, answer in self._chats.items()}
        assert {"name", "age"} <= json.loads(said["schema"].texts[0]).keys()
        assert isinstance(json.loads(said["tool"].calls), dict)
        assert said["logprobs"].tokens.decode() == said["logprobs"].texts[0]
        assert len(said["three"].texts) == len(said["three"].finished) == 3
        for answer in said.values():
            assert answer.finished
            assert answer.usage > 0
        for prompt, other in self._others:
            assert other.result(WAIT_S) == undisturbed.others[prompt]


@pytest.fixture
def pool() -> Iterator[ThreadPoolExecutor]:
    # Beside the sixteen streams: what is asked while they run.
    with ThreadPoolExecutor(18) as pool:
        yield pool


@pytest.mark.parametrize(
    ("number", "times"),
    [(signal.SIGSEGV, 1), pytest.param(signal.SIGKILL, 3, marks=pytest.mark.long)],
    ids=["segmentation fault", "killed three times"],
)
def test_all_streams_end_complete_with_the_text_of_undisturbed_ones(
    server: RunningServer,
    undisturbed: Undisturbed,
    pool: ThreadPoolExecutor,
    number: signal.Signals,
    times: int,
) -> None:
    before = server.get("/v1/models/smollm2").json().get("restarts", 0)
    streams = Streams(server, pool)
    for death in range(1, times + 1):
        until(lambda death=death: streams.pieces > 25 * death)
        kill(server, number)
        until(lambda death=death: server.get("/v1/models/smollm2").json().get("restarts", 0) == before + death)
    streams.are_complete(undisturbed)
    shown = server.get("/v1/models/smollm2").json()
    assert shown["isolated"]
    assert number.name in shown["last_death"]
    assert server.get(f"/v1/models/{OTHER}").json().get("restarts", 0) == 0


@pytest.mark.long
def test_all_streams_end_complete_where_the_process_of_an_engine_runs_out_of_memory(
    server: RunningServer, undisturbed: Undisturbed, pool: ThreadPoolExecutor
) -> None:
    streams = Streams(server, pool)
    until(lambda: streams.pieces > 25)
    pid = pid_of(server, "smollm2")
    assert pid is not None
    resource.prlimit(pid, resource.RLIMIT_AS, (1 << 20, 1 << 20))
    # So that it needs some; it is refused by the next engine, for its length.
    long = pool.submit(server.post, "/v1/completions", {"model": "smollm2", "prompt": "word " * (1 << 20)})
    until(lambda: server.get("/v1/models/smollm2").json().get("restarts", 0) == 1)
    streams.are_complete(undisturbed)
    assert long.result(WAIT_S).json()["error"]["code"] == "context_length_exceeded"
    assert server.get("/v1/models/smollm2").json()["isolated"]
    assert server.get(f"/v1/models/{OTHER}").json().get("restarts", 0) == 0


def test_streams_of_an_engine_that_hangs_in_a_step_go_on_with_the_next_one(
    server: RunningServer, undisturbed: Undisturbed, pool: ThreadPoolExecutor
) -> None:
    hosts = server.yard.factory._hosts.hosts()
    pieces = threading.Semaphore(0)
    answers = {prompt: pool.submit(complete, server, prompt, pieces.release) for prompt in COUNTED}
    other = pool.submit(complete, server, COUNTED[0], model=OTHER, tokens=OTHER_TOKENS)
    for _ in range(15):
        assert pieces.acquire(timeout=WAIT_S)
    pid = pid_of(server, "smollm2")
    assert pid is not None
    os.kill(pid, signal.SIGSTOP)
    watch = StepWatch(hosts._journal.table, hosts._on_stall, StallBounds(still_s=0.5), poll_s=0.1)
    watch.start()
    assert {prompt: answer.result(WAIT_S) for prompt, answer in answers.items()} == undisturbed.texts
    watch.close()
    assert other.result(WAIT_S) == undisturbed.others[COUNTED[0]]
    shown = server.get("/v1/models/smollm2").json()
    assert shown["restarts"] == 1
    assert "stopped by a signal" in shown["last_death"]


@pytest.mark.long
def test_one_that_dies_while_it_loads_is_loaded_all_the_same(server: RunningServer, pool: ThreadPoolExecutor) -> None:
    server.post("/v1/models/unload", {"model_id": "smollm2"})
    answer = pool.submit(complete, server, COUNTED[0])
    kill(server, signal.SIGKILL)
    assert answer.result(WAIT_S)


def test_one_that_dies_while_it_is_suspended_loses_nothing(
    server: RunningServer, pool: ThreadPoolExecutor, undisturbed: Undisturbed
) -> None:
    counted = threading.Semaphore(0)
    answer = pool.submit(complete, server, COUNTED[0], counted.release)
    for _ in range(5):
        assert counted.acquire(timeout=WAIT_S)
    pid = pid_of(server, "smollm2")
    assert pid is not None
    os.kill(pid, signal.SIGSTOP)
    unloaded = pool.submit(server.post, "/v1/models/unload", {"model_id": "smollm2", "mode": "suspend"})
    until(
        lambda: (
            server.read(
                lambda: (
                    server.yard.controller.state.models[
                        server.yard.directory.residency_names["smollm2"]
                    ].has_unload_next
                )
            )
            or server.get("/v1/models/smollm2").json()["status"] != "loaded"
        )
    )
    os.kill(pid, signal.SIGKILL)
    assert unloaded.result(WAIT_S).json()["status"] == "unloaded"
    server.post("/v1/models/reload", {"model_id": "smollm2"})
    assert answer.result(WAIT_S) == undisturbed.texts[COUNTED[0]]


def test_parked_weights_that_are_killed_are_loaded_again(server: RunningServer) -> None:
    parked = server.post("/v1/models/unload", {"model_id": "smollm2", "mode": "park"}).json()
    assert parked["status"] == "unloaded"
    name = server.yard.directory.residency_names["smollm2"]
    assert server.read(lambda: server.yard.model("smollm2").is_parked)
    weights = server.yard.controller._engines._parked[name]
    os.kill(weights._weights._process.pid, signal.SIGKILL)  # type: ignore[attr-defined]
    until(lambda: not server.read(lambda: server.yard.model("smollm2").is_parked))
    assert complete(server, COUNTED[0])


def test_a_request_that_ends_its_engine_each_time_is_refused_and_others_go_on(
    server: RunningServer, pool: ThreadPoolExecutor, undisturbed: Undisturbed
) -> None:
    poison = {"model": "smollm2", "prompt": "poison " * 40, "max_tokens": 4 * TOKENS, "temperature": 0}
    done = threading.Event()

    def kill() -> None:
        """End the process whenever it computes that request."""
        hosts = server.yard.factory._hosts.hosts()
        while not done.wait(0.001):
            mine = [
                r
                for r, s in server.read(lambda: dict(server.yard.controller._inflight.open)).items()
                if getattr(getattr(s.submit, "prompt", None), "text", "") == poison["prompt"]
            ]
            for each in hosts._journal.table.records():
                if any(number in each.computing for number in mine):
                    with suppress(ProcessLookupError):
                        os.kill(each.pid, signal.SIGSEGV)

    killer = pool.submit(kill)
    other = pool.submit(complete, server, COUNTED[0])
    answer = server.post("/v1/completions", poison)
    done.set()
    killer.result(WAIT_S)
    assert answer.status_code == 500
    assert answer.json()["error"]["code"] == "engine_error"
    assert other.result(WAIT_S) == undisturbed.texts[COUNTED[0]]
    again = server.post("/v1/completions", poison)
    assert (again.status_code, again.json()["error"]["code"]) == (500, "engine_error")
