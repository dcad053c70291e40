"""The server-sent chunks of one completion. Hot path: a chunk is bytes rendered once around its choices."""

from __future__ import annotations

import time
import uuid
from typing import Any

import orjson

from modelyard.api.openai.usage import usage_object
from modelyard.engine.messages import Usage
from modelyard.yard.generation import Generation


def identity(generation: Generation, prefix: str) -> dict[str, Any]:
    """What an answer and all its chunks have in common; ``prefix`` begins its id."""
    return {
        "id": f"{prefix}-{uuid.uuid4().hex}",
        "created": int(time.time()),
        "model": generation.model,
        "system_fingerprint": generation.fingerprint,
    }


class Chunks:
    """Writes chunks that differ in their choices alone.

    Args:
        common: the fields of every chunk.
        include_usage: whether the client asked for usage: a last chunk has it, all others have it as null.
    """

    def __init__(self, common: dict[str, Any], *, include_usage: bool) -> None:
        self._include_usage = include_usage
        self.head = b"data: " + orjson.dumps(common)[:-1] + b',"choices":'
        self.tail = b',"usage":null}\n\n' if include_usage else b"}\n\n"

    def of(self, choice: dict[str, Any]) -> bytes:
        """A chunk with one choice."""
        return self.head + orjson.dumps([choice]) + self.tail

    def end(self, choice: dict[str, Any], usage: Usage) -> bytes:
        """The chunk with the last choice, the usage where it was asked for, and the end mark."""
        last = self.of(choice)
        if self._include_usage:
            last += self.head + b'[],"usage":' + orjson.dumps(usage_object(usage)) + b"}\n\n"
        return last + b"data: [DONE]\n\n"
