"""Asks llama.cpp what models will take of devices, once for each model, placement and settings."""

from __future__ import annotations

import asyncio
import logging
import threading
from collections.abc import Callable
from dataclasses import replace
from typing import Final, Protocol

from modelyard.engine.hosts.dry_load import run_dry_load
from modelyard.engine.settings import EngineSettings
from modelyard.errors import UnusableModel
from modelyard.protocol.placement import ANYWHERE, PlacedBytes
from modelyard.protocol.prompts import Sampling

logger = logging.getLogger(__name__)

MAX_KNOWN: Final = 1024
"""Plans that are kept; of more, the oldest is made again when it is needed."""


class RunDryLoad(Protocol):
    """See ``modelyard.engine.hosts.dry_load.run_dry_load``."""

    def __call__(self, settings: EngineSettings, *, goes_on: Callable[[], bool]) -> PlacedBytes | None:
        """Return what a model takes of each device, and of the host; None where llama.cpp cannot tell."""


class DryLoads:
    """What llama.cpp has planned for models. Use it on one event loop; ``known`` may be called on any thread.

    Args:
        run: makes a plan, in a process of its own.
    """

    def __init__(self, run: RunDryLoad = run_dry_load) -> None:
        self._run = run
        self._known: dict[EngineSettings, PlacedBytes | None] = {}
        self._locks: dict[EngineSettings, asyncio.Lock] = {}

    def known(self, settings: EngineSettings) -> PlacedBytes | None:
        """Return what was planned for a model; None where llama.cpp was not asked, or cannot tell."""
        return self._known.get(_key(settings))

    async def find(self, settings: EngineSettings) -> PlacedBytes | None:
        """Return what llama.cpp plans, where that is new; None where it was known before, or llama.cpp cannot tell.

        It takes a few seconds, on another thread; cancelling it ends the process that plans.

        Args:
            settings: of the engine, with the stamps of its files.
        """
        key = _key(settings)
        try:
            async with self._locks.setdefault(key, asyncio.Lock()):
                if key in self._known:
                    return None
                planned = await self._plan(settings)
                while len(self._known) >= MAX_KNOWN:
                    del self._known[next(iter(self._known))]
                self._known[key] = planned
                return planned
        finally:
            self._locks.pop(key, None)

    async def _plan(self, settings: EngineSettings) -> PlacedBytes | None:
        is_over = threading.Event()
        try:
            return await asyncio.to_thread(self._run, settings, goes_on=lambda: not is_over.is_set())
        except UnusableModel as unusable:
            # The load itself reports what is wrong with the model.
            logger.debug("%s: its memory is predicted from its header: %s", settings.name, unusable)
            return None
        finally:
            is_over.set()


def _key(settings: EngineSettings) -> EngineSettings:
    """Return the settings without those that memory does not depend on."""
    return replace(
        settings,
        name="",
        quantization="",
        chat_template=None,
        tool_format=None,
        reasoning_format=None,
        sampling=Sampling(),
        prompt_lookup=True,
        draft=(),
        draft_name="",
        draft_placement=ANYWHERE,
        weight=1.0,
        priority=0,
        kv_keep="off",
        kv_keep_bytes=0,
        kv_dir=None,
        projector=None,
        audio_encoder="",
    )
