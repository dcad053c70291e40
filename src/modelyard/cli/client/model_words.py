"""A model of ``GET /v1/server`` in the words of tables."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, Final

from modelyard.cli.client.output import duration

_STATES: Final = {"sizing": "preparing", "freeing": "unloading"}


def state(model: Mapping[str, Any]) -> str:
    """Return the state of a model, with the progress of a load."""
    word = _STATES.get(model["state"], model["state"])
    stage, progress = model.get("stage"), model.get("progress")
    if stage is None:
        return str(word)
    return f"{stage} {progress:.0%}" if progress else str(stage)


def requests(model: Mapping[str, Any]) -> str:
    """Return how many requests run and wait."""
    running, waiting = model["running"], model["waiting"]
    parts = [f"{running} running"] if running else []
    parts += [f"{waiting} waiting"] if waiting else []
    return ", ".join(parts) or "none"


def context(model: Mapping[str, Any]) -> str:
    """Return the length of the context in tokens; "" where it is not known."""
    length = model.get("context_length")
    return "" if length is None else f"{length:,}"


def unloads(model: Mapping[str, Any]) -> str:
    """Return when a model that takes memory is unloaded."""
    if model.get("pinned"):
        return "never"
    if model["state"] not in ("loaded", "parked"):
        return ""
    left_s = model.get("unloads_in_seconds")
    if left_s is None:
        return "if evicted"
    return f"in {duration(left_s)}" if model.get("idle_seconds") is not None else f"after {duration(left_s)}"
