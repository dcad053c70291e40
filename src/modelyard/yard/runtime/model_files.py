"""The files of all models: found, downloaded and converted on demand, and cached by request."""

from __future__ import annotations

import asyncio
import threading
from collections.abc import Callable
from dataclasses import replace
from typing import Final, TypeVar

from modelyard.config import Model
from modelyard.hub import (
    FilePlan,
    FileRequest,
    ModelFiles,
    OnProgress,
    Progress,
    Stores,
    estimate_files,
    plan_files,
    plan_options,
    prepare,
)
from modelyard.hub.select.model_files import are_current
from modelyard.yard.runtime.adapter_files import NO_ADAPTERS, AdapterFiles, find_adapters

# Downloads share the network, conversions share the cores and take up to some gigabytes of memory each.
MAX_CONCURRENT_PREPARATIONS: Final = 2

_Result = TypeVar("_Result")


class ModelFileProvider:
    """Finds and prepares the files of models. Use it on one event loop.

    Args:
        stores: where files come from and where converted ones go.
        on_progress: called on any thread with the name of a model and the progress of its files.

    Attributes:
        progress: of the models whose files are being prepared, by name.
    """

    def __init__(self, stores: Stores, on_progress: Callable[[str, Progress], None] = lambda _name, _: None) -> None:
        self.progress: dict[str, Progress] = {}
        self.on_progress = on_progress
        self._stores = stores
        self._known: dict[FileRequest, ModelFiles] = {}
        self._slots = asyncio.Semaphore(MAX_CONCURRENT_PREPARATIONS)

    async def get(self, name: str, request: FileRequest, fits: Callable[[ModelFiles], bool]) -> ModelFiles:
        """Return the files of model ``name``, on this machine and with their headers read.

        Cancelling it ends a download or a conversion. Files from the hub are not requested again while they are
        unchanged on disk: a model is the same after an unload, and is loaded without the network.

        Raises:
            UnusableModel: the files are missing or unusable.
        """
        known = self._known.get(request)
        if known is not None and await asyncio.to_thread(are_current, known):
            return known
        async with self._slots:
            files, is_from_hub = await self._reported(name, lambda report: self._prepare(request, fits, report))
        if is_from_hub:
            self._known[request] = files
        return files

    async def get_adapters(self, name: str, model: Model, files: ModelFiles) -> AdapterFiles:
        """Return the files of the adapters of model ``name``, converted where that is needed; see ``find_adapters``.

        Cancelling it ends a conversion. Few seconds long, it waits for no download.
        """
        if not model.adapters:
            return NO_ADAPTERS
        return await self._reported(name, lambda report: find_adapters(model, files, self._stores, report))

    async def estimate_adapters(self, model: Model, files: ModelFiles) -> AdapterFiles:
        """Return the files of the adapters of a model as they will be; see ``find_adapters``."""
        return await asyncio.to_thread(find_adapters, model, files, self._stores) if model.adapters else NO_ADAPTERS

    async def _reported(self, name: str, work: Callable[[OnProgress], _Result]) -> _Result:
        """Run ``work`` on a thread and return its result; its progress is that of model ``name`` meanwhile."""
        is_cancelled = threading.Event()

        def report(progress: Progress) -> bool:
            self.report_progress(name, progress)
            return not is_cancelled.is_set()

        try:
            return await asyncio.to_thread(work, report)
        except asyncio.CancelledError:
            is_cancelled.set()
            raise
        finally:
            self.progress.pop(name, None)

    def report_progress(self, name: str, progress: Progress) -> None:
        """Note the progress of the files of a model. May be called on any thread."""
        self.progress[name] = progress
        self.on_progress(name, progress)

    def offline(self) -> ModelFileProvider:
        """Return a provider of the files that are on this machine already."""
        return ModelFileProvider(replace(self._stores, hub=self._stores.hub.offline()))

    async def estimate(self, request: FileRequest, fits: Callable[[ModelFiles], bool]) -> ModelFiles:
        """Return the files as they will be, without preparing them.

        Raises:
            UnusableModel: the files are missing or unusable.
        """
        known = self._known.get(request)
        if known is not None:
            return known
        return await asyncio.to_thread(lambda: estimate_files(self._plan(request, fits), self._stores))

    async def options(self, request: FileRequest) -> list[tuple[str | None, ModelFiles]]:
        """Return the values of ``quant`` that a request for ``"auto"`` may get, the best first, with the files of each.

        Raises:
            UnusableModel: there are none.
        """

        def estimated() -> list[tuple[str | None, ModelFiles]]:
            plans = plan_options(request, self._stores)
            return [(plan.request.quant, estimate_files(plan, self._stores)) for plan in plans]

        return await asyncio.to_thread(estimated)

    def _prepare(
        self, request: FileRequest, fits: Callable[[ModelFiles], bool], report: Callable[[Progress], bool]
    ) -> tuple[ModelFiles, bool]:
        report(Progress("reading files", 0.0))
        plan = self._plan(request, fits)
        files = prepare(plan, self._stores, report)
        return files, plan.decision.listing.hub_id is not None

    def _plan(self, request: FileRequest, fits: Callable[[ModelFiles], bool]) -> FilePlan:
        def fits_plan(plan: FilePlan) -> bool:
            return fits(estimate_files(plan, self._stores))

        return plan_files(request, self._stores, fits_plan)
