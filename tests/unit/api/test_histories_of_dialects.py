"""Conversations are read in all dialects: parts of contents, calls that models broke off, answers that go on."""

from __future__ import annotations

import base64
from collections.abc import Callable
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from modelyard.api.anthropic.schema import MessagesRequest
from modelyard.api.media.load import ImageReference
from modelyard.api.media.parts import Thought, read_part
from modelyard.api.ollama.schema import ChatRequest
from modelyard.api.openai.responses.history import conversation_of
from modelyard.api.openai.responses.schema import ResponsesRequest
from modelyard.api.openai.schema import ChatCompletionRequest
from modelyard.api.serving.ignored_fields import ignored_fields
from modelyard.errors import InvalidRequest, UnsupportedOperation
from modelyard.protocol.prompts import Chat

Read = Callable[[list[dict[str, Any]]], Chat]


def of_openai(messages: list[dict[str, Any]], **more: Any) -> Chat:
    chat = ChatCompletionRequest.model_validate({"messages": messages, **more}).checked().prompt
    assert isinstance(chat, Chat)
    return chat


def of_anthropic(messages: list[dict[str, Any]], **more: Any) -> Chat:
    return MessagesRequest.model_validate({"messages": messages, "max_tokens": 9, **more}).chat()


def of_ollama(messages: list[dict[str, Any]]) -> Chat:
    return ChatRequest.model_validate({"messages": messages}).chat()


def of_responses(messages: list[dict[str, Any]], **more: Any) -> Chat:
    body = ResponsesRequest.model_validate({"input": messages, **more})
    conversation = conversation_of((), body.input)
    return body.chat(conversation, body.offered(conversation))


ALL = [of_openai, of_anthropic, of_ollama, of_responses]
TEXT = base64.b64encode("fünf".encode()).decode()


@pytest.mark.parametrize("read", ALL)
@pytest.mark.parametrize(
    ("part", "content"),
    [
        ({"type": "text", "text": "a"}, "a"),
        ({"type": "input_text", "text": "a"}, "a"),
        ({"type": "output_text", "text": "a", "annotations": []}, "a"),
        ({"type": "refusal", "refusal": "a"}, "a"),
        ({"type": "document", "source": {"type": "text", "media_type": "text/plain", "data": "a"}}, "a"),
        ({"type": "document", "source": {"type": "content", "content": [{"type": "text", "text": "a"}]}}, "a"),
        ({"type": "document", "source": {"type": "base64", "media_type": "text/plain", "data": TEXT}}, "fünf"),
        ({"type": "tool_result", "tool_use_id": "t", "content": [{"type": "text", "text": "a"}]}, "a"),
        ({"type": "input_file", "file_data": f"data:text/plain;base64,{TEXT}"}, "fünf"),
        ({"type": "redacted_thinking", "data": "secret"}, ""),
        ({"type": "a part of tomorrow", "text": "a"}, "a"),
    ],
)
def test_a_part_says_the_same_in_all_dialects(read: Read, part: dict[str, Any], content: str) -> None:
    (message,) = read([{"role": "user", "content": [part]}]).messages
    assert message["content"] == content


@pytest.mark.parametrize("read", [of_openai, of_anthropic, of_ollama])
@pytest.mark.parametrize(
    "part",
    [
        {"type": "thinking", "thinking": "t", "signature": "foreign"},
        {"type": "reasoning", "text": "t"},
        {"type": "reasoning", "summary": [{"type": "summary_text", "text": "t"}]},
        {"type": "reasoning_text", "text": "t"},
    ],
)
def test_parts_that_reason_are_reasoning(read: Read, part: dict[str, Any]) -> None:
    messages = [
        {"role": "user", "content": "u"},
        {"role": "assistant", "content": [part, {"type": "text", "text": "a"}]},
    ]
    _, message = read(messages).messages
    assert message == {"role": "assistant", "content": "a", "reasoning_content": "t"}


