"""What is read of the answers of other servers, which differ."""

from __future__ import annotations

import base64
import math
from typing import Any

import numpy as np
import pytest

from modelyard.protocol.delta_text import DeltaTextParser
from modelyard.protocol.deltas import Message, ToolCall, fold
from modelyard.protocol.events import Finished
from modelyard.protocol.values import SequenceId, TokenLogprob, Usage
from modelyard.remote.answers import NoAnswer, TextAnswer, embeddings_of, error_of, error_status, scores_of
from modelyard.remote.event_stream import MAX_EVENT_BYTES, EventStreamReader, EventTooLarge

ONE = SequenceId(1)


def delta(reason: str | None = None, **fields: Any) -> dict[str, Any]:
    return {"choices": [{"delta": fields, "finish_reason": reason}]}


def call(index: int | None = None, call_id: str = "", name: str = "", arguments: Any = "") -> dict[str, Any]:
    part: dict[str, Any] = {"function": {"name": name, "arguments": arguments}}
    return part | ({} if index is None else {"index": index}) | ({"id": call_id} if call_id else {})


def read(*chunks: Any, max_calls: int | None = None) -> tuple[Message, Finished]:
    """The message that chunks of a chat add up to, and its end."""
    answer = TextAnswer(ONE, is_chat=True, max_calls=max_calls)
    parser = DeltaTextParser()
    tokens = [token for chunk in chunks if (token := answer.read(chunk)) is not None]
    deltas = [each for token in tokens for each in parser.push(token.text)]
    return fold([*deltas, *parser.finish()]), answer.finished()


def test_reasoning_and_content_are_told_apart_under_all_names() -> None:
    message, finished = read(
        delta(role="assistant", reasoning_content="Hm"),
        delta(reasoning=", well", content=None),
        delta(content="\x10Yes"),
        delta("stop"),
    )
    assert message == Message("\x10Yes", "Hm, well")
    assert finished.reason == "stop"


def test_calls_in_pieces_become_whole_ones() -> None:
    message, finished = read(
        delta(tool_calls=[call(0, "a", "now", "")]),
        delta(tool_calls=[call(0, arguments='{"zone"')]),
        delta(tool_calls=[call(0, arguments=': "UTC"}')]),
        delta(tool_calls=[call(1, "b", "now", "{}")]),
        delta("tool_calls"),
    )
    assert message.tool_calls == (ToolCall("a", "now", '{"zone": "UTC"}'), ToolCall("b", "now", "{}"))
    assert finished.reason == "stop"


def test_parts_of_two_calls_may_be_mixed() -> None:
    message, _ = read(
        delta(tool_calls=[call(0, "a", "now"), call(1, "b", "now")]),
        delta(tool_calls=[call(0, arguments='{"zone": ')]),
        delta(tool_calls=[call(1, arguments="{}")]),
        delta("tool_calls", tool_calls=[call(0, arguments="1}")]),
    )
    assert [(each.id, each.arguments) for each in message.tool_calls] == [("a", '{"zone": 1}'), ("b", "{}")]


def test_whole_calls_without_numbers_ids_and_texts_are_read() -> None:
    message, _ = read(
        delta("tool_calls", tool_calls=[call(name="a", arguments={"x": 1}), call(name="b", arguments=None)])
    )
    assert [(each.name, each.arguments) for each in message.tool_calls] == [("a", '{"x": 1}'), ("b", "{}")]
    assert all(each.id.startswith("call_") for each in message.tool_calls)


def test_a_call_that_was_cut_off_is_left_out() -> None:
    message, finished = read(
        delta(tool_calls=[call(0, "a", "now", "{}")]), delta("length", tool_calls=[call(1, "b", "now", '{"zo')])
    )
    assert [each.id for each in message.tool_calls] == ["a"]
    assert finished.reason == "length"


def test_no_more_calls_than_the_request_allows() -> None:
    calls = [call(0, "a", "now", "{}"), call(1, "b", "now", "{}")]
    message, _ = read(delta("tool_calls", tool_calls=calls), max_calls=1)
    assert [each.id for each in message.tool_calls] == ["a"]


def test_usage_comes_with_any_chunk_and_is_never_guessed() -> None:
    details = {"prompt_tokens_details": {"cached_tokens": 3}, "completion_tokens_details": {"reasoning_tokens": 1}}
    usage = {"choices": [], "usage": {"prompt_tokens": 9, "completion_tokens": 4, **details}}
    _, finished = read(delta(content="a"), delta("stop"), usage)
    assert finished.usage == Usage(9, 4, 3, 1)
    _, finished = read(delta(content="a"), delta("stop"), {"choices": [], "usage": {"prompt_tokens": "many"}})
    assert finished.usage == Usage(0, 0, 0)


def test_an_answer_that_breaks_off_counts_its_pieces() -> None:
    answer = TextAnswer(ONE, is_chat=True)
    for chunk in (delta(role="assistant"), delta(content="a"), delta(content="b")):
        answer.read(chunk)
    assert answer.used == Usage(0, 2, 0)


