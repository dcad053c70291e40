"""Watches the memory of devices, and reports to the residency how much of it the models may take.

One child process is asked every few seconds. What it says of free memory counts while no model is loaded or freed: at
other times a part of what the models take is free still, or again, and would count twice. That a device is gone counts
at any time.
"""

from __future__ import annotations

import asyncio
import contextlib
import logging
from collections.abc import Callable, Mapping, Sequence
from typing import Final, Protocol

from modelyard.engine.hosts.device_reader import DeviceReader, DevicesNotRead
from modelyard.engine.placing import LlamaDevice, accelerators
from modelyard.errors import ConfigError
from modelyard.system.quantities import size_text
from modelyard.yard.memory.device_budgets import (
    ConfiguredBudgets,
    device_budgets,
    have_changed,
    own_pools,
    resolved_budgets,
)
from modelyard.yard.residency.events import DeviceBudgetsChanged
from modelyard.yard.residency.state import LoadState, Residency

logger = logging.getLogger(__name__)

INTERVAL_S: Final = 3.0
"""Seconds between two readings: another program's allocation is noticed this late."""

MAX_BACKOFF_S: Final = 60.0
REFRESH_S: Final = 30.0
"""Bound of the wait for a reading that was asked for."""

_CLOSE_S: Final = 30.0
_MAX_DOUBLINGS: Final = 16

_CHANGING: Final = frozenset({LoadState.LOADING, LoadState.FREEING})


def at_rest(state: Residency) -> tuple[tuple[str, LoadState, float], ...] | None:
    """Return what is resident, as a value that differs after any load or free; None while one is under way."""
    models = {name: state.models[name] for name in state.resident()}
    if any(model.load_state in _CHANGING for model in models.values()):
        return None
    return tuple((name, model.load_state, model.load_began) for name, model in models.items())


class Reader(Protocol):
    """What the watch needs of a reader of devices; see ``modelyard.engine.hosts.device_reader.DeviceReader``."""

    def read(self) -> tuple[LlamaDevice, ...]:
        """Return all devices as they are now. Blocks.

        Raises:
            DevicesNotRead: they cannot be read now, or the reader is closed.
        """

    def close(self) -> None:
        """End a reading that is under way, and refuse all others."""


