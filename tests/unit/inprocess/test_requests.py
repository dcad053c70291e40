"""What a program passes as a request: what is taken, and what an error says of what is not."""

from __future__ import annotations

import math
from collections.abc import Callable
from enum import StrEnum
from typing import Any

import numpy as np
import openai.types.chat
import pytest
from pydantic import BaseModel

from modelyard import ChatCompletionMessage, ChatCompletionRequest, CompletionRequest
from modelyard.errors import InvalidRequest
from modelyard.inprocess.requests import (
    chat_request,
    check_unstructured,
    completion_request,
    detokenize_request,
    embedding_request,
    rerank_request,
    structure_format,
    tokenize_request,
)

USER = {"role": "user", "content": "Hi"}


class Sentiment(BaseModel):
    is_good: bool


class Effort(StrEnum):
    LOW = "low"


@pytest.mark.parametrize(
    ("of_answer", "says"),
    [(lambda answer: answer, r"Pass its choices\[0\].message"), (lambda answer: answer.choices[0], "Pass its message")],
)
def test_an_answer_among_messages_is_told_from_its_message(of_answer: Callable[[Any], Any], says: str) -> None:
    values = {"index": 0, "message": {"role": "assistant", "content": "Ho"}, "finish_reason": "stop"}
    answer = openai.types.chat.ChatCompletion.model_validate(
        {"id": "1", "created": 1, "model": "a", "object": "chat.completion", "choices": [values]}
    )
    with pytest.raises(InvalidRequest, match=r"'messages\[1\]' is a .*" + says):
        chat_request([USER, of_answer(answer)], None, {}, stream=False)
    message = answer.choices[0].message
    assert len(chat_request([USER, message], None, {}, stream=False).messages) == 2  # type: ignore[list-item]


def test_what_is_asked_can_be_named_as_over_http() -> None:
    messages = [{"role": "user", "content": "Hi"}]
    assert chat_request(None, None, {"messages": messages}, stream=False) == chat_request("Hi", None, {}, stream=False)
    assert completion_request(None, "a", {"prompt": "Once"}, stream=False).prompt == "Once"
    assert embedding_request(None, None, {"input": ["a"]}).input == ["a"]


@pytest.mark.parametrize(
    ("build", "says"),
    [
        (lambda: chat_request("Hi", None, {"messages": "Ho"}, stream=False), "'messages' is given twice"),
        (lambda: chat_request(None, None, {"message": "Ho"}, stream=False), "where you wrote 'message'"),
        (lambda: chat_request(None, None, {}, stream=False), "'messages' is missing"),
        (lambda: completion_request("Hi", None, {"prompt": "Ho"}, stream=False), "'prompt' is given twice"),
        (lambda: completion_request(None, None, {}, stream=False), "'prompt'"),
        (lambda: completion_request(None, None, {"messages": "Hi"}, stream=False), "Call send_chat_request"),
        (lambda: embedding_request("Hi", None, {"input": "Ho"}), "'input' is given twice"),
        (lambda: embedding_request(None, None, {}), "'input'"),
    ],
)
def test_what_is_asked_is_named_once(build: Callable[[], object], says: str) -> None:
    with pytest.raises(InvalidRequest, match=says):
        build()


def chat(request: Any, **fields: Any) -> ChatCompletionRequest:
    return chat_request(request, None, fields, stream=False)


@pytest.mark.parametrize(
    "request_",
    ["Hi", [USER], (USER,), USER, {"messages": [USER]}, {"messages": "Hi"}, ChatCompletionRequest(messages="Hi")],  # type: ignore[arg-type]
    ids=repr,
)
def test_a_chat_may_be_written_in_many_ways(request_: Any) -> None:
    (message,) = chat(request_).messages
    assert (message.role, message.content) == ("user", "Hi")


def test_messages_of_answers_are_messages_of_requests() -> None:
    theirs = openai.types.chat.ChatCompletionMessage(role="assistant", content="Hello")
    body = chat([USER, ChatCompletionMessage(content="Hello"), theirs, USER])
    assert [message.content for message in body.messages] == ["Hi", "Hello", "Hello", "Hi"]


def test_values_of_pythons_other_types_are_taken() -> None:
    body = chat(
        "Hi",
        max_tokens=np.int64(4),
        temperature=np.float32(0.5),
        stop=("a", "b"),
        reasoning_effort=Effort.LOW,
        logit_bias={15: -1},
        response_format=Sentiment,
        seed=None,
    )
    assert (body.max_tokens, body.temperature, body.stop) == (4, 0.5, ["a", "b"])
    assert (type(body.reasoning_effort), body.reasoning_effort) == (str, "low")
    assert body.logit_bias == {"15": -1}
    assert body.response_format == chat("Hi", response_format=structure_format(Sentiment)).response_format


def test_keywords_replace_what_a_whole_request_says() -> None:
    whole = {"messages": "Hi", "model": "a", "max_tokens": 4, "stream": True}
    body = chat_request(whole, "b", {"max_tokens": 8}, stream=False)
    assert (body.model, body.max_tokens, body.stream) == ("b", 8, False)


