"""How many tokens a request takes at the most, before anything of it is computed. Pure."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import dataclass, fields, replace
from typing import Any, Final

from modelyard.protocol.prompts import Media, Prompt, Text, Tokens
from modelyard.protocol.requests import Embed, Rank, Submit, Tokenize

# What a chat template writes around a turn, or around a document, about.
TURN_TOKENS: Final = 16

# More than any body has.
_ANY: Final = 1 << 40

# Of an image or a clip of sound, of which nothing is known but that it is one. Most projectors make fewer.
MEDIUM_TOKENS: Final = 4096


@dataclass(frozen=True, slots=True)
class TokenEstimate:
    """Tokens of one request.

    Attributes:
        prompt: of its prompt.
        answer: of its answer; None: as many as there is room for.
        room: for both together, in the model's context; None: it is not known.
    """

    prompt: int
    answer: int | None
    room: int | None

    @property
    def total(self) -> int | None:
        """Of both together; None: nobody knows."""
        if self.answer is None:
            return self.room
        total = self.prompt + self.answer
        return total if self.room is None else min(total, self.room)

    def accepted(self, prompt_tokens: int) -> TokenEstimate:
        """The same, when the tokens of the prompt are known."""
        return replace(self, prompt=prompt_tokens)


MAX_ENCODED: Final = 1 << 18
"""Characters of a text that is encoded to be counted, on the event loop: a body of 48 MiB would keep it for 0.1 s."""

_MAX_BYTES_PER_CHARACTER: Final = 4

UNCOUNTED: Final = TokenEstimate(0, 0, None)
"""Of a request whose tokens nobody counts."""


def estimate(message: Submit | Embed | Rank | Tokenize, room: int | None) -> TokenEstimate:
    """The tokens of what an engine is sent.

    A text has no more tokens than bytes: that is four times too many for English, but nobody gets more than was
    reserved for him.

    Args:
        message: as it is sent.
        room: the context of the model; None: it is not known.
    """
    match message:
        case Submit():
            limits = [limit for limit in (room, message.max_context) if limit is not None]
            answers = [limit for limit in (message.max_tokens, message.max_answer) if limit is not None]
            return TokenEstimate(
                prompt_tokens(message.prompt), min(answers, default=None), min(limits) if limits else None
            )
        case Embed(_, inputs):
            return TokenEstimate(sum(min(prompt_tokens(one), room or _ANY) for one in inputs), 0, None)
        case Rank(_, query, documents):
            each = (_bytes(query) + _bytes(document) + TURN_TOKENS for document in documents)
            return TokenEstimate(sum(min(one, room or _ANY) for one in each), 0, None)
        case Tokenize():
            # Nothing is computed of it.
            return TokenEstimate(0, 0, None)


def prompt_tokens(prompt: Prompt) -> int:
    """Tokens of a prompt, at the most."""
    match prompt:
        case Tokens(ids):
            return len(ids)
        case Text(text):
            return _bytes(text) + 1
        case _:
            return _size(getattr(prompt, field.name) for field in fields(prompt)) + TURN_TOKENS


def _size(parts: Iterable[Any]) -> int:
    """Bytes of all texts in ``parts``, and what stands for the rest."""
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
    """Bytes of a text in UTF-8; at the most, where it is too long for most models."""
    if len(text) > MAX_ENCODED and not text.isascii():
        return _MAX_BYTES_PER_CHARACTER * len(text)
    return len(text) if text.isascii() else len(text.encode("utf-8", "surrogatepass"))
