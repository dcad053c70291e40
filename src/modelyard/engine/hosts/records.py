"""The server's records of the requests in an engine's process, from which they continue when that process dies."""

from __future__ import annotations

import threading
from collections.abc import Sequence
from dataclasses import dataclass, replace

from modelyard.protocol.events import (
    Accepted,
    Cancelled,
    Embedded,
    Event,
    Failed,
    Finished,
    Ranked,
    Returned,
    Started,
    Suspended,
    Token,
    Tokenized,
)
from modelyard.protocol.messages import Message, Resume
from modelyard.protocol.requests import Embed, Rank, Submit, Tokenize
from modelyard.protocol.suspended import SuspendedSequence
from modelyard.protocol.values import OutputFormat, SequenceId, TokenLogprob


@dataclass(slots=True, eq=False)
class _Record:
    """One request. prompt is None until it is accepted; until then it can be sent again unchanged."""

    request: Submit | Embed | Rank | Tokenize
    answer: list[int]
    prompt: tuple[int, ...] | None = None
    output_format: OutputFormat | None = None
    cached_tokens: int | None = None
    pending_logprobs: tuple[TokenLogprob, ...] = ()


class RequestRecords:
    """The unfinished requests of one engine. Thread-safe.

    Hot path: ``update`` runs once a step, and its loop once a token.
    """

    def __init__(self) -> None:
        self._records: dict[SequenceId, _Record] = {}
        self._lock = threading.Lock()

    def add(self, message: Message) -> None:
        """Record a request that is sent to the engine; other messages are ignored."""
        match message:
            case Submit() | Embed() | Rank() | Tokenize():
                record = _Record(message, [])
            case Resume(state):
                record = _Record(
                    state.request,
                    list(state.answer),
                    state.prompt,
                    state.output_format,
                    state.cached_tokens,
                    state.pending_logprobs,
                )
            case _:
                return
        with self._lock:
            self._records[record.request.sequence] = record

    def update(self, events: Sequence[Event]) -> None:
        """Apply events that the engine has published."""
        with self._lock:
            records = self._records
            # Nearly all events are tokens.
            for event in events:
                if isinstance(event, Token):
                    if (record := records.get(event.sequence)) is not None:
                        record.answer.extend(event.ids)
                        record.pending_logprobs = event.pending_logprobs
                    continue
                match event:
                    case Accepted(sequence, _, output_format, tokens):
                        if (record := records.get(sequence)) is not None:
                            record.prompt, record.output_format = tokens, output_format
                    case Started(sequence, cached_tokens):
                        if (record := records.get(sequence)) is not None:
                            record.cached_tokens = cached_tokens
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
                        records.pop(sequence, None)

    def drain(self, identity: str) -> list[Suspended | Returned]:
        """Remove all records, and return the last event of each request on a dead engine, in order of arrival.

        identity: identity of the engine; see ``SuspendedSequence``.
        """
        with self._lock:
            records, self._records = self._records, {}
        return [_last_event(identity, record) for record in records.values()]


def _last_event(identity: str, record: _Record) -> Suspended | Returned:
    request = record.request
    if record.prompt is None or not isinstance(request, Submit):
        return Returned(request.sequence)
    state = SuspendedSequence(
        identity,
        replace(request, alone=False),
        record.prompt,
        tuple(record.answer),
        record.output_format,
        record.cached_tokens,
        record.pending_logprobs,
    )
    return Suspended(request.sequence, state)