def test_logprobs_of_chats_and_of_completions() -> None:
    token = {"token": "é", "bytes": [195, 169], "logprob": -0.5, "top_logprobs": [{"token": "e", "logprob": -1}]}
    answer = TextAnswer(ONE, is_chat=True)
    read_token = answer.read({"choices": [{"delta": {"content": "é"}, "logprobs": {"content": [token]}}]})
    assert read_token is not None
    assert read_token.logprobs == (TokenLogprob("é".encode(), -0.5, ((b"e", -1.0),)),)
    listed = {"tokens": ["a"], "token_logprobs": [None], "top_logprobs": [{"b": -2.0, "a": -0.1}]}
    text = TextAnswer(ONE, is_chat=False).read({"choices": [{"text": "a", "logprobs": listed}]})
    assert text is not None
    assert math.isnan(text.logprobs[0].logprob)
    assert text.logprobs[0].top == ((b"a", -0.1), (b"b", -2.0))


@pytest.mark.parametrize("chunk", [[], "text", 5, None, {"hello": 1}])
def test_what_is_no_chunk_is_no_answer(chunk: Any) -> None:
    with pytest.raises(NoAnswer):
        TextAnswer(ONE, is_chat=True).read(chunk)


@pytest.mark.parametrize(
    "chunk",
    [
        {"choices": []},
        {"choices": ["x"]},
        {"choices": [{"delta": 5}]},
        {"choices": [{"delta": {"content": 5, "tool_calls": ["x", {"function": 3}], "reasoning": {}}}]},
        {"choices": [{"delta": {}, "logprobs": {"content": [5]}}]},
        {"id": "x"},
        {"usage": {}},
    ],
)
def test_odd_parts_of_a_chunk_are_not_read(chunk: Any) -> None:
    assert TextAnswer(ONE, is_chat=True).read(chunk) is None


def test_vectors_come_in_the_order_of_the_inputs_as_numbers_or_base64() -> None:
    encoded = base64.b64encode(np.array([3, 4], "<f4").tobytes()).decode()
    data = [{"index": 1, "embedding": [1, 2]}, {"index": 0, "embedding": encoded}]
    vectors, tokens = embeddings_of({"data": data, "usage": {"total_tokens": 6}}, 2)
    assert vectors.tolist() == [[3, 4], [1, 2]]
    assert tokens == 6


@pytest.mark.parametrize(
    "answer",
    [
        {},
        {"data": []},
        {"data": [{"embedding": [1]}]},
        {"data": [{"embedding": [1]}, {"embedding": [1, 2]}]},
        {"data": [{"embedding": "?"}, {"embedding": []}]},
        {"data": [{}, {}]},
        {"data": [{"embedding": []}, {"embedding": []}]},
        [],
    ],
)
def test_what_are_no_vectors_is_no_answer(answer: Any) -> None:
    with pytest.raises(NoAnswer):
        embeddings_of(answer, 2)


def test_scores_come_in_the_order_of_the_documents() -> None:
    results = [{"index": 1, "relevance_score": 0.75}, {"index": 0, "score": 0.25}]
    scores, tokens = scores_of({"results": results, "usage": {"prompt_tokens": 3}}, 2)
    assert (scores.tolist(), tokens) == ([0.25, 0.75], 3)
    assert scores_of(results, 2)[0].tolist() == [0.25, 0.75]
    with pytest.raises(NoAnswer):
        scores_of({"results": results[:1]}, 2)


def test_errors_of_all_servers_have_a_message() -> None:
    assert error_of({"error": {"message": "m", "code": "c", "param": "p"}}) == ("m", "c", "p")
    assert error_of({"error": "m"}) == ("m", "", None)
    assert error_of({"object": "error", "message": "m", "code": 400}) == ("m", "", None)
    assert error_of({"detail": [{"msg": "m"}]}) == ('[{"msg": "m"}]', "", None)
    assert error_of("m") == ("m", "", None)
    assert error_of({"error": {"message": "m", "code": "no\ncode"}}) == ("m", "", None)
    assert error_of([1]) == ("", "", None)
    assert error_status({"error": {"code": 503}}) == 503
    assert error_status({"error": {"code": "x"}}) is None


class TestEventStream:
    STREAM = b'data: {"a": 1}\n\n: comment\n\nevent: x\r\ndata:one\r\ndata: two\r\n\r\ndata: [DONE]\n\ndata: last'

    def test_events_do_not_depend_on_how_the_bytes_arrive(self) -> None:
        for size in (1, 2, 3, 7, len(self.STREAM)):
            reader = EventStreamReader()
            pieces = [self.STREAM[at : at + size] for at in range(0, len(self.STREAM), size)]
            events = [event for piece in pieces for event in reader.push(piece)]
            assert [*events, *reader.close()] == [b'{"a": 1}', b"one\ntwo", b"[DONE]", b"last"]

    def test_an_event_without_an_end_is_refused(self) -> None:
        reader = EventStreamReader()
        reader.push(bytes(MAX_EVENT_BYTES))
        with pytest.raises(EventTooLarge):
            reader.push(b"x")
