"""Estimates an upper bound of the tokens of a request, before anything of it is computed. Pure."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import dataclass, fields, replace
from typing import Any, Final

from modelyard.protocol.prompts import Media, Prompt, Text, Tokens
from modelyard.protocol.requests import Embed, Rank, Submit, Tokenize
from modelyard.protocol.suspended import SuspendedSequence

# About as many tokens as a chat template adds to a turn, or to a document.
TURN_TOKENS: Final = 16

# More tokens than any body holds.
_UNBOUNDED: Final = 1 << 40

# Tokens of an image or an audio clip of unknown size. Most projectors make fewer.
MEDIUM_TOKENS: Final = 4096


@dataclass(frozen=True, slots=True)
class TokenEstimate:
    """Bounds of the tokens of one request.

    Attributes:
        prompt: of its prompt.
        answer: of its answer; None: bounded by ``room`` alone.
        room: of both together, by the model's context; None: it is not known.
    """

    prompt: int
    answer: int | None
    room: int | None

    @property
    def total(self) -> int | None:
        """Bound of the tokens of prompt and answer together; None: it is not known."""
        if self.answer is None:
            return self.room
        total = self.prompt + self.answer
        return total if self.room is None else min(total, self.room)

    def accepted(self, prompt_tokens: int) -> TokenEstimate:
        """Return the estimate with the real number of tokens of the prompt."""
        return replace(self, prompt=prompt_tokens)


USUAL_TOKEN_BYTES: Final = 3
"""Bytes of a token of text; few texts have fewer."""

FIRST_ANSWER_TOKENS: Final = 512
"""Tokens of an answer that a request is given room for at first: most answers are shorter than their limit."""

MAX_ENCODED: Final = 1 << 18
"""Characters up to which a text is encoded to count its bytes: 48 MiB would take 0.1 s of the event loop."""

_MAX_BYTES_PER_CHARACTER: Final = 4

UNCOUNTED: Final = TokenEstimate(0, 0, None)
"""The estimate for a request whose tokens are not limited."""


def estimate(message: Submit | Embed | Rank | Tokenize, room: int | None) -> TokenEstimate:
    """Return the bounds of the tokens of a request.

    A text has at most as many tokens as bytes. That is four times too many for English, but no request uses more than
    was reserved for it.

    Args:
        message: as its engine is sent it.
        room: tokens of the model's context; None: it is not known.
    """
    match message:
        case Submit():
            limits = [limit for limit in (room, message.max_context) if limit is not None]
            answers = [limit for limit in (message.max_tokens, message.max_answer) if limit is not None]
            return TokenEstimate(
                prompt_tokens(message.prompt), min(answers, default=None), min(limits) if limits else None
            )
        case Embed(_, inputs):
            return TokenEstimate(sum(min(prompt_tokens(text), room or _UNBOUNDED) for text in inputs), 0, None)
        case Rank(_, query, documents):
            pairs = (_bytes(query) + _bytes(document) + TURN_TOKENS for document in documents)
            return TokenEstimate(sum(min(pair, room or _UNBOUNDED) for pair in pairs), 0, None)
        case Tokenize():
            # No model computes anything for it.
            return TokenEstimate(0, 0, None)


def cells_needed(message: Submit | Embed | Rank | Tokenize, suspended: SuspendedSequence | None = None) -> int:
    """Return about how many KV cells a request needs at first: its prompt, and the beginning of its answer.

    Args:
        message: as its engine is sent it.
        suspended: the state that it goes on from; None: it begins.
    """
    if not isinstance(message, Submit):
        return 0
    answer = min(FIRST_ANSWER_TOKENS if message.max_tokens is None else message.max_tokens, FIRST_ANSWER_TOKENS)
    if isinstance(suspended, SuspendedSequence) and suspended.prompt:
        return len(suspended.prompt) + len(suspended.answer) + answer
    prompt = message.prompt
    return (len(prompt.ids) if isinstance(prompt, Tokens) else prompt_tokens(prompt) // USUAL_TOKEN_BYTES) + answer


def prompt_tokens(prompt: Prompt) -> int:
    """Return a bound of the tokens of a prompt."""
    match prompt:
        case Tokens(ids):
            return len(ids)
        case Text(text):
            return _bytes(text) + 1
        case _:
            return _size(getattr(prompt, field.name) for field in fields(prompt)) + TURN_TOKENS


def _size(parts: Iterable[Any]) -> int:
    """Return a bound of the tokens of ``parts``: the bytes of all texts, and constants for everything else."""
    size = 0
    for part in parts:
        match part:
            case str():
                size += _bytes(part)
            case Mapping():
                size += TURN_TOKENS + _size(part.keys()) + _size(part.values())
            case tuple() | list():
                size += _size(part)
            case _ if isinstance(part, Media):
                size += MEDIUM_TOKENS
            case _:
                size += TURN_TOKENS
    return size


def _bytes(text: str) -> int:
    """Return the bytes of a text in UTF-8, or a bound of them where encoding it would take long."""
    if len(text) > MAX_ENCODED and not text.isascii():
        return _MAX_BYTES_PER_CHARACTER * len(text)
    return len(text) if text.isascii() else len(text.encode("utf-8", "surrogatepass"))
