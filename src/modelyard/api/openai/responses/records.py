"""A table of stored responses and conversations in SQLite: in a file, or in memory.

A table is bounded by number, bytes and age. When it is full, it drops the record that was unused for longest of the
owner who holds the most. An owner with no more than an equal share therefore loses nothing to others.
"""

from __future__ import annotations

import os
import sqlite3
import time
from collections import defaultdict
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Final

import orjson

from modelyard.api.serving.json_assembly import MAX_FRAGMENT_BYTES, parse_long
from modelyard.errors import InvalidRequest
from modelyard.system.private_files import FILE_MODE

MAX_RECORDS: Final = 10_000
MAX_MEMORY_BYTES: Final = 64 * 2**20
MAX_DISK_BYTES: Final = 2**30
MAX_RECORD_BYTES: Final = 64 * 2**20
"""Bytes of one record, as JSON: as many as a body may have. A record is read as a whole."""

MAX_AGE_S: Final = 30 * 24 * 3600.0
"""OpenAI keeps responses for 30 days, too."""

_LOCK_WAIT_S: Final = 5.0
"""How long a statement waits for another process that uses the same file."""

_VERSION: Final = 1
"""Changes with the tables. A file of another version is emptied."""

# Deleted records are overwritten, and the file shrinks with them.
_PRAGMAS: Final = (
    "PRAGMA auto_vacuum = FULL",
    "PRAGMA journal_mode = TRUNCATE",
    "PRAGMA synchronous = NORMAL",
    "PRAGMA secure_delete = ON",
    "PRAGMA foreign_keys = ON",
)
_TABLES: Final = (
    "CREATE TABLE IF NOT EXISTS records (id TEXT PRIMARY KEY, owner BLOB, used REAL NOT NULL, bytes INTEGER NOT NULL,"
    " head BLOB NOT NULL, before BLOB NOT NULL, items BLOB NOT NULL)",
    "CREATE INDEX IF NOT EXISTS by_use ON records (used, owner, bytes)",
    "CREATE TABLE IF NOT EXISTS item_ids (item TEXT NOT NULL, record TEXT NOT NULL REFERENCES records (id)"
    " ON DELETE CASCADE, PRIMARY KEY (item, record)) WITHOUT ROWID",
    "CREATE INDEX IF NOT EXISTS by_record ON item_ids (record)",
)


@dataclass(frozen=True, slots=True)
class Record:
    """One stored response or conversation.

    Attributes:
        id: its id.
        owner: digest of the key that created it, as a key's name can be given to another key; None without keys.
        head: the response object, or the conversation object.
        items: the items of the request, or of the conversation.
        before: the items that came before those of the request.
    """

    id: str
    owner: bytes | None
    head: Mapping[str, Any]
    items: Sequence[Mapping[str, Any]] = field(default=(), repr=False)
    before: Sequence[Mapping[str, Any]] = field(default=(), repr=False)

    @property
    def context(self) -> list[Mapping[str, Any]]:
        """All items of the conversation, the output of the response included."""
        return [*self.before, *self.items, *self.head.get("output", ())]


