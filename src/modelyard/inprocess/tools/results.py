"""What a function returns, as text that a model reads."""

from __future__ import annotations

import json
from typing import Any, Final

from pydantic_core import PydanticSerializationError, to_json

from modelyard.system.printable import shortened

MAX_ERROR_CHARS: Final = 2000
"""Characters of an exception's message that a model reads."""


class ResultRefused(Exception):
    """What a function has returned cannot be text. The message is for the model."""


def result_text(value: Any) -> str:
    """Return what a function has returned as text: a text as it is, None as "", everything else as JSON.

    Dataclasses, pydantic models, enums, dates and NumPy's arrays are JSON. What has no form in JSON, also within other
    values, is named by its type.

    Raises:
        ResultRefused: the value contains itself, or nests too deeply.
    """
    if value is None:
        return ""
    if isinstance(value, str):
        return str.__str__(value)
    if isinstance(value, bytes | bytearray | memoryview):
        return f"<{len(value)} bytes>"
    if hasattr(type(value), "__next__"):
        # It may never end.
        return _named(value)
    try:
        text = to_json(value, bytes_mode="base64", inf_nan_mode="constants", fallback=_as_json).decode()
    except (PydanticSerializationError, ValueError, RecursionError) as unwritable:
        raise ResultRefused(f"The result, of type {type(value).__name__}, is no JSON: {unwritable}") from unwritable
    # An enum or a date for example is a text without quotes.
    return str(json.loads(text)) if text.startswith('"') else text


def _as_json(value: Any) -> Any:
    if hasattr(value, "tolist"):
        return value.tolist()
    return _named(value)


def _named(value: Any) -> str:
    return f"<{type(value).__qualname__}>"


def exception_text(raised: BaseException) -> str:
    """Return the type and the message of an exception, without its traceback."""
    try:
        message = str(raised)
    except Exception:  # noqa: BLE001 (an exception of the program that cannot be shown is still named)
        message = ""
    return shortened(f"{type(raised).__name__}: {message}" if message else type(raised).__name__, MAX_ERROR_CHARS)
