"""A tokenizer that hangs or dies takes nothing with it but its text."""

from __future__ import annotations

import textwrap
import threading
from collections.abc import Iterator
from pathlib import Path

import pytest

from modelyard.engine.input import tokenizer_process
from modelyard.engine.input.tokenizer_process import TokenizerProcesses
from modelyard.errors import EngineError, InvalidRequest

# Answers a text with its length and its flags; "hang" and "die" do what they say, and "spin" takes processor time.
PROGRAM = """
import os, sys, time
from array import array
from modelyard.engine.bounded.processor_time import limit_processor_time
from modelyard.engine.input.tokenizer_framing import ANSWER, REQUEST
print("ready", file=sys.stderr)
while head := sys.stdin.buffer.read(REQUEST.size):
    length, add_special, parse_special = REQUEST.unpack(head)
    text = sys.stdin.buffer.read(length)
    if text == b"hang":
        time.sleep(600)
    if text == b"die":
        os.abort()
    if text == b"spin":
        limit_processor_time(0.1)
        while True: pass
    tokens = array("i", [length, add_special, parse_special, os.getpid()])
    sys.stdout.buffer.write(ANSWER.pack(len(tokens)) + tokens.tobytes())
    sys.stdout.buffer.flush()
"""


@pytest.fixture
def processes() -> Iterator[TokenizerProcesses]:
    processes = TokenizerProcesses("small", [], ("-c", textwrap.dedent(PROGRAM)))
    yield processes
    processes.close()


def tokenize(processes: TokenizerProcesses, text: bytes) -> list[int]:
    return processes.tokenize(text, add_special=True, parse_special=False)


def test_a_process_is_used_again(processes: TokenizerProcesses) -> None:
    *first, process = tokenize(processes, b"x" * 300_000)
    assert first == [300_000, 1, 0]
    assert tokenize(processes, b"") == [0, 1, 0, process]


def test_a_process_that_dies_is_replaced(processes: TokenizerProcesses) -> None:
    with pytest.raises(InvalidRequest, match="ends its process"):
        tokenize(processes, b"die")
    assert tokenize(processes, b"abc")[0] == 3


def test_processor_time_is_bounded(processes: TokenizerProcesses) -> None:
    with pytest.raises(InvalidRequest, match="too long to tokenise"):
        tokenize(processes, b"spin")
    assert tokenize(processes, b"abc")[0] == 3


def test_the_clock_bounds_what_only_waits(processes: TokenizerProcesses, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(tokenizer_process, "PATIENCE", 0.01)
    with pytest.raises(InvalidRequest, match="too long to tokenise"):
        tokenize(processes, b"hang")


def test_closing_ends_those_at_work_and_nothing_begins_afterwards(processes: TokenizerProcesses) -> None:
    ended = threading.Event()

    def ask() -> None:
        with pytest.raises(InvalidRequest):
            tokenize(processes, b"hang")
        ended.set()

    thread = threading.Thread(target=ask)
    thread.start()
    while not processes.busy:
        pass
    processes.close()
    assert ended.wait(30)
    thread.join()
    with pytest.raises(EngineError):
        tokenize(processes, b"abc")


def test_nothing_is_started_before_it_is_needed(tmp_path: Path) -> None:
    processes = TokenizerProcesses("small", [tmp_path / "nothing.gguf"])
    assert not processes.busy
    processes.close()
