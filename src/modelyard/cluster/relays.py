"""Results of a node's requests that pass their events on to a front, in place of a reader.

Hot path: ``RelayedStream.add`` runs once a token.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace

from modelyard.protocol.events import Accepted, SequenceEvent, Started, Token
from modelyard.protocol.values import SequenceId
from modelyard.yard.requests.model_names import ModelId
from modelyard.yard.requests.one_shot import PendingResult
from modelyard.yard.requests.token_stream import TokenStream

Forward = Callable[[SequenceEvent], None]
"""Takes the events of one request, with the number that it has at the front."""


class RelayedStream(TokenStream):
    """A stream whose events go to a front.

    Args:
        model: id of its model.
        sequence: the number of the request at the front.
        forward: takes its events.
        is_resumed: whether it goes on from what another node has begun.
    """

    def __init__(self, model: ModelId, sequence: SequenceId, forward: Forward, *, is_resumed: bool) -> None:
        super().__init__(model)
        self._sequence, self._forward = sequence, forward
        # The front has the start of a request that another node began.
        self._has_started = is_resumed

    def put(self, event: SequenceEvent) -> None:
        """Pass an event on."""
        if not isinstance(event, Accepted):
            self._start()
        super().put(event)
        if not isinstance(event, Token):
            self._forward(replace(event, sequence=self._sequence))

    def add(self, token: Token) -> None:
        """Pass a token on. Its text is not kept here."""
        self._start()
        self.generated += len(token.ids)
        self._forward(Token(self._sequence, token.text, token.logprobs, token.ids, token.pending_logprobs))

    def _start(self) -> None:
        if not self._has_started and self.times.started:
            self._has_started = True
            self._forward(Started(self._sequence, self.cached_tokens))


class RelayedResult(PendingResult):
    """A result that goes to a front; see ``RelayedStream``."""

    def __init__(self, model: ModelId, sequence: SequenceId, forward: Forward) -> None:
        super().__init__(model)
        self._sequence, self._forward = sequence, forward
        # Its error is raised in the front; no caller waits for it here.
        self._outcome.add_done_callback(lambda done: done.cancelled() or done.exception())

    def put(self, event: SequenceEvent) -> None:
        """Pass an event on."""
        super().put(event)
        self._forward(replace(event, sequence=self._sequence))
