"""What the published template of a model writes for a turn with calls is read back as that turn, however it is cut."""

from __future__ import annotations

import itertools
import json
import random
import re
from collections.abc import Mapping
from typing import Any

import pytest
from hypothesis import HealthCheck, Phase, assume, given, settings
from hypothesis import strategies as st

from modelyard.engine.formats.format import ToolFormat
from modelyard.engine.formats.registry import FORMATS, parser
from modelyard.engine.formats.schema import Tool
from modelyard.protocol.deltas import Message, fold
from support.template_turns import Call, Turn, TurnWriter, writer
from support.templates import templates

# Templates that write no calls, or that take them in another form than all others.
WITHOUT_CALLS = {
    "CohereForAI-c4ai-command-r-plus-tool_use": "takes only schemas whose every property has additionalProperties",
    "HuggingFaceTB-SmolLM3-3B": "has its tools in xml_tools, and leaves calls to the content",
    "Kimi-K2-Instruct": "changes a list, which the sandbox forbids; moonshotai-Kimi-K2 stands for it",
    "Kimi-K2-Thinking": "changes a list, which the sandbox forbids",
    "LFM2-8B-A1B": "has tools, but leaves calls to the content; LFM2.5-8B-A1B stands for it",
    "LFM2.5-Instruct": "has tools, but leaves calls to the content; LFM2.5-8B-A1B stands for it",
    "deepseek-ai-DeepSeek-R1-Distill-Llama-8B": "leaves calls to the content",
    "fireworks-ai-llama-3-firefunction-v2": "has its tools in functions",
    "google-gemma-2-2b-it": "has no tools",
    "ibm-granite-granite-3.3-2B-Instruct": "has tools, but leaves calls to the content",
    "llama-cpp-deepseek-r1": "writes a generator as JSON, which only llama.cpp's Jinja can",
    "llama-cpp-rwkv-world": "has no tools",
    "microsoft-Phi-3.5-mini-instruct": "has no tools",
}
WITH_CALLS = sorted(set(templates()) - set(WITHOUT_CALLS))

# Templates that put content and calls into messages of their own, so that one answer has only one of them.
ONLY_CALLS = {"NVIDIA-Nemotron-Nano-v2", "openai-gpt-oss-120b"}

# Templates that write one call of a turn, or refuse more.
SINGLE = {name for name in WITH_CALLS if name.startswith(("GigaChat", "meta-llama", "openai-gpt-oss"))}

# Formats without any way to tell the types of nested values, or to write null.
UNTYPED = {"minimax-m3"}

# Templates that put quotes around strings without escaping what is in them.
UNESCAPED = {"LFM2.5-8B-A1B"}

NAMES = st.from_regex(r"[a-zA-Z_][a-zA-Z0-9_]{0,12}", fullmatch=True)
TOOL_NAMES = st.from_regex(r"[a-zA-Z_][a-zA-Z0-9_-]{0,12}", fullmatch=True)
LETTERS = st.characters(exclude_categories=("Cs", "Cc", "Cn", "Co"), exclude_characters="<>[]{}|`\ufeff")
WORDS = st.text(LETTERS | st.sampled_from("\n\"'é🎉日"), max_size=12).map(str.strip)
TEXTS = st.text(
    st.characters(exclude_categories=("Cs", "Cn", "Co")) | st.sampled_from("\n\t\"'\\<>{}[],:é🎉"), max_size=20
) | st.sampled_from(["", "007", "3", "-1.5", "true", "null", "None", '{"a": 1}', "[1]", " padded ", "\n\nlines\n\n"])
NUMBERS = st.integers(-(2**53), 2**53) | st.floats(-1e9, 1e9, allow_nan=False)
SCALARS = TEXTS | NUMBERS | st.booleans()
VALUES = st.recursive(
    SCALARS | st.none(),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(NAMES, inner, max_size=3),
    max_leaves=5,
)
KINDS = {str: "string", bool: "boolean", int: "integer", float: "number", list: "array", dict: "object"}


def schema_of(arguments: Mapping[str, Any]) -> dict[str, Any]:
    kinds = {name: {"type": KINDS.get(type(value), "integer")} for name, value in arguments.items()}
    return {"type": "object", "properties": kinds, "required": list(arguments)}


