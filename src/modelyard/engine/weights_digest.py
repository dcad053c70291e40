"""What the files of a model hold, in a few bytes."""

from __future__ import annotations

import hashlib
import struct
from collections.abc import Sequence
from pathlib import Path
from typing import Final

_LOOKED_AT_BYTES: Final = 2**20


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
