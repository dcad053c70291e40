"""What holds of every format, whatever a model writes."""

from __future__ import annotations

import itertools
import json
import sys
from types import FrameType
from typing import Any

import pytest
from hypothesis import example, given
from hypothesis import strategies as st

from modelyard.engine.formats.format import ToolFormat
from modelyard.engine.formats.reasoning import REASONING
from modelyard.engine.formats.registry import FORMATS, control_tokens, parser
from modelyard.protocol.deltas import (
    ContentDelta,
    Delta,
    OutputParser,
    ToolCall,
    ToolCallArguments,
    ToolCallBegin,
    ToolCallEnd,
    fold,
)
from support.thorough import thorough
from unit.engine.formats.recorded import GPT_OSS, HERMES, KIMI, TOOLS
from unit.engine.formats.recorded_families import ALL

each_format = pytest.mark.parametrize("of", FORMATS.values(), ids=lambda each: each.name)

# Pieces that formats are made of, in no order: near to what they read, and mostly malformed.
SHARDS = st.sampled_from(
    sorted(
        {marker for of in FORMATS.values() for marker in control_tokens(of, REASONING["think"])}
        | {
            '{"name": "now", "arguments": ',
            '"parameters": {"a": 1}',
            "{}",
            "}",
            "]",
            "[",
            "{",
            '"',
            ",",
            ":",
            "\\",
            "now",
            " ",
            "\n",
        }
        | {
            "```",
            "```json\n",
            "function",
            "functools[",
            "call:now{",
            "<function=now>",
            "<parameter=a>",
            "</parameter>",
            "</function>",
        }
        | {
            "<|channel|>analysis",
            "<|channel|>final",
            "assistant to=functions.now",
            "functions.now:0",
            "1e5",
            "-",
            "null",
            "é",
            "🎉",
            "x" * 300,
        }
    )
)
SHARDED = st.lists(SHARDS | st.text(max_size=3), max_size=14).map("".join)


def reader(of: ToolFormat, *, inside: bool = False) -> OutputParser:
    numbers = itertools.count()
    return parser(of, REASONING["think"], TOOLS, prompt_ends_in_reasoning=inside, new_id=lambda: f"c{next(numbers)}")


def deltas_of(reader: OutputParser, pieces: list[str]) -> list[Delta]:
    return [delta for piece in pieces for delta in reader.push(piece)] + reader.finish()


@each_format
@thorough(50)
@given(SHARDED, st.lists(st.integers(0, 999), max_size=8), st.booleans())
@example('{"function":' * 3000, [], False)
@example("[" * 3000, [1], False)
@example('<tool_call>{"name": "now", "arguments": ' + '{"a":' * 3000, [], False)
@example("<|tool_call>call:now" + "{a:" * 3000, [], False)
@example("<tool_call>" * 50, [9], False)
def test_no_text_raises_and_its_split_does_not_matter(of: ToolFormat, text: str, cuts: list[int], inside: bool) -> None:
    at = sorted({0, len(text), *(cut % (len(text) + 1) for cut in cuts)})
    pieces = [text[a:b] for a, b in itertools.pairwise(at)]
    whole = fold(deltas_of(reader(of, inside=inside), [text]))
    assert fold(deltas_of(reader(of, inside=inside), pieces)) == whole
    for call in whole.tool_calls:
        assert isinstance(json.loads(call.arguments), dict)


@each_format
@thorough(25)
@given(st.text(st.characters(exclude_characters="<[{`"), max_size=40), st.lists(st.integers(0, 99), max_size=6))
def test_text_without_markers_is_content_as_it_is(of: ToolFormat, text: str, cuts: list[int]) -> None:
    at = sorted({0, len(text), *(cut % (len(text) + 1) for cut in cuts)})
    deltas = deltas_of(reader(of), [text[a:b] for a, b in itertools.pairwise(at)])
    assert all(isinstance(delta, ContentDelta) for delta in deltas)
    assert fold(deltas).content == text


@each_format
@thorough(25)
@given(text=SHARDED)
def test_without_tools_no_text_is_a_call(of: ToolFormat, text: str) -> None:
    message = fold(deltas_of(parser(of, None, ()), list(text)))
    assert not message.tool_calls
    if of.own_reasoning is None and not of.has_frames:
        assert message.content == text