@pytest.mark.parametrize("read", ALL)
@pytest.mark.parametrize(
    ("part", "why"),
    [
        ({"type": "text"}, "must have 'text'"),
        ({"type": "video_url", "video_url": {"url": "http://a"}}, "'video_url' is not supported"),
        ({"type": "document", "source": {"type": "base64", "media_type": "application/pdf", "data": ""}}, "pdf"),
        ({"type": "document", "source": {"type": "base64", "media_type": "text/plain", "data": "ü"}}, "no base64"),
        ({"type": "file", "file": {"file_id": "f"}}, "must have file_data"),
    ],
)
def test_a_part_that_cannot_be_read_is_refused_by_name(read: Read, part: dict[str, Any], why: str) -> None:
    with pytest.raises((InvalidRequest, UnsupportedOperation), match=why):
        read([{"role": "user", "content": [part]}])


def test_a_block_of_anthropics_own_tools_is_left_out() -> None:
    blocks: list[dict[str, Any]] = [
        {"type": "server_tool_use", "id": "s", "name": "web_fetch", "input": {"url": "http://a"}},
        {
            "type": "web_fetch_tool_result",
            "tool_use_id": "s",
            "content": {"type": "web_fetch_result", "url": "http://a"},
        },
        {"type": "text", "text": "a"},
    ]
    body = MessagesRequest.model_validate(
        {"messages": [{"role": "user", "content": "u"}, {"role": "assistant", "content": blocks}], "max_tokens": 9}
    )
    assert body.chat().messages[1] == {"role": "assistant", "content": "a"}
    assert ignored_fields(body) == []


def test_a_result_that_is_an_object_is_its_json() -> None:
    result = {"type": "tool_result", "tool_use_id": "t", "content": {"error": "none"}}
    (message,) = of_anthropic([{"role": "user", "content": [result]}]).messages
    assert message["content"] == '{"error": "none"}'


def test_what_reasons_in_parts_takes_the_place_of_a_null() -> None:
    part = {"type": "thinking", "thinking": "t"}
    message = {"role": "assistant", "reasoning_content": None, "content": [part, {"type": "text", "text": "a"}]}
    assert of_openai([{"role": "user", "content": "u"}, message]).messages[1]["reasoning_content"] == "t"


@pytest.mark.parametrize("text", ["  ", ""])
def test_no_answer_goes_on_from_white_space(text: str) -> None:
    assert not of_anthropic([{"role": "user", "content": "u"}, {"role": "assistant", "content": text}]).continues


def test_images_beside_parts_are_not_lost() -> None:
    url = "data:image/png;base64,aGk="
    turn = {"role": "user", "content": [{"type": "image_url", "image_url": {"url": url}}], "images": ["aGk="]}
    (message,) = of_ollama([turn]).messages
    assert len(message["content"]) == 2


@pytest.mark.parametrize("summary", [5, True, {"a": 1}, "t"])
def test_a_summary_of_any_kind_is_read(summary: Any) -> None:
    assert read_part({"type": "reasoning", "summary": summary}, "p") in ([], [Thought("t")])


def test_parts_in_parts_are_bounded() -> None:
    part: dict[str, Any] = {"type": "text", "text": "a"}
    for _ in range(10):
        part = {"type": "tool_result", "content": [part]}
    with pytest.raises(InvalidRequest, match="nests more than 8"):
        read_part(part, "p")


VALUES = st.recursive(
    st.none() | st.booleans() | st.integers() | st.text(max_size=9),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.sampled_from(("type", "text", "data")), inner),
    max_leaves=6,
)
KINDS = st.sampled_from(("text", "thinking", "reasoning", "refusal", "document", "file", "tool_result", "image", "x"))
NAMES = st.sampled_from(
    ("text", "thinking", "source", "content", "summary", "file", "file_data", "refusal", "image_url")
)


@given(kind=KINDS, fields=st.dictionaries(NAMES, VALUES))
def test_any_part_is_read_or_refused(kind: str, fields: dict[str, Any]) -> None:
    try:
        said = read_part({"type": kind, **fields}, "p")
    except (InvalidRequest, UnsupportedOperation):
        return
    assert all(isinstance(each, str | Thought | ImageReference) for each in said)


