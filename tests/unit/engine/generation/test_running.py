"""When an answer ends before its model ends it."""

from __future__ import annotations

from typing import Any

from modelyard.engine.chat.chat_format import ends_with_call, parser_of
from modelyard.engine.generation.running import RunningSequence
from modelyard.engine.kv.sequence import Sequence
from modelyard.engine.output.adjustments import Adjustments
from modelyard.engine.output.output import SequenceOutput
from modelyard.engine.output.reasoning_budget import ReasoningCounter, ReasoningSpan
from modelyard.engine.output.sampler import GreedySampler
from modelyard.protocol.prompts import Chat, NamedTool
from modelyard.protocol.requests import Submit
from modelyard.protocol.values import OutputFormat, SequenceId

TOOL = {"type": "function", "function": {"name": "now", "parameters": {"type": "object"}}}
FORMAT = OutputFormat("hermes", "think", is_open=False)


def chat(**options: Any) -> Chat:
    return Chat(({"role": "user", "content": "Hi"},), tools=(TOOL,), **options)


def running(prompt: Chat, **options: Any) -> RunningSequence:
    identity = SequenceId(1)
    return RunningSequence(
        Submit(identity, prompt, **options),
        FORMAT,
        Sequence(identity, 0, [1, 2]),
        SequenceOutput(max_tokens=100, end_tokens=frozenset(), stops=()),
        GreedySampler(Adjustments({})),
    )


def test_an_answer_that_may_have_one_call_ends_with_it() -> None:
    one = chat(parallel_tool_calls=False)
    assert ends_with_call(one)
    sequence = running(one)
    sequence.calls = parser_of(FORMAT, one)
    text = 'Let me see.\n<tool_call>\n{"name": "now", "arguments": {}}'
    assert [at for at, character in enumerate(text) if sequence.completes_call(character)] == [len(text) - 1]


def test_other_answers_end_with_no_call() -> None:
    assert ends_with_call(chat(tool_choice=NamedTool("now")))
    assert not ends_with_call(chat())
    assert not ends_with_call(chat(parallel_tool_calls=False, tool_choice="none"))
    assert not running(chat()).completes_call('<tool_call>\n{"name": "now", "arguments": {}}\n</tool_call>')


def test_an_answer_is_overdue_once_it_has_several_lines() -> None:
    late = running(chat(), max_predict_s=2.0)
    assert not late.is_overdue(10.0)
    late.output.push(5, b"one line")
    assert not late.is_overdue(12.5)
    late.output.push(5, b"\n")
    assert late.is_overdue(12.5)
    assert not running(chat()).is_overdue(1e9)


def test_tokens_of_reasoning_are_counted_as_they_come() -> None:
    sequence = running(chat())
    sequence.reasoning = ReasoningCounter(ReasoningSpan(b"<think>", b"</think>", (), is_open=True))
    for piece in (b"a", b"b", b"</think>", b"c"):
        sequence.reasoning.push(piece)
    assert sequence.usage.reasoning_tokens == 3
