"""Reads a configuration on a thread of its own, because its file system may hang."""

from __future__ import annotations

import asyncio
import threading
from collections.abc import Callable
from concurrent.futures import Future, wait
from typing import TYPE_CHECKING, Final

from modelyard.errors import ConfigError

if TYPE_CHECKING:
    from modelyard.config.schema import Config

READ_S: Final = 10.0


class ConfigReader:
    """Reads one configuration, as often as needed.

    Args:
        read: reads it, and may hang.
        limit_s: longest time that a read is waited for.
    """

    def __init__(self, read: Callable[[], Config], limit_s: float = READ_S) -> None:
        self._read, self._limit_s = read, limit_s
        self._reading: Future[Config] | None = None
        self._turn = asyncio.Lock()

    def read(self) -> Config:
        """Read and return the configuration. Blocks the thread.

        Raises:
            ConfigError: it is faulty, or takes too long to be read.
        """
        reading = self._begin()
        if not wait((reading,), self._limit_s).done:
            raise self._late()
        return reading.result()

    async def read_async(self) -> Config:
        """Read and return the configuration without blocking the event loop.

        Raises:
            ConfigError: as ``read``; also where an earlier attempt still hangs, so that threads do not pile up.
        """
        async with self._turn:
            reading = self._begin()
            waiting = asyncio.wrap_future(reading)
            try:
                async with asyncio.timeout(self._limit_s):
                    return await waiting
            except TimeoutError:
                if reading.done():
                    raise
                raise self._late() from None

    def _begin(self) -> Future[Config]:
        if self._reading is not None and not self._reading.done():
            raise ConfigError("configuration", ["An earlier attempt to read it has not ended: its file system hangs."])
        reading: Future[Config] = Future()
        # From here on the future cannot be cancelled: it is done when the thread ends.
        reading.set_running_or_notify_cancel()

        def run() -> None:
            try:
                reading.set_result(self._read())
            except BaseException as failure:  # noqa: BLE001 (raised where it is waited for)
                reading.set_exception(failure)

        self._reading = reading
        # A daemon thread, so that the process can end while it hangs.
        threading.Thread(target=run, name="read the configuration", daemon=True).start()
        return reading

    def _late(self) -> ConfigError:
        return ConfigError(
            "configuration", [f"It could not be read within {self._limit_s:.0f} s. Is its file system there?"]
        )
