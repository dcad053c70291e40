"""What the files of a model hold, in a few bytes."""

from __future__ import annotations

import hashlib
import struct
from collections.abc import Sequence
from pathlib import Path
from typing import Final

_LOOKED_AT_BYTES: Final = 2**20
_SAMPLES: Final = 256
_SAMPLE_BYTES: Final = 4096


def contents_digest(paths: Sequence[Path]) -> str:
    """Of the number and sizes of the files, and of the first and last MiB of each.

    The first holds names, shapes and settings, the last the end of the weights: all of a file of many gigabytes would
    take longer to read than to load.
    """
    digest = hashlib.blake2b(struct.pack("<Q", len(paths)), digest_size=16)
    for path in paths:
        with path.open("rb") as file:
            size = file.seek(0, 2)
            file.seek(0)
            digest.update(struct.pack("<Q", size) + file.read(_LOOKED_AT_BYTES))
            file.seek(max(0, size - _LOOKED_AT_BYTES))
            digest.update(file.read(_LOOKED_AT_BYTES))
    return digest.hexdigest()


def samples_digest(paths: Sequence[Path]) -> str:
    """Of pages that lie all over the files, 256 in each: 1 MiB to be read, in 1 ms where it is in the page cache.

    It tells weights apart that have the same header and the same end, such as those of a model that was trained on; a
    change of less than the distance between two pages may go unnoticed.
    """
    digest = hashlib.blake2b(digest_size=16)
    for path in paths:
        with path.open("rb", buffering=0) as file:
            size = file.seek(0, 2)
            for number in range(_SAMPLES):
                file.seek(size * number // _SAMPLES)
                digest.update(file.read(_SAMPLE_BYTES))
    return digest.hexdigest()
