"""Prompts and their KV state on disk: one file per prompt, in a folder that all engines share.

A file's name begins with the identity of its engine, followed by the salt of the requests that the prompt was computed
for, if they have one. Its content is used only if the checksum is right and the header belongs to this engine and that
salt, so a renamed file is not used. A file is written under a temporary name and renamed, so that no reader finds half
a file, and it is private, since it holds the texts of conversations. Its modification time is the time of its last use.
"""

from __future__ import annotations

import contextlib
import errno
import hashlib
import logging
import math
import os
import re
import struct
import time
from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import TypeVar

import numpy as np

from modelyard.config.paths import make_own_folder
from modelyard.engine.kv.disk_files import last_used_ns, round_robin, salt_of, size_of, touch
from modelyard.protocol.kv_snapshot import KeptPrompt, KvState
from modelyard.system.owner_shares import first_to_go
from modelyard.system.private_files import HALF_WRITTEN, open_private, read_private, write_all, writing_private

logger = logging.getLogger(__name__)

_T = TypeVar("_T")

_MAGIC = b"MYKV"
_CHECKPOINT_MAGIC = b"MYKC"
_VERSION = 1
# Magic, version, identity, number of tokens, bytes of state; then a BLAKE2b digest of the rest; tokens; state.
_HEAD = struct.Struct("<4sI16sQQ")
# Salts that can be part of a file name; prompts with other salts are not kept.
_SALT = re.compile("[0-9a-f]{0,64}", re.ASCII)
_TOKEN = np.dtype("<i4")
_DIGEST_BYTES = 32
_ENDING = ".kv"

# A half-written file older than this was left behind by a process that died.
_MAX_WRITE_S = 3600

# Limit of the prompts that one engine looks for on disk: their tokens are in memory.
_MAX_INDEXED = 1000

# Errors of a full disk, an exhausted quota, or a limit of file sizes.
_NO_ROOM = frozenset({errno.ENOSPC, errno.EDQUOT, errno.EFBIG})


@dataclass(frozen=True, slots=True)
class Unsaved:
    """A prompt to be kept, or a checkpoint: ``read`` returns its state, which may be large."""

    tokens: tuple[int, ...]
    read: Callable[[], KvState]
    salt: str = ""
    is_checkpoint: bool = False


@dataclass(frozen=True, slots=True)
class _Head:
    """What a file holds: the number of its tokens, and the bytes of its state."""

    tokens: int
    state_bytes: int
    is_checkpoint: bool


@dataclass(frozen=True, slots=True, eq=False)
class StoredPrompt:
    """A prompt whose state is on disk, in ``state_bytes`` of ``file``."""

    file: Path
    tokens: tuple[int, ...]
    salt: str
    state_bytes: int


class _Damaged(Exception):
    """The file is damaged; the message holds the reason."""


class _NoRoom(Exception):
    """The disk has no room for a file.

    Attributes:
        missing_bytes: bytes of the file that were not written.
    """

    def __init__(self, missing_bytes: int, error: OSError) -> None:
        super().__init__(missing_bytes, error)
        self.missing_bytes, self.error = missing_bytes, error


class _WrongOwner(Exception):
    """The file belongs to another model or salt than its name claims."""


