"""Values that requests and events have in common: numbers of tokens, probabilities, how an engine is."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Literal, NewType

if TYPE_CHECKING:
    pass

SequenceId = NewType("SequenceId", int)

FinishReason = Literal["stop", "length"]


@dataclass(frozen=True, slots=True)
class Reading:
    """How the text of an answer is to be read; see ``modelyard.engine.chat.chat_format``.

    Attributes:
        tools: the format of tool calls, by its name in the registry.
        reasoning: that of reasoning, by name; "" for none.
        is_open: whether the prompt ends within reasoning.
    """

    tools: str
    reasoning: str
    is_open: bool


@dataclass(frozen=True, slots=True)
class EngineStats:
    """How an engine is. Published about once a second while it computes, and when it has become idle.

    Attributes:
        running, waiting: sequences in the batch, and in line for it.
        kv_cells, used_cells: of the KV cache; a cell holds one token, kept prompts take theirs.
        preemptions: sequences that gave way because the cache was full, since the last Vitals.
        pictures_encoded, pictures_reused: images, or tiles of them, that the projector encoded since then, and that
            were shown again from what it had encoded before.
    """

    running: int
    waiting: int
    kv_cells: int
    used_cells: int
    preemptions: int
    pictures_encoded: int = 0
    pictures_reused: int = 0


@dataclass(frozen=True, slots=True)
class TokenLogprob:
    """How likely a token was.

    Attributes:
        token: its bytes.
        logprob: natural logarithm of its probability.
        top: the likeliest tokens in its place, likeliest first, with theirs.
    """

    token: bytes
    logprob: float
    top: tuple[tuple[bytes, float], ...]


@dataclass(frozen=True, slots=True)
class Usage:
    """Tokens of one request. cached_tokens of the prompt were reused and cost no prefill."""

    prompt_tokens: int
    completion_tokens: int
    cached_tokens: int
