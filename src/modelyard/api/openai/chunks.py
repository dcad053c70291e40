"""The chunks of OpenAI's streams. Hot path: the bytes around a chunk's choice are rendered once a stream."""

from __future__ import annotations

import time
import uuid
from collections.abc import Sequence
from typing import Any

import orjson
from typing_extensions import TypedDict

from modelyard.api.errors.rendering import error_body
from modelyard.api.openai.message import MessageDelta
from modelyard.api.openai.usage import total_usage, usage_object
from modelyard.api.openapi.answers_openai import FinishReason, ListedLogprobs, Logprobs
from modelyard.api.openapi.answers_timings import Progress, Timings
from modelyard.api.serving.streaming import EVENT_STREAM
from modelyard.errors import ModelyardError
from modelyard.protocol.events import Finished
from modelyard.yard.requests.token_stream import TokenStream


class CommonFields(TypedDict):
    """The fields that a completion shares with all of its chunks, beside ``object``."""

    id: str
    created: int
    model: str
    system_fingerprint: str


class ChatChunkChoice(TypedDict):
    """One choice in a chunk of a chat completion; only the last chunk of a choice has a finish_reason."""

    index: int
    delta: MessageDelta
    logprobs: Logprobs | None
    finish_reason: FinishReason | None


class TextChunkChoice(TypedDict):
    """One choice in a chunk of a text completion; only the last chunk of a choice has a finish_reason."""

    index: int
    text: str
    logprobs: ListedLogprobs | None
    finish_reason: FinishReason | None


class Identity:
    """The id and the time of one completion; ``prefix`` is the beginning of its id."""

    def __init__(self, prefix: str) -> None:
        self._id, self._created = f"{prefix}-{uuid.uuid4().hex}", int(time.time())

    def of(self, generation: TokenStream) -> CommonFields:
        """Return the common fields of a completion that ``generation`` computes."""
        return {
            "id": self._id,
            "created": self._created,
            "model": generation.model,
            "system_fingerprint": generation.fingerprint,
        }


class Chunks:
    """Writes the chunks of one stream, which differ only in their choices.

    Args:
        kind: the ``object`` of the chunks.
        common: the fields of every chunk.
        include_usage: whether the client asked for usage: the last chunk has it, and all others have null.
        choices: the number of choices for each prompt.
    """

    def __init__(self, kind: str, common: CommonFields, *, include_usage: bool, choices: int = 1) -> None:
        self._include_usage, self._choices = include_usage, choices
        self.head = b"data: " + orjson.dumps({"object": kind, **common})[:-1] + b',"choices":'
        self.tail = b',"usage":null}\n\n' if include_usage else b"}\n\n"

    def of(self, choice: ChatChunkChoice | TextChunkChoice, timings: Timings | None = None) -> bytes:
        """Return a chunk with one choice, and with llama.cpp's ``timings`` if they are given."""
        measured = b"" if timings is None else b',"timings":' + orjson.dumps(timings)
        return self.head + orjson.dumps([choice]) + measured + self.tail

    def of_progress(self, choice: ChatChunkChoice | TextChunkChoice, progress: Progress) -> bytes:
        """Return a chunk with llama.cpp's ``prompt_progress``."""
        return self.head + orjson.dumps([choice]) + b',"prompt_progress":' + orjson.dumps(progress) + self.tail

    def of_extension(self, choice: ChatChunkChoice, name: str, value: Any) -> bytes:
        """Return a chunk with a field that OpenAI's chunks do not have."""
        extension = orjson.dumps({name: value})[1:-1]
        return self.head + orjson.dumps([choice]) + b"," + extension + self.tail

    def end(self, finished: Sequence[Finished], timings: Timings) -> bytes:
        """Return the chunk with the usage of all choices, if the client asked for it, and the end marker."""
        if not self._include_usage:
            return b"data: [DONE]\n\n"
        usage = orjson.dumps(usage_object(total_usage(finished, self._choices)))
        measured = b',"timings":' + orjson.dumps(timings)
        return self.head + b'[],"usage":' + usage + measured + b"}\n\ndata: [DONE]\n\n"


class EventEncoder:
    """The parts of an encoder that all of OpenAI's streams share."""

    headers = EVENT_STREAM

    def comment(self, text: str) -> bytes:
        """Return a comment of server-sent events."""
        return b": " + text.encode() + b"\n\n"

    def error(self, error: ModelyardError) -> bytes:
        """Return an error in place of a chunk; no end marker follows it."""
        return b"data: " + error_body(error) + b"\n\n"
