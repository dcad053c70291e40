"""Looks into the files of models that were not loaded yet, so that listings know what they are."""

from __future__ import annotations

import asyncio
from collections.abc import Sequence
from typing import Final

from modelyard.errors import RepositoryUnavailable, UnusableModel
from modelyard.yard.directory import ModelDirectory
from modelyard.yard.memory.footprint import Footprint
from modelyard.yard.requests.model_names import ResidencyName
from modelyard.yard.runtime.engine_factory import EngineFactory
from modelyard.yard.stats.status import FileState

# Headers are read on threads, whose work shares the cores with the loads of the start.
MAX_READ_AT_ONCE: Final = 2


class FileSurvey:
    """What was found of the files of models that are loaded on demand. Nothing is downloaded or asked of the hub.

    Args:
        directory, factory: of the yard.

    Attributes:
        states: where the files of each model are.
        estimates: what each model will take about.
    """

    def __init__(self, directory: ModelDirectory, factory: EngineFactory) -> None:
        self.states: dict[ResidencyName, FileState] = {}
        self.estimates: dict[ResidencyName, Footprint] = {}
        self._directory = directory
        self._factory = factory

    async def look_into_unread(self) -> dict[str, str]:
        """Read the headers of all models whose files were not read yet; see ``Yard.survey``."""
        ids = {
            residency_name: model
            for model, residency_name in self._directory.residency_names.items()
            if not self._directory.is_remote(model)
        }
        unread = [name for name in ids if self._factory.known.facts(name) is None]
        return {ids[name]: problem for name, problem in (await self.look_into(unread)).items()}

    async def look_into(self, names: Sequence[ResidencyName]) -> dict[ResidencyName, str]:
        """Read the headers of models; return the names of those whose files cannot be served, with the reason."""
        slots = asyncio.Semaphore(MAX_READ_AT_ONCE)
        problems: dict[ResidencyName, str] = {}

        async def look(name: ResidencyName) -> None:
            async with slots:
                if name not in self._factory.specs:
                    # It was removed meanwhile.
                    return
                try:
                    self.estimates[name] = (await self._factory.estimate(name, is_offline=True))[0]
                    self.states[name] = "here"
                except RepositoryUnavailable as unavailable:
                    # One that is here, but derives from a repository that is not, is downloaded from there.
                    self.states[name] = "remote" if unavailable.why == "offline" else "unusable"
                except UnusableModel as unusable:
                    self.states[name], problems[name] = "unusable", str(unusable)

        await asyncio.gather(*map(look, names))
        return problems
