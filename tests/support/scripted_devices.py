"""Devices for tests of the yard that need no llama.cpp: the test decides what is read of them, and when."""

from __future__ import annotations

import queue
import threading
from dataclasses import replace
from typing import Final

from modelyard.engine.hosts.device_reader import DevicesNotRead
from modelyard.engine.placing import LlamaDevice

WAIT_S: Final = 20.0
GIB: Final = 1 << 30
CPU: Final = LlamaDevice("CPU", "a processor", "cpu", 5 * GIB, 8 * GIB, "CPU")
FIRST, SECOND = (LlamaDevice(f"CUDA{number}", "a card", "gpu", 20 * GIB, 24 * GIB, "CUDA") for number in range(2))

Reading = tuple[LlamaDevice, ...] | None | Exception
"""What is read at once; None: the child ends."""


class ScriptedReader:
    """Reads what the test has put in, in this order; each reading waits for it."""

    def __init__(self, *readings: Reading) -> None:
        self.readings: queue.SimpleQueue[Reading] = queue.SimpleQueue()
        for reading in readings:
            self.readings.put(reading)
        self.is_closed = False
        self.count = 0
        # One for each reading that has begun.
        self.begun = threading.Semaphore(0)

    def read(self) -> tuple[LlamaDevice, ...]:
        self.count += 1
        self.begun.release()
        reading = None if self.is_closed else self.readings.get(timeout=WAIT_S)
        if reading is None:
            raise DevicesNotRead("its process is gone")
        if isinstance(reading, Exception):
            raise reading
        return reading

    def close(self) -> None:
        self.is_closed = True
        self.readings.put(None)


def taken_by_others(device: LlamaDevice, size: int) -> LlamaDevice:
    """The device once another program has taken ``size`` bytes more."""
    return replace(device, free_bytes=device.free_bytes - size)
