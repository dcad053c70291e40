"""Makes the files, the footprint and the engine of a model from its configuration."""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from dataclasses import replace
from functools import partial

from modelyard.engine.hosts.trial_task import TrialTask
from modelyard.engine.settings import EngineSettings
from modelyard.errors import ConfigError, ConfigProblem, RepositoryUnavailable, UnusableModel
from modelyard.hub import Progress, Stores
from modelyard.protocol.events import Publish
from modelyard.protocol.placement import Placement
from modelyard.system.cores import compute_cores
from modelyard.yard.memory.footprint import Choices
from modelyard.yard.runtime.adapter_files import NO_ADAPTERS, AdapterFiles
from modelyard.yard.runtime.dry_loads import DryLoads
from modelyard.yard.runtime.files_ahead import FilesAhead
from modelyard.yard.runtime.find_files import find_files, without_path
from modelyard.yard.runtime.hosts_on_demand import HostsOnDemand
from modelyard.yard.runtime.interfaces import EngineHandle, ModelOutgrown
from modelyard.yard.runtime.isolation import Host
from modelyard.yard.runtime.known_models import KnownModels
from modelyard.yard.runtime.machine_memory import MachineMemory
from modelyard.yard.runtime.model_checks import misplaced, side_by_side
from modelyard.yard.runtime.model_files import ModelFileProvider
from modelyard.yard.runtime.model_fitter import ModelFitter
from modelyard.yard.runtime.model_sizer import ModelSizer
from modelyard.yard.runtime.model_spec import (
    ModelSpec,
    SpecFiles,
    draft_settings,
    engine_settings,
    file_request,
    trial_tasks,
)
from modelyard.yard.runtime.placements import may_use_devices, placement_of
from modelyard.yard.runtime.remote_models import NO_MEMORY, RemoteModels
from modelyard.yard.runtime.sized_files import SizedFiles
from modelyard.yard.runtime.sized_for import DeviceMemory
from modelyard.yard.runtime.trials import Trials

MakeEngine = Callable[[EngineSettings, Publish], EngineHandle]


