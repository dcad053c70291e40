"""One answer's place in its grammar, as llguidance keeps it.

Hot path: every method runs once a token of a constrained answer.
"""

from __future__ import annotations

import json
import threading
import weakref
from collections.abc import Callable
from dataclasses import asdict, dataclass
from typing import Any

import numpy as np
import numpy.typing as npt

from modelyard.engine.guidance import library
from modelyard.engine.guidance.vocabulary import Vocabulary


@dataclass(frozen=True, slots=True)
class Limits:
    """What a grammar may cost, in llguidance's own steps. 50,000 of the lexer's take a millisecond, or 14,000 in masks.

    Args:
        initial_lexer_fuel: to compile its regular expressions.
        step_lexer_fuel: of the lexer's, in one mask.
        step_max_items: of the parser's, in one mask.
        max_grammar_size: symbols.
        max_lexer_states: of which each takes 1 to 2 kB, for as long as the answer goes on.
    """

    initial_lexer_fuel: int
    step_lexer_fuel: int
    step_max_items: int
    max_grammar_size: int
    max_lexer_states: int


class Matcher:
    """Follows one answer through its grammar.

    Never raises for a grammar, or for what it came to: it is broken then, and says why. One thread at a time may use
    it. It holds its vocabulary for as long as llguidance has it.

    Args:
        vocabulary: of the model.
        grammar: Lark, or a list of grammars in JSON.
        limits: llguidance's own without them.
    """

    def __init__(self, vocabulary: Vocabulary, grammar: str, limits: Limits | None = None) -> None:
        init = library.MatcherInit()
        library.set_defaults(init, vocabulary.tokenizer)
        # Nothing on stderr, and errors without the grammar in them.
        init.log_stderr_level = 0
        init.limits.verbose_errors = False
        for name, most in ({} if limits is None else asdict(limits)).items():
            setattr(init.limits, name, most)
        if "\0" in grammar:
            # It would be the end of it in C. In Lark it may stand in a comment, or in a regular expression.
            grammar = json.dumps({"grammars": [{"lark_grammar": grammar}]})
        self._vocabulary = vocabulary
        self._pointer: int = library.new_matcher(init, b"llguidance", grammar.encode())
        # The arguments of a finalizer outlive what it is of: the tokenizer is freed last, also by a garbage collection.
        weakref.finalize(self, _free, self._pointer, vocabulary).atexit = False
        self._mask_size: int = library.mask_size(self._pointer)
        self._failure: str | None = None
        self._in_use = threading.Lock()

    @property
    def error(self) -> str | None:
        """Why it is broken; None where it is not. It stays broken."""
        if self._failure is None:
            error: bytes | None = self._call(library.get_error)
            return error if error is None else error.decode("utf-8", "replace")
        return self._failure

    @property
    def is_stopped(self) -> bool:
        """Whether nothing can follow but a token that ends the answer; also where it is broken."""
        return bool(self._call(library.is_stopped))

    def compute_mask(self) -> npt.NDArray[np.uint8] | None:
        """Which tokens may come next, a bit for each, the first token in the lowest; None where it is broken.

        Takes none of Python's lock, but to split forced text into tokens.
        """
        mask = np.empty(self._mask_size, np.uint8)
        status = self._call(library.compute_mask, mask.ctypes.data, self._mask_size)
        return mask if status == 0 and self._failure is None else None

    def consume(self, token: int) -> bool:
        """Go on behind ``token``. False where it may not come next: the matcher is broken then."""
        if token in self._vocabulary.end_tokens and self.is_stopped:
            # llguidance would take the end of what is at its end for an error.
            return self.error is None
        return bool(self._call(library.consume_token, token) == 0)

    def rollback(self, tokens: int) -> bool:
        """Take the last ``tokens`` back."""
        return bool(self._call(library.rollback, tokens) == 0)

    def _call(self, function: Callable[..., Any], *arguments: object) -> Any:
        # In C, two threads at once would damage memory, so that it has to be an error that is told.
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
