"""Footprints of models: what the headers of their files predict, what llama.cpp plans, and what trials take."""

from __future__ import annotations

import asyncio
from collections.abc import Sequence
from dataclasses import replace
from functools import partial
from pathlib import Path

from modelyard.engine.settings import EngineSettings
from modelyard.hub import ModelFiles
from modelyard.protocol.placement import PlacedBytes, Placement
from modelyard.yard.memory.arrangement import arranged
from modelyard.yard.memory.fit_context import ContextRange
from modelyard.yard.memory.footprint import Choices
from modelyard.yard.runtime.adapter_files import adapters_ahead
from modelyard.yard.runtime.context_sizes import with_sizes
from modelyard.yard.runtime.dry_loads import DryLoads
from modelyard.yard.runtime.fitting import context_range, placing
from modelyard.yard.runtime.hosts_on_demand import HostsOnDemand
from modelyard.yard.runtime.machine_memory import MachineMemory
from modelyard.yard.runtime.model_choices import choices_of, draft_placement
from modelyard.yard.runtime.model_spec import ModelSpec, SpecFiles, draft_settings, engine_settings
from modelyard.yard.runtime.trial_footprints import with_trials
from modelyard.yard.runtime.trials import Trials


class ModelSizer:
    """Sizes models in each placement that they may have on this machine.

    Args:
        memory: budgets and devices of the machine.
        hosts: where engines run; None: engines are scripted, and none has a process of its own.
        trials: of files that precede engines; None: there are none.
        dry_loads: what llama.cpp has planned for models on devices; None: it plans nothing.
    """

    def __init__(
        self,
        memory: MachineMemory,
        hosts: HostsOnDemand | None = None,
        trials: Trials | None = None,
        dry_loads: DryLoads | None = None,
    ) -> None:
        self._memory = memory
        self._hosts = hosts
        self._trials = trials
        self._dry_loads = dry_loads

    def choices(self, spec: ModelSpec, files: SpecFiles) -> Choices:
        """Return the footprints of a model, without trials. Takes ten milliseconds or more."""
        devices, are_gone = self._memory.devices, self._memory.has_lost_accelerators
        if self._dry_loads is None or not devices:
            return choices_of(spec, files, devices, are_gone=are_gone)
        settings, dry_loads = engine_settings(spec, files), self._dry_loads
        drafting = draft_settings(settings, files)

        def known(of: EngineSettings | None, placement: Placement) -> PlacedBytes | None:
            return None if of is None else dry_loads.known(replace(of, placement=placement))

        return choices_of(spec, files, devices, partial(known, settings), partial(known, drafting))

    async def footprints(self, spec: ModelSpec, files: SpecFiles) -> Choices:
        """Return the footprints of a model, with what trials take that precede its engine.

        Raises:
            UnusableModel: a file cannot be read.
        """
        # On another thread, because it would delay streams.
        choices = await asyncio.to_thread(lambda: with_sizes(spec, files, self.choices(spec, files)))
        if self._hosts is not None and await asyncio.to_thread(self.isolates, spec, files.model.paths):
            self._hosts.hosts().prepare_process()
            choices = tuple(each.in_process() for each in choices)
        if self._trials is None or not spec.config.runtime.trial:
            return choices
        settings = await asyncio.to_thread(engine_settings, spec, files)
        place = partial(self.placed, settings, spec, files)
        return await with_trials(choices, files, place, self._trials, self._memory.budget_bytes)

    def context_range(self, spec: ModelSpec, files: SpecFiles) -> ContextRange:
        """Return the lengths that the context of a model may have, with its footprints in all placements."""
        # Files that are yet to be made or downloaded have no record of deaths.
        present = [path for path in files.model.paths if path.is_file()]
        is_isolated = partial(self.isolates, spec, present)
        place = placing(spec, lambda fitted: self.choices(fitted, files), is_isolated=is_isolated)
        is_tried = self._trials is not None and spec.config.runtime.trial
        return context_range(spec.model, files.model, place, is_tried=is_tried)

    def fits(self, spec: ModelSpec, files: ModelFiles) -> bool:
        """Whether a model on these files fits the budgets by itself."""
        return bool(
            arranged({"": self.choices(spec, SpecFiles(files, None, adapters_ahead(spec.model)))}, self._memory.budgets)
        )

    def placed(
        self, settings: EngineSettings, spec: ModelSpec, files: SpecFiles, placement: Placement
    ) -> EngineSettings:
        """Return the settings of an engine with the model in ``placement``, and its draft model in one that suits."""
        devices, are_gone = self._memory.devices, self._memory.has_lost_accelerators
        where = draft_placement(spec, files, placement, devices, are_gone=are_gone)
        return replace(settings, placement=placement, draft_placement=where)

    def isolates(self, spec: ModelSpec, paths: Sequence[Path]) -> bool:
        """Whether the engine of a model gets a process of its own.

        Raises:
            UnusableModel: a file cannot be read.
        """
        return self._hosts is not None and self._hosts.isolates(spec, paths, self._memory.known_devices)
