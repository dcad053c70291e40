"""Rendering of chat templates for engines in processes, by the server's template processes.

A template process for each engine's process would cost 20 MB, and 0.2 s of every load.
"""

from __future__ import annotations

import threading
from collections.abc import Callable
from concurrent.futures import Future, ThreadPoolExecutor
from contextlib import suppress
from typing import Any, Final

from modelyard.engine.chat.template_processes import RendersTemplates
from modelyard.engine.hosts.channel import Channel, ChannelClosed
from modelyard.engine.hosts.protocol import AskTemplate, TemplateAnswer
from modelyard.system.bounded.pool import MAX_PROCESSES, ProcessUnavailable

# Longer than the server waits for a process and for the render.
_MAX_WAIT_S: Final = 60.0


class RemoteTemplates:
    """The engine's side, which asks the server at the other end of a channel. ``ask`` may be called on any thread."""

    def __init__(self, channel: Channel) -> None:
        self._channel = channel
        self._lock = threading.Lock()
        self._pending: dict[int, Future[dict[str, Any]]] = {}
        self._numbers = 0

    def ask(self, digest: str, source: str, names: bytes | None = None) -> dict[str, Any]:
        """Return the answer of the server's ``TemplateProcesses.ask``.

        Raises:
            ProcessUnavailable: as ``TemplateProcesses.ask``, or the server does not answer.
        """
        answer: Future[dict[str, Any]] = Future()
        with self._lock:
            self._numbers += 1
            number = self._numbers
            self._pending[number] = answer
        try:
            self._channel.send(AskTemplate(number, digest, source, names))
            return answer.result(_MAX_WAIT_S)
        except ChannelClosed as gone:
            raise ProcessUnavailable("the server is gone") from gone
        except TimeoutError as late:
            raise ProcessUnavailable(f"the server did not answer within {_MAX_WAIT_S:.0f} s") from late
        finally:
            with self._lock:
                del self._pending[number]

    def on_answer(self, message: TemplateAnswer) -> None:
        """Pass the server's answer to the ``ask`` that waits for it."""
        with self._lock:
            pending = self._pending.get(message.number)
        if pending is None:
            # ``ask`` has timed out.
            return
        if message.answer is None:
            pending.set_exception(ProcessUnavailable(message.why_not))
        else:
            pending.set_result(message.answer)


class TemplateRenderer:
    """The server's side, which renders for all processes on threads of its own, so that renders delay no events."""

    def __init__(self, templates: RendersTemplates) -> None:
        self._templates = templates
        self._threads = ThreadPoolExecutor(MAX_PROCESSES, "templates")

    def render(self, question: AskTemplate, send: Callable[[TemplateAnswer], object]) -> None:
        """Render on another thread, which calls ``send`` with the answer."""

        def run() -> None:
            try:
                answer = self._templates.ask(question.digest, question.source, question.names)
                send(TemplateAnswer(question.number, answer))
            except ProcessUnavailable as unavailable:
                send(TemplateAnswer(question.number, None, str(unavailable)))

        with suppress(RuntimeError):
            # A RuntimeError means that the renderer is closed: no engine is left that waits for an answer.
            self._threads.submit(run)

    def close(self) -> None:
        """Cancel renders that have not started, and accept no more."""
        self._threads.shutdown(wait=False, cancel_futures=True)
