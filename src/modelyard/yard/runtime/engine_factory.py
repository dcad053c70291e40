"""Makes the files, the footprint and the engine of a model from its configuration."""

from __future__ import annotations

import asyncio
import os
from collections.abc import Awaitable, Callable, Mapping, Sequence
from dataclasses import replace
from functools import partial
from pathlib import Path
from typing import Final

from modelyard.engine.hosts.trial_task import TrialTask
from modelyard.engine.placing import LlamaDevice, accelerators
from modelyard.engine.settings import EngineSettings
from modelyard.errors import ConfigError, ConfigProblem, RepositoryUnavailable, UnusableModel
from modelyard.hub import (
    POOLED_KINDS,
    FileRequest,
    ModelFiles,
    Progress,
    Stores,
)
from modelyard.protocol.events import Publish
from modelyard.protocol.placement import HOST_NAME, PlacedBytes, Placement
from modelyard.system.cores import compute_cores
from modelyard.system.file_stamp import FileStamp, first_changed
from modelyard.yard.memory.arrangement import arranged
from modelyard.yard.memory.fit_context import ContextRange
from modelyard.yard.memory.footprint import Choices
from modelyard.yard.runtime.adapter_files import NO_ADAPTERS, AdapterFiles, find_adapters
from modelyard.yard.runtime.context_sizes import with_sizes
from modelyard.yard.runtime.dry_loads import DryLoads
from modelyard.yard.runtime.files_ahead import FilesAhead
from modelyard.yard.runtime.fitting import context_range, placing
from modelyard.yard.runtime.hosts_on_demand import HostsOnDemand
from modelyard.yard.runtime.interfaces import EngineHandle, ModelFilesReplaced, ModelOutgrown
from modelyard.yard.runtime.isolation import Host
from modelyard.yard.runtime.known_models import KnownModels
from modelyard.yard.runtime.model_checks import misplaced, side_by_side
from modelyard.yard.runtime.model_choices import choices_of, draft_placement
from modelyard.yard.runtime.model_files import ModelFileProvider
from modelyard.yard.runtime.model_fitter import ModelFitter
from modelyard.yard.runtime.model_spec import (
    ModelSpec,
    SpecFiles,
    draft_of,
    draft_settings,
    engine_settings,
    file_request,
    trial_tasks,
)
from modelyard.yard.runtime.placements import may_use_devices, placement_of
from modelyard.yard.runtime.remote_models import NO_MEMORY, RemoteModels
from modelyard.yard.runtime.sized_for import DeviceMemory
from modelyard.yard.runtime.trial_footprints import with_trials
from modelyard.yard.runtime.trials import Trials

