"""The requests that are not over, and the last ones that ended, each with its way through the yard.

Steps alone are recorded: what changes with each token is read from the request itself when somebody looks.
"""

from __future__ import annotations

import time
from collections import deque
from collections.abc import Iterator
from contextlib import AbstractContextManager
from dataclasses import replace
from itertools import takewhile
from typing import Final, Literal

from modelyard.errors import ModelyardError
from modelyard.protocol.events import Cancelled, Failed
from modelyard.protocol.values import Usage
from modelyard.yard.requests.context import RequestOrigin, current_caller
from modelyard.yard.requests.one_shot import PendingResult
from modelyard.yard.requests.timings import RequestTimings
from modelyard.yard.requests.token_stream import TokenStream
from modelyard.yard.requests.transcript import Transcript
from modelyard.yard.residency.waiting import RequestId
from modelyard.yard.stats.broadcast import Broadcaster, Observer
from modelyard.yard.stats.counters import Ending
from modelyard.yard.stats.request_phases import Phase, PhaseKind, Step, TokenCounts, phases

MAX_ENDED: Final = 1_000
MAX_TEXT_BYTES: Final = 32 * 2**20
"""Bytes of the recorded texts of requests that ended; the oldest are dropped."""

MAX_STEPS: Final = 64
"""Steps of one request; of more the last ones are kept, after the first."""

RequestKind = Literal["text", "vectors", "scores", "tokens"]
Outcome = Literal["done", "failed", "cancelled"]
RequestState = Literal[PhaseKind, Outcome]
REQUEST_STATES: Final[tuple[RequestState, ...]] = (
    *("waiting", "loading", "prefill", "decode", "suspended"),
    *("done", "failed", "cancelled"),
)


class LoggedRequest:
    """A request, while it is answered and after it.

    Attributes:
        id: identifies it among the requests of all runs of the server.
        model: id of its model.
        kind: what it asks for.
        origin: where it comes from; None: from a program that holds the yard itself.
        owner: of its caller; see ``Caller``.
        arrived_at: when it arrived, in seconds of the epoch.
        times: of its stages, on another clock; see ``unix_time``.
        steps: of its way.
        revision: grows with each step of any request.
        outcome: how it ended; None while it is not over.
        finish_reason: why its answer ended: "stop" or "length"; None where it did not end well.
        error: the error that it ended with; None where it has none.
        transcript: its texts; None where they are not recorded, or were dropped.
    """

    __slots__ = (
        "_result",
        "_tokens",
        "arrived_at",
        "error",
        "finish_reason",
        "id",
        "kind",
        "model",
        "origin",
        "outcome",
        "owner",
        "revision",
        "steps",
        "times",
        "transcript",
    )

    def __init__(self, request_id: str, kind: RequestKind, result: TokenStream | PendingResult) -> None:
        caller = current_caller()
        self.id, self.kind, self.model = request_id, kind, result.model
        self.origin: RequestOrigin | None = caller.origin
        self.owner = caller.owner
        self.arrived_at = time.time()
        self.times: RequestTimings = result.times
        self.steps: list[Step] = []
        self.revision = 0
        self.outcome: Outcome | None = None
        self.finish_reason: str | None = None
        self.error: ModelyardError | None = None
        self.transcript = result.transcript if isinstance(result, TokenStream) else None
        self._result: TokenStream | PendingResult | None = result
        self._tokens = TokenCounts(0, 0, 0)

    @property
    def is_over(self) -> bool:
        """Whether it has ended."""
        return self.outcome is not None

    @property
    def tokens(self) -> TokenCounts:
        """Its tokens up to now."""
        result = self._result
        if not isinstance(result, TokenStream):
            return self._tokens
        return TokenCounts(result.prompt_tokens, result.cached_tokens, result.generated)

    @property
    def phases(self) -> list[Phase]:
        """Its phases up to now."""
        return phases(self.steps, self.times, self.tokens, has_stages=self.kind == "text")

    @property
    def state(self) -> RequestState:
        """The phase that it is in, or how it ended."""
        return self.outcome or self.phases[-1].kind

    @property
    def tokens_per_s(self) -> float | None:
        """Tokens of the answer a second, after its first one; None where it has no two tokens."""
        decode_s, count = self.times.decode_s, self.tokens.answer
        return (count - 1) / decode_s if decode_s and count > 1 else None

    def unix_time(self, at: float) -> float | None:
        """Return a time of ``times`` or of a phase in seconds of the epoch; None for 0, which is no time."""
        return self.arrived_at + (at - self.times.arrived) if at else None

    def add(self, step: Step) -> None:
        """Add a step, unless it says what the last one says."""
        if self.steps and self.steps[-1]._replace(began=step.began) == step:
            return
        if len(self.steps) >= MAX_STEPS:
            del self.steps[1]
        self.steps.append(step)

    def end(self, event: Ending) -> None:
        """Record the last event, and drop the reference to the answer."""
        usage: Usage | None = event.usage
        self._tokens = self.tokens
        if usage is not None:
            self._tokens = TokenCounts(usage.prompt_tokens, usage.cached_tokens, usage.completion_tokens)
        # The times may change no more, and belong to the request, which keeps what was read of it.
        self.times, self._result = replace(self.times), None
        if self.transcript is not None:
            self.transcript.close()
        match event:
            case Failed(_, error):
                self.outcome, self.error = "failed", error
            case Cancelled():
                self.outcome = "cancelled"
            case _:
                self.outcome = "done"
                self.finish_reason = getattr(event, "reason", "stop")


