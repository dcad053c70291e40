"""Reads a configuration on a thread of its own: its folder may be on a file system that does not answer."""

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
    """Reads one configuration, again and again.

    Args:
        read: reads it; it may take for ever.
        limit_s: how long that is waited for.
    """

    def __init__(self, read: Callable[[], Config], limit_s: float = READ_S) -> None:
        self._read, self._limit_s = read, limit_s
        self._reading: Future[Config] | None = None
        self._turn = asyncio.Lock()

    def read(self) -> Config:
        """The configuration, on a thread that may wait.

        Raises:
            ConfigError: it is faulty, or takes too long to be read.
        """
        reading = self._begin()
        if not wait((reading,), self._limit_s).done:
            raise self._late()
        return reading.result()

    async def read_async(self) -> Config:
        """The same on an event loop, which goes on meanwhile.

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
        # From here on it cannot be cancelled: it is done when the thread is.
        reading.set_running_or_notify_cancel()

        def run() -> None:
            try:
                reading.set_result(self._read())
            except BaseException as failure:  # noqa: BLE001 (raised where it is waited for)
                reading.set_exception(failure)

        self._reading = reading
        # A daemon: a process that ends does not wait for it.
        threading.Thread(target=run, name="read the configuration", daemon=True).start()
        return reading

    def _late(self) -> ConfigError:
        return ConfigError(
            "configuration", [f"It could not be read within {self._limit_s:.0f} s. Is its file system there?"]
        )