MAX_REPLACED_IN_ROW: Final = 3
"""How often a load sizes its model again because files were replaced: one that is being written differs each time."""

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
        budget_bytes: memory of the host that all models may take together.
        device_budgets: the same of each device, by its pool.
        devices: all devices of the machine, as they were last listed; () without accelerators. Set before ``check``.
        known_devices: all devices that were listed at the start, some of which may be gone; () where none were.
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
        self.budget_bytes = 0
        self.device_budgets: Mapping[str, int] = {}
        self.devices: tuple[LlamaDevice, ...] = ()
        self.known_devices: tuple[LlamaDevice, ...] = ()
        self.fitter = ModelFitter(lambda: self.specs, self.files, self._range, lambda: self.budgets, self._read_quietly)
        self._make_handle = make_engine
        self._hosts = HostsOnDemand(auto_host, lambda: self.specs)
        self._reading = FilesAhead()
        # Scripted engines have no files to try.
        self._trials = Trials() if make_engine is None else None
        self._dry_loads = dry_loads or (DryLoads() if make_engine is None else None)
        # Files that were sized, kept until the load: a header with 262,144 tokens takes 0.2 s to read.
        self._checked: dict[str, SpecFiles] = {}
        self._sized: dict[str, tuple[FileStamp, ...]] = {}
        self._sized_for: dict[str, DeviceMemory] = {}
        self._choices_of: dict[str, Choices] = {}
        # Placements in which the choices of a model are known to follow llama.cpp's plan.
        self._planned: dict[str, set[Placement]] = {}
        # How often, in a row, files were replaced between sizing and load.
        self._replaced: dict[str, int] = {}
        self.known = KnownModels(lambda: self.specs)

    async def check(self, names: list[str]) -> dict[str, Choices]:
        """Return the footprints of all ``names``, in each placement that they may have.

        Raises:
            ConfigError: files of some of them are missing or unusable, the API key of one is not in the environment, or
                a known model is assigned a device that does not exist; the error lists each problem.
        """
        local = [spec for spec in self.specs.values() if not spec.model.is_remote]
        misplaced_ones = await asyncio.to_thread(misplaced, local, self.known_devices) if local else []
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
        present = DeviceMemory.of(self.devices, self.device_budgets)
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
            files = await self._files(self.specs[model], partial(self.files.get, model))
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
            files = await self._files(spec, provider.estimate)
        except RepositoryUnavailable:
            raise
        except UnusableModel as unusable:
            raise (unusable if is_offline else self._without_path(model, unusable)) from unusable
        await self.fitter.estimate_context(model, files)
        self.known.note(model, files)
        return await asyncio.to_thread(self._choices, self.specs.get(model, spec), files)

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
            files = self._checked.pop(model, None)
            if files is None:
                files = await self._files(spec, partial(self.files.get, model))
        except UnusableModel as unusable:
            raise self._without_path(model, unusable) from unusable
        await self._check_sized(model, files)
        self.known.note(model, files)
        settings = self._placed(await asyncio.to_thread(engine_settings, spec, files), spec, files, placement)
        if self._dry_loads is not None and self.devices and (placement.devices or settings.draft_placement.devices):
            await self._plan(model, files, settings, self._dry_loads)
        if self._trials is not None and spec.config.runtime.trial:
            # Beside streams fewer threads are done sooner than many that wait for each other.
            cores = max(1, compute_cores() // 2) if self._hosts.are_computing else None
            for task, _ in trial_tasks(files, settings):
                await self._try(model, self._trials, replace(task, cores=cores))
        settings = replace(settings, first_cells=cells or None)
        if self._make_handle is not None:
            return self._make_handle(settings, publish)
        is_isolated = await asyncio.to_thread(self._isolates, spec, files.model.paths)
        return self._hosts.hosts().engine(settings, publish, is_isolated=is_isolated)

    async def _check_sized(self, model: str, files: SpecFiles) -> None:
        """Refuse files that are not those that were sized, or that changed since their headers were read."""
        sized = self._sized.get(model)
        changed = await asyncio.to_thread(first_changed, files.stamps)
        if changed is None and sized is not None:
            known = {stamp.contents for stamp in sized}
            others = [stamp.path for stamp in files.stamps if stamp.contents not in known]
            # A model may be its own draft model, from the same file.
            count = len({stamp.contents for stamp in files.stamps})
            changed = next(iter(others), None if len(known) == count else files.model.paths[0])
        replaced = self._replaced.pop(model, 0)
        if changed is None:
            return
        if replaced >= MAX_REPLACED_IN_ROW:
            raise UnusableModel(f"{changed.name} changes while it is looked into. Try again when it is complete.")
        self._replaced[model] = replaced + 1
        raise ModelFilesReplaced(changed.name)

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
        planned = await self._with_trials(self.specs[model], files)
        before = next((each for each in sized if each.placement == placement), None)
        after = next((each for each in planned if each.placement == placement), None)
        if before is not None and after is not None and after.exceeds(before):
            self._checked[model], self._choices_of[model] = files, planned
            raise ModelOutgrown(after)

    async def find_adapters(self, model: str, spec: ModelSpec) -> AdapterFiles | None:
        """Return the adapters that ``spec`` gives a model; None where its own files are not on this machine.

        Raises:
            UnusableModel: one of them is missing, damaged, or for another model.
        """
        if spec.model.is_remote:
            return None
        try:
            return (await self._files(spec, self.files.offline().estimate)).adapters
        except RepositoryUnavailable:
            return None
        except UnusableModel as unusable:
            raise self._without_path(model, unusable) from unusable

    def replace_adapters(self, model: str, adapters: AdapterFiles | None) -> int:
        """Note the adapters that a model has from now on, None: not known; return how many bytes it takes more."""
        # What was read of its files has the adapters of before.
        self._checked.pop(model, None)
        self._sized.pop(model, None)
        batch = self.specs[model].config.runtime.batch_tokens
        before, after = self.known.adapters(model), adapters or NO_ADAPTERS
        self.known.note_adapters(model, after)
        return after.size_bytes(batch) - before.size_bytes(batch)

    def read_ahead(self, model: str) -> None:
        """Begin to read the files of a model, unless those of another one are being read. Returns at once."""
        if self._make_handle is None:
            self._reading.begin(model, [stamp.path for stamp in self._sized.get(model, ())])

    def discard(self, model: str) -> None:
        """Drop everything that is known of a model."""
        self._reading.end(model)
        self.fitter.discard(model)
        self.remotes.discard(model)
        self.specs.pop(model, None)
        self._checked.pop(model, None)
        self._sized.pop(model, None)
        self._sized_for.pop(model, None)
        self._choices_of.pop(model, None)
        self._planned.pop(model, None)
        self._replaced.pop(model, None)
        self.known.discard(model)

    def close(self) -> None:
        """End the processes that held engines. All engines must have ended."""
        self._reading.close()
        self._hosts.close()

    async def _size(self, name: str) -> Choices:
        spec, before, has_other_memory = self.specs[name], self._sized.get(name), name in self.outdated()
        files = await self._read(name)
        is_replaced = before not in (None, files.stamps)
        await self.fitter.settle_context(name, files, is_replaced=is_replaced, has_other_memory=has_other_memory)
        return await self._size_of(self.specs.get(name, spec), name, files)

    async def _read(self, name: str) -> SpecFiles:
        files = self._checked[name] = await self._files(self.specs[name], partial(self.files.get, name))
        self._sized[name] = files.stamps
        return files

    async def _read_quietly(self, name: str) -> SpecFiles:
        """Return the files of a model that are on this machine, without any change of what is known of it."""
        return await self._files(self.specs[name], self.files.offline().estimate)

    async def _size_of(self, spec: ModelSpec, name: str, files: SpecFiles) -> Choices:
        self.known.note(name, files)
        self._planned.pop(name, None)
        if name in self.specs:
            self._sized_for[name] = DeviceMemory.of(self.devices, self.device_budgets)
        choices = await self._with_trials(spec, files)
        self._choices_of[name] = preferred = self.fitter.with_preferred(name, choices)
        return preferred

    async def _with_trials(self, spec: ModelSpec, files: SpecFiles) -> Choices:
        """Return the footprints of a model, with what trials take that precede its engine."""
        # On another thread, because it takes ten milliseconds or more, which would delay streams.
        choices = await asyncio.to_thread(lambda: with_sizes(spec, files, self._choices(spec, files)))
        if await asyncio.to_thread(self._isolates, spec, files.model.paths):
            self._hosts.hosts().prepare_process()
            choices = tuple(each.in_process() for each in choices)
        if self._trials is None or not spec.config.runtime.trial:
            return choices
        settings = await asyncio.to_thread(engine_settings, spec, files)
        place = partial(self._placed, settings, spec, files)
        return await with_trials(choices, files, place, self._trials, self.budget_bytes)

    def _choices(self, spec: ModelSpec, files: SpecFiles) -> Choices:
        if self._dry_loads is None or not self.devices:
            return choices_of(spec, files, self.devices, are_gone=self._are_gone)
        settings, dry_loads = engine_settings(spec, files), self._dry_loads
        drafting = draft_settings(settings, files)

        def known(of: EngineSettings | None, placement: Placement) -> PlacedBytes | None:
            return None if of is None else dry_loads.known(replace(of, placement=placement))

        return choices_of(spec, files, self.devices, partial(known, settings), partial(known, drafting))

    @property
    def _are_gone(self) -> bool:
        """Whether there were accelerators at the start, and none is left."""
        return bool(accelerators(self.known_devices)) and not accelerators(self.devices)

    @property
    def budgets(self) -> Mapping[str, int]:
        """The bytes of each pool of memory that all models may take together."""
        return {HOST_NAME: self.budget_bytes, **self.device_budgets}

    def _range(self, spec: ModelSpec, files: SpecFiles) -> ContextRange:
        """Return the lengths that the context of a model may have, with its footprints in all placements."""
        # Files that are yet to be made or downloaded have no record of deaths.
        present = [path for path in files.model.paths if path.is_file()]
        is_isolated = partial(self._isolates, spec, present)
        place = placing(spec, lambda fitted: self._choices(fitted, files), is_isolated=is_isolated)
        is_tried = self._trials is not None and spec.config.runtime.trial
        return context_range(spec.model, files.model, place, is_tried=is_tried)

    def _placed(
        self, settings: EngineSettings, spec: ModelSpec, files: SpecFiles, placement: Placement
    ) -> EngineSettings:
        where = draft_placement(spec, files, placement, self.devices, are_gone=self._are_gone)
        return replace(settings, placement=placement, draft_placement=where)

    async def _files(
        self, spec: ModelSpec, find: Callable[[FileRequest, Callable[[ModelFiles], bool]], Awaitable[ModelFiles]]
    ) -> SpecFiles:
        def fits(files: ModelFiles) -> bool:
            return bool(arranged({"": self._choices(spec, SpecFiles(files, None))}, self.budgets))

        files = await find(file_request(spec.config, spec.model), fits)
        adapters = await asyncio.to_thread(find_adapters, spec.model, files)
        draft = draft_of(spec)
        if draft is None:
            return SpecFiles(files, None, adapters)
        if files.kind in POOLED_KINDS:
            raise UnusableModel(
                f"It generates no text, so that nothing can be drafted for it. Remove draft = '{draft.id}'."
            )
        try:
            draft_files = await find(file_request(spec.config, draft), fits)
            if draft_files.kind in POOLED_KINDS:
                raise UnusableModel("It generates no text.")
            return SpecFiles(files, draft_files, adapters)
        except UnusableModel as unusable:
            shown = str(unusable).replace(draft.source, Path(draft.source).name)
            raise UnusableModel(f"Its draft model '{draft.id}': {shown}") from unusable

    def _without_path(self, name: str, unusable: UnusableModel) -> UnusableModel:
        """Return the error without the folder of the model: clients must not read paths of the server."""
        source = Path(self.specs[name].model.source)
        text = str(unusable).replace(str(source), source.name)
        # Other files of the folder, such as shards, are named without it, too.
        return UnusableModel(text.replace(f"{source.parent}{os.sep}", "") if source.is_absolute() else text)

    def _isolates(self, spec: ModelSpec, paths: Sequence[Path]) -> bool:
        """Whether the engine of a model gets a process of its own. Scripted engines never do."""
        return self._make_handle is None and self._hosts.isolates(spec, paths, self.known_devices)