class EngineFactory:
    """Makes engines; see ``interfaces.EngineSource``. Models are named as in the residency.

    Args:
        make_engine: makes an engine of settings; None: the real one. Tests script it.
        stores: where files come from and where converted ones go.
        auto_host: as in ``Yard``.
        dry_loads: asks llama.cpp what models will take; None: the real one, for real engines.
        remotes: makes the engines of models that other servers have; None: those that ask over HTTP.

    Attributes:
        specs: the models that are known.
        files: finds and prepares their files.
        fitter: what was chosen for them where their configuration leaves it open.
        remotes: those of them that other servers have, of which there are no files.
        known: what the files of models tell of them.
        memory: budgets and devices of the machine. Set before ``check``.
    """

    def __init__(
        self,
        make_engine: MakeEngine | None = None,
        stores: Stores | None = None,
        auto_host: Host = "thread",
        dry_loads: DryLoads | None = None,
        remotes: RemoteModels | None = None,
    ) -> None:
        self.specs: dict[str, ModelSpec] = {}
        self.files = ModelFileProvider(stores or Stores())
        self.remotes = remotes or RemoteModels()
        self.memory = MachineMemory()
        self._make_handle = make_engine
        self._hosts = HostsOnDemand(auto_host, lambda: self.specs)
        self._reading = FilesAhead()
        # Scripted engines have no files to try.
        self._trials = Trials() if make_engine is None else None
        self._dry_loads = dry_loads or (DryLoads() if make_engine is None else None)
        hosts = self._hosts if make_engine is None else None
        self._sizer = ModelSizer(self.memory, hosts, self._trials, self._dry_loads)
        self.fitter = ModelFitter(
            lambda: self.specs, self.files, self._sizer.context_range, lambda: self.memory.budgets, self._read_quietly
        )
        self._sized = SizedFiles()
        self._sized_for: dict[str, DeviceMemory] = {}
        self._choices_of: dict[str, Choices] = {}
        # Placements in which the choices of a model are known to follow llama.cpp's plan.
        self._planned: dict[str, set[Placement]] = {}
        self.known = KnownModels(lambda: self.specs)

    async def check(self, names: list[str]) -> dict[str, Choices]:
        """Return the footprints of all ``names``, in each placement that they may have.

        Raises:
            ConfigError: files of some of them are missing or unusable, the API key of one is not in the environment, or
                a known model is assigned a device that does not exist; the error lists each problem.
        """
        local = [spec for spec in self.specs.values() if not spec.model.is_remote]
        misplaced_ones = await asyncio.to_thread(misplaced, local, self.memory.known_devices) if local else []
        remote = [name for name in names if self.specs[name].model.is_remote]
        problems: list[ConfigProblem | str] = [*misplaced_ones]
        problems += self.remotes.problems(self.specs[name].model for name in remote)
        if problems:
            raise ConfigError("", problems)
        sized = await self._check_files([name for name in names if name not in remote])
        # In the order of the models, in which they are loaded.
        return {name: (NO_MEMORY,) if name in remote else sized[name] for name in names}

    async def _check_files(self, names: list[str]) -> dict[str, Choices]:
        """Return the footprints of models of this machine, in each placement that they may have."""
        if not names:
            return {}
        await self.fitter.choose_quants(names)
        ids = {name: self.specs[name].model.id for name in names}
        read = await side_by_side(ids, self._read)
        await self.fitter.choose_contexts(read, is_together=True)
        sized = await side_by_side(ids, lambda name: self._size_of(self.specs[name], name, read[name]))
        self._choices_of |= (preferred := self.fitter.arrange(sized))
        return preferred

    def is_remote(self, model: str) -> bool:
        """Whether other servers have the model."""
        spec = self.specs.get(model)
        return spec is not None and spec.model.is_remote

    async def size(self, model: str) -> Choices:
        """Return the memory that the model will take, in each placement that it may have.

        Raises:
            UnusableModel: its files are missing or unusable.
        """
        if self.is_remote(model):
            return (NO_MEMORY,)
        try:
            return await self._size(model)
        except UnusableModel as unusable:
            raise self._without_path(model, unusable) from unusable

    def outdated(self) -> list[str]:
        """Return the models that are to be sized again before their next load, for the memory of devices by now."""
        present = DeviceMemory.of(self.memory.devices, self.memory.device_budgets)
        return [
            model
            for model, sized_for in self._sized_for.items()
            if sized_for.is_outdated(present, has_fitted_context=self.fitter.is_open(model))
            and may_use_devices(placement_of(self.specs[model].config, self.specs[model].model))
        ]

    async def prepare(self, model: str) -> None:
        """Download and convert the files of the model, as far as they are not on this machine.

        Raises:
            UnusableModel: its files are missing or unusable.
        """
        if self.is_remote(model):
            return
        try:
            files = await self._files(self.specs[model], prepared_as=model)
        except UnusableModel as unusable:
            raise self._without_path(model, unusable) from unusable
        self.known.note(model, files)

    async def estimate(self, model: str, *, is_offline: bool = False) -> Choices:
        """Return about what the model will take, also where its files are not on this machine. Prepares nothing.

        Args:
            model: its name in the residency.
            is_offline: whether only files count that are on this machine.

        Raises:
            RepositoryUnavailable: ``is_offline``, and its files are not on this machine.
            UnusableModel: its files are missing or unusable.
        """
        spec = self.specs[model]
        if spec.model.is_remote:
            return (NO_MEMORY,)
        provider = self.files.offline() if is_offline else self.files
        try:
            files = await self._files(spec, provider)
        except RepositoryUnavailable:
            raise
        except UnusableModel as unusable:
            raise (unusable if is_offline else self._without_path(model, unusable)) from unusable
        await self.fitter.estimate_context(model, files)
        self.known.note(model, files)
        return await asyncio.to_thread(self._sizer.choices, self.specs.get(model, spec), files)

    async def make(self, model: str, publish: Publish, placement: Placement, cells: int = 0) -> EngineHandle:
        """Return an engine of the model in ``placement``, not yet started.

        Its context begins with so many KV cells; 0: with all that it may have.

        Raises:
            UnusableModel: its files are missing or unusable, or are replaced again and again.
            ModelFilesReplaced: the files are not those that were sized.
            ModelOutgrown: the model takes more there than it was sized with.
        """
        spec = self.specs[model]
        if spec.model.is_remote:
            return await self.remotes.make(model, spec, publish)
        self._reading.end(model)
        try:
            files = self._sized.take(model)
            if files is None:
                files = await self._files(spec, prepared_as=model)
        except UnusableModel as unusable:
            raise self._without_path(model, unusable) from unusable
        await self._sized.check(model, files)
        self.known.note(model, files)
        settings = self._sizer.placed(await asyncio.to_thread(engine_settings, spec, files), spec, files, placement)
        if (
            self._dry_loads is not None
            and self.memory.devices
            and (placement.devices or settings.draft_placement.devices)
        ):
            await self._plan(model, files, settings, self._dry_loads)
        if self._trials is not None and spec.config.runtime.trial:
            # Beside streams fewer threads are done sooner than many that wait for each other.
            cores = max(1, compute_cores() // 2) if self._hosts.are_computing else None
            for task, _ in trial_tasks(files, settings):
                await self._try(model, self._trials, replace(task, cores=cores))
        settings = replace(settings, first_cells=cells or None)
        if self._make_handle is not None:
            return self._make_handle(settings, publish)
        is_isolated = await asyncio.to_thread(self._sizer.isolates, spec, files.model.paths)
        return self._hosts.hosts().engine(settings, publish, is_isolated=is_isolated)

    async def _try(self, model: str, trials: Trials, task: TrialTask) -> None:
        try:
            await trials.check(
                task, lambda step: self.files.report_progress(model, Progress(f"trying the file: {step}", 0.0))
            )
        except UnusableModel as unusable:
            raise self._without_path(model, unusable) from unusable
        finally:
            self.files.progress.pop(model, None)

    async def _plan(self, model: str, files: SpecFiles, settings: EngineSettings, dry_loads: DryLoads) -> None:
        """Have llama.cpp plan a load, unless it was planned before, and compare it with what the model was sized with.

        Another model with the same files and settings may have been planned after this one was sized.

        Raises:
            ModelOutgrown: the model takes more than it was sized with.
        """
        parts = [settings, *filter(None, (draft_settings(settings, files),))]
        for part in parts:
            if part.placement.devices:
                await dry_loads.find(part)
        sized, placement = self._choices_of.get(model, ()), settings.placement
        compared = self._planned.setdefault(model, set())
        if placement in compared or all(dry_loads.known(part) is None for part in parts):
            return
        compared.add(placement)
        planned = await self._sizer.footprints(self.specs[model], files)
        before = next((each for each in sized if each.placement == placement), None)
        after = next((each for each in planned if each.placement == placement), None)
        if before is not None and after is not None and after.exceeds(before):
            self._sized.keep_read(model, files)
            self._choices_of[model] = planned
            raise ModelOutgrown(after)

    async def find_adapters(self, model: str, spec: ModelSpec) -> AdapterFiles | None:
        """Return the adapters that ``spec`` gives a model; None where its own files are not on this machine.

        Raises:
            UnusableModel: one of them is missing, damaged, or for another model.
        """
        if spec.model.is_remote:
            return None
        try:
            request = file_request(spec.config, spec.model)
            files = await self.files.offline().estimate(request, partial(self._sizer.fits, spec))
            return await self.files.get_adapters(model, spec.model, files)
        except RepositoryUnavailable:
            return None
        except UnusableModel as unusable:
            raise self._without_path(model, unusable) from unusable

    def replace_adapters(self, model: str, adapters: AdapterFiles | None) -> int:
        """Note the adapters that a model has from now on, None: not known; return how many bytes it takes more."""
        # What was read of its files has the adapters of before.
        self._sized.drop_read(model)
        batch = self.specs[model].config.runtime.batch_tokens
        before, after = self.known.adapters(model), adapters or NO_ADAPTERS
        self.known.note_adapters(model, after)
        return after.size_bytes(batch) - before.size_bytes(batch)

    def read_ahead(self, model: str) -> None:
        """Begin to read the files of a model, unless those of another one are being read. Returns at once."""
        if self._make_handle is None:
            self._reading.begin(model, [stamp.path for stamp in self._sized.stamps(model) or ()])

    def discard(self, model: str) -> None:
        """Drop everything that is known of a model."""
        self._reading.end(model)
        self.fitter.discard(model)
        self.remotes.discard(model)
        self.specs.pop(model, None)
        self._sized.discard(model)
        self._sized_for.pop(model, None)
        self._choices_of.pop(model, None)
        self._planned.pop(model, None)
        self.known.discard(model)

    def close(self) -> None:
        """End the processes that held engines. All engines must have ended."""
        self._reading.close()
        self._hosts.close()

    async def _size(self, name: str) -> Choices:
        spec, before, has_other_memory = self.specs[name], self._sized.stamps(name), name in self.outdated()
        files = await self._read(name)
        is_replaced = before not in (None, files.stamps)
        await self.fitter.settle_context(name, files, is_replaced=is_replaced, has_other_memory=has_other_memory)
        return await self._size_of(self.specs.get(name, spec), name, files)

    async def _read(self, name: str) -> SpecFiles:
        files = await self._files(self.specs[name], prepared_as=name)
        self._sized.keep(name, files)
        return files

    async def _read_quietly(self, name: str) -> SpecFiles:
        """Return the files of a model that are on this machine, without any change of what is known of it."""
        return await self._files(self.specs[name], self.files.offline())

    async def _size_of(self, spec: ModelSpec, name: str, files: SpecFiles) -> Choices:
        self.known.note(name, files)
        self._planned.pop(name, None)
        if name in self.specs:
            self._sized_for[name] = DeviceMemory.of(self.memory.devices, self.memory.device_budgets)
        choices = await self._sizer.footprints(spec, files)
        self._choices_of[name] = preferred = self.fitter.with_preferred(name, choices)
        return preferred

    async def _files(
        self, spec: ModelSpec, provider: ModelFileProvider | None = None, prepared_as: str = ""
    ) -> SpecFiles:
        return await find_files(spec, provider or self.files, partial(self._sizer.fits, spec), prepared_as)

    def _without_path(self, name: str, unusable: UnusableModel) -> UnusableModel:
        return without_path(self.specs[name].model, unusable)
