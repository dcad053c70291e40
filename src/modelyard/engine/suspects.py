"""Requests that were being computed when an engine died are tried one at a time: the next death names the cause."""

from __future__ import annotations

import threading
from collections import deque
from collections.abc import Callable, Sequence

from modelyard.protocol.events import (
    Cancelled,
    Embedded,
    Event,
    Failed,
    Finished,
    Ranked,
    Returned,
    Suspended,
    Token,
    Tokenized,
)
from modelyard.protocol.messages import Message, Request, Resume
from modelyard.protocol.requests import Cancel, Embed, Rank, Stop, Submit, Tokenize
from modelyard.protocol.values import SequenceId


class SuspectQueue:
    """Passes messages to one engine, and holds back suspects: each waits until the one before it has a token or has
    ended.

    Every method may be called on any thread.

    Args:
        send: sends a message to the engine, without blocking.
    """

    def __init__(self, send: Callable[[Message], object]) -> None:
        self._send = send
        self._lock = threading.Lock()
        self._tried: SequenceId | None = None
        self._waiting: deque[Request] = deque()

    def submit(self, message: Message) -> None:
        """Send a message to the engine, or queue it behind the suspect that is being tried."""
        with self._lock:
            match message:
                case Submit() | Embed() | Rank() | Tokenize() | Resume() if message.alone:
                    if self._tried is not None:
                        self._waiting.append(message)
                        return
                    self._tried = message.sequence
                case Cancel(sequence):
                    # The engine ends a request that it has not started, so it must receive it.
                    self._send_waiting([waiting for waiting in self._waiting if waiting.sequence == sequence])
                case Stop():
                    self._send_waiting(list(self._waiting))
            self._send(message)

    def observe(self, events: Sequence[Event]) -> None:
        """Process the engine's events. Hot path: runs once a step, and nearly always returns at once."""
        if self._tried is None:
            return
        with self._lock:
            if any(_is_over(event, self._tried) for event in events):
                self._tried = None
                if self._waiting:
                    following = self._waiting.popleft()
                    self._tried = following.sequence
                    self._send(following)

    def _send_waiting(self, requests: Sequence[Request]) -> None:
        for request in requests:
            self._waiting.remove(request)
            self._send(request)


def _is_over(event: Event, tried: SequenceId | None) -> bool:
    """Whether an event shows that the tried request does not kill the engine, or that it has ended."""
    match event:
        case Token(sequence, ids=ids):
            return sequence == tried and bool(ids)
        case (
            Finished(sequence)
            | Failed(sequence)
            | Cancelled(sequence)
            | Suspended(sequence)
            | Returned(sequence)
            | Embedded(sequence)
            | Ranked(sequence)
            | Tokenized(sequence)
        ):
            return sequence == tried
    return False
