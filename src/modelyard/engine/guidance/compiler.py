"""Grammars become constraints on a thread of their own: a large one takes seconds, which no stream is to wait for."""

from __future__ import annotations

from collections.abc import Callable
from concurrent.futures import Future, ThreadPoolExecutor

from llguidance import LLMatcher, LLParserLimits

from modelyard.engine.guidance.constraint import Constraint
from modelyard.engine.guidance.vocabulary import Vocabulary
from modelyard.errors import InvalidRequest

# The engine's threads wait for masks: what would take longer than some milliseconds is refused.
_LIMITS = LLParserLimits(
    initial_lexer_fuel=1_000_000, step_lexer_fuel=200_000, step_max_items=50_000, verbose_errors=False
)


class GrammarCompiler:
    """Makes the constraints of one engine.

    Args:
        make_vocabulary: of the engine's model; called once, with the first grammar, on the compiler's thread.
    """

    def __init__(self, make_vocabulary: Callable[[], Vocabulary]) -> None:
        self._make_vocabulary = make_vocabulary
        self._vocabulary: Vocabulary | None = None
        self._compiling: ThreadPoolExecutor | None = None
        self._masks: ThreadPoolExecutor | None = None

    @property
    def masks(self) -> ThreadPoolExecutor:
        """The thread that computes masks."""
        if self._masks is None:
            self._masks = ThreadPoolExecutor(1, "masks")
        return self._masks

    def compile(self, make: Callable[[], str | None], on_done: Callable[[Future[Constraint | None]], None]) -> None:
        """Make the constraint of the grammar that ``make`` gives; ``on_done`` is called with it on any thread.

        It is None where the grammar is, and fails with InvalidRequest where that cannot be enforced.
        """
        if self._compiling is None:
            self._compiling = ThreadPoolExecutor(1, "grammars")
        self._compiling.submit(self._compile, make).add_done_callback(on_done)

    def close(self) -> None:
        """End the threads, before the model is freed. Constraints stay usable."""
        for executor in (self._compiling, self._masks):
            if executor is not None:
                executor.shutdown(cancel_futures=executor is self._compiling)
        self._compiling = self._masks = None
        if self._vocabulary is not None:
            self._vocabulary.detach()

    def _compile(self, make: Callable[[], str | None]) -> Constraint | None:
        grammar = make()
        if grammar is None:
            return None
        if self._vocabulary is None:
            self._vocabulary = self._make_vocabulary()
        matcher = LLMatcher(self._vocabulary.tokenizer, grammar, log_level=0, limits=_LIMITS)
        if matcher.is_error():
            raise InvalidRequest(f"The grammar cannot be enforced with this model: {matcher.get_error().strip()}")
        return Constraint(self._vocabulary, matcher)