@pytest.mark.parametrize("arguments", ['{"city": "Par', "", None, "null", "[]", {"city": "Paris"}, [1]])
def test_arguments_are_taken_as_a_model_wrote_them(arguments: Any) -> None:
    call = {"id": "c", "type": "function", "function": {"name": "f", "arguments": arguments}}
    _, message = of_openai([{"role": "user", "content": "u"}, {"role": "assistant", "tool_calls": [call]}]).messages
    assert message["tool_calls"] == [call]
    _, message = of_ollama(
        [{"role": "user"}, {"role": "assistant", "tool_calls": [{"function": call["function"]}]}]
    ).messages
    assert message["tool_calls"][0]["function"]["arguments"] == arguments


def test_older_and_odd_forms_of_calls_are_read() -> None:
    chat = of_openai(
        [
            {"role": "developer", "content": "s"},
            {"role": "assistant", "content": None, "tool_calls": [], "function_call": {"name": "f", "arguments": "{}"}},
            {"role": "function", "name": "f", "content": "r"},
            {"role": "assistant", "content": None, "refusal": "no"},
            {"role": "assistant", "tool_calls": [{"id": "c", "type": "custom", "custom": {"name": "p", "input": "x"}}]},
            {"role": "user", "content": ["a", "b"]},
        ]
    )
    system, called, result, refused, custom, user = chat.messages
    assert (system["role"], result["role"]) == ("system", "tool")
    assert called["tool_calls"] == [{"type": "function", "function": {"name": "f", "arguments": "{}"}}]
    assert refused["content"] == "no"
    assert custom["tool_calls"] == [
        {"id": "c", "type": "function", "function": {"name": "p", "arguments": '{"input": "x"}'}}
    ]
    assert user["content"] == "ab"


@pytest.mark.parametrize("read", ALL)
def test_the_answer_goes_on_from_a_message_of_the_assistant(read: Read) -> None:
    user, begun = {"role": "user", "content": "u"}, {"role": "assistant", "content": "The answer is"}
    assert read([user, begun]).continues
    assert not read([user]).continues
    assert not read([user, begun, user]).continues


def test_the_answer_goes_on_from_reasoning() -> None:
    user = {"role": "user", "content": "u"}
    assert of_openai([user, {"role": "assistant", "content": None, "reasoning_content": "t"}]).continues
    assert of_ollama([user, {"role": "assistant", "content": "", "thinking": "t"}]).continues
    assert of_anthropic([user, {"role": "assistant", "content": [{"type": "thinking", "thinking": "t"}]}]).continues


def test_no_answer_goes_on_from_a_call() -> None:
    call = {"id": "c", "type": "function", "function": {"name": "f", "arguments": "{}"}}
    assert not of_openai([{"role": "assistant", "content": "I look.", "tool_calls": [call]}]).continues


def test_vllms_fields_choose_what_the_answer_is() -> None:
    begun = [{"role": "user", "content": "u"}, {"role": "assistant", "content": "a"}]
    assert not of_openai(begun, add_generation_prompt=True).continues
    assert not of_openai(begun, continue_final_message=False).continues
    assert of_openai(begun, add_generation_prompt=False).continues
    assert of_openai(begun, continue_final_message=True, add_generation_prompt=False).continues
    assert of_openai(begun[:1], continue_final_message=True).continues
    assert not of_openai(begun[:1], add_generation_prompt=False).opens_turn
    with pytest.raises(InvalidRequest, match="cannot both be true"):
        of_openai(begun, continue_final_message=True, add_generation_prompt=True)
    with pytest.raises(InvalidRequest, match="nothing to go on from"):
        of_openai([{"role": "assistant", "content": ""}], continue_final_message=True)


def test_white_space_at_the_end_of_anthropics_prefill_is_left_to_the_answer() -> None:
    *_, begun = of_anthropic(
        [{"role": "user", "content": "u"}, {"role": "assistant", "content": "The answer is \n"}]
    ).messages
    assert begun["content"] == "The answer is"


def test_a_system_text_comes_first_in_all_dialects() -> None:
    user = {"role": "user", "content": "u"}
    for chat in (of_anthropic([user], system="s"), of_responses([user], instructions="s")):
        assert [dict(message) for message in chat.messages] == [{"role": "system", "content": "s"}, user]
