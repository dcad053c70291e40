"""Responses and conversations that clients can retrieve later: on disk or in memory, up to a bound."""

from __future__ import annotations

import asyncio
import logging
import sqlite3
from collections.abc import Callable, Mapping, Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from functools import partial
from pathlib import Path
from threading import Lock
from typing import Any, Final, TypeVar

from modelyard.api.openai.responses.records import Record, RecordTable
from modelyard.api.serving.request_memory import LEASE
from modelyard.config.paths import make_own_folder
from modelyard.errors import InvalidRequest, StoreUnavailable

logger = logging.getLogger(__name__)

_Result = TypeVar("_Result")

_FORGOTTEN: Final = (
    "%s cannot be used, so responses and conversations are kept in memory, and a restart loses them: %s. Make the "
    "folder writable and the file a database or delete it, or set [server] keep_responses to 'memory'."
)


PARSED_BYTES: Final = 4
"""Memory of what is stored, for each of its bytes: the JSON, the values in it, and the turns that are made of them."""


class ResponseStore:
    """The records of one application, used by one thread of its own.

    What is stored is found at once: reads wait for the writes before them. Where the file cannot be written, records
    are kept in memory, and the log says so.

    Args:
        path: the file on disk; None: records are kept in memory.
    """

    def __init__(self, path: Path | None = None) -> None:
        self._path = path
        self._thread = _new_thread()
        # Held for each use: a use after ``close`` has another thread, while the first still writes.
        self._using = Lock()
        # Both are opened by the thread, when they are needed first.
        self._disk: RecordTable | None = None
        self._memory: RecordTable | None = None

    def keep(self, record: Record) -> None:
        """Store a response in place of an earlier state of it, and return at once.

        One that is too large is not stored, and the log says so.
        """
        self._start(f"store {record.id}", lambda: self._put_or_drop(record))

    async def put(self, record: Record) -> None:
        """Store a record in place of an earlier state of it.

        Raises:
            InvalidRequest: it is too large.
        """
        await asyncio.get_running_loop().run_in_executor(self._thread, self._put, record)

    async def find(self, id: str, owner: bytes | None) -> Record | None:  # noqa: A002 (OpenAI's own word)
        """Return the record of that id and owner; None: there is none. It counts as memory of the current request.

        Raises:
            StoreUnavailable: the file cannot be read.
            ServerOverloaded: the memory for requests is used up.
        """
        if (lease := LEASE.get()) is not None:
            size = await self._run(lambda table: table.size(id, owner))
            await lease.add(PARSED_BYTES * (size or 0))
        return await self._run(lambda table: table.find(id, owner))

    async def items(self, ids: Sequence[str], owner: bytes | None) -> dict[str, Mapping[str, Any]]:
        """Return the items of those ids in any records of the owner, by their ids.

        Raises:
            StoreUnavailable: the file cannot be read.
        """
        found: dict[str, Mapping[str, Any]] = {}

        def add(table: RecordTable) -> None:
            found.update(table.items([each for each in ids if each not in found], owner))

        await self._run(add)
        if (lease := LEASE.get()) is not None:
            await lease.add(PARSED_BYTES * sum(map(_length, found.values())))
        return found

    async def delete(self, id: str, owner: bytes | None) -> bool:  # noqa: A002 (OpenAI's own word)
        """Delete a record; return whether there was one.

        Raises:
            StoreUnavailable: the file cannot be written.
        """
        deleted: list[bool] = []
        await self._run(lambda table: deleted.append(table.delete(id, owner)))
        return any(deleted)

    async def change(self, id: str, owner: bytes | None, change: Callable[[Record], Record]) -> Record | None:  # noqa: A002
        """Replace a record by what ``change`` returns for it; return the new one; None: there is none.

        No other change of this application comes between. ``change`` runs on the store's thread, and may raise.

        Raises:
            InvalidRequest: it would be too large.
            StoreUnavailable: the file cannot be read or written.
        """
        return await self._run(lambda table: table.change(id, owner, change))

    def change_later(self, id: str, owner: bytes | None, change: Callable[[Record], Record]) -> None:  # noqa: A002
        """Start ``change`` and return at once. What it raises is logged."""
        self._start(f"change {id}", lambda: self._first(lambda table: table.change(id, owner, change)))

    def close(self) -> None:
        """Write what was stored, and close the file. Blocks. A later use opens it again."""
        self._start("close the stored responses", self._close_tables)
        thread, self._thread = self._thread, _new_thread()
        thread.shutdown()

    def close_at_exit(self) -> None:
        """Close the file while the interpreter exits. The store's thread has written all that was stored, and ended."""
        self._close_tables()

    def _start(self, task: str, work: Callable[[], object]) -> None:
        self._thread.submit(work).add_done_callback(partial(_log_failure, task))

    async def _run(self, use: Callable[[RecordTable], _Result | None]) -> _Result | None:
        return await asyncio.get_running_loop().run_in_executor(self._thread, self._first, use)

    # The methods below run on the store's thread.

    def _first(self, use: Callable[[RecordTable], _Result | None]) -> _Result | None:
        """Return the first result that is not None, of the tables in which the record may be.

        Raises:
            StoreUnavailable: a table failed, so that the record may be there, and no other has it.
        """
        with self._using:
            return self._first_result(use)

    def _first_result(self, use: Callable[[RecordTable], _Result | None]) -> _Result | None:
        failure: sqlite3.Error | None = None
        # What is in memory could not be written, and so is newer.
        for table in (self._memory, self._on_disk()):
            if table is None:
                continue
            try:
                if (result := use(table)) is not None:
                    return result
            except sqlite3.Error as error:
                logger.warning("Stored responses in %s cannot be used.", self._path, exc_info=error)
                failure = error
        if failure is not None:
            raise StoreUnavailable(str(failure)) from failure
        return None

    def _put_or_drop(self, record: Record) -> None:
        """Store a record; of one that is too large, no earlier state stays."""
        try:
            self._put(record)
        except InvalidRequest:
            self._first(lambda table: table.delete(record.id, record.owner) or None)
            raise

    def _put(self, record: Record) -> None:
        with self._using:
            self._put_first(record)

    def _put_first(self, record: Record) -> None:
        if (disk := self._on_disk()) is not None:
            try:
                disk.put(record)
            except sqlite3.Error as error:
                logger.warning(_FORGOTTEN, self._path, error)
            else:
                if self._memory is not None:
                    self._memory.delete(record.id, record.owner)
                return
        if self._memory is None:
            self._memory = RecordTable(None)
        self._memory.put(record)

    def _on_disk(self) -> RecordTable | None:
        if self._disk is None and self._path is not None:
            try:
                make_own_folder(self._path.parent)
                self._disk = RecordTable(self._path)
            except (OSError, sqlite3.Error) as error:
                logger.warning(_FORGOTTEN, self._path, error)
                self._path = None
        return self._disk

    def _close_tables(self) -> None:
        with self._using:
            tables = (self._disk, self._memory)
            self._disk = self._memory = None
            for table in tables:
                if table is not None:
                    table.close()


def _length(value: Any) -> int:
    """Return about as many bytes as ``value`` has as JSON."""
    match value:
        case str():
            return len(value)
        case dict():
            return sum(map(_length, value)) + sum(map(_length, value.values()))
        case list():
            return sum(map(_length, value))
    return 1


def _new_thread() -> ThreadPoolExecutor:
    return ThreadPoolExecutor(1, thread_name_prefix="stored responses")


def _log_failure(task: str, done: Future[object]) -> None:
    """Log why work failed that nobody waits for."""
    match done.exception():
        case None:
            pass
        case InvalidRequest() as refused:
            logger.warning("Did not %s: %s", task, refused)
        case error:
            logger.error("Could not %s.", task, exc_info=error)
