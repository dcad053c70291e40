"""Streams of chunks for programs: one for an event loop, one for any thread."""

from __future__ import annotations

import asyncio
import threading
from collections.abc import AsyncGenerator, Callable
from contextlib import suppress
from dataclasses import dataclass
from queue import Empty, SimpleQueue
from typing import Final, Generic, Self, TypeVar

from modelyard.errors import Closed, ModelyardError
from modelyard.inprocess.answers import ChatCompletionChunk, Completion
from modelyard.inprocess.loop_thread import LoopThread, without_loop_frames

_Owner = TypeVar("_Owner")
_Chunk = TypeVar("_Chunk")

# Chunks that are read ahead of a thread; later text waits and becomes one chunk.
_MAX_AHEAD: Final = 64

# How often a thread that waits for a chunk looks whether the model was closed.
_CHECK_S: Final = 5.0


class _AsyncStream(Generic[_Chunk]):
    """Chunks for one reader on the event loop of the model."""

    def __init__(self, chunks: AsyncGenerator[_Chunk], model: str) -> None:
        self._chunks = chunks
        self.model = model

    def __aiter__(self) -> Self:
        return self

    async def __anext__(self) -> _Chunk:
        return await anext(self._chunks)

    async def aclose(self) -> None:
        """End the generation. Idempotent."""
        await self._chunks.aclose()

    async def __aenter__(self) -> Self:
        return self

    async def __aexit__(self, *_: object) -> None:
        await self.aclose()

    def __repr__(self) -> str:
        return f"<{type(self).__name__} of '{self.model}'>"


class AsyncChatStream(_AsyncStream[ChatCompletionChunk]):
    """An answer as it arrives. Iterate it once; leaving its context, or ``aclose``, ends the generation within a step.

    The request starts when the first chunk is read. Use a context if the stream may not be read to its end:

        async with model.stream_chat_request("Tell me a story.") as stream:
            async for chunk in stream:
                print(chunk.choices[0].delta.content or "", end="")

    Attributes:
        model: id of the model that answers.
    """


class AsyncCompletionStream(_AsyncStream[Completion]):
    """Continued texts as they arrive: ``piece.choices[0].text``. Otherwise like AsyncChatStream."""


class _Stream(Generic[_Chunk]):
    """Chunks for one reader on any thread."""

    def __init__(
        self, owner: object, thread: LoopThread[_Owner], chunks: Callable[[_Owner], _AsyncStream[_Chunk]]
    ) -> None:
        # A model closes its thread when it is collected, so the stream keeps a reference to it.
        self._owner, self._thread = owner, thread
        self._reader = thread.call_sync(lambda value: _Reader(chunks(value)))
        self._starting, self._has_started = threading.Lock(), False
        self._has_ended = False

    @property
    def model(self) -> str:
        """Id of the model that answers."""
        return self._reader.stream.model

    def __iter__(self) -> Self:
        return self

    def __next__(self) -> _Chunk:
        if self._has_ended:
            raise StopIteration
        try:
            self._thread.check_caller()
            self._start()
            chunk = self._next()
        except BaseException:
            self._has_ended = True
            self._end_soon()
            raise
        if self._reader.is_waiting and self._reader.chunks.qsize() < _MAX_AHEAD // 2:
            self._thread.wake(self._reader.room.set)
        return chunk

    def _start(self) -> None:
        with self._starting:
            if not self._has_started:
                reader = self._reader
                self._thread.submit(lambda _: reader.read_ahead())
                self._has_started = True

    def _next(self) -> _Chunk:
        chunks = self._reader.chunks
        while True:
            try:
                chunk = chunks.get(timeout=_CHECK_S)
            except Empty:
                self._thread.check()
                continue
            if isinstance(chunk, _End):
                # Another thread may be reading, too.
                chunks.put(chunk)
                raise StopIteration if chunk.error is None else without_loop_frames(chunk.error)
            return chunk

    def close(self) -> None:
        """End the generation. Idempotent; a thread that is reading reaches the end of the stream."""
        self._has_ended = True
        reader = self._reader
        # A model that is closed has ended its streams.
        with suppress(Closed):
            self._thread.call(lambda _: reader.close())

    def _end_soon(self) -> None:
        """End the generation without waiting for it."""
        reader = self._reader
        with suppress(ModelyardError):
            self._thread.post(lambda _: reader.close())

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()

    def __del__(self) -> None:
        if hasattr(self, "_has_ended") and not self._has_ended:
            # A finalizer may run on any thread, so it must not block.
            self._end_soon()

    def __repr__(self) -> str:
        return f"<{type(self).__name__} of '{self.model}'{', ended' if self._has_ended else ''}>"


class ChatStream(_Stream[ChatCompletionChunk]):
    """An answer as it arrives. Iterate it once; ``close``, from any thread, ends the generation within a step.

    The request starts when the first chunk is read. Use a context if the stream may not be read to its end:

        with model.stream_chat_request("Tell me a story.") as stream:
            for chunk in stream:
                print(chunk.choices[0].delta.content or "", end="")
    """


class CompletionStream(_Stream[Completion]):
    """Continued texts as they arrive: ``piece.choices[0].text``. Otherwise like ChatStream."""


@dataclass(frozen=True, slots=True)
class _End:
    """The end of a stream: the error that ended it, or None."""

    error: Exception | None


class _Reader(Generic[_Chunk]):
    """Reads a stream on its event loop, ahead of the thread that takes the chunks.

    A coroutine for each chunk would take more of the event loop than the chunk itself.

    Attributes:
        chunks: what was read, and is not taken yet.
        is_waiting: whether it waits until some of them are taken; ``room`` wakes it.
    """

    def __init__(self, stream: _AsyncStream[_Chunk]) -> None:
        self.stream = stream
        self.chunks: SimpleQueue[_Chunk | _End] = SimpleQueue()
        self.room, self.is_waiting = asyncio.Event(), False
        self._task: asyncio.Task[None] | None = None
        self._is_closed = False

    async def read_ahead(self) -> None:
        """Read the stream to its end."""
        end = _End(None)
        self._task = asyncio.current_task()
        try:
            async for chunk in self.stream:
                self.chunks.put(chunk)
                if self.chunks.qsize() >= _MAX_AHEAD:
                    await self._wait_for_room()
        except asyncio.CancelledError:
            end = _End(None if self._is_closed else Closed())
            raise
        except Exception as error:  # noqa: BLE001 (raised where the stream is read)
            end = _End(error)
        finally:
            self.chunks.put(end)

    async def _wait_for_room(self) -> None:
        self.room.clear()
        self.is_waiting = True
        # The other thread may have taken them before it could see that this one waits.
        if self.chunks.qsize() >= _MAX_AHEAD:
            await self.room.wait()
        self.is_waiting = False

    async def close(self) -> None:
        """Cancel the reading and close the stream."""
        self._is_closed = True
        if self._task is not None and not self._task.done():
            self._task.cancel()
            await asyncio.wait((self._task,))
        await self.stream.aclose()
