"""A vocabulary of single bytes and some control tokens, for grammars without a model."""

from __future__ import annotations

import re
from collections.abc import Iterable

from llguidance import LLMatcher, LLTokenizer


class BytesVocabulary:
    """Token 0 to 255 are bytes, 256 ends the sequence, and then come the control tokens."""

    eos_token_id = 256
    bos_token_id = None
    is_tokenizer_wrapper = True

    def __init__(self, control: Iterable[str]) -> None:
        self.control = {text: 257 + place for place, text in enumerate(sorted(control))}
        self.tokens = [bytes([each]) for each in range(256)] + [b"<end>", *(text.encode() for text in self.control)]
        self.special_token_ids = list(range(256, len(self.tokens)))
        self._split = re.compile("|".join(map(re.escape, self.control)) or "(?!)")
        self.llguidance = LLTokenizer(self)

    def __call__(self, text: bytes | str) -> list[int]:
        return list(text if isinstance(text, bytes) else text.encode())

    def tokens_of(self, text: str) -> list[int]:
        """Token ids, control tokens as such."""
        found: list[int] = []
        at = 0
        for each in self._split.finditer(text):
            found += [*text[at : each.start()].encode(), self.control[each.group()]]
            at = each.end()
        return found + list(text[at:].encode())

    def text_of(self, tokens: Iterable[int]) -> str:
        return b"".join(self.tokens[token] for token in tokens).decode(errors="replace")

    def matcher(self, grammar: str) -> LLMatcher:
        matcher = LLMatcher(self.llguidance, grammar)
        assert not matcher.is_error(), f"{matcher.get_error()}\n{grammar}"
        return matcher