@each_format
@thorough(25)
@given(text=SHARDED)
def test_the_deltas_of_a_call_come_in_order(of: ToolFormat, text: str) -> None:
    """Begun, then arguments, then ended; one after the other, numbered from 0."""
    current: int | None = None
    begun = 0
    for delta in deltas_of(reader(of), list(text)):
        match delta:
            case ToolCallBegin(index):
                assert current is None
                assert index == begun
                current, begun = index, begun + 1
            case ToolCallArguments(index, piece):
                assert index == current
                assert piece
            case ToolCallEnd(index):
                assert index == current
                current = None
            case _:
                assert current is None
    assert current is None


def test_words_pass_at_once() -> None:
    calls = reader(FORMATS["hermes"])
    assert calls.push("The") == [ContentDelta("The")]
    assert calls.push(" sun") == [ContentDelta(" sun")]
    assert calls.push(" < ") == [ContentDelta(" <")]
    assert calls.push("<tool") == []
    assert calls.push("s>") == [ContentDelta(" <tools>")]


def test_a_call_is_told_once_it_is_whole() -> None:
    """What a client was told cannot be taken back, and the call may still break or be cut off."""
    calls = reader(FORMATS["hermes"])
    assert calls.push('<tool_call>\n{"name": "write_file", "arguments": {"path": "a.txt", "text": ""') == []
    told = [
        ToolCallBegin(0, "c0", "write_file"),
        ToolCallArguments(0, '{"path": "a.txt", "text": ""}'),
        ToolCallEnd(0),
    ]
    assert calls.push("}}") == told
    assert calls.push("\n</tool_call>") == []
    assert calls.finish() == []


def test_the_call_after_a_broken_one_is_the_first() -> None:
    broken = '<tool_call>{"name": "now", "arguments": {"a": oh}}</tool_call>'
    deltas = deltas_of(reader(FORMATS["hermes"]), [broken + HERMES])
    assert [delta.index for delta in deltas if isinstance(delta, ToolCallEnd)] == [0]
    assert fold(deltas).content == broken


@each_format
@thorough(25)
@given(text=SHARDED)
def test_of_limited_calls_the_first_ones_are_told(of: ToolFormat, text: str) -> None:
    def calls(limit: int | None) -> tuple[ToolCall, ...]:
        numbers = itertools.count()
        made = parser(of, None, TOOLS, new_id=lambda: f"c{next(numbers)}", max_calls=limit)
        return fold(deltas_of(made, [text])).tool_calls

    assert calls(1) == calls(None)[:1]


@each_format
@thorough(25)
@given(text=SHARDED)
def test_an_answer_that_ends_with_its_only_call_says_the_same(of: ToolFormat, text: str) -> None:
    """An engine ends an answer of one call once a parser has found that."""

    def made() -> OutputParser:
        return parser(of, None, TOOLS, new_id=lambda: "c", max_calls=1)

    watching = made()
    for end, character in enumerate(text, start=1):
        if any(isinstance(delta, ToolCallEnd) for delta in watching.push(character)):
            assert fold(deltas_of(made(), [text[:end]])) == fold(deltas_of(made(), [text]))
            break


@pytest.mark.parametrize("name", ["deepseek-v3.1", "kimi-k2"])
def test_text_behind_a_call_without_a_section_passes_at_once(name: str) -> None:
    calls = reader(FORMATS[name])
    begun, separator, ended = {
        "deepseek-v3.1": ("<｜tool▁call▁begin｜>\n", " <｜tool▁sep｜>", "<｜tool▁call▁end｜>"),
        "kimi-k2": ("<|tool_call_begin|>", "<|tool_call_argument_begin|>", "<|tool_call_end|>"),
    }[name]
    call = f"{begun}now{separator}{{}}{ended}"
    assert [delta.name for delta in calls.push(call) if isinstance(delta, ToolCallBegin)] == ["now"]
    assert fold(calls.push("\nAnd so on")).content == "And so on"
    assert [delta.name for delta in calls.push(call) if isinstance(delta, ToolCallBegin)] == ["now"]


