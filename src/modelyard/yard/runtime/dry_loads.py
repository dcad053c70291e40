"""What models take of each device, as llama.cpp plans it. A plan takes a second, and is kept on disk."""

from __future__ import annotations

import asyncio
import hashlib
import json
import logging
import threading
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Final

from modelyard.config.paths import make_own_folder, own_cache
from modelyard.engine.hosts.dry_load import DryLoad, read_bytes, run_dry_load, written_bytes
from modelyard.engine.settings import EngineSettings
from modelyard.errors import UnusableModel
from modelyard.hub.sources.llama_converter import engine_build, engine_version
from modelyard.protocol.placement import PlacedBytes, Placement
from modelyard.protocol.prompts import Sampling
from modelyard.system.file_digest import contents_digest
from modelyard.system.private_files import read_private, write_private

logger = logging.getLogger(__name__)

# Version of what a dry load computes: after a change all plans are made again.
_RECIPE: Final = 1
# Each takes the cores for a second.
MAX_CONCURRENT: Final = 2

RunDryLoad = Callable[[DryLoad, Callable[[], bool]], PlacedBytes | None]


class DryLoads:
    """Plans of one yard, one small file each. Use it on one event loop.

    Args:
        folder: where plans are kept; None: the user's cache.
        run: makes a plan.
    """

    def __init__(self, folder: Path | None = None, run: RunDryLoad = run_dry_load) -> None:
        self._folder = folder or own_cache() / "plans"
        self._run = run
        self._slots = asyncio.Semaphore(MAX_CONCURRENT)
        self._known: dict[str, PlacedBytes] = {}

    async def bytes_of(self, settings: EngineSettings, placement: Placement) -> PlacedBytes | None:
        """Return what the model takes of each device, and of the host, where it is put; None where it is unknown.

        It does not count what a draft model and a projector take. Cancelling it ends the dry load.

        Args:
            settings: of the engine.
            placement: with names of devices, and with parts for several: see ``resolve`` and
                ``divided_by_free_memory`` in ``engine.placing``.

        Raises:
            UnusableModel: llama.cpp cannot load the model there, or a file cannot be read.
        """
        task = DryLoad(_planned(settings, placement))
        key = await asyncio.to_thread(plan_key, task)
        if (known := self._known.get(key)) is not None:
            return known
        found = await asyncio.to_thread(self._read, key)
        if found is None:
            async with self._slots:
                found = await self._plan(task)
            if found is not None:
                await asyncio.to_thread(self._write, key, found, settings.name)
        if found is not None:
            self._known[key] = found
        return found

    async def _plan(self, task: DryLoad) -> PlacedBytes | None:
        is_over = threading.Event()
        try:
            return await asyncio.to_thread(self._run, task, lambda: not is_over.is_set())
        finally:
            is_over.set()

    def _read(self, key: str) -> PlacedBytes | None:
        try:
            return read_bytes(json.loads(read_private(self._folder / f"{key}.json"))["bytes"])
        except (OSError, ValueError, KeyError, TypeError, AttributeError):
            return None

    def _write(self, key: str, placed: PlacedBytes, name: str) -> None:
        try:
            make_own_folder(self._folder)
            text = json.dumps({"model": name, "bytes": written_bytes(placed)})
            write_private(self._folder / f"{key}.json", text.encode())
        except OSError as error:
            logger.warning("What %s takes cannot be remembered: %s", name, error)


def _planned(settings: EngineSettings, placement: Placement) -> EngineSettings:
    """Return the settings without what the memory of the model does not depend on."""
    return replace(
        settings,
        placement=placement,
        sampling=Sampling(),
        chat_template=None,
        draft=(),
        projector=None,
        kv_keep="off",
        kv_dir=None,
        files=(),
    )


def plan_key(task: DryLoad) -> str:
    """Return a digest of everything that a plan depends on.

    Raises:
        UnusableModel: a file cannot be read.
    """
    settings = task.settings
    try:
        files = [contents_digest(settings.paths), *(path.stat().st_mtime_ns for path in settings.paths)]
    except OSError as error:
        raise UnusableModel(f"{Path(error.filename).name} cannot be read: {error.strerror}.") from error
    facts = {
        "recipe": _RECIPE,
        "engine": [engine_version(), engine_build()],
        "files": files,
        "kind": settings.kind,
        "context_length": settings.context_length,
        "max_seqs": settings.max_seqs,
        "prefix_slots": settings.prefix_slots,
        "batch_tokens": settings.batch_tokens,
        "kv_type": settings.kv_type,
        "flash_attn": settings.flash_attn,
        "placement": str(settings.placement),
        "repacks": task.repacks,
    }
    return hashlib.blake2b(json.dumps(facts).encode(), digest_size=16).hexdigest()
