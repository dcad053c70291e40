"""Decodes the images and the sound of requests in processes of ``decoder_program``."""

from __future__ import annotations

import json
import os
import socket
from collections.abc import Iterator
from dataclasses import dataclass, field
from typing import Any, Final, Literal

from modelyard.api.media.audio import decode as decode_audio
from modelyard.api.media.base64_digits import from_base64
from modelyard.api.media.images import MAX_PIXELS
from modelyard.api.media.images import decode as decode_image
from modelyard.errors import InvalidRequest, MediaUndecoded
from modelyard.protocol.prompts import SAMPLE_BYTES, Audio, Detail, Image
from modelyard.system.bounded.cancellation import Cancellation
from modelyard.system.bounded.pool import ProcessPool, ProcessUnavailable
from modelyard.system.shared_memory import SharedMemory

MAX_AT_ONCE: Final = 2
"""Files that are decoded at the same time: a small file may unpack to hundreds of MiB."""

MAX_DECODE_S: Final = 10.0
"""Processor time of an image. The largest images take 1 to 3 s; a JPEG with many scans may take hours."""

MAX_IMAGE_MEMORY_BYTES: Final = 32 * MAX_PIXELS
"""Memory to decode an image. WebP and AVIF take the most: 25 bytes a pixel for an image that is not scaled."""

SOUND_MEMORY_BYTES: Final = 192 << 20
"""Memory to decode a clip of sound, in addition to its samples."""

# Copies of the samples in memory: the blocks, the concatenation, and the clipped result.
_COPIES_OF_SAMPLES: Final = 4
_SOUND_S_PER_S: Final = 0.01

# Wall time for each second of processor time: a decoder has a low priority.
_PATIENCE: Final = 12.0

_PROGRAM: Final = "modelyard.api.media.decoder_program"
_PIECE: Final = 1 << 20


@dataclass(frozen=True, slots=True)
class Digits:
    """A file in base64: the part of a data URL from ``start`` on, without a copy."""

    url: str = field(repr=False)
    start: int

    def pieces(self) -> Iterator[bytes]:
        """Yield the digits as bytes, in pieces that are fast to encode."""
        for at in range(self.start, len(self.url), _PIECE):
            yield self.url[at : at + _PIECE].encode("utf-8", "surrogatepass")


EncodedFile = bytes | Digits
"""An encoded image or audio file."""


def sound_limits(rate: int, max_s: float) -> tuple[float, int]:
    """Return the processor time in s and the memory in bytes to decode a clip of ``max_s`` at ``rate``."""
    samples_bytes = round(SAMPLE_BYTES * rate * max_s)
    return MAX_DECODE_S + _SOUND_S_PER_S * max_s, SOUND_MEMORY_BYTES + _COPIES_OF_SAMPLES * samples_bytes


class MediaDecoders:
    """Decodes files in processes with limits. Thread-safe.

    One process for images is kept once it was started; processes for sound end after a while without work; see
    ``bounded.pool``. Without file descriptors over sockets (Windows), the calling thread decodes.

    Args:
        limit_s: processor time of an image.
        limit_bytes: memory of an image.
        in_processes: whether processes decode.
    """

    def __init__(
        self,
        limit_s: float = MAX_DECODE_S,
        limit_bytes: int = MAX_IMAGE_MEMORY_BYTES,
        *,
        in_processes: bool = hasattr(socket, "send_fds"),
    ) -> None:
        self._limit_s, self._limit_bytes, self._in_processes = limit_s, limit_bytes, in_processes
        self._images = ProcessPool(_PROGRAM, ("image",), limit_s=limit_s, max_processes=MAX_AT_ONCE, patience=_PATIENCE)
        self._sounds = ProcessPool(
            _PROGRAM, ("audio",), limit_s=limit_s, max_processes=MAX_AT_ONCE, kept=0, patience=_PATIENCE
        )

    @property
    def pids(self) -> list[int]:
        """Ids of all processes."""
        return [*self._images.pids, *self._sounds.pids]

    def image(
        self,
        encoded: EncodedFile,
        param: str,
        longest_edge: int,
        detail: Detail = "auto",
        cancellation: Cancellation | None = None,
    ) -> Image:
        """Return the image in a file; see ``images.decode``.

        Raises:
            InvalidRequest: the file cannot be decoded, or takes too long or too much memory.
            MediaUndecoded: no process was available.
        """
        if not self._in_processes:
            return decode_image(_whole(encoded, param), param, longest_edge, detail)
        parameters = {"limit_s": self._limit_s, "limit_bytes": self._limit_bytes, "longest_edge": longest_edge}
        answer, pixels = _decode_in("image", self._images, encoded, parameters, param, cancellation)
        return Image(answer["width"], answer["height"], pixels, param, detail)

    def audio(
        self,
        encoded: EncodedFile,
        param: str,
        rate: int,
        max_s: float,
        cancellation: Cancellation | None = None,
    ) -> Audio:
        """Return the sound in a file; see ``audio.decode``.

        Raises:
            InvalidRequest, MediaUndecoded: as ``image``.
        """
        if not self._in_processes:
            return decode_audio(_whole(encoded, param), param, rate, max_s)
        limit_s, limit_bytes = sound_limits(rate, max_s)
        parameters = {"limit_s": limit_s, "limit_bytes": limit_bytes, "rate": rate, "max_s": max_s}
        _, samples = _decode_in("audio", self._sounds, encoded, parameters, param, cancellation)
        return Audio(samples, rate, param)

    def close(self) -> None:
        """End all processes. No method may be called afterwards."""
        self._images.close()
        self._sounds.close()


def _decode_in(
    name: Literal["image", "audio"],
    pool: ProcessPool,
    encoded: EncodedFile,
    parameters: dict[str, Any],
    param: str,
    cancellation: Cancellation | None,
) -> tuple[dict[str, Any], bytes]:
    """Decode a file in a process of ``pool``; return the answer of the process and the decoded bytes."""
    request = json.dumps({**parameters, "is_base64": isinstance(encoded, Digits)}).encode()
    try:
        memory = SharedMemory.empty()
        _fill(memory.descriptor, encoded)
        answer = pool.ask(request, limit_s=parameters["limit_s"], file=memory.descriptor, cancellation=cancellation)
        if "fault" not in answer:
            memory.size_bytes = answer["size_bytes"]
            return answer, memory.read()
    except (ProcessUnavailable, OSError) as failure:
        raise MediaUndecoded(name, str(failure)) from failure
    if answer["fault"] == "stopped":
        raise InvalidRequest(
            f"The {name} cannot be decoded: its decoder {answer['why']}. Make it smaller, or send another format.",
            param,
        )
    raise InvalidRequest(answer["why"], param)


def _fill(descriptor: int, encoded: EncodedFile) -> None:
    for piece in encoded.pieces() if isinstance(encoded, Digits) else (encoded,):
        view = memoryview(piece)
        while view:
            view = view[os.write(descriptor, view) :]


def _whole(encoded: EncodedFile, param: str) -> bytes:
    if isinstance(encoded, bytes):
        return encoded
    try:
        return from_base64(b"".join(encoded.pieces()))
    except InvalidRequest as refused:
        raise InvalidRequest(refused.message, param) from None
