"""Searches this machine at intervals while a yard serves: models that are found are added, others removed."""

from __future__ import annotations

import asyncio
import contextlib
import logging
import threading
import time
from collections.abc import Callable, Mapping
from typing import Final

from modelyard.errors import ModelyardError
from modelyard.yard.discovery.discovery import Discovery, Scan
from modelyard.yard.yard import Yard

logger = logging.getLogger(__name__)

PAUSE_S: Final = 15.0
"""Pause between two searches."""

# A search takes at most this part of the time: a large tree on a slow disk is looked at less often.
_MAX_SHARE: Final = 0.05

# What was checked by then is served, and the rest after the next search, which follows at once.
_SCAN_S: Final = 3.0


class DiscoveryFollower:
    """Keeps a yard's discovered models up to date. Use it on the yard's event loop.

    Args:
        yard: the yard, which is started.
        discovery: what searches.
        pause_s: shortest pause between two searches.

    Attributes:
        discovery: what searches.
    """

    def __init__(self, yard: Yard, discovery: Discovery, pause_s: float = PAUSE_S) -> None:
        self._has_looked = asyncio.Event()
        self.discovery = discovery
        self._yard, self._pause_s = yard, pause_s
        self._reported: Mapping[str, str] = {}

    async def run(self) -> None:
        """Search again and again, until it is cancelled."""
        while True:
            began = time.monotonic()
            is_complete = True
            if self._yard.config.discover.is_on:
                is_complete = await self.look()
            self._has_looked.set()
            took = time.monotonic() - began
            await asyncio.sleep(max(self._pause_s, took / _MAX_SHARE) if is_complete else 0)

    async def until_looked(self) -> None:
        """Wait until the first search is over."""
        await self._has_looked.wait()

    async def look(self) -> bool:
        """Search once, and serve what was found; return whether everything was looked at."""
        before = self._yard.config
        scan = await _on_daemon_thread(lambda: self.discovery.scan(before, _SCAN_S))
        self._report(scan)
        before = self._yard.config
        if self.discovery.served(before).models != before.models:
            try:
                result = await self._yard.revise(self.discovery.served)
            except ModelyardError as error:
                logger.warning("What was found on this machine cannot be served yet: %s", error)
                return scan.is_complete
            changes = result.diff
            for what, models in (("Found", changes.added), ("No longer there:", changes.removed)):
                if models:
                    logger.info("%s %s", what, ", ".join(models))
            await self._yard.survey()
        return scan.is_complete

    def _report(self, scan: Scan) -> None:
        """Log why models are left out, of each once until that ends."""
        for name, problem in scan.left_out.items():
            if name not in self._reported:
                logger.warning("%s is left out: %s", name, problem)
        if scan.is_complete:
            self._reported = scan.left_out
        else:
            self._reported = {**self._reported, **scan.left_out}


async def _on_daemon_thread(work: Callable[[], Scan]) -> Scan:
    """Return the result of ``work``, whose thread does not keep the process from ending: a file system may hang."""
    loop = asyncio.get_running_loop()
    outcome: asyncio.Future[Scan] = loop.create_future()

    def tell(result: Scan | None, failure: BaseException | None) -> None:
        if outcome.cancelled():
            return
        if result is None:
            outcome.set_exception(failure or AssertionError())
        else:
            outcome.set_result(result)

    def run() -> None:
        result, failure = None, None
        try:
            result = work()
        except BaseException as raised:  # noqa: BLE001 (raised where it is waited for)
            failure = raised
        with contextlib.suppress(RuntimeError):  # the loop was closed meanwhile, and nobody waits any more
            loop.call_soon_threadsafe(tell, result, failure)

    threading.Thread(target=run, name="look for models", daemon=True).start()
    return await outcome
