"""Decodes images or clips of sound in a process of its own with limits of time and memory.

The encoded file comes in a block of shared memory, and the decoded data goes back in the same block: neither passes
through the socket. The process of the server runs no decoder, and its interpreter's lock is free during the work.
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
"""Generation and the event loop go first when all cores are busy: a decoder then gets a third of their time."""

_PIECE_BYTES: Final = 1 << 24

Decode = Callable[[bytes, dict[str, Any]], tuple[dict[str, Any], bytes | memoryview]]
"""Decodes a file according to a request; returns metadata for JSON, and the pixels or samples."""


class Program:
    """Answers requests, each within its limits.

    A request has ``file``, ``is_base64``, ``limit_s`` of processor time, ``limit_bytes`` of memory, and parameters of
    ``decode``. The answer has the metadata of ``decode`` and the ``size_bytes`` of the decoded data, or a ``fault``
    (``refused``, or ``stopped`` by the memory limit) with its reason in ``why``. The time limit ends the process.
    """

    def __init__(self, decode: Decode) -> None:
        self._decode = decode
        self._idle_bytes = address_space()

    def answer(self, request: dict[str, Any], _input_bytes: int) -> dict[str, Any]:
        """Return the answer to a request."""
        limit_bytes = request["limit_bytes"]
        limit(self._idle_bytes and self._idle_bytes + limit_bytes, request["limit_s"])
        try:
            data = _read(request["file"])
            if request["is_base64"]:
                data = from_base64(data)
            metadata, decoded = self._decode(data, request)
            size = _write(request["file"], decoded)
        except InvalidRequest as refused:
            return {"fault": "refused", "why": refused.message}
        except MemoryError:
            return {"fault": "stopped", "why": f"takes more than {limit_bytes >> 20} MiB of memory"}
        else:
            return {**metadata, "size_bytes": size}
        finally:
            lift_limits()


def _read(file: int) -> bytes:
    # If another process truncates the file, mapped memory would raise SIGBUS; a read does not.
    return os.pread(file, os.fstat(file).st_size, 0)


def _write(file: int, decoded: bytes | memoryview) -> int:
    """Replace the content of the file; return the number of bytes."""
    os.ftruncate(file, 0)
    view, at = memoryview(decoded).cast("B"), 0
    while at < len(view):
        at += os.pwrite(file, view[at : at + _PIECE_BYTES], at)
    return at


def _images() -> Decode:
    # Pillow would otherwise import it, with forty other plugins, at the first WebP file.
    import PIL.WebPImagePlugin  # noqa: F401
    from PIL import features

    from modelyard.api.media.images import picture

    if features.check("avif"):
        from PIL import AvifImagePlugin

        # With one thread per core, stacks and arenas would exceed the memory limit on machines with many cores.
        AvifImagePlugin.DEFAULT_MAX_THREADS = 1

    def decode(data: bytes, request: dict[str, Any]) -> tuple[dict[str, Any], bytes | memoryview]:
        image = picture(data, "", request["longest_edge"])
        return {"width": image.width, "height": image.height}, image.tobytes()

    return decode


def _sounds() -> Decode:
    import soundfile  # noqa: F401
    import soxr  # noqa: F401

    from modelyard.api.media.audio import samples_of

    def decode(data: bytes, request: dict[str, Any]) -> tuple[dict[str, Any], bytes | memoryview]:
        samples = samples_of(data, "", request["rate"], request["max_s"])
        return {}, samples.data

    return decode


_DECODERS: Final[dict[str, Callable[[], Decode]]] = {"image": _images, "audio": _sounds}


def main() -> None:
    """Serve until the socket closes. The command-line argument is the kind of files: "image" or "audio"."""
    os.nice(NICENESS)
    serve(Program(_DECODERS[sys.argv[1]]()).answer, takes_files=True)
