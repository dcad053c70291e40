"""Plans the memory of a model and prints it: ``python -m modelyard.engine.hosts.dry_load_program < SETTINGS``.

Standard input holds pickled ``EngineSettings``, and stays open as long as the parent waits. Standard output has one
JSON object: ``{"bytes": {device: [weights, kv, compute, output]}}``, ``{"bytes": null}`` where llama.cpp cannot tell,
or ``{"failure": ...}``.
"""

from __future__ import annotations

import os
import pickle
import sys
from dataclasses import astuple

from modelyard.engine.hosts.dry_load import CPU_S
from modelyard.engine.llama import Model, Weights, resolve_here
from modelyard.engine.llama.memory_breakdown import can_break_down, memory_breakdown
from modelyard.engine.loading.load import text_context
from modelyard.engine.pooling.load import pooled_context
from modelyard.engine.settings import EngineSettings
from modelyard.errors import UnusableModel
from modelyard.protocol.placement import DeviceBytes, PlacedBytes, added
from modelyard.system.bounded.processor_time import limit_processor_time
from modelyard.system.reporting_process import end_with_parent, report


def planned_bytes(settings: EngineSettings) -> PlacedBytes | None:
    """Return what the model takes of each device; None where llama.cpp cannot tell on this system.

    Raises:
        UnusableModel: llama.cpp cannot load it there.
    """
    placement = resolve_here(settings.placement)
    weights = Weights(
        settings.paths,
        placement=placement,
        on_progress=lambda _: True,
        end_tokens=frozenset(),
        is_dry=True,
    )
    model = Model(weights)
    context = text_context(settings, model) if settings.kind == "text" else pooled_context(settings, model)[0]
    if not can_break_down():
        return None
    # The buffer for outputs is not part of the account. It is allocated also in a dry load.
    outputs = {name: DeviceBytes(output=logged.output) for name, logged in context.device_bytes.items()}
    return added([memory_breakdown(context.pointer), outputs])


def main() -> int:
    """Run the dry load that standard input describes, and return the exit status."""
    settings: EngineSettings = pickle.load(sys.stdin.buffer)
    end_with_parent()
    limit_processor_time(CPU_S)
    try:
        planned = planned_bytes(settings)
    except UnusableModel as unusable:
        report(failure=str(unusable))
    else:
        report(bytes=None if planned is None else {name: astuple(each) for name, each in planned.items()})
    return 0


if __name__ == "__main__":
    status = main()
    # Skip the cleanup, which could hang or crash on threads of llama.cpp.
    os._exit(status)
