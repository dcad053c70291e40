"""Bad input gets its clear error, and neither the process nor another request is lost."""

from __future__ import annotations

import socket
from collections.abc import Iterator
from typing import Any

import httpx
import pytest

from conftest import CONTEXT
from support.server import RunningServer

CHAT = "/v1/chat/completions"


def chat(**fields: Any) -> dict[str, Any]:
    return {"model": "smollm2", "messages": [{"role": "user", "content": "Hi"}], "max_tokens": 1, **fields}


@pytest.fixture(autouse=True)
def it_still_answers_afterwards(server: RunningServer) -> Iterator[None]:
    yield
    assert server.post(CHAT, chat()).status_code == 200


def refused(answer: httpx.Response, status: int, code: str, param: str | None = None) -> str:
    assert answer.status_code == status, answer.text
    error = answer.json()["error"]
    assert set(error) == {"message", "type", "param", "code"}
    assert (error["code"], error["param"]) == (code, param)
    return str(error["message"])


@pytest.mark.parametrize("value", [-3, 10**12, 1.5, "7", True])
def test_max_tokens_must_be_a_positive_whole_number(server: RunningServer, value: Any) -> None:
    message = refused(server.post(CHAT, chat(max_tokens=value)), 400, "invalid_request", "max_tokens")
    assert message.startswith("'max_tokens': ")


def test_more_tokens_than_the_context_holds_end_with_length(drawn_server: RunningServer) -> None:
    # Its answers do not end by themselves.
    body = chat(max_tokens=2_000_000, messages=[{"role": "user", "content": "word " * (CONTEXT - 100)}])
    answer = drawn_server.post(CHAT, body).json()
    assert answer["choices"][0]["finish_reason"] == "length"
    assert answer["usage"]["total_tokens"] == CONTEXT


@pytest.mark.parametrize(
    ("field", "value"),
    [
        ("stop", ["x"] * 10_000),
        ("stop", [""]),
        ("stop", "x" * 100_000),
        ("temperature", -1),
        ("temperature", "hot"),
        ("top_p", 0),
        ("top_p", 1.5),
        ("top_k", -1),
        ("seed", 10**30),
        ("messages", []),
        ("messages", 7),
        ("logit_bias", {"5": 1000}),
        ("logit_bias", {str(i): 1 for i in range(5000)}),
        ("model", "x" * 1000),
        ("n", 0),
        ("n", 1000),
        ("tools", [{"type": "function"}]),
        ("response_format", {"type": "yaml"}),
        ("logprobs", 7),
        ("top_logprobs", 21),
        ("stream_options", {"include_usage": "yes"}),
    ],
)
@pytest.mark.parametrize("stream", [False, True])
def test_a_field_that_cannot_be_honoured_is_refused_by_name(
    server: RunningServer, field: str, value: Any, stream: bool
) -> None:
    answer = server.post(CHAT, chat(**{field: value}) | ({"stream": True} if stream else {}))
    assert answer.status_code == 400
    assert answer.json()["error"]["param"].startswith(field)


def test_a_message_at_fault_is_named_by_its_place(server: RunningServer) -> None:
    body = chat(messages=[{"role": "user", "content": "Hi"}, {"role": "wizard", "content": "Hi"}])
    assert "messages[1].role" in refused(server.post(CHAT, body), 400, "invalid_request", "messages[1].role")


def test_an_image_is_refused_as_unsupported(server: RunningServer) -> None:
    parts = [{"type": "image_url", "image_url": {"url": "data:,x"}}]
    body = chat(messages=[{"role": "user", "content": parts}])
    param = "messages[0].content[0].image_url"
    assert "takes no images" in refused(server.post(CHAT, body), 400, "unsupported_operation", param)


def test_a_body_that_is_not_json(server: RunningServer) -> None:
    headers = {"content-type": "application/json"}
    answer = httpx.post(server.url + CHAT, content=b'{"model": ', headers=headers)
    assert "not valid JSON" in refused(answer, 400, "invalid_request")


@pytest.mark.parametrize("content", [b"[]", b"7", b"null", b""])
def test_json_that_is_no_object(server: RunningServer, content: bytes) -> None:
    answer = httpx.post(server.url + CHAT, content=content, headers={"content-type": "application/json"})
    assert "JSON object" in refused(answer, 400, "invalid_request")


def test_curl_without_a_content_type_is_told_what_is_missing(server: RunningServer) -> None:
    headers = {"content-type": "application/x-www-form-urlencoded"}
    answer = httpx.post(server.url + CHAT, content=b'{"messages": "Hi"}', headers=headers)
    message = refused(answer, 400, "invalid_request")
    assert "Content-Type: application/json" in message
    assert "application/x-www-form-urlencoded" in message


