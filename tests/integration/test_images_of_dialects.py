"""One image, asked about in every dialect: the model sees the same."""

from __future__ import annotations

import base64
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from modelyard.config import validate_config
from support.images import data_url, encoded, noise
from support.server import RunningServer, serving

ONE, TWO = encoded(noise(1)), encoded(noise(2))
WORDS = "What is it?"
TOOL = {"type": "function", "function": {"name": "look", "description": "Look.", "parameters": {"type": "object"}}}


@pytest.fixture(scope="module")
def yard(vision_models: dict[str, Path], weights: dict[str, Path]) -> Iterator[RunningServer]:
    models = [
        {"model_id": str(vision_models["idefics3"]), "alias": "eyes", "device": {"max_seq_len": 1024}},
        {"model_id": str(weights["smollm2"]), "alias": "blind", "device": {"max_seq_len": 512}},
    ]
    with serving(validate_config({"runtime": {"max_seqs": 2}, "models": models}, source="test")) as running:
        yield running


def base64_of(image: bytes) -> str:
    return base64.b64encode(image).decode()


def chat(image: bytes, **more: Any) -> tuple[str, dict[str, Any]]:
    parts = [{"type": "image_url", "image_url": {"url": data_url(image)}}, {"type": "text", "text": WORDS}]
    return "/v1/chat/completions", {"messages": [{"role": "user", "content": parts}], "max_tokens": 8, **more}


def anthropic(image: bytes, **more: Any) -> tuple[str, dict[str, Any]]:
    source = {"type": "base64", "media_type": "image/png", "data": base64_of(image)}
    parts = [{"type": "image", "source": source}, {"type": "text", "text": WORDS}]
    return "/v1/messages", {"messages": [{"role": "user", "content": parts}], "max_tokens": 8, **more}


def ollama_chat(image: bytes, **more: Any) -> tuple[str, dict[str, Any]]:
    turn = {"role": "user", "content": WORDS, "images": [base64_of(image)]}
    options = {"num_predict": 8, "temperature": more.get("temperature", 0.8)}
    return "/api/chat", {"messages": [turn], "stream": False, "options": options}


def ollama_generate(image: bytes, **more: Any) -> tuple[str, dict[str, Any]]:
    options = {"num_predict": 8, "temperature": more.get("temperature", 0.8)}
    return "/api/generate", {"prompt": WORDS, "images": [base64_of(image)], "stream": False, "options": options}


def responses(image: bytes, **more: Any) -> tuple[str, dict[str, Any]]:
    parts = [{"type": "input_image", "image_url": data_url(image)}, {"type": "input_text", "text": WORDS}]
    return "/v1/responses", {"input": [{"role": "user", "content": parts}], "max_output_tokens": 8, **more}


DIALECTS = [chat, anthropic, ollama_chat, ollama_generate, responses]


def prompt_tokens(answer: dict[str, Any]) -> int:
    usage = answer.get("usage", {})
    if "cache_read_input_tokens" in usage:
        return int(usage["input_tokens"] + usage["cache_read_input_tokens"])
    return int(answer.get("prompt_eval_count") or usage.get("prompt_tokens") or usage["input_tokens"])


def text_of(answer: dict[str, Any]) -> str:
    match answer:
        case {"choices": [{"message": {"content": text}}]} | {"message": {"content": text}} | {"response": text}:
            return str(text)
        case {"content": [{"text": text}]} | {"output": [{"content": [{"text": text}]}]}:
            return str(text)
    raise AssertionError(answer)


@pytest.mark.parametrize("dialect", DIALECTS)
def test_every_dialect_shows_the_model_the_same_image(yard: RunningServer, dialect: Any) -> None:
    def ask(how: Any, image: bytes) -> dict[str, Any]:
        path, body = how(image, temperature=0)
        response = yard.post(path, {"model": "eyes", **body})
        assert response.status_code == 200, response.text
        return dict(response.json())

    as_chat, same, other = ask(chat, ONE), ask(dialect, ONE), ask(dialect, TWO)
    assert prompt_tokens(same) == prompt_tokens(as_chat) > 60
    assert text_of(same) == text_of(as_chat)
    assert prompt_tokens(other) == prompt_tokens(same)
    assert text_of(other) != text_of(same)


@pytest.mark.parametrize("dialect", DIALECTS)
def test_a_model_without_eyes_says_so_in_the_words_of_the_dialect(yard: RunningServer, dialect: Any) -> None:
    path, body = dialect(ONE)
    response = yard.post(path, {"model": "blind", **body})
    assert response.status_code == 400
    assert "image" in str(response.json()["error"])


def test_a_count_of_tokens_has_those_of_images(yard: RunningServer) -> None:
    _, body = anthropic(ONE)
    del body["max_tokens"]
    counted = yard.post("/v1/messages/count_tokens", {"model": "eyes", **body}).json()["input_tokens"]
    path, body = anthropic(ONE)
    assert counted == prompt_tokens(yard.post(path, {"model": "eyes", **body}).json())


def test_tools_are_told_beside_an_image(yard: RunningServer) -> None:
    path, body = chat(ONE)
    without = yard.post(path, {"model": "eyes", **body}).json()
    beside = yard.post(path, {"model": "eyes", **body, "tools": [TOOL]}).json()
    assert prompt_tokens(beside) > prompt_tokens(without) + 10


def test_a_conversation_with_an_image_goes_on(yard: RunningServer) -> None:
    path, body = responses(ONE)
    first = yard.post(path, {"model": "eyes", **body}).json()
    more = {"model": "eyes", "input": "And now?", "previous_response_id": first["id"], "max_output_tokens": 2}
    then = yard.post(path, more).json()
    assert then["usage"]["input_tokens"] > first["usage"]["input_tokens"]


@pytest.mark.parametrize(
    ("path", "content", "said"),
    [
        ("/v1/messages", [{"type": "image", "source": {"type": "file", "file_id": "f"}}], "source of type 'base64'"),
        ("/v1/messages", [{"type": "image", "source": {"type": "base64", "data": "?"}}], "is not base64"),
        ("/v1/responses", [{"type": "input_image", "file_id": "f"}], "must have an image_url"),
    ],
)
def test_an_image_that_cannot_be_had_is_refused_with_its_place(
    yard: RunningServer, path: str, content: list[Any], said: str
) -> None:
    turns = [{"role": "user", "content": content}]
    response = yard.post(path, {"model": "eyes", "messages": turns, "input": turns, "max_tokens": 1})
    assert response.status_code == 400
    assert said in response.json()["error"]["message"]
