"""A vocabulary without a model, and a model without sense."""

from __future__ import annotations

from concurrent.futures import Executor

import numpy as np

from modelyard.engine.guidance import Constraint, Vocabulary, prepare
from modelyard.engine.guidance.matcher import Matcher

# Tokens as models have them: several characters, parts of characters, and words across the parts of JSON.
LONGER = [
    *(b'{"', b'":', b'": ', b'","', b'", "', b'"}', b'"]', b"}}", b"]]", b"},{", b"[]", b"{}", b'""', b"null", b"true"),
    *(b"false", b"10", b"123", b".5", b"e+", b"-1", b"\xf0\x9f", b"\x98\x80", "é".encode(), "日本".encode(), b"\\n"),
    *(b"\\u00", b"ab", b"abc", b" ", b"  ", b"\n", b", ", b"[1", b'a":', b'"a"', b'"b', b"<tool_call>"),
]
SIZE = 256 + len(LONGER) + 4
END, OTHER_END, CONTROL, EMPTY = range(SIZE - 4, SIZE)
TOKENS = [*(bytes([each]) for each in range(256)), *LONGER, b"<end>", b"<stop>", b"<control>", b""]
# What completes JSON, best first.
_CLOSERS = [b'"', b"b", b"}", b"]", b"null", b":", b",", b"-", b"a"]


def tokenize(text: bytes) -> list[int]:
    return list(text)


def vocabulary(end_tokens: frozenset[int] = frozenset((END, OTHER_END))) -> Vocabulary:
    return Vocabulary(TOKENS, [END, OTHER_END, CONTROL], end_tokens, tokenize)


def constraint(grammar: str, words: Vocabulary) -> Constraint:
    matcher = Matcher(words, grammar)
    assert matcher.error is None, f"{matcher.error}\n{grammar}"
    return Constraint(words, matcher)


def allowed(over: Constraint, size: int = SIZE) -> set[int]:
    """Tokens that may come next."""
    logits = np.zeros(size, np.float32)
    over.apply(logits)
    return set(np.flatnonzero(logits == 0).tolist())


def babble(
    over: Constraint,
    tokens: list[bytes],
    end_tokens: frozenset[int],
    seed: int,
    *,
    patience: int = 40,
    masks: Executor | None = None,
) -> tuple[bytes, int]:
    """What a model of random logits says under a constraint, and in how many tokens; after some it wants to be done."""
    random = np.random.default_rng(seed)
    eager = {token: len(_CLOSERS) - place for place, text in enumerate(_CLOSERS) for token in _named(tokens, text)}
    eager |= dict.fromkeys(end_tokens, 100)
    said = b""
    for step in range(1000):
        if masks is not None:
            prepare([over], masks)
        logits = random.standard_normal(len(tokens)).astype(np.float32)
        if step >= patience:
            logits[list(eager)] += 10 * np.fromiter(eager.values(), np.float32)
        over.apply(logits)
        token = int(logits.argmax())
        over.accept(token)
        if token in end_tokens:
            return said, step + 1
        said += tokens[token]
        if over.is_complete:
            return said, step + 1
    raise AssertionError(f"the answer has no end: {said[:2000]!r}")


def _named(tokens: list[bytes], text: bytes) -> list[int]:
    return [token for token, each in enumerate(tokens) if each == text]
