"""The tokens of texts and conversations, of real vocabularies."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import Any

import httpx
import pytest

from modelyard.config import validate_config
from modelyard.engine.input.tokenize_worker import MAX_TEXT_LENGTH
from modelyard.yard.residency.waiting import UnloadMode
from support.server import RunningServer, serving

SEA = "The sea is vast 日本🦑."
TURN = [{"role": "user", "content": "Hello"}]
TOOL = {"type": "function", "function": {"name": "look", "description": "Look at the sea.", "parameters": {}}}


@pytest.fixture(scope="module")
def yard(weights: dict[str, Path], minilm: Path) -> Iterator[RunningServer]:
    """A model that chats, and one that embeds."""
    models = [
        {"model_id": str(weights["smollm2"]), "alias": "smol", "device": {"max_seq_len": 512}},
        {"model_id": str(minilm), "alias": "minilm"},
    ]
    with serving(validate_config({"models": models}, source="test")) as running:
        yield running


def answer(response: httpx.Response) -> Any:
    assert response.status_code == 200, response.text
    return response.json()


def tokens(yard: RunningServer, **body: Any) -> Any:
    return answer(yard.post("/tokenize", {"model": "smol", **body}))


@pytest.mark.parametrize("model", ["smol", "minilm"])
@pytest.mark.parametrize("prefix", ["", "/v1"])
def test_a_text_comes_back_from_its_tokens(yard: RunningServer, model: str, prefix: str) -> None:
    text = "the sea is vast"
    told = answer(yard.post(f"{prefix}/tokenize", {"model": model, "content": text}))
    assert told["count"] == len(told["tokens"]) > 3
    assert told["max_model_len"] == {"smol": 512, "minilm": 512}[model]
    back = answer(yard.post(f"{prefix}/detokenize", {"model": model, "tokens": told["tokens"]}))
    assert back["content"].replace("\u2581", " ").strip() == back["prompt"].replace("\u2581", " ").strip() == text


def test_pieces_are_texts_or_bytes_and_add_up(yard: RunningServer) -> None:
    told = tokens(yard, content=SEA, with_pieces=True, return_token_strs=True)
    pieces = [entry["piece"] for entry in told["tokens"]]
    assert any(isinstance(piece, list) for piece in pieces), "a character of four bytes is several tokens"
    assert b"".join(piece.encode() if isinstance(piece, str) else bytes(piece) for piece in pieces).decode() == SEA
    assert len(told["token_strs"]) == told["count"]


def test_special_tokens_are_put_around_a_prompt_and_not_around_content(yard: RunningServer) -> None:
    ids = {
        name: answer(yard.post("/tokenize", {"model": "minilm", **body}))["tokens"]
        for name, body in {
            "content": {"content": "sea"},
            "prompt": {"prompt": "sea"},
            "asked": {"content": "sea", "add_special": True},
            "not asked": {"prompt": "sea", "add_special_tokens": False},
        }.items()
    }
    assert ids["prompt"] == ids["asked"] != ids["content"] == ids["not asked"]
    assert len(ids["prompt"]) == len(ids["content"]) + 2


def test_special_tokens_that_are_spelt_out_count_as_such_unless_told_otherwise(yard: RunningServer) -> None:
    assert tokens(yard, content="<|im_start|>")["count"] == 1
    assert tokens(yard, content="<|im_start|>", parse_special=False)["count"] > 1
    assert answer(yard.post("/detokenize", {"model": "smol", "tokens": [1]}))["content"] == "<|im_start|>"


def test_a_conversation_has_the_tokens_that_an_answer_to_it_bills(yard: RunningServer) -> None:
    for extra in ({}, {"tools": [TOOL]}):
        body = {"model": "smol", "messages": TURN, **extra}
        billed = answer(yard.post("/v1/chat/completions", {**body, "max_tokens": 1}))["usage"]["prompt_tokens"]
        assert tokens(yard, **body)["count"] == billed


def test_an_anthropic_count_is_what_its_answer_bills(yard: RunningServer) -> None:
    tool = {"name": "look", "description": "Look at the sea.", "input_schema": {"type": "object"}}
    body = {"model": "smol", "system": "Be brief.", "messages": TURN, "tools": [tool]}
    count = answer(yard.post("/v1/messages/count_tokens", body))
    usage = answer(yard.post("/v1/messages", {**body, "max_tokens": 1}))["usage"]
    assert count == {"input_tokens": usage["input_tokens"] + usage["cache_read_input_tokens"]}
    fewer = answer(yard.post("/v1/messages/count_tokens", {"model": "smol", "messages": TURN}))
    assert fewer["input_tokens"] < count["input_tokens"]


def test_more_can_be_counted_than_a_model_could_read(yard: RunningServer) -> None:
    text = "sea " * 2000
    assert tokens(yard, content=text)["count"] > 512
    messages = [{"role": "user", "content": text}]
    assert answer(yard.post("/v1/messages/count_tokens", {"model": "smol", "messages": messages}))["input_tokens"] > 512
    assert yard.post("/v1/chat/completions", {"model": "smol", "messages": messages}).status_code == 400


@pytest.mark.parametrize(
    ("path", "body", "said"),
    [
        ("/tokenize", {"content": "a" * (MAX_TEXT_LENGTH + 1)}, "are the most that are tokenised at once"),
        ("/tokenize", {}, "Give one of 'content', 'prompt' and 'messages'"),
        ("/tokenize", {"content": "a", "prompt": "b"}, "not both 'content' and 'prompt'"),
        ("/tokenize", {"messages": TURN, "chat_template": "x"}, "'chat_template' is not supported"),
        ("/tokenize", {"messages": TURN, "model": "minilm"}, "does not chat. Send the text itself."),
        ("/detokenize", {"tokens": [-1]}, "'tokens' holds -1, but this model's vocabulary has ids 0 to"),
        ("/detokenize", {"tokens": [10**6]}, "'tokens' holds 1000000"),
        ("/detokenize", {}, "'tokens'"),
        ("/v1/messages/count_tokens", {"messages": TURN, "model": "minilm"}, "does not chat"),
    ],
)
def test_what_cannot_be_told_is_refused_in_words(yard: RunningServer, path: str, body: Any, said: str) -> None:
    response = yard.post(path, {"model": "smol", **body})
    assert response.status_code == 400
    assert said in response.json()["error"]["message"]


def test_an_unloaded_model_is_loaded_for_it(yard: RunningServer) -> None:
    yard.call(yard.yard.unload("minilm", UnloadMode.DRAIN))
    assert answer(yard.post("/tokenize", {"model": "minilm", "content": "sea"}))["count"] == 1
    assert yard.read(lambda: yard.yard.model("minilm").status) == "loaded"


def test_a_long_text_is_given_up_with_its_model(yard: RunningServer) -> None:
    """The unload waits for what was begun, and what was not is told that the model went."""
    import concurrent.futures

    with concurrent.futures.ThreadPoolExecutor() as clients:
        asked = [clients.submit(tokens_status, yard, "a " * 30_000) for _ in range(3)]
        yard.call(yard.yard.unload("smol", UnloadMode.FORCE))
        outcomes = {future.result(60) for future in asked}
    assert outcomes <= {200, 503}
    assert tokens(yard, content="sea")["count"] == 1


def tokens_status(yard: RunningServer, text: str) -> int:
    return yard.post("/tokenize", {"model": "smol", "content": text}).status_code


def test_an_answer_can_be_kept_from_repeating_itself(yard: RunningServer) -> None:
    def said(**more: Any) -> str:
        body = {"model": "smol", "prompt": "a b c d e f g. " * 6, "max_tokens": 12, "temperature": 0, **more}
        return str(answer(yard.post("/v1/completions", body))["choices"][0]["text"])

    plain = said()
    assert "a b c d e f g." in plain
    assert "a b c d e f g." not in said(dry_multiplier=5, dry_base=2)
    # What breaks a sequence may come again and again.
    assert "a b c d e f g." in said(dry_multiplier=5, dry_base=2, dry_sequence_breakers=[" ", "."])


def test_penalties_look_back_as_far_as_they_are_told(yard: RunningServer) -> None:
    def said(**options: Any) -> str:
        options = {"num_predict": 6, "temperature": 0, "repeat_penalty": 1.9, **options}
        body = {"model": "smol", "prompt": "one two three four " * 6, "raw": True, "stream": False, "options": options}
        return str(answer(yard.post("/api/generate", body))["response"])

    assert said(repeat_last_n=0) == said(repeat_penalty=1.0) != said(repeat_last_n=-1)
