"""The position of one answer in its grammar, which llguidance keeps.

Hot path: every method runs once a token of a constrained answer.
"""

from __future__ import annotations

import ctypes
import json
import threading
import weakref
from collections.abc import Callable, Sequence
from dataclasses import asdict, dataclass
from typing import Any

import numpy as np
import numpy.typing as npt

from modelyard.engine.guidance import library
from modelyard.engine.guidance.vocabulary import Vocabulary


@dataclass(frozen=True, slots=True)
class Limits:
    """Limits of a grammar, in llguidance's own steps.

    A millisecond is 50,000 steps of the lexer while it compiles, or 14,000 while it computes masks.

    Args:
        initial_lexer_fuel: steps of the lexer to compile the regular expressions.
        step_lexer_fuel: steps of the lexer in one mask.
        step_max_items: items of the parser in one mask.
        max_grammar_size: symbols.
        max_lexer_states: states of the lexer, each of which takes 1 to 2 kB as long as the answer goes on.
    """

    initial_lexer_fuel: int
    step_lexer_fuel: int
    step_max_items: int
    max_grammar_size: int
    max_lexer_states: int


class Matcher:
    """Follows one answer through its grammar.

    A grammar that is invalid, or exceeds a limit, raises no exception: the matcher is broken, and ``error`` is the
    reason. One thread at a time may use it. It keeps its vocabulary alive as long as llguidance uses it.

    Args:
        vocabulary: vocabulary of the model.
        grammar: Lark, or a list of grammars in JSON.
        limits: None: llguidance's own.
    """

    def __init__(self, vocabulary: Vocabulary, grammar: str, limits: Limits | None = None) -> None:
        init = library.MatcherInit()
        library.set_defaults(init, vocabulary.tokenizer)
        # No output on stderr, and no grammar in errors.
        init.log_stderr_level = 0
        init.limits.verbose_errors = False
        for name, limit in ({} if limits is None else asdict(limits)).items():
            setattr(init.limits, name, limit)
        if "\0" in grammar:
            # A NUL ends a string in C. In Lark it may occur in a comment or a regular expression.
            grammar = json.dumps({"grammars": [{"lark_grammar": grammar}]})
        self._hold(vocabulary, library.new_matcher(init, b"llguidance", grammar.encode()))

    def _hold(self, vocabulary: Vocabulary, pointer: int) -> None:
        self._vocabulary = vocabulary
        self._pointer = pointer
        # A finalizer keeps its arguments alive, so that the tokenizer is freed last, also by the garbage collector.
        weakref.finalize(self, _free, self._pointer, vocabulary).atexit = False
        self._mask_size: int = library.mask_size(self._pointer)
        self._failure: str | None = None
        self._in_use = threading.Lock()

    def clone(self) -> Matcher:
        """Return a matcher at the same position, which advances on its own."""
        clone = Matcher.__new__(Matcher)
        clone._hold(self._vocabulary, self._call(library.clone_matcher))
        return clone

    @property
    def error(self) -> str | None:
        """Why the matcher is broken, which it stays; None if it is not."""
        if self._failure is None:
            error: bytes | None = self._call(library.get_error)
            return error if error is None else error.decode("utf-8", "replace")
        return self._failure

    @property
    def is_stopped(self) -> bool:
        """Whether nothing but an end token can follow; True also for a broken matcher."""
        return bool(self._call(library.is_stopped))

    @property
    def is_accepting(self) -> bool:
        """Whether the answer may end here."""
        return bool(self._call(library.is_accepting))

    def allows(self, tokens: Sequence[int]) -> bool:
        """Whether ``tokens`` may follow one another here; the position stays the same."""
        count: int = self._call(library.validate_tokens, (ctypes.c_uint32 * len(tokens))(*tokens), len(tokens))
        return count == len(tokens)

    def compute_mask(self) -> npt.NDArray[np.uint8] | None:
        """Return which tokens may come next, one bit each, the first token in the lowest; None if it is broken.

        Does not hold the GIL, except to tokenise forced text.
        """
        mask = np.empty(self._mask_size, np.uint8)
        status = self._call(library.compute_mask, mask.ctypes.data, self._mask_size)
        return mask if status == 0 and self._failure is None else None

    def consume(self, token: int) -> bool:
        """Advance by ``token``; return False if it may not come next, after which the matcher is broken."""
        if token in self._vocabulary.end_tokens and self.is_stopped:
            # llguidance treats an end token at the end as an error.
            return self.error is None
        return bool(self._call(library.consume_token, token) == 0)

    def rollback(self, tokens: int) -> bool:
        """Undo the last ``tokens`` tokens; return whether that worked."""
        return bool(self._call(library.rollback, tokens) == 0)

    def _call(self, function: Callable[..., Any], *arguments: object) -> Any:
        # Concurrent calls would corrupt memory in the library, so they raise an error here.
        if not self._in_use.acquire(blocking=False):
            raise RuntimeError("Two threads use one matcher at the same time.")
        try:
            result = function(self._pointer, *arguments)
        finally:
            self._in_use.release()
        if (failure := self._vocabulary.take_failure()) is not None:
            self._failure = f"its text cannot be split into tokens: {type(failure).__name__}: {failure}"
        return result


def _free(pointer: int, _vocabulary: Vocabulary) -> None:
    library.free_matcher(pointer)
