"""A model of ``GET /v1/server`` in the words of tables."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, Final

from modelyard.cli.client.output import duration
from modelyard.protocol.placement import HOST_NAME
from modelyard.system.quantities import size_text

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


def place(model: Mapping[str, Any]) -> str:
    """Return where a model is: its placement, or else the name of the only device; "" where that is not known."""
    return str(model.get("placement") or model.get("device", "").upper())


def on_place(placement: str | None) -> str:
    """Return a placement behind what happens there, such as " on CUDA0"; "" for none."""
    return f" on {'the host' if placement == HOST_NAME else placement}" if placement else ""


def device_sizes(sizes: Mapping[str, int] | None) -> str:
    """Return amounts of memory of devices, such as "9.1 GB of CUDA0, 2.0 GB of CUDA1"; "" for none."""
    return ", ".join(f"{size_text(size)} of {device}" for device, size in (sizes or {}).items())
