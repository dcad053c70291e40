"""Reads the headers of GGUF files, and caches them as long as the files do not change."""

from __future__ import annotations

import os
import stat
import threading
from pathlib import Path
from typing import Final

from modelyard.errors import UnusableModel
from modelyard.formats.gguf import constants as gguf
from modelyard.formats.gguf.checks import check_loadable
from modelyard.formats.gguf.header import GgufHeader
from modelyard.formats.gguf.parse import padded, parse_pairs, parse_tensors
from modelyard.formats.gguf.reader import BoundedReader
from modelyard.formats.unsupported import HEAD_BYTES, describe_unsupported

_MAX_CACHED: Final = 64

_cache_lock = threading.Lock()

# (path, device, inode, size, modification time, change time) -> header.
_cache: dict[tuple[Path, int, int, int, int, int], GgufHeader] = {}


def read_header(path: Path) -> GgufHeader:
    """Read and check the header of a GGUF file (version 2 or 3, little-endian).

    This takes 0.1 s for a vocabulary of 262,144 tokens, and no time for a file that has not changed since. It reads
    neither weights nor the contents of numeric arrays. Headers on which llama.cpp would abort the process are refused;
    see ``checks``.

    Raises:
        UnusableModel: the file cannot be read, is not GGUF, is damaged or truncated, or is not safe to load.

    Source: ggml/docs/gguf.md and ggml/src/gguf.cpp of llama.cpp, as of b11739.
    """
    try:
        status = path.stat()
        if not stat.S_ISREG(status.st_mode):
            # Opening a named pipe would block until it has a writer.
            raise UnusableModel(f"{path}: This is not a file. Name a GGUF file.")
        with path.open("rb", buffering=0) as file:
            status = os.fstat(file.fileno())
            key = (path, status.st_dev, status.st_ino, status.st_size, status.st_mtime_ns, status.st_ctime_ns)
            header = _cache.get(key)
            if header is None:
                header = parse_header(BoundedReader(file, path, status.st_size))
                with _cache_lock:
                    if len(_cache) >= _MAX_CACHED:
                        del _cache[next(iter(_cache))]
                    _cache[key] = header
            return header
    except FileNotFoundError:
        raise UnusableModel(f"{path}: There is no such file. Check the path.") from None
    except PermissionError:
        raise UnusableModel(
            f"{path}: The file cannot be read: permission denied. Give the user that runs Modelyard the right to read."
        ) from None
    except (OSError, ValueError) as error:  # ValueError: a zero byte in the path
        raise UnusableModel(f"{path}: The file cannot be read: {error}. Check the path and the disk.") from error


def parse_header(reader: BoundedReader) -> GgufHeader:
    """Read and check the header of an open file, from its first byte.

    Raises:
        UnusableModel: the file is not GGUF, is damaged or truncated, or is not safe to load.
    """
    version = _read_version(reader)
    u64 = gguf.SCALARS[10]
    tensor_count = reader.integer(u64, "the number of tensors")
    pair_count = reader.integer(u64, "the number of metadata keys")
    pairs = parse_pairs(reader, pair_count)
    tensors = parse_tensors(reader, tensor_count, pairs.alignment)
    header = GgufHeader(version, pairs.values, tensors, reader.size, padded(reader.position, pairs.alignment))
    check_loadable(header, pairs, reader.fail)
    return header


def _read_version(reader: BoundedReader) -> int:
    """Check the magic and the version, and return the version."""
    if reader.size == 0:
        reader.fail("The file is empty", "Download it again.")
    head = reader.take(min(reader.size, HEAD_BYTES), "its first bytes")
    reader.rewind()
    magic = reader.take(min(reader.size, len(gguf.MAGIC)), "its first bytes")
    if magic != gguf.MAGIC:
        if gguf.MAGIC.startswith(magic):
            reader.cut_off(24, " at least, for the start of a GGUF file")
        reader.fail(*describe_unsupported(head))
    version = reader.integer(gguf.SCALARS[gguf.UINT32], "the GGUF version")
    if version not in gguf.READABLE_VERSIONS:
        if version & 0xFFFF == 0:
            reader.fail("This GGUF file is big-endian", "Download the little-endian file of the model.")
        if version == 1:
            reader.fail("This is GGUF version 1, which is no longer supported", "Download a newer file of the model.")
        reader.fail(
            f"This is GGUF version {version}, but only versions 2 and 3 can be read",
            "Download another file of the model, or a newer Modelyard.",
        )
    return version
