"""Whether a grammar can be compiled here, found out where it takes nobody down with it; see ``trial_program``."""

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
"""Time of the processor to compile a grammar."""

COMPILE_BYTES: Final = 64 << 20
"""Memory to compile it."""

_PROGRAM: Final = "modelyard.engine.guidance.trial_program"

# Clients send the same schema again and again.
_KNOWN_GRAMMARS: Final = 1024


# A row is of all the places in the grammar where an answer may be; llguidance has room for 2,000 of them.
_TOO_MANY_WAYS: Final = re.compile("Current row has|Too many items")


def reason_of(error: str) -> str:
    """Why llguidance refuses a grammar, without the lines of its own source that it says with it."""
    if _TOO_MANY_WAYS.search(error):
        return (
            "an answer could go on in too many ways at once, as with more than 450 optional properties of one object. "
            "Make some of them required, or split it"
        )
    first = (error.strip().splitlines() or [""])[0].partition("): ")
    return first[2] or first[0]


class GrammarTrials:
    """Tries the grammars of one engine, each once. Every method may be called on any thread.

    No process is started before the first grammar, and none is kept that was idle for a while.

    Args:
        limits: of llguidance.
        limit_s: time of the processor to compile one.
    """

    def __init__(self, limits: Limits, limit_s: float = COMPILE_S) -> None:
        arguments = (limit_s, COMPILE_BYTES, *(f"{name}={most}" for name, most in asdict(limits).items()))
        self._pool = ProcessPool(_PROGRAM, arguments, limit_s=limit_s, kept=0)
        self._limit_s = limit_s
        self._passed: OrderedDict[bytes, None] = OrderedDict()
        self._lock = threading.Lock()

    def check(self, grammar: str, param: str | None, salt: str = "") -> None:
        """Try a grammar.

        Args:
            grammar: for llguidance.
            param: the field of the request that it comes from.
            salt: only requests of the same one are spared what was tried before: how fast an answer comes tells whether
                its schema was there. See ``Submit.cache_salt``.

        Raises:
            InvalidRequest: llguidance refuses it, or it takes too long or too much memory.
            GrammarUntried: it could not be tried.
        """
        written = json.dumps({"grammar": grammar}, ensure_ascii=False).encode("utf-8", "surrogatepass")
        digest = hashlib.blake2b(written, digest_size=16, key=salt.encode()).digest()
        with self._lock:
            if digest in self._passed:
                self._passed.move_to_end(digest)
                return
        try:
            answer = self._pool.ask(written)
        except ProcessUnavailable as failure:
            raise GrammarUntried(str(failure)) from failure
        subject = param or "The grammar"
        match answer.get("fault"):
            case None:
                with self._lock:
                    self._passed[digest] = None
                    if len(self._passed) > _KNOWN_GRAMMARS:
                        self._passed.popitem(last=False)
            case "stopped":
                raise InvalidRequest(
                    f"{subject} cannot be enforced: to compile it {self._cost(answer)}. Simplify it.", param
                )
            case _:
                raise InvalidRequest(f"{subject} cannot be enforced: {reason_of(answer['why'] or '')}", param)

    def _cost(self, answer: Mapping[str, Any]) -> str:
        if answer["status"] == -signal.SIGPROF:
            return f"takes more than {self._limit_s:g} s"
        # llguidance calls itself for each rule that another one consists of.
        if answer["status"] == -signal.SIGSEGV:
            return "takes more than the stack: its rules refer to one another too deeply"
        # What Rust writes before it aborts.
        if "memory allocation of" in answer["log"]:
            return f"takes more than {COMPILE_BYTES >> 20} MB of memory"
        return str(answer["why"])

    def close(self) -> None:
        """End all processes. Nothing is to be tried afterwards."""
        self._pool.close()
