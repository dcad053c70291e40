"""Receives one answer: shows it while it streams, measures the reasoning, and ends it at Ctrl-C."""

from __future__ import annotations

import signal
import threading
import time
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from queue import Empty
from typing import Any, Final

from modelyard.cli.chat.client import AnswerStream, Comment, Ended, Failed, Interrupt, Piece
from modelyard.cli.chat.views import AnswerView
from modelyard.errors import ServerUnusable

_TICK_S: Final = 0.05

# A prompt that takes longer than this to compute is said to be computed.
_SILENT_S: Final = 0.7


@dataclass(frozen=True, slots=True)
class Answer:
    """What came of a request.

    Attributes:
        text, reasoning: as far as they came.
        finish_reason: the server's; None if the answer did not end by itself.
        thought_s: how long the reasoning took; None: there was none.
        error: why it failed.
        was_stopped: whether Ctrl-C ended it.
    """

    text: str
    reasoning: str
    finish_reason: str | None
    usage: Mapping[str, Any]
    timings: Mapping[str, Any]
    thought_s: float | None = None
    error: ServerUnusable | None = None
    was_stopped: bool = False

    @property
    def is_empty(self) -> bool:
        """Whether nothing came."""
        return not self.text and not self.reasoning


def receive(
    stream: AnswerStream, view: AnswerView, *, shows_reasoning: bool = True, clock: Callable[[], float] = time.monotonic
) -> Answer:
    """Return the answer of ``stream``, and show it meanwhile. Ctrl-C stops it; a second one raises KeyboardInterrupt.

    The view is not closed.

    Args:
        stream: the answer.
        view: shows it.
        shows_reasoning: whether the view gets the reasoning; otherwise it gets the time that it takes.
        clock: seconds.
    """
    receiving = _Receiving(view, shows_reasoning, clock)
    with _interrupts(stream):
        try:
            while True:
                try:
                    event = stream.events.get(timeout=_TICK_S)
                except Empty:
                    receiving.wait()
                    continue
                match event:
                    case Piece():
                        receiving.take(event)
                    case Comment(text):
                        receiving.comment(text)
                    case Ended(reason, usage, timings):
                        return receiving.answer(reason, usage, timings)
                    case Failed(error):
                        return receiving.answer(error=error)
                    case Interrupt():
                        return receiving.answer(was_stopped=True)
        finally:
            stream.close()


class _Receiving:
    def __init__(self, view: AnswerView, shows_reasoning: bool, clock: Callable[[], float]) -> None:
        self._view, self._shows_reasoning, self._clock = view, shows_reasoning, clock
        self._texts: list[str] = []
        self._reasonings: list[str] = []
        self._began = clock()
        self._thinks_since: float | None = None
        self._thought_s: float | None = None
        # What the server says that the stream waits for.
        self._waits_for = ""

    def take(self, piece: Piece) -> None:
        self._waits_for = ""
        if piece.reasoning:
            self._reasonings.append(piece.reasoning)
            if self._thinks_since is None:
                self._thinks_since = self._clock()
            if self._shows_reasoning and not self._texts:
                self._view.reasoning(piece.reasoning)
        if piece.text:
            # Line breaks between the reasoning and the answer belong to neither.
            text = piece.text if self._texts or self._thinks_since is None else piece.text.lstrip("\n")
            if text:
                self._end_reasoning()
                self._texts.append(text)
                self._view.text(text)

    def comment(self, text: str) -> None:
        if text != "keep-alive":
            self._waits_for = text
            self._view.status(text)

    def wait(self) -> None:
        if self._thinks_since is not None and self._thought_s is None:
            if not self._shows_reasoning:
                self._view.status(f"Thinking... {self._clock() - self._thinks_since:.1f} s")
        elif not self._texts and not self._waits_for and self._clock() - self._began > _SILENT_S:
            self._view.status(f"Reading the prompt... {self._clock() - self._began:.0f} s")
        self._view.tick()

    def _end_reasoning(self) -> None:
        if self._thinks_since is not None and self._thought_s is None:
            self._thought_s = self._clock() - self._thinks_since
            self._view.thought(self._thought_s)

    def answer(
        self,
        finish_reason: str | None = None,
        usage: Mapping[str, Any] | None = None,
        timings: Mapping[str, Any] | None = None,
        *,
        error: ServerUnusable | None = None,
        was_stopped: bool = False,
    ) -> Answer:
        self._end_reasoning()
        return Answer(
            "".join(self._texts),
            "".join(self._reasonings),
            finish_reason,
            usage or {},
            timings or {},
            self._thought_s,
            error,
            was_stopped,
        )


@contextmanager
def _interrupts(stream: AnswerStream) -> Iterator[None]:
    """Let Ctrl-C put an event into the stream within the context, so that it interrupts no drawing.

    The second one raises KeyboardInterrupt, should the first have no effect.
    """
    if threading.current_thread() is not threading.main_thread():
        yield
        return

    def interrupt(_number: int, _frame: object) -> None:
        signal.signal(signal.SIGINT, previous)
        stream.interrupt()

    previous = signal.signal(signal.SIGINT, interrupt)
    try:
        yield
    finally:
        signal.signal(signal.SIGINT, previous)
