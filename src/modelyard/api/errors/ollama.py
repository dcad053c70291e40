"""Errors as Ollama's clients read them."""

from __future__ import annotations

import orjson

from modelyard.errors import ModelyardError


def error_body(error: ModelyardError) -> bytes:
    """The body of an answer, also the line of a stream that failed."""
    return orjson.dumps({"error": error.wire_message})
