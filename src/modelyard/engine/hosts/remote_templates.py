"""Chat templates of engines in processes are rendered where those of all others are: the server starts the processes.

One that each engine's process started would take 20 MB and 0.2 s of every load.
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

# More than the server waits for a place and for the render.
_MAX_WAIT_S: Final = 60.0


class RemoteTemplates:
    """The engine's side: asks the server at the other end of a channel. ``ask`` may be called on any thread."""

    def __init__(self, channel: Channel) -> None:
        self._channel = channel
        self._lock = threading.Lock()
        self._asked: dict[int, Future[dict[str, Any]]] = {}
        self._numbers = 0

    def ask(self, digest: str, source: str, names: bytes | None = None) -> dict[str, Any]:
        """As ``TemplateProcesses.ask``.

        Raises:
            ProcessUnavailable: as there, or the server does not answer.
        """
        answer: Future[dict[str, Any]] = Future()
        with self._lock:
            self._numbers += 1
            number = self._numbers
            self._asked[number] = answer
        try:
            self._channel.send(AskTemplate(number, digest, source, names))
            return answer.result(_MAX_WAIT_S)
        except ChannelClosed as gone:
            raise ProcessUnavailable("the server is gone") from gone
        except TimeoutError as late:
            raise ProcessUnavailable(f"the server did not answer within {_MAX_WAIT_S:.0f} s") from late
        finally:
            with self._lock:
                del self._asked[number]

    def hear(self, message: TemplateAnswer) -> None:
        """Take the server's answer."""
        with self._lock:
            asked = self._asked.get(message.number)
        if asked is None:
            # Nobody waits for it any more.
            return
        if message.answer is None:
            asked.set_exception(ProcessUnavailable(message.why_not))
        else:
            asked.set_result(message.answer)


class TemplateRenderer:
    """The server's side: renders for all processes, on threads of its own. One that takes long holds up no events."""

    def __init__(self, templates: RendersTemplates) -> None:
        self._templates = templates
        self._threads = ThreadPoolExecutor(MAX_PROCESSES, "templates")

    def render(self, asked: AskTemplate, answer: Callable[[TemplateAnswer], object]) -> None:
        """Have ``answer`` called with what comes of ``asked``, on another thread."""

        def run() -> None:
            try:
                answer(TemplateAnswer(asked.number, self._templates.ask(asked.digest, asked.source, asked.names)))
            except ProcessUnavailable as unavailable:
                answer(TemplateAnswer(asked.number, None, str(unavailable)))

        with suppress(RuntimeError):
            # It is closed: no engine is left to hear an answer.
            self._threads.submit(run)

    def close(self) -> None:
        """Render nothing more."""
        self._threads.shutdown(wait=False, cancel_futures=True)
