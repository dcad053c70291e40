"""Tries grammars in processes of their own, where a harmful one affects nothing else; see ``trial_program``."""

from __future__ import annotations

import hashlib
import json
import re
import signal
import threading
from collections import OrderedDict
from collections.abc import Mapping
from dataclasses import asdict
from typing import Any, Final

from modelyard.engine.guidance.matcher import Limits
from modelyard.errors import GrammarUntried, InvalidRequest
from modelyard.system.bounded.pool import ProcessPool, ProcessUnavailable

COMPILE_S: Final = 2.0
"""Limit of the processor time to compile a grammar."""

COMPILE_BYTES: Final = 64 << 20
"""Limit of the memory to compile a grammar."""

_PROGRAM: Final = "modelyard.engine.guidance.trial_program"

# Grammars that passed are kept, because clients send the same schema many times.
_MAX_KNOWN_GRAMMARS: Final = 1024

# Of a pattern that cannot be read.
_MAX_SHOWN_CHARS: Final = 80


# llguidance keeps a row of all positions in the grammar where an answer may be, with a limit of 2,000 positions.
_TOO_MANY_WAYS: Final = re.compile("Current row has|Too many items")


def reason_of(error: str) -> str:
    """Return why llguidance refuses a grammar, without the locations in its own source."""
    if _TOO_MANY_WAYS.search(error):
        return (
            "an answer could go on in too many ways at once, as with more than 450 optional properties of one object. "
            "Make some of them required, or split it"
        )
    lines = error.strip().splitlines() or [""]
    first = lines[0].partition("): ")
    reason = first[2] or first[0]
    # An error of a pattern shows it, and has its reason in the last line.
    if reason.endswith(":") and lines[-1].startswith("error: "):
        reason = f"{reason} {lines[-1].removeprefix('error: ')}, in {lines[1].strip()[:_MAX_SHOWN_CHARS]}"
    return reason


class GrammarTrials:
    """Tries the grammars of one engine, each once. Thread-safe.

    The first grammar starts the first process, and idle processes end.

    Args:
        limits: limits of llguidance.
        limit_s: limit of the processor time to compile a grammar.
    """

    def __init__(self, limits: Limits, limit_s: float = COMPILE_S) -> None:
        arguments = (limit_s, COMPILE_BYTES, *(f"{name}={limit}" for name, limit in asdict(limits).items()))
        self._pool = ProcessPool(_PROGRAM, arguments, limit_s=limit_s, kept=0)
        self._limit_s = limit_s
        self._passed: OrderedDict[bytes, tuple[str, ...]] = OrderedDict()
        self._lock = threading.Lock()

    def check(self, grammar: str, param: str | None, salt: str = "") -> tuple[str, ...]:
        """Try a grammar; return the keywords and formats of its schemas that llguidance leaves out.

        Args:
            grammar: the grammar, as llguidance reads it.
            param: the field of the request that it comes from.
            salt: results are reused for requests of the same salt only, because the time of an answer would reveal
                whether another client has sent the same schema. See ``Submit.cache_salt``.

        Raises:
            InvalidRequest: llguidance refuses it, or it takes too long or too much memory.
            GrammarUntried: it could not be tried.
        """
        request = json.dumps({"grammar": grammar}, ensure_ascii=False).encode("utf-8", "surrogatepass")
        digest = hashlib.blake2b(request, digest_size=16, key=salt.encode()).digest()
        with self._lock:
            if digest in self._passed:
                self._passed.move_to_end(digest)
                return self._passed[digest]
        try:
            answer = self._pool.ask(request)
        except ProcessUnavailable as failure:
            raise GrammarUntried(str(failure)) from failure
        subject = param or "The grammar"
        match answer.get("fault"):
            case None:
                dropped = tuple(answer.get("dropped", ()))
                with self._lock:
                    self._passed[digest] = dropped
                    if len(self._passed) > _MAX_KNOWN_GRAMMARS:
                        self._passed.popitem(last=False)
                return dropped
            case "stopped":
                raise InvalidRequest(
                    f"{subject} cannot be enforced: to compile it {self._cost(answer)}. Simplify it.", param
                )
            case _:
                raise InvalidRequest(f"{subject} cannot be enforced: {reason_of(answer['why'] or '')}", param)

    def _cost(self, answer: Mapping[str, Any]) -> str:
        if answer["status"] == -signal.SIGPROF:
            return f"takes more than {self._limit_s:g} s"
        # llguidance recurses into each rule that a rule refers to.
        if answer["status"] == -signal.SIGSEGV:
            return "takes more than the stack: its rules refer to one another too deeply"
        # Rust writes this before it aborts.
        if "memory allocation of" in answer["log"]:
            return f"takes more than {COMPILE_BYTES >> 20} MB of memory"
        return str(answer["why"])

    def close(self) -> None:
        """End all processes. ``check`` must not be called afterwards."""
        self._pool.close()