@st.composite
def turns(draw: st.DrawFn, name: str) -> Turn:
    values = SCALARS if writer(name).format.name in UNTYPED else VALUES
    names = draw(st.lists(TOOL_NAMES, min_size=1, max_size=1 if name in SINGLE else 3, unique=True))
    arguments = [draw(st.dictionaries(NAMES, values, max_size=3)) for _ in names]
    if name in UNESCAPED:
        assume(not re.search(r"['\\]", json.dumps(arguments, ensure_ascii=False)))
    calls = tuple(Call(each, given, schema_of(given)) for each, given in zip(names, arguments, strict=True))
    if name in ONLY_CALLS:
        return Turn(calls)
    # The first words are found nowhere else.
    content = draw(st.just("") | WORDS.map(lambda words: f"Here it comes: {words}".strip()))
    reasoning = draw(st.just("") | WORDS.map(lambda words: f"They want me to: {words}".strip()))
    return Turn(calls, content, reasoning)


def read(by: TurnWriter, turn: Turn, text: str, cuts: list[int], *, is_open: bool, is_cut: bool = False) -> Message:
    tools = [Tool(call.name, parameters=call.schema) for call in turn.calls]
    ids = (f"id{index}" for index in range(100))
    reader = parser(by.format, by.reasoning, tools, prompt_ends_in_reasoning=is_open, new_id=lambda: next(ids))
    places = sorted({0, *cuts, len(text)})
    deltas = [delta for a, b in itertools.pairwise(places) for delta in reader.push(text[a:b])]
    return fold([*deltas, *reader.finish(is_cut=is_cut)])


def told(message: Message) -> list[tuple[str, Any]]:
    return [(call.name, json.loads(call.arguments)) for call in message.tool_calls]


@pytest.mark.parametrize("name", WITH_CALLS)
@settings(
    max_examples=6, deadline=None, phases=(Phase.generate,), derandomize=True, suppress_health_check=list(HealthCheck)
)
@given(data=st.data())
def test_a_turn_is_read_as_it_was(name: str, data: st.DataObject) -> None:
    by = writer(name)
    turn = data.draw(turns(name))
    made = by.write(turn)
    text, is_open = made.text, made.is_open
    whole = read(by, turn, text, [], is_open=is_open)
    assert told(whole) == [(call.name, call.arguments) for call in turn.calls], text
    # Several templates leave out what they do not need of earlier turns.
    assert whole.content == (turn.content if turn.content in text else ""), text
    assert whole.reasoning == (turn.reasoning if turn.reasoning in text and by.can_reason else ""), text
    assert read(by, turn, text, list(range(len(text))), is_open=is_open) == whole


def fixed(name: str) -> Turn:
    first = Call("search", {"text": "say é🎉\n", "days": 3}, schema_of({"text": "", "days": 3}))
    calls = (first,) if name in SINGLE else (first, Call("now", {}, schema_of({})))
    return Turn(calls) if name in ONLY_CALLS else Turn(calls, "I look.", "They ask.")


@pytest.mark.parametrize("name", WITH_CALLS)
def test_a_turn_is_the_same_in_any_two_pieces(name: str) -> None:
    by = writer(name)
    turn = fixed(name)
    made = by.write(turn)
    text, is_open = made.text, made.is_open
    whole = read(by, turn, text, [], is_open=is_open)
    for cut in range(1, len(text)):
        assert read(by, turn, text, [cut], is_open=is_open) == whole, cut


@pytest.mark.parametrize("name", WITH_CALLS)
def test_of_a_turn_that_was_cut_off_only_what_is_whole_is_told(name: str) -> None:
    """Neither a call that lacks something, nor the text of one. The same in one piece and in many."""
    by = writer(name)
    turn = fixed(name)
    made = by.write(turn)
    text, is_open = made.text, made.is_open
    calls = [(call.name, call.arguments) for call in turn.calls]
    for length in random.Random(name).sample(range(len(text)), min(40, len(text))):
        whole = read(by, turn, text[:length], [], is_open=is_open, is_cut=True)
        assert told(whole) == calls[: len(whole.tool_calls)], text[:length]
        assert turn.content.startswith(whole.content) or not has_markup(by.format, whole.content), text[:length]
        pieces = list(range(0, length, 3))
        assert read(by, turn, text[:length], pieces, is_open=is_open, is_cut=True) == whole


def has_markup(of: ToolFormat, content: str) -> bool:
    return any(marker in content for marker in (*of.markers, *of.openers, *of.closers)) or "search" in content


def test_the_templates_write_most_formats() -> None:
    """The others are not among the published templates; their calls are recorded in ``recorded``."""
    rest = {"function-gemma", "generic", "granite", "llama4", "phi", "command-r", "olmo3", "deepseek-v4.1"}
    assert {writer(name).format.name for name in WITH_CALLS} == set(FORMATS) - rest
