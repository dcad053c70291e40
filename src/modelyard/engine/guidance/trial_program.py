"""Compiles a grammar once to see what that costs, in a process of its own.

llguidance counts its own steps, and yet a grammar of a few bytes may take it minutes or all memory (``multipleOf`` in a
schema), or end its process. What passes here takes the engine's process no more.

Source of the limits: see ``compiler``.
"""

from __future__ import annotations

import re
import signal
import sys
import time
from typing import Any, Final

from llguidance import LLMatcher, LLParserLimits, LLTokenizer

from modelyard.engine.bounded.inside import address_space, lift_limits, limit, serve

# Tokens after which a grammar that is slow at its beginning has shown it.
_TRIED_TOKENS: Final = 8

# Of the processor, for what may come next. An answer's other tokens take milliseconds.
_LONGEST_MASK_S: Final = 0.05

# Tokens of the model by their ids, of which there are few here, and one that stands for any by its name.
_IDS: Final = re.compile(r"<\[[\^\d,\s-]+\]>")
_UNKNOWN: Final = re.compile(r'unknown special token: "(<[^"]+>)"')
_ANY_TOKEN: Final = "<[256]>"
_LAST_ID: Final = 256
_MOST_NAMES: Final = 64


def _with_known_ids(grammar: str) -> str:
    def known(ids: re.Match[str]) -> str:
        # The order of a range stays.
        return re.sub(r"\d+", lambda number: str(min(int(number[0][:7]), _LAST_ID)), ids[0])

    return _IDS.sub(known, grammar)


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
        for _ in range(_TRIED_TOKENS):
            started = time.process_time()
            mask = matcher.compute_bitmask()
            if matcher.is_error():
                return {"fault": "refused", "why": matcher.get_error()}
            if time.process_time() - started > _LONGEST_MASK_S:
                return {"fault": "refused", "why": "each token of an answer would take too long"}
            token = next((token for token in range(256) if mask[token >> 3] >> (token & 7) & 1), None)
            if token is None or not matcher.consume_token(token) or matcher.is_stopped():
                break
        return {}

    def _matcher(self, grammar: str) -> LLMatcher:
        """Whether a token is one of the model's is not known here."""
        for _ in range(_MOST_NAMES):
            matcher = LLMatcher(self._tokenizer, grammar, log_level=0, limits=self._limits)
            unknown = _UNKNOWN.search(matcher.get_error() or "")
            if unknown is None:
                break
            grammar = grammar.replace(unknown[1], _ANY_TOKEN)
        return matcher


def main() -> None:
    """Serve until the socket closes. Arguments: those of ``Program``, the limits as ``name=value``."""
    limit_s, limit_bytes, *limits = sys.argv[1:]
    named: dict[str, Any] = {name: int(value) for name, _, value in (each.partition("=") for each in limits)}
    serve(Program(float(limit_s), int(limit_bytes), LLParserLimits(verbose_errors=False, **named)).answer)
