"""Requests that were being computed when an engine died are tried one at a time: the next death tells which it was."""

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
    """Stands before one engine. A suspect waits until the one before it has a token, or has ended.

    Every method may be called on any thread.

    Args:
        send: hands a message to the engine, without blocking.
    """

    def __init__(self, send: Callable[[Message], object]) -> None:
        self._send = send
        self._lock = threading.Lock()
        self._tried: SequenceId | None = None
        self._waiting: deque[Request] = deque()

    def submit(self, message: Message) -> None:
        """Hand a message to the engine, as soon as it may have it."""
        with self._lock:
            match message:
                case Submit() | Embed() | Rank() | Tokenize() | Resume() if message.alone:
                    if self._tried is not None:
                        self._waiting.append(message)
                        return
                    self._tried = message.sequence
                case Cancel(sequence):
                    # The engine knows how a request ends that it has not begun.
                    self._send_waiting([waiting for waiting in self._waiting if waiting.sequence == sequence])
                case Stop():
                    self._send_waiting(list(self._waiting))
            self._send(message)

    def observe(self, events: Sequence[Event]) -> None:
        """Take note of what the engine has published. Hot path: called once a step, nearly always for nothing."""
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
    """Whether nothing more is to be found out about the request that is tried."""
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
