"""Renders chat templates in processes of ``template_program``."""

from __future__ import annotations

import hashlib
import json
import re
import threading
from collections import OrderedDict
from typing import Any, Final, Protocol

from modelyard.system.bounded.pool import IDLE_S, WAIT_S, ProcessPool, enter

# Answers to lists of names that are kept: one or two a template, of some 20 short prompts each.
_MAX_KEPT_TRIALS: Final = 64

# Concurrent renders of templates that a limit has stopped before, so that these do not occupy all processes.
_MAX_STOPPED_RENDERS: Final = 2

RENDER_S: Final = 2.0
"""Limit of the processor time of one render, compilation included."""

RENDER_BYTES: Final = 64 << 20
"""Limit of the memory of one render, beyond that of an idle process."""

MAX_TEXT_LENGTH: Final = 16 << 20
"""Limit of the text that one render writes, in characters."""

_PROGRAM: Final = "modelyard.engine.chat.template_program"
_TEMPLATE_LINE: Final = re.compile(r'File "<template>", line (\d+)')


class RendersTemplates(Protocol):
    """Renders chat templates within limits of time and memory. Thread-safe."""

    def ask(self, digest: str, source: str, names: bytes | None = None) -> dict[str, Any]:
        """Render a template; see ``TemplateProcesses.ask``."""


class TemplateProcesses:
    """The processes that render the chat templates of one owner. Thread-safe.

    One process is kept for the next render, and other idle processes end; see ``bounded.pool``.

    Args:
        limit_s: limit of the processor time of a render.
        idle_s: idle time after which a process ends that is not the last one.
        wait_s: limit of the wait for a process, for templates that were stopped before.
    """

    def __init__(self, limit_s: float = RENDER_S, *, idle_s: float = IDLE_S, wait_s: float = WAIT_S) -> None:
        self._wait_s = wait_s
        self._pool = ProcessPool(_PROGRAM, (limit_s, RENDER_BYTES, MAX_TEXT_LENGTH), limit_s=limit_s, idle_s=idle_s)
        self._stopped: set[str] = set()
        self._stopped_renders = threading.BoundedSemaphore(_MAX_STOPPED_RENDERS)
        self._trials: OrderedDict[tuple[str, bytes], dict[str, Any]] = OrderedDict()

    @property
    def pids(self) -> list[int]:
        """Ids of all processes, the most recently used one last."""
        return self._pool.pids

    def ask(self, digest: str, source: str, names: bytes | None = None) -> dict[str, Any]:
        """Return the answer of ``template_program.Program``.

        If the process died, the answer is a ``fault``, with the line of the compiled code as ``code_line``.

        Args:
            digest: digest of ``source``.
            source: the template.
            names: the variables to render it with, a JSON object; a JSON list of such objects, to try each of them;
                None: the template is only analysed. Answers to lists are kept, since each load of a model asks for the
                same ones.

        Raises:
            ProcessUnavailable: no process can be started, or none became free.
        """
        if names is None or not names.startswith(b"["):
            return self._answer(digest, source, names)
        key = (digest, hashlib.blake2b(names, digest_size=16).digest())
        answer = self._trials.get(key)
        if answer is None:
            answer = self._answer(digest, source, names)
            if "texts" in answer:
                self._trials[key] = answer
            if len(self._trials) > _MAX_KEPT_TRIALS:
                self._trials.popitem(last=False)
        return answer

    def _answer(self, digest: str, source: str, names: bytes | None) -> dict[str, Any]:
        head = f'{{"digest": {json.dumps(digest)}'.encode()
        tail = (b"" if names is None else b', "names": ' + names) + b"}"
        full = head + b', "source": ' + json.dumps(source, ensure_ascii=False).encode("utf-8", "surrogatepass") + tail
        # A process that has compiled the template already does not need the source.
        requests = (full,) if names is None else (head + tail, full)
        if digest not in self._stopped:
            return self._ask(digest, *requests)
        enter(self._stopped_renders, self._wait_s)
        try:
            return self._ask(digest, *requests)
        finally:
            self._stopped_renders.release()

    def close(self) -> None:
        """End all processes and their renders. ``ask`` must not be called afterwards."""
        self._pool.close()

    def _ask(self, digest: str, *requests: bytes) -> dict[str, Any]:
        answer = self._pool.ask(*requests)
        if answer.get("fault") == "stopped":
            self._stopped.add(digest)
            if (found := _TEMPLATE_LINE.search(answer.get("log", ""))) is not None:
                answer["code_line"] = int(found[1])
        return answer
