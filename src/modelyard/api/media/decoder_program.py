"""Decodes images, or clips of sound, in a process of its own that is held to limits of time and memory.

A file comes in a block of shared memory, and what it is decoded to goes back in the same one: neither passes through
the socket. The server's process runs no decoder, and holds its interpreter's lock for none of the work.
"""

from __future__ import annotations

import os
import sys
from collections.abc import Callable
from typing import Any, Final

from modelyard.api.media.base64_digits import from_base64
from modelyard.errors import InvalidRequest
from modelyard.system.bounded.inside import address_space, lift_limits, limit, serve

NICENESS: Final = 5
"""Streams and the event loop go first where all cores are busy: a decoder then has a third of what they have."""

_PIECE_BYTES: Final = 1 << 24

Decode = Callable[[bytes, dict[str, Any]], tuple[dict[str, Any], bytes | memoryview]]
"""Decodes a file as a request says: facts of it as JSON, and the pixels or the samples."""


class Program:
    """Answers requests, each within its limits.

    A request has ``file``, ``is_base64``, ``limit_s`` of the processor, ``limit_bytes`` of memory, and what ``decode``
    reads. The answer has the facts of ``decode`` and how many ``size_bytes`` are in the file then, or a ``fault`` with
    the reason in ``why``: ``refused``, or ``stopped`` by the limit of memory. The limit of time ends the process.
    """

    def __init__(self, decode: Decode) -> None:
        self._decode = decode
        self._idle_bytes = address_space()

    def answer(self, request: dict[str, Any], _input_bytes: int) -> dict[str, Any]:
        """The answer to a request."""
        limit_bytes = request["limit_bytes"]
        limit(self._idle_bytes and self._idle_bytes + limit_bytes, request["limit_s"])
        try:
            data = _read(request["file"])
            if request["is_base64"]:
                data = from_base64(data)
            facts, decoded = self._decode(data, request)
            size = _write(request["file"], decoded)
        except InvalidRequest as refused:
            return {"fault": "refused", "why": refused.message}
        except MemoryError:
            return {"fault": "stopped", "why": f"takes more than {limit_bytes >> 20} MiB of memory"}
        else:
            return {**facts, "size_bytes": size}
        finally:
            lift_limits()


def _read(file: int) -> bytes:
    # Mapped memory that is cut off by another process ends this one, a read does not.
    return os.pread(file, os.fstat(file).st_size, 0)


def _write(file: int, decoded: bytes | memoryview) -> int:
    """How many bytes there are in the file, in the place of those that came."""
    os.ftruncate(file, 0)
    view, at = memoryview(decoded).cast("B"), 0
    while at < len(view):
        at += os.pwrite(file, view[at : at + _PIECE_BYTES], at)
    return at


def _images() -> Decode:
    # What Pillow would import at the first such file, with forty others.
    import PIL.WebPImagePlugin  # noqa: F401
    from PIL import features

    from modelyard.api.media.images import picture

    if features.check("avif"):
        from PIL import AvifImagePlugin

        # Each thread has a stack and an arena, which on a machine with many cores is more than the limit of memory.
        AvifImagePlugin.DEFAULT_MAX_THREADS = 1

    def decode(data: bytes, request: dict[str, Any]) -> tuple[dict[str, Any], bytes | memoryview]:
        shown = picture(data, "", request["longest_edge"])
        return {"width": shown.width, "height": shown.height}, shown.tobytes()

    return decode


def _sounds() -> Decode:
    import soundfile  # noqa: F401
    import soxr  # noqa: F401

    from modelyard.api.media.audio import samples_of

    def decode(data: bytes, request: dict[str, Any]) -> tuple[dict[str, Any], bytes | memoryview]:
        samples = samples_of(data, "", request["rate"], request["longest_s"])
        return {}, samples.data

    return decode


_DECODERS: Final[dict[str, Callable[[], Decode]]] = {"image": _images, "audio": _sounds}


def main() -> None:
    """Serve until the socket closes. The argument says what is decoded: "image" or "audio"."""
    os.nice(NICENESS)
    serve(Program(_DECODERS[sys.argv[1]]()).answer, takes_files=True)
