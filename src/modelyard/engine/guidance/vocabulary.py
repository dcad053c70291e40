"""A model's tokens as llguidance wants them."""

from __future__ import annotations

import ctypes
import threading
import weakref
from collections.abc import Callable, Sequence

import numpy as np

from modelyard.engine.guidance import library

# Begins the bytes of tokens that stand for no text. Source: toktrie, TokTrie::SPECIAL_TOKEN_MARKER.
_NO_TEXT = b"\xff"


class Vocabulary:
    """The tokens of one model, by the bytes that they stand for.

    It may outlive its model, with the grammar of a suspended answer: ``detach`` it before the model is freed, and
    ``attach`` it to the one where the answer goes on.

    To read them takes 3 to 6 µs a token of the processor's time, in which other threads run.

    Args:
        tokens: bytes of each token, in order of their ids; those of special tokens are their names.
        special: ids that stand for no text.
        end_tokens: ids that end an answer; where there are none, it ends where nothing else can follow.
        tokenize: text as UTF-8 -> ids, without special tokens. Where a grammar leaves one text only, llguidance has
            the model's own tokens say it. It may be called on any thread that uses a matcher.

    Attributes:
        size: of tokens that the model has.
        end_tokens: those given, or one that is none of the model's.
        tokenizer: llguidance's, which is freed with this.

    Raises:
        ValueError: llguidance cannot read it; the message holds its reason.
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
        self.end_tokens = end_tokens
        self._texts = _Texts(tokenize)
        # llguidance calls it for as long as it has the tokenizer. It does not refer to this vocabulary, so that both go
        # with the last user, and not with a garbage collection.
        self._tokenize = library.Tokenize(self._texts)
        self.tokenizer = _read(tokens, special, sorted(end_tokens), self._tokenize)
        weakref.finalize(self, library.free_tokenizer, self.tokenizer).atexit = False

    def attach(self, tokenize: Callable[[bytes], list[int]]) -> None:
        """Serve a model of the same tokens."""
        self._texts.tokenize = tokenize

    def detach(self) -> None:
        """Have no use for the model any more."""
        self._texts.tokenize = None

    def take_failure(self) -> Exception | None:
        """Why this thread's last call of llguidance could not split a text into tokens, and forget it."""
        failures = self._texts.failures
        return failures.pop(threading.get_ident(), None) if failures else None


class _Texts:
    """Splits texts into tokens for llguidance.

    Attributes:
        tokenize: does so; None where there is no model.
        failures: what it raised, by thread. llguidance is told of no tokens then, and makes masks that mean nothing.
    """

    __slots__ = ("failures", "tokenize")

    def __init__(self, tokenize: Callable[[bytes], list[int]]) -> None:
        self.tokenize: Callable[[bytes], list[int]] | None = tokenize
        self.failures: dict[int, Exception] = {}

    def __call__(self, _user_data: int | None, text: int, length: int, output: int, room: int) -> int:
        try:
            tokenize = self.tokenize
            assert tokenize is not None, "no mask is computed without a model"
            tokens = tokenize(ctypes.string_at(text, length))
            written = min(room, len(tokens))
            ctypes.memmove(output, (ctypes.c_uint32 * written)(*tokens[:written]), 4 * written)
        except Exception as failure:  # noqa: BLE001 - there is nobody above but C, which knows no exceptions
            self.failures[threading.get_ident()] = failure
            return 0
        return len(tokens)


def _read(tokens: Sequence[bytes], special: Sequence[int], end_tokens: Sequence[int], tokenize: object) -> int:
    """A tokenizer of llguidance's. It has copies of everything but ``tokenize``."""
    marked = list(tokens)
    for token in special:
        if not marked[token].startswith(_NO_TEXT):
            marked[token] = _NO_TEXT + marked[token]
    lengths = np.fromiter(map(len, marked), np.uint32, len(marked))
    others = np.array(end_tokens[1:], np.uint32)
    init = library.TokenizerInit(
        struct_size=ctypes.sizeof(library.TokenizerInit),
        vocab_size=len(marked),
        tok_eos=end_tokens[0],
        token_lens=lengths.ctypes.data,
        token_bytes=b"".join(marked),
        # Bytes that are no UTF-8 are left to llguidance.
        tokenize_assumes_string=True,
        tokenize_fn=tokenize,
        tok_eos_extra=others.ctypes.data,
        tok_eos_extra_count=len(others),
    )
    reason = ctypes.create_string_buffer(512)
    tokenizer: int | None = library.new_tokenizer(init, reason, len(reason))
    if tokenizer is None:
        raise ValueError(f"llguidance cannot read the vocabulary: {reason.value.decode('utf-8', 'replace')}")
    return tokenizer
