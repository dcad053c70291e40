"""What a server answers with, as far as commands read it: a program that answers otherwise is not Modelyard."""

from __future__ import annotations

from collections.abc import Mapping
from datetime import datetime
from types import FunctionType
from typing import Any, Final


def _is_time(value: object) -> bool:
    try:
        return isinstance(value, str) and bool(datetime.fromisoformat(value).astimezone())
    except (ValueError, OverflowError):
        return False


# A shape is a type, a function that tells, a text that is meant literally, or consists of shapes: {key: shape}, where
# a missing key is None and "*" is every key, [shape] for each item, (shape, shape) for either.
_NUMBER: Final = int | float | None
_DEVICE_BYTES: Final = ({"*": int}, type(None))
_MODEL: Final[Mapping[str, Any]] = {
    "id": str,
    "state": str,
    "running": int,
    "waiting": int,
    **dict.fromkeys(("aliases", "capabilities", "input_modalities", "warnings"), ([str], type(None))),
    **dict.fromkeys(("source", "kind", "quantization", "device", "placement", "stage", "error"), str | None),
    **dict.fromkeys(("context_length", "size_bytes", "resident_bytes", "predicted_bytes", "shared_bytes"), int | None),
    **dict.fromkeys(("load_seconds", "idle_seconds", "unloads_after_seconds", "unloads_in_seconds"), _NUMBER),
    "progress": _NUMBER,
    "device_bytes": _DEVICE_BYTES,
}
_LOG_LINE: Final[Mapping[str, Any]] = {"time": _is_time, "level": str, "message": str}
_ANSWERS: Final[Mapping[str, Any]] = {
    "/v1/server": {
        "object": "server",
        "models": [_MODEL],
        "memory": (
            {
                "used_bytes": int,
                "budget_bytes": int,
                "devices": ({"*": {"used_bytes": int, "budget_bytes": int}}, type(None)),
            },
            type(None),
        ),
    },
    "/v1/nodes": {
        "data": [
            {
                "id": str,
                "status": str,
                "memory": {"used_bytes": int, "budget_bytes": int},
                "models": {
                    "*": {"status": str, "running": int, "waiting": int, "resident_bytes": int, "error": str | None}
                },
            }
        ]
    },
    "/v1/models/plan": {
        "node": str | None,
        "outcome": str,
        "needed_bytes": int,
        "free_bytes": int,
        "budget_bytes": int,
        "load_seconds": int | float,
        "placement": str | None,
        "tokens_per_second": _NUMBER,
        "devices": ({"*": {"needed_bytes": int, "free_bytes": int, "budget_bytes": int}}, type(None)),
        "evicts": [{"model_id": str, "bytes": int, "reason": str, "device_bytes": _DEVICE_BYTES}],
    },
    "/v1/config/reload": {
        "applied": bool,
        "changed": {"*": {"keys": [str], "how": str, "error": str | None}},
        **{key: [str] for key in ("added", "removed", "retuned", "memory", "needs_restart")},
        "mcp": ([str], type(None)),
    },
    "/v1/logs": {"data": [_LOG_LINE]},
    "/v1/agent/tools": {
        "data": [{"name": str, "server": str, "own_name": str, "description": str, "needs_approval": bool}]
    },
    "/v1/agent/servers": {"data": [{"name": str, "state": str, "reason": str | None}]},
}
_EVENTS: Final[Mapping[str, Any]] = {
    "/v1/models/events": {
        "model_id": str,
        "status": str,
        "stage": str | None,
        "placement": str | None,
        "progress": _NUMBER,
    },
    "/v1/logs": _LOG_LINE,
}


def is_answer(path: str, answer: object) -> bool:
    """Whether ``answer`` has what commands read of the answer of the endpoint at ``path``, which may have a query."""
    return _has_shape(answer, _ANSWERS.get(path.partition("?")[0], dict))


def is_event(path: str, data: object) -> bool:
    """Whether ``data`` has what commands read of an event of the endpoint at ``path``, which may have a query."""
    return _has_shape(data, _EVENTS[path.partition("?")[0]])


def _has_shape(value: Any, shape: Any) -> bool:
    match shape:
        case tuple():
            return any(_has_shape(value, each) for each in shape)
        case list():
            return isinstance(value, list) and all(_has_shape(each, shape[0]) for each in value)
        case {"*": each}:
            return isinstance(value, dict) and all(_has_shape(item, each) for item in value.values())
        case dict():
            return isinstance(value, dict) and all(_has_shape(value.get(key), each) for key, each in shape.items())
        case str():
            return bool(value == shape)
        case FunctionType():
            return bool(shape(value))
        case _:
            return isinstance(value, shape)
