"""Compiles a grammar once to see what that costs, in a process of its own.

llguidance counts its own steps, and yet a grammar of a few bytes may take it minutes or all memory (``multipleOf`` in a
schema), or end its process. What passes here takes the engine's process no more.

Source of the limits: see ``compiler``.
"""

from __future__ import annotations

import re
import resource
import signal
import sys
import time
from typing import Any, Final

from llguidance import LLMatcher, LLParserLimits, LLTokenizer

from modelyard.system.bounded.inside import address_space, lift_limits, limit, serve

# Tokens of each of the answers that are tried, by which a grammar that is slow, or that becomes too complex where an
# answer could go on in very many ways, has shown it.
_TRIED_TOKENS: Final = 48

# Time of the processor for all of these answers, within that of the compilation.
_TRIED_S: Final = 0.3

# Which of the tokens that may come next an answer goes on with: the first, the last, or that in the middle.
_WALKS: Final = (0.0, 1.0, 0.5)

# An answer of blanks alone gets nowhere.
_BLANKS: Final = frozenset(b" \t\n\r")

# The largest part of the stack of the engine's threads that a grammar may take here. Those of C have so much where the
# stack of a program has no limit (glibc on x86-64).
_UNLIMITED_STACK_BYTES: Final = 2 << 20
_STACK_PART: Final = 0.5

# Of the processor, for what may come next. An answer's other tokens take milliseconds.
_MAX_MASK_S: Final = 0.05

# Tokens of the model by their ids, of which there are few here, and one that stands for any by its name.
_IDS: Final = re.compile(r"<\[[\^\d,\s-]+\]>")
_UNKNOWN: Final = re.compile(r'unknown special token: "(<[^"]+>)"')
_ANY_TOKEN: Final = "<[256]>"
_LAST_ID: Final = 256
_MAX_NAMES: Final = 64


def _with_known_ids(grammar: str) -> str:
    def known(ids: re.Match[str]) -> str:
        # The order of a range stays.
        return re.sub(r"\d+", lambda number: str(min(int(number[0][:7]), _LAST_ID)), ids[0])

    return _IDS.sub(known, grammar)


def _fault_of_answer(matcher: LLMatcher, walk: float, ends: float) -> str:
    """Why an answer cannot follow a grammar that was compiled; "" where it can, as far as it was tried.

    Args:
        matcher: at the beginning of the answer.
        walk: which of the tokens that may come next it goes on with, from 0 for the first to 1 for the last.
        ends: when to stop trying, on the clock of the processor's time.
    """
    for number in range(_TRIED_TOKENS):
        started = time.process_time()
        mask = matcher.compute_bitmask()
        if matcher.is_error():
            return str(matcher.get_error())
        if time.process_time() - started > _MAX_MASK_S:
            return "each token of an answer would take too long"
        allowed = [token for token in range(256) if mask[token >> 3] >> (token & 7) & 1]
        allowed = [token for token in allowed if token not in _BLANKS] or allowed
        if not allowed or (number and time.process_time() > ends):
            break
        if not matcher.consume_token(allowed[round(walk * (len(allowed) - 1))]) or matcher.is_stopped():
            break
    return str(matcher.get_error()) if matcher.is_error() else ""


def _limit_stack() -> None:
    """Leave this process a part of the stack that the threads have on which engines compile grammars."""
    soft, hard = resource.getrlimit(resource.RLIMIT_STACK)
    of_threads = _UNLIMITED_STACK_BYTES if soft == resource.RLIM_INFINITY else soft
    resource.setrlimit(resource.RLIMIT_STACK, (int(of_threads * _STACK_PART), hard))


class Program:
    """Answers requests with a ``grammar``: nothing, or a ``fault`` with the reason in ``why``.

    Args:
        limit_s: of the processor, to compile it. A signal ends the process then: nothing else interrupts llguidance.
        limit_bytes: memory that it may take.
        limits: as llguidance names them.
    """

    def __init__(self, limit_s: float, limit_bytes: int, limits: LLParserLimits) -> None:
        self._limit_s, self._limit_bytes, self._limits = limit_s, limit_bytes, limits
        # Bytes for tokens: what is tried depends on the grammar alone.
        self._tokenizer = LLTokenizer("byte")
        self._idle_bytes = address_space()

    def answer(self, request: dict[str, Any], _input_bytes: int) -> dict[str, Any]:
        """The answer to a request."""
        limit(self._idle_bytes and self._idle_bytes + self._limit_bytes, self._limit_s)
        signal.setitimer(signal.ITIMER_PROF, self._limit_s)
        try:
            return self._try(request["grammar"])
        finally:
            signal.setitimer(signal.ITIMER_PROF, 0)
            lift_limits()

    def _try(self, grammar: str) -> dict[str, Any]:
        matcher = self._matcher(_with_known_ids(grammar))
        ends = time.process_time() + _TRIED_S
        for walk in _WALKS:
            if why := _fault_of_answer(matcher.deep_copy(), walk, ends):
                return {"fault": "refused", "why": why}
        return {}

    def _matcher(self, grammar: str) -> LLMatcher:
        """Whether a token is one of the model's is not known here."""
        for _ in range(_MAX_NAMES):
            matcher = LLMatcher(self._tokenizer, grammar, log_level=0, limits=self._limits)
            unknown = _UNKNOWN.search(matcher.get_error() or "")
            if unknown is None:
                break
            grammar = grammar.replace(unknown[1], _ANY_TOKEN)
        return matcher


def main() -> None:
    """Serve until the socket closes. Arguments: those of ``Program``, the limits as ``name=value``."""
    _limit_stack()
    limit_s, limit_bytes, *limits = sys.argv[1:]
    named: dict[str, Any] = {name: int(value) for name, _, value in (each.partition("=") for each in limits)}
    serve(Program(float(limit_s), int(limit_bytes), LLParserLimits(verbose_errors=False, **named)).answer)
