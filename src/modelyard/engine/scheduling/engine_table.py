"""A table of engines in memory that all processes of a server share: their parts of the device, and what they do.

Each engine has a record and is its only writer; every process reads all records. No lock is held across processes,
since a process that dies would keep it. Instead each fact that a decision rests on is one aligned word of 8 bytes,
which the processor stores and loads whole, and a reader of several words checks that they did not change
(``_activity``).

Hot path: ``begin_step`` and ``end_step`` run once for each step of an engine and take about a microsecond together.
"""

from __future__ import annotations

import mmap
import os
import secrets
import struct
import threading
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Final, Literal, get_args

from modelyard.errors import EngineError

Doing = Literal["idle", "loading", "computing", "reading", "saving", "restoring", "resizing"]

MAX_ENGINES: Final = 256
# Limit of sequences in a step: one llama.cpp context holds no more.
MAX_COMPUTING: Final = 256
# Limit of prompts of an engine that are read at once: four threads read, beside the engine's own.
MAX_READING: Final = 32
MAX_NAME_BYTES: Final = 64
DIGEST_BYTES: Final = 16

_WORD: Final = 8

# Words of the header, which takes the place of a record.
_MAGIC, GENERATION = 0, 1

# Words of a record.
_PID, _TAKES_PART = 0, 1
_SHARE, _SHARE_WORDS = 2, 6
# What the engine does, and above that, shifted by _COUNT_SHIFT, the number of sequences in the step: one word, so
# that both change at once.
_STATE, _STEPS, _TOKENS = 8, 9, 10
_DIGEST = 11
_NAME = _DIGEST + DIGEST_BYTES // _WORD
_READING = _NAME + MAX_NAME_BYTES // _WORD
_COMPUTING = _READING + MAX_READING
_RECORD_WORDS = 320

_RECORD_BYTES: Final = _RECORD_WORDS * _WORD
SHARE_BYTES: Final = _SHARE_WORDS * _WORD
TABLE_BYTES: Final = (MAX_ENGINES + 1) * _RECORD_BYTES

_COUNT_SHIFT: Final = 8
_DOING_MASK: Final = (1 << _COUNT_SHIFT) - 1
_DOINGS: Final[tuple[Doing, ...]] = get_args(Doing)
_NUMBERS: Final[dict[Doing, int]] = {doing: number for number, doing in enumerate(_DOINGS)}
_COMPUTES: Final = _NUMBERS["computing"]

# Native words: in a fixed byte order, the struct module may write byte by byte.
_IDS: Final = tuple(struct.Struct(f"@{count}Q") for count in range(MAX_COMPUTING + 1))
_SIGNATURE: Final = int.from_bytes(b"MYARDET2", "little")

# Limit of reads of a record that changes meanwhile: a step takes a millisecond or more, a read some microseconds.
_MAX_READS: Final = 100


@dataclass(frozen=True, slots=True)
class EngineActivity:
    """What one engine is doing, or was doing when its process died.

    Attributes:
        name: the model's id, cut to 64 bytes.
        model_digest: digest of the model's files, as by ``contents_digest``; "" before they are read.
        pid: process that the engine runs in.
        doing: what the engine's own thread does; "reading" where only prompts are read.
        computing: ids of the sequences in the step.
        reading: ids of the requests whose prompts are being read.
        step: number of the step, which tells two steps apart.
        tokens: number of tokens in the last step.
    """

    name: str
    model_digest: str
    pid: int
    doing: Doing
    computing: tuple[int, ...]
    reading: tuple[int, ...]
    step: int = field(default=0, compare=False)
    tokens: int = field(default=0, compare=False)