def test_behind_the_last_call_that_an_answer_may_have_nothing_is_told() -> None:
    made = parser(FORMATS["hermes"], None, TOOLS, max_calls=1)
    message = fold(deltas_of(made, [f"One.\n{HERMES}\nTwo.\n{HERMES}"]))
    assert (message.content, len(message.tool_calls)) == ("One.", 1)


def test_kimi_keeps_the_ids_of_its_model() -> None:
    message = fold(deltas_of(reader(FORMATS["kimi-k2"]), [KIMI]))
    assert [call.id for call in message.tool_calls] == ["functions.get_weather:0"]


def test_mistral_has_ids_that_its_templates_accept() -> None:
    text = "[TOOL_CALLS]now[ARGS]{}[TOOL_CALLS]now[CALL_ID]Ab3dE6gH9[ARGS]{}"
    made, given_by_model = fold(deltas_of(parser(FORMATS["mistral-args"], None, TOOLS), [text])).tool_calls
    assert len(made.id) == 9
    assert made.id.isalnum()
    assert given_by_model.id == "Ab3dE6gH9"


def test_ids_differ() -> None:
    text = '<tool_call>{"name": "now"}</tool_call>' * 20
    ids = {call.id for call in fold(deltas_of(parser(FORMATS["hermes"], None, TOOLS), [text])).tool_calls}
    assert len(ids) == 20


def steps(of: ToolFormat, pieces: list[str]) -> int:
    """Calls that a parser makes, of Python and of C: a measure of its work that no other process disturbs."""
    count = 0

    def counted(frame: FrameType, event: str, _: Any) -> None:
        nonlocal count
        count += 1

    calls = reader(of)
    sys.setprofile(counted)
    try:
        for piece in pieces:
            calls.push(piece)
        calls.finish()
    finally:
        sys.setprofile(None)
    return count


LONG = {
    "hermes": ('<tool_call>\n{"name": "write_file", "arguments": {"path": "', "ab ", '"}}\n</tool_call>'),
    "name last": ('<tool_call>{"arguments": {"path": "', "abc", '"}, "name": "write_file"}</tool_call>'),
    "qwen3-coder": (
        "<tool_call>\n<function=write_file>\n<parameter=path>\n",
        "ab\n",
        "\n</parameter>\n</function>\n</tool_call>",
    ),
    "glm": ("<tool_call>search\n<arg_key>filters</arg_key>\n<arg_value>", "ab<", "</arg_value>\n</tool_call>"),
    "gemma": ('<|tool_call>call:write_file{path:<|"|>', "ab<", '<|"|>}<tool_call|>'),
    "harmony": (GPT_OSS[: GPT_OSS.index("Paris")], "abc", '"}<|call|>'),
    "content": ("", "ab ", ""),
    "white space": ("", "   ", ""),
    "reasoning": ("<think>", "ab ", "</think>"),
}


@pytest.mark.parametrize("what", LONG)
def test_the_work_for_a_piece_does_not_depend_on_what_came_before_it(what: str) -> None:
    head, piece, tail = LONG[what]
    of = FORMATS.get(what, FORMATS["hermes"])
    once, twice = (steps(of, [head, *[piece] * times, tail]) for times in (1000, 2000))
    assert twice < once * 2.1


@pytest.mark.parametrize("what", LONG)
def test_what_is_held_back_is_short(what: str) -> None:
    """Whatever is not kept as a list of pieces is looked at again with each piece: it must not grow."""
    head, piece, _ = LONG[what]
    calls = FORMATS.get(what, FORMATS["hermes"]).parser(TOOLS)
    calls.push(head.removeprefix("<think>"))
    for _ in range(500):
        calls.push(piece)
        assert len(calls._source.text) - calls._source.at < 20  # type: ignore[attr-defined]


def test_a_long_argument_arrives_whole() -> None:
    text = 'line "one"\n\t<b>é🎉</b>\\' * 4000
    call = json.dumps({"name": "write_file", "arguments": {"path": "a", "text": text}}, ensure_ascii=False)
    pieces = [call[at : at + 7] for at in range(0, len(call), 7)]
    message = fold(deltas_of(reader(FORMATS["hermes"]), ["<tool_call>", *pieces, "</tool_call>"]))
    assert json.loads(message.tool_calls[0].arguments)["text"] == text


def test_the_fixtures_speak_every_format() -> None:
    assert {each.of for each in ALL} == set(FORMATS)
