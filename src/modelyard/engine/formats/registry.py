"""All tool-call formats by name, and the detection of a chat template's format."""

from __future__ import annotations

from collections.abc import Callable, Sequence

from modelyard.engine.formats.deepseek import DEEPSEEK, DEEPSEEK_V31
from modelyard.engine.formats.format import ToolFormat
from modelyard.engine.formats.gemma import FUNCTION_GEMMA, GEMMA
from modelyard.engine.formats.generic import GENERIC
from modelyard.engine.formats.glm import GLM
from modelyard.engine.formats.granite import GRANITE
from modelyard.engine.formats.harmony import HARMONY
from modelyard.engine.formats.hermes import HERMES
from modelyard.engine.formats.kimi_k2 import KIMI_K2
from modelyard.engine.formats.llama3 import LLAMA3
from modelyard.engine.formats.mistral import MISTRAL, MISTRAL_ARGS, MISTRAL_CALL_ID
from modelyard.engine.formats.phi import PHI
from modelyard.engine.formats.qwen3_coder import QWEN3_CODER
from modelyard.engine.formats.reasoning import ReasoningFormat, ReasoningParser, ReasoningThenRest
from modelyard.engine.formats.schema import Tool
from modelyard.protocol.deltas import OutputParser

# The markers that a template of each format contains. The first match counts, so a format with further markers comes
# before one that has a subset of them.
_TEMPLATE_MARKERS: tuple[tuple[ToolFormat, tuple[str, ...]], ...] = (
    (HARMONY, ("<|channel|>", "<|message|>")),
    (DEEPSEEK, ("<｜tool▁calls▁begin｜>", "```json")),
    (DEEPSEEK_V31, ("<｜tool▁calls▁begin｜>",)),
    (KIMI_K2, ("<|tool_calls_section_begin|>",)),
    (MISTRAL_CALL_ID, ("[TOOL_CALLS]", "[CALL_ID]")),
    (MISTRAL_ARGS, ("[TOOL_CALLS]", "[ARGS]")),
    (MISTRAL, ("[TOOL_CALLS]",)),
    (GEMMA, ("<|tool_call>", '<|"|>')),
    (FUNCTION_GEMMA, ("<start_function_call>",)),
    (GLM, ("<tool_call>", "<arg_key>")),
    (QWEN3_CODER, ("<function=", "<parameter=")),
    (GRANITE, ("<|start_of_role|>", "<|tool_call|>")),
    (PHI, ("<|tool_call|>",)),
    (PHI, ("functools[",)),
    (HERMES, ("<tool_call>",)),
    (LLAMA3, ("<|python_tag|>",)),
    (LLAMA3, ("<|start_header_id|>", "ipython")),
)

FORMATS: dict[str, ToolFormat] = {each.name: each for each, _ in _TEMPLATE_MARKERS} | {GENERIC.name: GENERIC}


def format_of(chat_template: str) -> ToolFormat:
    """Return the format of a chat template; the generic one if it is of no known format."""
    for each, markers in _TEMPLATE_MARKERS:
        if all(marker in chat_template for marker in markers):
            return each
    return GENERIC


def parser(
    tool_format: ToolFormat,
    reasoning: ReasoningFormat | None,
    tools: Sequence[Tool],
    *,
    prompt_ends_in_reasoning: bool = False,
    new_id: Callable[[], str] | None = None,
) -> OutputParser:
    """Return a parser for one answer.

    Args:
        tool_format: how the model writes calls.
        reasoning: how it reasons; None if it does not, or its tool format has reasoning of its own.
        tools: the tools of the request; none if it has none or forbids to call them.
        prompt_ends_in_reasoning: see ``ReasoningFormat.opened_by``.
        new_id: makes the ids of calls; None: the format's own.
    """
    calls = tool_format.parser(tools, new_id)
    if reasoning is None or tool_format.own_reasoning is not None:
        return calls
    also_ends = tool_format.openers if tool_format.ends_reasoning and tools else ()
    return ReasoningThenRest(ReasoningParser(reasoning, inside=prompt_ends_in_reasoning, also_ends=also_ends), calls)


def control_tokens(tool_format: ToolFormat, reasoning: ReasoningFormat | None) -> frozenset[str]:
    """Return the markers that a parser must see: an engine outputs these control tokens as text, and no others."""
    return tool_format.markers | (reasoning.markers if reasoning else frozenset())