class DeviceWatch:
    """Lists the devices, and watches their memory from ``follow`` to ``close``. Everything runs on one event loop.

    Args:
        reader: reads the devices; None: those of this machine.
        interval_s: seconds between two readings.

    Attributes:
        is_listed: whether they were listed.
        found: all devices, as they were last listed; () without accelerators.
        budgets: what models may take of each pool, in bytes.
    """

    def __init__(self, reader: Reader | None = None, interval_s: float = INTERVAL_S) -> None:
        self.is_listed = False
        self.found: tuple[LlamaDevice, ...] = ()
        self.budgets: Mapping[str, int] = {}
        self._reader = reader or DeviceReader()
        self._interval_s = interval_s
        self._listed: tuple[LlamaDevice, ...] = ()
        self._configured: Mapping[str, int | float] = {}
        # The last reading that counts, and what the models took at that time.
        self._reading: tuple[tuple[LlamaDevice, ...], Mapping[str, int]] = ((), {})
        self._feed: Callable[[DeviceBudgetsChanged], None] | None = None
        self._task: asyncio.Task[None] | None = None
        self._wake = asyncio.Event()
        self._asked: list[asyncio.Future[None]] = []
        self._failures = 0
        self._is_closed = False

    async def list(self) -> tuple[LlamaDevice, ...]:
        """Return all devices with their memory, before any model is loaded; () where there are no accelerators.

        It takes seconds.
        """
        found = await self._read("and what models take of it is not counted")
        self.found = self._listed = found if accelerators(found) else ()
        self._reading = self.found, {}
        self.is_listed = True
        if not own_pools(found):
            await asyncio.to_thread(self._reader.close)
        return self.found

    def check(self, configured: ConfiguredBudgets) -> None:
        """Refuse budgets of devices that were not listed at the start; those that were may be gone at the moment.

        Raises:
            ConfigError: with one problem for each.
        """
        if problems := resolved_budgets(configured, self._listed).problems:
            raise ConfigError("", list(problems))

    def configure(self, configured: ConfiguredBudgets) -> Mapping[str, int]:
        """Apply configured budgets, at once, and return what models may take of each pool."""
        self._configured = resolved_budgets(configured, self._listed).by_pool
        self._set(self._budgets_by(self._configured))
        return self.budgets

    def budgets_with(self, configured: ConfiguredBudgets) -> Mapping[str, int]:
        """Return what models may take of each pool once ``configured`` is applied. Changes nothing."""
        return self._budgets_by(resolved_budgets(configured, self._listed).by_pool)

    def follow(self, state: Callable[[], Residency], feed: Callable[[DeviceBudgetsChanged], None]) -> None:
        """Begin to watch, where devices have memory of their own.

        Args:
            state: returns the state of the residency.
            feed: feeds it with changed budgets.
        """
        if own_pools(self.found) and self._task is None and not self._is_closed:
            self._feed = feed
            self._task = asyncio.get_running_loop().create_task(self._watch(state), name="devices")
            self._task.add_done_callback(self._note_end)

    async def refresh(self) -> None:
        """Return once the devices were read after this call, or could not be. Bounded."""
        if self._task is None or self._is_closed:
            return
        asked = asyncio.get_running_loop().create_future()
        self._asked.append(asked)
        self._wake.set()
        await asyncio.wait((asked, self._task), timeout=REFRESH_S, return_when=asyncio.FIRST_COMPLETED)

    async def close(self) -> None:
        """End the watch and its child. Bounded."""
        self._is_closed = True
        self._wake.set()
        # A reading that is under way ends with the child.
        await asyncio.to_thread(self._reader.close)
        if self._task is not None:
            await asyncio.wait((self._task,), timeout=_CLOSE_S)
        _answer(self._asked)

    @staticmethod
    def _note_end(watch: asyncio.Task[None]) -> None:
        """Log a defect of the watch: without it, budgets of devices stay as they were read last."""
        if not watch.cancelled() and (failure := watch.exception()) is not None:
            logger.error("The memory of devices is not watched any longer", exc_info=failure)

    async def _watch(self, state: Callable[[], Residency]) -> None:
        while not self._is_closed:
            pause_s = min(self._interval_s * 2.0 ** min(self._failures, _MAX_DOUBLINGS), MAX_BACKOFF_S)
            with contextlib.suppress(TimeoutError):
                async with asyncio.timeout(pause_s):
                    await self._wake.wait()
            self._wake.clear()
            asked, self._asked = self._asked, []
            try:
                await self._look(state)
            finally:
                _answer(asked)

    async def _look(self, state: Callable[[], Residency]) -> None:
        """Read the devices, and tell what has changed."""
        before, taken = at_rest(state()), state().used
        found = await self._read()
        if self._is_closed:
            return
        self.found = found if accelerators(found) else ()
        self._note_lost(found)
        if before is not None and at_rest(state()) == before:
            self._reading = self.found, taken
            budgets = device_budgets(found, self._configured, taken)
            if have_changed(self.budgets, budgets):
                self._set(budgets)

    async def _read(self, consequence: str = "and are not used") -> tuple[LlamaDevice, ...]:
        """Return the devices; () where they cannot be read even by a new child: what is not listed has no budget.

        ``consequence`` is what the log says of that.
        """
        for _ in range(2):
            try:
                found = await asyncio.to_thread(self._reader.read)
            except DevicesNotRead as failure:
                # A device that is gone may end the child, and is not listed by the next one.
                reason = failure.reason
            else:
                self._failures = 0
                return found
        self._failures += 1
        if self._failures == 1 and not self._is_closed:
            logger.warning("The devices cannot be asked for their memory, %s: %s", consequence, reason)
        return ()

    def _budgets_by(self, configured: Mapping[str, int | float]) -> dict[str, int]:
        there = {device.name for device in self.found}
        found, taken = self._reading
        return device_budgets([device for device in found if device.name in there], configured, taken)

    def _note_lost(self, found: Sequence[LlamaDevice]) -> None:
        """Withdraw the budgets of devices that are gone, also while models are loaded or freed.

        llama.cpp numbers those that are left anew, so that a name may be that of a smaller device by now.
        """
        there = {device.name: device for device in own_pools(found)}
        if lost := sorted(self.budgets.keys() - there.keys()):
            logger.warning("Lost %s: the models there go elsewhere", ", ".join(lost))
            before = {device.name: device.total_bytes for device in self._reading[0]}
            renumbered = [device for name, device in there.items() if device.total_bytes != before.get(name)]
            least = device_budgets(renumbered, self._configured, {})
            kept = {pool: size for pool, size in self.budgets.items() if pool in there}
            self._set({pool: min(size, least.get(pool, size)) for pool, size in kept.items()})

    def _set(self, budgets: Mapping[str, int]) -> None:
        if budgets == self.budgets:
            return
        if back := sorted(budgets.keys() - self.budgets.keys()):
            texts = (f"{size_text(budgets[pool])} of {pool}" for pool in back)
            logger.info("Models may take %s", ", ".join(texts))
        self.budgets = budgets
        if self._feed is not None:
            self._feed(DeviceBudgetsChanged(budgets))


def _answer(asked: Sequence[asyncio.Future[None]]) -> None:
    for future in asked:
        if not future.done():
            future.set_result(None)
