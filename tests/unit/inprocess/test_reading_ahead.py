"""Chunks are read ahead of the thread that takes them, within bounds."""

from __future__ import annotations

import asyncio
import contextlib
import threading
from collections.abc import AsyncGenerator, AsyncIterator, Iterator
from typing import Any

import pytest

from modelyard.errors import Closed
from modelyard.inprocess.loop_thread import LoopThread
from modelyard.inprocess.streams import _MAX_AHEAD, AsyncChatStream, ChatStream


@contextlib.asynccontextmanager
async def _nothing() -> AsyncIterator[None]:
    yield None


@pytest.fixture
def thread() -> Iterator[LoopThread[None]]:
    thread = LoopThread(_nothing, "loop")
    yield thread
    thread.close()


class Numbers:
    """A stream of numbers as far as they are asked for."""

    def __init__(self, count: int, *, waits_at: int | None = None) -> None:
        self.made, self.has_ended = 0, threading.Event()
        self._count, self._waits_at = count, waits_at

    async def chunks(self) -> AsyncGenerator[Any]:
        try:
            for number in range(self._count):
                if number == self._waits_at:
                    await asyncio.Event().wait()
                self.made += 1
                yield number
                await asyncio.sleep(0)
        finally:
            self.has_ended.set()

    def stream(self, thread: LoopThread[None]) -> ChatStream:
        return ChatStream(self, thread, lambda _: AsyncChatStream(self.chunks(), "model"))


def test_all_chunks_arrive_in_their_order_and_no_more_are_read_than_there_is_room_for(thread: LoopThread[None]) -> None:
    numbers = Numbers(5 * _MAX_AHEAD)
    stream, taken = numbers.stream(thread), []
    for number in stream:
        taken.append(number)
        # The loop has had its turn.
        thread.call_sync(lambda _: None)
        assert numbers.made <= len(taken) + _MAX_AHEAD + 1
    assert taken == list(range(5 * _MAX_AHEAD))


def test_nothing_is_read_before_the_first_chunk_is_asked_for(thread: LoopThread[None]) -> None:
    numbers = Numbers(3)
    stream = numbers.stream(thread)
    thread.call_sync(lambda _: None)
    assert numbers.made == 0
    assert list(stream) == [0, 1, 2]


def test_a_reader_that_is_interrupted_ends_the_stream(
    thread: LoopThread[None], monkeypatch: pytest.MonkeyPatch
) -> None:
    numbers = Numbers(3, waits_at=1)
    stream = numbers.stream(thread)
    assert next(stream) == 0

    def interrupted() -> None:
        raise KeyboardInterrupt

    monkeypatch.setattr(stream, "_next", interrupted)
    with pytest.raises(KeyboardInterrupt):
        next(stream)
    assert numbers.has_ended.wait(30)
    assert list(stream) == []


def test_threads_that_read_one_stream_all_reach_its_end(thread: LoopThread[None]) -> None:
    numbers = Numbers(200)
    stream, found = numbers.stream(thread), list[list[Any]]()
    readers = [threading.Thread(target=lambda: found.append(list(stream))) for _ in range(3)]
    for reader in readers:
        reader.start()
    for reader in readers:
        reader.join(30)
    assert sorted(number for each in found for number in each) == list(range(200))


def test_a_model_that_is_closed_ends_a_reader_that_waits(thread: LoopThread[None]) -> None:
    stream = Numbers(3, waits_at=1).stream(thread)
    assert next(stream) == 0
    closing = threading.Timer(0, thread.close)
    closing.start()
    with pytest.raises(Closed):
        next(stream)
    closing.join(30)
