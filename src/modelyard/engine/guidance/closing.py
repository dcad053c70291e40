"""Finds a short completion of an answer: the tokens that bring it from where it is to an end of its grammar.

The shortest one would need a search over all tokens. This takes one path, a byte at a time: what closes something comes
first, and where a choice repeats itself, the next one is another. It completes JSON of any schema, and most grammars.
"""

from __future__ import annotations

import time
from collections import Counter
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import Final

import numpy as np
import numpy.typing as npt

from modelyard.engine.guidance.matcher import Matcher
from modelyard.engine.guidance.vocabulary import Vocabulary

# Bytes and control tokens of a completion. A mask of each is computed, most of which take 0.1 ms.
MAX_STEPS: Final = 512

# No other sequence is computed meanwhile, and the mask of an expensive grammar takes up to 14 ms.
MAX_SEARCH_S: Final = 0.05

# Free text that goes on behind quotation marks, such as reasoning, has no completion of this kind.
_MAX_QUOTES_IN_TEXT: Final = 4

# Best first: closers, then a string, which may be empty, then what ends or continues a value, then openers and blanks.
_CLOSERS: Final = b'}])"'
_SINGLE_CLOSERS: Final = b'"}]'
_LETTERS: Final = bytes(range(ord("a"), ord("z") + 1))
_ORDER: Final = _CLOSERS + b",:0123456789" + _LETTERS + _LETTERS.upper() + b"'`>;.!?/_@#$%&*=+|~^-<({[" + b"\\\n \t\r"
_RANK: Final = {byte: rank for rank, byte in enumerate(dict.fromkeys(_ORDER + bytes(range(256))))}

# One closer may be repeated this often before another byte is tried, as nested objects need the same many times.
_MAX_REPEATED_CLOSERS: Final = 64

# A state in which all of these may follow is within free text.
_TEXT: Final = frozenset(b"aZ}]")


# How many bytes of a completion a token may have used up, alone and where it has opened something else, too.
_MAX_USED_UP: Final = 24
_MAX_USED_UP_BEFORE: Final = 6

# What closes that which a token may have opened: a string or an array, a value, and a member of an object.
_OPENED: Final = (b'""', b':""', b'":""', b'"":""', b"]", b"}", b'":""}')


@dataclass(frozen=True, slots=True)
class Completion:
    """What brings an answer from where it is to an end of its grammar.

    Attributes:
        tokens: as the model's tokenizer writes the text.
        steps: the same with a token for each byte; it may have more at its beginning, which the answer has already.
    """

    tokens: tuple[int, ...]
    steps: tuple[int, ...]

    def behind_first(self) -> Completion:
        """Return what is left once the answer has its first token."""
        return Completion(self.tokens[1:], self.steps)


def closing(position: Matcher, vocabulary: Vocabulary) -> Completion | None:
    """Return what brings the answer at ``position`` to a place where it may end; no tokens if it may end there.

    Return None if none are found in MAX_STEPS steps or MAX_SEARCH_S seconds. The matcher does not advance.
    """
    matcher = position.clone()
    steps: list[int] = []
    uses: Counter[tuple[frozenset[int], int]] = Counter()
    quotes = 0
    deadline = time.monotonic() + MAX_SEARCH_S
    while not (matcher.is_stopped or matcher.is_accepting):
        mask = matcher.compute_mask()
        is_given_up = len(steps) == MAX_STEPS or quotes > _MAX_QUOTES_IN_TEXT or time.monotonic() > deadline
        if mask is None or is_given_up:
            return None
        special = vocabulary.special[_is_set(mask, vocabulary.special)]
        if special.size:
            token = int(special[0])
        else:
            candidates = frozenset(np.flatnonzero(_is_set(mask, vocabulary.byte_tokens)).tolist())
            if not candidates:
                return None
            byte = _choice(candidates, uses)
            uses[candidates, byte] += 1
            quotes = quotes + 1 if candidates >= _TEXT and byte == ord('"') else 0
            token = int(vocabulary.byte_tokens[byte])
        if not matcher.consume(token):
            return None
        steps.append(token)
    if matcher.error is not None:
        return None
    joined = tuple(_joined(steps, vocabulary))
    return Completion(joined if completes(position, joined, vocabulary) else tuple(steps), tuple(steps))


def adapted(completion: Completion, token: int, position: Matcher, vocabulary: Vocabulary) -> Completion | None:
    """Return a completion for the answer behind ``token``, made of the one for the answer before it.

    Most tokens leave it as it is, open what one token closes, or use up its beginning. Return None if a search must
    find another one. The matcher, at ``position`` before the token, does not advance.
    """
    for changed in _variants(completion, vocabulary):
        if completes(position, (token, *changed.tokens), vocabulary):
            return changed
    for steps in _stepwise_variants(completion.steps, vocabulary):
        if completes(position, (token, *steps), vocabulary):
            joined = tuple(_joined(steps, vocabulary))
            return Completion(joined if completes(position, (token, *joined), vocabulary) else steps, steps)
    return None


def _variants(completion: Completion, vocabulary: Vocabulary) -> Iterator[Completion]:
    tokens, steps = completion.tokens, completion.steps
    yield completion
    for closer in vocabulary.byte_tokens[list(_SINGLE_CLOSERS)].tolist():
        yield Completion((closer, *tokens), (closer, *steps))
    yield completion.behind_first()


def _stepwise_variants(steps: tuple[int, ...], vocabulary: Vocabulary) -> Iterator[tuple[int, ...]]:
    for start in range(1, min(len(steps), _MAX_USED_UP) + 1):
        yield steps[start:]
    for start in range(min(len(steps), _MAX_USED_UP_BEFORE) + 1):
        for opened in _OPENED:
            yield (*vocabulary.byte_tokens[list(opened)].tolist(), *steps[start:])


def completes(position: Matcher, tokens: Sequence[int], vocabulary: Vocabulary) -> bool:
    """Whether the answer at ``position`` may end behind ``tokens``. The matcher does not advance."""
    return min(tokens, default=0) >= 0 and position.allows((*tokens, min(vocabulary.end_tokens)))


def _is_set(mask: npt.NDArray[np.uint8], tokens: npt.NDArray[np.int64]) -> npt.NDArray[np.bool_]:
    """Return for each of ``tokens`` whether its bit is set; False for -1."""
    bits: npt.NDArray[np.bool_] = (mask[tokens >> 3] >> (tokens & 7) & 1).astype(bool) & (tokens >= 0)
    return bits


def _choice(candidates: frozenset[int], uses: Counter[tuple[frozenset[int], int]]) -> int:
    """Return the next byte of a completion, of those that may follow."""
    if candidates >= _TEXT:
        return ord('"') if ord('"') in candidates else ord("a")

    def rank(byte: int) -> tuple[int, int]:
        used = uses[candidates, byte]
        return (used // _MAX_REPEATED_CLOSERS if byte in _CLOSERS else used), _RANK[byte]

    return min(candidates, key=rank)


def _joined(steps: Sequence[int], vocabulary: Vocabulary) -> list[int]:
    """Return the tokens of a completion as the model's tokenizer writes its text."""
    bytes_of = {int(token): byte for byte, token in enumerate(vocabulary.byte_tokens) if token >= 0}
    tokens: list[int] = []
    text = bytearray()
    for step in (*steps, -1):
        byte = bytes_of.get(step)
        if byte is not None:
            text.append(byte)
            continue
        if text:
            tokens += vocabulary.tokenize(bytes(text))
            text.clear()
        if step >= 0:
            tokens.append(step)
    return tokens