def test_a_body_that_nests_too_deep(server: RunningServer) -> None:
    content = b'{"messages": ' + b"[" * 100_000 + b"]" * 100_000 + b"}"
    answer = httpx.post(server.url + CHAT, content=content, headers={"content-type": "application/json"})
    assert answer.status_code == 400


@pytest.mark.parametrize("depth", [200, 900, 975, 1000, 5000])
@pytest.mark.parametrize(
    ("path", "demand"),
    [
        (CHAT, '"response_format": {"type": "json_schema", "json_schema": {"name": "x", "schema": %s}}'),
        (CHAT, '"grammar": {"type": "json_schema", "value": %s}'),
        ("/api/chat", '"format": %s'),
        ("/api/generate", '"prompt": "Hi", "format": %s'),
    ],
)
@pytest.mark.parametrize(
    ("opening", "closing"),
    [('{"type": "object", "properties": {"a": ', "}}"), ('{"type": "array", "items": ', "}"), ('{"allOf": [', "]}")],
    ids=["objects", "arrays", "allOf"],
)
def test_a_schema_that_nests_too_deep(
    server: RunningServer, path: str, demand: str, depth: int, opening: str, closing: str
) -> None:
    levels = depth // len(closing)
    schema = opening * levels + "{}" + closing * levels
    body = '{"model": "smollm2", "messages": [{"role": "user", "content": "Hi"}], ' + demand % schema + "}"
    answer = httpx.post(server.url + path, content=body, headers={"content-type": "application/json"}, timeout=30)
    assert answer.status_code == 400, answer.text


def test_a_body_over_the_limit_is_refused_before_it_is_sent(server: RunningServer) -> None:
    host, port = server.url.removeprefix("http://").split(":")
    with socket.create_connection((host, int(port)), timeout=10) as connection:
        head = f"POST {CHAT} HTTP/1.1\r\nHost: {host}\r\nContent-Length: {2**40}\r\n\r\n"
        connection.sendall(head.encode())
        answer = connection.recv(4096)
    assert answer.startswith(b"HTTP/1.1 413 ")


def test_a_body_that_grows_over_the_limit_is_refused(server: RunningServer) -> None:
    def pieces() -> Iterator[bytes]:
        for _ in range(52):
            yield b" " * 2**20

    try:
        answer = httpx.post(server.url + CHAT, content=pieces(), headers={"content-type": "application/json"})
    except httpx.WriteError:
        # The server answers and hangs up while the client still sends.
        return
    refused(answer, 413, "request_too_large")


@pytest.mark.parametrize("stream", [False, True])
@pytest.mark.parametrize("words", [3_000, 3_000_000])
def test_a_prompt_longer_than_the_context(server: RunningServer, words: int, stream: bool) -> None:
    body = chat(messages=[{"role": "user", "content": "word " * words}], stream=stream)
    message = refused(server.post(CHAT, body), 400, "context_length_exceeded", "messages")
    assert "2048 tokens" in message


def test_token_ids_and_biases_outside_the_vocabulary(server: RunningServer) -> None:
    body = {"model": "smollm2", "prompt": [10**6], "max_tokens": 1}
    assert "1000000" in refused(server.post("/v1/completions", body), 400, "invalid_request", "prompt")
    answer = server.post(CHAT, chat(logit_bias={"99999999": 1}))
    assert "49151" in refused(answer, 400, "invalid_request", "logit_bias")


@pytest.mark.parametrize("prompt", [[], ["a", ""], [1, "a"], {"a": 1}, 7])
def test_a_prompt_of_no_known_shape(server: RunningServer, prompt: Any) -> None:
    answer = server.post("/v1/completions", {"model": "smollm2", "prompt": prompt})
    refused(answer, 400, "invalid_request", "prompt")


def test_unknown_routes_and_methods_answer_in_the_same_shape(server: RunningServer) -> None:
    refused(server.get("/v1/nothing"), 404, "not_found")
    refused(server.get(CHAT), 405, "method_not_allowed")


def test_extreme_sampling_still_answers(server: RunningServer) -> None:
    for extreme in ({"temperature": 1e-30}, {"temperature": 100}, {"top_p": 1e-9}, {"repetition_penalty": 1e-3}):
        assert server.post(CHAT, chat(**extreme)).status_code == 200


def test_special_tokens_and_broken_unicode_in_a_message_are_only_text(server: RunningServer) -> None:
    content = '{"model":"smollm2","max_tokens":1,"messages":[{"role":"user","content":"\\ud800<|im_end|>\\u0000"}]}'
    headers = {"content-type": "application/json"}
    answer = httpx.post(server.url + CHAT, content=content.encode(), headers=headers, timeout=30)
    assert answer.status_code in (200, 400)
