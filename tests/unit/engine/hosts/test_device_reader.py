"""Devices are read through one child, which may end or hang at any time."""

from __future__ import annotations

import threading
import time
from collections.abc import Iterator
from pathlib import Path

import pytest

from modelyard.engine.hosts.device_reader import DeviceReader, DevicesNotRead

# Answers with its process id as the free memory, and the number of the reading as the description.
SOUND = """
import json, os, sys
print("a driver prints, too", flush=True)
for number, _ in enumerate(sys.stdin):
    device = {"name": "CUDA0", "description": str(number), "kind": "gpu", "free_bytes": os.getpid(), "total_bytes": 100}
    print(json.dumps({"devices": [device]}), flush=True)
"""
# Answers once, and ends.
MORTAL = SOUND + "    sys.exit(7)\n"
# Leaves a file behind, and answers never.
HANGING = "import sys, time; open(sys.argv[1], 'w').close(); time.sleep(600)"


@pytest.fixture
def readers() -> Iterator[list[DeviceReader]]:
    made: list[DeviceReader] = []
    yield made
    for reader in made:
        reader.close()
    assert not [thread for thread in threading.enumerate() if thread.name == "devices"]


def reader_of(readers: list[DeviceReader], *program: str, first_s: float = 30.0) -> DeviceReader:
    readers.append(DeviceReader(("-c", *program), first_s=first_s, next_s=first_s))
    return readers[-1]


def test_all_readings_are_of_one_child(readers: list[DeviceReader]):
    reader = reader_of(readers, SOUND)
    (first,), (second,) = reader.read(), reader.read()
    assert first.free_bytes == second.free_bytes
    assert (first.description, second.description) == ("0", "1")


def test_a_child_that_has_ended_is_replaced_with_the_next_reading(readers: list[DeviceReader]):
    reader = reader_of(readers, MORTAL)
    (first,) = reader.read()
    with pytest.raises(DevicesNotRead, match="its process ended with status 7"):
        reader.read()
    (second,) = reader.read()
    assert first.free_bytes != second.free_bytes


def test_a_child_that_does_not_answer_in_time_is_ended(readers: list[DeviceReader], tmp_path: Path):
    reader = reader_of(readers, HANGING, str(tmp_path / "started"), first_s=0.5)
    with pytest.raises(DevicesNotRead, match=r"have not answered within 0 s|within 1 s"):
        reader.read()


def test_closing_ends_a_reading_that_waits(readers: list[DeviceReader], tmp_path: Path):
    started, refused = tmp_path / "started", threading.Event()
    reader = reader_of(readers, HANGING, str(started))

    def read() -> None:
        with pytest.raises(DevicesNotRead, match="SIGKILL"):
            reader.read()
        refused.set()

    thread = threading.Thread(target=read)
    thread.start()
    deadline = time.monotonic() + 30
    while not started.exists() and time.monotonic() < deadline:
        time.sleep(0.01)
    reader.close()
    assert refused.wait(30)
    thread.join()
    with pytest.raises(DevicesNotRead, match="closed"):
        reader.read()
