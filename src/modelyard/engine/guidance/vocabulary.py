"""A model's tokens as llguidance wants them."""

from __future__ import annotations

from collections.abc import Callable, Sequence

from llguidance import LLTokenizer, TokenizerWrapper


class Vocabulary:
    """The tokens of one model, by the bytes that they stand for.

    It may outlive its model, with the grammar of a suspended answer: ``detach`` it before the model is freed, and
    ``attach`` it to the one where the answer goes on.

    Args:
        tokens: bytes of each token, in order of their ids; those of special tokens are their names.
        special: ids that stand for no text.
        end_tokens: ids that end an answer; where there are none, it ends where nothing else can follow.
        tokenize: text as UTF-8 -> ids, without special tokens.
    """

    def __init__(
        self,
        tokens: Sequence[bytes],
        special: Sequence[int],
        end_tokens: frozenset[int],
        tokenize: Callable[[bytes], list[int]],
    ) -> None:
        self.size = len(tokens)
        if not end_tokens:
            # llguidance needs one: none of the model's.
            tokens, special, end_tokens = [*tokens, b"<end>"], [*special, len(tokens)], frozenset((len(tokens),))
        # What llguidance's wrapper reads.
        self.tokens = tokens
        self.special_token_ids = special
        self.eos_token_id = min(end_tokens)
        self.bos_token_id = None
        self._tokenize: Callable[[bytes], list[int]] | None = tokenize
        # About 4 µs a token of the processor's time, in which llguidance lets no other thread run Python.
        self.tokenizer = LLTokenizer(TokenizerWrapper(self), n_vocab=len(tokens), eos_token=sorted(end_tokens))

    def __call__(self, text: bytes) -> list[int]:
        """Ids of ``text``: where a grammar leaves one text only, llguidance has the model's own tokens say it."""
        assert self._tokenize is not None, "no mask is computed without a model"
        return self._tokenize(text)

    def attach(self, tokenize: Callable[[bytes], list[int]]) -> None:
        """Serve a model of the same tokens."""
        self._tokenize = tokenize

    def detach(self) -> None:
        """Have no use for the model any more."""
        self._tokenize = None
