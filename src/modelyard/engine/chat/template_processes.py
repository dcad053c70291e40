"""Where chat templates are rendered: in processes of ``template_program``."""

from __future__ import annotations

import json
import re
import threading
from typing import Any, Final, Protocol

from modelyard.system.bounded.pool import IDLE_S, WAIT_S, ProcessPool, enter

# Templates that a limit has stopped before do not take all processes.
_MAX_OF_THE_STOPPED: Final = 2

RENDER_S: Final = 2.0
"""Time of one render, compilation included."""

RENDER_BYTES: Final = 64 << 20
"""Memory of one render, beyond that of an idle process."""

MAX_TEXT_LENGTH: Final = 16 << 20
"""Characters that one render may write."""

_PROGRAM: Final = "modelyard.engine.chat.template_program"
_TEMPLATE_LINE: Final = re.compile(r'File "<template>", line (\d+)')


class RendersTemplates(Protocol):
    """Renders chat templates, within bounds of time and memory. It may be asked on any thread."""

    def ask(self, digest: str, source: str, names: bytes | None = None) -> dict[str, Any]:
        """See ``TemplateProcesses.ask``."""


class TemplateProcesses:
    """Where the chat templates of one owner are rendered. Every method may be called on any thread.

    One process is kept for the next render, others end when they were idle for a while; see ``bounded.pool``.

    Args:
        limit_s: time of a render.
        idle_s: after how long an idle process ends that is not the only one.
        wait_s: how long a render waits for its turn, of a template that was stopped before.
    """

    def __init__(self, limit_s: float = RENDER_S, *, idle_s: float = IDLE_S, wait_s: float = WAIT_S) -> None:
        self._wait_s = wait_s
        self._pool = ProcessPool(_PROGRAM, (limit_s, RENDER_BYTES, MAX_TEXT_LENGTH), limit_s=limit_s, idle_s=idle_s)
        self._stopped: set[str] = set()
        self._places_of_the_stopped = threading.BoundedSemaphore(_MAX_OF_THE_STOPPED)

    @property
    def pids(self) -> list[int]:
        """Of all processes, the one that was used last at the end."""
        return self._pool.pids

    def ask(self, digest: str, source: str, names: bytes | None = None) -> dict[str, Any]:
        """The answer of ``template_program.Program``; where its process died, a ``fault`` with the line of code as
        ``code_line``.

        Args:
            digest: of ``source``.
            source: the template.
            names: what it is rendered with, an object as JSON; None: it is looked at.

        Raises:
            ProcessUnavailable: no process can be started, or none became free.
        """
        head = f'{{"digest": {json.dumps(digest)}'.encode()
        tail = (b"" if names is None else b', "names": ' + names) + b"}"
        full = head + b', "source": ' + json.dumps(source, ensure_ascii=False).encode("utf-8", "surrogatepass") + tail
        # A process that has compiled it already needs no source.
        requests = (full,) if names is None else (head + tail, full)
        if digest not in self._stopped:
            return self._ask(digest, *requests)
        enter(self._places_of_the_stopped, self._wait_s)
        try:
            return self._ask(digest, *requests)
        finally:
            self._places_of_the_stopped.release()

    def close(self) -> None:
        """End all processes, and what they render. Nothing is to be rendered afterwards."""
        self._pool.close()

    def _ask(self, digest: str, *requests: bytes) -> dict[str, Any]:
        answer = self._pool.ask(*requests)
        if answer.get("fault") == "stopped":
            self._stopped.add(digest)
            if (found := _TEMPLATE_LINE.search(answer.get("log", ""))) is not None:
                answer["code_line"] = int(found[1])
        return answer
