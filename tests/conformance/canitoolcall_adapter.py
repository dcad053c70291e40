"""Replays the fixtures of canitoolcall through the parsers of this server.

A fixture is what a model wrote, the tools that it had, and what a correct server tells of it. The format follows from
the fixture's model, as it follows from the chat template in a server. Pieces are single characters and random runs of
them, which is more than the pieces of tokens that the package's own adapters make.

Source: https://github.com/redd34/canitoolcall/blob/main/spec/README.md
"""

from __future__ import annotations

import random
from collections.abc import Iterator, Sequence

from canitoolcall.checks import case_status, run_checks
from canitoolcall.fixtures import Family, Fixture
from canitoolcall.results import Observation, ParsedToolCall, ParseResult, Status

from modelyard.engine.formats.format import ToolFormat
from modelyard.engine.formats.reasoning import REASONING, ReasoningFormat
from modelyard.engine.formats.registry import FORMATS, parser
from modelyard.engine.formats.schema import Tool
from modelyard.protocol.deltas import fold

# (beginning of the model's id, name of its format, name of its reasoning); the first match counts.
FORMATS_OF_MODELS = (
    ("deepseek-ai/DeepSeek-V4.1", "deepseek-v4.1", "think"),
    ("deepseek-ai/DeepSeek-V4", "deepseek-v4", "think"),
    ("deepseek-ai/DeepSeek-V3.2", "deepseek-v3.2", "think"),
    ("deepseek-ai/DeepSeek-V3.1", "deepseek-v3.1", "think"),
    ("deepseek-ai/DeepSeek-V3", "deepseek", "think"),
    ("google/gemma-4", "gemma", "gemma"),
    ("meta-llama/Llama-4", "llama4", ""),
    ("meta-llama/Llama-3", "llama3", ""),
    ("mistralai/Mistral-7B", "mistral", ""),
    ("mistralai/Mistral-Small-3.2", "mistral-call-id", ""),
    ("mistralai/Magistral-Small-2506", "mistral", "think"),
    ("mistralai/", "mistral-args", "mistral"),
    ("moonshotai/Kimi-K3", "kimi-k3", "kimi-k3"),
    ("moonshotai/", "kimi-k2", "think"),
    ("openai/gpt-oss", "harmony", ""),
    ("Qwen/Qwen3.", "qwen3-coder", "think"),
    ("Qwen/Qwen3-Coder", "qwen3-coder", ""),
    ("Qwen/", "hermes", "think"),
    ("zai-org/", "glm", "think"),
)


def status_of(fixture: Fixture, family: Family | None) -> tuple[Status, list[str]]:
    """Return the worst status of the package's checks, and what failed."""
    observed = Observation(
        nonstream=parsed(fixture, family, [fixture.raw_output]),
        streams={name: parsed(fixture, family, pieces) for name, pieces in _splits(fixture)},
    )
    rows = run_checks(fixture, family, observed)
    failed = [f"{row.check} ({row.strategy}): {row.detail}" for row in rows if row.status is Status.FAIL]
    return case_status(rows), failed


def parsed(fixture: Fixture, family: Family | None, pieces: Sequence[str]) -> ParseResult:
    """Return what the server tells of an answer that arrives in ``pieces``."""
    tool_format, reasoning = _formats(fixture)
    reader = parser(
        tool_format,
        reasoning,
        [_tool(each["function"]) for each in fixture.tools],
        prompt_ends_in_reasoning=reasoning is not None and reasoning.opened_by(_prompt(fixture, family)),
    )
    deltas = [delta for piece in pieces for delta in reader.push(piece)]
    message = fold([*deltas, *reader.finish(is_cut="truncated" in fixture.tags)])
    calls = tuple(ParsedToolCall(call.name, call.arguments) for call in message.tool_calls)
    return ParseResult(message.content or None, message.reasoning or None, calls)


def _formats(fixture: Fixture) -> tuple[ToolFormat, ReasoningFormat | None]:
    model = fixture.reference_model
    tools, reasoning = next(names for start, *names in FORMATS_OF_MODELS if model.startswith(start))
    return FORMATS[tools], REASONING.get(reasoning)


def _prompt(fixture: Fixture, family: Family | None) -> str:
    """Return the end of the prompt, which tells whether the answer begins within reasoning."""
    if fixture.generation_prompt is not None:
        return fixture.generation_prompt
    reference = family.reference_for(fixture.reference_model) if family else None
    return (reference.default_generation_prompt if reference else None) or ""


def _tool(function: dict[str, object]) -> Tool:
    parameters = function.get("parameters")
    return Tool(str(function["name"]), parameters=parameters if isinstance(parameters, dict) else {})


def _splits(fixture: Fixture) -> Iterator[tuple[str, list[str]]]:
    text = fixture.raw_output
    yield "token", list(text)
    for seed in (1, 2):
        drawn = random.Random(seed)
        pieces, at = [], 0
        while at < len(text):
            length = drawn.randint(1, 8)
            pieces.append(text[at : at + length])
            at += length
        yield f"rand:{seed}:8", pieces
