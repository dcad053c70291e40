"""Refuses early what a model cannot do, as far as its files are known or quickly read."""

from __future__ import annotations

import asyncio

from modelyard.errors import TakesNoImages, TakesNoSound
from modelyard.hub import Modalities
from modelyard.yard.directory import ModelDirectory
from modelyard.yard.listing import ModelListing
from modelyard.yard.requests.context import current_caller
from modelyard.yard.runtime.capabilities import Capabilities, Task, refusal
from modelyard.yard.runtime.engine_factory import EngineFactory
from modelyard.yard.stats.status import ModelStatus


class CapabilityChecks:
    """Checks requests against what their models do, before anything is done for them. Use it on the yard's event loop.

    Args:
        directory, factory, listing: of the yard.
    """

    def __init__(self, directory: ModelDirectory, factory: EngineFactory, listing: ModelListing) -> None:
        self._directory = directory
        self._listing = listing
        self._capabilities = Capabilities(factory)

    async def check_task(self, name: str | None, task: Task) -> None:
        """Refuse a task that a model does not do.

        Args:
            name: id or alias of the model; None means the default.
            task: what it is asked for.

        Raises:
            ModelNotFound, ModelRequired: there is no such model.
            UnsupportedOperation: it does something else.
        """
        names = self._directory.residency_names
        model = self._directory.router.route(name)
        kind = await self._capabilities.kind_of(names[model])
        if kind is None or refusal(model, kind, task, {}) is None:
            return
        # The error lists other models that do the task, of those that the caller may know.
        ids = current_caller().permitted_models(entry.id for entry in self._directory.config.models)
        kinds = await asyncio.gather(*(self._capabilities.kind_of(names[other]) for other in ids))
        refused = refusal(model, kind, task, dict(zip(ids, kinds, strict=True)))
        assert refused is not None
        raise refused

    async def check_modalities(self, name: str | None, *, image: str | None, sound: str | None) -> Modalities | None:
        """Refuse images and sound that a model does not take.

        Args:
            name: id or alias of the model; None means the default.
            image, sound: the request's field with the first image, and with the first audio clip; None: there is none.

        Returns:
            What the model takes; None where its files were not read yet, and reading them takes long. Its engine then
            refuses what it does not take.

        Raises:
            ModelNotFound, ModelRequired: there is no such model.
            TakesNoImages, TakesNoSound: it does not take what there is.
        """
        model = self._directory.router.route(name)
        modalities = await self._capabilities.modalities(self._directory.residency_names[model])
        status = self._listing.model(model)
        if image is not None and status.can_see is False:
            raise TakesNoImages(model, image, [other.id for other in await self._sized() if other.can_see])
        if sound is not None and status.can_hear is False:
            raise TakesNoSound(model, sound, [other.id for other in await self._sized() if other.can_hear])
        return modalities

    async def _sized(self) -> list[ModelStatus]:
        """Return the models that the caller may use, once their files were read, as far as that does not take long."""
        names = self._directory.residency_names
        await asyncio.gather(*(self._capabilities.modalities(names[model.id]) for model in self._listing.models()))
        return self._listing.models()
