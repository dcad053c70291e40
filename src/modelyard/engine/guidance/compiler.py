"""Grammars become constraints on threads of their own: a large one takes seconds, which no stream is to wait for."""

from __future__ import annotations

import threading
from collections.abc import Callable, Sequence
from concurrent.futures import Future, ThreadPoolExecutor

from modelyard.engine.guidance.constraint import Constraint
from modelyard.engine.guidance.grammar_text import Grammar
from modelyard.engine.guidance.matcher import Limits, Matcher
from modelyard.engine.guidance.trial import GrammarTrials
from modelyard.engine.guidance.vocabulary import Vocabulary
from modelyard.errors import InvalidRequest
from modelyard.system.bounded.pool import MAX_PROCESSES

# A grammar of any request takes less than a second to compile, and 0.1 s a mask, of the processor's time: others wait
# for both. Schemas of 1,000 properties and of 1,000 nested objects are within the bounds.
LIMITS = Limits(
    initial_lexer_fuel=1_000_000,
    step_lexer_fuel=200_000,
    step_max_items=5_000,
    max_grammar_size=20_000,
    max_lexer_states=40_000,
)


class GrammarCompiler:
    """Makes the constraints of one engine.

    Each grammar is tried in a process of its own before. One that takes long holds up no other.

    Args:
        make_vocabulary: of the engine's model; called once, with the first grammar, on a thread of the compiler's.
    """

    def __init__(self, make_vocabulary: Callable[[], Vocabulary]) -> None:
        self._make_vocabulary = make_vocabulary
        self._vocabulary: Vocabulary | None = None
        self._reading = threading.Lock()
        self._trials = GrammarTrials(LIMITS)
        self._adopted: list[Vocabulary] = []
        self._compiling: ThreadPoolExecutor | None = None
        self._masks: ThreadPoolExecutor | None = None

    @property
    def masks(self) -> ThreadPoolExecutor:
        """The thread that computes masks."""
        if self._masks is None:
            self._masks = ThreadPoolExecutor(1, "masks")
        return self._masks

    def compile(
        self,
        make: Callable[[], str | None],
        on_done: Callable[[Future[Constraint | None]], None],
        *,
        answer: Sequence[int] = (),
        salt: str = "",
    ) -> Future[Constraint | None]:
        """Make the constraint of the grammar that ``make`` gives; ``on_done`` is called with it on any thread.

        It stands behind the tokens of ``answer``. It is None where the grammar is, and fails with InvalidRequest where
        that cannot be enforced. To cancel it spares the work, if that has not begun. salt is that of the request.
        """
        if self._compiling is None:
            self._compiling = ThreadPoolExecutor(MAX_PROCESSES, "grammars")
        constraint = self._compiling.submit(self._compile, make, answer, salt)
        constraint.add_done_callback(on_done)
        return constraint

    def adopt(self, constraint: Constraint, tokenize: Callable[[bytes], list[int]]) -> None:
        """Go on with a constraint of another engine, whose model has the same tokens."""
        constraint.vocabulary.attach(tokenize)
        self._adopted.append(constraint.vocabulary)

    def close(self) -> None:
        """End the threads, before the model is freed. Constraints may be adopted."""
        # Nobody waits for what is tried any more.
        self._trials.close()
        for executor in (self._compiling, self._masks):
            if executor is not None:
                executor.shutdown(cancel_futures=executor is self._compiling)
        self._compiling = self._masks = None
        for vocabulary in (self._vocabulary, *self._adopted):
            if vocabulary is not None:
                vocabulary.detach()
        self._adopted.clear()

    def _compile(self, make: Callable[[], str | None], answer: Sequence[int], salt: str) -> Constraint | None:
        grammar = make()
        if grammar is None:
            return None
        self._trials.check(grammar, grammar.param if isinstance(grammar, Grammar) else None, salt)
        with self._reading:
            if self._vocabulary is None:
                self._vocabulary = self._make_vocabulary()
        matcher = Matcher(self._vocabulary, grammar, LIMITS)
        # The first mask belongs to it: it may be the one that is too complex.
        if matcher.compute_mask() is None:
            raise InvalidRequest(f"The grammar cannot be enforced with this model: {(matcher.error or '').strip()}")
        constraint = Constraint(self._vocabulary, matcher)
        for token in answer:
            constraint.accept(token)
        return constraint
