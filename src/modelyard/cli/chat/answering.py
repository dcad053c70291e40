"""Receives one answer: shows it while it streams, measures the reasoning, and ends it at Ctrl-C."""

from __future__ import annotations

import contextlib
import signal
import threading
import time
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from queue import Empty
from typing import Any, Final

from modelyard.cli.chat.approving import Approver
from modelyard.cli.chat.client import AnswerStream, Comment, Ended, Failed, Interrupt, Piece
from modelyard.cli.chat.tool_calls import ApprovalAsked, ToolStep
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
        calls: the calls of the server's tools that have their results.
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
    calls: tuple[ToolStep, ...] = ()

    @property
    def is_empty(self) -> bool:
        """Whether nothing came, and no tool has run, so that the request can be sent again."""
        return not self.text and not self.reasoning and not self.calls


def receive(
    stream: AnswerStream,
    view: AnswerView,
    approver: Approver,
    *,
    shows_reasoning: bool = True,
    clock: Callable[[], float] = time.monotonic,
) -> Answer:
    """Return the answer of ``stream``, and show it meanwhile. Ctrl-C stops it; a second one raises KeyboardInterrupt.

    The view is not closed.

    Args:
        stream: the answer.
        view: shows it.
        approver: asks the user about calls of tools; it is closed.
        shows_reasoning: whether the view gets the reasoning; otherwise it gets the time that it takes.
        clock: seconds.
    """
    receiving = _Receiving(view, approver, shows_reasoning, clock)
    with contextlib.closing(approver), _interrupts(stream):
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
                    case ToolStep():
                        receiving.step(event)
                    case ApprovalAsked():
                        approver.ask(event)
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
    """What has come of an answer: rounds of reasoning and text, with calls of tools between them."""

    def __init__(self, view: AnswerView, approver: Approver, shows_reasoning: bool, clock: Callable[[], float]) -> None:
        self._view, self._approver, self._shows_reasoning, self._clock = view, approver, shows_reasoning, clock
        self._texts: list[str] = []
        self._reasonings: list[str] = []
        self._calls: list[ToolStep] = []
        # Calls that run, or wait for their approval, by their ids: the tool, and since when.
        self._running: dict[str, tuple[str, float]] = {}
        self._thought_s: float | None = None
        # The reason for which the stream waits, as the server reports it.
        self._waits_for = ""
        self._begin_round()

    def _begin_round(self) -> None:
        self._began = self._clock()
        self._has_text = self._has_thought = self._has_reasoning = False
        self._thinks_since: float | None = None

    def take(self, piece: Piece) -> None:
        self._waits_for = ""
        if piece.reasoning:
            self._reasonings.append(piece.reasoning)
            if not self._has_thought:
                self._has_thought, self._thinks_since = True, self._clock()
            # Line breaks separate the reasoning of two rounds, between which the terminal shows the calls.
            shown = piece.reasoning if self._has_reasoning else piece.reasoning.lstrip("\n")
            self._has_reasoning = self._has_reasoning or bool(shown)
            if shown and self._shows_reasoning and not self._has_text:
                self._view.reasoning(shown)
        if piece.text:
            # Line breaks between the reasoning and the answer belong to neither.
            is_first = not self._texts and self._has_thought
            text = piece.text.lstrip("\n") if is_first else piece.text
            if text:
                self._end_reasoning()
                self._texts.append(text)
                self._has_text = True
                self._view.text(text)

    def step(self, step: ToolStep) -> None:
        self._waits_for = ""
        self._end_reasoning()
        self._approver.settle(step)
        match step.phase:
            case "calling" | "approved":
                self._running[step.id] = (step.name, self._clock())
            case "running":
                self._waits_for = f"{step.name}: {step.status()}"
            case "complete":
                self._running.pop(step.id, None)
                self._calls.append(step)
        if line := step.line():
            self._view.tool(line)
        if self._waits_for:
            self._view.status(self._waits_for)
        self._begin_round()

    def comment(self, text: str) -> None:
        if text != "keep-alive":
            self._waits_for = text
            self._view.status(text)

    def wait(self) -> None:
        self._approver.poll()
        now = self._clock()
        if self._approver.is_asking or self._waits_for:
            pass
        elif self._running:
            name, since = next(iter(self._running.values()))
            others = f" and {len(self._running) - 1} more" if len(self._running) > 1 else ""
            if now - since > _SILENT_S:
                self._view.status(f"{name}{others}... {now - since:.0f} s")
        elif self._thinks_since is not None:
            if not self._shows_reasoning:
                self._view.status(f"Thinking... {now - self._thinks_since:.1f} s")
        elif not self._has_text and now - self._began > _SILENT_S:
            self._view.status(f"Reading the prompt... {now - self._began:.0f} s")
        self._view.tick()

    def _end_reasoning(self) -> None:
        if self._thinks_since is not None:
            took = self._clock() - self._thinks_since
            self._thinks_since = None
            self._thought_s = (self._thought_s or 0.0) + took
            self._view.thought(took)

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
            tuple(self._calls),
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
