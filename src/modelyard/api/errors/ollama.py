"""Errors in Ollama's dialect."""

from __future__ import annotations

import orjson

from modelyard.errors import ModelyardError


def error_body(error: ModelyardError) -> bytes:
    """Return the body of an error response, which is also the last line of a stream that failed."""
    return orjson.dumps({"error": error.wire_message})
