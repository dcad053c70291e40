"""A model's vocabulary as a tokenizer of llguidance."""

from __future__ import annotations

import ctypes
import threading
import weakref
from collections.abc import Callable, Sequence

import numpy as np
import numpy.typing as npt

from modelyard.engine.guidance import library

_NUMERIC = frozenset(b"0123456789.eE+-")

# First byte of special tokens. Source: toktrie, TokTrie::SPECIAL_TOKEN_MARKER.
_NO_TEXT = b"\xff"


def leading_digits(text: bytes) -> int:
    """Return the number of digits that ``text`` begins with."""
    return len(text) - len(text.lstrip(b"0123456789"))


class Vocabulary:
    """The tokens of one model and their bytes.

    A suspended answer takes the vocabulary of its grammar along, beyond the life of its model: ``detach`` it before the
    model is freed, and ``attach`` it to the model where the answer continues.

    Reading it takes 3 to 6 µs of processor time a token, during which other threads run.

    Args:
        tokens: bytes of each token, in order of their ids; special tokens have their names.
        special: ids of special tokens, which are no text.
        end_tokens: ids that end an answer; if there are none, it ends where nothing else can follow.
        tokenize: UTF-8 text -> ids, without special tokens. llguidance calls it where the grammar allows a single text,
            on any thread that uses a matcher.

    Attributes:
        size: number of the model's tokens.
        end_tokens: the given ones, or an additional one if there are none.
        byte_tokens: [256]: the token of each single byte; -1 where the vocabulary has none.
        special: [number of special tokens]: their ids, without those of the end tokens.
        numeric: tokens that consist of the characters of numbers, with their text.
        max_digits: the most digits that one of them begins with.
        tokenizer: llguidance's tokenizer, which is freed with this object.

    Raises:
        ValueError: llguidance cannot read the vocabulary; the message holds its reason.
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
            # llguidance requires an end token, so one is added to the model's.
            tokens, special, end_tokens = [*tokens, b"<end>"], [*special, len(tokens)], frozenset((len(tokens),))
        self.end_tokens = end_tokens
        self.byte_tokens = np.full(256, -1, np.int64)
        marked = frozenset(special)
        for token, text in enumerate(tokens):
            if len(text) == 1 and token not in marked and self.byte_tokens[text[0]] < 0:
                self.byte_tokens[text[0]] = token
        self.special: npt.NDArray[np.int64] = np.array(sorted(marked - end_tokens), np.int64)
        self.numeric = {
            token: text
            for token, text in enumerate(tokens)
            if text and text[0] in _NUMERIC and token not in marked and _NUMERIC.issuperset(text)
        }
        self.max_digits = max(map(leading_digits, self.numeric.values()), default=0)
        self._texts = _Texts(tokenize)
        # llguidance calls it as long as the tokenizer exists. It must not refer to this vocabulary: without a cycle,
        # both are freed with the last user, not by the garbage collector.
        self._tokenize = library.Tokenize(self._texts)
        self.tokenizer = _read(tokens, special, sorted(end_tokens), self._tokenize)
        weakref.finalize(self, library.free_tokenizer, self.tokenizer).atexit = False

    def tokenize(self, text: bytes) -> list[int]:
        """Return the tokens of ``text`` without special tokens. A model must be attached."""
        assert self._texts.tokenize is not None
        return self._texts.tokenize(text)

    def attach(self, tokenize: Callable[[bytes], list[int]]) -> None:
        """Use the tokenizer of a model with the same tokens."""
        self._texts.tokenize = tokenize

    def detach(self) -> None:
        """Stop using the model."""
        self._texts.tokenize = None

    def take_failure(self) -> Exception | None:
        """Return and clear the error of tokenising in this thread's last call of llguidance; None if there was none."""
        failures = self._texts.failures
        return failures.pop(threading.get_ident(), None) if failures else None


class _Texts:
    """Tokenises texts for llguidance.

    Attributes:
        tokenize: tokenizer of the model; None without a model.
        failures: exceptions of ``tokenize`` by thread. llguidance gets no tokens in that case, so its mask is invalid.
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
            count = min(room, len(tokens))
            ctypes.memmove(output, (ctypes.c_uint32 * count)(*tokens[:count]), 4 * count)
        except Exception as failure:  # noqa: BLE001 - the caller is C, which has no exceptions
            self.failures[threading.get_ident()] = failure
            return 0
        return len(tokens)


def _read(tokens: Sequence[bytes], special: Sequence[int], end_tokens: Sequence[int], tokenize: object) -> int:
    """Return a tokenizer of llguidance, which has copies of everything except ``tokenize``."""
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
        # llguidance handles bytes that are not UTF-8 itself.
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
