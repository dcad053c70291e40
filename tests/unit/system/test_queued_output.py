"""A writer of queued output never waits for a reader."""

from __future__ import annotations

import os
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from typing import TextIO

import pytest

from modelyard.system.queued_output import MAX_WAITING_CHARS, QueuedOutput

WAIT_S = 30


@pytest.fixture
def pipe() -> Iterator[tuple[int, TextIO]]:
    """The descriptor that reads, and the stream that writes."""
    reading, writing = os.pipe()
    with os.fdopen(writing, "w") as stream:
        yield reading, stream
        os.close(reading)


def read_until(reading: int, end: str) -> str:
    text = ""
    while not text.endswith(end):
        text += os.read(reading, 1 << 16).decode()
    return text


def test_what_is_written_arrives_in_its_order(pipe: tuple[int, TextIO]) -> None:
    reading, target = pipe
    output = QueuedOutput()
    stream = output.stream(target)
    for number in range(100):
        print(number, file=stream)
    assert output.drain(WAIT_S)
    assert read_until(reading, "99\n").split() == [str(number) for number in range(100)]


def test_a_writer_does_not_wait_for_a_reader_that_reads_nothing(pipe: tuple[int, TextIO]) -> None:
    reading, target = pipe
    output = QueuedOutput()
    stream = output.stream(target)
    line = "x" * 1023 + "\n"
    # More than a pipe and the queue take together: a write that waited would wait for ever.
    for _ in range(2 * MAX_WAITING_CHARS // len(line)):
        stream.write(line)
    assert not output.drain(0.01)
    with ThreadPoolExecutor(1) as pool:
        read = pool.submit(read_until, reading, "the end\n")
        assert output.drain(WAIT_S)
        stream.write("the end\n")
        text = read.result(WAIT_S)
    assert text.count(line) >= MAX_WAITING_CHARS // len(line)
    assert "writes were dropped" in text


def test_a_reader_that_is_gone_is_no_error_for_the_writer() -> None:
    reading, writing = os.pipe()
    os.close(reading)
    with os.fdopen(writing, "w") as target:
        output = QueuedOutput()
        stream = output.stream(target)
        stream.write("nobody reads this\n")
        assert output.drain(WAIT_S)
        # What is left in the buffer of the target cannot be written either.
        os.dup2(os.open(os.devnull, os.O_WRONLY), writing)


def test_streams_of_one_output_keep_their_order(pipe: tuple[int, TextIO]) -> None:
    reading, target = pipe
    output = QueuedOutput()
    first, second = output.stream(target), output.stream(target)
    for number in range(100):
        print(number, file=first if number % 2 else second)
    assert read_until(reading, "99\n").split() == [str(number) for number in range(100)]