class EngineRecord:
    """The record of one engine, as its engine writes it. ``begin_reading`` and ``end_reading`` may run on any thread.

    Attributes:
        index: place in the table.
        share: six floats that ``engine.scheduling.fair_share`` keeps there.
    """

    __slots__ = ("_bytes", "_lock", "_reading", "_steps", "_words", "index", "share")

    def __init__(self, index: int, memory: memoryview[int]) -> None:
        self.index = index
        self._map(memory)
        self._steps = 0
        self._reading: list[int | None] = [None] * MAX_READING
        self._lock = threading.Lock()

    def _map(self, memory: memoryview[int]) -> None:
        self._bytes = memory
        self._words: memoryview[int] = memory.cast("Q")
        self.share: memoryview[float] = memory.cast("d")[_SHARE : _SHARE + _SHARE_WORDS]

    def name_model(self, name: str) -> None:
        """Record which model the engine serves."""
        encoded = name.encode("utf-8", "replace")[:MAX_NAME_BYTES]
        at = _NAME * _WORD
        self._bytes[at : at + MAX_NAME_BYTES] = encoded.ljust(MAX_NAME_BYTES, b"\0")

    def name_files(self, digest: str) -> None:
        """Record the digest of the model's files, as by ``contents_digest``."""
        at = _DIGEST * _WORD
        self._bytes[at : at + DIGEST_BYTES] = bytes.fromhex(digest)

    @property
    def doing(self) -> Doing:
        """What the engine's own thread does. Setting it ends a step."""
        return _DOINGS[self._words[_STATE] & _DOING_MASK]

    @doing.setter
    def doing(self, doing: Doing) -> None:
        self._words[_STATE] = _NUMBERS[doing]

    @property
    def computing(self) -> tuple[int, ...]:
        """The sequences of the current step, if any."""
        count = self._words[_STATE] >> _COUNT_SHIFT
        return tuple(self._words[_COMPUTING : _COMPUTING + count])

    def begin_step(self, ids: Sequence[int], tokens: int) -> None:
        """Record that a step of ``tokens`` tokens of the sequences ``ids`` begins."""
        count = len(ids)
        if count > MAX_COMPUTING:
            ids, count = ids[:MAX_COMPUTING], MAX_COMPUTING
        words = self._words
        # The order ensures that the ids that a state counts belong to one step, wherever the process dies.
        words[_STATE] = 0
        words[_STEPS] = self._steps = self._steps + 1
        words[_TOKENS] = tokens
        _IDS[count].pack_into(self._bytes, _COMPUTING * _WORD, *ids)
        words[_STATE] = _COMPUTES | count << _COUNT_SHIFT

    def end_step(self) -> None:
        """Record that the step has ended."""
        self._words[_STATE] = 0

    def begin_reading(self, request: int) -> None:
        """Record that the prompt of a request is being read; beyond MAX_READING at once, do nothing."""
        with self._lock:
            if None in self._reading:
                place = self._reading.index(None)
                self._reading[place] = request
                # 0 marks a free place.
                self._words[_READING + place] = request + 1

    def end_reading(self, request: int) -> None:
        """Record that the prompt of a request is no longer read."""
        with self._lock:
            if request in self._reading:
                place = self._reading.index(request)
                self._reading[place] = None
                self._words[_READING + place] = 0

    @contextmanager
    def reading(self, request: int) -> Iterator[None]:
        """Record that the prompt of a request is being read while the context is open."""
        self.begin_reading(request)
        try:
            yield
        finally:
            self.end_reading(request)

    def detach(self) -> None:
        """Write to private memory from now on, since the place in the table may get a new owner."""
        with self._lock:
            self._map(memoryview(bytearray(_RECORD_BYTES)))


