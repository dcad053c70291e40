"""Digests of a model's files, which read only parts of them."""

from __future__ import annotations

import hashlib
import struct
from collections.abc import Sequence
from pathlib import Path
from typing import Final

_END_BYTES: Final = 2**20
_SAMPLES: Final = 256
_SAMPLE_BYTES: Final = 4096


def contents_digest(paths: Sequence[Path]) -> str:
    """Return a digest of the number and sizes of the files, and of the first and last MiB of each.

    The first MiB holds names, shapes and settings, the last one the end of the weights. Reading all of a file of many
    gigabytes would take longer than loading it.
    """
    digest = hashlib.blake2b(struct.pack("<Q", len(paths)), digest_size=16)
    for path in paths:
        with path.open("rb") as file:
            size = file.seek(0, 2)
            file.seek(0)
            digest.update(struct.pack("<Q", size) + file.read(_END_BYTES))
            file.seek(max(0, size - _END_BYTES))
            digest.update(file.read(_END_BYTES))
    return digest.hexdigest()


def samples_digest(paths: Sequence[Path]) -> str:
    """Return a digest of 256 pages spread over each file: 1 MiB, which takes 1 ms from the page cache.

    It distinguishes weights with the same header and the same end, such as a model and its fine-tune; a change that
    is smaller than the distance between two pages may be missed.
    """
    digest = hashlib.blake2b(digest_size=16)
    for path in paths:
        with path.open("rb", buffering=0) as file:
            size = file.seek(0, 2)
            for number in range(_SAMPLES):
                file.seek(size * number // _SAMPLES)
                digest.update(file.read(_SAMPLE_BYTES))
    return digest.hexdigest()
