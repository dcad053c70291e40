"""Compiles a grammar once, in a process of its own, to find out whether its cost is within the limits.

llguidance limits its own steps, but a grammar of a few bytes can still take minutes or all memory (``multipleOf`` in a
schema), or end the process. A grammar that passes here does not do that in the engine's process.

Source of the limits: see ``compiler``.
"""

from __future__ import annotations

import json
import re
import resource
import signal
import sys
import time
from collections.abc import Sequence
from typing import Any, Final

from llguidance import LLMatcher, LLParserLimits, LLTokenizer

from modelyard.system.bounded.inside import address_space, lift_limits, limit, serve

# Length of each answer that is tried. Within it a grammar shows whether it is slow, or becomes too complex because an
# answer can continue in very many ways.
_TRIED_TOKENS: Final = 48

# Limit of the processor time for all these answers, within that of the compilation.
_TRIED_S: Final = 0.3

# Position of each next token of an answer among the allowed ones: the first, the last, or the middle one.
_WALKS: Final = (0.0, 1.0, 0.5)

# Blanks are avoided, because an answer of blanks alone makes no progress.
_BLANKS: Final = frozenset(b" \t\n\r")

# A grammar may take this fraction of the stack of the engine's threads. The second value is the stack of glibc's
# threads on x86-64 if the stack of the process has no limit.
_STACK_PART: Final = 0.5
_UNLIMITED_STACK_BYTES: Final = 2 << 20

# Limit of the processor time of a mask; most take milliseconds.
_MAX_MASK_S: Final = 0.05

# The vocabulary here has 256 bytes and one special token, which stands for all tokens of the model that a grammar
# refers to by id or by name.
_IDS: Final = re.compile(r"<\[[\^\d,\s-]+\]>")
_UNKNOWN: Final = re.compile(r'unknown special token: "(<[^"]+>)"')
_ANY_TOKEN: Final = "<[256]>"
_LAST_ID: Final = 256
_MAX_NAMES: Final = 64

# llguidance's warning about the parts of a schema that it ignores.
_IGNORED_KEYS: Final = re.compile(r"Unimplemented keys: (\[.*\])")
_IGNORED_FORMAT: Final = re.compile(r"Unknown format: (.*)")
_MAX_DROPPED: Final = 32


def _with_known_ids(grammar: str) -> str:
    """Return ``grammar`` with ids beyond the vocabulary replaced by the last one."""

    def clamp(ids: re.Match[str]) -> str:
        # The ends of a range stay in order.
        return re.sub(r"\d+", lambda number: str(min(int(number[0][:7]), _LAST_ID)), ids[0])

    return _IDS.sub(clamp, grammar)


def _fault_of_answer(matcher: LLMatcher, walk: float, ends: float) -> str:
    """Return why an answer cannot follow a compiled grammar; "" if it can, as far as it was tried.

    Args:
        matcher: a matcher at the beginning of the answer.
        walk: position of each next token among the allowed ones, from 0 for the first to 1 for the last.
        ends: when to stop, in processor time.
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


def _dropped(warnings: Sequence[str]) -> list[str]:
    """Return the keywords and formats that llguidance ignores, of its warnings, in their order."""
    dropped: dict[str, None] = {}
    for warning in warnings:
        if (keys := _IGNORED_KEYS.search(warning)) is not None:
            dropped |= dict.fromkeys(json.loads(keys[1]))
        elif (unknown := _IGNORED_FORMAT.search(warning)) is not None:
            dropped[f"format {unknown[1]}"] = None
    return list(dropped)[:_MAX_DROPPED]


def _limit_stack() -> None:
    """Limit the stack of this process to a part of that of the threads on which engines compile grammars."""
    soft, hard = resource.getrlimit(resource.RLIMIT_STACK)
    thread_bytes = _UNLIMITED_STACK_BYTES if soft == resource.RLIM_INFINITY else soft
    resource.setrlimit(resource.RLIMIT_STACK, (int(thread_bytes * _STACK_PART), hard))


class Program:
    """Answers requests that have a ``grammar``.

    An answer has what the grammar leaves out, in ``dropped``, or a ``fault`` and the reason in ``why``.

    Args:
        limit_s: limit of the processor time to compile it, at which a signal ends the process: nothing else interrupts
            llguidance.
        limit_bytes: limit of the memory that it takes.
        limits: limits of llguidance.
    """

    def __init__(self, limit_s: float, limit_bytes: int, limits: LLParserLimits) -> None:
        self._limit_s, self._limit_bytes, self._limits = limit_s, limit_bytes, limits
        # A token a byte, so that the result depends on the grammar alone.
        self._tokenizer = LLTokenizer("byte")
        self._idle_bytes = address_space()

    def answer(self, request: dict[str, Any], _input_bytes: int) -> dict[str, Any]:
        """Return the answer to a request."""
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
        return {"dropped": dropped} if (dropped := _dropped(matcher.get_grammar_warnings())) else {}

    def _matcher(self, grammar: str) -> LLMatcher:
        """Return a matcher in which special tokens of the model that are unknown here are replaced by a known one."""
        for _ in range(_MAX_NAMES):
            matcher = LLMatcher(self._tokenizer, grammar, log_level=0, limits=self._limits)
            unknown = _UNKNOWN.search(matcher.get_error() or "")
            if unknown is None:
                break
            grammar = grammar.replace(unknown[1], _ANY_TOKEN)
        return matcher


def main() -> None:
    """Serve until the socket closes. Command line: the arguments of ``Program``, the limits as ``name=value``."""
    _limit_stack()
    limit_s, limit_bytes, *limits = sys.argv[1:]
    named: dict[str, Any] = {name: int(value) for name, _, value in (each.partition("=") for each in limits)}
    serve(Program(float(limit_s), int(limit_bytes), LLParserLimits(verbose_errors=False, **named)).answer)
