"""The files of all models: found, downloaded and converted when they are needed, and remembered."""

from __future__ import annotations

import asyncio
import threading
from collections.abc import Callable
from typing import Final

from modelyard.hub import FilePlan, FileRequest, ModelFiles, Progress, Stores, estimate_files, plan_files, prepare
from modelyard.hub.select.model_files import are_current

# Downloads share the network, conversions the cores and up to some gigabytes of memory each.
PREPARED_AT_ONCE: Final = 2


class ModelFileProvider:
    """Files by name of the model that they are for. Use it on one event loop.

    Args:
        stores: where files come from and where converted ones go.
        on_progress: called on any thread with how far the files of a model are.

    Attributes:
        progress: of the models whose files are being prepared.
    """

    def __init__(self, stores: Stores, on_progress: Callable[[str, Progress], None] = lambda _name, _: None) -> None:
        self.progress: dict[str, Progress] = {}
        self.on_progress = on_progress
        self._stores = stores
        self._known: dict[FileRequest, ModelFiles] = {}
        self._places = asyncio.Semaphore(PREPARED_AT_ONCE)

    async def get(self, name: str, wanted: FileRequest, fits: Callable[[ModelFiles], bool]) -> ModelFiles:
        """The files, on this machine and looked into. Cancelling it gives a download or a conversion up.

        What came from the hub is not asked for again while the files are the same: a model comes back from an unload
        as it was, also without the network.

        Raises:
            UnusableModel: they cannot be had, or used.
        """
        known = self._known.get(wanted)
        if known is not None and await asyncio.to_thread(are_current, known):
            return known
        async with self._places:
            is_given_up = threading.Event()

            def report(progress: Progress) -> bool:
                self.report_progress(name, progress)
                return not is_given_up.is_set()

            try:
                files, is_of_hub = await asyncio.to_thread(self._prepare, wanted, fits, report)
            except asyncio.CancelledError:
                is_given_up.set()
                raise
            finally:
                self.progress.pop(name, None)
        if is_of_hub:
            self._known[wanted] = files
        return files

    def report_progress(self, name: str, progress: Progress) -> None:
        """Note how far the files of a model are. May be called on any thread."""
        self.progress[name] = progress
        self.on_progress(name, progress)

    async def estimate(self, wanted: FileRequest, fits: Callable[[ModelFiles], bool]) -> ModelFiles:
        """The files as they will be, without preparing them.

        Raises:
            UnusableModel: they cannot be had, or used.
        """
        known = self._known.get(wanted)
        if known is not None:
            return known

        def look() -> ModelFiles:
            return estimate_files(self._plan(wanted, fits), self._stores)

        return await asyncio.to_thread(look)

    def _prepare(
        self, wanted: FileRequest, fits: Callable[[ModelFiles], bool], report: Callable[[Progress], bool]
    ) -> tuple[ModelFiles, bool]:
        report(Progress("reading files", 0.0))
        plan = self._plan(wanted, fits)
        files = prepare(plan, self._stores, report)
        return files, plan.decision.listing.hub_id is not None

    def _plan(self, wanted: FileRequest, fits: Callable[[ModelFiles], bool]) -> FilePlan:
        def fits_plan(plan: FilePlan) -> bool:
            return fits(estimate_files(plan, self._stores))

        return plan_files(wanted, self._stores, fits_plan)
