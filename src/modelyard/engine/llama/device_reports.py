"""Prints the devices of llama.cpp with their free memory as a line of JSON, for each line of its standard input.

``python -m modelyard.engine.llama.device_reports``. It ends at the end of its input, and so with its parent. It runs
as a program of its own: asking a device that is gone may end its process.
"""

from __future__ import annotations

import sys
from dataclasses import asdict

from modelyard.engine.llama import devices
from modelyard.system.reporting_process import report

if __name__ == "__main__":
    for _ in sys.stdin:
        report(devices=[asdict(device) for device in devices()])
