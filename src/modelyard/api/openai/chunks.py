"""The server-sent chunks of one completion. Hot path: a chunk is bytes rendered once around its choices."""

from __future__ import annotations

import time
import uuid
from collections.abc import Sequence
from typing import Any

import orjson

from modelyard.api.errors.responses import error_body
from modelyard.api.openai.usage import total_usage, usage_object
from modelyard.api.serving.streaming import EVENT_STREAM
from modelyard.errors import ModelyardError
from modelyard.protocol.events import Finished
from modelyard.yard.requests.generation import TokenStream


class Identity:
    """What all choices and chunks of one answer have in common; ``prefix`` begins its id."""

    def __init__(self, prefix: str) -> None:
        self._id, self._created = f"{prefix}-{uuid.uuid4().hex}", int(time.time())

    def of(self, generation: TokenStream) -> dict[str, Any]:
        """The fields, once it is known which model answers."""
        return {
            "id": self._id,
            "created": self._created,
            "model": generation.model,
            "system_fingerprint": generation.fingerprint,
        }


class Chunks:
    """Writes chunks that differ in their choices alone.

    Args:
        common: the fields of every chunk.
        include_usage: whether the client asked for usage: a last chunk has it, all others have it as null.
        choices: for each prompt.
    """

    def __init__(self, common: dict[str, Any], *, include_usage: bool, choices: int = 1) -> None:
        self._include_usage, self._choices = include_usage, choices
        self.head = b"data: " + orjson.dumps(common)[:-1] + b',"choices":'
        self.tail = b',"usage":null}\n\n' if include_usage else b"}\n\n"

    def of(self, choice: dict[str, Any]) -> bytes:
        """A chunk with one choice."""
        return self.head + orjson.dumps([choice]) + self.tail

    def end(self, finished: Sequence[Finished]) -> bytes:
        """The chunk with the usage of all choices, where it was asked for, and the end mark."""
        if not self._include_usage:
            return b"data: [DONE]\n\n"
        usage = orjson.dumps(usage_object(total_usage(finished, self._choices)))
        return self.head + b'[],"usage":' + usage + b"}\n\ndata: [DONE]\n\n"


class EventFrames:
    """What all of OpenAI's streams have in common."""

    headers = EVENT_STREAM

    def comment(self, text: str) -> bytes:
        """A comment of server-sent events."""
        return b": " + text.encode() + b"\n\n"

    def error(self, error: ModelyardError) -> bytes:
        """An error in place of a chunk; no end mark follows."""
        return b"data: " + error_body(error) + b"\n\n"
