"""Prints the devices of llama.cpp with their free memory as a line of JSON, for each line of its standard input.

``python -m modelyard.engine.hosts.device_report_program``. It ends at the end of its input, and so with its parent. It
runs as a program of its own: asking a device that is gone may end its process. A llama.cpp that cannot be loaded has no
devices; whoever loads a model says why.
"""

from __future__ import annotations

import sys
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


if __name__ == "__main__":
    for _ in sys.stdin:
        report(devices=_devices())