class RecordTable:
    """The records of one database. All methods block, and must be called by one thread at a time.

    Args:
        path: the file; None: the records are in memory.
        max_records, max_bytes, max_age_s: bounds of all records; the age counts from their last use.
        clock: returns the time in seconds since 1970.

    Raises:
        sqlite3.Error: the file cannot be opened, or is no database.
        OSError: the file cannot be made.
    """

    def __init__(
        self,
        path: Path | None,
        max_records: int = MAX_RECORDS,
        max_bytes: int | None = None,
        max_age_s: float = MAX_AGE_S,
        clock: Callable[[], float] = time.time,
    ) -> None:
        self._max_records, self._max_age_s, self._clock = max_records, max_age_s, clock
        self._max_bytes = max_bytes or (MAX_MEMORY_BYTES if path is None else MAX_DISK_BYTES)
        if path is not None:
            os.close(os.open(path, os.O_RDWR | os.O_CREAT, FILE_MODE))
        self._database = sqlite3.connect(
            ":memory:" if path is None else path,
            timeout=_LOCK_WAIT_S,
            isolation_level=None,
            check_same_thread=False,
        )
        for pragma in _PRAGMAS:
            self._database.execute(pragma)
        with self._transaction():
            (version,) = self._database.execute("PRAGMA user_version").fetchone()
            if version != _VERSION:
                self._database.execute("DROP TABLE IF EXISTS item_ids")
                self._database.execute("DROP TABLE IF EXISTS records")
            for table in _TABLES:
                self._database.execute(table)
            self._database.execute(f"PRAGMA user_version = {_VERSION}")

    def put(self, record: Record) -> None:
        """Store a record in place of an earlier one of its id, and drop others where the table is full.

        Raises:
            InvalidRequest: it has more than ``MAX_RECORD_BYTES``; what was stored is unchanged.
        """
        head, items, before = _json(record.head), _json_list(record.items), _json_list(record.before)
        size = len(head) + len(items) + len(before)
        if size > MAX_RECORD_BYTES:
            raise InvalidRequest(
                f"'{record.id}' would have {size:,} bytes; {MAX_RECORD_BYTES:,} are the most that is stored. Begin a "
                "new one with what is still needed, or with the answer of /v1/responses/compact.",
                "conversation" if record.id.startswith("conv_") else "input",
            )
        item_ids = {item["id"] for item in (*record.items, *record.head.get("output", ())) if "id" in item}
        with self._transaction():
            self._database.execute("DELETE FROM records WHERE id = ?", (record.id,))
            self._database.execute(
                "INSERT INTO records VALUES (?, ?, ?, ?, ?, ?, ?)",
                (record.id, record.owner, self._clock(), size, head, before, items),
            )
            self._database.executemany(
                "INSERT INTO item_ids VALUES (?, ?)", [(item_id, record.id) for item_id in item_ids]
            )
            self._drop_excess()

    def find(self, id: str, owner: bytes | None) -> Record | None:  # noqa: A002 (OpenAI's own word)
        """Return the record of that id and owner; None: there is none."""
        row = self._database.execute(
            "SELECT head, items, before FROM records WHERE id = ? AND owner IS ? AND used > ?",
            (id, owner, self._clock() - self._max_age_s),
        ).fetchone()
        if row is None:
            return None
        self._database.execute("UPDATE records SET used = ? WHERE id = ?", (self._clock(), id))
        return Record(id, owner, *map(_parsed, row))

    def size(self, id: str, owner: bytes | None) -> int | None:  # noqa: A002
        """Return how many bytes the record of that id and owner has; None: there is none."""
        row = self._database.execute("SELECT bytes FROM records WHERE id = ? AND owner IS ?", (id, owner)).fetchone()
        return None if row is None else int(row[0])

    def items(self, ids: Iterable[str], owner: bytes | None) -> dict[str, Mapping[str, Any]]:
        """Return the items of those ids in any records of the owner, by their ids; each record is read once."""
        wanted: defaultdict[str, set[str]] = defaultdict(set)
        for item_id in dict.fromkeys(ids):
            row = self._database.execute(
                "SELECT id FROM records JOIN item_ids ON record = id WHERE item = ? AND owner IS ? LIMIT 1",
                (item_id, owner),
            ).fetchone()
            if row is not None:
                wanted[row[0]].add(item_id)
        found: dict[str, Mapping[str, Any]] = {}
        for record_id, item_ids in wanted.items():
            if (record := self.find(record_id, owner)) is not None:
                items = (*record.items, *record.head.get("output", ()))
                found |= {item["id"]: item for item in items if item.get("id") in item_ids}
        return found

    def delete(self, id: str, owner: bytes | None) -> bool:  # noqa: A002 (OpenAI's own word)
        """Delete a record; return whether there was one."""
        return self._database.execute("DELETE FROM records WHERE id = ? AND owner IS ?", (id, owner)).rowcount > 0

    def change(self, id: str, owner: bytes | None, change: Callable[[Record], Record]) -> Record | None:  # noqa: A002
        """Replace a record by what ``change`` returns for it; return the new one; None: there is none.

        Raises:
            InvalidRequest: as ``put``.
        """
        record = self.find(id, owner)
        if record is None:
            return None
        changed = change(record)
        self.put(changed)
        return changed

    def close(self) -> None:
        """Close the database."""
        self._database.close()

    def _drop_excess(self) -> None:
        self._database.execute("DELETE FROM records WHERE used <= ?", (self._clock() - self._max_age_s,))
        while True:
            number, size = self._database.execute("SELECT COUNT(*), COALESCE(SUM(bytes), 0) FROM records").fetchone()
            if number > self._max_records:
                self._drop("COUNT(*)")
            elif size > self._max_bytes and number > 1:
                self._drop("SUM(bytes)")
            else:
                return

    def _drop(self, share: str) -> None:
        """Drop the record that was unused for longest, of the owner with the largest share; ``share`` is SQL."""
        held = self._database.execute(f"SELECT owner, {share}, MIN(used) FROM records GROUP BY owner").fetchall()
        owner, _, _ = max(held, key=lambda each: (each[1], -each[2]))
        self._database.execute(
            "DELETE FROM records WHERE id = (SELECT id FROM records WHERE owner IS ? ORDER BY used, rowid LIMIT 1)",
            (owner,),
        )

    @contextmanager
    def _transaction(self) -> Iterator[None]:
        self._database.execute("BEGIN IMMEDIATE")
        # sqlite3's own context commits, and rolls back after an error, also after one of the commit.
        with self._database:
            yield


def _json(value: Any) -> bytes:
    return orjson.dumps(value, default=str)


def _json_list(items: Sequence[Mapping[str, Any]]) -> bytes:
    """Return a list as JSON. Each item is written by itself: orjson holds the interpreter's lock during a call."""
    return b"[" + b",".join(map(_json, items)) + b"]"


def _parsed(text: bytes) -> Any:
    return orjson.loads(text) if len(text) <= MAX_FRAGMENT_BYTES else parse_long(text)
