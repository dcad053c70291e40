"""Answers requests for the tokens of a text.

Runs on threads beside the engine's: a megabyte of text takes seconds, and no stream waits for that. llama.cpp only
reads the vocabulary there.
"""

from __future__ import annotations

import logging
import threading
from collections.abc import Callable, Sequence
from concurrent.futures import Future
from typing import Any, Final, Protocol

from modelyard.engine.input.prompt_encoder import PromptReader, check_length
from modelyard.engine.input.reading_pool import ReadingPool, outcome_of
from modelyard.engine.messages import PromptRead
from modelyard.engine.scheduling.engine_table import EngineRecord
from modelyard.errors import EngineError, InvalidRequest, ModelyardError, UnsupportedOperation
from modelyard.protocol.events import Cancelled, Event, Failed, Publish, Returned, Tokenized
from modelyard.protocol.prompts import Chat, Text, Tokens, media_of
from modelyard.protocol.requests import Stop, Tokenize
from modelyard.protocol.values import SequenceId

logger = logging.getLogger(__name__)

# Limit of characters; llama.cpp tokenises 0.1 to 4 million of them in a second.
MAX_TEXT_LENGTH: Final = 1 << 20


class SupportsTokenize(Protocol):
    """The part of ``llama.Model`` that tokenising needs. All of it may be called on any thread."""

    vocab_size: int

    def tokenize(self, text: str, *, add_special: bool, parse_special: bool = True) -> list[int]:
        """Return the token ids of ``text``."""

    def pieces(self, tokens: Sequence[int]) -> list[bytes]:
        """Return the bytes of each token."""


class TokenizeWorker:
    """Answers the Tokenize requests of one engine. Its methods run on the engine's thread.

    Args:
        name: id of the model, for messages.
        model: the vocabulary.
        publish: takes the events; called on any thread.
        readers: threads that tokenise.
        record: the engine's record, which lists the requests that are being read.
        send: sends a message to the engine's loop; called on any thread.
        prompts: reads chats as for generation; None where the model takes none.
        long_prompts: reads chats that are longer than the model's context too.
    """

    def __init__(
        self,
        name: str,
        model: SupportsTokenize,
        publish: Publish,
        readers: ReadingPool,
        record: EngineRecord,
        send: Callable[[PromptRead], None],
        prompts: PromptReader | None = None,
        long_prompts: PromptReader | None = None,
    ) -> None:
        self._name, self._model, self._publish = name, model, publish
        self._readers, self._record, self._send = readers, record, send
        self._prompts, self._long_prompts = prompts, long_prompts
        # The caller that removes a request publishes how it ended.
        self._pending: dict[SequenceId, Future[Any]] = {}
        self._lock = threading.Lock()

    def submit(self, request: Tokenize) -> None:
        """Start answering a request."""
        prompts, sequence = self._prompts, request.sequence
        with self._lock:
            if prompts is not None and media_of(request.prompt):
                # Images and sound can only be laid out on the engine's thread: see ``finish``.
                self._pending[sequence] = self._readers.submit(
                    sequence,
                    lambda: prompts.prepare(request.prompt).salted(request.cache_salt),
                    lambda done: self._send(PromptRead(sequence, done)),
                )
            else:
                self._pending[sequence] = self._readers.submit(
                    sequence, lambda: self._answer(sequence, lambda: self._tokens(request))
                )

    def finish(self, message: PromptRead) -> None:
        """Answer a request whose texts are read and whose images are yet to be laid out; ignore other messages."""
        prompts = self._prompts
        with self._lock:
            is_mine = self._pending.get(message.sequence) is message.outcome
        if is_mine and prompts is not None:
            with self._record.reading(message.sequence):
                self._answer(message.sequence, lambda: prompts.finish(outcome_of(message.outcome, self._name)).tokens)

    def cancel(self, sequence: SequenceId) -> None:
        """Cancel a request, if it is pending."""
        if self._part_with(sequence):
            self._publish([Cancelled(sequence)])

    def shutdown(self, stop: Stop) -> None:
        """End all requests: return them if the Stop suspends, else cancel them."""
        self._end_all(Returned if stop.suspend else Cancelled)

    def _end_all(self, end: Callable[[SequenceId], Event]) -> None:
        if ended := [end(sequence) for sequence in tuple(self._pending) if self._part_with(sequence)]:
            self._publish(ended)

    def _part_with(self, sequence: SequenceId) -> bool:
        """Remove a request; whether it was pending."""
        with self._lock:
            future = self._pending.pop(sequence, None)
        if future is not None:
            future.cancel()
        return future is not None

    def _answer(self, sequence: SequenceId, read: Callable[[], Sequence[int]]) -> None:
        event: Event
        try:
            tokens = read()
            event = Tokenized(sequence, tuple(tokens), tuple(self._model.pieces(tokens)))
        except ModelyardError as refused:
            event = Failed(sequence, refused)
        except Exception as failure:
            # Any error ends the request: a request without an end would be waited for until the server ends.
            logger.exception("%s could not tokenise a text", self._name)
            event = Failed(sequence, EngineError(self._name, f"{type(failure).__name__}: {failure}"))
        if self._part_with(sequence):
            self._publish([event])

    def _tokens(self, request: Tokenize) -> Sequence[int]:
        match request.prompt:
            case Chat() as chat:
                if self._long_prompts is None:
                    raise UnsupportedOperation(f"'{self._name}' does not chat. Send the text itself.", "messages")
                return self._long_prompts.read(chat).tokens
            case Text(text):
                check_length(text, MAX_TEXT_LENGTH, "content")
                tokens = self._model.tokenize(
                    text, add_special=request.add_special, parse_special=request.parse_special
                )
                if min(tokens, default=0) < 0:
                    raise InvalidRequest(
                        "'content' has parts for which the model's vocabulary has no token.", "content"
                    )
                return tokens
            case Tokens(ids):
                for token in ids:
                    if not 0 <= token < self._model.vocab_size:
                        raise InvalidRequest(
                            f"'tokens' holds {token}, but this model's vocabulary has ids 0 to "
                            f"{self._model.vocab_size - 1}.",
                            "tokens",
                        )
                return ids
