"""All tool-call formats by name, and the detection of a chat template's format."""

from __future__ import annotations

from collections.abc import Callable, Sequence

from modelyard.engine.formats.families.apertus import APERTUS
from modelyard.engine.formats.families.deepseek import DEEPSEEK, DEEPSEEK_V31
from modelyard.engine.formats.families.functionary import FUNCTIONARY
from modelyard.engine.formats.families.gemma import FUNCTION_GEMMA, GEMMA
from modelyard.engine.formats.families.generic import GENERIC
from modelyard.engine.formats.families.glm import GLM, HUNYUAN
from modelyard.engine.formats.families.granite import GRANITE
from modelyard.engine.formats.families.harmony import HARMONY
from modelyard.engine.formats.families.hermes import HERMES
from modelyard.engine.formats.families.invoke import DEEPSEEK_V4, DEEPSEEK_V32, DEEPSEEK_V41, MINICPM, MINIMAX_M2
from modelyard.engine.formats.families.kimi_k2 import KIMI_K2
from modelyard.engine.formats.families.kimi_k3 import KIMI_K3
from modelyard.engine.formats.families.llama3 import LLAMA3
from modelyard.engine.formats.families.minimax_m3 import MINIMAX_M3
from modelyard.engine.formats.families.mistral import MISTRAL, MISTRAL_ARGS, MISTRAL_CALL_ID
from modelyard.engine.formats.families.muse import MUSE
from modelyard.engine.formats.families.phi import PHI
from modelyard.engine.formats.families.pythonic import LFM2, LLAMA4, OLMO3
from modelyard.engine.formats.families.qwen3_coder import QWEN3_CODER, SEED
from modelyard.engine.formats.families.solar import SOLAR
from modelyard.engine.formats.families.wrapped_json import (
    APRIEL,
    COMMAND,
    COMMAND_R,
    GIGACHAT,
    GIGACHAT_3,
    MINIMAX_M1,
    NEMOTRON,
)
from modelyard.engine.formats.format import ToolFormat
from modelyard.engine.formats.reasoning import ReasoningFormat, ReasoningParser, ReasoningThenRest
from modelyard.engine.formats.schema import Tool
from modelyard.protocol.deltas import OutputParser

# The names of these formats are also those that a configuration may have, in ToolFormatName (config/names.py).
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
    (DEEPSEEK_V41, ("｜DSML｜ calls",)),
    (DEEPSEEK_V32, ("｜DSML｜", "function_calls")),
    (DEEPSEEK_V4, ("｜DSML｜",)),
    (KIMI_K3, ("<|open|>", "<|sep|>")),
    (MINIMAX_M3, ("]<]minimax[>[",)),
    (MINIMAX_M2, ("<minimax:tool_call>",)),
    (SOLAR, ("<|tool_call:begin|>", "<|tool_call:args|>")),
    (HUNYUAN, ("<tool_call{}>", "<tool_sep{}>")),
    (APERTUS, ("<|tools_prefix|>",)),
    (NEMOTRON, ("<TOOLCALL>",)),
    (COMMAND, ("<|START_ACTION|>",)),
    (COMMAND_R, ("Action:", "directly-answer")),
    (GIGACHAT, ("<|function_call|>",)),
    (GIGACHAT_3, ("function call", "<|message_sep|>")),
    (FUNCTIONARY, (">>>${recipient}",)),
    (MUSE, ("<atem:",)),
    (LFM2, ("<|tool_list_start|>",)),
    (LFM2, ("<|tool_call_start|>",)),
    (LFM2, ("List of tools: ", "keep_past_thinking")),
    (OLMO3, ("<function_calls>", "<functions>")),
    (LLAMA4, ("<|header_start|>",)),
    (MINICPM, ("<function name=", "<![CDATA[")),
    (GEMMA, ("<|tool_call>", '<|"|>')),
    (FUNCTION_GEMMA, ("<start_function_call>",)),
    (GLM, ("<tool_call>", "<arg_key>")),
    (SEED, ("<seed:tool_call>",)),
    (QWEN3_CODER, ("<function=", "<parameter=")),
    (GRANITE, ("<|start_of_role|>", "<|tool_call|>")),
    (MINIMAX_M1, ("<tool_calls>", "<beginning_of_sentence>")),
    (APRIEL, ("<tool_calls>", "FINAL RESPONSE]")),
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
    max_calls: int | None = None,
) -> OutputParser:
    """Return a parser for one answer.

    Args:
        tool_format: how the model writes calls.
        reasoning: how it reasons; None if it does not, or its tool format has reasoning of its own.
        tools: the tools of the request; none if it has none or forbids to call them.
        prompt_ends_in_reasoning: see ``ReasoningFormat.opened_by``.
        new_id: makes the ids of calls; None: the format's own.
        max_calls: limit of calls; all that follows the last one is left out. None: no limit.
    """
    calls = tool_format.parser(tools, new_id, max_calls)
    if reasoning is None or tool_format.own_reasoning is not None:
        return calls
    tries = bool(tools) and not tool_format.has_frames
    parted = ReasoningParser(
        reasoning,
        inside=prompt_ends_in_reasoning,
        also_ends=tool_format.ends_reasoning if tools or tool_format.has_frames else (),
        openers=tool_format.openers if tries else (),
        new_trial=(lambda: tool_format.parser(tools, new_id, max_calls)) if tries else None,
    )
    return ReasoningThenRest(parted, calls)


def control_tokens(tool_format: ToolFormat, reasoning: ReasoningFormat | None) -> frozenset[str]:
    """Return the markers that a parser must see: an engine outputs these control tokens as text, and no others."""
    return tool_format.markers | (reasoning.markers if reasoning else frozenset())
