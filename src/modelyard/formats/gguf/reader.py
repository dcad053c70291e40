"""Bounded reading of an untrusted file.

Every length is compared with the file's size before memory is allocated or bytes are skipped, and at most one window of
the file is in memory. The file is read rather than mapped, because a mapped file that shrinks kills the process
(SIGBUS).
"""

from __future__ import annotations

from collections.abc import Set
from pathlib import Path
from struct import Struct
from typing import BinaryIO, Final, NoReturn

from modelyard.errors import UnusableModel

WINDOW_BYTES: Final = 4 * 1024 * 1024
MAX_TOKEN_LENGTH: Final = 1024 * 1024
MAX_STRING_BYTES: Final = 64 * 1024 * 1024
# Larger than any disk: an offset beyond it comes from a damaged length, not from a truncated file.
IMPOSSIBLE_SIZE: Final = 1 << 48

_LENGTH: Final = Struct("<Q")


class BoundedReader:
    """Reads a file from its start to its end, and raises UnusableModel rather than read past it.

    Args:
        file: opened for reading bytes, at any position.
        path: its path, for errors.
        size: its size in bytes.
    """

    def __init__(self, file: BinaryIO, path: Path, size: int) -> None:
        self.size = size
        self.path = path
        self._file = file
        self._window = b""
        self._start = 0
        self._at = 0

    @property
    def position(self) -> int:
        """Offset of the next byte, from the start of the file."""
        return self._start + self._at

    @property
    def remaining(self) -> int:
        """Bytes after the position."""
        return self.size - self.position

    def fail(self, problem: str, advice: str = "It is damaged: download it again.") -> NoReturn:
        """Raise UnusableModel about this file."""
        raise UnusableModel(f"{self.path}: {problem}. {advice}")

    def unpack(self, layout: Struct, what: str) -> int | float | bool:
        """Read a single value of ``layout``. what: the value's name in errors."""
        self._ensure(layout.size, what)
        (value,) = layout.unpack_from(self._window, self._at)
        self._at += layout.size
        assert isinstance(value, int | float)
        return value

    def integer(self, layout: Struct, what: str) -> int:
        """Read a single integer of ``layout``."""
        value = self.unpack(layout, what)
        assert isinstance(value, int)
        return value

    def rewind(self) -> None:
        """Return to the start of the file. Valid only while nothing beyond the first window was read."""
        self._at = 0

    def take(self, count: int, what: str) -> bytes:
        """Read ``count`` bytes into memory; the caller must limit ``count``."""
        self._ensure(count, what)
        self._at += count
        return self._window[self._at - count : self._at]

    def text(self, max_length: int, what: str) -> str:
        """Read a string: its length in bytes (u64), then UTF-8."""
        length = self.integer(_LENGTH, f"the length of {what}")
        if length > max_length:
            self.fail(f"{what} claims {length} bytes, more than the {max_length} that any file needs")
        raw = self.take(length, what)
        try:
            return raw.decode()
        except UnicodeDecodeError as error:
            self.fail(f"{what} is not UTF-8: byte 0x{raw[error.start]:02x} at {error.start} of {raw[:40]!r}")

    def skip(self, count: int, what: str) -> None:
        """Skip ``count`` bytes without reading them."""
        target = self.position + count
        if target > self.size:
            self._fail_beyond(target, what)
        if self._at + count <= len(self._window):
            self._at += count
        else:
            self._start, self._at, self._window = target, 0, b""

    def skip_strings(self, count: int, what: str) -> None:
        """Skip ``count`` strings. The hot loop of reading a header: 0.1 s for a million strings."""
        length_at, done = _LENGTH.unpack_from, 0
        while done < count:
            self._ensure(_LENGTH.size, what)
            window, at, last = self._window, self._at, len(self._window) - _LENGTH.size
            while at <= last and done < count:
                at += 8 + length_at(window, at)[0]
                done += 1
            self.skip(at - self._at, what)

    def distinct_strings(self, count: int, what: str) -> Set[bytes]:
        """Read ``count`` strings, which must differ from each other as llama.cpp compares them.

        llama.cpp reads them as C strings, up to the first zero byte, and replaces an empty one by ``[EMPTY_<index>]``.
        It aborts the process if two are equal (src/llama-vocab.cpp, id_to_token.size() == token_to_id.size()).
        """
        words = self._strings(count, what)
        distinct = set(words)
        if len(distinct) == count and b"" not in distinct and b"\0" not in b"".join(words):
            return distinct
        seen: set[bytes] = set()
        for index, raw in enumerate(words):
            word = raw.partition(b"\0")[0] or b"[EMPTY_%d]" % index
            if word in seen:
                self.fail(f"{what} has {word[:40].decode(errors='replace')!r} twice, the second time at {index}")
            seen.add(word)
        return seen

    def _strings(self, count: int, what: str) -> list[bytes]:
        """Read ``count`` strings, of at most MAX_STRING_BYTES together."""
        length_at, words = _LENGTH.unpack_from, list[bytes]()
        first = self.position
        while len(words) < count:
            length = self.integer(_LENGTH, what)
            if length > MAX_TOKEN_LENGTH or self.position - first > MAX_STRING_BYTES:
                self.fail(f"{what} takes {self.position - first + length} bytes, more than any model needs")
            words.append(self.take(length, what))
            window, end = self._window, len(self._window)
            last = end - _LENGTH.size
            at = self._at
            for _ in range(count - len(words)):
                # Only strings within the window; the outer loop reads one that extends beyond it.
                if at > last:
                    break
                start = at + _LENGTH.size
                after = start + length_at(window, at)[0]
                if after > end:
                    break
                words.append(window[start:after])
                at = after
            self._at = at
        return words

    def _ensure(self, count: int, what: str) -> None:
        """Read the next ``count`` bytes into the window, if they are not there."""
        if self._at + count <= len(self._window):
            return
        start = self.position
        if start + count > self.size:
            self._fail_beyond(start + count, what)
        self._file.seek(start)
        self._window = self._file.read(min(max(count, WINDOW_BYTES), self.size - start))
        self._start, self._at = start, 0
        if len(self._window) < count:
            self.fail("The file became shorter while it was read", "Wait until it is written, then try again.")

    def _fail_beyond(self, expected: int, what: str) -> NoReturn:
        if expected >= IMPOSSIBLE_SIZE:
            self.fail(f"{what} claims to reach byte {expected} of a file of {self.size}")
        self.cut_off(expected, f" at least, for {what}")

    def cut_off(self, expected: int, of_what: str = "") -> NoReturn:
        """Raise UnusableModel: the file should have ``expected`` bytes."""
        self.fail(
            f"The file is cut off: {expected} bytes expected{of_what}, {self.size} present "
            f"({expected - self.size} missing)",
            "Download it again.",
        )