@pytest.mark.parametrize(
    ("request_", "fields", "says"),
    [
        (3, {}, r"text of a user message, .*this is 3 \(int\)"),
        (None, {}, "'messages' is missing"),
        ({}, {}, "'messages' is missing"),
        ({"mesages": []}, {}, "'messages' is missing. Did you mean it where you wrote 'mesages'"),
        ([], {}, "'messages': List should have at least 1 item"),
        (["Hi"], {}, r"'messages\[0\]': Input should be a valid dictionary; it is 'Hi' \(str\)"),
        ([{"role": "usr", "content": ""}], {}, r"'messages\[0\]\.role': .*'user'.*it is 'usr'"),
        ([{"role": "user", "contnet": "Hi"}], {}, r"'messages\[0\].content' is missing. .*'contnet'"),
        ([{"content": "Hi"}], {}, r"'messages\[0\]\.role': Field required"),
        ("Hi", {"temprature": 1}, "no field 'temprature'. Did you mean 'temperature'"),
        ({"messages": "Hi", "temprature": 1}, {}, "Did you mean 'temperature'"),
        ("Hi", {"zzz": 1}, "'zzz' is no field"),
        ("Hi", {"temperature": math.nan}, "'temperature': Input should be a finite number; it is nan"),
        ("Hi", {"max_tokens": -5}, r"'max_tokens': .*it is -5 \(int\)"),
        ("Hi", {"max_tokens": "many"}, "'max_tokens': .*it is 'many'"),
        ("Hi", {"stream": True}, "stream_chat_request"),
        ("Hi", {"response_format": dict}, "derived from pydantic.BaseModel"),
    ],
)
def test_an_invalid_chat_is_refused_with_the_field_and_its_value(
    request_: Any, fields: dict[str, Any], says: str
) -> None:
    with pytest.raises(InvalidRequest, match=says):
        chat(request_, **fields)


def test_a_field_of_another_server_is_refused_with_its_own_reason() -> None:
    with pytest.raises(InvalidRequest, match="'adapter' is not supported"):
        chat("Hi", adapter="a").checked()


def test_a_part_without_effect_is_warned_of() -> None:
    with pytest.warns(UserWarning, match="Without effect on the answer: store"):
        chat("Hi", store=True)
    with pytest.warns(UserWarning, match=r"prediction\.note"):
        chat("Hi", prediction={"type": "content", "content": "Hello", "note": 1})


@pytest.mark.parametrize(
    ("request_", "fields"),
    [
        ("Hi", {"response_format": {"type": "json_object"}}),
        ({"messages": "Hi", "response_format": {"type": "text"}}, {}),
        (ChatCompletionRequest.model_validate({"messages": "Hi", "response_format": {"type": "text"}}), {}),
    ],
)
def test_another_format_beside_a_structure_is_refused(request_: Any, fields: dict[str, Any]) -> None:
    with pytest.raises(InvalidRequest, match=r"'response_format' is .*, and the answer is to be an instance of S"):
        check_unstructured(request_, fields, Sentiment)


def test_the_structure_itself_is_no_other_format() -> None:
    for fields in ({}, {"response_format": None}, {"response_format": Sentiment}):
        check_unstructured("Hi", fields, Sentiment)


def completion(request: Any, **fields: Any) -> CompletionRequest:
    return completion_request(request, None, fields, stream=False)


def test_a_completion_takes_texts_token_ids_and_whole_requests() -> None:
    assert completion(["a", "b"]).prompt == ["a", "b"]
    assert completion(np.array([1, 2])).prompt == [1, 2]
    assert completion(CompletionRequest(prompt="a"), echo=True).echo
    assert completion({"prompt": "a", "suffix": "c"}).suffix == "c"
    with pytest.raises(InvalidRequest, match="send_chat_request"):
        completion({"messages": "Hi"})
    with pytest.raises(InvalidRequest, match=r"'prompt': .*it is 3"):
        completion(3)
    with pytest.raises(InvalidRequest, match="Did you mean 'echo'"):
        completion("a", ecoh=True)


def test_other_requests_refuse_what_they_cannot_take() -> None:
    assert embedding_request(np.array([[1, 2], [3, 4]]), None, {}).input == [[1, 2], [3, 4]]  # type: ignore[arg-type]
    assert rerank_request("q", ("a", "b"), None, {"top_n": 1}).ranked == ["a", "b"]
    with pytest.raises(InvalidRequest, match="must be a list of texts"):
        rerank_request("q", "abc", None, {})
    with pytest.raises(InvalidRequest, match="Did you mean 'dimensions'"):
        embedding_request("a", None, {"dimension": 3})
    with pytest.raises(InvalidRequest, match="'tokens'"):
        detokenize_request("abc", None)  # type: ignore[arg-type]
    with pytest.raises(InvalidRequest, match="Did you mean 'add_special'"):
        tokenize_request("a", None, {"addspecial": False})
    with pytest.raises(InvalidRequest, match=r"this is <class 'dict'>"):
        structure_format(dict)  # type: ignore[arg-type]


def test_a_value_that_nests_too_deeply_or_contains_itself_is_refused() -> None:
    deep: Any = 1
    for _ in range(1000):
        deep = [deep]
    endless: dict[str, Any] = {}
    endless["again"] = endless
    for value in (deep, endless):
        with pytest.raises(InvalidRequest, match="objects and lists within one another"):
            chat([USER], metadata=value)
