"""Plans the memory of a model and prints it: ``python -m modelyard.engine.hosts.dry_load_program < TASK``.

Standard input holds a pickled ``DryLoad``, and stays open as long as the parent waits. Standard output has one JSON
object: ``{"bytes": {device: [weights, kv, compute, output]}}``, ``{"bytes": null}`` where llama.cpp cannot tell, or
``{"failure": ...}``.
"""

from __future__ import annotations

import json
import os
import pickle
import sys
import threading
from contextlib import suppress

from modelyard.engine.hosts.dry_load import DryLoad, written_bytes
from modelyard.engine.llama import Model, Weights, resolve_here
from modelyard.engine.llama.memory_breakdown import can_break_down, memory_breakdown
from modelyard.engine.loading.load import text_context
from modelyard.engine.pooling.load import pooled_context
from modelyard.errors import UnusableModel
from modelyard.protocol.placement import DeviceBytes, PlacedBytes
from modelyard.system.bounded.processor_time import limit_processor_time


def planned_bytes(task: DryLoad) -> PlacedBytes | None:
    """Return what the model takes of each device; None where llama.cpp cannot tell on this system.

    Raises:
        UnusableModel: llama.cpp cannot load it there.
    """
    settings = task.settings
    placement = resolve_here(settings.placement)
    weights = Weights(
        settings.paths,
        placement=placement,
        on_progress=lambda _: True,
        end_tokens=frozenset(),
        are_repacked=task.repacks,
        is_dry=True,
    )
    model = Model(weights)
    context = text_context(settings, model) if settings.kind == "text" else pooled_context(settings, model)[0]
    if not can_break_down():
        return None
    planned = memory_breakdown(context.pointer)
    # The buffer for outputs is not part of the account. It is allocated also in a dry load.
    for name, logged in context.device_bytes.items():
        planned[name] = planned.get(name, DeviceBytes()) + DeviceBytes(output=logged.output)
    return planned


def main() -> int:
    """Run the dry load that standard input describes, and return the exit status."""
    task: DryLoad = pickle.load(sys.stdin.buffer)
    threading.Thread(target=_end_with_parent, daemon=True).start()
    limit_processor_time(task.cpu_s)
    try:
        planned = planned_bytes(task)
    except UnusableModel as unusable:
        report: dict[str, object] = {"failure": str(unusable)}
    else:
        report = {"bytes": None if planned is None else written_bytes(planned)}
    sys.stdout.write(json.dumps(report) + "\n")
    sys.stdout.flush()
    return 0


def _end_with_parent() -> None:
    with suppress(OSError):
        while os.read(0, 4096):
            pass
    os._exit(1)


if __name__ == "__main__":
    status = main()
    # Skip the cleanup, which could hang or crash on threads of llama.cpp.
    os._exit(status)
