"""Streams of chunks for programs: one for an event loop, one for any thread."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncGenerator, Callable
from contextlib import suppress
from typing import Generic, Self, TypeVar

from modelyard.errors import Closed, ModelyardError
from modelyard.inprocess.answers import ChatCompletionChunk, Completion
from modelyard.inprocess.loop_thread import LoopThread

_Owner = TypeVar("_Owner")
_Chunk = TypeVar("_Chunk")


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
            chunk = self._thread.call(lambda _: self._reader.next())
        except BaseException:
            self._has_ended = True
            raise
        if chunk is None:
            self._has_ended = True
            raise StopIteration
        return chunk

    def close(self) -> None:
        """End the generation. Idempotent; a thread that is reading reaches the end of the stream."""
        self._has_ended = True
        # A model that is closed has ended its streams.
        with suppress(Closed):
            self._thread.call(lambda _: self._reader.close())

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()

    def __del__(self) -> None:
        if hasattr(self, "_has_ended") and not self._has_ended:
            # A finalizer may run on any thread, so it must not block.
            with suppress(ModelyardError):
                self._thread.post(lambda _: self._reader.close())

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


class _Reader(Generic[_Chunk]):
    """Reads a stream on its event loop, where ``close`` can cancel the read."""

    def __init__(self, stream: _AsyncStream[_Chunk]) -> None:
        self.stream = stream
        self._reading: asyncio.Future[_Chunk | None] | None = None

    async def next(self) -> _Chunk | None:
        """Return the next chunk; None at the end of the stream and after ``close``."""
        self._reading = asyncio.ensure_future(self._read())
        try:
            await asyncio.wait((self._reading,))
        finally:
            self._reading.cancel()
        return None if self._reading.cancelled() else self._reading.result()

    async def close(self) -> None:
        """Cancel a pending read and close the stream."""
        if self._reading is not None and not self._reading.done():
            self._reading.cancel()
            await asyncio.wait((self._reading,))
        await self.stream.aclose()

    async def _read(self) -> _Chunk | None:
        return await anext(self.stream, None)