class EngineTable:
    """The records of all engines of a server. Every method may be called on any thread.

    The process that made the table assigns the records, also those of engines in other processes, so no two processes
    ever use the same one.

    Args:
        memory: TABLE_BYTES of memory; None: memory of this process.
        is_owner: whether this process made the table.

    Attributes:
        words: the whole table. The word at GENERATION gets a new value whenever an engine comes or goes, or a share
            changes.
    """

    def __init__(self, memory: mmap.mmap | None = None, *, is_owner: bool = True) -> None:
        self._bytes = memoryview(mmap.mmap(-1, TABLE_BYTES) if memory is None else memory)
        self.words: memoryview[int] = self._bytes.cast("Q")
        self._numbers: memoryview[float] = self._bytes.cast("d")
        self._is_owner = is_owner
        self._lock = threading.Lock()
        self._claimed: set[int] = set()
        if is_owner:
            self.words[_MAGIC] = _SIGNATURE

    @classmethod
    def open(cls, path: Path) -> EngineTable:
        """Open the table of another process, whose file is at ``path``.

        Raises:
            OSError: it cannot be opened.
            ValueError: it is not a table of engines of this version.
        """
        with path.open("r+b") as file:
            memory = mmap.mmap(file.fileno(), 0)
        if len(memory) != TABLE_BYTES or int.from_bytes(memory[:_WORD], "little") != _SIGNATURE:
            raise ValueError(f"{path} is not a table of engines of this version of Modelyard.")
        return cls(memory, is_owner=False)

    def reserve(self, pid: int, name: str) -> None:
        """Reserve a record for the engine of the model ``name`` in the process ``pid``, which then claims it.

        Only for the process that made the table.

        Raises:
            EngineError: all records are taken.
        """
        with self._lock:
            self._take(pid, name)

    def claim(self, name: str) -> EngineRecord:
        """Claim a record for an engine of this process that serves the model ``name``, until it is released.

        Raises:
            EngineError: all records are taken, or none was reserved for this process by the one that made the table.
        """
        pid = os.getpid()
        with self._lock:
            index = self._take(pid, name) if self._is_owner else self._reserved(pid, name)
            self._claimed.add(index)
        record = EngineRecord(index, self._memory(index))
        record.name_model(name)
        return record

    def release(self, record: EngineRecord) -> None:
        """Free a record that this process claimed; later writes to it have no effect."""
        record.detach()
        with self._lock:
            self._claimed.discard(record.index)
            self._clear(record.index, keeps_pid=not self._is_owner)
        self.announce()

    def release_of(self, pid: int) -> tuple[EngineActivity, ...]:
        """Free all records of the process ``pid``, which has died; return what its engines were doing.

        Only for the process that made the table.
        """
        found = []
        with self._lock:
            for index in self._taken():
                if self.words[self._at(index)] == pid:
                    found.append(_activity(self._memory(index).cast("Q")))
                    self._clear(index, keeps_pid=False)
        self.announce()
        return tuple(found)

    def records(self) -> tuple[EngineActivity, ...]:
        """Return what all engines are doing."""
        return tuple(self.records_by_index().values())

    def records_by_index(self) -> dict[int, EngineActivity]:
        """Return what all engines are doing, by their places in the table."""
        return {index: _activity(self._memory(index).cast("Q")) for index in self._taken()}

    def announce(self) -> None:
        """Have all processes read again which engines take part, and with which shares."""
        # Not a counter: if two processes incremented it at once, one change would be missed.
        self.words[GENERATION] = secrets.randbits(64)

    def take_part(self, record: EngineRecord, *, takes_part: bool) -> None:
        """Record whether the engine shares the device with the others."""
        self.words[self._at(record.index) + _TAKES_PART] = int(takes_part)
        self.announce()

    def is_computing(self, index: int) -> bool:
        """Whether the engine at a place of the table computes a step."""
        return self.words[self._at(index) + _STATE] & _DOING_MASK == _COMPUTES

    def shares(self) -> Iterator[tuple[int, int, memoryview[float]]]:
        """Yield index, process and share of each engine that takes part."""
        for index in self._taken():
            at = self._at(index)
            if self.words[at + _TAKES_PART]:
                yield index, self.words[at], self._numbers[at + _SHARE : at + _SHARE + _SHARE_WORDS]

    def _taken(self) -> list[int]:
        return _taken(self.words)

    def _take(self, pid: int, name: str) -> int:
        index = next((index for index in range(MAX_ENGINES) if not self.words[self._at(index)]), None)
        if index is None:
            raise EngineError(name, f"all {MAX_ENGINES} records of engines are taken")
        self._clear(index, keeps_pid=False)
        self.words[self._at(index)] = pid
        return index

    def _reserved(self, pid: int, name: str) -> int:
        for index in self._taken():
            if self.words[self._at(index)] == pid and index not in self._claimed:
                return index
        raise EngineError(name, f"no record was reserved for its process {pid} in the table of engines")

    def _clear(self, index: int, *, keeps_pid: bool) -> None:
        """Clear a record: first whether it takes part, last its process."""
        at = self._at(index)
        for word in range(at + _TAKES_PART, at + _RECORD_WORDS):
            self.words[word] = 0
        if not keeps_pid:
            self.words[at] = 0

    def _memory(self, index: int) -> memoryview[int]:
        at = self._at(index) * _WORD
        return self._bytes[at : at + _RECORD_BYTES]

    @staticmethod
    def _at(index: int) -> int:
        """Return the index of the first word of a record."""
        return (index + 1) * _RECORD_WORDS


def activities_in(contents: bytes) -> tuple[EngineActivity, ...]:
    """Return what engines were doing by the ``contents`` of their table; () where it is no table of this version."""
    if len(contents) != TABLE_BYTES:
        return ()
    words = memoryview(contents).cast("Q")
    if words[_MAGIC] != _SIGNATURE:
        return ()
    return tuple(_activity(words[(at := (index + 1) * _RECORD_WORDS) : at + _RECORD_WORDS]) for index in _taken(words))


def _taken(words: memoryview[int]) -> list[int]:
    return [index for index in range(MAX_ENGINES) if words[(index + 1) * _RECORD_WORDS]]


def _activity(words: memoryview[int]) -> EngineActivity:
    """Return the contents of a record, with sequences of one step, although the engine writes meanwhile."""
    steps = state = 0
    ids: list[int] = []
    for _ in range(_MAX_READS):
        steps, state = words[_STEPS], words[_STATE]
        ids = words[_COMPUTING : _COMPUTING + min(state >> _COUNT_SHIFT, MAX_COMPUTING)].tolist()
        if words[_STATE] == state and words[_STEPS] == steps:
            break
    else:
        ids = []
    number = state & _DOING_MASK
    doing: Doing = _DOINGS[number] if number < len(_DOINGS) else "idle"
    reading = tuple(word - 1 for word in words[_READING : _READING + MAX_READING].tolist() if word)
    digest = words[_DIGEST:_NAME].tobytes()
    return EngineActivity(
        name=words[_NAME:_READING].tobytes().rstrip(b"\0").decode("utf-8", "ignore"),
        model_digest=digest.hex() if any(digest) else "",
        pid=words[_PID],
        doing="reading" if doing == "idle" and reading else doing,
        computing=tuple(ids),
        reading=reading,
        step=steps,
        tokens=words[_TOKENS],
    )