class KvDiskCache:
    """The kept prompts of one engine in ``folder``. On a disk error, prompts are lost and the log has a line.

    Args:
        folder: created where it does not exist.
        identity: weights, llama.cpp and settings: only states with the same identity are restored.
        limit_bytes: limit of all files in the folder, of all engines; the least recently used are deleted first.
    """

    def __init__(self, folder: Path, identity: str, limit_bytes: int) -> None:
        self._folder = folder
        self._identity = hashlib.blake2b(f"{_VERSION} {identity}".encode(), digest_size=16).digest()
        self._limit_bytes = limit_bytes

    def save(self, prompts: Iterable[Unsaved]) -> None:
        """Keep ``prompts``, which are ordered from the most recently used. Files that exist are not written again.

        On a full disk, prompts that were used longer ago are deleted for these; prompts that do not fit even so are
        skipped, and shorter ones kept.
        """
        now, room = time.time_ns(), self._limit_bytes
        shortest_left_out, left_out, full = math.inf, 0, None
        try:
            make_own_folder(self._folder)
            self._delete_half_written(now)
            for age, prompt in enumerate(prompts):
                if not _SALT.fullmatch(prompt.salt):
                    continue
                if len(prompt.tokens) >= shortest_left_out:
                    # Reading its state would copy it from the engine in vain.
                    left_out += 1
                    continue
                try:
                    # Timestamps a microsecond apart preserve the order.
                    room -= self._put(prompt, room, now - 1000 * age)
                except _NoRoom as no_room:
                    shortest_left_out, full = len(prompt.tokens), no_room.error
                    left_out += 1
            self._shrink(self._limit_bytes)
        except OSError as error:
            logger.warning("Prompts are not kept in %s: %s", self._folder, error)
            return
        if full is not None:
            logger.warning(
                "%d prompts are not kept in %s: %s. Free some space, or set kv_dir to another folder",
                left_out,
                self._folder,
                full.strerror,
            )

    def load(self, token_limit: int, prompt_limit: int, checkpoint_bytes: int = 0) -> Iterator[KeptPrompt]:
        """Yield the most recently used prompts, the most recent last, until their tokens reach ``token_limit``.

        Salts take turns: the newest prompt of each salt comes before the second newest of any. Before the prompts come
        the most recently used checkpoints, with at most ``checkpoint_bytes`` together. Damaged files are deleted.
        """
        try:
            files = sorted(self._folder.glob(f"{self._identity.hex()}-*{_ENDING}"), key=last_used_ns, reverse=True)
            files = round_robin(files)
        except OSError as error:
            logger.warning("Prompts kept in %s cannot be read: %s", self._folder, error)
            return
        chosen: list[Path] = []
        checkpoints: list[Path] = []
        for file in files:
            if (token_limit <= 0 or len(chosen) == prompt_limit) and checkpoint_bytes <= 0:
                break
            head = self._try_read(file, self._measure)
            if head is None:
                continue
            if head.is_checkpoint:
                if head.state_bytes <= checkpoint_bytes:
                    checkpoints.append(file)
                    checkpoint_bytes -= head.state_bytes
            elif token_limit > 0 and len(chosen) < prompt_limit:
                chosen.append(file)
                token_limit -= head.tokens
        for file in (*reversed(checkpoints), *reversed(chosen)):
            prompt = self._try_read(file, self._read)
            if prompt is not None:
                yield prompt

    def index(self) -> Iterator[StoredPrompt]:
        """Yield the prompts of this engine, the most recently used first, without reading their states.

        Checkpoints are left out. Damaged files are deleted.
        """
        try:
            files = sorted(self._folder.glob(f"{self._identity.hex()}-*{_ENDING}"), key=last_used_ns, reverse=True)
        except OSError as error:
            logger.warning("Prompts kept in %s cannot be read: %s", self._folder, error)
            return
        for file in files[:_MAX_INDEXED]:
            stored = self._try_read(file, self._read_tokens)
            if stored is not None:
                yield stored

    def read(self, stored: StoredPrompt) -> KeptPrompt | None:
        """Return a prompt with its state; None, with a line in the log, where its file cannot be used any more."""
        return self._try_read(stored.file, self._read)

    def _read_tokens(self, file: Path) -> StoredPrompt | None:
        head = self._measure(file)
        if head.is_checkpoint:
            return None
        with open_private(file) as stream:
            stream.seek(_HEAD.size + _DIGEST_BYTES)
            tokens = np.frombuffer(stream.read(head.tokens * _TOKEN.itemsize), _TOKEN)
        return StoredPrompt(file, tuple(tokens.tolist()), salt_of(file), head.state_bytes)

    def _put(self, prompt: Unsaved, room: int, used_ns: int) -> int:
        """Keep one prompt if it fits in ``room``; return the bytes of its file, 0 if it does not fit.

        Raises:
            _NoRoom: the disk is full, even without the prompts that were used longer ago.
        """
        tokens = np.asarray(prompt.tokens, dtype=_TOKEN).tobytes()
        magic = _CHECKPOINT_MAGIC if prompt.is_checkpoint else _MAGIC
        # The end of an answer may be there as both.
        person = _CHECKPOINT_MAGIC if prompt.is_checkpoint else b""
        name = hashlib.blake2b(tokens, digest_size=16, person=person).hexdigest()
        owner = f"{prompt.salt}-" if prompt.salt else ""
        file = self._folder / f"{self._identity.hex()}-{owner}{name}{_ENDING}"
        existing_bytes = touch(file, used_ns)
        if existing_bytes:
            return existing_bytes
        state = prompt.read()
        size = _HEAD.size + _DIGEST_BYTES + len(tokens) + state.nbytes
        if size > room:
            return 0
        self._shrink(self._limit_bytes - size)
        identity = self._identity_of(prompt.salt)
        try:
            self._write(file, magic, identity, tokens, state)
        except _NoRoom as no_room:
            if not self._delete_older(no_room.missing_bytes, used_ns):
                raise
            self._write(file, magic, identity, tokens, state)
        return touch(file, used_ns)

    def _identity_of(self, salt: str) -> bytes:
        """Return the identity in the headers of files with that salt."""
        return hashlib.blake2b(self._identity + salt.encode(), digest_size=16).digest() if salt else self._identity

    def _write(self, file: Path, magic: bytes, identity: bytes, tokens: bytes, state: KvState) -> None:
        head = _HEAD.pack(magic, _VERSION, identity, len(tokens) // _TOKEN.itemsize, state.nbytes)
        size, written = _HEAD.size + _DIGEST_BYTES + len(tokens) + state.nbytes, 0
        try:
            with writing_private(file) as stream:
                try:
                    write_all(stream, head + _digest(head, tokens, state.data) + tokens)
                    write_all(stream, state.data)
                finally:
                    written = stream.tell()
        except OSError as error:
            if error.errno in _NO_ROOM:
                raise _NoRoom(size - written, error) from error
            raise

    def _try_read(self, file: Path, read: Callable[[Path], _T]) -> _T | None:
        """Return what ``read`` reads of the file; None, with a line in the log, where the file cannot be used."""
        try:
            return read(file)
        except _Damaged as damage:
            logger.warning("Deleting the kept prompt %s: %s", file.name, damage)
            with contextlib.suppress(OSError):
                file.unlink()
        except _WrongOwner:
            logger.warning("Ignoring the kept prompt %s: it belongs to another model or to other settings", file.name)
        except FileNotFoundError:
            # Another engine has deleted it for newer ones.
            pass
        except OSError as error:
            logger.warning("The kept prompt %s cannot be read: %s", file.name, error)
        return None

    def _measure(self, file: Path) -> _Head:
        """Return what the file's header says, if the file is as long as it should be."""
        with open_private(file) as stream:
            head = self._parse_head(stream.read(_HEAD.size), salt_of(file))
            size = os.fstat(stream.fileno()).st_size
        expected = _HEAD.size + _DIGEST_BYTES + head.tokens * _TOKEN.itemsize + head.state_bytes
        if size != expected:
            raise _Damaged(f"it has {size} bytes and should have {expected}")
        return head

    def _read(self, file: Path) -> KeptPrompt:
        raw = read_private(file)
        head, body = raw[: _HEAD.size], memoryview(raw)[_HEAD.size + _DIGEST_BYTES :]
        salt = salt_of(file)
        parsed = self._parse_head(head, salt)
        end = parsed.tokens * _TOKEN.itemsize
        tokens, state = body[:end], body[end:]
        if (
            len(state) != parsed.state_bytes
            or _digest(head, tokens, state) != raw[_HEAD.size : _HEAD.size + _DIGEST_BYTES]
        ):
            raise _Damaged("its checksum is wrong")
        ids = tuple(np.frombuffer(tokens, _TOKEN).tolist())
        return KeptPrompt(ids, np.frombuffer(state, np.uint8), salt, parsed.is_checkpoint)

    def _parse_head(self, head: bytes, salt: str) -> _Head:
        if len(head) < _HEAD.size:
            raise _Damaged("it ends within its head")
        magic, version, identity, count, state_bytes = _HEAD.unpack(head)
        if magic not in (_MAGIC, _CHECKPOINT_MAGIC) or version != _VERSION:
            raise _Damaged("it does not begin as a kept prompt does")
        if identity != self._identity_of(salt):
            raise _WrongOwner
        return _Head(count, state_bytes, magic == _CHECKPOINT_MAGIC)

    def _shrink(self, limit_bytes: int) -> None:
        """Delete files until the folder takes at most ``limit_bytes``, the oldest of the salt that holds most first."""
        files = sorted(self._folder.glob(f"*{_ENDING}"), key=last_used_ns)
        held = [(salt_of(file), size_of(file)) for file in files]
        total = sum(size for _, size in held)
        while total > limit_bytes and held:
            at = first_to_go(held)
            total -= held.pop(at)[1]
            files.pop(at).unlink(missing_ok=True)

    def _delete_older(self, missing_bytes: int, used_ns: int) -> bool:
        """Delete the least recently used prompts to make room for one that was used at ``used_ns``.

        Returns:
            Whether ``missing_bytes`` could be freed; if all older prompts are too little, none is deleted.
        """
        older = [file for file in self._folder.glob(f"*{_ENDING}") if last_used_ns(file) < used_ns]
        going = _first_with(((file, size_of(file)) for file in sorted(older, key=last_used_ns)), missing_bytes)
        for file in going:
            with contextlib.suppress(FileNotFoundError):
                file.unlink()
        return bool(going)

    def _delete_half_written(self, now_ns: int) -> None:
        """Delete half-written files that dead processes left behind."""
        for file in self._folder.glob(f"*{HALF_WRITTEN}"):
            if now_ns - last_used_ns(file) > _MAX_WRITE_S * 10**9:
                file.unlink(missing_ok=True)


def _first_with(sizes: Iterable[tuple[_T, int]], needed_bytes: int) -> list[_T]:
    """Return the first items that have ``needed_bytes`` together; [] if all items have too little."""
    chosen: list[_T] = []
    for item, size in sizes if needed_bytes > 0 else ():
        chosen.append(item)
        needed_bytes -= size
        if needed_bytes <= 0:
            return chosen
    return []


def _digest(head: bytes, tokens: bytes | memoryview, state: memoryview) -> bytes:
    digest = hashlib.blake2b(head, digest_size=_DIGEST_BYTES)
    digest.update(tokens)
    digest.update(state)
    return digest.digest()
