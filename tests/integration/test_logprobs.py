"""What is told of probabilities is what the model computed, and keeps to the text."""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest

from support.server import RunningServer

ROOT = Path(__file__).resolve().parents[2]
PROMPT = "One, two, three, four, five, six,"
# Behind "seven, eight," two words are all but equally likely.
COUNT = 4
# Kernels add up in other orders: an eighth of what the first choice is ahead here.
NOISE = 0.25


def chat(server: RunningServer, **body: Any) -> Any:
    chosen = {
        "model": "smollm2",
        "messages": [{"role": "user", "content": "Count from one to nine in words."}],
        "max_tokens": 24,
        "temperature": 0,
        "logprobs": True,
        "top_logprobs": 4,
    } | body
    with server.client() as client:
        answer = client.chat.completions.create(**chosen)
        return list(answer) if body.get("stream") else answer


def test_they_are_those_that_another_program_computes(server: RunningServer, weights: dict[str, Path]) -> None:
    program = [sys.executable, str(ROOT / "tests/support/likelihoods.py"), str(weights["smollm2"]), PROMPT, str(COUNT)]
    done = subprocess.run(program, capture_output=True, timeout=120, check=True)
    expected = json.loads(done.stdout)
    with server.client() as client:
        told = client.completions.create(
            model="smollm2", prompt=PROMPT, max_tokens=COUNT, temperature=0, logprobs=5, extra_body={"ignore_eos": True}
        )
    choice = told.choices[0]
    assert choice.text == bytes(byte for raw, _, _ in expected for byte in raw).decode()
    assert choice.logprobs.token_logprobs == pytest.approx([score for _, score, _ in expected], abs=NOISE)
    for top, (_, _, best) in zip(choice.logprobs.top_logprobs, expected, strict=True):
        assert sorted(top.values(), reverse=True) == pytest.approx(best, abs=2 * NOISE)


def test_the_likeliest_come_first_and_a_greedy_answer_takes_them(server: RunningServer) -> None:
    for entry in chat(server).choices[0].logprobs.content:
        scores = [each.logprob for each in entry.top_logprobs]
        assert scores == sorted(scores, reverse=True)
        assert len(scores) == 4
        assert (entry.top_logprobs[0].bytes, scores[0]) == (entry.bytes, entry.logprob)


def test_they_are_of_the_model_not_of_a_temperature_or_a_grammar(server: RunningServer) -> None:
    first = chat(server, max_tokens=1).choices[0].logprobs.content[0].top_logprobs
    grammar = {"grammar": {"type": "regex", "value": "[0-9]{3}"}}
    for more in ({"temperature": 2.0, "seed": 4}, {"extra_body": grammar}):
        other = chat(server, max_tokens=1, **more).choices[0].logprobs.content[0]
        assert [each.token for each in other.top_logprobs] == [each.token for each in first]
        assert other.logprob <= other.top_logprobs[0].logprob


def entries(chunks: Any) -> tuple[list[Any], str]:
    told, text = [], ""
    for chunk in chunks:
        for choice in chunk.choices:
            text += choice.delta.content or ""
            told += choice.logprobs.content if choice.logprobs else []
    return told, text


def test_a_stream_tells_what_the_whole_tells(server: RunningServer) -> None:
    whole = chat(server).choices[0]
    told, text = entries(chat(server, stream=True))
    assert text == whole.message.content
    assert [each.bytes for each in told] == [each.bytes for each in whole.logprobs.content]
    assert [each.logprob for each in told] == pytest.approx(
        [each.logprob for each in whole.logprobs.content], abs=NOISE
    )


def test_their_tokens_are_the_text(server: RunningServer) -> None:
    whole = chat(server).choices[0]
    assert bytes(byte for each in whole.logprobs.content for byte in each.bytes).decode() == whole.message.content


def test_none_is_told_of_what_a_stop_string_took(server: RunningServer) -> None:
    full = chat(server).choices[0].message.content
    stop = full[len(full) // 2 :][:9]
    for told, text in [
        entries(chat(server, stop=[stop], stream=True)),
        *((each.logprobs.content, each.message.content) for each in chat(server, stop=[stop]).choices),
    ]:
        assert text == full[: full.index(stop)]
        sizes = [len(each.bytes) for each in told]
        assert sum(sizes[:-1]) < len(text.encode()) <= sum(sizes)
