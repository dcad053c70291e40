"""Engines that see, that reason, and that read a state back die under their streams, which end complete."""

from __future__ import annotations

import os
import signal
import threading
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import suppress
from pathlib import Path
from typing import Any, Final

import pytest

from conftest import two_models
from modelyard.config import Config, validate_config
from support.images import data_url, encoded, noise
from support.server import WAIT_S, RunningServer, serving

pytestmark = pytest.mark.long

TOKENS: Final = 96
PIECES_BEFORE_DEATH: Final = 12
PICTURE: Final = {"type": "image_url", "image_url": {"url": data_url(encoded(noise(1)))}}
THINKING: Final = """\
{%- for message in messages %}<|im_start|>{{ message.role }}
{{ message.content }}<|im_end|>
{% endfor %}{% if add_generation_prompt %}<|im_start|>assistant
<think>
{% endif %}"""
LONG: Final = "The sea is wide and deep and blue, and nobody knows what is in it. " * 50


def configuration(weights: dict[str, Path], eyes: Path, folder: Path) -> Config:
    template = folder / "thinking.jinja"
    template.write_text(THINKING, "utf-8")
    device = {"max_seq_len": 1024}
    thinker = {"model_id": str(weights["smollm2"]), "alias": "thinker", "device": device}
    return validate_config(
        {
            "runtime": {"isolation": "process"},
            "models": [
                {**thinker, "chat_template": str(template), "reasoning_format": "think"},
                {"model_id": str(eyes), "alias": "seer", "device": device},
            ],
        },
        source="test",
        base=folder,
    )


@pytest.fixture(scope="module")
def server(
    weights: dict[str, Path], vision_models: dict[str, Path], tmp_path_factory: pytest.TempPathFactory
) -> Iterator[RunningServer]:
    folder = tmp_path_factory.mktemp("special")
    with serving(configuration(weights, vision_models["gemma3"], folder)) as running:
        yield running


@pytest.fixture
def pool() -> Iterator[ThreadPoolExecutor]:
    with ThreadPoolExecutor(8) as pool:
        yield pool


def activities(server: RunningServer, model: str) -> list[Any]:
    hosts = server.yard.factory._hosts.hosts()
    return [activity for activity in hosts._journal.table.records() if activity.name.endswith(model)]


def kill(server: RunningServer, model: str) -> None:
    pids = {activity.pid for activity in activities(server, model)}
    assert os.getpid() not in pids
    for pid in pids:
        with suppress(ProcessLookupError):
            os.kill(pid, signal.SIGKILL)


def ask(server: RunningServer, model: str, content: Any, *, is_killed: bool) -> tuple[str, str, int]:
    """The reasoning, the content and the number of tokens of a stream, under which its engine is killed."""
    reasoning, said, tokens, pieces = "", "", 0, 0
    with server.client() as client:
        stream = client.chat.completions.create(
            model=model,
            messages=[{"role": "user", "content": content}],
            temperature=0,
            max_tokens=TOKENS,
            stream=True,
            stream_options={"include_usage": True},
            extra_body={"ignore_eos": True},
        )
        for chunk in stream:
            for choice in chunk.choices:
                reasoning += getattr(choice.delta, "reasoning_content", None) or ""
                said += choice.delta.content or ""
            tokens = chunk.usage.completion_tokens if chunk.usage else tokens
            pieces += 1
            if is_killed and pieces == PIECES_BEFORE_DEATH:
                kill(server, model)
    return reasoning, said, tokens


def restarts(server: RunningServer, model: str) -> int:
    return int(server.get(f"/v1/models/{model}").json().get("restarts", 0))


@pytest.mark.parametrize(
    ("model", "content"),
    [("thinker", "Who are you?"), ("seer", [{"type": "text", "text": "Look at "}, PICTURE])],
    ids=["reasoning", "picture"],
)
def test_a_stream_goes_on_as_what_it_was(
    server: RunningServer, pool: ThreadPoolExecutor, model: str, content: Any
) -> None:
    undisturbed = ask(server, model, content, is_killed=False)
    before = restarts(server, model)
    beside = [pool.submit(ask, server, model, content, is_killed=False) for _ in range(3)]
    killed = ask(server, model, content, is_killed=True)
    assert restarts(server, model) == before + 1
    for reasoning, said, tokens in (killed, *(answer.result(WAIT_S) for answer in beside)):
        assert tokens == TOKENS
        assert (bool(reasoning), bool(said)) == (bool(undisturbed[0]), bool(undisturbed[1]))
        # What was said before the death is not said again, and not otherwise.
        assert (reasoning + said)[:20] == (undisturbed[0] + undisturbed[1])[:20]


def test_one_that_dies_while_it_reads_a_state_back_loses_nothing(
    weights: dict[str, Path], pool: ThreadPoolExecutor
) -> None:
    body = {"model": "smollm2", "prompt": LONG, "max_tokens": TOKENS, "temperature": 0}
    with serving(two_models(weights, context=2048, isolation="process")) as server:
        undisturbed = server.post("/v1/completions", body).json()["choices"][0]["text"]
        seen: list[bool] = []
        for _ in range(5):
            answer = pool.submit(server.post, "/v1/completions", body)
            while not any(activity.computing for activity in activities(server, "smollm2")):
                assert not answer.done()
            server.post("/v1/models/unload", {"model_id": "smollm2", "mode": "suspend"})
            done = threading.Event()
            killer = pool.submit(kill_while_restoring, server, done)
            server.post("/v1/models/reload", {"model_id": "smollm2"})
            assert answer.result(WAIT_S).json()["choices"][0]["text"] == undisturbed
            done.set()
            seen.append(killer.result(WAIT_S))
        assert any(seen)


def kill_while_restoring(server: RunningServer, done: threading.Event) -> bool:
    """Kill SmolLM2's engine as soon as it reads a state back; whether it was seen to."""
    while not done.is_set():
        for activity in activities(server, "smollm2"):
            if activity.doing == "restoring":
                with suppress(ProcessLookupError):
                    os.kill(activity.pid, signal.SIGKILL)
                return True
    return False
