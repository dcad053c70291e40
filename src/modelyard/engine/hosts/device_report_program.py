"""Prints the devices of llama.cpp with their free memory as a line of JSON, for each line of its standard input.

``python -m modelyard.engine.hosts.device_report_program``. It ends at the end of its input, and so with its parent,
also while a driver does not answer. It runs as a program of its own: asking a device that is gone may end its process.
A llama.cpp that cannot be loaded has no devices; whoever loads a model says why.
"""

from __future__ import annotations

import os
import queue
import sys
import threading
from dataclasses import asdict
from typing import Any

from modelyard.errors import LlamaCppUnusable
from modelyard.system.reporting_process import report


def _devices() -> list[dict[str, Any]]:
    try:
        from modelyard.engine.llama import devices
    except LlamaCppUnusable:
        return []
    return [asdict(device) for device in devices()]


def _read_input(asked: queue.SimpleQueue[None]) -> None:
    for _ in sys.stdin:
        asked.put(None)
    os._exit(0)


if __name__ == "__main__":
    asked: queue.SimpleQueue[None] = queue.SimpleQueue()
    threading.Thread(target=_read_input, args=(asked,), daemon=True).start()
    while True:
        asked.get()
        report(devices=_devices())
