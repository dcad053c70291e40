"""Values that requests and events share: token counts, probabilities, engine statistics."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal, NewType

SequenceId = NewType("SequenceId", int)

FinishReason = Literal["stop", "length"]


@dataclass(frozen=True, slots=True)
class OutputFormat:
    """How the text of an answer is parsed; see ``modelyard.engine.chat.chat_format``.

    Attributes:
        tools: name of the tool-call format in the registry.
        reasoning: name of the reasoning format; "" for none.
        is_open: whether the prompt ends within reasoning.
        begun: what the prompt already holds of the answer: the model's own text before its content, or its reasoning,
            and a dot for that; "": nothing. Parsers read it before the answer, and tell nothing of it.
    """

    tools: str
    reasoning: str
    is_open: bool
    begun: str = ""


@dataclass(frozen=True, slots=True)
class EngineStats:
    """Statistics of an engine. Published about once a second while it computes, and when it becomes idle.

    Attributes:
        running, waiting: sequences in the batch, and in the queue.
        kv_cells, used_cells: cells of the KV cache, one a token; kept prompts count as used.
        preemptions: sequences preempted because the cache was full, since the last EngineStats.
        pictures_encoded, pictures_reused: images, or tiles of them, that the projector encoded, and that were reused
            from earlier encodings, since the last EngineStats.
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
    """The log probability of a token of an answer, or of an echoed prompt.

    Attributes:
        token: its bytes.
        logprob: natural logarithm of its probability; nan for the first token of a prompt, which nothing precedes.
        top: (bytes, logprob) of the likeliest tokens at its position, likeliest first.
        id: its id; -1 where it is not known.
        top_ids: ids of the tokens of ``top``; () where they are not known.
        rank: its place among all tokens, the likeliest being 1; 0 where it is not known.
    """

    token: bytes
    logprob: float
    top: tuple[tuple[bytes, float], ...]
    id: int = -1
    top_ids: tuple[int, ...] = ()
    rank: int = 0


@dataclass(frozen=True, slots=True)
class Usage:
    """Token counts of one request.

    Attributes:
        cached_tokens: tokens of the prompt whose KV state was reused, without prefill.
        reasoning_tokens: tokens of the completion that are reasoning.
    """

    prompt_tokens: int
    completion_tokens: int
    cached_tokens: int
    reasoning_tokens: int = 0