class RequestLog:
    """The requests of one yard. Use it on the yard's event loop.

    Attributes:
        revision: grows with each step.
        keeps_texts: whether prompts and answers are recorded, within MAX_TEXT_BYTES.
    """

    def __init__(self) -> None:
        self.revision = 0
        self.keeps_texts = False
        self._texts: deque[LoggedRequest] = deque()
        self._text_bytes = 0
        self._run = f"{time.time_ns():x}"
        self._open: dict[RequestId, LoggedRequest] = {}
        self._ended: deque[LoggedRequest] = deque(maxlen=MAX_ENDED)
        # An observer only learns that there is something new, and looks.
        self._news: Broadcaster[int] = Broadcaster("the requests", lambda _before, _change: True)

    # What happens to requests

    def begin(self, request: RequestId, kind: RequestKind, result: TokenStream | PendingResult) -> None:
        """Add a request of the current caller that has arrived."""
        if (origin := current_caller().origin) is not None and origin.looks_on:
            return
        if self.keeps_texts and isinstance(result, TokenStream):
            result.transcript = Transcript()
        self._open[request] = LoggedRequest(f"{self._run}-{request}", kind, result)
        self._changed(self._open[request])

    def step(self, request: RequestId, step: Step) -> None:
        """Record a step of a request, unless it is over."""
        if (logged := self._open.get(request)) is not None:
            logged.add(step)
            self._changed(logged)

    def end(self, request: RequestId, event: Ending) -> None:
        """Record the last event of a request, whose times are complete."""
        if (logged := self._open.pop(request, None)) is not None:
            logged.end(event)
            self._ended.append(logged)
            self._keep_text(logged)
            self._changed(logged)

    def _keep_text(self, logged: LoggedRequest) -> None:
        """Count the texts of a request that has ended, and drop the oldest beyond the bound."""
        if logged.transcript is None:
            return
        self._texts.append(logged)
        self._text_bytes += logged.transcript.size_bytes
        while self._text_bytes > MAX_TEXT_BYTES or len(self._texts) > MAX_ENDED:
            oldest = self._texts.popleft()
            assert oldest.transcript is not None
            self._text_bytes -= oldest.transcript.size_bytes
            oldest.transcript = None

    def _changed(self, logged: LoggedRequest) -> None:
        self.revision += 1
        logged.revision = self.revision
        self._news.publish(self.revision)

    # For those who look

    def __iter__(self) -> Iterator[LoggedRequest]:
        """Iterate over the requests: those that are not over, the latest first, then those that ended, likewise."""
        yield from reversed(list(self._open.values()))
        yield from reversed(self._ended)

    def find(self, request_id: str) -> LoggedRequest | None:
        """Return the request with that id; None where there is none, or it ended too long ago."""
        return next((each for each in self if each.id == request_id), None)

    def changed_since(self, revision: int) -> list[LoggedRequest]:
        """Return the requests with a step after ``revision``, those that ended first."""
        ended = list(takewhile(lambda each: each.revision > revision, reversed(self._ended)))
        return [*reversed(ended), *(each for each in self._open.values() if each.revision > revision)]

    def running(self) -> list[LoggedRequest]:
        """Return the requests that are not over, in the order in which they arrived."""
        return list(self._open.values())

    def observer(self) -> AbstractContextManager[Observer[int]]:
        """Return a context with an observer of new revisions, of which it reads the last one only.

        Raises:
            TooManyConnections: there are as many observers as there may be.
        """
        return self._news.observer()
