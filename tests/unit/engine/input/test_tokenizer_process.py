"""A tokenizer that hangs or dies takes nothing with it but its text."""

from __future__ import annotations

from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor

import pytest

from modelyard.engine.input import tokenizer_process
from modelyard.engine.input.tokenizer_process import TokenizerProcesses
from modelyard.errors import EngineError, InvalidRequest, PromptUnread

WAIT_S = 60


@pytest.fixture
def processes() -> Iterator[TokenizerProcesses]:
    processes = TokenizerProcesses("small", [], "unit.engine.input.scripted_tokenizer")
    yield processes
    processes.close()


def tokenize(processes: TokenizerProcesses, text: bytes) -> list[int]:
    return processes.tokenize(text, add_special=True, parse_special=False)


def test_a_process_is_used_again_and_gets_each_byte(processes: TokenizerProcesses) -> None:
    *first, process = tokenize(processes, b"x" * 300_000)
    assert first == [300_000, True, False]
    assert tokenize(processes, bytes(range(256))) == [256, True, False, process]


def test_a_process_that_dies_is_replaced(processes: TokenizerProcesses) -> None:
    with pytest.raises(InvalidRequest, match="ended its process"):
        tokenize(processes, b"die")
    assert tokenize(processes, b"abc")[0] == 3


def test_processor_time_is_bounded(processes: TokenizerProcesses) -> None:
    with pytest.raises(InvalidRequest, match="did not end within"):
        tokenize(processes, b"spin")
    assert tokenize(processes, b"abc")[0] == 3


def test_the_clock_bounds_what_only_waits(processes: TokenizerProcesses, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(tokenizer_process, "cpu_seconds", lambda _: 0.1)
    with pytest.raises(InvalidRequest, match=r"did not end within 0\.1 s"):
        tokenize(processes, b"hang")


def test_closing_ends_those_at_work_and_nothing_begins_afterwards(processes: TokenizerProcesses) -> None:
    tokenize(processes, b"abc")
    with ThreadPoolExecutor() as threads:
        waiting = threads.submit(tokenize, processes, b"hang")
        processes.close()
        # As it was met: at work, or on its way there.
        assert isinstance(waiting.exception(WAIT_S), InvalidRequest | EngineError)
    with pytest.raises(PromptUnread, match="cannot be used") as refused:
        tokenize(processes, b"abc")
    assert (refused.value.status, refused.value.retry_after_s) == (503, 10)


def test_nothing_is_started_before_it_is_needed(processes: TokenizerProcesses) -> None:
    assert processes.pids == []
    *_, process = tokenize(processes, b"abc")
    assert processes.pids == [process]
