"""Compiles grammars on threads of their own, because a large one takes seconds and must not delay streams."""

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

# With these limits a grammar takes less than 1 s of processor time to compile and 0.1 s a mask, for both of which other
# requests wait. Schemas of 1,000 properties and of 1,000 nested objects are within them.
LIMITS = Limits(
    initial_lexer_fuel=1_000_000,
    step_lexer_fuel=200_000,
    step_max_items=5_000,
    max_grammar_size=20_000,
    max_lexer_states=40_000,
)


class GrammarCompiler:
    """Makes the constraints of one engine.

    Each grammar is first tried in a process of its own. A slow one does not delay others.

    Args:
        make_vocabulary: returns the vocabulary of the engine's model; called once, for the first grammar, on a thread
            of the compiler.
    """

    def __init__(self, make_vocabulary: Callable[[], Vocabulary]) -> None:
        self._make_vocabulary = make_vocabulary
        self._vocabulary: Vocabulary | None = None
        self._vocabulary_lock = threading.Lock()
        self._trials = GrammarTrials(LIMITS)
        self._adopted: list[Vocabulary] = []
        self._compile_threads: ThreadPoolExecutor | None = None
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
        """Compile the grammar that ``make`` returns, on another thread.

        The result is None if ``make`` returns None, and InvalidRequest if the grammar cannot be enforced. A future that
        is cancelled before its work starts costs nothing.

        Args:
            make: makes the grammar; called on a thread of the compiler.
            on_done: called with the future on any thread.
            answer: tokens that the answer has already; the constraint continues behind them.
            salt: cache salt of the request.
        """
        if self._compile_threads is None:
            self._compile_threads = ThreadPoolExecutor(MAX_PROCESSES, "grammars")
        constraint = self._compile_threads.submit(self._compile, make, answer, salt)
        constraint.add_done_callback(on_done)
        return constraint

    def adopt(self, constraint: Constraint, tokenize: Callable[[bytes], list[int]]) -> None:
        """Take over a constraint from another engine, whose model has the same tokens."""
        constraint.vocabulary.attach(tokenize)
        self._adopted.append(constraint.vocabulary)

    def close(self) -> None:
        """End the threads; called before the model is freed. Other engines may adopt the constraints afterwards."""
        # Trials first: their results are no longer needed, and threads wait for them.
        self._trials.close()
        for executor in (self._compile_threads, self._masks):
            if executor is not None:
                executor.shutdown(cancel_futures=executor is self._compile_threads)
        self._compile_threads = self._masks = None
        for vocabulary in (self._vocabulary, *self._adopted):
            if vocabulary is not None:
                vocabulary.detach()
        self._adopted.clear()

    def _compile(self, make: Callable[[], str | None], answer: Sequence[int], salt: str) -> Constraint | None:
        grammar = make()
        if grammar is None:
            return None
        dropped = self._trials.check(grammar, grammar.param if isinstance(grammar, Grammar) else None, salt)
        with self._vocabulary_lock:
            if self._vocabulary is None:
                self._vocabulary = self._make_vocabulary()
        matcher = Matcher(self._vocabulary, grammar, LIMITS)
        # Compiling includes the first mask, which may exceed the limits, too.
        if matcher.compute_mask() is None:
            raise InvalidRequest(f"The grammar cannot be enforced with this model: {(matcher.error or '').strip()}")
        constraint = _constraint(self._vocabulary, matcher, grammar, dropped)
        for token in answer:
            constraint.accept(token)
        return constraint


def _constraint(vocabulary: Vocabulary, matcher: Matcher, grammar: str, left_out: tuple[str, ...]) -> Constraint:
    """Return the constraint of ``grammar``, of whose schemas llguidance leaves out ``left_out``."""
    if not isinstance(grammar, Grammar):
        return Constraint(vocabulary, matcher, dropped=left_out)
    dropped = tuple(f"{grammar.param}.{part}" for part in (*grammar.dropped, *left_out))
    return Constraint(vocabulary, matcher, closes=grammar.closes, dropped=dropped)
