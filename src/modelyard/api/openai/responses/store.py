"""Responses and conversations that clients can retrieve later: on disk or in memory, up to a bound."""

from __future__ import annotations

import asyncio
import logging
import sqlite3
from collections.abc import Callable, Mapping
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any, Final, TypeVar

from modelyard.api.openai.responses.records import Record, RecordTable
from modelyard.config.paths import make_own_folder

logger = logging.getLogger(__name__)

_Result = TypeVar("_Result")

_FORGOTTEN: Final = (
    "%s cannot be used, so responses and conversations are kept in memory, and a restart loses them: %s. Make the "
    "folder writable and the file a database or delete it, or set [server] keep_responses to 'memory'."
)


class ResponseStore:
    """The records of one application, used by one thread of its own.

    What is stored is found at once: reads wait for the writes before them. Where the file cannot be used, records are
    kept in memory, and the log says so once.

    Args:
        path: the file on disk; None: records are kept in memory.
    """

    def __init__(self, path: Path | None = None) -> None:
        self._path = path
        self._thread = ThreadPoolExecutor(1, thread_name_prefix="stored responses")
        # Both are opened by the thread, when they are needed first.
        self._disk: RecordTable | None = None
        self._memory: RecordTable | None = None
        self._has_warned = False

    def keep(self, record: Record) -> None:
        """Store a record in place of an earlier state of it. Returns at once."""
        self._thread.submit(self._put, record)

    async def find(self, id: str, owner: bytes | None) -> Record | None:  # noqa: A002 (OpenAI's own word)
        """Return the record of that id and owner; None: there is none."""
        return await self._run(lambda table: table.find(id, owner))

    async def item(self, id: str, owner: bytes | None) -> Mapping[str, Any] | None:  # noqa: A002 (OpenAI's own word)
        """Return the item of that id in any record of the owner; None: there is none."""
        return await self._run(lambda table: table.item(id, owner))

    async def delete(self, id: str, owner: bytes | None) -> bool:  # noqa: A002 (OpenAI's own word)
        """Delete a record; return whether there was one."""
        return await self._run(lambda table: table.delete(id, owner) or None) is True

    async def change(self, id: str, owner: bytes | None, change: Callable[[Record], Record]) -> Record | None:  # noqa: A002
        """Replace a record by what ``change`` returns for it; return the new one; None: there is none.

        No other change of this application comes between. ``change`` runs on the store's thread, and may raise.
        """
        return await self._run(lambda table: table.change(id, owner, change))

    def change_later(self, id: str, owner: bytes | None, change: Callable[[Record], Record]) -> None:  # noqa: A002
        """Start ``change`` and return at once."""
        self._thread.submit(self._first, lambda table: table.change(id, owner, change))

    async def flush(self) -> None:
        """Wait until all that was stored is written."""
        await self._run(lambda _: None)

    def close(self) -> None:
        """Write what was stored, and close the file. Blocks."""
        self._thread.shutdown()
        for table in (self._disk, self._memory):
            if table is not None:
                table.close()

    async def _run(self, use: Callable[[RecordTable], _Result | None]) -> _Result | None:
        return await asyncio.get_running_loop().run_in_executor(self._thread, self._first, use)

    # The methods below run on the store's thread.

    def _first(self, use: Callable[[RecordTable], _Result | None]) -> _Result | None:
        """Return the first result that is not None, of the tables in which the record may be."""
        for table in (self._on_disk(), self._memory):
            if table is None:
                continue
            try:
                if (result := use(table)) is not None:
                    return result
            except sqlite3.Error as error:
                self._warn(error)
        return None

    def _put(self, record: Record) -> None:
        if (disk := self._on_disk()) is not None:
            try:
                disk.put(record)
            except sqlite3.Error as error:
                self._warn(error)
            else:
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
                self._warn(error)
                self._path = None
        return self._disk

    def _warn(self, error: Exception) -> None:
        if not self._has_warned:
            logger.warning(_FORGOTTEN, self._path, error)
        self._has_warned = True
